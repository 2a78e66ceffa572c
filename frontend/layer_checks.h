// Checks of the inputs and settings of layers. Each records an error in the graph if the check
// fails, and records none if x is not valid, because the graph already has one.
#ifndef GRADWEAVE_FRONTEND_LAYER_CHECKS_H_
#define GRADWEAVE_FRONTEND_LAYER_CHECKS_H_

#include <cstdint>
#include <initializer_list>

#include "absl/strings/string_view.h"
#include "gradweave/graph/graph.h"
#include "gradweave/graph/shape.h"

namespace gradweave::nn {

// Returns the size of an axis that determines the shape of variables; negative axes count from the
// end. Returns 0 with an error if the size is unknown or x has fewer axes than `least_rank`.
int64_t KnownSize(absl::string_view layer, const Value& x, int axis, int least_rank);

// A number of a layer that counts something: from `least` to 2^31 - 1, so that products of two
// cannot overflow.
struct SizeCheck {
  absl::string_view name;
  int64_t size;
  int64_t least = 1;
};
// Returns true if x is valid and all sizes are in range.
bool CheckSizes(absl::string_view layer, const Value& x, std::initializer_list<SizeCheck> checks);

// Returns true if `divisor`, which is positive, divides the whole; the names are those that the
// error tells.
bool CheckDivides(absl::string_view layer, const Value& x, absl::string_view name, int64_t divisor,
                  absl::string_view whole_name, int64_t whole);

// Returns true if the lengths (CallOptions::lengths) are not given, or are integers [batch] for x
// [batch, ...].
bool CheckLengths(absl::string_view layer, const Value& x, const Value& lengths);

// The result of a layer that recorded an error.
inline Value Invalid(const Value& x) { return Value(x.graph(), Port{}); }

// The shape that makes one value for each channel (axis 1) broadcast with x: [channels, 1, ...].
Shape ChannelShape(const Value& x);

}  // namespace gradweave::nn

#endif  // GRADWEAVE_FRONTEND_LAYER_CHECKS_H_
