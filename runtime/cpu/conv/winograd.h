// Convolutions of float32 with 3x3 filters and fewer multiplications: two-dimensional minimal
// filtering (Winograd, "Arithmetic Complexity of Computations", 1980, section IV; Lavin and Gray,
// "Fast Algorithms for Convolutional Neural Networks", 2016, section 4).
//
// A tile of M x M outputs reads N x N inputs, N = M + 2. Inputs and filters are transformed to
// values at N*N points. The products of tiles [tiles, channels] with filters [channels, outputs],
// one for each point, take N*N multiplications where the sums take 9*M*M: 4 times fewer for M = 4,
// 2.25 for M = 2. The sums at the points are then transformed back.
//
// The error of an element is at most 5e-6 of the largest sum of absolute terms in its tile, for up
// to 1024 channels of numbers that are distributed alike. Elements of a tile share their rounding
// errors, so an element with few or small terms may have a larger error than a separate sum would.
// If sizes differ much within a tile, the error is at most 5e-7 of nine times the sum over channels
// of the largest |x| in the tile times the largest |w|. A NaN or an infinity in x makes the
// elements that read it NaN, and may do so with all others of their tiles; one in the filter may do
// so with the whole output channel.
#ifndef GRADWEAVE_RUNTIME_CPU_CONV_WINOGRAD_H_
#define GRADWEAVE_RUNTIME_CPU_CONV_WINOGRAD_H_

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include "absl/functional/function_ref.h"
#include "gradweave/runtime/cpu/conv/winograd_tiles.h"
#include "gradweave/runtime/cpu/cost/cost_model.h"
#include "gradweave/runtime/kernel/conv_geometry.h"
#include "gradweave/runtime/kernel/kernel.h"
#include "gradweave/runtime/kernel/thread_pool.h"

namespace gradweave {

// A convolution with 3x3 filters and strides and dilations of 1, the form of both Conv2D and
// Conv2DInputGrad: y[s][o][r][c] = bias[o] + sum over i, k, l of w[o][i][k][l] * x[s][i][r + k -
// top][c + l - left], where x is zero outside its bounds. w[o][i][k][l] is at o*output_step +
// i*input_step + 3*k + l, or + 8 - 3*k - l if `flipped` is true.
struct Convolution3x3 {
  int64_t samples, channels, height, width;
  int64_t outputs, output_height, output_width;
  int64_t top, left;
  int64_t output_step, input_step;
  bool flipped;
};
// Return true if Conv2D and its gradients have this form. The others require it.
bool Is3x3(const ConvGeometry& g);
Convolution3x3 Convolution3x3Of(const ConvGeometry& g);
Convolution3x3 InputGrad3x3Of(const ConvGeometry& g);

class Winograd {
 public:
  // Tiles have 2*pairs rows and columns of the output.
  Winograd(const Convolution3x3& convolution, int pairs);

  // Returns false if there is nothing to compute, if sizes are too large to count, if transformed
  // filters take more than 256 MiB, or if some inputs are read by no output.
  static bool Fits(const Convolution3x3& convolution);

  // Returns the cost of a run. Plans that train pack the filters in each run, others only once. The
  // cost is the mean of both.
  Estimate estimate() const;

  // Size of the transformed filters in floats. Pack must run for all tasks in [0, pack_tasks()), in
  // any order.
  int64_t packed_floats() const;
  std::string packed_layout() const;
  int64_t pack_tasks() const;
  void Pack(const float* filter, int64_t task, float* packed) const;

  // A division of y into tasks, each of some strips of tiles and some panels of output channels.
  // Results do not depend on it.
  struct Tasks {
    Chunks strips, panels;
    int64_t number() const { return strips.number * panels.number; }
  };
  Tasks Divide(int threads) const;
  // Returns the floats of scratch for one thread, a multiple of 16.
  int64_t scratch_floats(const Tasks& tasks) const;

  // A block of y that is complete. `y` points to its first element.
  struct Block {
    int64_t sample, channel, channels, row, rows, column, columns;
    float* y;
  };
  using TakeBlock = absl::FunctionRef<void(const Block& block)>;
  // Computes one task, and passes on each block while it is in a cache near the processor. The
  // callback may change the block. `bias` may be null.
  void Run(const float* x, const float* packed, const float* bias, float* y, const Tasks& tasks, int64_t task,
           float* scratch, TakeBlock take) const;

 private:
  struct Scratch {
    float *strip, *v, *sums;
    int64_t v_tile, v_point, sums_point;
  };

  int64_t points() const { return size_in_ * size_in_; }
  int64_t num_panels() const;
  // Returns the floats of one point of a panel of packed filters.
  int64_t panel_point() const;
  int64_t strip_floats() const;
  Scratch Layout(const Tasks& tasks, float* floats) const;
  void WriteStrip(const TileStrip& strip, const float* from, const Block& block) const;
  // Returns the floats of a tile's transformed inputs and of its sums for one panel, for each
  // point.
  double TileFloats() const;
  // Returns the cost of a task of that many tiles and panels.
  Estimate TaskEstimate(int64_t tiles, int64_t panels) const;

  Convolution3x3 c_;
  int pairs_;
  int64_t size_out_, size_in_;  // Rows of the outputs and of the inputs of a tile.
  TileStrips strips_;
  int64_t packed_outputs_;  // The outputs in whole vectors.
};

// Adds the choices "Winograd 2x2" and "Winograd 4x4" for a node whose operands are x, the filter
// and perhaps a bias.
void AddWinogradChoices(const KernelRequest& request, const Convolution3x3& convolution,
                        std::vector<KernelChoice>& choices);

}  // namespace gradweave

#endif  // GRADWEAVE_RUNTIME_CPU_CONV_WINOGRAD_H_
