// Functions that compose ops. Sizes may be symbols, except where noted. Negative axes count from
// the end. Errors are recorded in the graph.
#ifndef GRADWEAVE_OPS_FUNCTIONS_H_
#define GRADWEAVE_OPS_FUNCTIONS_H_

#include <cstdint>
#include <optional>
#include <source_location>

#include "gradweave/ops/builder.h"
#include "gradweave/ops/scope.h"

namespace gradweave {

struct RangeOptions {
  double start = 0;  // Finite; whole numbers for an integer dtype.
  double step = 1;
  DType dtype = kInt64;  // Not bool.
};
// Returns start, start + step, ... [size].
Value Range(Scope& scope, const Dim& size, RangeOptions options = {},
            std::source_location location = std::source_location::current());
// Returns 0, 1, ..., size - 1 in the graph of x.
Value RangeLike(Operand x, const Dim& size, DType dtype = kInt64);

struct TriangleOptions {
  bool upper = false;  // Selects the triangle above the diagonal instead of the one below it.
  // The diagonal that bounds the triangle and is part of it: 0 is the main one, 1 the one above it.
  int64_t diagonal = 0;
};
// Returns bool [rows, columns], true in the triangle. Lower triangles have columns <= row +
// diagonal. A causal attention mask is TriangleMask(scope, n, n).
Value TriangleMask(Scope& scope, const Dim& rows, const Dim& columns, TriangleOptions options = {},
                   std::source_location location = std::source_location::current());
// Returns x [..., rows, columns] with zeros outside of the triangle of each matrix.
Value Triangle(Operand x, TriangleOptions options = {});

// Options of CumSum and CumProd.
struct CumSumOptions {
  int64_t axis = 0;
  bool exclusive = false;  // If true, y[i] leaves out x[i].
  bool reverse = false;    // If true, y[i] covers the elements from i on, instead of up to i.
};
// Returns the sums y[i] = x[0] + ... + x[i] along the axis, of x's shape and dtype, in time and
// memory proportional to x. Integers are added in float64, which is exact for sums below 2^53.
Value CumSum(Operand x, CumSumOptions options = {});
// Returns the products y[i] = x[0] * ... * x[i] in the same way. The gradient is exact even where
// elements are zero.
Value CumProd(Operand x, CumSumOptions options = {});

// Returns x's elements at the indices along the axis: with axis 1, y[i, j, k] = x[i, indices[i, j,
// k], k]. The indices (int32, int64 or uint8) have x's rank; their other axes have x's sizes, or 1
// and stretch. An index outside of [0, size) fails the run with OutOfRange.
Value TakeAlong(Operand x, Operand indices, int64_t axis);

struct TopKOptions {
  int64_t axis = -1;
  bool largest = true;  // If false, the smallest numbers, the smallest first.
};
struct TopKResult {
  Value values;   // x's dtype; the gradient goes to the elements that were taken.
  Value indices;  // int64.
};
// Returns the k largest numbers along the axis and their places, the largest first. Of equal
// elements, the one of the lower index comes first. NaN counts as the largest. k is at least 1 and
// at most the size of the axis.
TopKResult TopK(Operand x, int64_t k, int64_t axis = -1);
TopKResult TopK(Operand x, int64_t k, TopKOptions options);

// Draws a class for each row of logits [..., classes]: int64 [...], where class i has the
// probability softmax(logits)[i]. The largest sum of a logit and Gumbel noise is such a draw
// (Gumbel, "Statistical theory of extreme values", 1954). A class with the logit -infinity is drawn
// only if all have it. Without a seed, the graph chooses one. Logits divided by a temperature below
// 1 prefer likely classes.
Value RandomCategorical(Operand logits, std::optional<int64_t> seed = {});

}  // namespace gradweave

#endif  // GRADWEAVE_OPS_FUNCTIONS_H_
