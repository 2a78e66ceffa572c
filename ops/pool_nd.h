// Pools over one to three spatial axes, composed of pools over two. The layout is [batch, channels,
// spatial axes...]. Errors are recorded in the graph.
#ifndef GRADWEAVE_OPS_POOL_ND_H_
#define GRADWEAVE_OPS_POOL_ND_H_

#include <cstdint>

#include "gradweave/ops/builder.h"
#include "gradweave/ops/conv_nd.h"

namespace gradweave {

// Options of pools. Each list has one number for each axis.
struct PoolNDOptions {
  Integers window;                     // At least 1.
  Integers stride;                     // At least 1. Empty means the window.
  Integers dilation;                   // Distance between the elements of a window, at least 1. Empty means ones.
  Integers padding_low, padding_high;  // At least 0. Empty means zeros.
  AutoPadding auto_padding = AutoPadding::kNone;
  // If true, the last window may extend beyond the padding if it begins before the padding after x.
  // If false, the last window ends within the padding. True needs known sizes.
  bool ceil_mode = false;
  bool count_padding = false;  // AvgPoolND: the divisor counts padding, but not the elements that ceil_mode adds.
  bool column_major = false;   // MaxPoolND: the indices count the first spatial axis fastest.
};

// The mean of each window, without the padding unless options.count_padding.
Value AvgPoolND(Operand x, const PoolNDOptions& options);
// The sum of each window.
Value SumPoolND(Operand x, const PoolNDOptions& options);
// (sum of |x|^p)^(1/p) over each window, p at least 1 and finite. Where it is 0, the gradient is 0.
Value LpPoolND(Operand x, double p, const PoolNDOptions& options);

struct MaxPoolResult {
  Value values;   // x's dtype. The first of several equal maxima gets the gradient.
  Value indices;  // int64: the maximum's index in x as one row; column_major selects the order.
};
// The largest element of each window. Padding never counts.
MaxPoolResult MaxPoolND(Operand x, const PoolNDOptions& options);

// Returns zeros of the shape with each number of x set at its index in the result as one row, as in
// MaxPoolND's indices. Of several numbers for one place, the last one counts. The indices are int32
// or int64, of x's shape; one that is out of range fails the run with OutOfRange.
Value MaxUnpoolND(Operand x, Operand indices, const Shape& shape);

}  // namespace gradweave

#endif  // GRADWEAVE_OPS_POOL_ND_H_
