#include "gradweave/runtime/cpu/conv/window_loops.h"

#include <algorithm>
#include <cstdint>

#include "gradweave/graph/alignment.h"
#include "gradweave/runtime/cpu/simd/vector_targets.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "runtime/cpu/conv/window_loops.cc"
// foreach_target.h comes first.
// clang-format off
#include "hwy/foreach_target.h"  // IWYU pragma: keep
#include "hwy/highway.h"
#include "gradweave/runtime/cpu/conv/window_filter_sums-inl.h"
#include "gradweave/runtime/cpu/conv/window_lanes-inl.h"
#include "gradweave/runtime/cpu/conv/window_loops-inl.h"
#include "gradweave/runtime/cpu/conv/window_maxima-inl.h"
#include "gradweave/runtime/cpu/conv/window_sums-inl.h"
// clang-format on

HWY_BEFORE_NAMESPACE();
namespace gradweave {
namespace HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;

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
