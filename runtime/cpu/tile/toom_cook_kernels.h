// Loops of the Toom-Cook transforms (toom_cook.h) on tiles with a sample in each lane. Steps are in
// floats.
#ifndef GRADWEAVE_RUNTIME_CPU_TILE_TOOM_COOK_KERNELS_H_
#define GRADWEAVE_RUNTIME_CPU_TILE_TOOM_COOK_KERNELS_H_

#include <cstdint>

namespace gradweave {

// Points are those of simd/filtering_points.h, in the order 0, p0, -p0, p1, -p1, ..., infinity.
inline constexpr int kMostToomCookPairs = 3;
inline constexpr int kMostToomCookOutputs = 4;

// v[point*v_step + (channel*tiles + t)*lanes] = the transform of columns [first + t*step, first +
// t*step + 2*pairs + 2) of x[channel*x_step], which has `columns` columns and counts as zero
// outside them.
struct ToomCookInput {
  const float* x;
  int64_t x_step, first, columns, step;
  int64_t channels, tiles;
  float* v;
  int64_t v_step;
};
// y[channel*y_step] with `columns` columns = bias[channel] + the inverse transform of
// products[point*products_step + (channel*tiles + t)*lanes]. The loop determines the columns of a
// tile.
struct ToomCookOutput {
  const float* products;
  int64_t products_step;
  const float* bias;  // Indexed by channel, or null for zeros.
  int64_t channels, columns;
  float* y;
  int64_t y_step;
};

// v[point*v_step + ((channel*rows + row)*tiles + t)*lanes] = the value at the point of the
// polynomial whose coefficients are the columns of tile t of x[channel*x_step + row*x_row]. The
// loop determines the columns of a tile; columns from `columns` on count as zero.
struct ToomCookEvaluation {
  const float* x;
  int64_t x_step, x_row, columns;
  int64_t channels, rows;
  float* v;
  int64_t v_step;
};

// y[channel*y_step] with `columns` columns = bias[channel] + the sum of `tiles` polynomials with
// 2*pairs + 2 coefficients. products[point*products_step + (channel*tiles + t)*lanes] are the
// values at the points, each divided by the product of the point's distances from the others (the
// filter's transform contains this factor). Coefficient k of tile t belongs to column
// first + t*step + k, where the loop determines the step; coefficients without a column are
// dropped.
struct ToomCookInterpolation {
  const float* products;
  int64_t products_step;
  const float* bias;  // Indexed by channel, or null for zeros.
  int64_t channels, tiles, first, columns;
  float* y;
  int64_t y_step;
};

// The loops for vectors of one length, by pairs and columns of a tile; null if there is no such
// loop.
struct ToomCookKernels {
  void (*input[kMostToomCookPairs + 1])(const ToomCookInput& arguments);
  void (*output[kMostToomCookPairs + 1][kMostToomCookOutputs + 1])(const ToomCookOutput& arguments);
  void (*evaluation[kMostToomCookPairs + 1][kMostToomCookOutputs + 1])(const ToomCookEvaluation& arguments);
  void (*interpolation[kMostToomCookPairs + 1][kMostToomCookOutputs + 1])(const ToomCookInterpolation& arguments);
};
// Returns the loops for vectors of that many lanes. The numbers are those of GetTileKernels.
const ToomCookKernels& GetToomCookKernels(int lanes);

}  // namespace gradweave

#endif  // GRADWEAVE_RUNTIME_CPU_TILE_TOOM_COOK_KERNELS_H_
