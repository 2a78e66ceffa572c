#include "gradweave/runtime/cpu/product/bfloat16_kernels.h"

#include <algorithm>

#include "gradweave/runtime/cpu/simd/vector_targets.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "runtime/cpu/product/bfloat16_kernels.cc"
// foreach_target.h comes first.
// clang-format off
#include "hwy/foreach_target.h"  // IWYU pragma: keep
#include "hwy/highway.h"
// clang-format on

HWY_BEFORE_NAMESPACE();
namespace gradweave {
namespace HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;

using D = hn::CappedTag<float, kTileColumns>;
using DU = hn::RebindToUnsigned<D>;
using VU = hn::VFromD<DU>;

// Rows whose sums registers hold, of even and of odd terms.
#if HWY_TARGET <= HWY_AVX3
constexpr int kSumRows = 8;
#else
constexpr int kSumRows = 4;
#endif
static_assert(kTileRows % kSumRows == 0);

// Column tiles for which a left tile is widened once.
constexpr int64_t kColumnTiles = 4;

// Rounds to the nearest bfloat16, in the upper half, to even if two are equally near. NaN stays NaN.
HWY_INLINE VU Rounded(hn::VFromD<D> x) {
  const DU d;
  const VU bits = hn::BitCast(d, x);
  const VU half = hn::Add(hn::Set(d, 0x7fffu), hn::And(hn::ShiftRight<16>(bits), hn::Set(d, 1u)));
  const VU nan = hn::Or(bits, hn::Set(d, 0x400000u));
  return hn::IfThenElse(hn::RebindMask(d, hn::IsNaN(x)), nan, hn::Add(bits, half));
}

void PackRight(const float* terms, int64_t step, uint16_t* tile) {
  const D d;
  const DU du;
  auto* pairs = reinterpret_cast<uint32_t*>(tile);
  for (int64_t term = 0; term < kTileTerms; term += 2) {
    for (int64_t column = 0; column < kTileColumns; column += hn::Lanes(d)) {
      const VU even = Rounded(hn::LoadU(d, terms + term * step + column));
      const VU odd = Rounded(hn::LoadU(d, terms + (term + 1) * step + column));
      hn::StoreU(hn::Or(hn::ShiftRight<16>(even), hn::And(odd, hn::Set(du, 0xffff0000u))), du,
                 pairs + term / 2 * kTileColumns + column);
    }
  }
}

void PackLeft(const float* rows, int64_t step, uint16_t* tile) {
  const D d;
  const DU du;
  for (int64_t row = 0; row < kTileRows; ++row) {
    HWY_ALIGN uint32_t bits[kTileTerms];
    for (int64_t term = 0; term < kTileTerms; term += hn::Lanes(d)) {
      hn::Store(hn::ShiftRight<16>(Rounded(hn::LoadU(d, rows + row * step + term))), du, bits + term);
    }
    for (int64_t term = 0; term < kTileTerms; ++term) tile[row * kTileTerms + term] = static_cast<uint16_t>(bits[term]);
  }
}

// Adds a tile of terms to the sums of kSumRows rows and one vector of columns.
HWY_INLINE void AddTile(const float* a, const uint32_t* b, float* sums) {
  const D d;
  const DU du;
  hn::VFromD<D> even[kSumRows], odd[kSumRows];
  for (int row = 0; row < kSumRows; ++row) even[row] = odd[row] = hn::Zero(d);
  const VU upper = hn::Set(du, 0xffff0000u);
  for (int64_t term = 0; term < kTileTerms; term += 2) {
    const VU pair = hn::LoadU(du, b + term / 2 * kTileColumns);
    const auto b_even = hn::BitCast(d, hn::ShiftLeft<16>(pair)), b_odd = hn::BitCast(d, hn::And(pair, upper));
    for (int row = 0; row < kSumRows; ++row) {
      even[row] = hn::MulAdd(hn::Set(d, a[row * kTileTerms + term]), b_even, even[row]);
      odd[row] = hn::MulAdd(hn::Set(d, a[row * kTileTerms + term + 1]), b_odd, odd[row]);
    }
  }
  for (int row = 0; row < kSumRows; ++row) {
    float* const sum = sums + row * kTileColumns;
    hn::StoreU(hn::Add(hn::LoadU(d, sum), hn::Add(even[row], odd[row])), d, sum);
  }
}

void Multiply(const BFloat16Block& block) {
  const D d;
  const DU du;
  HWY_ALIGN float sums[kColumnTiles][kTileRows * kTileColumns];
  HWY_ALIGN float a[kTileElements];
  for (int64_t row = 0; row < block.rows; row += kTileRows) {
    for (int64_t column = 0; column < block.columns; column += kColumnTiles * kTileColumns) {
      const int64_t columns = std::min(block.columns - column, kColumnTiles * kTileColumns);
      const int64_t tiles = (columns + kTileColumns - 1) / kTileColumns;
      for (int64_t i = 0; i < tiles; ++i) std::fill_n(sums[i], kTileRows * kTileColumns, 0.0f);
      const int64_t rows = std::min(block.rows - row, kTileRows);
      // Calls body(a row of sums, the row of y, columns).
      const auto for_rows = [&](auto body) {
        for (int64_t tile = 0; tile < tiles; ++tile) {
          for (int64_t r = 0; r < rows; ++r)
            body(sums[tile] + r * kTileColumns, block.y + (row + r) * block.y_step + column + tile * kTileColumns,
                 std::min(columns - tile * kTileColumns, kTileColumns));
        }
      };
      if (block.add) for_rows([](float* sum, const float* y, int64_t count) { std::copy_n(y, count, sum); });
      for (int64_t term_tile = 0; term_tile < block.term_tiles; ++term_tile) {
        const uint16_t* const from = block.a + row / kTileRows * block.a_step + term_tile * kTileElements;
        for (int64_t i = 0; i < kTileElements; i += hn::Lanes(d)) {
          const auto narrow = hn::LoadU(hn::Rebind<uint16_t, DU>(), from + i);
          hn::Store(hn::BitCast(d, hn::ShiftLeft<16>(hn::PromoteTo(du, narrow))), d, a + i);
        }
        for (int64_t tile = 0; tile < tiles; ++tile) {
          const auto* b = reinterpret_cast<const uint32_t*>(
              block.b + ((column / kTileColumns + tile) * block.term_tiles + term_tile) * kTileElements);
          for (int64_t i = 0; i < kTileColumns; i += hn::Lanes(d)) {
            for (int64_t r = 0; r < kTileRows; r += kSumRows)
              AddTile(a + r * kTileTerms, b + i, sums[tile] + r * kTileColumns + i);
          }
        }
      }
      for_rows([](const float* sum, float* y, int64_t count) { std::copy_n(sum, count, y); });
    }
  }
}

const BFloat16Kernels* MakeBFloat16Kernels() {
  static constexpr BFloat16Kernels kKernels = {Multiply, PackLeft, PackRight};
  return &kKernels;
}

}  // namespace HWY_NAMESPACE
}  // namespace gradweave
HWY_AFTER_NAMESPACE();

#if HWY_ONCE

namespace gradweave {
namespace {
HWY_EXPORT(MakeBFloat16Kernels);
}  // namespace

const BFloat16Kernels& GetVectorBFloat16Kernels() { return *HWY_DYNAMIC_DISPATCH(MakeBFloat16Kernels)(); }

const BFloat16Kernels& GetBFloat16Kernels() {
  static const BFloat16Kernels kernels = [] {
    BFloat16Kernels made = GetVectorBFloat16Kernels();
    if (auto* const multiply = AmxMultiply(); multiply != nullptr) made.multiply = multiply;
    return made;
  }();
  return kernels;
}

}  // namespace gradweave

#endif  // HWY_ONCE
