// Fusion of ops into groups that run as one step. A chain of elementwise ops keeps its values in
// registers, and chains of many tensors with one program, such as the updates of all parameters,
// share one launch. A chain may end in reductions of its values, which then need not go through
// memory. If ops read reductions of rows (normalization, softmax), one row kernel computes all of
// them. A convolution takes along the chains and pools that read its sums.
#ifndef GRADWEAVE_RUNTIME_CUDA_FUSION_FUSION_H_
#define GRADWEAVE_RUNTIME_CUDA_FUSION_FUSION_H_

#include <cstdint>
#include <memory>
#include <vector>

#include "absl/types/span.h"
#include "gradweave/graph/graph.h"
#include "gradweave/graph/partition/order_item.h"
#include "gradweave/runtime/cuda/fusion/fused_kernel.h"
#include "gradweave/runtime/cuda/ops/reduction_pass.h"
#include "gradweave/runtime/kernel/formulas.h"
#include "gradweave/runtime/kernel/kernel.h"

namespace gradweave {

// Every op with a formula of floating elements (formulas.h) is an instruction of its name.
#define GRADWEAVE_ENUMERATOR(takes, name, ...) k##name,
enum class FusedOp : uint8_t {
  // kNumber loads numbers[c] into a register. The loads read elements of a tensor, its only
  // element, or truth values; the broadcast forms read tensors that broadcast.
  kNumber,
  kLoad,
  kLoadNumber,
  kLoadBool,
  kLoadBroadcast,
  kLoadBroadcastBool,
  kStore,
  kStoreBool,
  kReduce,
  kProduced,
  kPool,
  GRADWEAVE_UNARY_FORMULAS(GRADWEAVE_ENUMERATOR) GRADWEAVE_BINARY_FORMULAS(GRADWEAVE_ENUMERATOR)
      GRADWEAVE_COMPARISON_FORMULAS(GRADWEAVE_ENUMERATOR) GRADWEAVE_NUMBERED_FORMULAS(GRADWEAVE_ENUMERATOR) kWhere,
  kMeanGrad,
  kCopy,
};
#undef GRADWEAVE_ENUMERATOR

// to = op(a, b, c), all registers; of loads and stores, a is the tensor, and of stores, b the
// register. kReduce takes register b into the chain's reduction a. kProduced is what the
// convolution before the chain gives, and kPool takes register b into the pool after it. Ops with
// numbers (GRADWEAVE_NUMBERED_FORMULAS) and MeanGrad have them from program.numbers[c] on.
struct FusedInstruction {
  FusedOp op = FusedOp::kNumber;
  uint8_t to = 0, a = 0, b = 0, c = 0;
};

// The program that a chain runs for each element. Truth values are 0 and 1. All loads of a tensor
// come before all stores, so a result may overwrite an operand.
struct FusedProgram {
  static constexpr int kMostInstructions = 80, kMostRegisters = 16;
  static constexpr int kMostTensors = kMostFusedTensors, kMostNumbers = kMostFusedNumbers, kMostAxes = 7;

  int32_t count = 0;
  int32_t num_numbers = 0;
  FusedInstruction instructions[kMostInstructions] = {};
  double numbers[kMostNumbers] = {};

