#include "gradweave/graph/body.h"

#include <algorithm>

#include "absl/container/flat_hash_set.h"
#include "absl/strings/str_cat.h"
#include "gradweave/graph/check.h"

namespace gradweave {
namespace {

// Returns the depth to which bodies are nested in the graph, at most one more than the limit.
int NestedBodies(const Graph& graph, int limit = kMostNestedBodies) {
  int depth = 0;
  for (const Node& node : graph.nodes()) {
    for (const AttributeValue& attribute : node.attributes) {
      const Body* body = std::get_if<Body>(&attribute);
      if (body != nullptr) depth = std::max(depth, 1 + (limit == 0 ? 0 : NestedBodies(**body, limit - 1)));
    }
  }
  return depth;
}

bool SameNode(const Node& a, const Node& b) {
  const bool is_named = a.op->kind == OpKind::kInput || a.op->kind == OpKind::kVariable;
  return a.op == b.op && a.inputs == b.inputs && a.device == b.device && a.outputs == b.outputs &&
         (!is_named || a.name == b.name) &&
         std::equal(a.attributes.begin(), a.attributes.end(), b.attributes.begin(), b.attributes.end(),
                    SameAttributeOrBody);
}

}  // namespace

bool HasBody(const Node& node) {
  return std::any_of(node.attributes.begin(), node.attributes.end(),
                     [](const AttributeValue& attribute) { return std::holds_alternative<Body>(attribute); });
}

bool HasBodies(const Graph& graph) { return std::any_of(graph.nodes().begin(), graph.nodes().end(), HasBody); }

absl::Span<const Port> BodyPorts(const Graph& body, absl::string_view output) {
  const auto found = body.outputs().find(output);
  return found == body.outputs().end() ? absl::Span<const Port>() : absl::MakeConstSpan(found->second);
}

absl::StatusOr<TensorTypes> CheckBody(const Graph& body, absl::string_view name,
                                      absl::Span<const TensorType> operands) {
  auto error = [&](const auto&... parts) { return absl::InvalidArgumentError(absl::StrCat(name, " ", parts...)); };
  if (!body.outputs().contains(kBodyOperands) || !body.outputs().contains(kBodyResults)) {
    return error("lacks the outputs '", kBodyOperands, "' and '", kBodyResults, "'");
  }
  const absl::Span<const Port> inputs = BodyPorts(body, kBodyOperands);
  if (inputs.size() != operands.size()) {
    return error("has ", inputs.size(), " operands, and the node gives it ", operands.size());
  }
  absl::flat_hash_set<NodeId> seen;
  for (size_t i = 0; i < inputs.size(); ++i) {
    const Node& node = body.node(inputs[i].node);
    if (node.op->kind != OpKind::kInput || !seen.insert(node.id).second) {
      return error("has operand ", i, " that is not an Input of its own");
    }
    if (!(node.outputs[0] == operands[i])) {
      return error("takes ", node.outputs[0].ToString(), " as operand ", i, " and is given ", operands[i].ToString());
    }
  }
  for (const Node& node : body.nodes()) {
    if (node.op->kind == OpKind::kInput && !seen.contains(node.id)) {
      return error("has the input '", node.name, "', which nothing feeds; make it outside of the body");
    }
    if (node.op->kind != OpKind::kInput && node.op->stateful) {
      return error("has the node ", DescribeNode(body, node), ", and a body has no state and no random numbers; ",
                   "make the value outside of the body, where the body may read it");
    }
    if (!node.device.empty()) {
      return error("has the node ", DescribeNode(body, node), " on the device '", node.device,
                   "'; a body runs where its node does");
    }
  }
  if (NestedBodies(body) >= kMostNestedBodies) {
    return error("has bodies nested more than ", kMostNestedBodies - 1, " deep");
  }
  TensorTypes results;
  for (Port port : BodyPorts(body, kBodyResults)) results.push_back(body.type(port));
  return results;
}

bool SameAttributeOrBody(const AttributeValue& a, const AttributeValue& b) {
  const Body* one = std::get_if<Body>(&a);
  const Body* other = std::get_if<Body>(&b);
  if (one == nullptr || other == nullptr) return SameAttribute(a, b);
  return *one == *other || SameGraph(**one, **other);
}

bool SameGraph(const Graph& a, const Graph& b) {
  return a.num_nodes() == b.num_nodes() && a.outputs() == b.outputs() &&
         std::equal(a.nodes().begin(), a.nodes().end(), b.nodes().begin(), SameNode);
}

absl::Status CopyNodes(const Graph& from, absl::Span<const Port> wanted, Graph& to,
                       absl::flat_hash_map<Port, Port>& places) {
  std::vector<bool> needed(from.num_nodes(), false);
  auto need = [&](Port port) {
    if (!places.contains(port)) needed[port.node] = true;
  };
  for (Port port : wanted) need(port);
  for (NodeId id = from.num_nodes() - 1; id >= 0; --id) {
    if (!needed[id]) continue;
    for (Port input : from.node(id).inputs) need(input);
  }
  absl::InlinedVector<Port, 8> inputs;
  for (const Node& node : from.nodes()) {
    if (!needed[node.id]) continue;
    inputs.clear();
    for (Port input : node.inputs) inputs.push_back(places.at(input));
    GW_ASSIGN_OR_RETURN(const NodeId copy, to.AddNodeLike(node, inputs));
    for (Port port : node.ports()) places.try_emplace(port, Port{copy, port.output});
  }
  return absl::OkStatus();
}

double BodyFlops(const Graph& body) {
  double flops = 0;
  for (const Node& node : body.nodes()) {
    if (node.op->flops == nullptr) continue;
    const TensorTypes operands = body.OperandTypes(node);
    flops += node.op->flops(OpView(*node.op, node.attributes, operands), node.outputs);
  }
  return flops;
}

}  // namespace gradweave
