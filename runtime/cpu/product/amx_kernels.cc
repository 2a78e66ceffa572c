// Products of bfloat16 matrices in the tile registers of AMX.
#include "gradweave/runtime/cpu/product/bfloat16_kernels.h"

#if defined(__x86_64__) && defined(__linux__)
#include <cpuid.h>
#include <immintrin.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>

namespace gradweave {
namespace {

// The operand of LDTILECFG. Each register holds 16 rows of 64 bytes.
struct alignas(64) TileConfiguration {
  uint8_t palette = 1, start_row = 0, reserved[14] = {};
  uint16_t row_bytes[16] = {};
  uint8_t rows[16] = {};
};
constexpr int kTileBytesOfRow = 64;

// The part of y that a tile register holds, and a copy of it where y lacks rows or columns.
class PartOfY {
 public:
  PartOfY(const BFloat16Block& block, int64_t row, int64_t column)
      : y_(block.y + row * block.y_step + column),
        step_(block.y_step),
        rows_(std::min(block.rows - row, kTileRows)),
        columns_(std::min(block.columns - column, kTileColumns)) {}

  bool is_whole() const { return rows_ == kTileRows && columns_ == kTileColumns; }
  // Returns where the register is loaded from and stored to.
  float* data() { return is_whole() ? y_ : copy_; }
  int64_t row_bytes() const { return is_whole() ? step_ * static_cast<int64_t>(sizeof(float)) : kTileBytesOfRow; }
  void CopyIn() {
    if (!is_whole()) std::fill_n(copy_, kTileRows * kTileColumns, 0.0f);
    for (int64_t row = 0; row < rows_ && !is_whole(); ++row)
      std::copy_n(y_ + row * step_, columns_, copy_ + row * kTileColumns);
  }
  void CopyOut() const {
    for (int64_t row = 0; row < rows_ && !is_whole(); ++row)
      std::copy_n(copy_ + row * kTileColumns, columns_, y_ + row * step_);
  }

 private:
  alignas(64) float copy_[kTileRows * kTileColumns];
  float* y_;
  int64_t step_, rows_, columns_;
};

// A register's number is a constant of the instruction.
#define GRADWEAVE_LOAD_SUMS(number, row, column)          \
  do {                                                    \
    if (!block.add) {                                     \
      _tile_zero(number);                                 \
    } else {                                              \
      PartOfY part(block, row, column);                   \
      part.CopyIn();                                      \
      _tile_loadd(number, part.data(), part.row_bytes()); \
    }                                                     \
  } while (false)
#define GRADWEAVE_STORE_SUMS(number, row, column)        \
  do {                                                   \
    PartOfY part(block, row, column);                    \
    _tile_stored(number, part.data(), part.row_bytes()); \
    part.CopyOut();                                      \
  } while (false)

// Computes two by two tiles of y at a time, or fewer at the ends.
__attribute__((target("amx-tile,amx-bf16"))) void Multiply(const BFloat16Block& block) {
  TileConfiguration configuration;
  for (int i = 0; i < 8; ++i) {
    configuration.row_bytes[i] = kTileBytesOfRow;
    configuration.rows[i] = kTileRows;
  }
  _tile_loadconfig(&configuration);
  const int64_t b_step = block.term_tiles * kTileElements;
  for (int64_t row = 0; row < block.rows; row += 2 * kTileRows) {
    const uint16_t* const a = block.a + row / kTileRows * block.a_step;
    const bool two_rows = block.rows - row > kTileRows;
    for (int64_t column = 0; column < block.columns; column += 2 * kTileColumns) {
      const uint16_t* const b = block.b + column / kTileColumns * b_step;
      const bool two_columns = block.columns - column > kTileColumns;
      GRADWEAVE_LOAD_SUMS(0, row, column);
      if (two_columns) GRADWEAVE_LOAD_SUMS(1, row, column + kTileColumns);
      if (two_rows) GRADWEAVE_LOAD_SUMS(2, row + kTileRows, column);
      if (two_rows && two_columns) GRADWEAVE_LOAD_SUMS(3, row + kTileRows, column + kTileColumns);
      for (int64_t i = 0; i < b_step; i += kTileElements) {
        _tile_loadd(6, b + i, kTileBytesOfRow);
        _tile_loadd(4, a + i, kTileBytesOfRow);
        _tile_dpbf16ps(0, 4, 6);
        if (two_columns) {
          _tile_loadd(7, b + b_step + i, kTileBytesOfRow);
          _tile_dpbf16ps(1, 4, 7);
        }
        if (two_rows) {
          _tile_loadd(5, a + block.a_step + i, kTileBytesOfRow);
          _tile_dpbf16ps(2, 5, 6);
          if (two_columns) _tile_dpbf16ps(3, 5, 7);
        }
      }
      GRADWEAVE_STORE_SUMS(0, row, column);
      if (two_columns) GRADWEAVE_STORE_SUMS(1, row, column + kTileColumns);
      if (two_rows) GRADWEAVE_STORE_SUMS(2, row + kTileRows, column);
      if (two_rows && two_columns) GRADWEAVE_STORE_SUMS(3, row + kTileRows, column + kTileColumns);
    }
  }
  _tile_release();
}
#undef GRADWEAVE_LOAD_SUMS
#undef GRADWEAVE_STORE_SUMS

// The processor has AMX, and the system lets this process use it (Linux,
// Documentation/arch/x86/xstate.rst).
bool HasAmx() {
  constexpr unsigned kBFloat16 = 1u << 22, kTile = 1u << 24;
  constexpr int kRequestPermission = 0x1023, kTileData = 18;
  unsigned eax = 0, ebx = 0, ecx = 0, edx = 0;
  if (__get_cpuid_count(7, 0, &eax, &ebx, &ecx, &edx) == 0) return false;
  if ((edx & kBFloat16) == 0 || (edx & kTile) == 0) return false;
  return syscall(SYS_arch_prctl, kRequestPermission, kTileData) == 0;
}

}  // namespace

void (*AmxMultiply())(const BFloat16Block& block) { return HasAmx() ? Multiply : nullptr; }

}  // namespace gradweave

#else

namespace gradweave {

void (*AmxMultiply())(const BFloat16Block& block) { return nullptr; }

}  // namespace gradweave

#endif
