// Row regions on the CPU: instructions over blocks of rows that stay in the first-level cache.
#ifndef GRADWEAVE_RUNTIME_CPU_ROWS_ROW_PROGRAM_H_
#define GRADWEAVE_RUNTIME_CPU_ROWS_ROW_PROGRAM_H_

#include <cstdint>
#include <vector>

#include "gradweave/graph/graph.h"
#include "gradweave/graph/partition/row_regions.h"
#include "gradweave/runtime/cpu/rows/row_windows.h"
#include "gradweave/runtime/kernel/kernel.h"

namespace gradweave {

// A row region to make a kernel of. The kernel's operands and outputs are the region's, except that
// a window's operand is the whole matrix.
struct RowRegionRequest {
  const Graph& graph;
  const RowRegion& region;
  int threads = 1;
  bool toom_cook = true;  // KernelRequest::toom_cook.
  // A window for each operand of the region, or none; see RowWindow. Windows have `window_columns`
  // columns, which are the region's unless the region is flat (IsFlat).
  std::vector<RowWindow> windows = {};
  int64_t window_columns = 0;
};

// How row regions run.
struct RowRegionCompiler {
  bool (*supports)(const Graph& graph, const Node& node);  // True if the node may be in a region.
  // True if the region may begin with this node, whose result has the region's rows and columns.
  bool (*begins)(const Graph& graph, const Node& producer, const RowRegion& region, bool toom_cook);
  bool (*pays)(const Graph& graph, const RowRegion& region);  // True if the region is faster than its nodes one by one.
  Kernel (*make)(const RowRegionRequest& request);
};

// Returns the compiler of row regions of float32 and float64. Each node runs the same loop as
// alone, so results are the same bits. The exception is a small sum over rows: alone it is added in
// one pass, here in the chunks of larger sums.
RowRegionCompiler RowCompiler();

}  // namespace gradweave

#endif  // GRADWEAVE_RUNTIME_CPU_ROWS_ROW_PROGRAM_H_
