// Convolutions of float32 tensors, and their input gradients, as matrix products whose right matrix
// is gathered from the input panel by panel.
#ifndef GRADWEAVE_RUNTIME_CPU_CONV_IMPLICIT_CONV_H_
#define GRADWEAVE_RUNTIME_CPU_CONV_IMPLICIT_CONV_H_

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include "absl/functional/function_ref.h"
#include "gradweave/graph/alignment.h"
#include "gradweave/runtime/cpu/conv/column_matrix.h"
#include "gradweave/runtime/cpu/cost/cost_model.h"
#include "gradweave/runtime/kernel/conv_geometry.h"
#include "gradweave/runtime/kernel/thread_pool.h"

namespace gradweave {

// y = filter * columns, or dx = filter^T * (columns of dy). This is the implicit form of im2col and
// a product (Chetlur et al., "cuDNN: Efficient primitives for deep learning", 2014, section 3),
// with the blocks of product/product.h. An input gradient with strides is one correlation for each
// residue of the output's rows and columns, with the taps that reach them.
//
// The work is a list of tasks, which may run in any order on any threads. An element of y is the
// sum over the blocks of terms, in order, of their terms, in order. It does not depend on the
// tasks. If operands are rounded to bfloat16, the order is that of product/bfloat16_kernels.h.
class ImplicitConvolution {
 public:
  // Returns false for sizes that are empty, or beyond the tables and caches of this form.
  static bool Fits(const ConvGeometry& g, bool input_gradient);
  // `threads` may determine the number of tasks, but no result. Requires Fits.
  static ImplicitConvolution Forward(const ConvGeometry& g, int threads, bool bfloat16 = false);
  static ImplicitConvolution InputGradient(const ConvGeometry& g, int threads, bool bfloat16 = false);

  // Returns what all tasks and the packing of the filter do together.
  Work work() const;

  // The filter is packed once for all tasks, or read where it lies if reads_in_place is true. Pack
  // must run for all tasks in [0, pack_tasks()), in any order. Filters with equal layouts are
  // packed to the same bytes (Kernel::kept_layout).
  bool reads_in_place() const { return reads_in_place_; }
  int64_t packed_floats() const { return packed_floats_; }
  std::string packed_layout() const;
  int64_t pack_tasks() const { return groups_ * (bfloat16_ ? DivideUp(outputs_, unit_) : pack_parts_.number); }
  void Pack(const float* filter, int64_t task, float* packed) const;
  // A filter in place or packed. `packed` is used if it is not null.
  struct Filter {
    const float* filter;
    const float* packed;
  };

  int64_t tasks() const;
  // Returns the scratch bytes of one thread, a multiple of 64.
  size_t workspace_bytes() const;

  // Computes a task's part of y, or of dx. `x` is the whole tensor that is convolved: x, or dy of
  // an input gradient. `bias` has one element for each output channel, or is null. `workspace` is
  // aligned to 64.
  void Run(const float* x, const Filter& filter, const float* bias, int64_t task, std::byte* workspace, float* y) const;

  // A block of a convolution's y: some output channels and output pixels of one sample.
  struct Block {
    int64_t sample;
    int64_t channel, channels;
    int64_t row, rows;
    int64_t column, columns;  // All columns, unless rows are longer than a block can be.
  };
  // Consumes a block of y while it is in a cache near the processor. Element (channel c, row i,
  // column j) of the block is y[c*channel_step + i*block.columns + j]. The callback may overwrite
  // the block.
  using TakeBlock = absl::FunctionRef<void(const Block& block, float* y, int64_t channel_step)>;
  // Computes the same part of a convolution's y, and passes it on in blocks. Writes no memory but
  // the workspace. Input gradients are not supported.
  void RunInBlocks(const float* x, const Filter& filter, const float* bias, int64_t task, std::byte* workspace,
                   TakeBlock take) const;

 private:
  // A correlation, and the positions of its results in y and of its taps in the filter.
  struct Phase {
    ColumnMatrix columns;
    int64_t y_row, y_column;    // The first row and column of y.
    int64_t packed;             // Offset of the packed filter of the first group.
    std::vector<int64_t> taps;  // Offsets of the taps in a filter's channel.
  };

  ImplicitConvolution(const ConvGeometry& g, bool input_gradient, int threads, bool bfloat16);
  // The floats of a packed group.
  int64_t PackedGroup(const Phase& phase) const;
  // Pack, if operands are rounded to bfloat16. The task is a row tile of a group.
  void PackTile(const float* filter, int64_t task, float* packed) const;
  // Adds a block of terms to `rows` rows of y, from row `first` of the group on, for a chunk of
  // columns. `from` is what ColumnMatrix::Stage returned.
  void AddTerms(const Phase& phase, const float* from, const Filter& filter, int64_t group, int64_t block_number,
                int64_t chunk, int64_t first, int64_t rows, bool add, float* panels, float* y, int64_t y_step) const;
  // AddTerms for operands that are rounded to bfloat16.
  void AddTiles(const Phase& phase, const float* from, const Filter& filter, int64_t group, int64_t block_number,
                int64_t chunk, int64_t first, int64_t rows, bool add, float* panels, float* y, int64_t y_step) const;
  // Computes a task's part, in `y` if y is not null and the part is contiguous there. Otherwise it
  // calls take(phase, block, y, channel step) for each block.
  template <typename Body>
  void Compute(const float* x, const Filter& filter, const float* bias, int64_t task, std::byte* workspace, float* y,
               Body take) const;

  bool bfloat16_;                // True if operands are rounded to bfloat16.
  int64_t unit_;                 // Rows of a packed unit of the filter: of a register block, or of a tile.
  int64_t groups_, outputs_;     // Groups, and channels of y in a group.
  int64_t rows_, columns_;       // The size of an image of y.
  int64_t stride_y_, stride_x_;  // Distances between the elements of a phase in y.
  int64_t x_group_step_;
  // Distances in the filter between channels of y, channels of x, and groups.
  int64_t filter_row_, filter_channel_, filter_group_;
  int64_t filter_taps_;  // Taps of a channel.
  Chunks pack_parts_;    // The channels of x, in parts.
  bool reads_in_place_;
  std::vector<Phase> phases_;
  int64_t packed_floats_ = 0;
  int64_t chunks_ = 0;                     // Chunks of columns of all phases, for one group.
  int64_t row_parts_ = 1, part_rows_ = 0;  // Parts of the channels of a group, and channels of a part.
  // Sizes of the parts of a workspace: floats of the stage and of the panels, columns of a block of
  // y.
  int64_t stage_floats_ = 0, panel_floats_ = 0, block_columns_ = 0;
};

}  // namespace gradweave

#endif  // GRADWEAVE_RUNTIME_CPU_CONV_IMPLICIT_CONV_H_
