// Products of float32 matrices, in parts that threads compute side by side.
#ifndef GRADWEAVE_RUNTIME_CPU_PRODUCT_PRODUCT_H_
#define GRADWEAVE_RUNTIME_CPU_PRODUCT_PRODUCT_H_

#include <cstddef>
#include <cstdint>

#include "gradweave/runtime/thread_pool.h"

namespace gradweave {

// Element (i, j) of a matrix lies at i*row_step + j*column_step, in floats. One of the two is 1.
struct MatrixLayout {
  int64_t row_step, column_step;
};

// y = a*b, or y += a*b, with a of [rows, terms], b of [terms, columns], and y row-major. The algorithm is that of Goto
// and van de Geijn (Anatomy of High-Performance Matrix Multiplication, 2008): b is copied in panels of as many columns
// as a few vectors have, blocks of terms long, and a block of rows of a passes by each panel while that is in the
// first-level cache. Rows of a are read where they lie, unless that would meet the same few places of the cache.
//
// An element of y is the sum over the terms of a block in their order, and of the blocks in their order: it does not
// depend on how the product is cut into parts.
class Product {
 public:
  Product(int64_t rows, int64_t columns, int64_t terms, MatrixLayout a, MatrixLayout b);

  // Whether it is expected to be faster than OpenBLAS: not for products of a matrix and a vector.
  static bool Pays(int64_t rows, int64_t columns, int64_t terms);

  // Parts of rows and of columns, at least `wanted` if they can be had: those for which the least is copied and read.
  struct Parts {
    Chunks rows, columns;
    int64_t number() const { return rows.number * columns.number; }
  };
  Parts Split(int64_t wanted, int threads) const;

  // What a thread of a run copies lies behind this, and which columns these are, so that the next part with the same
  // ones finds them. Each run of a product begins with new ones.
  struct alignas(64) Workspace {
    const float* columns = nullptr;
    float* floats() { return reinterpret_cast<float*>(this + 1); }
  };
  // Of one thread, for these parts.
  size_t workspace_bytes(const Parts& parts) const;

  // Part `part` of y, whose rows are y_step floats apart; a, b and y are whole matrices.
  void Run(const float* a, const float* b, const Parts& parts, int64_t part, bool add, float* y, int64_t y_step,
           Workspace& workspace) const;

 private:
  struct Range {
    int64_t first_row, rows, first_column, columns;
  };
  int64_t FirstTerm(int64_t block) const { return block * terms_ / blocks_; }
  int64_t TermsOf(int64_t block) const { return FirstTerm(block + 1) - FirstTerm(block); }
  // Whether all terms of a part's columns are copied at once.
  bool CopiesAllTerms(const Parts& parts) const;
  // Columns of b that are copied at a time.
  int64_t ColumnsAtATime(const Parts& parts) const;
  void CopyPanels(const float* b, int64_t block, int64_t first_column, int64_t columns, float* to) const;
  void RunBlock(const float* a, const float* panels, int64_t block, const Range& range, bool add, float* y,
                int64_t y_step, float* scratch) const;

  const int64_t rows_, columns_, terms_;
  const MatrixLayout a_, b_;
  const int64_t blocks_;  // Of terms.
  const bool copy_a_;
  const int64_t rows_at_a_time_;
};

}  // namespace gradweave

#endif  // GRADWEAVE_RUNTIME_CPU_PRODUCT_PRODUCT_H_
