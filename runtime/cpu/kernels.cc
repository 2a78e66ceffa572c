#include "gradweave/runtime/cpu/kernels.h"

#include <utility>

#include "absl/strings/string_view.h"
#include "gradweave/graph/alignment.h"
#include "gradweave/graph/check.h"
#include "gradweave/runtime/cpu/add_kernel.h"
#include "gradweave/runtime/cpu/control_flow.h"
#include "gradweave/runtime/cpu/ops/kernels.h"
#include "gradweave/runtime/distributed/collective_kernels.h"
#include "gradweave/runtime/kernel/float_state.h"
#include "gradweave/runtime/kernel/thread_pool.h"

namespace gradweave {
namespace {

KernelRegistry& Kernels() {
  static KernelRegistry* const kernels = [] {
    auto* registry = new KernelRegistry();
    RegisterNodeKernels(*registry);
    distributed::RegisterCollectiveKernels(nullptr, *registry);
    RegisterControlFlowKernels(*registry, {});
    return registry;
  }();
  return *kernels;
}

}  // namespace

const KernelRegistry& CpuKernels() { return Kernels(); }

void AddCpuKernel(absl::string_view op, KernelFactory factory) { Kernels().Add(op, std::move(factory)); }

bool AttentionPays(const Graph& graph, const Node& node) {
  // With few queries, packing the keys takes longer than the products.
  constexpr int64_t kLeastQueries = 4;
  const Shape& q = graph.type(node.inputs[0]).shape;
  return q[node.attribute<int64_t>("heads_axis") == 1 ? 2 : 1].size() >= kLeastQueries;
}

absl::StatusOr<std::vector<Tensor>> EvaluateNode(const KernelRegistry& kernels, const Node& node,
                                                 absl::Span<const Tensor> operands) {
  TensorTypes types;
  std::vector<const void*> inputs;
  for (const Tensor& operand : operands) {
    types.push_back(operand.type());
    inputs.push_back(operand.raw_data());
  }
  const KernelFactory* factory = kernels.Find(node.op->name);
  if (factory == nullptr) return absl::UnimplementedError(node.op->name);
  GW_ASSIGN_OR_RETURN(Kernel kernel, (*factory)({node, types, 1, false}));
  std::vector<Tensor> results;
  std::vector<void*> outputs;
  for (const TensorType& type : node.outputs) {
    GW_ASSIGN_OR_RETURN(Tensor result, Tensor::Create(type.dtype, type.shape.sizes()));
    outputs.push_back(result.mutable_raw_data());
    results.push_back(std::move(result));
  }
  ThreadPool caller_only(1);
  const std::shared_ptr<void> scratch = AllocateAligned(kernel.scratch_bytes);
  if (scratch == nullptr) return absl::ResourceExhaustedError("no memory for scratch");
  KernelArguments arguments;
  arguments.operands = inputs;
  arguments.outputs = outputs;
  arguments.scratch = static_cast<std::byte*>(scratch.get());
  arguments.pool = &caller_only;
  const KernelFloatState float_state;
  GW_RETURN_IF_ERROR(kernel.run(arguments));
  return results;
}

}  // namespace gradweave
