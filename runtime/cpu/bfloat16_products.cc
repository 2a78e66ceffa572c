#include "gradweave/runtime/cpu/bfloat16_products.h"

#include <algorithm>
#include <iterator>
#include <optional>
#include <utility>

#include "absl/strings/str_cat.h"
#include "gradweave/graph/body.h"
#include "gradweave/graph/check.h"
#include "gradweave/graph/passes/bodies.h"
#include "gradweave/graph/passes/passes.h"
#include "gradweave/runtime/cpu/conv/conv_kernels.h"

namespace gradweave {
namespace {

constexpr char kRounding[] = "RoundToBFloat16", kPrefix[] = "BFloat16";
constexpr OpKind kKinds[] = {OpKind::kMatMul, OpKind::kConv2D, OpKind::kConv2DInputGrad, OpKind::kConv2DFilterGrad};

bool IsRounding(const Node& node) { return node.op->name == kRounding && node.outputs[0].dtype == kFloat32; }

// True if all elements are bfloat16 numbers, as the value's node tells.
bool IsBFloat16(const Graph& graph, Port port) {
  const Node* node = &graph.node(port.node);
  while (node->op->alias || node->op->kind == OpKind::kTranspose || node->op->kind == OpKind::kBroadcastTo)
    node = &graph.node(node->inputs[0].node);
  return IsRounding(*node) || (node->op->kind == OpKind::kCast && graph.type(node->inputs[0]).dtype == kBFloat16);
}

bool IsProduct(const Graph& graph, const Node& node) {
  if (std::find(std::begin(kKinds), std::end(kKinds), node.op->kind) == std::end(kKinds)) return false;
  if (node.outputs[0].dtype != kFloat32) return false;
  if (!IsBFloat16(graph, node.inputs[0]) || !IsBFloat16(graph, node.inputs[1])) return false;
  if (node.op->kind == OpKind::kMatMul) return true;
  const TensorTypes operands = graph.OperandTypes(node);
  const auto is_static = [](const TensorType& type) { return type.shape.is_static(); };
  return std::all_of(operands.begin(), operands.end(), is_static) && is_static(node.outputs[0]) &&
         HasBFloat16Convolution(node, operands);
}

// An op of products has the operands, attributes and shapes of the op that it replaces. It is in no
// file and no graph of a user, so it is in a registry of its own. Passes add nodes by the registry
// of a node beside them.
const OpDefinition& ProductLike(const OpDefinition& op) {
  static const OpRegistry* const registry = [&] {
    auto* made = new OpRegistry;
    for (const auto& other : op.registry->definitions()) made->Add(*other);
    for (OpKind kind : kKinds) {
      OpDefinition product = *op.registry->Find(kind);
      product.name = absl::StrCat(kPrefix, product.name);
      product.kind = OpKind::kOther;
      made->Add(std::move(product));
    }
    return made;
  }();
  return *registry->Find(absl::StrCat(kPrefix, op.name));
}

absl::StatusOr<Graph> ReplaceProducts(const Graph& graph) {
  const auto& nodes = graph.nodes();
  if (std::none_of(nodes.begin(), nodes.end(), [&](const Node& node) { return IsProduct(graph, node); })) return graph;
  return Rewrite(
      graph,
      [&](const Node& node, absl::Span<const Port> inputs, Graph& result) -> absl::StatusOr<std::optional<Ports>> {
        if (!IsProduct(graph, node)) return std::nullopt;
        Ports operands(inputs.begin(), inputs.end());
        for (int i : {0, 1}) {
          if (const Node& source = result.node(operands[i].node); IsRounding(source)) operands[i] = source.inputs[0];
        }
        GW_ASSIGN_OR_RETURN(const NodeId product, result.AddNode(&ProductLike(*node.op), node.attributes, operands,
                                                                 node.name, node.device, node.location));
        return result.node(product).ports();
      });
}

bool HasRounding(const Graph& graph) {
  return std::any_of(graph.nodes().begin(), graph.nodes().end(), [](const Node& node) {
    return IsRounding(node) || HasBody(node) || (node.op->kind == OpKind::kCast && node.outputs[0].dtype == kFloat32);
  });
}

}  // namespace

absl::Status UseBFloat16Products(Graph& graph) {
  if (!HasRounding(graph)) return absl::OkStatus();
  GW_ASSIGN_OR_RETURN(graph, ApplyWithBodies(graph, ReplaceProducts));
  GW_ASSIGN_OR_RETURN(graph, ApplyWithBodies(graph, EliminateDeadNodes));
  return absl::OkStatus();
}

}  // namespace gradweave
