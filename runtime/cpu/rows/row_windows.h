// Slices that row regions read in place.
#ifndef GRADWEAVE_RUNTIME_CPU_ROWS_ROW_WINDOWS_H_
#define GRADWEAVE_RUNTIME_CPU_ROWS_ROW_WINDOWS_H_

#include <cstdint>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/types/span.h"
#include "gradweave/graph/graph.h"
#include "gradweave/graph/partition/row_regions.h"

namespace gradweave {

// The rows of an operand that is some columns of a larger matrix: they are `step` elements apart,
// and begin at `column`. Without a step there is no window, and rows follow each other.
struct RowWindow {
  int64_t step = 0, column = 0;
};

// Finds slices along the last axis, such as the gates of a recurrent layer, whose rows only row
// regions read, and returns their windows in the values that they are slices of. All windows of a
// region have the same number of columns. The slices need no kernel.
absl::flat_hash_map<Port, RowWindow> FindRowWindows(const Graph& graph, absl::Span<const RowRegion> regions);

}  // namespace gradweave

#endif  // GRADWEAVE_RUNTIME_CPU_ROWS_ROW_WINDOWS_H_
