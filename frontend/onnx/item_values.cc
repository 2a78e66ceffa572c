// The values of items: as values of the graph, and as tensors and sizes that are known during the
// import.
#include <algorithm>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/strings/str_cat.h"
#include "gradweave/frontend/onnx/importer.h"
#include "gradweave/graph/op.h"
#include "gradweave/graph/status_macros.h"
#include "gradweave/ops/shape_ops.h"
#include "gradweave/ops/state.h"
#include "gradweave/runtime/session/session.h"

namespace gradweave::onnx {
namespace {

constexpr int64_t kMostEvaluated = int64_t{16} << 20;  // Bytes of a value that is computed during the import.
constexpr double kMostFlops = 1e10;                    // Operations of all these values.

}  // namespace

Value Importer::ValueOf(Item& item) {
  if (item.value.valid()) return item.value;
  Scope& scope = *scope_;
  if (item.tensor.has_value()) {
    if (item.is_initializer && IsFloating(item.type.dtype)) {
      item.value = AddSource(
          graph(), "Variable",
          {{"dtype", item.type.dtype}, {"shape", item.type.shape}, {"trainable", options_.trainable && item.trainable}},
          {}, item.name);
      model_.variables.emplace_back(item.name, *item.tensor);
    } else {
      item.value = scope.Constant(*item.tensor);
    }
  } else if (item.elements.has_value()) {
    // The size of a value that nothing computes: passes replace it by the number.
    std::vector<Value> parts;
    const bool scalar = item.type.shape.rank() == 0;
    for (const Dim& element : *item.elements) {
      const Value size = DimSize(scope.Full(0, {element}), 0, item.type.dtype);
      parts.push_back(scalar ? size : Reshape(size, {1}));
    }
    item.value = scalar ? parts[0] : Concat(parts, 0);
  }
  return item.value;
}

absl::StatusOr<Tensor> Importer::KnownValue(Item& item) {
  if (item.tensor.has_value()) return *item.tensor;
  if (item.elements.has_value()) {
    for (const Dim& element : *item.elements) NeedSize(element);
    return absl::UnimplementedError(
        absl::StrCat("the value of '", item.name, "' depends on sizes that only a run knows, and has to be known now"));
  }
  absl::StatusOr<Tensor> value = Evaluate(item.value);
  if (value.ok()) {
    item.tensor = *value;
    return value;
  }
  return absl::Status(value.status().code(), absl::StrCat("the value of '", item.name, "' has to be known now, and ",
                                                          value.status().message()));
}

absl::StatusOr<Elements> Importer::ElementsOf(Item& item) {
  if (!IsInteger(item.type.dtype) || item.type.shape.rank() > 1) {
    return absl::InvalidArgumentError(
        absl::StrCat("'", item.name, "' has to be a list of integers, and is ", item.type.ToString()));
  }
  if (item.elements.has_value()) return *item.elements;
  GW_ASSIGN_OR_RETURN(const Tensor tensor, KnownValue(item));
  const Tensor wide = tensor.Cast(kInt64);
  return Elements(wide.values<int64_t>().begin(), wide.values<int64_t>().end());
}

// Computes the value from constants, in a graph of its own.
absl::StatusOr<Tensor> Importer::Evaluate(Value value) {
  if (!value.valid()) return absl::InvalidArgumentError("is not valid");
  if (value.graph() != &graph()) return absl::UnimplementedError("is computed in each round of a loop");
  std::vector<NodeId> needed, stack = {value.port().node};
  std::set<NodeId> seen = {value.port().node};
  std::set<std::string> inputs;
  while (!stack.empty()) {
    const Node& node = graph().node(stack.back());
    stack.pop_back();
    needed.push_back(node.id);
    if (node.op->kind == OpKind::kInput) inputs.insert(input_nodes_[node.id]);
    if (node.op->stateful && node.op->kind != OpKind::kInput && node.op->kind != OpKind::kVariable)
      return absl::UnimplementedError("depends on random numbers");
    for (const TensorType& type : node.outputs) {
      if (!type.shape.is_static()) {
        if (node.op->kind == OpKind::kInput) continue;
        for (const Dim& size : type.shape) NeedSize(size);
        return absl::UnimplementedError("depends on sizes that only a run knows");
      } else if (type.byte_size() > kMostEvaluated) {
        return absl::UnimplementedError("takes too much memory to be computed during the import");
      }
    }
    for (const Port input : node.inputs) {
      if (seen.insert(input.node).second) stack.push_back(input.node);
    }
  }
  if (!inputs.empty()) {
    needed_inputs_.insert(inputs.begin(), inputs.end());
    return absl::FailedPreconditionError(
        absl::StrCat("depends on the input '", *inputs.begin(), "'; ImportOptions::fixed can give this input a value"));
  }
  std::sort(needed.begin(), needed.end());
  GW_RETURN_IF_ERROR(AddWork(static_cast<int64_t>(needed.size())));
  for (const NodeId id : needed) {
    const Node& node = graph().node(id);
    TensorTypes operands;
    for (const Port input : node.inputs) operands.push_back(graph().type(input));
    if (node.op->flops != nullptr)
      knowledge_.flops += node.op->flops(OpView(*node.op, node.attributes, operands), node.outputs);
  }
  if (!(knowledge_.flops <= kMostFlops))
    return absl::UnimplementedError("takes too many operations to be computed during the import");
  Graph part;
  part.builder().registry = graph().builder().registry;
  SessionOptions session_options{.threads = 1};
  absl::flat_hash_map<NodeId, NodeId> copies;
  for (const NodeId id : needed) {
    const Node& node = graph().node(id);
    std::vector<Port> ports;
    for (const Port input : node.inputs) ports.push_back({copies[input.node], input.output});
    GW_ASSIGN_OR_RETURN(copies[id], part.AddNodeLike(node, ports));
    if (node.op->kind == OpKind::kVariable) {
      GW_RETURN_IF_ERROR(AddWork(static_cast<int64_t>(model_.variables.size())));
      for (const auto& variable : model_.variables) {
        if (variable.first == node.name) session_options.variables.push_back(variable);
      }
    }
  }
  const Value copy = part.value(Port{copies[value.port().node], value.port().output});
  GW_ASSIGN_OR_RETURN(Session session, Session::Create(part, session_options));
  GW_ASSIGN_OR_RETURN(std::vector<Tensor> results, session.Run({}, {copy}));
  return results[0];
}

}  // namespace gradweave::onnx
