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
constexpr int kVectors = kIntegerGroup / kLanes;  // A group has this many.

// Sums of products of the two int16 of each word.
struct Pairs {
  static HWY_INLINE void Add(VI& sum, VI a, VI b) {
#if HWY_ARCH_ARM
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

// Returns sums times scales.
HWY_INLINE hn::VFromD<DF> Scaled(const int32_t* sums, const float* scale) {
  return hn::Mul(hn::ConvertTo(DF(), hn::LoadU(DI(), sums)), hn::LoadU(DF(), scale));
}

using DBytes = hn::Rebind<uint8_t, DI>;

// Rounds to bytes. NaN becomes the integer 0.
struct Rounding {
  // Integers as bounds, so that numbers may be clipped before they are rounded.
  explicit Rounding(const IntegerRounding& rounding)
      : zero(hn::Set(DI(), rounding.zero)),
        low(hn::Set(DF(), static_cast<float>(rounding.relu ? 0 : rounding.low - rounding.zero))),
        high(hn::Set(DF(), static_cast<float>(rounding.high - rounding.zero))) {}
  HWY_INLINE hn::VFromD<DBytes> operator()(hn::VFromD<DF> v) const {
    const VI q = hn::Add(hn::NearestInt(hn::Min(hn::Max(v, low), high)), zero);
    const VI result = hn::IfThenElseZero(hn::RebindMask(DI(), hn::Eq(v, v)), q);
    return hn::TruncateTo(DBytes(), hn::BitCast(hn::RebindToUnsigned<DI>(), result));
  }
  VI zero;
  hn::VFromD<DF> low, high;
};

void ToBytes(const int32_t* sums, int64_t pixels, int64_t channels, const IntegerRounding& rounding, uint8_t* y) {
  const Rounding round(rounding);
  for (int64_t pixel = 0; pixel < pixels; ++pixel, sums += channels, y += channels) {
    for (int64_t channel = 0; channel < channels; channel += kLanes)
      hn::StoreU(round(Scaled(sums + channel, rounding.scale + channel)), DBytes(), y + channel);
  }
}

void ToFloats(const int32_t* sums, int64_t pixels, int64_t channels, const IntegerRounding& rounding, float* y) {
  const DF df;
  for (int64_t pixel = 0; pixel < pixels; ++pixel, sums += channels, y += channels) {
    for (int64_t channel = 0; channel < channels; channel += kLanes) {
      const auto v = Scaled(sums + channel, rounding.scale + channel);
      hn::StoreU(rounding.relu ? hn::IfThenElseZero(hn::Gt(v, hn::Zero(df)), v) : v, df, y + channel);
    }
  }
}

void Quantize(const float* x, int64_t count, float scale, const IntegerRounding& rounding, uint8_t* y) {
  const DF df;
  const Rounding round(rounding);
  const auto divisor = hn::Set(df, scale);
  int64_t i = 0;
  for (; i + kLanes <= count; i += kLanes) hn::StoreU(round(hn::Div(hn::LoadU(df, x + i), divisor)), DBytes(), y + i);
  if (i == count) return;
  float rest[kLanes] = {};
  uint8_t bytes[kLanes];
  for (int lane = 0; lane < kLanes && i + lane < count; ++lane) rest[lane] = x[i + lane];
  hn::StoreU(round(hn::Div(hn::LoadU(df, rest), divisor)), DBytes(), bytes);
  for (int lane = 0; lane < kLanes && i + lane < count; ++lane) y[i + lane] = bytes[lane];
}

#if HWY_TARGET == HWY_SCALAR
using DRow = hn::CappedTag<uint8_t, 1>;
#else
using DRow = hn::Full128<uint8_t>;
#endif
using VRow = hn::VFromD<DRow>;
constexpr int64_t kRowLanes = hn::MaxLanes(DRow());

// Returns the bytes before x_end, and zeros.
HWY_INLINE VRow LoadBefore(const uint8_t* x, const uint8_t* x_end) {
  const DRow d;
  if (x + kRowLanes <= x_end) return hn::LoadU(d, x);
  uint8_t copy[kRowLanes] = {};
  for (const uint8_t* p = x; p < x_end; ++p) copy[p - x] = *p;
  return hn::LoadU(d, copy);
}

// Returns every stride-th byte, `count` of them at most.
HWY_INLINE VRow LoadStrided(const uint8_t* x, int64_t stride, int64_t count) {
  const DRow d;
  if (stride == 1) return hn::LoadU(d, x);
#if HWY_TARGET != HWY_SCALAR
  if (stride == 2) return hn::ConcatEven(d, hn::LoadU(d, x + kRowLanes), hn::LoadU(d, x));
#endif
  uint8_t copy[kRowLanes] = {};
  for (int64_t lane = 0; lane < HWY_MIN(kRowLanes, count); ++lane) copy[lane] = x[lane * stride];
  return hn::LoadU(d, copy);
}

void Pool(const BytePool& g, const uint8_t* x, const uint8_t* x_end, uint8_t* row, uint8_t* y) {
  const DRow d;
  // Flipped signs make the order of int8 that of uint8, whose lowest number is 0.
  const VRow sign = hn::Set(d, g.is_signed ? 0x80 : 0), lowest = hn::Zero(d);
  std::memset(row, 0, static_cast<size_t>(g.row_size()));
  for (int64_t i = 0; i < g.output_height; ++i) {
    const int64_t first = HWY_MAX(i * g.stride_y - g.top, 0);
    const int64_t end = HWY_MIN(i * g.stride_y - g.top + g.window_y, g.height);
    for (int64_t column = 0; column < g.width; column += kRowLanes) {
      VRow largest = lowest;
      for (int64_t k = first; k < end; ++k) {
        largest = hn::Max(largest, hn::Xor(LoadBefore(x + k * g.width + column, x_end), sign));
      }
      hn::StoreU(largest, d, row + g.left + column);
    }
    // The vectors may have reached into the padding behind the row.
    std::memset(row + g.left + g.width, 0, kRowLanes);
    for (int64_t j = 0; j < g.output_width; j += kRowLanes) {
      VRow largest = lowest;
      for (int64_t l = 0; l < g.window_x; ++l) {
        largest = hn::Max(largest, LoadStrided(row + j * g.stride_x + l, g.stride_x, g.output_width - j));
      }
      const VRow result = hn::Xor(largest, sign);
      if (j + kRowLanes <= g.output_width) {
        hn::StoreU(result, d, y + j);
        continue;
      }
      uint8_t rest[kRowLanes];
      hn::StoreU(result, d, rest);
      for (int64_t lane = 0; lane < g.output_width - j; ++lane) y[j + lane] = rest[lane];
    }
    y += g.output_width;
  }
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
  const hn::ScalableTag<int16_t> d;
  const hn::Rebind<uint8_t, decltype(d)> bytes;
  const hn::Rebind<int8_t, decltype(d)> signed_bytes;
  const auto less = hn::Set(d, static_cast<int16_t>(zero));
  auto* const to = reinterpret_cast<int16_t*>(y);
  const int64_t lanes = hn::Lanes(d);
  int64_t i = 0;
  for (; i + lanes <= count; i += lanes) {
    const auto number = hn::LoadU(bytes, x + i);
    const auto wide = is_signed ? hn::PromoteTo(d, hn::BitCast(signed_bytes, number)) : hn::PromoteTo(d, number);
    hn::StoreU(hn::Sub(wide, less), d, to + i);
  }
  for (; i < count; ++i) {
    const int number = is_signed ? static_cast<int8_t>(x[i]) : x[i];
    const auto centred = static_cast<int16_t>(number - zero);
    std::memcpy(to + i, &centred, sizeof(centred));
  }
}

// Adds products of int16 with a weight.
HWY_INLINE VI AddProducts(VI sum, const int16_t* x, int8_t weight) {
  const DI d;
#if HWY_ARCH_ARM || HWY_TARGET == HWY_SCALAR || HWY_TARGET == HWY_EMU128
  return hn::Add(sum, hn::Mul(hn::PromoteTo(d, hn::LoadU(hn::Rebind<int16_t, DI>(), x)), hn::Set(d, weight)));
#else
  // x86 has no fast product of int32, so the numbers are pairs of which one is 0.
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
  // The sums leave registers for words.
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
    Pool
  };
  return &kKernels;
}

#if HWY_TARGET == HWY_AVX3
void WidenToQuads(const uint8_t* x, int64_t count, bool is_signed, int32_t, uint8_t* y) {
  const hn::ScalableTag<uint8_t> d;
  const uint8_t flip = is_signed ? 0x80 : 0;
  const auto sign = hn::Set(d, flip);
  const int64_t lanes = hn::Lanes(d);
  int64_t i = 0;
  for (; i + lanes <= count; i += lanes) hn::StoreU(hn::Xor(hn::LoadU(d, x + i), sign), d, y + i);
  for (; i < count; ++i) y[i] = x[i] ^ flip;
}

const IntegerKernels* MakeVnniKernels() {
  static constexpr IntegerKernels kKernels = {
      1,           {{4, 6, Sum<Quads, 4, 6>}, {2, 12, Sum<Quads, 2, 12>}, {1, 14, Sum<Quads, 1, 14>}},
      ToBytes,     ToFloats,
      Transpose,   WidenToQuads,
      ConvolveRow, Quantize,
      Pool};
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
