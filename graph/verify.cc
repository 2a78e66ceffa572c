#include "gradweave/graph/verify.h"

#include <set>
#include <string>

#include "absl/strings/str_cat.h"
#include "gradweave/graph/body.h"

namespace gradweave {
namespace {

bool Exists(const Graph& graph, Port port, NodeId before) {
  return port.node >= 0 && port.node < before && port.output >= 0 &&
         port.output < static_cast<int>(graph.node(port.node).outputs.size());
}

absl::Status VerifyNode(const Graph& graph, const Node& node, NodeId position) {
  auto broken = [&](absl::string_view problem) {
    return absl::InternalError(
        absl::StrCat("node ", position, ", ", node.op == nullptr ? "" : node.op->name, ": ", problem));
  };
  if (node.op == nullptr) return broken("no op");
  if (node.id != position) return broken("the id is not the position");
  for (Port input : node.inputs) {
    if (!Exists(graph, input, position)) return broken("an operand is not a value of an earlier node");
  }
  if (node.attributes.size() != node.op->attributes.size()) return broken("the number of attributes is wrong");
  for (size_t i = 0; i < node.attributes.size(); ++i) {
    if (TypeOf(node.attributes[i]) != node.op->attributes[i].type) {
      return broken(absl::StrCat("attribute ", node.op->attributes[i].name, " has the wrong type"));
    }
    const Body* body = std::get_if<Body>(&node.attributes[i]);
    if (body == nullptr) continue;
    if (absl::Status status = VerifyGraph(**body); !status.ok()) {
      return broken(absl::StrCat("attribute ", node.op->attributes[i].name, ": ", status.message()));
    }
  }
  const TensorTypes operands = graph.OperandTypes(node);
  const absl::StatusOr<TensorTypes> inferred = node.op->infer(OpView(*node.op, node.attributes, operands));
  if (!inferred.ok()) return broken(inferred.status().message());
  if (*inferred != node.outputs) {
    return broken(
        absl::StrCat("the outputs are (", ToString(node.outputs), ") and inference gives (", ToString(*inferred), ")"));
  }
  return absl::OkStatus();
}

}  // namespace

absl::Status VerifyGraph(const Graph& graph) {
  std::set<std::string> names;
  for (NodeId id = 0; id < graph.num_nodes(); ++id) {
    const Node& node = graph.node(id);
    if (absl::Status status = VerifyNode(graph, node, id); !status.ok()) return status;
    const bool is_named = node.op->kind == OpKind::kInput || node.op->kind == OpKind::kVariable;
    if (is_named && !names.insert(node.name).second) {
      return absl::InternalError(absl::StrCat("node ", id, ": the name '", node.name, "' is taken"));
    }
  }
  for (const auto& [name, ports] : graph.outputs()) {
    for (Port port : ports) {
      if (!Exists(graph, port, graph.num_nodes())) {
        return absl::InternalError(absl::StrCat("output '", name, "' is not a value of the graph"));
      }
    }
  }
  return absl::OkStatus();
}

}  // namespace gradweave
