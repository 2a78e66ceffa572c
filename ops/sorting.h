// Sorting along an axis. Errors are recorded in the graph.
#ifndef GRADWEAVE_OPS_SORTING_H_
#define GRADWEAVE_OPS_SORTING_H_

#include <cstdint>

#include "gradweave/ops/builder.h"

namespace gradweave {

struct SortOptions {
  int64_t axis = -1;        // Negative axes count from the end.
  bool descending = false;  // If true, the largest element comes first.
};
struct SortResult {
  Value values;   // x's type; the gradient goes to the elements' places.
  Value indices;  // int64 of x's shape.
};
// Returns x with the elements along the axis in order, and their old indices. x is numeric. Equal
// elements keep their order. NaN counts as the largest.
SortResult Sort(Operand x, SortOptions options = {});
// Returns only the indices: TakeAlong(x, indices, axis) is sorted.
Value ArgSort(Operand x, SortOptions options = {});
// Returns the first `count` indices. A known axis has at least `count` elements.
Value ArgSort(Operand x, const Dim& count, SortOptions options);

}  // namespace gradweave

#endif  // GRADWEAVE_OPS_SORTING_H_
