// Filter gradients (FilterSums). Included once for each target, behind
// hwy/foreach_target.h.
#if defined(GRADWEAVE_RUNTIME_CPU_CONV_WINDOW_FILTER_SUMS_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef GRADWEAVE_RUNTIME_CPU_CONV_WINDOW_FILTER_SUMS_INL_H_
#undef GRADWEAVE_RUNTIME_CPU_CONV_WINDOW_FILTER_SUMS_INL_H_
#else
#define GRADWEAVE_RUNTIME_CPU_CONV_WINDOW_FILTER_SUMS_INL_H_
#endif

#include <cstdint>
#include <utility>

#include "gradweave/runtime/cpu/conv/window_loops-inl.h"
#include "gradweave/runtime/cpu/conv/window_loops.h"
#include "hwy/highway.h"

HWY_BEFORE_NAMESPACE();
namespace gradweave {
namespace HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;

// Rows of dy that are taken together. Each has its own sums, one for each tap of a column of the
// filter.
#if HWY_TARGET <= HWY_AVX3 || HWY_ARCH_ARM_A64
constexpr int kFilterRows = 4;
#else
constexpr int kFilterRows = 2;
#endif

// A part of dy and the taps that it is multiplied with: kHeight rows of column l, from row k on.
struct FilterPart {
  int64_t k, l, first_row, last_row, first_column, last_column;
};

// Adds the products of a part. Loads of x are `load_row` apart. If kPart is true, the part has
// fewer columns than a vector, and loads stop there: the elements behind may be NaN.
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

}  // namespace HWY_NAMESPACE
}  // namespace gradweave
HWY_AFTER_NAMESPACE();

#endif  // GRADWEAVE_RUNTIME_CPU_CONV_WINDOW_FILTER_SUMS_INL_H_
