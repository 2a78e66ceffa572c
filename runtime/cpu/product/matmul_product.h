// Float32 MatMul with Product: one product or several, as tasks for threads.
#ifndef GRADWEAVE_RUNTIME_CPU_PRODUCT_MATMUL_PRODUCT_H_
#define GRADWEAVE_RUNTIME_CPU_PRODUCT_MATMUL_PRODUCT_H_

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>

#include "absl/functional/function_ref.h"
#include "absl/types/span.h"
#include "gradweave/graph/graph.h"
#include "gradweave/runtime/cpu/cost/cost_model.h"
#include "gradweave/runtime/cpu/product/product.h"
#include "gradweave/runtime/kernel/broadcast.h"
#include "gradweave/runtime/kernel/kernel.h"
#include "gradweave/runtime/kernel/thread_pool.h"

namespace gradweave {

// Sizes of a MatMul of known shapes. It multiplies matrices [rows, terms] and [terms, columns], one
// pair for each element of the leading axes, which broadcast like the operands of an elementwise
// op.
struct MatMulSizes {
  MatMulSizes(const Node& node, absl::Span<const TensorType> operands);
  // One pair, whose stored rows are contiguous.
  MatMulSizes(int64_t rows, int64_t columns, int64_t terms, bool transpose_a, bool transpose_b);

  bool transpose_a, transpose_b;
  int64_t rows, columns, terms;
  int64_t a_step, b_step;  // Distances between stored rows of the operands, in elements.
  BroadcastWalk matrices;
  double flops() const { return 2.0 * rows * columns * terms; }  // For one pair.
};

// All products of a MatMul, which must have at least one element and one term. Results do not
// depend on the division into tasks.
class MatMulProduct {
 public:
  // Divides rows and columns into a few tasks for each thread.
  MatMulProduct(const MatMulSizes& sizes, int threads);
  // Divides whole rows into at most `most_tasks` tasks, whose number depends on the sizes alone.
  static MatMulProduct OfWholeRows(const MatMulSizes& sizes, int most_tasks);

  // Return the cost of all products this way, and by OpenBLAS.
  static Estimate CostOf(const MatMulSizes& sizes);
  static Estimate CostOfGemm(const MatMulSizes& sizes);
  // Returns true if this way is the cheaper one for a product whose rows a row region takes block
  // by block. With OpenBLAS, the region would read all of them from memory.
  static bool PaysInRegion(const MatMulSizes& sizes);

  int64_t tasks() const { return matrices_.number * parts_.number(); }
  // Returns the workspace bytes of one thread. `in_blocks` must be true for RunInBlocks.
  size_t workspace_bytes(bool in_blocks) const { return product_.workspace_bytes(parts_, in_blocks); }
  // Returns the bytes of a packed copy of b, which several runs can share; 0 if each pair has a
  // different b.
  size_t packed_bytes() const;
  std::string packed_layout() const { return product_.packed_layout(); }
  // Prepares the workspaces of `threads` threads, which are contiguous, for one run. `b` is the
  // index of that operand. Packs b, or finds the packed copy that the plan kept.
  void StartRun(const KernelArguments& arguments, int b, std::byte* workspaces, int threads, bool in_blocks) const;

  // Computes a task's part of y = a*b. `workspace` is this thread's, prepared by StartRun.
  void Run(const float* a, const float* b, int64_t task, std::byte* workspace, float* y) const;

  // Returns true if RunInBlocks is available. block_columns() is then the maximum number of columns
  // of a block. RunInBlocks counts rows over all matrices.
  bool MakesBlocks() const { return product_.MakesBlocks(); }
  int64_t block_columns() const { return product_.block_columns(parts_); }
  // Computes a task's part of y = a*b and passes it on in blocks.
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
