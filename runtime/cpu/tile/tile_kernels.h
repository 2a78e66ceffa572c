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
// made of these; where a convolution's rows and columns of taps lie in padding, r leaves them out. The same for
// `products` products that lie one after the other, x_product, weight_product and y_product apart.
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
  int64_t products = 1, x_product = 0, weight_product = 0, y_product = 0;
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

// And with output channels in the lanes: y[a*lanes] = bias + the sum over r < terms of x[offsets[r] + a*x_step] in all
// lanes times the vector weights[r*lanes], for a < A.
struct ChannelSumArguments {
  const float* x;
  const int32_t* offsets;
  int64_t terms, x_step;
  const float* weights;
  const float* bias;  // A vector.
  float* y;
};
using ChannelSum = void (*)(const ChannelSumArguments& arguments);

// sums[a*sum_step_a + t*folded_lanes] += sum over i < rows, j < columns of
// dy[a*dy_step_a + i*dy_row + j*lanes] * x[offsets[t] + i*x_row + j*x_step], for a < A and t < T: lane by lane, and
// then lanes that are folded_lanes apart together, for sums that fill less of the caches.
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

// A row of pooling windows of height x width elements in each channel: window i starts at x + i*x_step, its rows are
// x_row apart, and channels x_channel and y_channel.
struct PoolRow {
  float* x;
  int64_t x_step, x_row, x_channel;
  int64_t channels, count, height, width;
  float* y;
  int64_t y_channel;
};
// The gradient of an average and then a binary op: x = op(factor * y of the window, other), where other lies as x does.
struct SpreadBinary {
  PoolRow row;
  float factor;
  const float* other;
  int64_t other_row, other_channel;
};
struct SpreadLoop {
  const char* op;
  void (*run)(const SpreadBinary& arguments);
};
inline constexpr int kSpreadLoops = 4;

struct PoolIndices {
  int32_t* indices;  // Lane by lane, as many as there are windows.
  int64_t channel_step;
  int32_t first, index_step, index_row;
};

inline constexpr int kMostBlockRows = 16;
inline constexpr int kMostBlockColumns = 8;

// The loops for vectors of a length.
struct TileKernels {
  int lanes;                                                            // Of a vector, and so samples of a tile.
  int folded_lanes;                                                     // Of what correlations add to.
  int accumulators;                                                     // A*B of a block is at most that.
  int products_in_flight;                                               // That hide the latency of one.
  WeightedSum weighted_sum[kMostBlockRows + 1][kMostBlockColumns + 1];  // By A and B; null where there is none.
  DirectSum direct_sum[kMostBlockRows + 1][kMostBlockColumns + 1];
  ChannelSum channel_sum[kMostBlockRows + 1];  // By A.
  Correlation correlation[kMostBlockRows + 1][kMostBlockColumns + 1];

  // [samples][elements] to [elements][lane]; lanes from `samples` on repeat the last sample.
  void (*gather_lanes)(const float* samples, int64_t sample_step, int64_t count, int64_t elements, float* lanes);
  // And back, `count` samples of them.
  void (*scatter_lanes)(const float* lanes, int64_t elements, int64_t count, float* samples, int64_t sample_step);
  // sums[i] += the sum of the lanes of x[i].
  void (*add_lane_sums)(const float* x, int64_t elements, float* sums);
  // The same for folded lanes.
  void (*add_folded_sums)(const float* x, int64_t elements, float* sums);
  // Lanes from `count` on become zero.
  void (*clear_lanes)(float* x, int64_t elements, int64_t count);

  // y[i] = factor * the sum of window i.
  void (*average_row)(const PoolRow& row, float factor);
  // Adds (or with `set`, writes) factor * y[i] to all elements of window i.
  void (*spread_row)(const PoolRow& row, float factor, bool set);
  SpreadLoop spread_binary[kSpreadLoops];
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

// Numbers of float32 in a vector of AVX2.
inline constexpr int kLanesOfAvx2 = 8;

// For the longest vectors that the processor has.
const TileKernels& GetTileKernels();
// For vectors of that many lanes, one of the numbers that LanesOfTiles gives.
const TileKernels& GetTileKernels(int lanes);
// How many samples tiles of a batch hold: as many as the longest vectors have lanes, or half as many where that makes
// two tiles of a batch that would be one, or leaves fewer lanes of a small one empty. Half is AVX2 in place of AVX-512,
// which some processors run at the same rate.
int LanesOfTiles(int64_t batch);

}  // namespace gradweave

#endif  // GRADWEAVE_RUNTIME_CPU_TILE_TILE_KERNELS_H_
