#include "gradweave/runtime/cpu/tile/tile_kernels.h"

#include <algorithm>
#include <array>
#include <cstring>
#include <iterator>
#include <type_traits>
#include <utility>

#include "gradweave/runtime/cpu/simd/vector_targets.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "runtime/cpu/tile/tile_kernels.cc"
// foreach_target.h comes first.
// clang-format off
#include "hwy/foreach_target.h"  // IWYU pragma: keep
#include "hwy/highway.h"
#include "gradweave/runtime/cpu/simd/vector_formulas-inl.h"
#include "gradweave/runtime/cpu/simd/vector_registers-inl.h"
// clang-format on

HWY_BEFORE_NAMESPACE();
namespace gradweave {
namespace HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;

// Accumulators of a block, which must leave registers for the operands. AVX-512 and NEON have 32
// registers, the others 16.
#if HWY_TARGET <= HWY_AVX3 || HWY_ARCH_ARM_A64
constexpr int kAccumulators = 25;
#else
constexpr int kAccumulators = 12;
#endif

// sums[i*B + j] += row(i) * column(j), with index sequences a, b and ab for A, B and A*B. The
// shorter side stays in registers, and the longer side is loaded one vector at a time: beside A*B
// sums there is no room for both. Every accumulator is indexed by compile-time constants (fold
// expressions) in the function that contains the loop, so that arrays stay in registers; a function
// called from the loop would force them into memory.
#define GRADWEAVE_ADD_OUTER_PRODUCT(A, B, sums, row, column)                                                   \
  if constexpr (A < B) {                                                                                       \
    V kept[A], v;                                                                                              \
    ((kept[a] = row(a), Pin(kept[a])), ...);                                                                   \
    (((void)(ab % A == 0 ? (v = column(ab / A), Pin(v), 0) : 0),                                               \
      sums[ab % A * B + ab / A] = hn::MulAdd(kept[ab % A], v, sums[ab % A * B + ab / A])),                     \
     ...);                                                                                                     \
  } else {                                                                                                     \
    V kept[B], v;                                                                                              \
    ((kept[b] = column(b), Pin(kept[b])), ...);                                                                \
    (((void)(ab % B == 0 ? (v = row(ab / B), 0) : 0), sums[ab] = hn::MulAdd(v, kept[ab % B], sums[ab])), ...); \
  }

template <int A, int B, int... a, int... b, int... ab>
HWY_INLINE void WeightedSumBlockImpl(const WeightedSumArguments& g, std::integer_sequence<int, a...>,
                                     std::integer_sequence<int, b...>, std::integer_sequence<int, ab...>) {
  const D d;
  const int64_t x_step = g.x_step, weight_step = g.weight_step, y_step_a = g.y_step_a, y_step_b = g.y_step_b;
  for (int64_t product = 0; product < g.products; ++product) {
    V sums[A * B];
    if (g.bias == nullptr) {
      ((sums[ab] = hn::Zero(d)), ...);
    } else {
      ((sums[ab] = hn::Set(d, g.bias[ab / B])), ...);
    }
    const float* x = g.x + product * g.x_product;
    for (int64_t k = 0; k < g.repeats; ++k) {
      const float* weights = g.weights + product * g.weight_product + k * g.period * weight_step;
      const int32_t* offset = g.offsets + k * g.period;
      for (const int32_t* end = offset + g.terms; offset != end; ++offset) {
        const float* from = x + *offset;
        const auto row = [&](int i) HWY_ATTR { return hn::Set(d, weights[i]); };
        const auto column = [&](int j) HWY_ATTR { return hn::Load(d, from + j * x_step); };
        GRADWEAVE_ADD_OUTER_PRODUCT(A, B, sums, row, column)
        weights += weight_step;
      }
    }
    float* y = g.y + product * g.y_product;
    (hn::Store(sums[ab], d, y + (ab / B) * y_step_a + (ab % B) * y_step_b), ...);
  }
}
template <int A, int B>
HWY_NOINLINE void WeightedSumBlock(const WeightedSumArguments& g) {
  WeightedSumBlockImpl<A, B>(g, std::make_integer_sequence<int, A>(), std::make_integer_sequence<int, B>(),
                             std::make_integer_sequence<int, A * B>());
}

template <int A, int B, int... a, int... b, int... ab>
HWY_INLINE void DirectSumBlockImpl(const DirectSumArguments& g, std::integer_sequence<int, a...>,
                                   std::integer_sequence<int, b...>, std::integer_sequence<int, ab...>) {
  const D d;
  const int64_t lanes = hn::Lanes(d);
  V sums[A * B];
  if (g.bias == nullptr) {
    ((sums[ab] = hn::Zero(d)), ...);
  } else {
    ((sums[ab] = hn::Set(d, g.bias[ab / B])), ...);
  }
  const float* weights[A];
  ((weights[a] = g.weights + a * g.weight_step), ...);
  for (int64_t r = 0; r < g.terms; ++r) {
    const float* from = g.x + g.offsets[r];
    const auto row = [&](int i) HWY_ATTR { return hn::Set(d, weights[i][r]); };
    const auto column = [&](int j) HWY_ATTR { return hn::LoadU(d, from + j * lanes); };
    GRADWEAVE_ADD_OUTER_PRODUCT(A, B, sums, row, column)
  }
  (hn::StoreU(sums[ab], d, g.y + (ab / B) * g.y_step_a + (ab % B) * lanes), ...);
}
template <int A, int B>
HWY_NOINLINE void DirectSumBlock(const DirectSumArguments& g) {
  DirectSumBlockImpl<A, B>(g, std::make_integer_sequence<int, A>(), std::make_integer_sequence<int, B>(),
                           std::make_integer_sequence<int, A * B>());
}

template <int A, int... a>
HWY_INLINE void ChannelSumBlockImpl(const ChannelSumArguments& g, std::integer_sequence<int, a...>) {
  const D d;
  const int64_t lanes = hn::Lanes(d), x_step = g.x_step;
  V sums[A];
  ((sums[a] = hn::Load(d, g.bias)), ...);
  const float* weights = g.weights;
  for (int64_t r = 0; r < g.terms; ++r, weights += lanes) {
    const float* x = g.x + g.offsets[r];
    V w = hn::Load(d, weights);
    Pin(w);
    ((sums[a] = hn::MulAdd(hn::Set(d, x[a * x_step]), w, sums[a])), ...);
  }
  (hn::Store(sums[a], d, g.y + a * lanes), ...);
}
template <int A>
HWY_NOINLINE void ChannelSumBlock(const ChannelSumArguments& g) {
  ChannelSumBlockImpl<A>(g, std::make_integer_sequence<int, A>());
}

constexpr size_t kFoldedLanes = HWY_MIN(size_t{4}, hn::MaxLanes(D()));

// to[0..kFoldedLanes) += the lanes of the vector; lanes that are kFoldedLanes apart are added
// together.
template <class DV, class VV>
HWY_INLINE void AddFolded(DV d, VV v, float* to) {
#if HWY_TARGET != HWY_SCALAR
  if constexpr (hn::MaxLanes(DV()) > kFoldedLanes) {
    const hn::Half<DV> half;
    AddFolded(half, hn::Add(hn::LowerHalf(half, v), hn::UpperHalf(half, v)), to);
    return;
  }
#endif
  hn::Store(hn::Add(v, hn::Load(d, to)), d, to);
}

template <int A, int B, int... a, int... b, int... ab>
HWY_INLINE void CorrelationBlockImpl(const CorrelationArguments& g, std::integer_sequence<int, a...>,
                                     std::integer_sequence<int, b...>, std::integer_sequence<int, ab...>) {
  const D d;
  const int64_t lanes = hn::Lanes(d);
  V sums[A * B];
  ((sums[ab] = hn::Zero(d)), ...);
  const float* taps[B];
  ((taps[b] = g.x + g.offsets[b]), ...);
  const int64_t dy_step_a = g.dy_step_a, x_step = g.x_step;
  for (int64_t i = 0; i < g.rows; ++i) {
    const float* dy = g.dy + i * g.dy_row;
    int64_t place = i * g.x_row;
    for (int64_t j = 0; j < g.columns; ++j) {
      const auto row = [&](int i) HWY_ATTR { return hn::Load(d, dy + i * dy_step_a); };
      const auto column = [&](int j) HWY_ATTR { return hn::Load(d, taps[j] + place); };
      GRADWEAVE_ADD_OUTER_PRODUCT(A, B, sums, row, column)
      dy += lanes;
      place += x_step;
    }
  }
  (AddFolded(d, sums[ab], g.sums + (ab / B) * g.sum_step_a + (ab % B) * static_cast<int64_t>(kFoldedLanes)), ...);
}
template <int A, int B>
HWY_NOINLINE void CorrelationBlock(const CorrelationArguments& g) {
  CorrelationBlockImpl<A, B>(g, std::make_integer_sequence<int, A>(), std::make_integer_sequence<int, B>(),
                             std::make_integer_sequence<int, A * B>());
}

// ---- Lanes and samples ----

// Transposes lanes x lanes elements in blocks of 4 x 4. All targets have vectors of four, and wider
// shuffles would not be cheaper.
HWY_INLINE void TransposeBlock(const float* from, int64_t from_step, float* to, int64_t to_step) {
#if HWY_TARGET == HWY_SCALAR
  (void)from_step, (void)to_step;
  *to = *from;
#else
  const hn::FixedTag<float, 4> d;
  const hn::FixedTag<double, 2> pairs;
  const int64_t lanes = hn::Lanes(D());
  for (int64_t i = 0; i < lanes; i += 4) {
    for (int64_t j = 0; j < lanes; j += 4) {
      const float* source = from + i * from_step + j;
      const auto r0 = hn::LoadU(d, source), r1 = hn::LoadU(d, source + from_step);
      const auto r2 = hn::LoadU(d, source + 2 * from_step), r3 = hn::LoadU(d, source + 3 * from_step);
      const auto low01 = hn::BitCast(pairs, hn::InterleaveLower(d, r0, r1));
      const auto low23 = hn::BitCast(pairs, hn::InterleaveLower(d, r2, r3));
      const auto high01 = hn::BitCast(pairs, hn::InterleaveUpper(d, r0, r1));
      const auto high23 = hn::BitCast(pairs, hn::InterleaveUpper(d, r2, r3));
      float* target = to + j * to_step + i;
      hn::StoreU(hn::BitCast(d, hn::InterleaveLower(pairs, low01, low23)), d, target);
      hn::StoreU(hn::BitCast(d, hn::InterleaveUpper(pairs, low01, low23)), d, target + to_step);
      hn::StoreU(hn::BitCast(d, hn::InterleaveLower(pairs, high01, high23)), d, target + 2 * to_step);
      hn::StoreU(hn::BitCast(d, hn::InterleaveUpper(pairs, high01, high23)), d, target + 3 * to_step);
    }
  }
#endif
}

void GatherLanes(const float* samples, int64_t sample_step, int64_t count, int64_t elements, float* to) {
  const D d;
  const int64_t lanes = hn::Lanes(d);
  int64_t e = 0;
  HWY_ALIGN float block[hn::MaxLanes(D()) * hn::MaxLanes(D())];  // The last sample is repeated.
  for (; e + lanes <= elements; e += lanes) {
    const float* from = samples + e;
    int64_t from_step = sample_step;
    if (count < lanes) {
      for (int64_t lane = 0; lane < lanes; ++lane)
        hn::Store(hn::LoadU(d, from + std::min(lane, count - 1) * sample_step), d, block + lane * lanes);
      from = block;
      from_step = lanes;
    }
    TransposeBlock(from, from_step, to + e * lanes, lanes);
  }
  for (; e < elements; ++e) {
    for (int64_t lane = 0; lane < lanes; ++lane)
      to[e * lanes + lane] = samples[std::min(lane, count - 1) * sample_step + e];
  }
}

void ScatterLanes(const float* from, int64_t elements, int64_t count, float* samples, int64_t sample_step) {
  const D d;
  const int64_t lanes = hn::Lanes(d);
  int64_t e = 0;
  HWY_ALIGN float block[hn::MaxLanes(D()) * hn::MaxLanes(D())];
  for (; e + lanes <= elements; e += lanes) {
    if (count == lanes) {
      TransposeBlock(from + e * lanes, lanes, samples + e, sample_step);
      continue;
    }
    TransposeBlock(from + e * lanes, lanes, block, lanes);
    for (int64_t lane = 0; lane < count; ++lane)
      hn::StoreU(hn::Load(d, block + lane * lanes), d, samples + lane * sample_step + e);
  }
  for (; e < elements; ++e) {
    for (int64_t lane = 0; lane < count; ++lane) samples[lane * sample_step + e] = from[e * lanes + lane];
  }
}

void AddLaneSums(const float* x, int64_t elements, float* sums) {
  const D d;
  const int64_t lanes = hn::Lanes(d);
  int64_t e = 0;
#if HWY_TARGET != HWY_SCALAR
  // Four elements at a time: two transposition steps turn four vectors into one, in which every
  // block of four lanes holds a part of each sum.
  const hn::FixedTag<float, 4> four;
  const hn::RepartitionToWide<D> pairs;
  HWY_ALIGN float parts[hn::MaxLanes(D())];
  for (; e + 4 <= elements; e += 4, x += 4 * lanes) {
    const V x0 = hn::Load(d, x), x1 = hn::Load(d, x + lanes);
    const V x2 = hn::Load(d, x + 2 * lanes), x3 = hn::Load(d, x + 3 * lanes);
    const auto low = hn::BitCast(pairs, hn::Add(hn::InterleaveLower(d, x0, x1), hn::InterleaveUpper(d, x0, x1)));
    const auto high = hn::BitCast(pairs, hn::Add(hn::InterleaveLower(d, x2, x3), hn::InterleaveUpper(d, x2, x3)));
    hn::Store(hn::Add(hn::BitCast(d, hn::InterleaveLower(pairs, low, high)),
                      hn::BitCast(d, hn::InterleaveUpper(pairs, low, high))),
              d, parts);
    auto sum = hn::LoadU(four, sums + e);
    for (int64_t i = 0; i < lanes; i += 4) sum = hn::Add(sum, hn::Load(four, parts + i));
    hn::StoreU(sum, four, sums + e);
  }
#endif
  for (; e < elements; ++e, x += lanes) sums[e] += hn::GetLane(hn::SumOfLanes(d, hn::Load(d, x)));
}

void AddFoldedSums(const float* x, int64_t elements, float* sums) {
  constexpr int64_t lanes = kFoldedLanes;
  for (int64_t e = 0; e < elements; ++e) {
    float sum = 0;
    for (int64_t lane = 0; lane < lanes; ++lane) sum += x[e * lanes + lane];
    sums[e] += sum;
  }
}

void ClearLanes(float* x, int64_t elements, int64_t count) {
  const D d;
  const int64_t lanes = hn::Lanes(d);
  const auto kept = hn::FirstN(d, static_cast<size_t>(count));
  for (int64_t e = 0; e < elements; ++e) {
    hn::Store(hn::IfThenElseZero(kept, hn::Load(d, x + e * lanes)), d, x + e * lanes);
  }
}

// ---- Pooling ----

// Calls window(first element of x, y, index of the channel's first window, i) for all windows.
template <typename Window>
HWY_INLINE void ForWindows(const PoolRow& g, const Window& window) {
  const int64_t lanes = hn::Lanes(D());
  for (int64_t channel = 0; channel < g.channels; ++channel) {
    float* x = g.x + channel * g.x_channel;
    float* y = g.y + channel * g.y_channel;
    for (int64_t i = 0; i < g.count; ++i, x += g.x_step, y += lanes) window(x, y, channel, i);
  }
}

// Windows of 2 x 2 are unrolled, since loops over them would cost more than their body.
template <typename Body>
HWY_INLINE void ForElements(const PoolRow& g, const Body& body) {
  const int64_t lanes = hn::Lanes(D());
  if (g.height == 2 && g.width == 2) {
    body(int64_t{0}), body(lanes), body(g.x_row), body(g.x_row + lanes);
    return;
  }
  for (int64_t k = 0; k < g.height; ++k) {
    for (int64_t l = 0; l < g.width; ++l) body(k * g.x_row + l * lanes);
  }
}

void AverageRow(const PoolRow& g, float factor) {
  const D d;
  const V scale = hn::Set(d, factor);
  ForWindows(g, [&](const float* x, float* y, int64_t, int64_t) HWY_ATTR {
    V sum = hn::Zero(d);
    ForElements(g, [&](int64_t place) HWY_ATTR { sum = hn::Add(sum, hn::Load(d, x + place)); });
    hn::Store(hn::Mul(sum, scale), d, y);
  });
}

void SpreadRow(const PoolRow& g, float factor, bool set) {
  const D d;
  const V scale = hn::Set(d, factor);
  ForWindows(g, [&](float* x, const float* from, int64_t, int64_t) HWY_ATTR {
    const V y = hn::Mul(hn::Load(d, from), scale);
    if (set) {
      ForElements(g, [&](int64_t place) HWY_ATTR { hn::Store(y, d, x + place); });
    } else {
      ForElements(g, [&](int64_t place) HWY_ATTR { hn::Store(hn::Add(hn::Load(d, x + place), y), d, x + place); });
    }
  });
}

template <class Formula>
void SpreadBinaryRow(const SpreadBinary& g) {
  const D d;
  const Formula formula;
  const V scale = hn::Set(d, g.factor);
  const int64_t lanes = hn::Lanes(d);
  ForWindows(g.row, [&](float* x, const float* from, int64_t channel, int64_t i) HWY_ATTR {
    const V y = hn::Mul(hn::Load(d, from), scale);
    const float* other = g.other + channel * g.other_channel + i * g.row.x_step;
    auto apply = [&](int64_t k, int64_t column) HWY_ATTR {
      hn::Store(formula(d, y, hn::Load(d, other + k * g.other_row + column)), d, x + k * g.row.x_row + column);
    };
    if (g.row.height == 2 && g.row.width == 2) {
      apply(0, 0), apply(0, lanes), apply(1, 0), apply(1, lanes);
      return;
    }
    for (int64_t k = 0; k < g.row.height; ++k) {
      for (int64_t l = 0; l < g.row.width; ++l) apply(k, l * lanes);
    }
  });
}

void MaxRow(const PoolRow& g, const PoolIndices& at) {
  const D d;
  const hn::RebindToSigned<D> di;
  const int64_t lanes = hn::Lanes(d);
  ForWindows(g, [&](const float* from, float* y, int64_t channel, int64_t i) HWY_ATTR {
    const int32_t first = static_cast<int32_t>(at.first + i * at.index_step);
    V best = hn::Load(d, from);
    auto place = hn::Set(di, first);
    for (int64_t k = 0; k < g.height; ++k) {
      for (int64_t l = 0; l < g.width; ++l) {
        const V x = hn::Load(d, from + k * g.x_row + l * lanes);
        // Take x if it is larger, or the first NaN.
        const auto better = hn::Or(hn::Gt(x, best), hn::AndNot(hn::IsNaN(best), hn::IsNaN(x)));
        best = hn::IfThenElse(better, x, best);
        place = hn::IfThenElse(hn::RebindMask(di, better),
                               hn::Set(di, static_cast<int32_t>(first + k * at.index_row + l)), place);
      }
    }
    hn::Store(best, d, y);
    hn::Store(place, di, at.indices + channel * at.channel_step + i * lanes);
  });
}

void UnpoolRow(const PoolRow& g, const PoolIndices& at, bool set) {
  const D d;
  const hn::RebindToSigned<D> di;
  const int64_t lanes = hn::Lanes(d);
  ForWindows(g, [&](float* to, const float* from, int64_t channel, int64_t i) HWY_ATTR {
    const int32_t first = static_cast<int32_t>(at.first + i * at.index_step);
    const V y = hn::Load(d, from);
    const auto place = hn::Load(di, at.indices + channel * at.channel_step + i * lanes);
    for (int64_t k = 0; k < g.height; ++k) {
      for (int64_t l = 0; l < g.width; ++l) {
        float* x = to + k * g.x_row + l * lanes;
        const auto here = hn::Eq(place, hn::Set(di, static_cast<int32_t>(first + k * at.index_row + l)));
        const V dx = hn::IfThenElseZero(hn::RebindMask(d, here), y);
        hn::Store(set ? dx : hn::Add(hn::Load(d, x), dx), d, x);
      }
    }
  });
}

// ---- Sums and softmax ----

void AddUp(const float* x, int64_t count, int64_t step, float* y) {
  const D d;
  V s0 = hn::Load(d, y), s1 = hn::Zero(d), s2 = hn::Zero(d), s3 = hn::Zero(d);
  int64_t i = 0;
  for (; i + 4 <= count; i += 4) {
    s0 = hn::Add(s0, hn::Load(d, x + i * step));
    s1 = hn::Add(s1, hn::Load(d, x + (i + 1) * step));
    s2 = hn::Add(s2, hn::Load(d, x + (i + 2) * step));
    s3 = hn::Add(s3, hn::Load(d, x + (i + 3) * step));
  }
  for (; i < count; ++i) s0 = hn::Add(s0, hn::Load(d, x + i * step));
  hn::Store(hn::Add(hn::Add(s0, s1), hn::Add(s2, s3)), d, y);
}

// Returns the largest element of each lane, or NaN if one is NaN.
HWY_INLINE V Largest(const float* x, int64_t count) {
  const D d;
  const int64_t lanes = hn::Lanes(d);
  V best = hn::Load(d, x);
  for (int64_t i = 1; i < count; ++i) {
    const V v = hn::Load(d, x + i * lanes);
    best = hn::IfThenElse(hn::IsNaN(best), best, hn::IfThenElse(hn::IsNaN(v), v, hn::Max(best, v)));
  }
  return best;
}

void Softmax(const float* x, int64_t count, float* y) {
  const D d;
  const int64_t lanes = hn::Lanes(d);
  const V largest = Largest(x, count);
  V sum = hn::Zero(d);
  for (int64_t i = 0; i < count; ++i) {
    const V e = ExpOfNegative(d, hn::Sub(hn::Load(d, x + i * lanes), largest));
    sum = hn::Add(sum, e);
    hn::Store(e, d, y + i * lanes);
  }
  const V scale = hn::Div(hn::Set(d, 1.0f), sum);
  for (int64_t i = 0; i < count; ++i) hn::Store(hn::Mul(hn::Load(d, y + i * lanes), scale), d, y + i * lanes);
}

void CrossEntropy(const float* x, int64_t count, const int32_t* labels, float* loss) {
  const D d;
  const hn::RebindToSigned<D> di;
  const int64_t lanes = hn::Lanes(d);
  const V largest = Largest(x, count);
  const auto label = hn::Load(di, labels);
  V sum = hn::Zero(d), rest = hn::Zero(d), chosen = hn::Zero(d);  // The rest is without the largest element.
  for (int64_t i = 0; i < count; ++i) {
    const V shifted = hn::Sub(hn::Load(d, x + i * lanes), largest);
    const V term = ExpOfNegative(d, shifted);
    sum = hn::Add(sum, term);
    rest = hn::Add(rest, hn::IfThenElseZero(hn::Lt(shifted, hn::Zero(d)), term));
    const auto here = hn::Eq(label, hn::Set(di, static_cast<int32_t>(i)));
    chosen = hn::IfThenElse(hn::RebindMask(d, here), shifted, chosen);
  }
  const V log_sum = hn::IfThenElse(hn::Lt(sum, hn::Set(d, static_cast<float>(formulas::kDominatedSum))),
                                   hn::Log1p(d, rest), hn::IfThenElse(hn::IsNaN(sum), sum, hn::Log(d, sum)));
  hn::Store(hn::Sub(log_sum, chosen), d, loss);
}

void CrossEntropyGradient(const float* x, int64_t count, const int32_t* labels, const float* dy, float* dx) {
  const D d;
  const hn::RebindToSigned<D> di;
  const int64_t lanes = hn::Lanes(d);
  Softmax(x, count, dx);
  const auto label = hn::Load(di, labels);
  const V gradient = hn::Load(d, dy);
  for (int64_t i = 0; i < count; ++i) {
    const auto here = hn::RebindMask(d, hn::Eq(label, hn::Set(di, static_cast<int32_t>(i))));
    const V p = hn::Load(d, dx + i * lanes);
    hn::Store(hn::Mul(gradient, hn::IfThenElse(here, hn::Sub(p, hn::Set(d, 1.0f)), p)), d, dx + i * lanes);
  }
}

template <int A, int B>
void AddBlocks(TileKernels& kernels) {
  if constexpr (A * B <= kAccumulators) {
    kernels.weighted_sum[A][B] = WeightedSumBlock<A, B>;
    if constexpr (A <= 8) kernels.direct_sum[A][B] = DirectSumBlock<A, B>;
    if constexpr (B == 1) kernels.channel_sum[A] = ChannelSumBlock<A>;
    kernels.correlation[A][B] = CorrelationBlock<A, B>;
  }
  if constexpr (B < kMostBlockColumns) {
    AddBlocks<A, B + 1>(kernels);
  } else if constexpr (A < kMostBlockRows) {
    AddBlocks<A + 1, 1>(kernels);
  }
}

const TileKernels* MakeTileKernels() {
  static const TileKernels kernels = [] {
    TileKernels made = {};
    made.lanes = static_cast<int>(hn::Lanes(D()));
    made.folded_lanes = static_cast<int>(kFoldedLanes);
    made.accumulators = kAccumulators;
    AddBlocks<1, 1>(made);
    made.gather_lanes = GatherLanes;
    made.scatter_lanes = ScatterLanes;
    made.add_lane_sums = AddLaneSums;
    made.add_folded_sums = AddFoldedSums;
    made.clear_lanes = ClearLanes;
    made.average_row = AverageRow;
    made.spread_row = SpreadRow;
    const SpreadLoop spread_loops[kSpreadLoops] = {{"SigmoidGrad", SpreadBinaryRow<SigmoidGradFormula>},
                                                   {"TanhGrad", SpreadBinaryRow<TanhGradFormula>},
                                                   {"ReluGrad", SpreadBinaryRow<ReluGradFormula>},
                                                   {"Mul", SpreadBinaryRow<MulFormula>}};
    std::copy(std::begin(spread_loops), std::end(spread_loops), made.spread_binary);
    made.max_row = MaxRow;
    made.unpool_row = UnpoolRow;
    made.add_up = AddUp;
    made.softmax = Softmax;
    made.cross_entropy = CrossEntropy;
    made.cross_entropy_gradient = CrossEntropyGradient;
    return made;
  }();
  return &kernels;
}

}  // namespace HWY_NAMESPACE
}  // namespace gradweave
HWY_AFTER_NAMESPACE();

#if HWY_ONCE

namespace gradweave {
namespace {
HWY_EXPORT(MakeTileKernels);
}  // namespace

const TileKernels& GetTileKernels() {
  static const TileKernels& kernels = *HWY_DYNAMIC_DISPATCH(MakeTileKernels)();
  return kernels;
}

const TileKernels& GetTileKernels(int lanes) {
#if HWY_TARGETS & HWY_AVX2
  if (lanes == kLanesOfAvx2) return *N_AVX2::MakeTileKernels();
#endif
  return GetTileKernels();
}

}  // namespace gradweave

#endif  // HWY_ONCE
