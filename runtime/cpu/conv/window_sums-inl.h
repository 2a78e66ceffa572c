// Weighted sums and means over windows (WindowSums, WindowMeans). Included once for each target,
// behind hwy/foreach_target.h.
#if defined(GRADWEAVE_RUNTIME_CPU_CONV_WINDOW_SUMS_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef GRADWEAVE_RUNTIME_CPU_CONV_WINDOW_SUMS_INL_H_
#undef GRADWEAVE_RUNTIME_CPU_CONV_WINDOW_SUMS_INL_H_
#else
#define GRADWEAVE_RUNTIME_CPU_CONV_WINDOW_SUMS_INL_H_
#endif

#include <algorithm>
#include <cstdint>
#include <type_traits>
#include <utility>

#include "gradweave/runtime/cpu/conv/window_loops-inl.h"
#include "gradweave/runtime/cpu/conv/window_loops.h"
#include "hwy/highway.h"

HWY_BEFORE_NAMESPACE();
namespace gradweave {
namespace HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;

// Most rows of results that are computed together.
constexpr int kRows = 4;

// Computes R rows from `row` on and B vectors from column j on, the last with n columns. The
// filter's height and the stride of rows are constants, so rows of results share their loads.
// Arrays of vectors are indexed by constants only, so they stay in registers.
template <typename T, int kHeight, class Loads, int R, int B, int... r, int... k, int... s>
HWY_INLINE void SharedRowSums(const WindowSums<T>& g, int64_t row, int64_t j, int64_t n,
                              std::integer_sequence<int, r...>, std::integer_sequence<int, k...>,
                              std::integer_sequence<int, s...>) {
  const DV<T> d;
  const int64_t lanes = hn::Lanes(d), x_row = g.x_row, weight_row = g.weight_row;
  VV<T> sums[R * B];
  ((sums[r] = hn::Set(d, g.bias)), ...);
  for (int64_t c = 0; c < g.channels; ++c) {
    const T* const x = g.x + c * g.x_channel + row * g.x_stride + j;
    const T* weights = g.weights + c * g.weight_channel;
    for (int64_t l = 0; l < g.width; ++l, weights += g.weight_column) {
      const T* const from = x + g.columns[l];
      VV<T> w[kHeight], v;
      ((w[k] = hn::Set(d, weights[k * weight_row])), ...);
      (((void)(Loads::loads(s) ? (v = hn::LoadU(d, from + Loads::row(s) * x_row + Loads::vector(s) * lanes), Pin(v), 0)
                               : 0),
        (void)(Loads::uses(s) ? (sums[Loads::result(s)] = hn::MulAdd(v, w[Loads::tap(s)], sums[Loads::result(s)]), 0)
                              : 0)),
       ...);
    }
  }
  T* const y = g.y + row * g.y_row + j;
  ((r % B + 1 == B ? StoreUpTo(sums[r], d, y + r / B * g.y_row + r % B * lanes, n)
                   : hn::StoreU(sums[r], d, y + r / B * g.y_row + r % B * lanes)),
   ...);
}

// Computes R rows and one vector for any filter.
template <typename T, int R, int... r>
HWY_INLINE void AnySums(const WindowSums<T>& g, int64_t row, int64_t j, int64_t n, std::integer_sequence<int, r...>) {
  const DV<T> d;
  VV<T> sums[R];
  ((sums[r] = hn::Set(d, g.bias)), ...);
  const int64_t stride = g.x_stride;
  for (int64_t c = 0; c < g.channels; ++c) {
    const T* const x = g.x + c * g.x_channel + row * stride + j;
    const T* const weights = g.weights + c * g.weight_channel;
    for (int64_t l = 0; l < g.width; ++l) {
      for (int64_t k = 0; k < g.height; ++k) {
        const VV<T> w = hn::Set(d, weights[k * g.weight_row + l * g.weight_column]);
        const T* const from = x + g.columns[l] + k * g.tap_row;
        ((sums[r] = hn::MulAdd(hn::LoadU(d, from + r * stride), w, sums[r])), ...);
      }
    }
  }
  (StoreUpTo(sums[r], d, g.y + (row + r) * g.y_row + j, n), ...);
}

// Calls body(row, column, columns of the last vector, rows, vectors) for blocks that cover rows x
// count results. Blocks at the end may overlap earlier ones and compute the same results once more.
template <int kVectors, class Body>
HWY_INLINE void ForBlocks(int64_t rows, int64_t count, int64_t lanes, Body body) {
  using RowsTogether = std::integral_constant<int, kRows>;
  using One = std::integral_constant<int, 1>;
  using Vectors = std::integral_constant<int, kVectors>;
  const auto columns = [&](int64_t row, auto block) HWY_ATTR {
    int64_t j = 0;
    for (; j + kVectors * lanes <= count; j += kVectors * lanes) body(row, j, lanes, block, Vectors());
    for (; j < count; j += lanes) {
      if (count >= lanes) j = std::min(j, count - lanes);
      body(row, j, count - j, block, One());
    }
  };
  if (rows < kRows) {
    for (int64_t row = 0; row < rows; ++row) columns(row, One());
  } else {
    for (int64_t row = 0; row < rows; row += kRows) {
      row = std::min(row, rows - kRows);
      columns(row, RowsTogether());
    }
  }
}

template <typename T, int kHeight, int kStride>
HWY_NOINLINE void SharedSums(const WindowSums<T>& g) {
  ForBlocks<2>(g.rows, g.count, hn::Lanes(DV<T>()),
               [&](int64_t row, int64_t j, int64_t n, auto rows, auto vectors) HWY_ATTR {
                 constexpr int R = decltype(rows)::value, B = decltype(vectors)::value;
                 using Loads = SharedLoads<kHeight, kStride, R, B>;
                 SharedRowSums<T, kHeight, Loads, R, B>(g, row, j, n, std::make_integer_sequence<int, R * B>(),
                                                        std::make_integer_sequence<int, kHeight>(),
                                                        std::make_integer_sequence<int, Loads::kSteps>());
               });
}

template <typename T>
void Sum(const WindowSums<T>& g) {
  if (g.tap_row == g.x_row) {
    using Run = void (*)(const WindowSums<T>&);
    struct Row {
      int64_t height, stride;
      Run run;
    };
    constexpr Row kShared[] = {{2, 1, SharedSums<T, 2, 1>},
                               {3, 1, SharedSums<T, 3, 1>},
                               {5, 1, SharedSums<T, 5, 1>},
                               {3, 2, SharedSums<T, 3, 2>},
                               {5, 2, SharedSums<T, 5, 2>}};
    for (const Row& row : kShared) {
      if (g.height == row.height && g.x_stride == row.stride * g.x_row) return row.run(g);
    }
  }
  ForBlocks<1>(g.rows, g.count, hn::Lanes(DV<T>()), [&](int64_t row, int64_t j, int64_t n, auto rows, auto) HWY_ATTR {
    constexpr int R = decltype(rows)::value;
    AnySums<T, R>(g, row, j, n, std::make_integer_sequence<int, R>());
  });
}

template <typename T, int... r>
HWY_INLINE void MeanBlock(const WindowMeans<T>& g, int64_t row, int64_t j, int64_t n,
                          std::integer_sequence<int, r...>) {
  const DV<T> d;
  VV<T> sums[sizeof...(r)];
  ((sums[r] = hn::Zero(d)), ...);
  const int64_t stride = g.x_stride;
  for (int64_t k = 0; k < g.height; ++k) {
    const T* const x = g.x + row * stride + k * g.tap_row + j;
    for (int64_t l = 0; l < g.width; ++l) {
      const T* const from = x + g.columns[l];
      ((sums[r] = hn::Add(sums[r], hn::LoadU(d, from + r * stride))), ...);
    }
  }
  if (g.row_counts != nullptr) {
    const VV<T> columns = LoadUpTo(d, g.column_counts + j, n);
    ((sums[r] = hn::Div(sums[r], hn::Mul(columns, hn::Set(d, g.row_counts[row + r])))), ...);
  }
  (StoreUpTo(sums[r], d, g.y + (row + r) * g.y_row + j, n), ...);
}

template <typename T>
void Mean(const WindowMeans<T>& g) {
  ForBlocks<1>(g.rows, g.count, hn::Lanes(DV<T>()), [&](int64_t row, int64_t j, int64_t n, auto rows, auto) HWY_ATTR {
    MeanBlock<T>(g, row, j, n, std::make_integer_sequence<int, decltype(rows)::value>());
  });
}

}  // namespace HWY_NAMESPACE
}  // namespace gradweave
HWY_AFTER_NAMESPACE();

#endif  // GRADWEAVE_RUNTIME_CPU_CONV_WINDOW_SUMS_INL_H_
