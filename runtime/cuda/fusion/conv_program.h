// Convolutions whose kernels are generated: sizes are constants of the source, and what elementwise ops and a pool make
// of a convolution's sums is computed while these are in registers.
#ifndef GRADWEAVE_RUNTIME_CUDA_FUSION_CONV_PROGRAM_H_
#define GRADWEAVE_RUNTIME_CUDA_FUSION_CONV_PROGRAM_H_

#include <cstdint>
#include <optional>
#include <vector>

#include "absl/container/flat_hash_set.h"
#include "gradweave/graph/graph.h"
#include "gradweave/runtime/cuda/ops/conv_shape.h"
#include "gradweave/runtime/cuda/fusion/fusion.h"

namespace gradweave {

// How a kernel cuts a convolution. A thread has a cell of neighbouring pixels of y, for some outputs; a block has a
// tile of cells of one image, or all cells of some samples. Tiles may reach over the right and the lower edge.
struct ConvTiling {
  int32_t cell_rows = 1, cell_columns = 1;    // In pixels.
  int32_t tile_rows = 1, tile_columns = 1;    // In cells.
  int32_t samples = 1;                        // Of a block.
  int32_t outputs = 1, output_slots = 1;      // Of a thread; and so many threads of a block have the same cell.
  int32_t slots = 32;                         // Threads along cells, in whole warps.
  int32_t channel_block = 1;                  // Channels that are in shared memory at a time.
  int32_t patch_rows = 1, patch_columns = 1;  // What a tile reads of x, of one channel.
  // Elements between the weights of neighbouring slots of outputs in shared memory, and between those of taps.
  int32_t slot_step = 1, weight_step = 1;

  int32_t threads() const { return slots * output_slots; }
  // Blocks, along samples and tiles and along groups and outputs.
  int64_t TileBlocks(const ConvShape& shape) const;
  int64_t OutputBlocks(const ConvShape& shape) const;
};

// A pool without padding whose windows are side by side: each is a cell.
struct ConvPool {
  bool largest;                   // MaxPool2D, with indices; else AvgPool2D.
  int32_t height = 0, width = 0;  // Of the pooled image.
};

struct ConvProgram {
  DType dtype;
  ConvShape shape;
  ConvTiling tiling;
  bool has_bias = false;
  // What is made of each element of y, the value of kProduced, and its tensors as indices into the group's operands
  // and outputs. The group's first operands are x, the filter and, if there is one, the bias.
  FusedProgram program;
  std::vector<int> operands, outputs;
  // Takes the program's kPool. What it makes are the group's last outputs.
  std::optional<ConvPool> pool;
};

// Whether a kernel may be generated for the node: a convolution, or its gradient for the input, with no more channels
// and outputs of a group than that.
bool HasGeneratedConvolution(const Graph& graph, const Node& node, int most_channels);

// Whether a cell can be the pool's window.
bool CanPoolCells(const Node& pool);

// The program of the convolution, of elementwise nodes of its shape behind it, which may be none, and of `pool`, which
// may be null and reads one of them or the convolution. `outputs` are stored. Nothing where it doesn't fit.
struct ConvGroupProgram {
  ConvProgram program;
  std::vector<Port> operands, outputs;  // Of the group.
};
std::optional<ConvGroupProgram> MakeConvProgram(const Graph& graph, const Node& convolution,
                                                const std::vector<NodeId>& nodes, const Node* pool,
                                                const absl::flat_hash_set<Port>& outputs);

}  // namespace gradweave

#endif  // GRADWEAVE_RUNTIME_CUDA_FUSION_CONV_PROGRAM_H_
