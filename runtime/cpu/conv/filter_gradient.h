// Filter gradients of float32 convolutions as matrix products whose left matrix is gathered from x.
#ifndef GRADWEAVE_RUNTIME_CPU_CONV_FILTER_GRADIENT_H_
#define GRADWEAVE_RUNTIME_CPU_CONV_FILTER_GRADIENT_H_

#include <cstddef>
#include <cstdint>

#include "gradweave/runtime/cpu/conv/column_matrix.h"
#include "gradweave/runtime/cpu/cost/cost_model.h"
#include "gradweave/runtime/kernel/conv_geometry.h"
#include "gradweave/runtime/kernel/thread_pool.h"

namespace gradweave {

// df^T = columns * dy^T, where `columns` is the im2col matrix of x, with one term for each output
// of all samples. Few terms at a time are gathered and multiplied. The terms are divided into
// ranges. Each range has its own sums, which are added in order. The number of ranges depends on
// the sizes alone. A task takes one range and some rows of df^T.
//
// FilterGradient may round its operands to bfloat16. It then sums each chunk of the columns in the
// order of product/bfloat16_kernels.h, and divides chunks and ranges alike on all processors.
class FilterGradient {
 public:
  // Returns false for sizes that are empty, or beyond the tables and caches of this form.
  static bool Fits(const ConvGeometry& g);
  // `threads` may determine the number of tasks, but no result. Requires Fits.
  FilterGradient(const ConvGeometry& g, int threads, bool bfloat16 = false);

  // Returns what all tasks do together.
  Work work() const;

  int64_t tasks() const { return groups_ * ranges_.number * parts_.number; }
  // Return the scratch bytes of one thread, a multiple of 64, and of the sums of all tasks.
  size_t workspace_bytes() const {
    return (stage_floats_ + left_floats_ + panel_floats_ + wide_floats_) * sizeof(float);
  }
  size_t sums_bytes() const { return ranges_.number * groups_ * GroupFloats() * sizeof(float); }
  // Computes a task's part of `sums`.
  void Run(const float* x, const float* dy, int64_t task, std::byte* workspace, float* sums) const;

  // Add must run for all tasks in [0, add_tasks()), in any order, when all parts are computed. It
  // adds the sums of ranges, which it overwrites, to df.
  int64_t add_tasks() const { return groups_ * columns_.blocks(); }
  void Add(int64_t task, float* sums, float* df) const;

 private:
  int64_t GroupFloats() const { return columns_.terms() * width_; }
  // Gathers a chunk of dy of this group as panels, or as tiles.
  void PackPanels(const float* dy, int64_t group, int64_t chunk, float* panels) const;
  void PackTiles(const float* dy, int64_t group, int64_t chunk, float* panels, float* wide) const;
  void CopyOutputs(const float* dy, int64_t group, int64_t output, int64_t count, int64_t chunk, float* to,
                   int64_t to_step) const;
  // Multiplies gathered rows of a chunk with its tiles. `tiles` is for the left ones.
  void MultiplyTiles(float* left, const float* panels, float* tiles, int64_t rows, int64_t terms, bool add,
                     float* sum) const;

  bool bfloat16_;  // True if operands are rounded to bfloat16.
  int64_t lanes_;  // Outputs are rounded up to a multiple of this.
  int64_t groups_;
  int64_t outputs_;               // Output channels of one group.
  int64_t pixels_, row_columns_;  // Elements of an output image, and of one of its rows.
  int64_t x_group_step_;
  int64_t width_;  // Floats of a row of df^T: the outputs in whole vectors or tiles.
  ColumnMatrix columns_;
  Chunks ranges_;  // The chunks of columns, in ranges.
  Chunks parts_;   // The blocks of terms, in parts.
  int64_t left_step_;
  int64_t stage_floats_, left_floats_, panel_floats_;
  int64_t wide_floats_;  // The tiles of the left matrix, and dy of one tile of outputs before it is rounded.
};

}  // namespace gradweave

#endif  // GRADWEAVE_RUNTIME_CPU_CONV_FILTER_GRADIENT_H_
