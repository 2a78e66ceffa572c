// Elementwise ops that run together: a chain of them keeps its values in registers, and chains of many tensors (the
// updates of all parameters, say) are one launch. A chain may end in reductions of its values, which then need not go
// through memory. Where ops read what reductions of rows give (normalization, softmax), all of it is one kernel of
// rows. A convolution makes what chains and pools behind it make of its sums.
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
#include "gradweave/runtime/kernel/kernel.h"

namespace gradweave {

// The ops that can be fused, by the names of their formulas.
#define GRADWEAVE_FUSED_UNARY(X)                                                                                 \
  X(Neg)                                                                                                         \
  X(Abs)                                                                                                         \
  X(Sign) X(Square) X(Relu) X(Exp) X(Expm1) X(Log) X(Log1p) X(Sqrt) X(Rsqrt) X(Reciprocal) X(Sin) X(Cos) X(Tanh) \
      X(Sigmoid) X(Selu) X(Gelu) X(Softplus) X(Erf) X(Floor) X(Ceil) X(Round)
#define GRADWEAVE_FUSED_BINARY(X)                                                                                 \
  X(Add)                                                                                                          \
  X(Sub)                                                                                                          \
  X(Mul) X(Div) X(Pow) X(Minimum) X(Maximum) X(Equal) X(NotEqual) X(Less) X(LessEqual) X(Greater) X(GreaterEqual) \
      X(SigmoidGrad) X(TanhGrad) X(ReluGrad) X(GeluGrad)

#define GRADWEAVE_ENUMERATOR(name) k##name,
enum class FusedOp : uint8_t {
  // Into a register: numbers[c]; elements of a tensor, or its only one, or elements of truth values; the same of a
  // tensor that broadcasts.
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
  GRADWEAVE_FUSED_UNARY(GRADWEAVE_ENUMERATOR) GRADWEAVE_FUSED_BINARY(GRADWEAVE_ENUMERATOR) kWhere,
  kLeakyRelu,
  kElu,
  kClip,
  kMeanGrad,
  kCopy,
};
#undef GRADWEAVE_ENUMERATOR

// to = op(a, b, c), all registers; of loads and stores, a is the tensor, and of stores, b the register. kReduce takes
// register b into the chain's reduction a. kProduced is what the convolution before the chain gives, and kPool takes
// register b into the pool after it. LeakyRelu, Elu, Clip and MeanGrad have numbers from program.numbers[c] on.
struct FusedInstruction {
  FusedOp op = FusedOp::kNumber;
  uint8_t to = 0, a = 0, b = 0, c = 0;
};

// What a chain computes of each element. Truth values are 0 and 1. All loads of a tensor come before all stores, so
// that a result may take an operand's place.
struct FusedProgram {
  static constexpr int kMostInstructions = 80, kMostRegisters = 16;
  static constexpr int kMostTensors = kMostFusedTensors, kMostNumbers = kMostFusedNumbers, kMostAxes = 7;

  int32_t count = 0;
  int32_t num_numbers = 0;
  FusedInstruction instructions[kMostInstructions] = {};
  double numbers[kMostNumbers] = {};

