// Pooling over windows of height and width, layout [batch, channels, height, width].
#ifndef GRADWEAVE_OPS_POOL_H_
#define GRADWEAVE_OPS_POOL_H_

#include "gradweave/ops/builder.h"

namespace gradweave {

struct Pool2DOptions {
  Integers window = {2, 2};         // Height, width.
  Integers stride = {};             // The window where empty.
  Integers padding = {0, 0, 0, 0};  // Top, bottom, left, right, or {height, width}; less than the window.
  bool count_padding = false;       // AvgPool2D: whether padding counts in the divisor.
};
Value AvgPool2D(Operand x, Pool2DOptions options = {});
Value MaxPool2D(Operand x, Pool2DOptions options = {});  // The first of several largest gets the gradient.
// The mean over height and width: [n, c, h, w] -> [n, c].
Value GlobalAvgPool(Operand x);

}  // namespace gradweave

#endif  // GRADWEAVE_OPS_POOL_H_
