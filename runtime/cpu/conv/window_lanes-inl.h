// Sums and products with channels in the lanes (LaneSums, LaneProducts). Included once for each
// target, behind hwy/foreach_target.h.
#if defined(GRADWEAVE_RUNTIME_CPU_CONV_WINDOW_LANES_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef GRADWEAVE_RUNTIME_CPU_CONV_WINDOW_LANES_INL_H_
#undef GRADWEAVE_RUNTIME_CPU_CONV_WINDOW_LANES_INL_H_
#else
#define GRADWEAVE_RUNTIME_CPU_CONV_WINDOW_LANES_INL_H_
#endif

#include <cstdint>

#include "gradweave/runtime/cpu/conv/window_loops-inl.h"
#include "gradweave/runtime/cpu/conv/window_loops.h"
#include "hwy/highway.h"

HWY_BEFORE_NAMESPACE();
namespace gradweave {
namespace HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;

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

}  // namespace HWY_NAMESPACE
}  // namespace gradweave
HWY_AFTER_NAMESPACE();

#endif  // GRADWEAVE_RUNTIME_CPU_CONV_WINDOW_LANES_INL_H_
