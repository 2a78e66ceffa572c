// Programs of generated convolution kernels. Sizes are constants of the source. The elementwise ops
// and the pool fused behind a convolution run while its sums are in registers.
#ifndef GRADWEAVE_RUNTIME_CUDA_FUSION_CONV_PROGRAM_H_
#define GRADWEAVE_RUNTIME_CUDA_FUSION_CONV_PROGRAM_H_

#include <cstdint>
#include <optional>
#include <vector>

#include "absl/container/flat_hash_set.h"
#include "gradweave/graph/graph.h"
#include "gradweave/runtime/cuda/fusion/fusion.h"
#include "gradweave/runtime/cuda/ops/conv_shape.h"

namespace gradweave {

// How a kernel divides a convolution. Each thread computes a cell of neighbouring pixels of y for
// some outputs. Each block computes a tile of cells of one image, or all cells of some samples.
// Tiles may reach beyond the right and lower edge.
struct ConvTiling {
  int32_t cell_rows = 1, cell_columns = 1;  // Size of a cell in pixels.
  int32_t tile_rows = 1, tile_columns = 1;  // Size of a tile in cells.
  int32_t samples = 1;                      // Samples of a block.
  // Outputs of a thread, and threads of a block that share a cell.
  int32_t outputs = 1, output_slots = 1;
  int32_t slots = 32;                         // Threads along cells, in whole warps.
  int32_t channel_block = 1;                  // Channels in shared memory at a time.
  int32_t patch_rows = 1, patch_columns = 1;  // Area of one channel of x that a tile reads.
  // Distances in elements in shared memory: between the weights of neighbouring output slots, and
  // of neighbouring taps.
  int32_t slot_step = 1, weight_step = 1;

  int32_t threads() const { return slots * output_slots; }
  // Numbers of blocks along samples and tiles, and along groups and outputs.
  int64_t TileBlocks(const ConvShape& shape) const;
  int64_t OutputBlocks(const ConvShape& shape) const;
  // Blocks of a kernel of float32 (4 bytes) or float64 (8) that are expected beside each other on a
  // multiprocessor. It has 65,536 registers of 4 bytes, 1536 threads and 200 kB of shared memory. A
  // thread's registers hold its sums and, by ptxas' reports, at most 48 other numbers.
  int32_t BlocksBeside(const ConvShape& shape, int64_t element_bytes) const;
};

// A pool without padding whose windows are disjoint and adjacent. Each window is a cell.
struct ConvPool {
  bool largest;                   // True for MaxPool2D with indices, false for AvgPool2D.
  int32_t height = 0, width = 0;  // Size of the pooled image.
};

// A convolution with the elementwise chain and the pool fused behind it.
struct ConvProgram {
  DType dtype;
  ConvShape shape;
  ConvTiling tiling;
  bool has_bias = false;
  // The chain for each element of y, which is the value of kProduced. `operands` and `outputs` are
  // its tensors, as indices into those of the group. The group's first operands are x, the filter
  // and the bias if there is one.
  FusedProgram program;
  std::vector<int> operands, outputs;
  // The pool takes the program's kPool. Its results are the group's last outputs.
  std::optional<ConvPool> pool;
};

// Returns true if a kernel may be generated for the node: a convolution or its gradient for the
// input, with at most `most_channels` channels and outputs per group.
bool HasGeneratedConvolution(const Graph& graph, const Node& node, int most_channels);

// Returns true if a cell can be the pool's window.
bool CanPoolCells(const Node& pool);

// The program of a convolution, the elementwise nodes of its shape fused behind it (possibly none)
// and `pool` (possibly null), which reads the convolution or one of these nodes. The program stores
// `outputs`. Returns nullopt if the program does not fit its limits.
struct ConvGroupProgram {
  ConvProgram program;
  std::vector<Port> operands, outputs;  // Operands and outputs of the group, in order.
};
std::optional<ConvGroupProgram> MakeConvProgram(const Graph& graph, const Node& convolution,
                                                const std::vector<NodeId>& nodes, const Node* pool,
                                                const absl::flat_hash_set<Port>& outputs);

}  // namespace gradweave

#endif  // GRADWEAVE_RUNTIME_CUDA_FUSION_CONV_PROGRAM_H_
