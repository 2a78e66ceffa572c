// Loops over tiles: a tile holds `lanes` samples, and its tensors are [elements of one sample][lane], so that a loop
// for one sample, with a vector in place of each number, computes all of them. No kernel knows a shape before it runs.
#ifndef GRADWEAVE_RUNTIME_CPU_TILE_TILE_KERNELS_H_
#define GRADWEAVE_RUNTIME_CPU_TILE_TILE_KERNELS_H_

#include <cstdint>

namespace gradweave {

// Steps and offsets are in floats.

// A block of a matrix product whose left side is numbers that all lanes share, and whose right side lies scattered in a
// tile: y[a*y_step_a + b*y_step_b] = bias[a] + sum over r of weights[r*weight_step + a] * x[offsets[r] + b*x_step], for
// a < A and b < B, and for r in [k*period, k*period + terms) of each k < repeats. Convolutions and dense layers are
// made of these; where a convolution's rows and columns of taps lie in padding, r leaves them out.
struct WeightedSumArguments {
  const float* x;
  const int32_t* offsets;
  int64_t repeats, period, terms;
  int64_t x_step;
  const float* weights;
  int64_t weight_step;  // Between terms; A where weights lie one after the other.
  const float* bias;    // Of A numbers, or null for zeros.
  float* y;
  int64_t y_step_a, y_step_b;
};
using WeightedSum = void (*)(const WeightedSumArguments& arguments);

// The same for one sample, with neighbouring elements of it in the lanes: x[offsets[r] + b*lanes] and on, y at
// a*y_step_a + b*lanes; weights[a*weight_step + r]. x is read `lanes` at a time from any address.
struct DirectSumArguments {
  const float* x;
  const int32_t* offsets;
  int64_t terms;
  const float* weights;
  int64_t weight_step;
  const float* bias;  // Of A numbers, or null for zeros.
  float* y;
  int64_t y_step_a;
};
using DirectSum = void (*)(const DirectSumArguments& arguments);

// sums[a*sum_step_a + t*lanes] += sum over i < rows, j < columns of
// dy[a*dy_step_a + i*dy_row + j*lanes] * x[offsets[t] + i*x_row + j*x_step], for a < A and t < T: lane by lane.
struct CorrelationArguments {
  const float* dy;
  int64_t dy_step_a, dy_row;
  const float* x;
  const int32_t* offsets;
  int64_t x_row, x_step;
  int64_t rows, columns;
  float* sums;
  int64_t sum_step_a;
};
using Correlation = void (*)(const CorrelationArguments& arguments);

struct PoolRow {
  float* x;
  int64_t x_step, x_row;
  int64_t count, height, width;
  float* y;
};
struct PoolIndices {
  int32_t* indices;  // Lane by lane, as many as there are windows.
  int32_t first, index_step, index_row;
};

// Points of the algorithm of Toom and Cook (toom_cook.h) are 0, infinity and `pairs` pairs of opposite numbers, in the
// order 0, p0, -p0, p1, -p1, ..., infinity. Chosen by measured error: symmetric points halve the work, and those near
// one keep the powers and distances of the others small.
inline constexpr int kMostToomCookPairs = 3;
inline constexpr int kMostToomCookOutputs = 4;
constexpr double ToomCookPoint(int pairs, int pair) {
  if (pairs == 1) return 1;
  if (pairs == 2) return pair == 0 ? 0.75 : 1.5;
  return pair == 0 ? 1 : pair == 1 ? 0.5 : 2;
}

// v[point*v_step + (channel*tiles + t)*lanes] = the transform of columns [first + t*step, ... + 2*pairs + 2) of
// x[channel*x_step], which has `columns` columns with zeros around them.
struct ToomCookInput {
  const float* x;
  int64_t x_step, first, columns, step;
  int64_t channels, tiles;
  float* v;
  int64_t v_step;
};
// y[channel*y_step] of `columns` columns = bias[channel] + the inverse transform of
// products[point*products_step + (channel*tiles + t)*lanes], where a tile has as many columns as the loop is for.
struct ToomCookOutput {
  const float* products;
  int64_t products_step;
  const float* bias;  // By channel, or null for zeros.
  int64_t channels, columns;
  float* y;
  int64_t y_step;
};

// v[point*v_step + ((channel*rows + row)*tiles + t)*lanes] = the value at the point of the polynomial whose
// coefficients are the columns of tile t, as many as the loop is for, of x[channel*x_step + row*x_row]; columns from
// `columns` on are zeros.
struct ToomCookEvaluation {
  const float* x;
  int64_t x_step, x_row, columns;
  int64_t channels, rows;
  float* v;
  int64_t v_step;
};

inline constexpr int kMostBlockRows = 16;
inline constexpr int kMostBlockColumns = 8;

// The loops for the vectors that this processor has.
struct TileKernels {
  int lanes;                                                            // Of a vector, and so samples of a tile.
  int accumulators;                                                     // A*B of a block is at most that.
  int products_in_flight;                                               // That hide the latency of one.
  WeightedSum weighted_sum[kMostBlockRows + 1][kMostBlockColumns + 1];  // By A and B; null where there is none.
  DirectSum direct_sum[kMostBlockRows + 1][kMostBlockColumns + 1];
  Correlation correlation[kMostBlockRows + 1][kMostBlockColumns + 1];

