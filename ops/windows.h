// Helpers for functions that move windows over one to three spatial axes.
#ifndef GRADWEAVE_OPS_WINDOWS_H_
#define GRADWEAVE_OPS_WINDOWS_H_

#include <cstdint>
#include <optional>

#include "absl/strings/string_view.h"
#include "gradweave/ops/builder.h"
#include "gradweave/ops/conv_nd.h"

namespace gradweave {

// The windows of each spatial axis, with all lists complete.
struct Windows {
  Integers taps, stride, dilation, low, high;

  // The number of elements that a window spans.
  int64_t Reach(int axis) const { return dilation[axis] * (taps[axis] - 1) + 1; }
};

// Returns the windows of x [batch, channels, spatial axes...]: fills empty lists and chooses
// padding. The taps are known. Records an error of the function and returns nullopt for 0 or more
// than 3 axes, lists of other lengths, numbers that are too small or at least 2^31, and an unknown
// size that padding depends on.
std::optional<Windows> CompleteWindows(absl::string_view function, const Operand& x, Integers taps,
                                       const ConvNDOptions& options);

// Fills an empty list. Returns true if there are `count` numbers from `least` to below 2^31.
bool CompleteNumbers(Integers& numbers, size_t count, int64_t least, int64_t otherwise);

// x's shape with other spatial axes.
Shape WithSpatial(const Shape& x, std::initializer_list<Dim> spatial);

}  // namespace gradweave

#endif  // GRADWEAVE_OPS_WINDOWS_H_
