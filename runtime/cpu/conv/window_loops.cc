#include "gradweave/runtime/cpu/conv/window_loops.h"

#include <algorithm>
#include <cstring>
#include <limits>
#include <utility>

#include "gradweave/graph/alignment.h"
#include "gradweave/runtime/cpu/simd/vector_targets.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "runtime/cpu/conv/window_loops.cc"
// foreach_target.h comes first.
// clang-format off
#include "hwy/foreach_target.h"  // IWYU pragma: keep
#include "hwy/highway.h"
#include "gradweave/runtime/cpu/simd/vector_registers-inl.h"
// clang-format on

HWY_BEFORE_NAMESPACE();
namespace gradweave {
namespace HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;

template <typename T>
using DV = hn::ScalableTag<T>;
template <typename T>
using VV = hn::Vec<DV<T>>;

// True where loads and stores with a mask touch nothing else.
#undef GRADWEAVE_MASKS
#if HWY_ARCH_X86 && HWY_TARGET <= HWY_AVX2
#define GRADWEAVE_MASKS 1
#else
#define GRADWEAVE_MASKS 0
#endif

// Loads n elements, fewer than a vector has, and zeros.
template <class D, typename T = hn::TFromD<D>>
HWY_INLINE hn::Vec<D> LoadPart(D d, const T* from, int64_t n) {
#if GRADWEAVE_MASKS
  return hn::MaskedLoad(hn::FirstN(d, n), d, from);
#else
  HWY_ALIGN T part[hn::MaxLanes(D())] = {};
  std::copy_n(from, n, part);
  return hn::Load(d, part);
#endif
}
template <class D, typename T = hn::TFromD<D>>
HWY_INLINE void StorePart(hn::Vec<D> v, D d, T* to, int64_t n) {
#if GRADWEAVE_MASKS
  hn::BlendedStore(v, hn::FirstN(d, n), d, to);
#else
  HWY_ALIGN T part[hn::MaxLanes(D())];
  hn::Store(v, d, part);
  std::copy_n(part, n, to);
#endif
}
template <class D, typename T = hn::TFromD<D>>
HWY_INLINE hn::Vec<D> LoadUpTo(D d, const T* from, int64_t n) {
  return n >= static_cast<int64_t>(hn::Lanes(d)) ? hn::LoadU(d, from) : n > 0 ? LoadPart(d, from, n) : hn::Zero(d);
}
template <class D, typename T = hn::TFromD<D>>
HWY_INLINE void StoreUpTo(hn::Vec<D> v, D d, T* to, int64_t n) {
  if (n >= static_cast<int64_t>(hn::Lanes(d))) {
    hn::StoreU(v, d, to);
  } else if (n > 0) {
    StorePart(v, d, to, n);
  }
}

// ---- Rows ----

template <class D>
HWY_INLINE void Deinterleave(D d, hn::Vec<D> first, hn::Vec<D> second, hn::Vec<D>& even, hn::Vec<D>& odd) {
#if HWY_TARGET == HWY_SCALAR
  even = first;
  odd = second;
#else
  even = hn::ConcatEven(d, second, first);
  odd = hn::ConcatOdd(d, second, first);
#endif
}

// Returns where column i is in a split row.
HWY_INLINE int64_t PlaceOf(int64_t i, int64_t left, int64_t stride, int64_t step) {
  return (i + left) % stride * step + (i + left) / stride;
}

template <typename T>
HWY_INLINE void SplitOne(const T* x, int64_t n, int64_t left, int64_t stride, int64_t step, T* to) {
  const DV<T> d;
  const int64_t lanes = hn::Lanes(d);
  if (stride == 1) {
    for (int64_t i = 0; i < n; i += lanes) hn::StoreU(LoadUpTo(d, x + i, n - i), d, to + left + i);
  } else if (stride == 2) {
    T* const evens = to + PlaceOf(0, left, stride, step);
    T* const odds = to + PlaceOf(1, left, stride, step);
    for (int64_t i = 0; i < n; i += 2 * lanes) {
      VV<T> even, odd;
      Deinterleave(d, LoadUpTo(d, x + i, n - i), LoadUpTo(d, x + i + lanes, n - i - lanes), even, odd);
      hn::StoreU(even, d, evens + i / 2);
      hn::StoreU(odd, d, odds + i / 2);
    }
  } else {
    for (int64_t first = 0; first < std::min(stride, n); ++first) {
      T* part = to + PlaceOf(first, left, stride, step);
      for (int64_t i = first; i < n; i += stride) *part++ = x[i];
    }
  }
}

template <typename T>
void Split(const SplitRow& row, const T* x, int64_t x_row, int64_t rows, T* to) {
  const int64_t width = row.width, left = row.left, stride = row.stride, step = row.step;
  for (int64_t end = rows; end > 0; --end, x += x_row, to += stride * step) SplitOne(x, width, left, stride, step, to);
}

template <typename T>
void Merge(const SplitRow& row, const T* from, int64_t rows, T* x, int64_t x_row) {
  const int64_t n = row.width, left = row.left, stride = row.stride, step = row.step;
  for (int64_t end = rows; end > 0; --end, x += x_row, from += stride * step) {
    int64_t done = 0;
#if HWY_TARGET != HWY_SCALAR
    const DV<T> d;
    const int64_t lanes = hn::Lanes(d);
    const T* const evens = from + PlaceOf(0, left, stride, step);
    const T* const odds = from + PlaceOf(1, left, stride, step);
    for (; stride == 2 && done + 2 * lanes <= n; done += 2 * lanes)
      hn::StoreInterleaved2(hn::LoadU(d, evens + done / 2), hn::LoadU(d, odds + done / 2), d, x + done);
#endif
    for (int64_t first = done; first < std::min(done + stride, n); ++first) {
      const T* part = from + PlaceOf(first, left, stride, step);
      for (int64_t i = first; i < n; i += stride) x[i] = *part++;
    }
  }
}

template <typename T>
void Divide(const T* x, int64_t n, T row_count, const T* column_counts, T* y) {
  const DV<T> d;
  const VV<T> rows = hn::Set(d, row_count);
  for (int64_t i = 0; i < n; i += hn::Lanes(d)) {
    // Zeros where there are no more elements would divide zeros.
    const VV<T> counts = hn::Max(hn::Mul(rows, LoadUpTo(d, column_counts + i, n - i)), hn::Set(d, T(1)));
    hn::StoreU(hn::Div(LoadUpTo(d, x + i, n - i), counts), d, y + i);
  }
}

// ---- Sums ----

// Rows of results that are computed together.
constexpr int kRows = 4;

// The loads of x in a block of R rows of results and B vectors, for one column of a filter. Each is followed by the
// steps that use it: step s is for result row s % R, and tap(s) is the filter's row there.
template <int kHeight, int kStride, int R, int B>
struct SharedLoads {
  static constexpr int kSteps = ((R - 1) * kStride + kHeight) * B * R;
  static constexpr bool loads(int s) { return s % R == 0; }
  static constexpr int row(int s) { return s / R / B; }
  static constexpr int vector(int s) { return s / R % B; }
  static constexpr int result(int s) { return s % R * B + vector(s); }
  static constexpr bool uses(int s) { return row(s) >= s % R * kStride && row(s) < s % R * kStride + kHeight; }
  static constexpr int tap(int s) { return uses(s) ? row(s) - s % R * kStride : 0; }
};

// The sums of R rows from `row` on and of B vectors from column j on, the last with n columns. The filter's height and
// the stride of rows are constants, so rows of results share their loads. Registers are indexed by constants only, else
// arrays would be in memory.
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

// The sums of R rows and one vector for any filter.
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

// Calls body(row, column, columns of the last vector, rows, vectors) for blocks that cover rows x count results. Blocks
// at the end may overlap those before, which then compute the same results once more.
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

// ---- Gradients of filters ----

// Rows of dy whose products with all taps of a column of the filter have sums of their own.
#if HWY_TARGET <= HWY_AVX3 || HWY_ARCH_ARM_A64
constexpr int kFilterRows = 4;
#else
constexpr int kFilterRows = 2;
#endif

// A part of dy and the taps that it is multiplied with: kHeight rows of column l, from row k on.
struct FilterPart {
  int64_t k, l, first_row, last_row, first_column, last_column;
};

// Adds the products of a part. Loads of x are `load_row` apart. If kPart is true, the columns are fewer than a vector
// has, and those behind them are no factors, for they may be NaN.
template <typename T, int kHeight, class Loads, int R, bool kPart, int... r, int... sum, int... s>
HWY_INLINE void AddPart(const FilterSums<T>& g, const FilterPart& part, int64_t load_row,
                        std::integer_sequence<int, r...>, std::integer_sequence<int, sum...>,
                        std::integer_sequence<int, s...>) {
  const DV<T> d;
  const int64_t lanes = hn::Lanes(d), dy_row = g.dy_row, n = part.last_column - part.first_column;
  const T* const taps = g.x + part.k * g.tap_row + g.columns[part.l];
  VV<T> sums[R * kHeight];
  ((sums[sum] = hn::Zero(d)), ...);
  for (int64_t i = part.first_row; i < part.last_row; i += R) {
    for (int64_t j = part.first_column; j < part.last_column; j += lanes) {
      const T* const x = taps + i * g.x_stride + j;
      const T* const dy = g.dy + i * dy_row + j;
      VV<T> gradient[R], v;
      ((gradient[r] = kPart ? LoadPart(d, dy + r * dy_row, n) : hn::LoadU(d, dy + r * dy_row)), ...);
      (((void)(Loads::loads(s) ? (v = kPart ? LoadPart(d, x + Loads::row(s) * load_row, n)
                                            : hn::LoadU(d, x + Loads::row(s) * load_row),
                                  Pin(v), 0)
                               : 0),
        (void)(Loads::uses(s) ? (sums[s % R * kHeight + Loads::tap(s)] =
                                     hn::MulAdd(gradient[s % R], v, sums[s % R * kHeight + Loads::tap(s)]),
                                 0)
                              : 0)),
       ...);
    }
  }
  ((void)(sum >= kHeight ? (sums[sum % kHeight] = hn::Add(sums[sum % kHeight], sums[sum]), 0) : 0), ...);
  T* const df = g.df + part.k * g.df_row + part.l;
  ((void)(sum < kHeight ? (df[sum * g.df_row] += hn::GetLane(hn::SumOfLanes(d, sums[sum])), 0) : 0), ...);
}

template <typename T, int kHeight, int kStride, int R, bool kPart>
HWY_NOINLINE void AddPartOf(const FilterSums<T>& g, const FilterPart& part) {
  using Loads = SharedLoads<kHeight, kStride, R, 1>;
  AddPart<T, kHeight, Loads, R, kPart>(
      g, part, kHeight == 1 ? g.x_stride : g.x_row, std::make_integer_sequence<int, R>(),
      std::make_integer_sequence<int, R * kHeight>(), std::make_integer_sequence<int, Loads::kSteps>());
}

template <typename T, int kHeight, int kStride>
void AddColumn(const FilterSums<T>& g, int64_t k, int64_t l) {
  const int64_t lanes = hn::Lanes(DV<T>());
  const int64_t rows = g.rows / kFilterRows * kFilterRows, columns = g.count / lanes * lanes;
  if (rows > 0 && columns > 0) AddPartOf<T, kHeight, kStride, kFilterRows, false>(g, {k, l, 0, rows, 0, columns});
  if (rows > 0 && columns < g.count)
    AddPartOf<T, kHeight, kStride, kFilterRows, true>(g, {k, l, 0, rows, columns, g.count});
  if (rows < g.rows && columns > 0) AddPartOf<T, kHeight, kStride, 1, false>(g, {k, l, rows, g.rows, 0, columns});
  if (rows < g.rows && columns < g.count)
    AddPartOf<T, kHeight, kStride, 1, true>(g, {k, l, rows, g.rows, columns, g.count});
}

template <typename T>
void AddToFilter(const FilterSums<T>& g) {
  using Run = void (*)(const FilterSums<T>&, int64_t k, int64_t l);
  struct Row {
    int64_t height, stride;
    Run run;
  };
  constexpr Row kShared[] = {
      {3, 1, AddColumn<T, 3, 1>}, {5, 1, AddColumn<T, 5, 1>}, {3, 2, AddColumn<T, 3, 2>}, {5, 2, AddColumn<T, 5, 2>}};
  int64_t step = 1;
  Run run = AddColumn<T, 1, 1>;
  for (const Row& row : kShared) {
    if (g.tap_row != g.x_row || g.height != row.height || g.x_stride != row.stride * g.x_row) continue;
    step = row.height;
    run = row.run;
  }
  for (int64_t k = 0; k < g.height; k += step) {
    for (int64_t l = 0; l < g.width; ++l) run(g, k, l);
  }
}

// ---- Maxima ----

// Replaces the largest element so far by v where v is larger, or equal with a lower index.
template <bool kByIndex, class D, class DI>
HWY_INLINE void TakeLarger(D d, DI di, hn::Vec<D> v, hn::Vec<DI> index, hn::Vec<D>& best, hn::Vec<DI>& best_index) {
  const auto best_is_nan = hn::IsNaN(best);
  auto takes = hn::AndNot(best_is_nan, hn::Not(hn::Le(v, best)));
  if constexpr (kByIndex) {
    const auto equal = hn::Or(hn::Eq(v, best), hn::And(best_is_nan, hn::IsNaN(v)));
    takes = hn::Or(takes, hn::And(equal, hn::RebindMask(d, hn::Lt(index, best_index))));
  }
  best = hn::IfThenElse(takes, v, best);
  best_index = hn::IfThenElse(hn::RebindMask(di, takes), index, best_index);
}

// The maxima of windows are those of their columns' maxima, so first come columns, then windows.
template <typename T>
void Max(const MaxWindows<T>& g) {
  using Index = typename MaxWindows<T>::Index;
  const DV<T> d;
  const hn::RebindToSigned<DV<T>> di;
  const SplitRow& row = *g.row;
  const int64_t lanes = hn::Lanes(d), width = row.width, size = row.size();
  // Padding never counts: no number is smaller, and no index is larger.
  const VV<T> nothing = hn::Set(d, -std::numeric_limits<T>::infinity());
  const auto no_index = hn::Set(di, Index{std::numeric_limits<int32_t>::max()});
  T* const values = g.scratch;
  T* const places = values + size;  // Holds elements of type Index.
  const bool splits = row.stride > 1;
  T* const split_values = splits ? values + 2 * size : values;
  T* const split_places = splits ? values + 3 * size : places;
  for (int64_t i = 0; i < size; i += lanes) {
    hn::StoreU(nothing, d, values + i);
    hn::StoreU(no_index, di, reinterpret_cast<Index*>(places) + i);
  }
  for (int64_t output_row = 0; output_row < g.rows; ++output_row) {
    const int64_t y = output_row * g.stride - g.top;
    const int64_t first = std::max<int64_t>(y, 0), last = std::min(y + g.window, g.height);
    for (int64_t j = 0; j < width; j += lanes) {
      VV<T> best = nothing;
      auto best_index = no_index;
      const T* x = g.x + first * width + j;
      auto index = hn::Iota(di, static_cast<Index>(first * width + j));
      if (first < last) {
        best = LoadUpTo(d, x, width - j);
        best_index = index;
      }
      for (int64_t i = first + 1; i < last; ++i) {
        x += width;
        index = hn::Add(index, hn::Set(di, static_cast<Index>(width)));
        TakeLarger<false>(d, di, LoadUpTo(d, x, width - j), index, best, best_index);
      }
      if (width - j < lanes) {
        const auto inside = hn::FirstN(d, width - j);
        best = hn::IfThenElse(inside, best, nothing);
        best_index = hn::IfThenElse(hn::RebindMask(di, inside), best_index, no_index);
      }
      hn::StoreU(best, d, values + row.left + j);
      hn::StoreU(best_index, di, reinterpret_cast<Index*>(places) + row.left + j);
    }
    if (splits) {
      SplitOne(values, size, 0, row.stride, row.step, split_values);
      SplitOne(places, size, 0, row.stride, row.step, split_places);
    }
    const Index* const from_places = reinterpret_cast<const Index*>(split_places);
    T* const to = g.y + output_row * g.count;
    int32_t* const indices = g.indices + output_row * g.count;
    for (int64_t j = 0; j < g.count; j += lanes) {
      VV<T> best = nothing;
      auto best_index = no_index;
      for (const int64_t column : row.columns) {
        TakeLarger<true>(d, di, hn::LoadU(d, split_values + column + j), hn::LoadU(di, from_places + column + j), best,
                         best_index);
      }
      StoreUpTo(best, d, to + j, g.count - j);
      if constexpr (sizeof(Index) == sizeof(int32_t)) {
        StoreUpTo(best_index, di, indices + j, g.count - j);
      } else {
        HWY_ALIGN Index wide[hn::MaxLanes(DV<T>())];
        hn::Store(best_index, di, wide);
        for (int64_t i = 0; i < std::min(lanes, g.count - j); ++i) indices[j + i] = static_cast<int32_t>(wide[i]);
      }
    }
  }
}

// ---- Channels in the lanes ----

template <typename T>
void LaneSum(const LaneSums<T>& g) {
  const DV<T> d;
  const int64_t lanes = hn::Lanes(d);
  const VV<T> bias = hn::Load(d, g.bias);
  const int64_t row_step = g.y->step * g.width * lanes, column_step = g.x->step * lanes;
  const int64_t weight_row = g.y->tap_step * g.filter_width * lanes, weight_column = g.x->tap_step * lanes;
  T* result = g.result;
  for (const LaneAxis::Sum& down : g.y->sums) {
    for (const LaneAxis::Sum& across : g.x->sums) {
      VV<T> sum = bias;
      const T* rows = g.image + (down.first * g.width + across.first) * lanes;
      const T* weight_rows = g.weights + (down.first_tap * g.filter_width + across.first_tap) * lanes;
      for (int64_t image = 0; image < g.images; ++image) {
        const T *from = rows, *weights = weight_rows;
        for (int64_t a = down.count; a > 0; --a, from += row_step, weights += weight_row) {
          for (int64_t b = 0; b < across.count; ++b)
            sum = hn::MulAdd(hn::Load(d, from + b * column_step), hn::Load(d, weights + b * weight_column), sum);
        }
        rows += g.image_size * lanes;
        weight_rows += g.filter_size * lanes;
      }
      hn::Store(sum, d, result);
      result += lanes;
    }
  }
}

// Four sums hide the latency of an addition.
template <typename T>
void LaneProduct(const LaneProducts<T>& g) {
  const DV<T> d;
  const int64_t lanes = hn::Lanes(d), step = g.x_column * lanes;
  VV<T> sum0 = hn::Load(d, g.df), sum1 = hn::Zero(d), sum2 = sum1, sum3 = sum1;
  for (int64_t i = g.first_y; i < g.last_y; ++i) {
    const T* dy = g.dy + (i * g.dy_row + g.first_x) * lanes;
    const T* x = g.x + (i * g.x_row + g.first_x * g.x_column) * lanes;
    int64_t left = g.last_x - g.first_x;
    for (; left >= 4; left -= 4, dy += 4 * lanes, x += 4 * step) {
      sum0 = hn::MulAdd(hn::Load(d, dy), hn::Load(d, x), sum0);
      sum1 = hn::MulAdd(hn::Load(d, dy + lanes), hn::Load(d, x + step), sum1);
      sum2 = hn::MulAdd(hn::Load(d, dy + 2 * lanes), hn::Load(d, x + 2 * step), sum2);
      sum3 = hn::MulAdd(hn::Load(d, dy + 3 * lanes), hn::Load(d, x + 3 * step), sum3);
    }
    if (left > 0) sum1 = hn::MulAdd(hn::Load(d, dy), hn::Load(d, x), sum1);
    if (left > 1) sum2 = hn::MulAdd(hn::Load(d, dy + lanes), hn::Load(d, x + step), sum2);
    if (left > 2) sum3 = hn::MulAdd(hn::Load(d, dy + 2 * lanes), hn::Load(d, x + 2 * step), sum3);
  }
  hn::Store(hn::Add(hn::Add(sum0, sum1), hn::Add(sum2, sum3)), d, g.df);
}

bool InRange(const int32_t* indices, int64_t n, int64_t size) {
  const hn::ScalableTag<uint32_t> d;
  const int64_t lanes = hn::Lanes(d);
  // Negative indices are the largest ones here.
  auto largest = hn::Zero(d);
  for (int64_t i = 0; i < n; i += lanes)
    largest = hn::Max(largest, LoadUpTo(d, reinterpret_cast<const uint32_t*>(indices) + i, n - i));
  return n == 0 || static_cast<int64_t>(hn::GetLane(hn::MaxOfLanes(d, largest))) < size;
}

template <typename T>
WindowLoops<T> MakeLoops() {
  return {.lanes = static_cast<int64_t>(hn::Lanes(DV<T>())),
          .split = Split<T>,
          .merge = Merge<T>,
          .sum = Sum<T>,
          .mean = Mean<T>,
          .add_to_filter = AddToFilter<T>,
          .max = Max<T>,
          .lane_sum = LaneSum<T>,
          .lane_products = LaneProduct<T>,
          .divide = Divide<T>,
          .in_range = InRange};
}
const WindowLoops<float>* FloatLoops() {
  static const WindowLoops<float> loops = MakeLoops<float>();
  return &loops;
}
const WindowLoops<double>* DoubleLoops() {
  static const WindowLoops<double> loops = MakeLoops<double>();
  return &loops;
}

}  // namespace HWY_NAMESPACE
}  // namespace gradweave
HWY_AFTER_NAMESPACE();

#if HWY_ONCE

namespace gradweave {

SplitRow::SplitRow(int64_t width, int64_t left, int64_t stride, int64_t taps, int64_t dilation, int64_t count,
                   int64_t lanes)
    : width(width), left(left), stride(stride) {
  const int64_t last = (taps - 1) * dilation;
  step = RoundUp(std::max(last / stride + RoundUp(count, lanes), (left + width + 2 * lanes) / stride + 2), lanes);
  for (int64_t l = 0; l < taps; ++l) columns.push_back(l * dilation % stride * step + l * dilation / stride);
}

namespace {
HWY_EXPORT(FloatLoops);
HWY_EXPORT(DoubleLoops);
}  // namespace

template <>
const WindowLoops<float>& GetWindowLoops<float>() {
  static const WindowLoops<float>& loops = *HWY_DYNAMIC_DISPATCH(FloatLoops)();
  return loops;
}
template <>
const WindowLoops<double>& GetWindowLoops<double>() {
  static const WindowLoops<double>& loops = *HWY_DYNAMIC_DISPATCH(DoubleLoops)();
  return loops;
}

}  // namespace gradweave

#endif  // HWY_ONCE
