// Inner loops of matrix products for this processor's vectors.
#ifndef GRADWEAVE_RUNTIME_CPU_PRODUCT_PRODUCT_KERNELS_H_
#define GRADWEAVE_RUNTIME_CPU_PRODUCT_PRODUCT_KERNELS_H_

#include <cstdint>

namespace gradweave {

// Steps are in floats.

// A block of a product: c[i*c_row + j] = sum over t < terms of a[i*a_row + t*a_term] * b[t*panel +
// j], added to c if `add` is set. `panel` is the number of the block's columns.
struct ProductBlock {
  const float* a;
  int64_t a_row, a_term;
  const float* b;
  int64_t terms;
  float* c;
  int64_t c_row;
  bool add;
};

// A copy of `count` contiguous floats, at most one vector.
struct VectorCopy {
  int64_t from, to, count;
};

// Floats of a cache line.
inline constexpr int64_t kLineFloats = 16;
// Rows that are a multiple of this apart, in floats, map to the same sets of a first-level cache
// and evict each other.
inline constexpr int64_t kCacheWay = 1024;

// Limits of a block over all instruction sets.
inline constexpr int kMostProductRows = 12;
inline constexpr int kMostPanelVectors = 4;

// The loops for one instruction set.
struct ProductKernels {
  int lanes;          // Floats of a vector.
  int rows;           // Maximum rows of a block.
  int panel_vectors;  // Maximum vectors of a block's columns.
  // Indexed by rows and vectors; null beyond either maximum.
  void (*block[kMostProductRows + 1][kMostPanelVectors + 1])(const ProductBlock& arguments);
  // Packs columns into panels [terms][width], one after the other. Element (t, j) is at t*step + j
  // of `from`. The last panel has last_width columns, with zeros beyond the last column.
  void (*pack)(const float* from, int64_t terms, int64_t columns, int64_t step, int64_t width, int64_t last_width,
               float* to);
  // Makes the copies for each row, from `from` + offsets[row] to `to` + row*to_step. Writes whole
  // vectors, in the order of the rows and of the copies, so it may overwrite floats behind a copy.
  // Reads nothing behind a copy.
  void (*copy_rows)(const float* from, const int64_t* offsets, int64_t rows, const VectorCopy* copies, int64_t number,
                    float* to, int64_t to_step);
  // to[i] = from[2*i] for i < count.
  void (*every_second)(const float* from, int64_t count, float* to);
  // to[j*to_step + i] = from[i*step + j] for i < rows and j < columns.
  void (*transpose)(const float* from, int64_t rows, int64_t columns, int64_t step, float* to, int64_t to_step);
};
const ProductKernels& GetProductKernels();

// Returns the floats of a vector, and the columns of a whole panel.
inline int64_t ProductLanes() { return GetProductKernels().lanes; }
inline int64_t PanelColumns() { return GetProductKernels().panel_vectors * GetProductKernels().lanes; }

}  // namespace gradweave

#endif  // GRADWEAVE_RUNTIME_CPU_PRODUCT_PRODUCT_KERNELS_H_