  // Index arithmetic for tensors that broadcast. `sizes` holds the axes of the result, outermost
  // first. Neighbouring axes are joined where all such tensors allow it; the axes of an image are
  // split in two where a pooled tensor has one element for each window. `strides` holds, for each
  // tensor, the distance of neighbours along each axis in elements, 0 where the tensor repeats.
  // Along the last axis it is 0 or 1. There are no axes if no tensor broadcasts.
  int32_t num_axes = 0;
  uint32_t sizes[kMostAxes] = {};
  uint32_t strides[kMostTensors][kMostAxes] = {};
};

// Reductions that can end a chain, by the names of their ops; reduce.h defines <name>Of.
#define GRADWEAVE_FUSED_REDUCTIONS(X) X(Sum) X(Prod) X(Max) X(Min) X(LogSumExp)
#define GRADWEAVE_ENUMERATOR(name) k##name,
enum class FusedReductionKind : uint8_t { GRADWEAVE_FUSED_REDUCTIONS(GRADWEAVE_ENUMERATOR) };
#undef GRADWEAVE_ENUMERATOR

// A reduction of a chain's value.
struct FusedReduction {
  FusedReductionKind kind;
  std::vector<ReductionPass> passes;  // The first pass covers the chain's elements and is part of its kernel.
  int output;                         // Index into the group's outputs.
};

// A chain: its program, its size, and its tensors (operands, then outputs) as indices into those of
// its group.
struct FusedChain {
  DType dtype;  // The dtype in which it computes.
  FusedProgram program;
  std::vector<int> operands, outputs;  // Outputs are tensors of `total` elements; reductions have outputs of their own.
  int64_t total = 0;
  std::vector<FusedReduction> reductions;  // At most kMostFusedReductions, which share their first pass.
};

// Chains of one program that are launched together.
struct FusedBatch {
  DType dtype;
  FusedProgram program;
  struct Member {
    std::vector<int> operands, outputs;  // Indices into those of the group.
    uint32_t total, first_block;
  };
  std::vector<Member> members;  // At most kMostFusedInstances; exactly one if there are reductions.
  // Blocks of all members, with kFusedPerBlock elements each. Passes of reductions use blocks of
  // their own instead.
  uint32_t blocks = 0;
  std::vector<FusedReduction> reductions = {};
};

struct ConvProgram;
struct RowProgram;

// Nodes that run as one step, in order, with the values that the step reads and writes. Nodes that
// alias their operand (views) may stand between the nodes of a chain's end or a row program; they
// are not part of the group.
struct FusedGroup {
  std::vector<NodeId> nodes;
  std::vector<Port> operands, outputs;
  std::vector<FusedChain> chains;   // A chain with reductions is the only chain.
  std::vector<FusedBatch> batches;  // Cover all chains.
  // A group of rows or a convolution has one of these instead of chains.
  std::shared_ptr<const RowProgram> rows;
  std::shared_ptr<const ConvProgram> convolution;

  bool has_reductions() const { return !chains.empty() && !chains[0].reductions.empty(); }
  // Returns true if the group can only run as a generated kernel, of which it has exactly one.
  bool needs_generated_kernel() const { return rows != nullptr || convolution != nullptr || has_reductions(); }
};

// Groups of a graph with known shapes, and an order in which the graph can run. Every node is in
// the order, by itself or as part of a group.
struct FusionPlan {
  std::vector<OrderItem> order;
  std::vector<FusedGroup> groups;
};

// Options of FindFusedGroups.
struct FusionOptions {
  // If true, chains include the reductions that read them. Only generated kernels support these:
  // interpreting reductions element by element would cost more than the saved memory traffic.
  bool reductions = false;
  // If true, each row region becomes one kernel, which must be generated.
  bool rows = false;
  // Upper limit of channels for convolutions, and gradients for their inputs, that take along the
  // elementwise ops and the pool that read them, in a generated kernel. 0 disables these groups.
  int convolution_channels = 0;
};

// Finds groups of at least two nodes, or of one convolution. Within a group, no chain depends on
// another. Nodes that only graph outputs need, such as an optimizer's updates, move to the end,
// where they form one group.
FusionPlan FindFusedGroups(const Graph& graph, const FusionOptions& options = {});

class LoadedKernel;

namespace cuda {
// Makes the kernel of a group, with operands and outputs in the group's order. It may overwrite an
// operand that only one chain reads, including the chain behind a convolution.
// `generated` has a kernel, or null, for each of SourcesOf(group); a batch without one is
// interpreted. If it is empty, all are null. Both forms give the same bits. A group with
// reductions, rows or a convolution must have its kernel. It gives the same bits as its nodes one
// by one, except for a convolution of more channels than are computed directly.
Kernel MakeFusedKernel(const Graph& graph, const FusedGroup& group,
                       absl::Span<const std::shared_ptr<const LoadedKernel>> generated);
}  // namespace cuda
namespace cuda_emulated {
Kernel MakeFusedKernel(const Graph& graph, const FusedGroup& group,
                       absl::Span<const std::shared_ptr<const LoadedKernel>> generated);
}  // namespace cuda_emulated

}  // namespace gradweave

#endif  // GRADWEAVE_RUNTIME_CUDA_FUSION_FUSION_H_
