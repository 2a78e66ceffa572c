#include "gradweave/runtime/cpu/product/integer_kernels.h"

#include <cstring>
#include <utility>

#include "gradweave/runtime/cpu/simd/vector_targets.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "runtime/cpu/product/integer_kernels.cc"
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

using DI = hn::CappedTag<int32_t, kIntegerGroup>;
using DF = hn::RebindToFloat<DI>;
using D16 = hn::RepartitionToNarrow<DI>;
using VI = hn::VFromD<DI>;
constexpr int kLanes = hn::MaxLanes(DI());
constexpr int kVectors = kIntegerGroup / kLanes;  // Of a group.

// Sums of products of the two int16 of each word.
struct Pairs {
  static HWY_INLINE void Add(VI& sum, VI a, VI b) {
#if HWY_TARGET == HWY_NEON
    const D16 d16;
    const auto x = hn::BitCast(d16, a), y = hn::BitCast(d16, b);
    const hn::Half<D16> half;
    sum.raw = vaddq_s32(sum.raw, vpaddq_s32(vmull_s16(hn::LowerHalf(half, x).raw, hn::LowerHalf(half, y).raw),
                                            vmull_s16(hn::UpperHalf(half, x).raw, hn::UpperHalf(half, y).raw)));
#elif HWY_TARGET == HWY_SCALAR || HWY_TARGET == HWY_EMU128
    const auto low = [&](VI v) { return hn::ShiftRight<16>(hn::ShiftLeft<16>(v)); };
    sum = hn::Add(sum, hn::Add(hn::Mul(low(a), low(b)), hn::Mul(hn::ShiftRight<16>(a), hn::ShiftRight<16>(b))));
#else
    const DI d;
    const D16 d16;
    VI odd = hn::Zero(d);
    sum = hn::ReorderWidenMulAccumulate(d, hn::BitCast(d16, a), hn::BitCast(d16, b), sum, odd);
#endif
  }
};

#if HWY_TARGET == HWY_AVX3
// Sums of products of the four bytes of each word: vpdpbusd of AVX512-VNNI. Highway has no function
// for it, and the compiler needs no flag for the text.
struct Quads {
  static HWY_INLINE void Add(VI& sum, VI a, VI b) {
    asm("vpdpbusd %[b], %[a], %[sum]" : [sum] "+v"(sum.raw) : [a] "v"(a.raw), [b] "v"(b.raw));
  }
};
#endif

// Four bytes of x in all lanes.
HWY_INLINE VI Word(const uint8_t* x) {
  int32_t word;
  std::memcpy(&word, x, sizeof(word));
  return hn::Set(DI(), word);
}

// Sums are indexed by compile-time constants (fold expressions), so that the array stays in
// registers.
template <typename Products, int kColumns, int... p, int... v, int... pv>
HWY_INLINE void SumBlock(const IntegerBlock& block, std::integer_sequence<int, p...>, std::integer_sequence<int, v...>,
                         std::integer_sequence<int, pv...>) {
  const DI d;
  VI sums[sizeof...(pv)];
  ((sums[pv] = hn::LoadU(d, block.start + pv % kColumns * kLanes)), ...);
  const auto* weights = reinterpret_cast<const int32_t*>(block.weights);
  const uint8_t* pixels[sizeof...(p)];
  ((pixels[p] = block.pixels[p]), ...);
  for (const WordRun* run = block.runs; run != block.runs_end; ++run) {
    const int64_t end = run->offset + run->words * 4;
    for (int64_t at = run->offset; at < end; at += 4) {
      VI w[kColumns], a;
      ((w[v] = hn::LoadU(d, weights + v * kLanes), Pin(w[v])), ...);
      weights += kColumns * kLanes;
      (((void)(pv % kColumns == 0 ? (a = Word(pixels[pv / kColumns] + at), 0) : 0),
        Products::Add(sums[pv], a, w[pv % kColumns])),
       ...);
    }
  }
  (hn::StoreU(sums[pv], d, block.sums + pv * kLanes), ...);
}

