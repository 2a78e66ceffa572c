// Ops with index operands. Errors are recorded in the graph.
#ifndef GRADWEAVE_OPS_INDEXING_H_
#define GRADWEAVE_OPS_INDEXING_H_

#include "gradweave/ops/builder.h"

namespace gradweave {

// Selects slices of x at the indices (int32 or int64) along the axis. The axes of the indices
// replace this axis in the result. An index outside of [0, size) fails the run with OutOfRange.
Value Gather(Operand x, Operand indices, int64_t axis = 0);
// Returns a copy of x with each slice of `updates` added at its index along the axis. Slices with
// equal indices add up. `updates` has the shape of Gather(x, indices, axis) and x's dtype. An index
// outside of [0, size) fails the run with OutOfRange.
Value ScatterAdd(Operand x, Operand indices, Operand updates, int64_t axis = 0);
// The way in which a scatter combines an element with an update at its index.
enum class ScatterReduction { kSet, kMul, kMax, kMin, kAdd };
struct ScatterOptions {
  int64_t axis = 0;
  ScatterReduction reduction = ScatterReduction::kSet;
};
// Returns a copy of x with each slice of `updates` combined with the slice at its index along the
// axis, one update after the other: the last of those that are set at one place counts. Types and
// errors are those of ScatterAdd. The update that counts gets the gradient; equal largest or
// smallest numbers share it evenly. The second gradient of products is wrong where an update is 0.
Value Scatter(Operand x, Operand indices, Operand updates, ScatterOptions options = {});
// Returns 1 at each index and 0 elsewhere, along a new last axis of size `depth`. The indices are
// integers. An index outside of [0, depth) fails the run with OutOfRange.
Value OneHot(Operand indices, int64_t depth, DType dtype = kFloat32);

}  // namespace gradweave

#endif  // GRADWEAVE_OPS_INDEXING_H_
