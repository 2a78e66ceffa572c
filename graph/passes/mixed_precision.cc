#include "gradweave/graph/passes/mixed_precision.h"

#include <algorithm>
#include <cmath>
#include <optional>
#include <utility>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/strings/str_format.h"
#include "gradweave/graph/body.h"
#include "gradweave/graph/check.h"
#include "gradweave/graph/passes/convert_outputs.h"
#include "gradweave/graph/passes/passes.h"
#include "gradweave/graph/tensor.h"

namespace gradweave {
namespace {

// True if the half type has numbers near all elements: none becomes 0 or infinite.
bool FitsHalf(const Tensor& numbers, DType half) {
  const std::vector<double> before = numbers.ToDoubles(), after = numbers.Cast(half).ToDoubles();
  for (size_t i = 0; i < before.size(); ++i) {
    if ((before[i] != 0) != (after[i] != 0) || std::isinf(before[i]) != std::isinf(after[i])) return false;
  }
  return true;
}

class HalfPrecision {
 public:
  HalfPrecision(const Graph& graph, DType half, MixedPrecisionReport& report)
      : graph_(graph), half_(half), report_(report), leads_to_product_(FindLeading()) {}

  absl::StatusOr<std::optional<Ports>> Replace(const Node& node, absl::Span<const Port> inputs, Graph& result);
  absl::StatusOr<Port> Converted(Port port, DType dtype, const Node& near, Graph& result);

 private:
  // Indexed by node: true if a node of kHalf depends on it.
  std::vector<bool> FindLeading() const;
  // True if all floating operands and results are float32.
  bool IsFloat32(const Node& node) const;
  bool IsProduct(const Node& node) const {
    return node.op->mixed_precision == MixedPrecision::kHalf && IsFloat32(node);
  }
  // True for a variable or constant, perhaps moved, that is as well a half.
  bool MayBeHalf(Port port, const Graph& result) const;
  bool Follows(const Node& node, absl::Span<const Port> inputs, const Graph& result) const;

  const Graph& graph_;
  const DType half_;
  MixedPrecisionReport& report_;
  const std::vector<bool> leads_to_product_;
  absl::flat_hash_map<Port, Port> converted_;  // Both ways.
};

bool HalfPrecision::IsFloat32(const Node& node) const {
  if (node.op->stateful || node.op->is_source() || HasBody(node)) return false;
  const TensorTypes operands = graph_.OperandTypes(node);
  const auto fits = [](const TensorType& type) { return type.dtype == kFloat32 || !IsReal(type.dtype); };
  const auto is_float32 = [](const TensorType& type) { return type.dtype == kFloat32; };
  return std::all_of(operands.begin(), operands.end(), fits) &&
         std::all_of(node.outputs.begin(), node.outputs.end(), fits) &&
         std::any_of(operands.begin(), operands.end(), is_float32);
}

std::vector<bool> HalfPrecision::FindLeading() const {
  std::vector<bool> leads(graph_.num_nodes(), false);
  for (NodeId id = graph_.num_nodes() - 1; id >= 0; --id) {
    const Node& node = graph_.node(id);
    // A variable does not depend on its initial value within a run.
    if (node.op->kind == OpKind::kVariable || (!leads[id] && !IsProduct(node))) continue;
    for (Port input : node.inputs) leads[input.node] = true;
  }
  return leads;
}

bool HalfPrecision::MayBeHalf(Port port, const Graph& result) const {
  const Node* source = &result.node(port.node);
  while (source->op->alias || source->op->kind == OpKind::kBroadcastTo || source->op->kind == OpKind::kTranspose)
    source = &result.node(source->inputs[0].node);
  if (source->op->kind == OpKind::kVariable) return true;
  return source->op->kind == OpKind::kConstant && FitsHalf(source->attribute<Tensor>("value"), half_);
}

bool HalfPrecision::Follows(const Node& node, absl::Span<const Port> inputs, const Graph& result) const {
  if (node.op->mixed_precision != MixedPrecision::kFollows || !leads_to_product_[node.id] || !IsFloat32(node))
    return false;
  bool any = false;
  for (Port input : inputs) {
    const DType dtype = result.type(input).dtype;
    any |= dtype == half_;
    if (dtype == kFloat32 && !MayBeHalf(input, result)) return false;
  }
  return any;
}

absl::StatusOr<Port> HalfPrecision::Converted(Port port, DType dtype, const Node& near, Graph& result) {
  if (result.type(port).dtype == dtype) return port;
  if (auto found = converted_.find(port); found != converted_.end()) return found->second;
  const NamedAttribute attributes[] = {{"dtype", dtype}};
  GW_ASSIGN_OR_RETURN(const NodeId cast, result.AddNode({.op = near.op->registry->Find(OpKind::kCast),
                                                         .inputs = {port},
                                                         .attributes = attributes,
                                                         .device = near.device,
                                                         .location = near.location}));
  ++report_.casts;
  return converted_[port] = Port{cast, 0};
}

absl::StatusOr<std::optional<Ports>> HalfPrecision::Replace(const Node& node, absl::Span<const Port> inputs,
                                                            Graph& result) {
  const bool product = IsProduct(node), follows = !product && Follows(node, inputs, result);
  Ports taken(inputs.begin(), inputs.end());
  for (size_t i = 0; i < taken.size(); ++i) {
    const DType dtype = graph_.type(node.inputs[i]).dtype;
    if (dtype != kFloat32) continue;
    GW_ASSIGN_OR_RETURN(taken[i], Converted(taken[i], product || follows ? half_ : kFloat32, node, result));
  }
  GW_ASSIGN_OR_RETURN(const NodeId copy, result.AddNodeLike(node, taken));
  report_.products += product ? 1 : 0;
  report_.followers += follows ? 1 : 0;
  for (const TensorType& type : node.outputs) {
    if ((product || follows) && type.dtype == kFloat32 && type.shape.is_static()) report_.bytes += type.byte_size();
  }
  return result.node(copy).ports();
}

}  // namespace

std::string MixedPrecisionReport::ToString() const {
  return absl::StrFormat(
      "mixed precision: %d products and %d other nodes in %s, %d casts; their results have %d bytes, and %d in float32",
      products, followers, DTypeName(half), casts, bytes / 2, bytes);
}

absl::StatusOr<Graph> MakeMixedPrecision(const Graph& graph, DType half, MixedPrecisionReport* report) {
  GW_CHECK(IsHalf(half), DTypeName(half));
  MixedPrecisionReport own, &changes = report == nullptr ? own : *report;
  changes.half = half;
  HalfPrecision precision(graph, half, changes);
  GW_ASSIGN_OR_RETURN(Graph result, Rewrite(graph, [&](const Node& node, absl::Span<const Port> inputs, Graph& made) {
                        return precision.Replace(node, inputs, made);
                      }));
  GW_RETURN_IF_ERROR(ConvertOutputs(graph, result, [&](Port port, DType dtype, const Node& node) {
    return precision.Converted(port, dtype, node, result);
  }));
  return result;
}

}  // namespace gradweave
