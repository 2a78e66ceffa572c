#include "gradweave/runtime/cpu/product/product_kernels.h"

#include <type_traits>
#include <utility>

#include "gradweave/runtime/cpu/simd/vector_targets.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "runtime/cpu/product/product_kernels.cc"
// foreach_target.h comes first.
// clang-format off
#include "hwy/foreach_target.h"  // IWYU pragma: keep
#include "hwy/cache_control.h"
#include "hwy/highway.h"
#include "gradweave/runtime/cpu/simd/vector_registers-inl.h"
// clang-format on

HWY_BEFORE_NAMESPACE();
namespace gradweave {
namespace HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;

// Registers hold a block's sums, a row of the panel and one element of a. AVX-512 and NEON have 32
// registers, the others 16. At least eight sums hide the latency of a multiply-add, and nearly
// equal numbers of rows and columns save loads.
#if HWY_TARGET <= HWY_AVX3
constexpr int kRows = 12, kVectors = 2;
#elif HWY_ARCH_ARM_A64
constexpr int kRows = 6, kVectors = 4;
#else
constexpr int kRows = 6, kVectors = 2;
#endif
static_assert(kRows <= kMostProductRows && kVectors <= kMostPanelVectors);

// Terms by which packed rows are prefetched: a load from the third-level cache takes as long. They
// may be a whole filter that is read once.
constexpr int64_t kPrefetchedTerms = 40;

// Sums are indexed by compile-time constants (fold expressions), so that the array stays in
// registers.
template <int A, int B, bool Packed, int... a, int... b, int... ab>
HWY_INLINE void AddProducts(const ProductBlock& g, std::integer_sequence<int, a...>, std::integer_sequence<int, b...>,
                            std::integer_sequence<int, ab...>) {
  const D d;
  const int64_t lanes = hn::Lanes(d);
  V sums[A * B];
  ((sums[ab] = hn::Zero(d)), ...);
  const int64_t a_row = Packed ? 1 : g.a_row, a_term = Packed ? kRows : g.a_term;
  const float* rows[A];
  ((rows[a] = g.a + a * a_row), ...);
  const float* panel = g.b;
  const int64_t end = g.terms * a_term;
  for (int64_t t = 0; t != end; t += a_term) {
    V columns[B], number;
    if constexpr (Packed) hwy::Prefetch(g.a + t + kPrefetchedTerms * kRows);
    ((columns[b] = hn::Load(d, panel + b * lanes), Pin(columns[b])), ...);
    (((void)(ab % B == 0 ? (number = hn::Set(d, (Packed ? g.a + ab / B : rows[ab / B])[t]), 0) : 0),
      sums[ab] = hn::MulAdd(number, columns[ab % B], sums[ab])),
     ...);
    panel += B * lanes;
  }
  if (g.add) {
    ((sums[ab] = hn::Add(hn::LoadU(d, g.c + (ab / B) * g.c_row + (ab % B) * lanes), sums[ab])), ...);
  }
  (hn::StoreU(sums[ab], d, g.c + (ab / B) * g.c_row + (ab % B) * lanes), ...);
}
template <int A, int B>
HWY_NOINLINE void AddProductsOfBlock(const ProductBlock& g) {
  const auto add = [&](auto packed) {
    AddProducts<A, B, packed.value>(g, std::make_integer_sequence<int, A>(), std::make_integer_sequence<int, B>(),
                                    std::make_integer_sequence<int, A * B>());
  };
  // Whole packed blocks need one address for all rows, so no register is spilled.
  if constexpr (A == kRows) {
    if (g.a_row == 1 && g.a_term == kRows) return add(std::true_type());
  }
  add(std::false_type());
}

// Copies a few columns. A loop for each number of columns would cost more than the copy.
HWY_INLINE void CopyFew(const float* from, int64_t count, float* to) {
  const D d;
  const int64_t lanes = hn::Lanes(d);
  int64_t j = 0;
  for (; j + lanes <= count; j += lanes) hn::StoreU(hn::LoadU(d, from + j), d, to + j);
#if HWY_TARGET != HWY_SCALAR
  const hn::FixedTag<float, 4> four;
  const hn::FixedTag<float, 2> two;
  for (; j + 4 <= count; j += 4) hn::StoreU(hn::LoadU(four, from + j), four, to + j);
  for (; j + 2 <= count; j += 2) hn::StoreU(hn::LoadU(two, from + j), two, to + j);
#endif
  for (; j < count; ++j) to[j] = from[j];
}

// Packs row by row, which suits the hardware prefetcher.
void Pack(const float* from, int64_t terms, int64_t columns, int64_t step, int64_t width, int64_t last_width,
          float* to) {
  const int64_t whole = columns / width, rest = columns % width;
  for (int64_t t = 0; t < terms; ++t, from += step) {
    for (int64_t panel = 0; panel < whole; ++panel)
      CopyFew(from + panel * width, width, to + (panel * terms + t) * width);
    if (rest == 0) continue;
    float* last = to + whole * terms * width + t * last_width;
    CopyFew(from + whole * width, rest, last);
    for (int64_t j = rest; j < last_width; ++j) last[j] = 0;
  }
}

// Copies the first floats of a vector, in one instruction if the target has masked loads. The mask
// stays in a register.
#if HWY_TARGET <= HWY_AVX2 && HWY_ARCH_X86
struct Part {
  explicit Part(int64_t count) : mask(hn::FirstN(D(), static_cast<size_t>(count))) {}
  HWY_INLINE void Copy(const float* from, float* to) const {
    const D d;
    hn::StoreU(hn::MaskedLoad(mask, d, from), d, to);
  }
  hn::Mask<D> mask;
};
#else
struct Part {
  explicit Part(int64_t number) : count(number) {}
  HWY_INLINE void Copy(const float* from, float* to) const { CopyFew(from, count, to); }
  int64_t count;
};
#endif

template <int... n>
HWY_INLINE void CopyRowsOf(const float* from, const int64_t* offsets, int64_t rows, const VectorCopy* copies, float* to,
                           int64_t to_step, std::integer_sequence<int, n...>) {
  const Part parts[] = {Part(copies[n].count)...};
  const int64_t sources[] = {copies[n].from...}, targets[] = {copies[n].to...};
  for (int64_t row = 0; row < rows; ++row, to += to_step) {
    const float* source = from + offsets[row];
    (parts[n].Copy(source + sources[n], to + targets[n]), ...);
  }
}

void CopyRows(const float* from, const int64_t* offsets, int64_t rows, const VectorCopy* copies, int64_t number,
              float* to, int64_t to_step) {
  const auto unrolled = [&](auto sequence) { CopyRowsOf(from, offsets, rows, copies, to, to_step, sequence); };
  switch (number) {
    case 1:
      return unrolled(std::make_integer_sequence<int, 1>());
    case 2:
      return unrolled(std::make_integer_sequence<int, 2>());
    case 3:
      return unrolled(std::make_integer_sequence<int, 3>());
    case 4:
      return unrolled(std::make_integer_sequence<int, 4>());
    default:
      break;
  }
  const D d;
  const int64_t lanes = hn::Lanes(d);
  for (int64_t row = 0; row < rows; ++row, to += to_step) {
    const float* source = from + offsets[row];
    for (const VectorCopy* copy = copies; copy != copies + number; ++copy) {
      if (copy->count == lanes) {
        hn::StoreU(hn::LoadU(d, source + copy->from), d, to + copy->to);
      } else {
        Part(copy->count).Copy(source + copy->from, to + copy->to);
      }
    }
  }
}

// Deinterleaves vectors; the last one overlaps the one before.
void EverySecond(const float* from, int64_t count, float* to) {
  int64_t q = 0;
#if HWY_TARGET != HWY_SCALAR
  const hn::CappedTag<float, 8> d;
  const int64_t lanes = hn::Lanes(d);
  hn::Vec<decltype(d)> even, odd;
  for (; q + lanes < count; q += lanes) {
    hn::LoadInterleaved2(d, from + 2 * q, even, odd);
    hn::StoreU(even, d, to + q);
  }
  if (count > lanes) {
    // This reads nothing beyond the last element.
    hn::LoadInterleaved2(d, from + 2 * (count - lanes) - 1, even, odd);
    hn::StoreU(odd, d, to + count - lanes);
    return;
  }
#endif
  for (; q < count; ++q) to[q] = from[2 * q];
}

#if HWY_TARGET != HWY_SCALAR
// Returns four columns of every fourth of as many rows as d has lanes, a row in each 128 bits.
template <typename DX>
HWY_INLINE hn::Vec<DX> EveryFourthRow(DX d, const float* from, int64_t step) {
  if constexpr (hn::MaxLanes(d) == 4) {
    return hn::LoadU(d, from);
  } else {
    const hn::Half<DX> half;
    return hn::Combine(d, EveryFourthRow(half, from + static_cast<int64_t>(hn::Lanes(half)) * step, step),
                       EveryFourthRow(half, from, step));
  }
}

// Transposes as many rows as d has lanes. The last four columns may overlap others.
template <typename DX>
HWY_INLINE void TransposeRows(DX d, const float* from, int64_t columns, int64_t step, float* to, int64_t to_step) {
  const hn::Repartition<double, DX> pairs;
  for (int64_t next = 0; next < columns; next += 4) {
    const int64_t j = HWY_MIN(next, columns - 4);
    const float* const x = from + j;
    const auto x0 = EveryFourthRow(d, x, step), x1 = EveryFourthRow(d, x + step, step),
               x2 = EveryFourthRow(d, x + 2 * step, step), x3 = EveryFourthRow(d, x + 3 * step, step);
    // Pairs of rows, with two columns in each.
    const auto low01 = hn::BitCast(pairs, hn::InterleaveLower(d, x0, x1));
    const auto low23 = hn::BitCast(pairs, hn::InterleaveLower(d, x2, x3));
    const auto high01 = hn::BitCast(pairs, hn::InterleaveUpper(d, x0, x1));
    const auto high23 = hn::BitCast(pairs, hn::InterleaveUpper(d, x2, x3));
    float* y = to + j * to_step;
    hn::StoreU(hn::BitCast(d, hn::InterleaveLower(pairs, low01, low23)), d, y);
    hn::StoreU(hn::BitCast(d, hn::InterleaveUpper(pairs, low01, low23)), d, y + to_step);
    hn::StoreU(hn::BitCast(d, hn::InterleaveLower(pairs, high01, high23)), d, y + 2 * to_step);
    hn::StoreU(hn::BitCast(d, hn::InterleaveUpper(pairs, high01, high23)), d, y + 3 * to_step);
  }
}
#endif

void Transpose(const float* from, int64_t rows, int64_t columns, int64_t step, float* to, int64_t to_step) {
  int64_t i = 0;
#if HWY_TARGET != HWY_SCALAR
  if (columns >= 4) {
    const D d;
    const hn::FixedTag<float, 4> four;
    const hn::FixedTag<float, HWY_MAX(4, hn::MaxLanes(D()) / 2)> half;
    const int64_t lanes = hn::Lanes(d), half_lanes = hn::Lanes(half);
    // If rows map to the same set of a first-level cache, fewer of them are read at a time.
    if (half_lanes < lanes && step % kCacheWay == 0) {
      for (; i + half_lanes <= rows; i += half_lanes)
        TransposeRows(half, from + i * step, columns, step, to + i, to_step);
    }
    for (; i + lanes <= rows; i += lanes) TransposeRows(d, from + i * step, columns, step, to + i, to_step);
    // The last rows may overlap others.
    for (; rows >= 4 && i < rows; i += 4) {
      const int64_t row = HWY_MIN(i, rows - 4);
      TransposeRows(four, from + row * step, columns, step, to + row, to_step);
    }
  }
#endif
  for (; i < rows; ++i) {
    for (int64_t j = 0; j < columns; ++j) to[j * to_step + i] = from[i * step + j];
  }
}

template <int A, int B>
void AddBlocks(ProductKernels& kernels) {
  kernels.block[A][B] = AddProductsOfBlock<A, B>;
  if constexpr (B < kVectors) {
    AddBlocks<A, B + 1>(kernels);
  } else if constexpr (A < kRows) {
    AddBlocks<A + 1, 1>(kernels);
  }
}

const ProductKernels* MakeProductKernels() {
  static const ProductKernels kernels = [] {
    ProductKernels made = {};
    made.lanes = static_cast<int>(hn::Lanes(D()));
    made.rows = kRows;
    made.panel_vectors = kVectors;
    AddBlocks<1, 1>(made);
    made.pack = Pack;
    made.copy_rows = CopyRows;
    made.every_second = EverySecond;
    made.transpose = Transpose;
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
HWY_EXPORT(MakeProductKernels);
}  // namespace

const ProductKernels& GetProductKernels() { return *HWY_DYNAMIC_DISPATCH(MakeProductKernels)(); }

}  // namespace gradweave

#endif  // HWY_ONCE
