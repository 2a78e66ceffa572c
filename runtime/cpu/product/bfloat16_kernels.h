// Inner loops of products of bfloat16 matrices with float32 sums.
#ifndef GRADWEAVE_RUNTIME_CPU_PRODUCT_BFLOAT16_KERNELS_H_
#define GRADWEAVE_RUNTIME_CPU_PRODUCT_BFLOAT16_KERNELS_H_

#include <cstdint>

namespace gradweave {

// Operands are packed in tiles, which are what a tile register of AMX holds: 16 rows of 32 terms of
// the left matrix, or 32 terms of 16 columns of the right one. Missing rows, columns and terms are
// 0. A left tile is [row][term]. A right tile is [pair of terms][column][term of the pair].
constexpr int64_t kTileRows = 16, kTileColumns = 16, kTileTerms = 32;
constexpr int64_t kTileElements = kTileRows * kTileTerms;

// y = a*b or y += a*b for some rows and columns of y. The tiles of terms of a row or column tile are
// contiguous. Row tiles are a_step elements apart, and column tiles are one after the other.
struct BFloat16Block {
  const uint16_t* a;
  int64_t a_step;
  const uint16_t* b;
  int64_t term_tiles;
  int64_t rows, columns;
  bool add;
  float* y;  // Rows are y_step floats apart.
  int64_t y_step;
};

struct BFloat16Kernels {
  // An element of y is a sum over the tiles of terms, in order. Each tile adds one number: the sum
  // of its even terms plus the sum of its odd terms, each in order. All sums are float32, and
  // numbers below the normal ones are 0. This is what TDPBF16PS does (Intel, "Architecture
  // Instruction Set Extensions Programming Reference", 2020, chapter 3), so all kernels give the
  // same bits.
  void (*multiply)(const BFloat16Block& block);
  // Rounds a whole tile of a left matrix. Its rows are contiguous, and `step` floats apart.
  void (*pack_left)(const float* rows, int64_t step, uint16_t* tile);
  // Rounds a whole tile of a right matrix. The columns of a term are contiguous, and its terms are
  // `step` floats apart.
  void (*pack_right)(const float* terms, int64_t step, uint16_t* tile);
};

// Returns the kernels for this processor: AMX, or float32 vectors.
const BFloat16Kernels& GetBFloat16Kernels();
// Returns the kernels that compute with float32 vectors.
const BFloat16Kernels& GetVectorBFloat16Kernels();

// Returns BFloat16Kernels::multiply with AMX, or null if the processor or the system lacks it.
void (*AmxMultiply())(const BFloat16Block& block);

}  // namespace gradweave

#endif  // GRADWEAVE_RUNTIME_CPU_PRODUCT_BFLOAT16_KERNELS_H_
