// The inner loops of depthwise convolutions and pools: loops over windows of one image, with
// neighbouring columns of the result in the lanes. They read padded copies of rows, so no loop
// checks where an image ends.
#ifndef GRADWEAVE_RUNTIME_CPU_CONV_WINDOW_LOOPS_H_
#define GRADWEAVE_RUNTIME_CPU_CONV_WINDOW_LOOPS_H_

#include <cstdint>
#include <type_traits>
#include <vector>

namespace gradweave {

// Offsets, steps and sizes are in elements.

// A row of an image with its padding, split by columns so that neighbouring results read
// neighbouring elements. Column i is element (i + left) / stride of part (i + left) % stride. Parts
// are `step` apart.
struct SplitRow {
  // A row of `width` elements. Result j of `count` reads it at j*stride + l*dilation - left for l <
  // taps. Loops read and write whole vectors of `lanes`; `step`, a multiple of `lanes`, has room
  // for them.
  SplitRow(int64_t width, int64_t left, int64_t stride, int64_t taps, int64_t dilation, int64_t count, int64_t lanes);

  int64_t size() const { return stride * step; }

  int64_t width, left, stride, step;
  std::vector<int64_t> columns;  // Indexed by tap: the element that result 0 reads.
};

// y[i*y_row + j] = bias + the sum over channels c and taps (k, l) of
//   x[c*x_channel + i*x_stride + k*tap_row + columns[l] + j] * weights[c*weight_channel + k*weight_row +
//   l*weight_column]
// for i < rows and j < count. If tap_row is x_row and x_stride a small multiple of it, rows of
// results share their loads.
template <typename T>
struct WindowSums {
  const T* x;
  int64_t x_row, x_channel, x_stride, tap_row;
  const int64_t* columns;
  int64_t channels, height, width;
  const T* weights;
  int64_t weight_channel, weight_row, weight_column;
  T bias;
  T* y;
  int64_t y_row, rows, count;
};

// The sums of such windows of one channel with weights of 1, divided by
// row_counts[i]*column_counts[j].
template <typename T>
struct WindowMeans {
  const T* x;
  int64_t x_stride, tap_row;
  const int64_t* columns;
  int64_t height, width;
  const T *row_counts, *column_counts;  // If both are null, the results are the sums.
  T* y;
  int64_t y_row, rows, count;
};

// df[k*df_row + l] += the sum over i < rows and j < count of
//   x[i*x_stride + k*tap_row + columns[l] + j] * dy[i*dy_row + j].
template <typename T>
struct FilterSums {
  const T* x;
  int64_t x_row, x_stride, tap_row;
  const int64_t* columns;
  int64_t height, width;
  const T* dy;
  int64_t dy_row, rows, count;
  T* df;
  int64_t df_row;
};

// y and indices [rows, count]: the first largest element of each window of an image, and its index
// in the image. NaN is larger than all numbers. Rows are split as `row` says, which has no
// dilation.
template <typename T>
struct MaxWindows {
  using Index = std::conditional_t<sizeof(T) == 4, int32_t, int64_t>;
  const SplitRow* row;
  const T* x;
  int64_t height, window, stride, top;  // Along columns: sizes of image and window, stride and padding.
  T* y;
  int32_t* indices;
  int64_t rows, count;
  T* scratch;  // 4 * row->size() elements.
};

// ---- Channels in the lanes: elements are vectors, [element][lane] ----

// The sums along one axis. Result i is the sum over a < count of element first + a*step times tap
// first_tap + a*tap_step.
struct LaneAxis {
  struct Sum {
    int64_t count, first_tap, first;
  };
  std::vector<Sum> sums;
  int64_t tap_step, step;
};

// result(i, j) = bias + the sum over images and over the taps (k, l) of both axes of the image's
// element times weights[image][k][l].
template <typename T>
struct LaneSums {
  const LaneAxis *y, *x;
  int64_t images;
  int64_t image_size, width, filter_size, filter_width;  // In vectors.
  const T *image, *weights, *bias;
  T* result;
};

// df[k][l] += the sum over results [first_y, last_y) x [first_x, last_x) of dy(i, j) times the
// element of x that tap (k, l) reads for it.
template <typename T>
struct LaneProducts {
  const T *x, *dy;
  int64_t first_y, last_y, first_x, last_x;
  int64_t x_row, x_column, dy_row;  // Steps in vectors. x is the element for result (0, 0).
  T* df;
};

template <typename T>
struct WindowLoops {
  int64_t lanes;
  // Splits rows that are x_row apart into rows of row.size() elements. May write zeros behind the
  // last element of each part, up to a vector.
  void (*split)(const SplitRow& row, const T* x, int64_t x_row, int64_t rows, T* to);
  // Joins split rows again.
  void (*merge)(const SplitRow& row, const T* from, int64_t rows, T* x, int64_t x_row);
  void (*sum)(const WindowSums<T>& arguments);
  void (*mean)(const WindowMeans<T>& arguments);
  void (*add_to_filter)(const FilterSums<T>& arguments);
  void (*max)(const MaxWindows<T>& arguments);
  void (*lane_sum)(const LaneSums<T>& arguments);
  void (*lane_products)(const LaneProducts<T>& arguments);
  // y[i] = x[i] / (row_count * column_counts[i]) for i < n. May write zeros behind, up to a vector.
  void (*divide)(const T* x, int64_t n, T row_count, const T* column_counts, T* y);
  // True if all indices are in [0, size).
  bool (*in_range)(const int32_t* indices, int64_t n, int64_t size);
};

// Returns the loops for the longest vectors of this processor.
template <typename T>
const WindowLoops<T>& GetWindowLoops();

}  // namespace gradweave

#endif  // GRADWEAVE_RUNTIME_CPU_CONV_WINDOW_LOOPS_H_
