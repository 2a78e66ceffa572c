// The kernels of the CPU.
#ifndef GRADWEAVE_RUNTIME_CPU_KERNELS_H_
#define GRADWEAVE_RUNTIME_CPU_KERNELS_H_

#include <vector>

#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "gradweave/graph/graph.h"
#include "gradweave/graph/tensor.h"
#include "gradweave/runtime/kernel/kernel.h"

namespace gradweave {

const KernelRegistry& CpuKernels();

// True if the attention kernel for this node, whose shapes are known, is faster than the kernels of
// the ops that define it.
bool AttentionPays(const Graph& graph, const Node& node);

// Runs one node on values, on the calling thread: the evaluator of constant folding. Returns
// Unimplemented if the registry has no kernel for the op.
absl::StatusOr<std::vector<Tensor>> EvaluateNode(const KernelRegistry& kernels, const Node& node,
                                                 absl::Span<const Tensor> operands);

}  // namespace gradweave

#endif  // GRADWEAVE_RUNTIME_CPU_KERNELS_H_
