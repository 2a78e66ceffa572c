// Loops over tiles. A tile holds `lanes` samples, and its tensors have layout [elements of one
// sample][lane]. A loop for one sample that handles vectors instead of numbers thus computes all
// samples of a tile. Kernels take shapes as arguments.
#ifndef GRADWEAVE_RUNTIME_CPU_TILE_TILE_KERNELS_H_
#define GRADWEAVE_RUNTIME_CPU_TILE_TILE_KERNELS_H_

#include <cstdint>

namespace gradweave {

// Steps and offsets are in floats.

// A block of a matrix product whose left side is weights that all lanes share, and whose right side
// is scattered in a tile: y[a*y_step_a + b*y_step_b] = bias[a] + sum over r of
// weights[r*weight_step + a] * x[offsets[r] + b*x_step], for a < A and b < B, where r runs over
// [k*period, k*period + terms) for each k < repeats. Convolutions and dense layers consist of these
// blocks. Where rows or columns of a convolution's taps lie in the padding, r skips them. The loop
// computes `products` such products, whose x, weights and y are x_product, weight_product and
// y_product apart.
struct WeightedSumArguments {
  const float* x;
  const int32_t* offsets;
  int64_t repeats, period, terms;
  int64_t x_step;
  const float* weights;
  int64_t weight_step;  // Between terms; A if the weights are contiguous.
  const float* bias;    // A elements, or null for zeros.
  float* y;
  int64_t y_step_a, y_step_b;
  int64_t products = 1, x_product = 0, weight_product = 0, y_product = 0;
};
using WeightedSum = void (*)(const WeightedSumArguments& arguments);

// The same for one sample, with neighbouring elements of the sample in the lanes: x is read from
// x[offsets[r] + b*lanes] on, y is written at a*y_step_a + b*lanes, and the weights are
// weights[a*weight_step + r]. x may be unaligned.
struct DirectSumArguments {
  const float* x;
  const int32_t* offsets;
  int64_t terms;
  const float* weights;
  int64_t weight_step;
  const float* bias;  // A elements, or null for zeros.
  float* y;
  int64_t y_step_a;
};
using DirectSum = void (*)(const DirectSumArguments& arguments);

// The same with output channels in the lanes: y[a*lanes] = bias + sum over r < terms of
// x[offsets[r] + a*x_step], broadcast to all lanes, times the vector weights[r*lanes], for a < A.
struct ChannelSumArguments {
  const float* x;
  const int32_t* offsets;
  int64_t terms, x_step;
  const float* weights;
  const float* bias;  // One vector.
  float* y;
};
using ChannelSum = void (*)(const ChannelSumArguments& arguments);

// A block of a filter gradient: sums[a*sum_step_a + t*folded_lanes] += sum over i < rows, j <
// columns of dy[a*dy_step_a + i*dy_row + j*lanes] * x[offsets[t] + i*x_row + j*x_step], for a < A
// and t < T. Lanes are summed separately at first; then lanes that are folded_lanes apart are added
// together, so that the sums take less of the caches.
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
using CorrelationSum = void (*)(const CorrelationArguments& arguments);

// A row of pooling windows of height x width elements in each channel. Window i starts at x +
// i*x_step, its rows are x_row apart, and channels are x_channel and y_channel apart.
struct PoolRow {
  float* x;
  int64_t x_step, x_row, x_channel;
  int64_t channels, count, height, width;
  float* y;
  int64_t y_channel;
};
// The gradient of an average pool followed by a binary op: x = op(factor * y of the window, other),
// where `other` has the layout of x.
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

// Indices of a max pool's largest elements. The index of an element grows by 1 for each column,
// index_row for each row and index_step for each window; the first is `first`.
struct PoolIndices {
  int32_t* indices;  // One per lane and window.
  int64_t channel_step;
  int32_t first, index_step, index_row;
};

// Limits of blocks over all instruction sets.
inline constexpr int kMostBlockRows = 16;
inline constexpr int kMostBlockColumns = 8;

// The loops for vectors of one length.
struct TileKernels {
  // Floats of a vector, and samples of a tile.
  int lanes;
  // Lanes of the sums of correlations.
  int folded_lanes;
  // Upper limit of A*B of a block.
  int accumulators;

  WeightedSum weighted_sum[kMostBlockRows + 1][kMostBlockColumns + 1];  // Indexed by A and B; null if absent.
  DirectSum direct_sum[kMostBlockRows + 1][kMostBlockColumns + 1];
  ChannelSum channel_sum[kMostBlockRows + 1];  // Indexed by A.
  CorrelationSum correlation[kMostBlockRows + 1][kMostBlockColumns + 1];

  // Converts [samples][elements] to [elements][lane]. Lanes from `count` on repeat the last sample.
  void (*gather_lanes)(const float* samples, int64_t sample_step, int64_t count, int64_t elements, float* lanes);
  // Converts back `count` samples.
  void (*scatter_lanes)(const float* lanes, int64_t elements, int64_t count, float* samples, int64_t sample_step);
  // sums[i] += the sum of the lanes of x[i].
  void (*add_lane_sums)(const float* x, int64_t elements, float* sums);
  // The same for folded lanes.
  void (*add_folded_sums)(const float* x, int64_t elements, float* sums);
  // Sets the lanes from `count` on to zero.
  void (*clear_lanes)(float* x, int64_t elements, int64_t count);

  // y[i] = factor * the sum of window i.
  void (*average_row)(const PoolRow& row, float factor);
  // Adds factor * y[i] to all elements of window i, or stores it if `set` is true.
  void (*spread_row)(const PoolRow& row, float factor, bool set);
  SpreadLoop spread_binary[kSpreadLoops];
  // y[i] = the largest element of window i, and its index in `indices`, as PoolIndices defines it.
  void (*max_row)(const PoolRow& row, const PoolIndices& indices);
  // Adds y[i] to the element of window i that has its index. If `set` is true, stores it, and zeros
  // in the other elements.
  void (*unpool_row)(const PoolRow& row, const PoolIndices& indices, bool set);

  // y[lane] += the sum of x[i*step + lane] over i < count.
  void (*add_up)(const float* x, int64_t count, int64_t step, float* y);
  // y = softmax(x) over `count` elements.
  void (*softmax)(const float* x, int64_t count, float* y);
  // loss[lane] = -log(softmax(x))[labels[lane]] over `count` classes.
  void (*cross_entropy)(const float* x, int64_t count, const int32_t* labels, float* loss);
  // dx = dy * (softmax(x) - onehot(labels)).
  void (*cross_entropy_gradient)(const float* x, int64_t count, const int32_t* labels, const float* dy, float* dx);
};

// Float32 lanes of an AVX2 vector.
inline constexpr int kLanesOfAvx2 = 8;

// Returns the loops for the longest vectors of this processor.
const TileKernels& GetTileKernels();
// Returns the loops for vectors of that many lanes, which must be a result of LanesOfTiles.
const TileKernels& GetTileKernels(int lanes);
// Returns the number of samples in a batch's tiles: the lanes of the longest vectors, or half as
// many where that divides one tile into two or leaves fewer lanes of a small batch empty. Half
// means AVX2 instead of AVX-512, which some processors run at the same rate.
int LanesOfTiles(int64_t batch);

}  // namespace gradweave

#endif  // GRADWEAVE_RUNTIME_CPU_TILE_TILE_KERNELS_H_
