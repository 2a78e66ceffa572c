#include "gradweave/graph/passes/substitute.h"

#include <algorithm>

#include "absl/container/flat_hash_map.h"
#include "absl/container/inlined_vector.h"
#include "absl/strings/str_cat.h"

namespace gradweave {

std::vector<Value> Substitute(const std::vector<Value>& values, absl::Span<const Substitution> substitutions) {
  if (values.empty() || substitutions.empty()) return values;
  Graph& graph = *values[0].graph();
  const std::vector<Value> invalid(values.size(), Value(&graph, Port{}));
  absl::flat_hash_map<Port, Port> replaced;
  NodeId first = graph.num_nodes(), last = -1;
  for (const auto& [from, to] : substitutions) {
    if (!from.valid() || !to.valid()) return invalid;
    if (!(from.type() == to.type())) {
      graph.RecordError(absl::InvalidArgumentError(
          absl::StrCat("Substitute: ", from.node().display_name(), " is ", from.type().ToString(),
                       " and its replacement ", to.type().ToString(), "; the types have to be the same")));
      return invalid;
    }
    replaced[from.port()] = to.port();
    first = std::min(first, from.port().node);
  }
  for (const Value& value : values) {
    if (!value.valid()) return invalid;
    last = std::max(last, value.port().node);
  }
  // Only nodes that the values need are copied.
  std::vector<bool> needed(last + 1, false);
  for (const Value& value : values) needed[value.port().node] = true;
  for (NodeId id = last; id > first; --id) {
    if (!needed[id]) continue;
    for (Port input : graph.node(id).inputs) needed[input.node] = true;
  }
  auto now = [&](Port port) {
    const auto found = replaced.find(port);
    return found == replaced.end() ? port : found->second;
  };
  for (NodeId id = first + 1; id <= last; ++id) {
    if (!needed[id]) continue;
    const Node& node = graph.node(id);
    absl::InlinedVector<Port, 4> inputs;
    bool changed = false;
    for (Port input : node.inputs) {
      inputs.push_back(now(input));
      changed = changed || !(inputs.back() == input);
    }
    // A run does not read a variable's initial value.
    if (!changed || node.op->is_source()) continue;
    const absl::StatusOr<NodeId> copy =
        graph.AddNode(node.op, node.attributes, inputs, /*name=*/"", node.device, node.location);
    if (!copy.ok()) {
      graph.RecordError(copy.status());
      return invalid;
    }
    for (int32_t i = 0; i < static_cast<int32_t>(node.outputs.size()); ++i) {
      replaced.try_emplace(Port{id, i}, Port{*copy, i});
    }
  }
  std::vector<Value> results;
  for (const Value& value : values) results.push_back(graph.value(now(value.port())));
  return results;
}

}  // namespace gradweave
