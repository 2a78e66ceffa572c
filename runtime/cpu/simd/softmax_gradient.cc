#include "gradweave/runtime/cpu/simd/softmax_gradient.h"

#include "gradweave/runtime/cpu/simd/vector_targets.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "runtime/cpu/simd/softmax_gradient.cc"
// foreach_target.h comes first.
// clang-format off
#include "hwy/foreach_target.h"  // IWYU pragma: keep
#include "hwy/highway.h"
// clang-format on

HWY_BEFORE_NAMESPACE();
namespace gradweave {
namespace HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;

template <typename T>
void Row(T* p, T factor, T* dp, T scale, int64_t n) {
  const hn::ScalableTag<T> d;
  const int64_t lanes = hn::Lanes(d);
  const auto factors = hn::Set(d, factor);
  // Two sums hide some of the latency of an addition.
  auto sum0 = hn::Zero(d), sum1 = hn::Zero(d);
  int64_t i = 0;
  for (; i + 2 * lanes <= n; i += 2 * lanes) {
    const auto p0 = hn::Mul(hn::LoadU(d, p + i), factors), p1 = hn::Mul(hn::LoadU(d, p + i + lanes), factors);
    sum0 = hn::MulAdd(p0, hn::LoadU(d, dp + i), sum0);
    sum1 = hn::MulAdd(p1, hn::LoadU(d, dp + i + lanes), sum1);
    hn::StoreU(p0, d, p + i);
    hn::StoreU(p1, d, p + i + lanes);
  }
  T sum = hn::GetLane(hn::SumOfLanes(d, hn::Add(sum0, sum1)));
  for (; i < n; ++i) {
    p[i] *= factor;
    sum += p[i] * dp[i];
  }
  const auto sums = hn::Set(d, sum), scales = hn::Set(d, scale);
  for (i = 0; i + lanes <= n; i += lanes) {
    const auto centered = hn::Sub(hn::LoadU(d, dp + i), sums);
    hn::StoreU(hn::Mul(hn::Mul(hn::LoadU(d, p + i), centered), scales), d, dp + i);
  }
  for (; i < n; ++i) dp[i] = p[i] * (dp[i] - sum) * scale;
}

SoftmaxGradientRow<float> FloatRow() { return Row<float>; }
SoftmaxGradientRow<double> DoubleRow() { return Row<double>; }

}  // namespace HWY_NAMESPACE
}  // namespace gradweave
HWY_AFTER_NAMESPACE();

#if HWY_ONCE

namespace gradweave {
namespace {

HWY_EXPORT(FloatRow);
HWY_EXPORT(DoubleRow);

}  // namespace

template <>
SoftmaxGradientRow<float> GetSoftmaxGradientRow() {
  return HWY_DYNAMIC_DISPATCH(FloatRow)();
}
template <>
SoftmaxGradientRow<double> GetSoftmaxGradientRow() {
  return HWY_DYNAMIC_DISPATCH(DoubleRow)();
}

}  // namespace gradweave

#endif  // HWY_ONCE
