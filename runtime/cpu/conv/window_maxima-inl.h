// Maxima over windows (MaxWindows). Included once for each target, behind
// hwy/foreach_target.h.
#if defined(GRADWEAVE_RUNTIME_CPU_CONV_WINDOW_MAXIMA_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef GRADWEAVE_RUNTIME_CPU_CONV_WINDOW_MAXIMA_INL_H_
#undef GRADWEAVE_RUNTIME_CPU_CONV_WINDOW_MAXIMA_INL_H_
#else
#define GRADWEAVE_RUNTIME_CPU_CONV_WINDOW_MAXIMA_INL_H_
#endif

#include <algorithm>
#include <cstdint>
#include <limits>

#include "gradweave/runtime/cpu/conv/window_loops-inl.h"
#include "gradweave/runtime/cpu/conv/window_loops.h"
#include "hwy/highway.h"

HWY_BEFORE_NAMESPACE();
namespace gradweave {
namespace HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;

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

// The maximum of a window is the maximum of its columns' maxima. So a row takes two steps: columns,
// then windows.
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

}  // namespace HWY_NAMESPACE
}  // namespace gradweave
HWY_AFTER_NAMESPACE();

#endif  // GRADWEAVE_RUNTIME_CPU_CONV_WINDOW_MAXIMA_INL_H_
