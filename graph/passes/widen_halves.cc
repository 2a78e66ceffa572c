#include "gradweave/graph/passes/widen_halves.h"

#include <algorithm>
#include <optional>
#include <utility>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "gradweave/graph/body.h"
#include "gradweave/graph/check.h"
#include "gradweave/graph/passes/convert_outputs.h"
#include "gradweave/graph/passes/passes.h"

namespace gradweave {
namespace {

bool HasHalves(const Graph& graph) {
  return std::any_of(graph.nodes().begin(), graph.nodes().end(), [](const Node& node) {
    return std::any_of(node.outputs.begin(), node.outputs.end(),
                       [](const TensorType& type) { return IsHalf(type.dtype); });
  });
}

// A value of a half type stands in the result in the form that its node made, which the dtype
// tells: stored, or wide if it is float32. The other form is made when a reader asks for it.
class Widening {
 public:
  explicit Widening(const Graph& graph) : graph_(graph) {}

  absl::StatusOr<std::optional<Ports>> Replace(const Node& node, absl::Span<const Port> inputs, Graph& result);
  // The value in the form of that dtype.
  absl::StatusOr<Port> InForm(Port port, DType dtype, const Node& near, Graph& result);

 private:
  absl::StatusOr<Port> ReplaceCast(const Node& node, Port input, Graph& result);
  // The wide form of x, which is float32, rounded to the half type.
  absl::StatusOr<Port> Rounded(Port x, DType half, const Node& near, Graph& result);
  // True if the node takes its operands as they are stored.
  bool TakesStored(const Node& node, absl::Span<const Port> inputs, const Graph& result) const;

  const Graph& graph_;
  absl::flat_hash_map<Port, Port> other_form_;
  absl::flat_hash_map<Port, Port> rounded_from_;  // The operand of each rounding.
};

absl::StatusOr<NodeId> AddLike(const Node& near, const OpDefinition* op, Port x,
                               absl::Span<const NamedAttribute> attributes, Graph& result) {
  GW_CHECK(op != nullptr, near.op->name);
  return result.AddNode(
      {.op = op, .inputs = {x}, .attributes = attributes, .device = near.device, .location = near.location});
}

absl::StatusOr<Port> AddCast(const Node& near, Port x, DType dtype, Graph& result) {
  const NamedAttribute attributes[] = {{"dtype", dtype}};
  GW_ASSIGN_OR_RETURN(const NodeId cast, AddLike(near, near.op->registry->Find(OpKind::kCast), x, attributes, result));
  return Port{cast, 0};
}

absl::StatusOr<Port> Widening::InForm(Port port, DType dtype, const Node& near, Graph& result) {
  if (result.type(port).dtype == dtype) return port;
  if (auto found = other_form_.find(port); found != other_form_.end()) return found->second;
  // A cast rounds as the rounding has done, so it need not wait for that.
  const auto rounding = rounded_from_.find(port);
  GW_ASSIGN_OR_RETURN(const Port other,
                      AddCast(near, rounding == rounded_from_.end() ? port : rounding->second, dtype, result));
  other_form_[port] = other;
  other_form_[other] = port;
  return other;
}

absl::StatusOr<Port> Widening::Rounded(Port x, DType half, const Node& near, Graph& result) {
  const OpDefinition* const op = near.op->registry->Find(half == kFloat16 ? "RoundToFloat16" : "RoundToBFloat16");
  GW_ASSIGN_OR_RETURN(const NodeId node, AddLike(near, op, x, {}, result));
  rounded_from_[{node, 0}] = x;
  return Port{node, 0};
}

absl::StatusOr<Port> Widening::ReplaceCast(const Node& node, Port input, Graph& result) {
  const DType from = graph_.type(node.inputs[0]).dtype, to = node.outputs[0].dtype;
  if (from == to) return input;
  if (!IsHalf(from)) return from == kFloat32 ? Rounded(input, to, node, result) : AddCast(node, input, to, result);
  if (!IsHalf(to) && to != kFloat32) return AddCast(node, input, to, result);
  GW_ASSIGN_OR_RETURN(const Port wide, InForm(input, kFloat32, node, result));
  return to == kFloat32 ? wide : Rounded(wide, to, node, result);
}

bool Widening::TakesStored(const Node& node, absl::Span<const Port> inputs, const Graph& result) const {
  if (node.op->is_source() || node.op->stateful || node.op->kind == OpKind::kCopy || HasBody(node)) return true;
  // Elementwise ops run with others, which are wide.
  if (node.op->elementwise) return false;
  return std::all_of(inputs.begin(), inputs.end(), [&](Port input) { return result.type(input).dtype != kFloat32; });
}

absl::StatusOr<std::optional<Ports>> Widening::Replace(const Node& node, absl::Span<const Port> inputs, Graph& result) {
  const TensorTypes operands = graph_.OperandTypes(node);
  const auto is_half = [](const TensorType& type) { return IsHalf(type.dtype); };
  if (std::none_of(operands.begin(), operands.end(), is_half) &&
      std::none_of(node.outputs.begin(), node.outputs.end(), is_half)) {
    return std::nullopt;
  }
  if (node.op->kind == OpKind::kCast) {
    GW_ASSIGN_OR_RETURN(const Port port, ReplaceCast(node, inputs[0], result));
    return Ports{port};
  }
  // An op that takes halves by its definition only moves elements, compares them or keeps them.
  bool moves = true;
  for (size_t i = 0; i < operands.size(); ++i) {
    const OperandDefinition& operand = node.op->operands[std::min(i, node.op->operands.size() - 1)];
    moves &= !IsHalf(operands[i].dtype) || operand.dtypes.Contains(operands[i].dtype);
  }
  const bool stored = moves && TakesStored(node, inputs, result);
  Ports taken(inputs.begin(), inputs.end());
  for (size_t i = 0; i < operands.size(); ++i) {
    if (!is_half(operands[i])) continue;
    GW_ASSIGN_OR_RETURN(taken[i], InForm(inputs[i], stored ? operands[i].dtype : kFloat32, node, result));
  }
  GW_ASSIGN_OR_RETURN(const NodeId copy, result.AddNodeLike(node, taken));
  Ports ports = result.node(copy).ports();
  if (moves) return ports;
  for (size_t i = 0; i < ports.size(); ++i) {
    if (!is_half(node.outputs[i])) continue;
    GW_ASSIGN_OR_RETURN(ports[i], Rounded(ports[i], node.outputs[i].dtype, node, result));
  }
  return ports;
}

}  // namespace

absl::StatusOr<Graph> WidenHalves(const Graph& graph) {
  if (!HasHalves(graph)) return graph;
  Widening widening(graph);
  GW_ASSIGN_OR_RETURN(Graph result, Rewrite(graph, [&](const Node& node, absl::Span<const Port> inputs, Graph& made) {
                        return widening.Replace(node, inputs, made);
                      }));
  GW_RETURN_IF_ERROR(ConvertOutputs(graph, result, [&](Port port, DType dtype, const Node& node) {
    return widening.InForm(port, dtype, node, result);
  }));
  return result;
}

}  // namespace gradweave
