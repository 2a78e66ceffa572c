// Pooling over windows of height and width. The layout is [batch, channels, height, width]. Errors
// are recorded in the graph.
#ifndef GRADWEAVE_OPS_POOL_H_
#define GRADWEAVE_OPS_POOL_H_

#include "gradweave/ops/builder.h"

namespace gradweave {

// Options of AvgPool2D and MaxPool2D.
struct Pool2DOptions {
  Integers window = {2, 2};  // Height, width; at least 1.
  Integers stride = {};      // Height, width; empty means the window.
  // Top, bottom, left, right, or {height, width} for both sides. Smaller than the window.
  Integers padding = {0, 0, 0, 0};
  bool count_padding = false;  // AvgPool2D divides by the window's size, padding included.
};
// x [n, c, h, w] -> [n, c, oh, ow], with oh = floor((h + top + bottom - window)/stride) + 1.
Value AvgPool2D(Operand x, Pool2DOptions options = {});
Value MaxPool2D(Operand x, Pool2DOptions options = {});  // The first of several equal maxima gets the gradient.
// Averages over height and width: [n, c, h, w] -> [n, c].
Value GlobalAvgPool(Operand x);

}  // namespace gradweave

#endif  // GRADWEAVE_OPS_POOL_H_
