// MatMul of float32 by Product: one product or many, as tasks that threads take.
#ifndef GRADWEAVE_RUNTIME_CPU_PRODUCT_MATMUL_PRODUCT_H_
#define GRADWEAVE_RUNTIME_CPU_PRODUCT_MATMUL_PRODUCT_H_

#include <cstddef>
#include <cstdint>
#include <optional>

#include "absl/functional/function_ref.h"
#include "absl/types/span.h"
#include "gradweave/graph/graph.h"
#include "gradweave/runtime/kernel/broadcast.h"
#include "gradweave/runtime/cpu/product/product.h"
#include "gradweave/runtime/kernel/kernel.h"
#include "gradweave/runtime/kernel/thread_pool.h"

namespace gradweave {

// What a MatMul of known shapes multiplies: matrices of [rows, terms] and [terms, columns], a pair for each element of
// the leading axes, which broadcast like the elements of an elementwise op.
struct MatMulSizes {
  MatMulSizes(const Node& node, absl::Span<const TensorType> operands);

  bool transpose_a, transpose_b;
  int64_t rows, columns, terms;
  int64_t a_step, b_step;  // From one row of an operand, as it lies, to the next, in elements.
  BroadcastWalk matrices;
  double flops() const { return 2.0 * rows * columns * terms; }  // Of one pair.
};

// All the products of a MatMul with at least one element and one term. No element depends on how they are cut into
// tasks.
class MatMulProduct {
 public:
  // A few tasks for each thread, of rows and of columns.
  MatMulProduct(const MatMulSizes& sizes, int threads);
  // At most `most_tasks` of whole rows, whose number depends on the sizes alone.
  static MatMulProduct OfWholeRows(const MatMulSizes& sizes, int most_tasks);

  // Whether it is expected to be faster than OpenBLAS.
  static bool Pays(const MatMulSizes& sizes) { return Product::Pays(sizes.rows, sizes.columns, sizes.terms); }

  int64_t tasks() const { return matrices_.number * parts_.number(); }
  // Of one thread. `in_blocks`: for RunInBlocks.
  size_t workspace_bytes(bool in_blocks) const { return product_.workspace_bytes(parts_, in_blocks); }
  // Of a copy of b in the order in which it is read, for several runs; 0: each pair has another b.
  size_t packed_bytes() const;
  // Prepares the memory of `threads` threads, one after the other, for a run of which b is that operand. Makes the copy
  // of b, or finds it, where the plan keeps it.
  void StartRun(const KernelArguments& arguments, int b, std::byte* workspaces, int threads, bool in_blocks) const;

  // A task's part of y = a*b. Memory is what StartRun prepared for this thread.
  void Run(const float* a, const float* b, int64_t task, std::byte* workspace, float* y) const;

  // Whether RunInBlocks can be had, and then the most columns of a block. Rows are counted over all matrices.
  bool MakesBlocks() const { return product_.MakesBlocks(); }
  int64_t block_columns() const { return product_.block_columns(parts_); }
  void RunInBlocks(const float* a, const float* b, int64_t task, std::byte* workspace, Product::TakeBlock take) const;

 private:
  MatMulProduct(const MatMulSizes& sizes, Product product, const Product::Parts& parts, const Chunks& matrices);
  template <typename Body>
  void ForMatrices(int64_t task, Body body) const;

  MatMulSizes sizes_;
  Product product_;
  Product::Parts parts_;
  Chunks matrices_;
};

}  // namespace gradweave

#endif  // GRADWEAVE_RUNTIME_CPU_PRODUCT_MATMUL_PRODUCT_H_
