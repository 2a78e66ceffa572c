// Products of float32 matrices, divided into parts for threads.
#ifndef GRADWEAVE_RUNTIME_CPU_PRODUCT_PRODUCT_H_
#define GRADWEAVE_RUNTIME_CPU_PRODUCT_PRODUCT_H_

#include <cstddef>
#include <cstdint>
#include <string>

#include "absl/functional/function_ref.h"
#include "gradweave/runtime/cpu/cost/cost_model.h"
#include "gradweave/runtime/kernel/thread_pool.h"

namespace gradweave {

// Element (i, j) of a matrix is at i*row_step + j*column_step, in floats. One of the two steps is
// 1.
struct MatrixLayout {
  int64_t row_step, column_step;
};

// Rows of a left matrix, in units of as many rows as a register block has (ProductKernels::rows).
// Units are unit_step floats apart, rows of a unit row_step and terms term_step. Blocks are fastest
// on packed units: row_step 1 and term_step ProductKernels::rows.
struct LeftRows {
  const float* data;
  int64_t unit_step, row_step, term_step;
};

// Multiplies `rows` rows with packed panels: y (+)= a*b, where y is [rows, columns] with rows that
// are y_step floats apart. Panels are [terms][width], one after the other, and as wide as a
// register block; the last is rounded up to whole vectors. The inner step of Product.
void MultiplyPanels(const LeftRows& a, const float* panels, int64_t terms, int64_t rows, int64_t columns, bool add,
                    float* y, int64_t y_step);

// Returns the vector multiply-adds in the time of one term of a register block. Small blocks take
// longer than their own ones: they wait for loads, or for the latency of a multiply-add.
double RegisterBlockProducts(double rows, double vectors);

// Returns the same for one term of `rows` rows and `vectors` vectors of columns, in as many
// register blocks as they need (Work::products).
double BlockProducts(int64_t rows, int64_t vectors);

// y = a*b or y += a*b, with a [rows, terms], b [terms, columns] and row-major y. The algorithm is
// that of Goto and van de Geijn ("Anatomy of High-Performance Matrix Multiplication", 2008). It
// packs b into panels that are a few vectors wide and one block of terms long, and multiplies a
// block of rows of a with each panel while the panel is in the first-level cache. Rows of a are
// read in place unless their addresses would map to the same few cache sets. The whole of b can be
// packed in advance for several runs.
//
// An element of y is the sum over the terms of a block, in order, and over the blocks, in order. It
// does not depend on the division into parts.
class Product {
 public:
  Product(int64_t rows, int64_t columns, int64_t terms, MatrixLayout a, MatrixLayout b);

  // Returns what the product does, with a copy of b.
  Work work() const;

  // A division of y into ranges of rows and of columns.
  struct Parts {
    Chunks rows, columns;
    int64_t number() const { return rows.number * columns.number; }
  };
  // Returns at least `wanted` parts if possible, divided so that the least memory is copied and
  // read.
  Parts Split(int64_t wanted, int threads) const;
  // Returns at most `number` parts of whole rows.
  Parts SplitRows(int64_t number) const;

  // A block of y.
  struct Block {
    int64_t row, rows, column, columns;
  };
  // Consumes a block of y while it is in a cache near the processor. Rows are `step` floats apart.
  // The callback may overwrite the block.
  using TakeBlock = absl::FunctionRef<void(const Block& block, float* y, int64_t step)>;
  // Returns true if RunInBlocks is available: the panels of all terms fit in the second-level
  // cache.
  bool MakesBlocks() const { return copies_all_terms_; }
  // Returns the maximum number of columns of a block: all columns of a part if their panels fit.
  int64_t block_columns(const Parts& parts) const;

  // The workspace of one thread: this header, then the panels that the thread packs. The header
  // records which columns these are, so that the next part can reuse them. Each run of a product
  // starts with new workspaces.
  struct alignas(64) Workspace {
    const float* columns = nullptr;
    const float* packed = nullptr;  // All of b, packed by Pack; null if it is not.
    float* floats() { return reinterpret_cast<float*>(this + 1); }
  };
  // Returns the workspace bytes of one thread for these parts.
  size_t workspace_bytes(const Parts& parts, bool in_blocks) const;

  // Size of the packed copy of b in floats. Pack must run for all tasks in [0, pack_tasks()), in
  // any order.
  int64_t packed_floats() const { return packed_columns_ * terms_; }
  // Products with equal layouts pack the same b to the same bytes (Kernel::kept_layout).
  std::string packed_layout() const;
  int64_t pack_tasks() const;
  void Pack(const float* b, int64_t task, float* packed) const;

  // Computes part `part` of y, whose rows are y_step floats apart. a, b and y point to the whole
  // matrices.
  void Run(const float* a, const float* b, const Parts& parts, int64_t part, bool add, float* y, int64_t y_step,
           Workspace& workspace) const;

  // Computes the same part of y = a*b and passes it on in blocks of some rows and some or all of
  // the part's columns.
  void RunInBlocks(const float* a, const float* b, const Parts& parts, int64_t part, Workspace& workspace,
                   TakeBlock take) const;

 private:
  int64_t FirstTerm(int64_t block) const { return block * terms_ / blocks_; }
  int64_t TermsOf(int64_t block) const { return FirstTerm(block + 1) - FirstTerm(block); }
  Block PartOf(const Parts& parts, int64_t part) const;
  // Returns the floats of panels that are packed at a time.
  int64_t PanelFloats(const Parts& parts) const;
  int64_t BlockRows(const Parts& parts) const;
  void CopyPanels(const float* b, int64_t block, int64_t first_column, int64_t columns, float* to) const;
  // Packs the panels of all terms of these columns.
  void CopyAllPanels(const float* b, int64_t first_column, int64_t columns, Workspace& workspace) const;
  // Returns the packed panels of a block of terms, from a column on. b must be packed.
  const float* Packed(const Workspace& workspace, int64_t block, int64_t column) const {
    return workspace.packed + FirstTerm(block) * packed_columns_ + column * TermsOf(block);
  }
  // Adds the terms of one block to rows that are multiplied with the panels together. y points to
  // the first of them.
  void RunRows(const float* a, const float* panels, int64_t block, const Block& rows, bool add, float* y,
               int64_t y_step, float* scratch) const;
  // Computes the sums of all terms.
  void RunAllTerms(const float* a, const Block& rows, bool add, float* y, int64_t y_step, float* scratch,
                   Workspace& workspace) const;

  int64_t rows_, columns_, terms_;
  int64_t packed_columns_;  // The last panel is rounded up to whole vectors.
  MatrixLayout a_, b_;
  int64_t blocks_;  // Blocks of terms.
  bool copy_a_, copies_all_terms_;
  int64_t rows_at_a_time_;  // Rows that are multiplied with a panel together.
};

}  // namespace gradweave

#endif  // GRADWEAVE_RUNTIME_CPU_PRODUCT_PRODUCT_H_
