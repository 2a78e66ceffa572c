// Products of float32 matrices, in parts that threads compute side by side.
#ifndef GRADWEAVE_RUNTIME_CPU_PRODUCT_PRODUCT_H_
#define GRADWEAVE_RUNTIME_CPU_PRODUCT_PRODUCT_H_

#include <cstddef>
#include <cstdint>

#include "absl/functional/function_ref.h"
#include "gradweave/runtime/kernel/thread_pool.h"

namespace gradweave {

// Element (i, j) of a matrix lies at i*row_step + j*column_step, in floats. One of the two is 1.
struct MatrixLayout {
  int64_t row_step, column_step;
};

// y = a*b, or y += a*b, with a of [rows, terms], b of [terms, columns], and y row-major. The algorithm is that of Goto
// and van de Geijn (Anatomy of High-Performance Matrix Multiplication, 2008): b is copied in panels of as many columns
// as a few vectors have, blocks of terms long, and a block of rows of a passes by each panel while that is in the
// first-level cache. Rows of a are read where they lie, unless that would meet the same few places of the cache. All of
// b can be copied beforehand, for several runs.
//
// An element of y is the sum over the terms of a block in their order, and of the blocks in their order: it does not
// depend on how the product is cut into parts.
class Product {
 public:
  Product(int64_t rows, int64_t columns, int64_t terms, MatrixLayout a, MatrixLayout b);

  // Whether it is expected to be faster than OpenBLAS: not for products of a matrix and a vector.
  static bool Pays(int64_t rows, int64_t columns, int64_t terms);

  // Parts of rows and of columns.
  struct Parts {
    Chunks rows, columns;
    int64_t number() const { return rows.number * columns.number; }
  };
  // At least `wanted` parts if they can be had: those for which the least is copied and read.
  Parts Split(int64_t wanted, int threads) const;
  // As many parts of rows, or less, with all columns.
  Parts SplitRows(int64_t number) const;

  // A part of y.
  struct Block {
    int64_t row, rows, column, columns;
  };
  // Takes a block of y, whose rows are `step` floats apart, while it is in a cache near the processor. It may write
  // over it.
  using TakeBlock = absl::FunctionRef<void(const Block& block, float* y, int64_t step)>;
  // Whether RunInBlocks can be had: terms are so few that panels of all of them fit in the second-level cache.
  bool MakesBlocks() const { return copies_all_terms_; }
  // The most columns of a block. Those of y, where panels of all columns fit.
  int64_t block_columns(const Parts& parts) const;

  // What a thread of a run copies lies behind this, and which columns these are, so that the next part with the same
  // ones finds them. Each run of a product begins with new ones.
  struct alignas(64) Workspace {
    const float* columns = nullptr;
    const float* packed = nullptr;  // All of b, as Pack has copied it.
    float* floats() { return reinterpret_cast<float*>(this + 1); }
  };
  // Of one thread, for these parts.
  size_t workspace_bytes(const Parts& parts, bool in_blocks) const;

  // Floats of the copy of b, and what makes it: tasks [0, pack_tasks()), in any order.
  int64_t packed_floats() const { return packed_columns_ * terms_; }
  int64_t pack_tasks() const;
  void Pack(const float* b, int64_t task, float* packed) const;

  // Part `part` of y, whose rows are y_step floats apart; a, b and y are whole matrices.
  void Run(const float* a, const float* b, const Parts& parts, int64_t part, bool add, float* y, int64_t y_step,
           Workspace& workspace) const;

  // The same part of y = a*b, handed over in blocks of some rows and all or some of the part's columns.
  void RunInBlocks(const float* a, const float* b, const Parts& parts, int64_t part, Workspace& workspace,
                   TakeBlock take) const;

 private:
  int64_t FirstTerm(int64_t block) const { return block * terms_ / blocks_; }
  int64_t TermsOf(int64_t block) const { return FirstTerm(block + 1) - FirstTerm(block); }
  Block PartOf(const Parts& parts, int64_t part) const;
  // Floats of panels that are copied at a time.
  int64_t PanelFloats(const Parts& parts) const;
  int64_t BlockRows(const Parts& parts) const;
  void CopyPanels(const float* b, int64_t block, int64_t first_column, int64_t columns, float* to) const;
  // The panels of all terms of those columns.
  void CopyAllPanels(const float* b, int64_t first_column, int64_t columns, Workspace& workspace) const;
  // Where the panels of a block of terms are from that column on, if b is packed.
  const float* Packed(const Workspace& workspace, int64_t block, int64_t column) const {
    return workspace.packed + FirstTerm(block) * packed_columns_ + column * TermsOf(block);
  }
  // Adds the terms of a block to rows that pass by the panels together. The first of them lies at y.
  void RunRows(const float* a, const float* panels, int64_t block, const Block& rows, bool add, float* y,
               int64_t y_step, float* scratch) const;
  // The sums of all terms.
  void RunAllTerms(const float* a, const Block& rows, bool add, float* y, int64_t y_step, float* scratch,
                   Workspace& workspace) const;

  int64_t rows_, columns_, terms_;
  int64_t packed_columns_;  // The last panel's up to whole vectors.
  MatrixLayout a_, b_;
  int64_t blocks_;  // Of terms.
  bool copy_a_, copies_all_terms_;
  int64_t rows_at_a_time_;  // That pass by panels.
};

}  // namespace gradweave

#endif  // GRADWEAVE_RUNTIME_CPU_PRODUCT_PRODUCT_H_
