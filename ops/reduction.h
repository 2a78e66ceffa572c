// Reductions over axes. Negative axes count from the end. With `keep_dims`, reduced axes remain
// with size 1. Errors are recorded in the graph: an axis out of range or given twice, or a wrong
// dtype.
#ifndef GRADWEAVE_OPS_REDUCTION_H_
#define GRADWEAVE_OPS_REDUCTION_H_

#include "gradweave/ops/builder.h"

namespace gradweave {

// Options of reductions.
struct ReductionOptions {
  Integers axes = {};  // Empty means all axes.
  bool keep_dims = false;
};

// Each takes numbers of any dtype, except where noted, and keeps the dtype.
Value Sum(Operand x, ReductionOptions options = {});
Value Mean(Operand x, ReductionOptions options = {});  // Floating dtypes only.
Value Prod(Operand x, ReductionOptions options = {});  // The gradient is exact even where elements are zero.
Value Max(Operand x, ReductionOptions options = {});   // Max and Min: equal extrema share the gradient evenly.
Value Min(Operand x, ReductionOptions options = {});
Value LogSumExp(Operand x, ReductionOptions options = {});  // Floating dtypes only.
// The Euclidean norm, sqrt(sum(x^2)), of floating elements. Where it is 0 the gradient is 0, a
// subgradient.
Value Norm(Operand x, ReductionOptions options = {});

// sum(|x|), sum(x^2), and log(sum(x)) of floating elements.
Value SumOfSizes(Operand x, ReductionOptions options = {});
Value SumOfSquares(Operand x, ReductionOptions options = {});
Value LogSum(Operand x, ReductionOptions options = {});

// Options of ArgMax and ArgMin.
struct ArgOptions {
  int64_t axis = 0;
  bool keep_dims = false;
  DType dtype = kInt64;  // The result's dtype: int32 or int64.
  bool last = false;     // If true, the last one of several equal elements counts instead of the first.
};
// The index of the largest or smallest element along the axis. Of several equal elements, the first
// one counts unless the last one is asked for. NaN counts as the largest for ArgMax and as the
// smallest for ArgMin. An empty axis is an error.
Value ArgMax(Operand x, ArgOptions options = {});
Value ArgMin(Operand x, ArgOptions options = {});

// Sums x over the axes that broadcasting from `shape` to x's shape stretched, and returns a value
// of shape `shape`. This is the gradient of broadcasting.
Value SumToShape(Operand x, const Shape& shape);

}  // namespace gradweave

#endif  // GRADWEAVE_OPS_REDUCTION_H_
