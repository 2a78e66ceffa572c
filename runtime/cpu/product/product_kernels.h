// Loops of matrix products, for the vectors that this processor has.
#ifndef GRADWEAVE_RUNTIME_CPU_PRODUCT_PRODUCT_KERNELS_H_
#define GRADWEAVE_RUNTIME_CPU_PRODUCT_PRODUCT_KERNELS_H_

#include <cstdint>

namespace gradweave {

// Steps are in floats.

// c[i*c_row + j] = the sum over t < terms of a[i*a_row + t*a_term] * b[t*panel + j], or with `add` that much more, for
// the rows i and the columns j of a block: `panel` is the number of its columns.
struct ProductBlock {
  const float* a;
  int64_t a_row, a_term;
  const float* b;
  int64_t terms;
  float* c;
  int64_t c_row;
  bool add;
};

inline constexpr int kMostProductRows = 12;
inline constexpr int kMostPanelVectors = 4;

struct ProductKernels {
  int lanes;          // Of a vector.
  int rows;           // The most of a block.
  int panel_vectors;  // The most of a block's columns.
  // By rows and vectors; null beyond the most of both.
  void (*block[kMostProductRows + 1][kMostPanelVectors + 1])(const ProductBlock& arguments);
  // Copies columns into panels of `width`, one after the other, [terms][width] each: the number at t*step + j of
  // `from`. The last panel is last_width wide, and zero beside the last column.
  void (*pack)(const float* from, int64_t terms, int64_t columns, int64_t step, int64_t width, int64_t last_width,
               float* to);
  // to[j*to_step + i] = from[i*step + j] for i < rows and j < columns.
  void (*transpose)(const float* from, int64_t rows, int64_t columns, int64_t step, float* to, int64_t to_step);
};
const ProductKernels& GetProductKernels();

}  // namespace gradweave

#endif  // GRADWEAVE_RUNTIME_CPU_PRODUCT_PRODUCT_KERNELS_H_
