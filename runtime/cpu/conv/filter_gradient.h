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
class FilterGradient {
 public:
  // Returns false for sizes that are empty, or beyond the tables and caches of this form.
  static bool Fits(const ConvGeometry& g);
  // `threads` may determine the number of tasks, but no result. Requires Fits.
  FilterGradient(const ConvGeometry& g, int threads);

  // Returns what all tasks do together.
  Work work() const;

  int64_t tasks() const { return groups_ * ranges_.number * parts_.number; }
  // Return the scratch bytes of one thread, a multiple of 64, and of the sums of all tasks.
  size_t workspace_bytes() const { return (stage_floats_ + left_floats_ + panel_floats_) * sizeof(float); }
  size_t sums_bytes() const { return ranges_.number * groups_ * GroupFloats() * sizeof(float); }
  // Computes a task's part of `sums`.
  void Run(const float* x, const float* dy, int64_t task, std::byte* workspace, float* sums) const;

  // Add must run for all tasks in [0, add_tasks()), in any order, when all parts are computed. It
  // adds the sums of ranges, which it overwrites, to df.
  int64_t add_tasks() const { return groups_ * columns_.blocks(); }
  void Add(int64_t task, float* sums, float* df) const;

 private:
  int64_t GroupFloats() const { return columns_.terms() * width_; }

  int64_t groups_;
  int64_t outputs_;               // Output channels of one group.
  int64_t pixels_, row_columns_;  // Elements of an output image, and of one of its rows.
  int64_t x_group_step_;
  int64_t width_;  // Floats of a row of df^T: the outputs in whole vectors.
  ColumnMatrix columns_;
  Chunks ranges_;  // The chunks of columns, in ranges.
  Chunks parts_;   // The blocks of terms, in parts.
  int64_t left_step_;
  int64_t stage_floats_, left_floats_, panel_floats_;
};

}  // namespace gradweave

#endif  // GRADWEAVE_RUNTIME_CPU_CONV_FILTER_GRADIENT_H_
