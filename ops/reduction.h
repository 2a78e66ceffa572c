// Reductions over axes. Negative axes count from the end; none given means all. keep_dims leaves reduced axes with
// size 1.
#ifndef GRADWEAVE_OPS_REDUCTION_H_
#define GRADWEAVE_OPS_REDUCTION_H_

#include "gradweave/ops/builder.h"

namespace gradweave {

struct ReductionOptions {
  Integers axes = {};  // All where empty.
  bool keep_dims = false;
};

Value Sum(Operand x, ReductionOptions options = {});
Value Mean(Operand x, ReductionOptions options = {});  // Floating.
Value Prod(Operand x, ReductionOptions options = {});  // Its gradient is exact where elements are zero.
Value Max(Operand x, ReductionOptions options = {});   // Ties share the gradient evenly; so for Min.
Value Min(Operand x, ReductionOptions options = {});
Value LogSumExp(Operand x, ReductionOptions options = {});

struct ArgOptions {
  int64_t axis = 0;
  bool keep_dims = false;
  DType dtype = kInt64;  // Of the result: int32 or int64.
};
// The index of the largest or smallest element along the axis; the first of several. NaN counts as largest, and as
// smallest.
Value ArgMax(Operand x, ArgOptions options = {});
Value ArgMin(Operand x, ArgOptions options = {});

// Sums x over the axes along which `shape` was broadcast to x's shape, and gives it that shape: the gradient of
// broadcasting.
Value SumToShape(Operand x, const Shape& shape);

}  // namespace gradweave

#endif  // GRADWEAVE_OPS_REDUCTION_H_