template <typename Products, int kGroups, int kPixels>
HWY_NOINLINE void Sum(const IntegerBlock& block) {
  constexpr int kColumns = kGroups * kVectors;
  SumBlock<Products, kColumns>(block, std::make_integer_sequence<int, kPixels>(),
                               std::make_integer_sequence<int, kColumns>(),
                               std::make_integer_sequence<int, kPixels * kColumns>());
}

// Returns sums times scales, and at least 0 with relu.
HWY_INLINE hn::VFromD<DF> Scaled(const int32_t* sums, const IntegerRounding& rounding, int64_t channel) {
  const DI d;
  const DF df;
  const auto v = hn::Mul(hn::ConvertTo(df, hn::LoadU(d, sums + channel)), hn::LoadU(df, rounding.scale + channel));
  // NaN becomes 0.
  return rounding.relu ? hn::IfThenElseZero(hn::Gt(v, hn::Zero(df)), v) : v;
}

using DBytes = hn::Rebind<uint8_t, DI>;

// Rounds to bytes. NaN becomes the integer 0.
HWY_INLINE hn::VFromD<DBytes> Rounded(hn::VFromD<DF> v, const IntegerRounding& rounding) {
  const DI d;
  const DF df;
  // A result beyond these bounds saturates whatever the zero point is.
  const auto bound = hn::Set(df, 1024.0f);
  const auto is_number = hn::Eq(v, v);
  v = hn::Min(hn::Max(hn::IfThenElseZero(is_number, v), hn::Neg(bound)), bound);
  const VI q = hn::Add(hn::NearestInt(v), hn::Set(d, rounding.zero));
  const VI clipped = hn::Min(hn::Max(q, hn::Set(d, rounding.low)), hn::Set(d, rounding.high));
  const VI result = hn::IfThenElseZero(hn::RebindMask(d, is_number), clipped);
  return hn::TruncateTo(DBytes(), hn::BitCast(hn::RebindToUnsigned<DI>(), result));
}

void ToBytes(const int32_t* sums, int64_t channels, const IntegerRounding& rounding, uint8_t* y) {
  for (int64_t channel = 0; channel < channels; channel += kLanes)
    hn::StoreU(Rounded(Scaled(sums, rounding, channel), rounding), DBytes(), y + channel);
}

void Quantize(const float* x, int64_t count, float scale, const IntegerRounding& rounding, uint8_t* y) {
  const DF df;
  const auto divisor = hn::Set(df, scale);
  int64_t i = 0;
  for (; i + kLanes <= count; i += kLanes)
    hn::StoreU(Rounded(hn::Div(hn::LoadU(df, x + i), divisor), rounding), DBytes(), y + i);
  if (i == count) return;
  float rest[kLanes] = {};
  uint8_t bytes[kLanes];
  for (int lane = 0; lane < kLanes && i + lane < count; ++lane) rest[lane] = x[i + lane];
  hn::StoreU(Rounded(hn::Div(hn::LoadU(df, rest), divisor), rounding), DBytes(), bytes);
  for (int lane = 0; lane < kLanes && i + lane < count; ++lane) y[i + lane] = bytes[lane];
}

using DVector = hn::CappedTag<uint8_t, 64>;

void TakeMaxima(const uint8_t* x, int64_t count, bool is_signed, uint8_t* y) {
  const DVector d;
  const int64_t lanes = hn::Lanes(d);
  // Flipped signs make the order of int8 that of uint8.
  const uint8_t flip = is_signed ? 0x80 : 0;
  const auto sign = hn::Set(d, flip);
  int64_t i = 0;
  for (; i + lanes <= count; i += lanes) {
    const auto a = hn::Xor(hn::LoadU(d, x + i), sign), b = hn::Xor(hn::LoadU(d, y + i), sign);
    hn::StoreU(hn::Xor(hn::Max(a, b), sign), d, y + i);
  }
  for (; i < count; ++i) y[i] = (x[i] ^ flip) > (y[i] ^ flip) ? x[i] : y[i];
}

