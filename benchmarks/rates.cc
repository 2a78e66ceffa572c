#include "benchmarks/rates.h"

#include <atomic>
#include <cstdint>

#include "gradweave/runtime/cpu/product/gemm.h"
#include "gradweave/runtime/cpu/simd/vector_targets.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "benchmarks/rates.cc"
// foreach_target.h comes first.
// clang-format off
#include "hwy/foreach_target.h"  // IWYU pragma: keep
#include "hwy/highway.h"
// clang-format on

HWY_BEFORE_NAMESPACE();
namespace benchmarks {
namespace HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;

// Runs twelve independent sums, which hide the latency of a multiply-add. Returns the number of
// floating-point operations.
double MultiplyAdds(int64_t rounds, float* result) {
  const hn::ScalableTag<float> d;
  const auto x = hn::Set(d, 0.5f), y = hn::Set(d, 0.25f);
  // The start values differ, because the compiler would compute equal sums only once.
  const float start = *result;
  auto s0 = hn::Set(d, start), s1 = hn::Set(d, start + 1), s2 = hn::Set(d, start + 2), s3 = hn::Set(d, start + 3);
  auto s4 = hn::Set(d, start + 4), s5 = hn::Set(d, start + 5), s6 = hn::Set(d, start + 6), s7 = hn::Set(d, start + 7);
  auto s8 = hn::Set(d, start + 8), s9 = hn::Set(d, start + 9), s10 = hn::Set(d, start + 10),
       s11 = hn::Set(d, start + 11);
  for (int64_t i = 0; i < rounds; ++i) {
    s0 = hn::MulAdd(s0, x, y), s1 = hn::MulAdd(s1, x, y), s2 = hn::MulAdd(s2, x, y), s3 = hn::MulAdd(s3, x, y);
    s4 = hn::MulAdd(s4, x, y), s5 = hn::MulAdd(s5, x, y), s6 = hn::MulAdd(s6, x, y), s7 = hn::MulAdd(s7, x, y);
    s8 = hn::MulAdd(s8, x, y), s9 = hn::MulAdd(s9, x, y), s10 = hn::MulAdd(s10, x, y), s11 = hn::MulAdd(s11, x, y);
  }
  s0 = hn::Add(hn::Add(hn::Add(s0, s1), hn::Add(s2, s3)), hn::Add(hn::Add(s4, s5), hn::Add(s6, s7)));
  *result = hn::GetLane(hn::Add(s0, hn::Add(hn::Add(s8, s9), hn::Add(s10, s11))));
  return 2.0 * 12 * static_cast<double>(rounds) * static_cast<double>(hn::Lanes(d));
}

}  // namespace HWY_NAMESPACE
}  // namespace benchmarks
HWY_AFTER_NAMESPACE();

#if HWY_ONCE

namespace benchmarks {
namespace {

HWY_EXPORT(MultiplyAdds);

constexpr int64_t kSize = 2048, kRows = 256;
constexpr int64_t kRounds = 1 << 18;

}  // namespace

RateProbe::RateProbe(bool sgemm, int threads) : sgemm_(sgemm), pool_(threads) {
  if (!sgemm_) return;
  a_.assign(kSize * kSize, 0.5f);
  b_.assign(kSize * kSize, 0.25f);
  c_.assign(kSize * kSize, 0.0f);
}

void RateProbe::Step() {
  if (sgemm_) {
    const gradweave::OneBlasThread one_thread(kRows, kSize, kSize);
    pool_.ParallelFor(kSize / kRows, [&](int64_t i, int) {
      gradweave::Gemm(one_thread, false, false, kRows, kSize, kSize, 1.0f, a_.data() + i * kRows * kSize, kSize,
                      b_.data(), kSize, 0.0f, c_.data() + i * kRows * kSize, kSize);
    });
    return;
  }
  pool_.ParallelFor(pool_.num_threads(), [](int64_t, int) {
    float result = 0;
    HWY_DYNAMIC_DISPATCH(MultiplyAdds)(kRounds, &result);
    static std::atomic<float> sink;
    sink.store(result, std::memory_order_relaxed);
  });
}

double RateProbe::flops() const {
  if (sgemm_) return 2.0 * kSize * kSize * kSize;
  float result = 0;
  return HWY_DYNAMIC_DISPATCH(MultiplyAdds)(kRounds, &result) * pool_.num_threads();
}

}  // namespace benchmarks

#endif  // HWY_ONCE
