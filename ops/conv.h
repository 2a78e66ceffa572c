// Two-dimensional convolution (cross-correlation, as in deep learning), layout [batch, channels, height, width].
#ifndef GRADWEAVE_OPS_CONV_H_
#define GRADWEAVE_OPS_CONV_H_

#include <optional>

#include "gradweave/ops/builder.h"

namespace gradweave {

struct Conv2DOptions {
  Integers stride = {1, 1};         // Height, width; at least 1.
  Integers padding = {0, 0, 0, 0};  // Top, bottom, left, right zeros; {height, width} means the same on both sides.
  Integers dilation = {1, 1};       // Distance between neighbouring filter taps.
  int64_t groups = 1;               // Divides both channel counts.
};
// x [n, c, h, w], filter [o, c/groups, kh, kw], bias [o] -> [n, o, oh, ow] with oh = floor((h + top + bottom -
// dilation*(kh - 1) - 1)/stride) + 1.
Value Conv2D(Operand x, Operand filter, Conv2DOptions options = {});
Value Conv2D(Operand x, Operand filter, Operand bias, Conv2DOptions options = {});

// The gradients of Conv2D as ops, linear in both operands and differentiable in their turn. dy [n, o, oh, ow].
Value Conv2DInputGrad(Operand dy, Operand filter, Shape input_shape, Conv2DOptions options = {});
Value Conv2DFilterGrad(Operand x, Operand dy, Shape filter_shape, Conv2DOptions options = {});

struct ConvTranspose2DOptions {
  Integers stride = {1, 1};
  Integers padding = {0, 0, 0, 0};
  Integers output_padding = {0, 0};  // Added to bottom and right of the output; less than the stride or dilation.
  Integers dilation = {1, 1};
  int64_t groups = 1;
};
// The transpose of a Conv2D: x [n, c, h, w], filter [c, o/groups, kh, kw] -> [n, o, (h - 1)*stride - padding +
// dilation*(kh - 1) + 1 + output_padding, ...].
Value ConvTranspose2D(Operand x, Operand filter, ConvTranspose2DOptions options = {});
Value ConvTranspose2D(Operand x, Operand filter, Operand bias, ConvTranspose2DOptions options = {});

}  // namespace gradweave

#endif  // GRADWEAVE_OPS_CONV_H_
