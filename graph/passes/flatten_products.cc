#include <utility>

#include "gradweave/graph/check.h"
#include "gradweave/graph/passes/passes.h"

namespace gradweave {
namespace {

// Merges all axes but the last into one.
Shape Rows(const Shape& shape) {
  Dim rows(1);
  for (int axis = 0; axis + 1 < shape.rank(); ++axis) rows = rows * shape[axis];
  return {rows, shape[shape.rank() - 1]};
}

class Flattener {
 public:
  Flattener(const Node& node, Graph& result) : node_(node), result_(result) {}

  absl::StatusOr<Port> Reshape(Port x, const Shape& shape) {
    if (result_.type(x).shape == shape) return x;
    const NamedAttribute attributes[] = {{"shape", shape}};
    return Add(OpKind::kReshape, {x}, attributes);
  }
  absl::StatusOr<Port> MatMul(Port a, Port b, bool transpose_a, bool transpose_b) {
    const NamedAttribute attributes[] = {{"transpose_a", transpose_a}, {"transpose_b", transpose_b}};
    return Add(OpKind::kMatMul, {a, b}, attributes);
  }

 private:
  absl::StatusOr<Port> Add(OpKind op, std::initializer_list<Port> inputs, absl::Span<const NamedAttribute> attributes) {
    GW_ASSIGN_OR_RETURN(NodeId id, result_.AddNode({.op = node_.op->registry->Find(op),
                                                    .inputs = absl::MakeConstSpan(inputs.begin(), inputs.size()),
                                                    .attributes = attributes,
                                                    .name = node_.name,
                                                    .device = node_.device,
                                                    .location = node_.location}));
    return Port{id, 0};
  }

  const Node& node_;
  Graph& result_;
};

// Flattens a product of many matrices with one matrix.
absl::StatusOr<std::optional<Ports>> FlattenRows(const Node& node, absl::Span<const Port> inputs, Graph& result) {
  const Shape a = result.type(inputs[0]).shape;
  if (node.attribute<bool>("transpose_a") || a.rank() < 3 || result.type(inputs[1]).shape.rank() != 2)
    return std::nullopt;
  Flattener flat(node, result);
  GW_ASSIGN_OR_RETURN(Port rows, flat.Reshape(inputs[0], Rows(a)));
  GW_ASSIGN_OR_RETURN(Port product, flat.MatMul(rows, inputs[1], false, node.attribute<bool>("transpose_b")));
  GW_ASSIGN_OR_RETURN(Port y, flat.Reshape(product, node.outputs[0].shape));
  return Ports{y};
}

// Flattens a sum of products a^T b over all leading axes into one product with more rows.
absl::StatusOr<std::optional<Ports>> FlattenSum(const Node& node, absl::Span<const Port> inputs, Graph& result) {
  const Node& product = result.node(inputs[0].node);
  if (product.op->kind != OpKind::kMatMul || !product.attribute<bool>("transpose_a") ||
      product.attribute<bool>("transpose_b"))
    return std::nullopt;
  const Port a = product.inputs[0], b = product.inputs[1];
  const Shape shape_a = result.type(a).shape, shape_b = result.type(b).shape;
  const Integers& axes = node.attribute<Integers>("axes");
  if (shape_a.rank() < 3 || shape_a.rank() != shape_b.rank()) return std::nullopt;
  if (static_cast<int>(axes.size()) != shape_a.rank() - 2 || axes.back() != shape_a.rank() - 3) return std::nullopt;
  for (int axis = 0; axis + 2 < shape_a.rank(); ++axis) {
    if (!(shape_a[axis] == shape_b[axis])) return std::nullopt;
  }
  Flattener flat(node, result);
  GW_ASSIGN_OR_RETURN(Port rows_a, flat.Reshape(a, Rows(shape_a)));
  GW_ASSIGN_OR_RETURN(Port rows_b, flat.Reshape(b, Rows(shape_b)));
  GW_ASSIGN_OR_RETURN(Port sum, flat.MatMul(rows_a, rows_b, true, false));
  GW_ASSIGN_OR_RETURN(Port y, flat.Reshape(sum, node.outputs[0].shape));
  return Ports{y};
}

}  // namespace

absl::StatusOr<Graph> FlattenProducts(const Graph& graph) {
  return Rewrite(
      graph,
      [](const Node& node, absl::Span<const Port> inputs, Graph& result) -> absl::StatusOr<std::optional<Ports>> {
        if (node.op->kind == OpKind::kMatMul) return FlattenRows(node, inputs, result);
        if (node.op->kind == OpKind::kSum) return FlattenSum(node, inputs, result);
        return std::nullopt;
      });
}

}  // namespace gradweave
