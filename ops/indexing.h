// Ops whose operands are indices.
#ifndef GRADWEAVE_OPS_INDEXING_H_
#define GRADWEAVE_OPS_INDEXING_H_

#include "gradweave/ops/builder.h"

namespace gradweave {

// Slices of x at the indices (int32 or int64) along the axis: the axis is replaced by the axes of the indices. An index
// outside [0, size) fails the run with OutOfRange.
Value Gather(Operand x, Operand indices, int64_t axis = 0);
// A copy of x with each slice of updates added at its index along the axis; equal indices add up. updates has the shape
// of Gather(x, indices, axis).
Value ScatterAdd(Operand x, Operand indices, Operand updates, int64_t axis = 0);
// 1 at the index, else 0, along a new last axis of the size depth. An index outside [0, depth) fails the run.
Value OneHot(Operand indices, int64_t depth, DType dtype = kFloat32);

}  // namespace gradweave

#endif  // GRADWEAVE_OPS_INDEXING_H_