  void (*toom_cook_input[kMostToomCookPairs + 1])(const ToomCookInput& arguments);
  // By pairs and columns of a tile; null where there is none.
  void (*toom_cook_output[kMostToomCookPairs + 1][kMostToomCookOutputs + 1])(const ToomCookOutput& arguments);
  void (*toom_cook_evaluation[kMostToomCookPairs + 1][kMostToomCookOutputs + 1])(const ToomCookEvaluation& arguments);

  // [samples][elements] to [elements][lane]; lanes from `samples` on repeat the last sample.
  void (*gather_lanes)(const float* samples, int64_t sample_step, int64_t count, int64_t elements, float* lanes);
  // And back, `count` samples of them.
  void (*scatter_lanes)(const float* lanes, int64_t elements, int64_t count, float* samples, int64_t sample_step);
  // sums[i] += the sum of the lanes of x[i].
  void (*add_lane_sums)(const float* x, int64_t elements, float* sums);
  // Lanes from `count` on become zero.
  void (*clear_lanes)(float* x, int64_t elements, int64_t count);

  // A row of pooling windows of height x width elements: window i starts at x + i*x_step, its rows are x_row apart.
  // y[i] = factor * the sum of window i.
  void (*average_row)(const PoolRow& row, float factor);
  // Adds (or with `set`, writes) factor * y[i] to all elements of window i.
  void (*spread_row)(const PoolRow& row, float factor, bool set);
  // y[i] = the largest element of window i, and in indices its place: first + i*index_step for the first element, one
  // more for each column, index_row more for each row.
  void (*max_row)(const PoolRow& row, const PoolIndices& indices);
  // Adds (or with `set`, writes zeros and) y[i] where the element's place is that in the indices.
  void (*unpool_row)(const PoolRow& row, const PoolIndices& indices, bool set);

  // y[lane] += the sum of x[i*step + lane] over i < count.
  void (*add_up)(const float* x, int64_t count, int64_t step, float* y);
  // y = softmax(x) of `count` elements.
  void (*softmax)(const float* x, int64_t count, float* y);
  // loss[lane] = -log(softmax(x))[labels[lane]] of `count` classes.
  void (*cross_entropy)(const float* x, int64_t count, const int32_t* labels, float* loss);
  // dx = dy * (softmax(x) - onehot(labels)).
  void (*cross_entropy_gradient)(const float* x, int64_t count, const int32_t* labels, const float* dy, float* dx);
};
const TileKernels& GetTileKernels();

}  // namespace gradweave

#endif  // GRADWEAVE_RUNTIME_CPU_TILE_TILE_KERNELS_H_
