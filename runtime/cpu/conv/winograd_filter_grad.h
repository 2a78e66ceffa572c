// Filter gradients of 3x3 convolutions by minimal filtering: a tile of M x M elements of dy acts as
// the filter, and the nine elements of the filter act as the results. See winograd.h.
#ifndef GRADWEAVE_RUNTIME_CPU_CONV_WINOGRAD_FILTER_GRAD_H_
#define GRADWEAVE_RUNTIME_CPU_CONV_WINOGRAD_FILTER_GRAD_H_

#include <cstdint>
#include <vector>

#include "gradweave/runtime/cpu/conv/winograd.h"
#include "gradweave/runtime/cpu/conv/winograd_tiles.h"
#include "gradweave/runtime/cpu/cost/cost_model.h"
#include "gradweave/runtime/kernel/kernel.h"
#include "gradweave/runtime/kernel/thread_pool.h"

namespace gradweave {

// dw[o][i][k][l] = sum over s, r and c of dy[s][o][r][c] * x[s][i][r + k - top][c + l - left], with
// the sizes of the convolution y = x * w. dw has w's layout, [o][i][3][3].
//
// Tiles are taken in chunks. Transform computes the values of a chunk's x and dy at the points, and
// Multiply adds their products to the sums. If there is one chunk, Multiply transforms the sums
// back while they are in a cache. Otherwise Finish does so after the last chunk. Terms are added in
// the order of the tiles. The error of an element is at most 5e-6 of the largest sum of absolute
// terms in its 3x3 filter, for numbers that are distributed alike.
class WinogradFilterGrad {
 public:
  // Tiles have 2*pairs rows and columns of dy. Winograd::Fits(convolution) must be true.
  WinogradFilterGrad(const Convolution3x3& convolution, int pairs);

  Estimate estimate() const;

  // Return the floats of each thread's scratch, and of the shared scratch; multiples of 16.
  int64_t thread_floats() const;
  int64_t shared_floats() const;

  int64_t num_chunks() const { return chunks_.number; }
  // Each chunk needs all tasks of Transform in [0, transform_tasks(chunk)), in any order, and then
  // all tasks of Multiply in [0, multiply_tasks()). At the end come the tasks of Finish in [0,
  // finish_tasks()).
  int64_t transform_tasks(int64_t chunk) const { return chunks_.end(chunk) - chunks_.begin(chunk); }
  int64_t multiply_tasks() const { return chunks_.number > 1 ? points() : panels_ * groups_.number; }
  int64_t finish_tasks() const { return chunks_.number > 1 ? panels_ * groups_.number : 0; }
  void Transform(const float* x, const float* dy, int64_t chunk, int64_t task, float* shared, float* thread) const;
  void Multiply(int64_t chunk, int64_t task, float* shared, float* thread, float* dw) const;
  void Finish(int64_t task, const float* shared, float* dw) const;

 private:
  // The parts of the scratch that threads share: the values of x as [point][panel][tile][channel of
  // the panel], those of dy as [point][tile][output], and the sums of each panel and group.
  struct Shared {
    float *v, *dy, *sums;
    int64_t v_panel, v_point, dy_tile, dy_point;
  };
  Shared Layout(float* floats) const;
  int64_t points() const { return (strips_.size + 2) * (strips_.size + 2); }
  int64_t strip_floats() const;
  // Returns the channels of a panel, in whole vectors.
  int64_t WidthOf(int64_t panel) const;
  // Returns the floats of one point's values of x and dy.
  int64_t PointFloats() const;
  // Returns the floats of the sums of one panel and group, [point][output of the group][channel of
  // the panel].
  int64_t sums_floats() const;
  // Returns the number of tiles of a chunk's strips before one of them.
  int64_t TilesBefore(int64_t chunk, int64_t strip) const;
  void MultiplyBlock(const Shared& shared, int64_t point, int64_t panel, int64_t group, int64_t tiles, bool add,
                     float* sums) const;
  // Transforms the sums of the panel and group of a task back.
  void TransformSums(int64_t task, const float* sums, float* dw) const;

  Convolution3x3 c_;
  int pairs_;
  TileStrips strips_;
  int64_t panels_;  // Panels of channels.
  Chunks groups_;   // The outputs, in groups.
  Chunks chunks_;   // The strips, in chunks.
};

// Adds the choices "Winograd 2x2" and "Winograd 4x4" for a node whose operands are x and dy.
void AddWinogradFilterGradChoices(const KernelRequest& request, const Convolution3x3& convolution,
                                  std::vector<KernelChoice>& choices);

}  // namespace gradweave

#endif  // GRADWEAVE_RUNTIME_CPU_CONV_WINOGRAD_FILTER_GRAD_H_
