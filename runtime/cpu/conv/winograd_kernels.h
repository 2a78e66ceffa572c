// Transforms of two-dimensional minimal filtering (winograd.h) for this processor's vectors, with
// channels in the lanes.
#ifndef GRADWEAVE_RUNTIME_CPU_CONV_WINOGRAD_KERNELS_H_
#define GRADWEAVE_RUNTIME_CPU_CONV_WINOGRAD_KERNELS_H_

#include <cstdint>

namespace gradweave {

// A tile has M x M outputs, with M = 2*pairs, and reads N x N inputs, N = M + 2. Values at the
// points have the index row*N + column. Steps are in floats.
inline constexpr int kMostWinogradPairs = 2;

// v[point*v_point + t*v_tile] = the value at the point of tile t of a strip, which is overwritten.
struct WinogradStrip {
  float* strip;
  int64_t tiles;
  float* v;
  int64_t v_point, v_tile;
};

// strip[M][M*tiles][lanes] = bias + the inverse transform of the sums sums[point*point_step +
// t*tile_step].
struct WinogradOutput {
  const float* sums;
  int64_t point_step, tile_step, tiles;
  const float* bias;  // One vector.
  float* strip;
};

// u[point*u_point] = the transform of nine vectors w[tap], tap = row*3 + column.
struct WinogradFilter {
  const float* w;
  float* u;
  int64_t u_point;
};

// dw[tap] = the nine coefficients of a filter from the sums at the points, sums[point*point_step].
struct WinogradFilterSums {
  const float* sums;
  int64_t point_step;
  float* dw;
};

// The loops by pairs; null for 0.
struct WinogradKernels {
  // Transforms inputs. The strip is [N][M*tiles + 2][lanes].
  void (*input[kMostWinogradPairs + 1])(const WinogradStrip& arguments);
  void (*output[kMostWinogradPairs + 1])(const WinogradOutput& arguments);
  void (*filter[kMostWinogradPairs + 1])(const WinogradFilter& arguments);
  // Evaluates polynomials. The strip is [M][M*tiles][lanes], its elements are coefficients, and it
  // has memory for N rows.
  void (*evaluation[kMostWinogradPairs + 1])(const WinogradStrip& arguments);
  void (*filter_sums[kMostWinogradPairs + 1])(const WinogradFilterSums& arguments);
};
// Vectors have the lanes of GetProductKernels().
const WinogradKernels& GetWinogradKernels();

}  // namespace gradweave

#endif  // GRADWEAVE_RUNTIME_CPU_CONV_WINOGRAD_KERNELS_H_
