// Convolutions over one to three spatial axes, composed of convolutions over two. The layout is
// [batch, channels, spatial axes...]. Errors are recorded in the graph.
#ifndef GRADWEAVE_OPS_CONV_ND_H_
#define GRADWEAVE_OPS_CONV_ND_H_

#include <cstdint>

#include "gradweave/ops/builder.h"

namespace gradweave {

// Padding that a function chooses. kSameUpper and kSameLower give ceil(size/stride) elements; if
// the padding is odd, the larger part comes after x (upper) or before it. kValid pads nothing.
enum class AutoPadding { kNone, kSameUpper, kSameLower, kValid };

// Options of windows over spatial axes. Each list has one number for each axis. Empty lists mean
// ones, or zeros for the padding.
struct ConvNDOptions {
  Integers stride, dilation;           // At least 1.
  Integers padding_low, padding_high;  // Zeros before and behind x along each axis; at least 0.
  // If not kNone, replaces the padding. The kSame ones need known sizes.
  AutoPadding auto_padding = AutoPadding::kNone;
  int64_t groups = 1;
};
// x [n, c, sizes...], filter [o, c/groups, taps...], bias [o] -> [n, o, sizes...]. See Conv2D.
Value ConvND(Operand x, Operand filter, const ConvNDOptions& options = {});
Value ConvND(Operand x, Operand filter, Operand bias, const ConvNDOptions& options = {});

// Options of ConvTransposeND. They mean the same as for the ConvND that it transposes.
struct ConvTransposeNDOptions {
  Integers stride, dilation, padding_low, padding_high;
  // Extra elements behind each axis; at least 0 and below the stride or the dilation. Empty means
  // zeros.
  Integers output_padding;
  // The sizes of the result's spatial axes. If given, they determine the padding, which
  // auto_padding divides; kNone acts like kSameLower.
  Integers output_sizes;
  // kSameUpper and kSameLower: the result has size*stride elements.
  AutoPadding auto_padding = AutoPadding::kNone;
  int64_t groups = 1;
};
// x [n, c, sizes...], filter [c, o/groups, taps...], bias [o] -> [n, o, sizes...], with (size -
// 1)*stride + dilation*(taps - 1) + 1 + output_padding - padding elements. See ConvTranspose2D.
Value ConvTransposeND(Operand x, Operand filter, const ConvTransposeNDOptions& options = {});
Value ConvTransposeND(Operand x, Operand filter, Operand bias, const ConvTransposeNDOptions& options = {});

}  // namespace gradweave

#endif  // GRADWEAVE_OPS_CONV_ND_H_
