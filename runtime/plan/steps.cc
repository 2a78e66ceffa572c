#include "gradweave/runtime/plan/steps.h"

#include <utility>

#include "absl/strings/str_cat.h"
#include "gradweave/graph/check.h"

namespace gradweave {

absl::StatusOr<PartStep> MakeNodeStep(const KernelRegistry& kernels, const Graph& graph, const Node& node, int threads,
                                      bool toom_cook) {
  const KernelFactory* factory = kernels.Find(node.op->name);
  if (factory == nullptr) {
    return absl::UnimplementedError(absl::StrCat(node.device.empty() ? "the device" : node.device,
                                                 " has no kernel for ", DescribeNode(graph, node)));
  }
  absl::StatusOr<Kernel> kernel = (*factory)({node, graph.OperandTypes(node), threads, toom_cook});
  if (!kernel.ok()) {
    return absl::Status(kernel.status().code(),
                        absl::StrCat(kernel.status().message(), "; in ", DescribeNode(graph, node)));
  }
  PartStep step{.kernel = *std::move(kernel), .nodes = {node.id}};
  step.operands.assign(node.inputs.begin(), node.inputs.end());
  for (int i = 0; i < static_cast<int>(node.outputs.size()); ++i) step.outputs.push_back({node.id, i});
  return step;
}

int AliasedOperand(const Node& node) {
  if (node.op->kind == OpKind::kAssign) return 1;
  return node.op->alias ? 0 : -1;
}

}  // namespace gradweave
