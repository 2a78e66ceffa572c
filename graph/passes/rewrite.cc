#include <utility>

#include "gradweave/graph/check.h"
#include "gradweave/graph/passes/passes.h"

namespace gradweave {

std::vector<bool> NeededNodes(const Graph& graph) {
  std::vector<bool> needed(graph.num_nodes(), false);
  for (const auto& [name, ports] : graph.outputs()) {
    for (Port port : ports) needed[port.node] = true;
  }
  for (NodeId id = graph.num_nodes() - 1; id >= 0; --id) {
    if (!needed[id]) continue;
    for (Port input : graph.node(id).inputs) needed[input.node] = true;
  }
  return needed;
}

absl::StatusOr<Graph> Rewrite(const Graph& graph, RewriteRule rule) {
  Graph result;
  result.builder() = graph.builder();
  const std::vector<bool> needed = NeededNodes(graph);
  std::vector<Ports> moved(graph.num_nodes());  // Indexed by old node: its outputs in the result.
  absl::InlinedVector<Port, 8> inputs;
  for (NodeId id = 0; id < graph.num_nodes(); ++id) {
    if (!needed[id]) continue;
    const Node& node = graph.node(id);
    inputs.clear();
    for (Port input : node.inputs) inputs.push_back(moved[input.node][input.output]);
    GW_ASSIGN_OR_RETURN(std::optional<Ports> replacement, rule(node, inputs, result));
    if (replacement.has_value()) {
      GW_CHECK(replacement->size() == node.outputs.size(), node.op->name);
      moved[id] = *std::move(replacement);
      continue;
    }
    GW_ASSIGN_OR_RETURN(const NodeId copy, result.AddNodeLike(node, inputs));
    moved[id] = result.node(copy).ports();
  }
  for (const auto& [name, ports] : graph.outputs()) {
    std::vector<Value> values;
    for (Port port : ports) values.push_back(result.value(moved[port.node][port.output]));
    result.SetOutput(name, values);
  }
  return result;
}

absl::StatusOr<Graph> EliminateDeadNodes(const Graph& graph) {
  return Rewrite(graph, [](const Node&, absl::Span<const Port>, Graph&) -> absl::StatusOr<std::optional<Ports>> {
    return std::nullopt;
  });
}

}  // namespace gradweave
