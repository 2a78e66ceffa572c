// Two-dimensional convolution (cross-correlation, as in deep learning). The layout is [batch,
// channels, height, width]. Errors are recorded in the graph; docs/ops.md lists the formulas.
#ifndef GRADWEAVE_OPS_CONV_H_
#define GRADWEAVE_OPS_CONV_H_

#include <optional>

#include "gradweave/ops/builder.h"

namespace gradweave {

// Options of Conv2D.
struct Conv2DOptions {
  Integers stride = {1, 1};  // Height, width; at least 1.
  // Rows and columns of zeros: top, bottom, left, right; or {height, width}, for both sides.
  Integers padding = {0, 0, 0, 0};
  Integers dilation = {1, 1};  // Distance between neighbouring filter taps; at least 1.
  int64_t groups = 1;          // Must divide both channel counts.
};
// x [n, c, h, w], filter [o, c/groups, kh, kw], bias [o] -> [n, o, oh, ow], with oh = floor((h +
// top + bottom - dilation*(kh - 1) - 1)/stride) + 1. All have one floating dtype.
Value Conv2D(Operand x, Operand filter, Conv2DOptions options = {});
Value Conv2D(Operand x, Operand filter, Operand bias, Conv2DOptions options = {});

// The gradients of Conv2D as ops. They are linear in both operands and differentiable themselves.
// dy [n, o, oh, ow] -> input_shape [n, c, h, w] or filter_shape [o, c/groups, kh, kw].
Value Conv2DInputGrad(Operand dy, Operand filter, Shape input_shape, Conv2DOptions options = {});
Value Conv2DFilterGrad(Operand x, Operand dy, Shape filter_shape, Conv2DOptions options = {});

// Options of ConvTranspose2D. They mean the same as for the Conv2D that it transposes.
struct ConvTranspose2DOptions {
  Integers stride = {1, 1};
  Integers padding = {0, 0, 0, 0};
  // Extra rows at the bottom and columns at the right; less than max(stride, dilation).
  Integers output_padding = {0, 0};
  Integers dilation = {1, 1};
  int64_t groups = 1;
};
// The transpose of Conv2D: x [n, c, h, w], filter [c, o/groups, kh, kw], bias [o] -> [n, o, oh,
// ow], with oh = (h - 1)*stride - (top + bottom) + dilation*(kh - 1) + 1 + output_padding.
Value ConvTranspose2D(Operand x, Operand filter, ConvTranspose2DOptions options = {});
Value ConvTranspose2D(Operand x, Operand filter, Operand bias, ConvTranspose2DOptions options = {});

}  // namespace gradweave

#endif  // GRADWEAVE_OPS_CONV_H_
