// Fusible ops, and programs of fused chains.
#ifndef GRADWEAVE_RUNTIME_CUDA_FUSION_FUSED_CHAIN_H_
#define GRADWEAVE_RUNTIME_CUDA_FUSION_FUSED_CHAIN_H_

#include <optional>
#include <vector>

#include "absl/container/flat_hash_set.h"
#include "absl/container/inlined_vector.h"
#include "absl/strings/string_view.h"
#include "gradweave/graph/graph.h"
#include "gradweave/runtime/cuda/fusion/fusion.h"
#include "gradweave/runtime/kernel/formula_numbers.h"

namespace gradweave {

// Returns the instruction of an elementwise op, or nullopt if the op is not fusible.
std::optional<FusedOp> FindFusedOp(absl::string_view op);

// Returns the kind of a reduction, or nullopt if it is not fusible.
std::optional<FusedReductionKind> FindFusedReduction(absl::string_view op);

// Returns true if the port is a constant that a program can hold as a number.
bool IsConstantNumber(const Graph& graph, Port port);

// Returns true if the windows of an average pool's gradient are adjacent, disjoint and cover x, and
// their size is a power of two. Each element of the result is then an element of dy times a power
// of two.
bool IsRepeatedMean(const Node& pool_gradient);

// Returns the floating dtype in which a fusible elementwise node computes, or nullopt if it is not
// fusible. Its values have that dtype or are truth values.
std::optional<DType> FusedDType(const Graph& graph, const Node& node);

// The numbers that its instruction takes.
FormulaNumbers FusedNumbers(const Node& node);

// A chain's program and its tensors.
struct FusedChainProgram {
  FusedProgram program;
  std::vector<Port> operands, outputs;
};

// Where the values of a chain come from, besides its operands, and where they go.
struct FusedChainEnds {
  absl::flat_hash_set<Port> outputs;  // Values to store.
  std::vector<Port> reduced;          // Each goes to the reduction with the same index.
  std::optional<Port> produced;       // Result of the convolution before the chain, which has the chain's shape.
  std::optional<Port> pooled;         // Goes to the pool behind the chain.
};

// Returns the program of elementwise nodes of one shape, given in an executable order. There may be
// no nodes if `ends` has a produced value. Returns nullopt if the program does not fit its limits.
std::optional<FusedChainProgram> BuildFusedChain(const Graph& graph, const std::vector<NodeId>& nodes,
                                                 const FusedChainEnds& ends);

}  // namespace gradweave

#endif  // GRADWEAVE_RUNTIME_CUDA_FUSION_FUSED_CHAIN_H_
