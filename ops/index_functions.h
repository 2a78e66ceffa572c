// Functions that gather, scatter and compare by indices, composed of ops. The indices are int32,
// int64 or uint8; an index below 0 counts from the end: -1 is the last element. An index outside of
// [-size, size) fails the run with OutOfRange, except where noted. Negative axes count from the
// end. Errors are recorded in the graph.
#ifndef GRADWEAVE_OPS_INDEX_FUNCTIONS_H_
#define GRADWEAVE_OPS_INDEX_FUNCTIONS_H_

#include <cstdint>

#include "gradweave/ops/builder.h"
#include "gradweave/ops/indexing.h"

namespace gradweave {

// Returns the indices as int64 with the size of x's axis added to those below 0: Gather(x,
// WrapIndices(indices, x, axis), axis) counts from the end.
Value WrapIndices(Operand indices, Operand x, int64_t axis);

// Returns x's elements at the indices along the axis: with axis 1, y[i, j, k] = x[i, indices[i, j,
// k], k]. The indices have x's rank, and on all other axes sizes of at most x's.
Value GatherElements(Operand x, Operand indices, int64_t axis);
// Returns a copy of x in which the element at each such place is combined with the update, of the
// shape of the indices. See Scatter for the order and the gradients.
Value ScatterElements(Operand x, Operand indices, Operand updates, ScatterOptions options = {});

// Returns slices of x: each row of indices [..., k] names the first k coordinates of one, and the
// result has the shape [...] and the shape of a slice. The first `batch_axes` axes of x and of the
// indices are the same, and the coordinates are those behind them. k is known.
Value GatherND(Operand x, Operand indices, int64_t batch_axes = 0);
// Returns a copy of x in which the slices that indices [..., k] name are combined with the updates,
// of the shape of GatherND(x, indices).
Value ScatterND(Operand x, Operand indices, Operand updates, ScatterReduction reduction = ScatterReduction::kSet);

struct OneHotOptions {
  int64_t axis = -1;  // An axis of the result, which has one axis more.
};
// Returns `on` at each index along a new axis of size `depth`, and `off` elsewhere. Both are
// scalars of one dtype, and one of them is a value. The numbers of an index outside of [-depth,
// depth) are all `off`. Indices of floating dtypes are rounded toward 0.
Value OneHot(Operand indices, const Dim& depth, Operand on, Operand off, OneHotOptions options = {});

// Returns 1 at the first of the largest elements along the axis, and 0 elsewhere, of x's type.
Value Hardmax(Operand x, int64_t axis = -1);

struct EyeOptions {
  int64_t diagonal = 0;  // 1 is the diagonal above the main one.
  DType dtype = kFloat32;
};
// Returns a matrix of x's shape [rows, columns] with 1 on the diagonal and 0 elsewhere.
Value EyeLike(Operand x, EyeOptions options = {});

}  // namespace gradweave

#endif  // GRADWEAVE_OPS_INDEX_FUNCTIONS_H_
