#include "gradweave/runtime/plan/value_lifetimes.h"

#include "absl/container/flat_hash_set.h"
#include "absl/strings/str_cat.h"
#include "gradweave/graph/check.h"
#include "gradweave/runtime/plan/compiled_graph.h"

namespace gradweave {

absl::StatusOr<Kernel> MakeKernel(const KernelRegistry& kernels, const Graph& graph, const Node& node, int threads) {
  const KernelFactory* factory = kernels.Find(node.op->name);
  if (factory == nullptr) {
    return absl::UnimplementedError(absl::StrCat(node.device.empty() ? "the device" : node.device,
                                                 " has no kernel for ", DescribeNode(graph, node)));
  }
  absl::StatusOr<Kernel> kernel = (*factory)({node, graph.OperandTypes(node), threads});
  if (kernel.ok()) return kernel;
  return absl::Status(kernel.status().code(),
                      absl::StrCat(kernel.status().message(), "; in ", DescribeNode(graph, node)));
}

void ValueLifetimes::AddNode(const Node& node, int aliased) {
  auto& roots = roots_.emplace_back();
  last_use_.emplace_back(node.outputs.size(), -1);
  for (int i = 0; i < static_cast<int>(node.outputs.size()); ++i) {
    roots.push_back(aliased < 0 ? Port{node.id, i} : Root(node.inputs[aliased]));
  }
}

absl::StatusOr<std::vector<Assignment>> ValueLifetimes::FindAssignments(const Graph& graph) const {
  std::vector<Assignment> assignments;
  auto updates = graph.outputs().find(kUpdates);
  if (updates == graph.outputs().end()) return assignments;
  absl::flat_hash_set<Port> assigned;
  absl::flat_hash_set<NodeId> seen;  // The same Assign node may be asked for twice.
  for (Port update : updates->second) {
    if (!seen.insert(update.node).second) continue;
    const Node& node = graph.node(update.node);
    const Port variable = Root(node.inputs[0]);
    if (!assigned.insert(variable).second) {
      return absl::InvalidArgumentError(absl::StrCat("variable '", graph.node(variable.node).display_name(),
                                                     "' is assigned twice in one run, the second time by ",
                                                     DescribeNode(graph, node), "; fetch one of the updates"));
    }
    assignments.push_back({Root(node.inputs[1]), variable});
  }
  return assignments;
}

void ValueLifetimes::UseAtEnd(const Graph& graph, absl::Span<const Assignment> assignments) {
  if (auto fetches = graph.outputs().find(kFetches); fetches != graph.outputs().end()) {
    for (Port port : fetches->second) Use(Root(port), kEnd);
  }
  for (const Assignment& assignment : assignments) Use(assignment.value, kEnd);
}

}  // namespace gradweave
