// Choices of row regions on the CPU: the nodes that they take, and the regions that pay.
#ifndef GRADWEAVE_RUNTIME_CPU_ROWS_ROW_CHOICES_H_
#define GRADWEAVE_RUNTIME_CPU_ROWS_ROW_CHOICES_H_

#include <cstdint>

#include "gradweave/graph/graph.h"
#include "gradweave/graph/partition/row_regions.h"
#include "gradweave/runtime/cpu/product/matmul_product.h"

namespace gradweave {

// Minimum elements of a chunk, and the maximum number of partial sums over rows. They equal those
// of the reduction kernels, for equal bits.
inline constexpr int64_t kRowGrain = 16384;
inline constexpr int64_t kMostRowPartials = 16;

// Implement RowRegionCompiler.
bool RowsSupport(const Graph& graph, const Node& node);
bool RowsBegin(const Graph& graph, const Node& producer, const RowRegion& region, bool toom_cook);
bool RowsPay(const Graph& graph, const RowRegion& region);

// Returns true if a node of the region needs whole rows, such as softmax or a sum.
bool NeedsWholeRows(const Graph& graph, const RowRegion& region);

// Returns true if the division into rows is irrelevant: the region is elementwise on whole tensors
// and scalars.
bool IsFlat(const Graph& graph, const RowRegion& region);

// Returns true if a region's convolution makes blocks of channels and pixels, and false if it makes
// samples.
bool MakesBlocks(const Graph& graph, const Node& convolution, const RowRegion& region, bool toom_cook);

// Divides the product into tasks. If sums over rows exist, the division depends on the sizes alone.
MatMulProduct CutProduct(const MatMulSizes& sizes, bool whole_rows, int threads);

}  // namespace gradweave

#endif  // GRADWEAVE_RUNTIME_CPU_ROWS_ROW_CHOICES_H_