  // Where tensors that broadcast have an element: the result's axes, outermost first, neighbours joined where all such
  // tensors allow it, those of an image cut in two where a pooled one has an element for each window; and for each
  // tensor the distance of neighbours along each axis, in elements, 0 where it is repeated. Along the last axis it is 0
  // or 1. No axes where no tensor broadcasts.
  int32_t num_axes = 0;
  uint32_t sizes[kMostAxes] = {};
  uint32_t strides[kMostTensors][kMostAxes] = {};
};

// The reductions that chains can end in, by the names of their ops; reduce.h has <name>Of.
#define GRADWEAVE_FUSED_REDUCTIONS(X) X(Sum) X(Prod) X(Max) X(Min) X(LogSumExp)
#define GRADWEAVE_ENUMERATOR(name) k##name,
enum class FusedReductionKind : uint8_t { GRADWEAVE_FUSED_REDUCTIONS(GRADWEAVE_ENUMERATOR) };
#undef GRADWEAVE_ENUMERATOR

// A reduction of a value of a chain.
struct FusedReduction {
  FusedReductionKind kind;
  std::vector<ReductionPass> passes;  // The first is over the chain's elements, and part of its kernel.
  int output;                         // Of the group.
};

// A chain: its program, its tensors (operands, then outputs) as indices into its group's, and its elements.
struct FusedChain {
  DType dtype;  // In which it computes.
  FusedProgram program;
  std::vector<int> operands, outputs;  // Outputs are tensors of `total` elements; reductions have theirs.
  int64_t total = 0;
  std::vector<FusedReduction> reductions;  // At most kMostFusedReductions, whose first passes are the same.
};

// Chains of one program, which are launched together.
struct FusedBatch {
  DType dtype;
  FusedProgram program;
  struct Member {
    std::vector<int> operands, outputs;  // Of the group.
    uint32_t total, first_block;
  };
  std::vector<Member> members;  // At most kMostFusedInstances; one where there are reductions.
  uint32_t blocks = 0;          // Of all members, each with kFusedPerBlock elements; reductions' passes have their own.
  std::vector<FusedReduction> reductions = {};
};

struct ConvProgram;
struct RowProgram;

// Nodes that run as one step, in order, and the values that it reads and makes. Nodes that share their operand's memory
// may stand between those of a group that end a chain or are of rows; they are not of the group.
struct FusedGroup {
  std::vector<NodeId> nodes;
  std::vector<Port> operands, outputs;
  std::vector<FusedChain> chains;   // One with reductions is alone.
  std::vector<FusedBatch> batches;  // All chains.
  // In the place of chains, one of these.
  std::shared_ptr<const RowProgram> rows;
  std::shared_ptr<const ConvProgram> convolution;

  bool has_reductions() const { return !chains.empty() && !chains[0].reductions.empty(); }
  // Whether it has no other form than a generated kernel, of which there is one.
  bool needs_generated_kernel() const { return rows != nullptr || convolution != nullptr || has_reductions(); }
};

// Groups of a graph with known shapes, and an order in which the graph can run. Every node is in the order, by itself or
// as part of a group.
struct FusionPlan {
  std::vector<OrderItem> order;
  std::vector<FusedGroup> groups;
};

struct FusionOptions {
  // Whether chains take the reductions in that read them. Only generated kernels have a form for these: reductions that
  // are interpreted, an element at a time, would cost more than the memory traffic that they save.
  bool reductions = false;
  // Whether regions of rows are one kernel, which has a generated form alone too.
  bool rows = false;
  // Convolutions of up to so many channels, and gradients for their input, take along the elementwise ops and the pool
  // that read them, in a generated kernel; 0: none do.
  int convolution_channels = 0;
};

// Groups of at least two nodes, or of one convolution. Within a group, no node needs what another chain of it makes.
// What only graph outputs need (an optimizer's updates) is put off to the end, where it meets.
FusionPlan FindFusedGroups(const Graph& graph, const FusionOptions& options = {});

class LoadedKernel;

namespace cuda {
// The kernel of a group; operands and outputs in the group's order. May overwrite operands that one chain alone reads,
// be it the one behind a convolution.
// `generated` has a kernel, or null, for each of SourcesOf(group); a batch that has none is interpreted. Empty: none
// has. Both forms give the same bits. A group with reductions, of rows or of a convolution has to have its kernel, and
// gives the bits of its nodes one by one, but for a convolution of more channels than are computed directly.
Kernel MakeFusedKernel(const Graph& graph, const FusedGroup& group,
                       absl::Span<const std::shared_ptr<const LoadedKernel>> generated);
}  // namespace cuda
namespace cuda_emulated {
Kernel MakeFusedKernel(const Graph& graph, const FusedGroup& group,
                       absl::Span<const std::shared_ptr<const LoadedKernel>> generated);
}  // namespace cuda_emulated

}  // namespace gradweave

#endif  // GRADWEAVE_RUNTIME_CUDA_FUSION_FUSION_H_
