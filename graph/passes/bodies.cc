#include "gradweave/graph/passes/bodies.h"

#include <algorithm>
#include <memory>
#include <utility>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/container/flat_hash_set.h"
#include "gradweave/graph/body.h"
#include "gradweave/graph/check.h"
#include "gradweave/graph/passes/passes.h"

namespace gradweave {
namespace {

bool IsScan(const Node& node) { return node.op->kind == OpKind::kScan; }

// Several Scans that become one.
struct MergedScan {
  std::vector<NodeId> members;  // The first one gives the operands and all attributes but these:
  Graph body;
  Integers output_axes;
  std::vector<std::vector<int>> outputs;  // Indexed by member and output of the member: the output of the merged one.
};

std::vector<Value> ValuesOf(Graph& graph, absl::Span<const Port> ports) {
  std::vector<Value> values;
  for (Port port : ports) values.push_back(graph.value(port));
  return values;
}

// True if both Scans take the same operands in the same way.
bool TakesSame(const Node& a, const Node& b) {
  auto same = [&](const char* name) {
    const int index = a.op->AttributeIndex(name);
    return SameAttribute(a.attributes[index], b.attributes[index]);
  };
  return a.op == b.op && a.inputs == b.inputs && a.device == b.device && same("states") && same("input_axes") &&
         same("length") && same("reverse");
}

// Adds the Scan `node` to the merged one if its states are the same.
absl::Status TryToAdd(const Node& node, int states, MergedScan& merged) {
  const Graph& other = *node.attribute<Body>("body");
  Graph joint = merged.body;
  const std::vector<Port> operands(BodyPorts(joint, kBodyOperands).begin(), BodyPorts(joint, kBodyOperands).end());
  std::vector<Port> results(BodyPorts(joint, kBodyResults).begin(), BodyPorts(joint, kBodyResults).end());
  const size_t own = results.size();
  absl::flat_hash_map<Port, Port> places;
  for (size_t i = 0; i < operands.size(); ++i) places[BodyPorts(other, kBodyOperands)[i]] = operands[i];
  GW_RETURN_IF_ERROR(CopyNodes(other, BodyPorts(other, kBodyResults), joint, places));
  for (Port port : BodyPorts(other, kBodyResults)) results.push_back(places.at(port));
  joint.SetOutput(kBodyResults, ValuesOf(joint, results));
  GW_ASSIGN_OR_RETURN(joint, EliminateCommonSubexpressions(joint));
  results.assign(BodyPorts(joint, kBodyResults).begin(), BodyPorts(joint, kBodyResults).end());
  // Equal states before a step give equal states after it if they are computed in the same way.
  if (!std::equal(results.begin(), results.begin() + states, results.begin() + static_cast<std::ptrdiff_t>(own))) {
    return absl::OkStatus();
  }
  const Integers& axes = node.attribute<Integers>("output_axes");
  std::vector<Port> all(results.begin(), results.begin() + static_cast<std::ptrdiff_t>(own));
  std::vector<int>& places_of_outputs = merged.outputs.emplace_back();
  for (int i = 0; i < states; ++i) places_of_outputs.push_back(i);
  for (size_t k = 0; k < axes.size(); ++k) {
    const Port port = results[own + states + k];
    size_t at = states;
    while (at < all.size() && !(all[at] == port && merged.output_axes[at - states] == axes[k])) ++at;
    if (at == all.size()) {
      all.push_back(port);
      merged.output_axes.push_back(axes[k]);
    }
    places_of_outputs.push_back(static_cast<int>(at));
  }
  joint.SetOutput(kBodyResults, ValuesOf(joint, all));
  merged.body = std::move(joint);
  merged.members.push_back(node.id);
  return absl::OkStatus();
}

absl::StatusOr<std::vector<MergedScan>> FindMergedScans(const Graph& graph) {
  const std::vector<bool> needed = NeededNodes(graph);
  std::vector<MergedScan> found;
  for (const Node& node : graph.nodes()) {
    if (!needed[node.id] || !IsScan(node)) continue;
    const auto states = static_cast<int>(node.attribute<int64_t>("states"));
    bool added = false;
    for (MergedScan& merged : found) {
      if (!TakesSame(graph.node(merged.members[0]), node)) continue;
      const size_t members = merged.members.size();
      GW_RETURN_IF_ERROR(TryToAdd(node, states, merged));
      added = merged.members.size() > members;
      if (added) break;
    }
    if (added) continue;
    MergedScan& alone = found.emplace_back();
    alone.members = {node.id};
    alone.body = *node.attribute<Body>("body");
    alone.output_axes = node.attribute<Integers>("output_axes");
    std::vector<int>& outputs = alone.outputs.emplace_back();
    for (size_t i = 0; i < node.outputs.size(); ++i) outputs.push_back(static_cast<int>(i));
  }
  std::erase_if(found, [](const MergedScan& merged) { return merged.members.size() == 1; });
  return found;
}

absl::InlinedVector<AttributeValue, 1> WithAttributes(const Node& node, absl::Span<const NamedAttribute> changed) {
  absl::InlinedVector<AttributeValue, 1> attributes = node.attributes;
  for (const auto& [name, value] : changed) attributes[node.op->AttributeIndex(name)] = value;
  return attributes;
}

// The parts of a Scan that stay, by body operand and by body result.
struct KeptParts {
  std::vector<bool> operands, results;
};

KeptParts FindKept(const Node& node, const std::vector<bool>& is_read) {
  const Graph& body = *node.attribute<Body>("body");
  const absl::Span<const Port> operands = BodyPorts(body, kBodyOperands), results = BodyPorts(body, kBodyResults);
  const auto states = static_cast<size_t>(node.attribute<int64_t>("states"));
  KeptParts kept{std::vector<bool>(operands.size(), false), is_read};
  for (bool changed = true; changed;) {
    changed = false;
    std::vector<bool> needed(body.num_nodes(), false);
    for (size_t k = 0; k < results.size(); ++k) {
      if (kept.results[k]) needed[results[k].node] = true;
    }
    for (NodeId id = body.num_nodes() - 1; id >= 0; --id) {
      if (!needed[id]) continue;
      for (Port input : body.node(id).inputs) needed[input.node] = true;
    }
    for (size_t i = 0; i < operands.size(); ++i) kept.operands[i] = needed[operands[i].node];
    for (size_t i = 0; i < states; ++i) {
      // A state that the body reads has to be computed, and a state that is computed has to be
      // passed in.
      if (kept.operands[i] && !kept.results[i]) kept.results[i] = changed = true;
      if (kept.results[i]) kept.operands[i] = true;
    }
  }
  return kept;
}

// Adds the Scan with its remaining parts, and returns ports for all its outputs.
absl::StatusOr<Ports> AddPruned(const Node& node, const KeptParts& kept, absl::Span<const Port> inputs, Graph& result) {
  Graph body = *node.attribute<Body>("body");
  const auto states = static_cast<size_t>(node.attribute<int64_t>("states"));
  const Integers& input_axes = node.attribute<Integers>("input_axes");
  const Integers& output_axes = node.attribute<Integers>("output_axes");
  std::vector<Value> operands, results;
  std::vector<Port> outer;
  Integers kept_inputs, kept_outputs;
  int64_t kept_states = 0;
  for (size_t i = 0; i < kept.operands.size(); ++i) {
    if (!kept.operands[i]) continue;
    operands.push_back(body.value(BodyPorts(body, kBodyOperands)[i]));
    outer.push_back(inputs[i]);
    if (i < states) ++kept_states;
    if (i >= states && i < states + input_axes.size()) kept_inputs.push_back(input_axes[i - states]);
  }
  std::vector<int> place(kept.results.size(), 0);
  for (size_t k = 0; k < kept.results.size(); ++k) {
    if (!kept.results[k]) continue;
    place[k] = static_cast<int>(results.size());
    results.push_back(body.value(BodyPorts(body, kBodyResults)[k]));
    if (k >= states) kept_outputs.push_back(output_axes[k - states]);
  }
  body.SetOutput(kBodyOperands, operands);
  body.SetOutput(kBodyResults, results);
  GW_ASSIGN_OR_RETURN(Graph pruned, EliminateDeadNodes(body));
  const NamedAttribute changed[] = {{"body", Body(std::make_shared<Graph>(std::move(pruned)))},
                                    {"states", kept_states},
                                    {"input_axes", kept_inputs},
                                    {"output_axes", kept_outputs}};
  GW_ASSIGN_OR_RETURN(const NodeId id, result.AddNode(node.op, WithAttributes(node, changed), outer, node.name,
                                                      node.device, node.location));
  Ports ports;
  for (int output : place) ports.push_back({id, output});  // Nothing reads those that are gone.
  return ports;
}

}  // namespace

absl::StatusOr<Graph> ApplyWithBodies(const Graph& graph, GraphPass pass) {
  GW_ASSIGN_OR_RETURN(Graph result, pass(graph));
  if (!HasBodies(result)) return result;
  absl::flat_hash_map<const Graph*, Body> done;  // Nodes may share a body.
  return Rewrite(
      result, [&](const Node& node, absl::Span<const Port> inputs, Graph& to) -> absl::StatusOr<std::optional<Ports>> {
        if (!HasBody(node)) return std::nullopt;
        absl::InlinedVector<AttributeValue, 1> attributes = node.attributes;
        for (AttributeValue& attribute : attributes) {
          Body* const body = std::get_if<Body>(&attribute);
          if (body == nullptr) continue;
          Body& changed = done[body->get()];
          if (changed == nullptr) {
            GW_ASSIGN_OR_RETURN(Graph inner, ApplyWithBodies(**body, pass));
            changed = std::make_shared<Graph>(std::move(inner));
          }
          *body = changed;
        }
        GW_ASSIGN_OR_RETURN(const NodeId copy,
                            to.AddNode(node.op, std::move(attributes), inputs, node.name, node.device, node.location));
        return to.node(copy).ports();
      });
}

absl::StatusOr<Graph> MergeScans(const Graph& graph) {
  GW_ASSIGN_OR_RETURN(std::vector<MergedScan> found, FindMergedScans(graph));
  if (found.empty()) return graph;
  absl::flat_hash_map<NodeId, std::pair<MergedScan*, size_t>> member_of;
  for (MergedScan& merged : found) {
    for (size_t i = 0; i < merged.members.size(); ++i) member_of[merged.members[i]] = {&merged, i};
  }
  absl::flat_hash_map<const MergedScan*, NodeId> added;
  return Rewrite(
      graph,
      [&](const Node& node, absl::Span<const Port> inputs, Graph& result) -> absl::StatusOr<std::optional<Ports>> {
        const auto member = member_of.find(node.id);
        if (member == member_of.end()) return std::nullopt;
        const auto& [merged, number] = member->second;
        if (number == 0) {
          const NamedAttribute changed[] = {{"body", Body(std::make_shared<Graph>(merged->body))},
                                            {"output_axes", merged->output_axes}};
          GW_ASSIGN_OR_RETURN(added[merged], result.AddNode(node.op, WithAttributes(node, changed), inputs, node.name,
                                                            node.device, node.location));
        }
        Ports ports;
        for (int output : merged->outputs[number]) ports.push_back({added.at(merged), output});
        return ports;
      });
}

absl::StatusOr<Graph> PruneScans(const Graph& graph) {
  if (std::none_of(graph.nodes().begin(), graph.nodes().end(), IsScan)) return graph;
  absl::flat_hash_set<Port> read;
  const std::vector<bool> needed = NeededNodes(graph);
  for (const auto& [name, ports] : graph.outputs()) read.insert(ports.begin(), ports.end());
  for (const Node& node : graph.nodes()) {
    if (needed[node.id]) read.insert(node.inputs.begin(), node.inputs.end());
  }
  return Rewrite(
      graph,
      [&](const Node& node, absl::Span<const Port> inputs, Graph& result) -> absl::StatusOr<std::optional<Ports>> {
        if (!IsScan(node)) return std::nullopt;
        std::vector<bool> is_read;
        for (Port port : node.ports()) is_read.push_back(read.contains(port));
        const KeptParts kept = FindKept(node, is_read);
        auto all = [](const std::vector<bool>& parts) {
          return std::find(parts.begin(), parts.end(), false) == parts.end();
        };
        const bool is_whole = all(kept.operands) && all(kept.results);
        // A node needs an operand.
        const bool is_empty = std::find(kept.operands.begin(), kept.operands.end(), true) == kept.operands.end();
        if (is_whole || is_empty) return std::nullopt;
        GW_ASSIGN_OR_RETURN(Ports ports, AddPruned(node, kept, inputs, result));
        return ports;
      });
}

}  // namespace gradweave
