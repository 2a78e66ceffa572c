#include "gradweave/runtime/cpu/product/integer_kernels.h"

#include <cstring>

#include "gradweave/runtime/cpu/simd/vector_targets.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "runtime/cpu/product/integer_kernels.cc"
// foreach_target.h comes first.
// clang-format off
#include "hwy/foreach_target.h"  // IWYU pragma: keep
#include "hwy/highway.h"
// clang-format on

HWY_BEFORE_NAMESPACE();
namespace gradweave {
namespace HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;

using D = hn::CappedTag<int32_t, kIntegerGroup>;
using DF = hn::RebindToFloat<D>;
using D16 = hn::RepartitionToNarrow<D>;
using V = hn::VFromD<D>;
constexpr int kLanes = hn::MaxLanes(D());
constexpr int kVectors = kIntegerGroup / kLanes;  // Of a group.

// Sums of products of the two int16 of each word.
struct Pairs {
  static HWY_INLINE void Add(V& sum, V a, V b) {
#if HWY_TARGET == HWY_NEON
    const D16 d16;
    const auto x = hn::BitCast(d16, a), y = hn::BitCast(d16, b);
    const hn::Half<D16> half;
    sum.raw = vaddq_s32(sum.raw, vpaddq_s32(vmull_s16(hn::LowerHalf(half, x).raw, hn::LowerHalf(half, y).raw),
                                            vmull_s16(hn::UpperHalf(half, x).raw, hn::UpperHalf(half, y).raw)));
#elif HWY_TARGET == HWY_SCALAR || HWY_TARGET == HWY_EMU128
    const auto low = [&](V v) { return hn::ShiftRight<16>(hn::ShiftLeft<16>(v)); };
    sum = hn::Add(sum, hn::Add(hn::Mul(low(a), low(b)), hn::Mul(hn::ShiftRight<16>(a), hn::ShiftRight<16>(b))));
#else
    const D d;
    const D16 d16;
    V odd = hn::Zero(d);
    sum = hn::ReorderWidenMulAccumulate(d, hn::BitCast(d16, a), hn::BitCast(d16, b), sum, odd);
#endif
  }
};

#if HWY_TARGET == HWY_AVX3
// Sums of products of the four bytes of each word: vpdpbusd of AVX512-VNNI. Highway has no function
// for it, and the compiler needs no flag for the text.
struct Quads {
  static HWY_INLINE void Add(V& sum, V a, V b) {
    asm("vpdpbusd %[b], %[a], %[sum]" : [sum] "+v"(sum.raw) : [a] "v"(a.raw), [b] "v"(b.raw));
  }
};
#endif

template <typename Products, int kGroups, int kPixels>
void Sum(const IntegerBlock& block) {
  const D d;
  constexpr int kColumns = kGroups * kVectors;
  V sums[kPixels][kColumns];
  for (int v = 0; v < kColumns; ++v) {
    const V start = hn::LoadU(d, block.start + v * kLanes);
    for (int p = 0; p < kPixels; ++p) sums[p][v] = start;
  }
  const auto* weights = reinterpret_cast<const int32_t*>(block.weights);
  const uint8_t* pixels[kPixels];
  for (int p = 0; p < kPixels; ++p) pixels[p] = block.pixels[p];
  for (const WordRun* run = block.runs; run != block.runs_end; ++run) {
    const int64_t end = run->offset + run->words * 4;
    for (int64_t at = run->offset; at < end; at += 4) {
      V w[kColumns];
      for (int v = 0; v < kColumns; ++v) w[v] = hn::LoadU(d, weights + v * kLanes);
      weights += kGroups * kIntegerGroup;
      for (int p = 0; p < kPixels; ++p) {
        int32_t word;
        std::memcpy(&word, pixels[p] + at, sizeof(word));
        const V a = hn::Set(d, word);
        for (int v = 0; v < kColumns; ++v) Products::Add(sums[p][v], a, w[v]);
      }
    }
  }
  for (int p = 0; p < kPixels; ++p) {
    for (int v = 0; v < kColumns; ++v)
      hn::StoreU(sums[p][v], d, block.sums + p * kGroups * kIntegerGroup + v * kLanes);
  }
}

// Returns sums times scales, and at least 0 with relu.
HWY_INLINE hn::VFromD<DF> Scaled(const int32_t* sums, const IntegerRounding& rounding, int64_t channel) {
  const D d;
  const DF df;
  const auto v = hn::Mul(hn::ConvertTo(df, hn::LoadU(d, sums + channel)), hn::LoadU(df, rounding.scale + channel));
  // NaN becomes 0.
  return rounding.relu ? hn::IfThenElseZero(hn::Gt(v, hn::Zero(df)), v) : v;
}

void ToBytes(const int32_t* sums, int64_t channels, const IntegerRounding& rounding, uint8_t* y) {
  const D d;
  const DF df;
  const hn::Rebind<uint8_t, D> bytes;
  // A result beyond these bounds saturates whatever the zero point is.
  const auto bound = hn::Set(df, 1024.0f);
  for (int64_t channel = 0; channel < channels; channel += kLanes) {
    auto v = Scaled(sums, rounding, channel);
    v = hn::IfThenElseZero(hn::Eq(v, v), v);
    v = hn::Min(hn::Max(v, hn::Neg(bound)), bound);
    const V q = hn::Add(hn::NearestInt(v), hn::Set(d, rounding.zero));
    const V clipped = hn::Min(hn::Max(q, hn::Set(d, rounding.low)), hn::Set(d, rounding.high));
    hn::StoreU(hn::TruncateTo(bytes, hn::BitCast(hn::RebindToUnsigned<D>(), clipped)), bytes, y + channel);
  }
}

void ToFloats(const int32_t* sums, int64_t channels, const IntegerRounding& rounding, float* y) {
  const DF df;
  for (int64_t channel = 0; channel < channels; channel += kLanes)
    hn::StoreU(Scaled(sums, rounding, channel), df, y + channel);
}

// Interleaves rows i and i + 8 four times, which is a transposition.
void Transpose(const uint8_t* x, int64_t x_step, uint8_t* y, int64_t y_step) {
#if HWY_TARGET == HWY_SCALAR
  for (int i = 0; i < 16; ++i) {
    for (int j = 0; j < 16; ++j) y[j * y_step + i] = x[i * x_step + j];
  }
#else
  const hn::Full128<uint8_t> d;
  hn::VFromD<decltype(d)> rows[16], mixed[16];
  for (int i = 0; i < 16; ++i) rows[i] = hn::LoadU(d, x + i * x_step);
  for (int round = 0; round < 2; ++round) {
    for (int i = 0; i < 8; ++i) {
      mixed[2 * i] = hn::InterleaveLower(d, rows[i], rows[i + 8]);
      mixed[2 * i + 1] = hn::InterleaveUpper(d, rows[i], rows[i + 8]);
    }
    for (int i = 0; i < 8; ++i) {
      rows[2 * i] = hn::InterleaveLower(d, mixed[i], mixed[i + 8]);
      rows[2 * i + 1] = hn::InterleaveUpper(d, mixed[i], mixed[i + 8]);
    }
  }
  for (int i = 0; i < 16; ++i) hn::StoreU(rows[i], d, y + i * y_step);
#endif
}

void WidenToPairs(const uint8_t* x, int64_t count, bool is_signed, int32_t zero, uint8_t* y) {
  for (int64_t i = 0; i < count; ++i) {
    const int number = is_signed ? static_cast<int8_t>(x[i]) : x[i];
    const auto centred = static_cast<int16_t>(number - zero);
    std::memcpy(y + 2 * i, &centred, sizeof(centred));
  }
}

// Adds products of int16 with a weight.
HWY_INLINE V AddProducts(V sum, const int16_t* x, int8_t weight) {
  const D d;
#if HWY_TARGET == HWY_NEON || HWY_TARGET == HWY_SCALAR || HWY_TARGET == HWY_EMU128
  return hn::Add(sum, hn::Mul(hn::PromoteTo(d, hn::LoadU(hn::Rebind<int16_t, D>(), x)), hn::Set(d, weight)));
#else
  // As pairs of which one number is 0: x86 has no fast product of int32.
  const hn::RebindToUnsigned<D> du;
  const auto words = hn::PromoteTo(du, hn::LoadU(hn::Rebind<uint16_t, D>(), reinterpret_cast<const uint16_t*>(x)));
  Pairs::Add(sum, hn::BitCast(d, words), hn::Set(d, weight & 0xffff));
  return sum;
#endif
}

// Sums kRow vectors of neighbours in registers.
template <int kRow>
HWY_INLINE void ConvolveVectors(const int16_t* x, const int64_t* offsets, const int8_t* weights, int64_t taps,
                                int32_t start, int32_t* sums) {
  const D d;
  V of_row[kRow];
  for (int v = 0; v < kRow; ++v) of_row[v] = hn::Set(d, start);
  for (int64_t t = 0; t < taps; ++t) {
    for (int v = 0; v < kRow; ++v) of_row[v] = AddProducts(of_row[v], x + offsets[t] + v * kLanes, weights[t]);
  }
  for (int v = 0; v < kRow; ++v) hn::StoreU(of_row[v], d, sums + v * kLanes);
}

void ConvolveRow(const int16_t* x, const int64_t* offsets, const int8_t* weights, int64_t taps, int32_t start,
                 int64_t count, int32_t* sums) {
  constexpr int kRow = kVectors < 4 ? 4 : kVectors;
  int64_t i = 0;
  for (; i + kRow * kLanes <= count; i += kRow * kLanes)
    ConvolveVectors<kRow>(x + i, offsets, weights, taps, start, sums + i);
  for (; i < count; i += kLanes) ConvolveVectors<1>(x + i, offsets, weights, taps, start, sums + i);
}

const IntegerKernels* MakeIntegerKernels() {
  // As many sums as leave registers for words.
#if HWY_TARGET <= HWY_AVX3
  static constexpr IntegerKernels kKernels = {
      2, {{4, 6, Sum<Pairs, 4, 6>}, {2, 12, Sum<Pairs, 2, 12>}, {1, 14, Sum<Pairs, 1, 14>}},
#elif HWY_TARGET == HWY_AVX2
  static constexpr IntegerKernels kKernels = {
      2, {{1, 6, Sum<Pairs, 1, 6>}},
#else
  static constexpr IntegerKernels kKernels = {
      2, {{1, 2, Sum<Pairs, 1, 2>}},
#endif
      ToBytes, ToFloats, Transpose, WidenToPairs, ConvolveRow};
  return &kKernels;
}

#if HWY_TARGET == HWY_AVX3
void WidenToQuads(const uint8_t* x, int64_t count, bool is_signed, int32_t, uint8_t* y) {
  const uint8_t flip = is_signed ? 0x80 : 0;
  for (int64_t i = 0; i < count; ++i) y[i] = x[i] ^ flip;
}

const IntegerKernels* MakeVnniKernels() {
  static constexpr IntegerKernels kKernels = {
      1,        {{4, 6, Sum<Quads, 4, 6>}, {2, 12, Sum<Quads, 2, 12>}, {1, 14, Sum<Quads, 1, 14>}},
      ToBytes,  ToFloats,
      Transpose, WidenToQuads,
      ConvolveRow};
  return __builtin_cpu_supports("avx512vnni") ? &kKernels : nullptr;
}
#else
const IntegerKernels* MakeVnniKernels() { return nullptr; }
#endif

}  // namespace HWY_NAMESPACE
}  // namespace gradweave
HWY_AFTER_NAMESPACE();

#if HWY_ONCE

namespace gradweave {
namespace {
HWY_EXPORT(MakeIntegerKernels);
HWY_EXPORT(MakeVnniKernels);
}  // namespace

const IntegerKernels::Sum& IntegerKernels::For(int64_t groups) const {
  const Sum* best = sums;
  for (const Sum& sum : sums) {
    if (best->groups > groups && sum.run != nullptr) best = &sum;
  }
  return *best;
}

const IntegerKernels& GetVectorIntegerKernels() { return *HWY_DYNAMIC_DISPATCH(MakeIntegerKernels)(); }

const IntegerKernels& GetIntegerKernels() {
  static const IntegerKernels* const kernels = [] {
    const IntegerKernels* vnni = HWY_DYNAMIC_DISPATCH(MakeVnniKernels)();
    return vnni != nullptr ? vnni : &GetVectorIntegerKernels();
  }();
  return *kernels;
}

}  // namespace gradweave

#endif  // HWY_ONCE