void TakeEven(const uint8_t* x, int64_t count, uint8_t* y) {
  int64_t i = 0;
#if HWY_TARGET != HWY_SCALAR
  const hn::Full128<uint8_t> d;
  for (; i + 16 <= count; i += 16)
    hn::StoreU(hn::ConcatEven(d, hn::LoadU(d, x + 2 * i + 16), hn::LoadU(d, x + 2 * i)), d, y + i);
#endif
  for (; i < count; ++i) y[i] = x[2 * i];
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
HWY_INLINE VI AddProducts(VI sum, const int16_t* x, int8_t weight) {
  const DI d;
#if HWY_TARGET == HWY_NEON || HWY_TARGET == HWY_SCALAR || HWY_TARGET == HWY_EMU128
  return hn::Add(sum, hn::Mul(hn::PromoteTo(d, hn::LoadU(hn::Rebind<int16_t, DI>(), x)), hn::Set(d, weight)));
#else
  // As pairs of which one number is 0: x86 has no fast product of int32.
  const hn::RebindToUnsigned<DI> du;
  const auto words = hn::PromoteTo(du, hn::LoadU(hn::Rebind<uint16_t, DI>(), reinterpret_cast<const uint16_t*>(x)));
  Pairs::Add(sum, hn::BitCast(d, words), hn::Set(d, weight & 0xffff));
  return sum;
#endif
}

// Sums vectors of neighbours in registers.
template <int... v>
HWY_INLINE void ConvolveVectors(const int16_t* x, const int64_t* offsets, const int8_t* weights, int64_t taps,
                                int32_t start, int32_t* sums, std::integer_sequence<int, v...>) {
  const DI d;
  VI of_row[] = {((void)v, hn::Set(d, start))...};
  for (int64_t t = 0; t < taps; ++t)
    ((of_row[v] = AddProducts(of_row[v], x + offsets[t] + v * kLanes, weights[t])), ...);
  (hn::StoreU(of_row[v], d, sums + v * kLanes), ...);
}

void ConvolveRow(const int16_t* x, const int64_t* offsets, const int8_t* weights, int64_t taps, int32_t start,
                 int64_t count, int32_t* sums) {
  constexpr int kRow = kVectors < 4 ? 4 : kVectors;
  int64_t i = 0;
  for (; i + kRow * kLanes <= count; i += kRow * kLanes)
    ConvolveVectors(x + i, offsets, weights, taps, start, sums + i, std::make_integer_sequence<int, kRow>());
  for (; i < count; i += kLanes)
    ConvolveVectors(x + i, offsets, weights, taps, start, sums + i, std::make_integer_sequence<int, 1>());
}

const IntegerKernels* MakeIntegerKernels() {
  // As many sums as leave registers for words.
#if HWY_TARGET <= HWY_AVX3
  static constexpr IntegerKernels kKernels = {
    2,
    {{4, 6, Sum<Pairs, 4, 6>}, {2, 12, Sum<Pairs, 2, 12>}, {1, 14, Sum<Pairs, 1, 14>}},
#elif HWY_TARGET == HWY_AVX2
  static constexpr IntegerKernels kKernels = {
    2,
    {{1, 6, Sum<Pairs, 1, 6>}},
#else
  static constexpr IntegerKernels kKernels = {
      2, {{1, 2, Sum<Pairs, 1, 2>}},
#endif
    ToBytes,
    ToFloats,
    Transpose,
    WidenToPairs,
    ConvolveRow,
    Quantize,
    TakeMaxima,
    TakeEven
  };
  return &kKernels;
}

#if HWY_TARGET == HWY_AVX3
void WidenToQuads(const uint8_t* x, int64_t count, bool is_signed, int32_t, uint8_t* y) {
  const uint8_t flip = is_signed ? 0x80 : 0;
  for (int64_t i = 0; i < count; ++i) y[i] = x[i] ^ flip;
}

const IntegerKernels* MakeVnniKernels() {
  static constexpr IntegerKernels kKernels = {
      1,           {{4, 6, Sum<Quads, 4, 6>}, {2, 12, Sum<Quads, 2, 12>}, {1, 14, Sum<Quads, 1, 14>}},
      ToBytes,     ToFloats,
      Transpose,   WidenToQuads,
      ConvolveRow, Quantize,
      TakeMaxima,  TakeEven};
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
