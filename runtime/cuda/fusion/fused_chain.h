// Which ops can be fused, and the program of a chain of them.
#ifndef GRADWEAVE_RUNTIME_CUDA_FUSION_FUSED_CHAIN_H_
#define GRADWEAVE_RUNTIME_CUDA_FUSION_FUSED_CHAIN_H_

#include <optional>
#include <vector>

#include "absl/container/flat_hash_set.h"
#include "absl/container/inlined_vector.h"
#include "absl/strings/string_view.h"
#include "gradweave/graph/graph.h"
#include "gradweave/runtime/cuda/fusion/fusion.h"

namespace gradweave {

// The instruction of an elementwise op; nothing where it is not to be fused.
std::optional<FusedOp> FindFusedOp(absl::string_view op);

// The kind of a reduction; nothing where it is not to be fused.
std::optional<FusedReductionKind> FindFusedReduction(absl::string_view op);

// A constant that a program holds itself.
bool IsConstantNumber(const Graph& graph, Port port);

// Whether the gradient of an average pool has windows that lie side by side and cover x, so that each element of it is
// an element of dy times a power of two.
bool IsRepeatedMean(const Node& pool_gradient);

// The floating dtype that an elementwise node computes in, where it can be fused: its values are of that dtype, or
// truth values.
std::optional<DType> FusedDType(const Graph& graph, const Node& node);

// The attributes that its instruction has as numbers.
absl::InlinedVector<double, 2> FusedNumbers(const Node& node);

// A chain's program, and its tensors.
struct FusedChainProgram {
  FusedProgram program;
  std::vector<Port> operands, outputs;
};

// Where the values of a chain come from and go, beside its operands.
struct FusedChainEnds {
  absl::flat_hash_set<Port> outputs;  // Are stored.
  std::vector<Port> reduced;          // Each goes to the reduction of its index.
  std::optional<Port> produced;       // What the convolution before the chain gives, of the chain's shape.
  std::optional<Port> pooled;         // Goes to the pool after it.
};

// The program of elementwise nodes of one shape, in an order in which they can run. There may be none where something
// is produced. Nothing where it doesn't fit.
std::optional<FusedChainProgram> BuildFusedChain(const Graph& graph, const std::vector<NodeId>& nodes,
                                                 const FusedChainEnds& ends);

}  // namespace gradweave

#endif  // GRADWEAVE_RUNTIME_CUDA_FUSION_FUSED_CHAIN_H_
