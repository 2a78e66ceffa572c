// Which ops can be fused, and the program of a chain of them.
#ifndef GRADWEAVE_RUNTIME_CUDA_FUSED_CHAIN_H_
#define GRADWEAVE_RUNTIME_CUDA_FUSED_CHAIN_H_

#include <optional>
#include <vector>

#include "absl/container/flat_hash_set.h"
#include "absl/container/inlined_vector.h"
#include "absl/strings/string_view.h"
#include "gradweave/graph/graph.h"
#include "gradweave/runtime/cuda/fusion.h"

namespace gradweave {

// The instruction of an elementwise op; nothing where it is not to be fused.
std::optional<FusedOp> FindFusedOp(absl::string_view op);

// The kind of a reduction; nothing where it is not to be fused.
std::optional<FusedReductionKind> FindFusedReduction(absl::string_view op);

// A constant that a program holds itself.
bool IsConstantNumber(const Graph& graph, Port port);

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

// The program of elementwise nodes of one shape, in an order in which they can run: `outputs` are stored, each of
// `reduced` goes to the reduction of its index. Nothing where it doesn't fit.
std::optional<FusedChainProgram> BuildFusedChain(const Graph& graph, const std::vector<NodeId>& nodes,
                                                 const absl::flat_hash_set<Port>& outputs,
                                                 const std::vector<Port>& reduced);

}  // namespace gradweave

#endif  // GRADWEAVE_RUNTIME_CUDA_FUSED_CHAIN_H_
