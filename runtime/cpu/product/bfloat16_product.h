// MatMul of matrices that are rounded to bfloat16, with float32 sums.
#ifndef GRADWEAVE_RUNTIME_CPU_PRODUCT_BFLOAT16_PRODUCT_H_
#define GRADWEAVE_RUNTIME_CPU_PRODUCT_BFLOAT16_PRODUCT_H_

#include <cstdint>

#include "gradweave/runtime/cpu/product/bfloat16_kernels.h"
#include "gradweave/runtime/cpu/product/matmul_product.h"
#include "gradweave/runtime/kernel/kernel.h"

namespace gradweave {

// One product of two float32 matrices, y [rows, columns] = a [rows, terms] * b [terms, columns]. An
// operand may be stored transposed. Both are rounded and packed in tiles, b before the products and
// a in between. All functions may run at the same time.
class BFloat16Product {
 public:
  // `sizes` are those of the matrices, and step the distances of stored rows.
  explicit BFloat16Product(const MatMulSizes& sizes) : sizes_(sizes) {}

  // Tiles of rows, of columns and of terms.
  int64_t row_tiles() const { return (sizes_.rows + kTileRows - 1) / kTileRows; }
  int64_t column_tiles() const { return (sizes_.columns + kTileColumns - 1) / kTileColumns; }
  int64_t term_tiles() const { return (sizes_.terms + kTileTerms - 1) / kTileTerms; }
  // Row tiles that are packed at a time, so that they stay in a cache until they are multiplied.
  int64_t row_tiles_at_a_time() const;
  // Sizes in elements of so many packed rows, and of the whole of b.
  int64_t packed_a() const { return row_tiles_at_a_time() * term_tiles() * kTileElements; }
  int64_t packed_b() const { return column_tiles() * term_tiles() * kTileElements; }

  // Packs one column tile of b. `b` and `packed` point to the first one.
  void PackRight(const float* b, int64_t column_tile, uint16_t* packed) const;
  // Computes the rows and columns of the tiles from `first` up to before `end`. a, b and y point to
  // the whole matrices. `rows` has packed_a() elements for a few rows.
  struct Range {
    int64_t first, end;
  };
  void Multiply(const float* a, const uint16_t* b, Range row_tiles, Range column_tiles, uint16_t* rows, float* y) const;

 private:
  void PackLeft(const float* a, int64_t row_tile, uint16_t* packed) const;

  MatMulSizes sizes_;
};

// Returns the kernel of BFloat16MatMul. It keeps b packed if there is one b.
Kernel BFloat16ProductKernel(const MatMulSizes& sizes, int threads);

}  // namespace gradweave

#endif  // GRADWEAVE_RUNTIME_CPU_PRODUCT_BFLOAT16_PRODUCT_H_
