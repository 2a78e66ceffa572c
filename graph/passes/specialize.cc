#include <memory>
#include <utility>

#include "gradweave/graph/body.h"
#include "gradweave/graph/check.h"
#include "gradweave/graph/passes/passes.h"

namespace gradweave {

absl::StatusOr<Graph> Specialize(const Graph& graph, const DimBindings& bindings, bool initial_values) {
  return Rewrite(
      graph,
      [&](const Node& node, absl::Span<const Port> inputs, Graph& result) -> absl::StatusOr<std::optional<Ports>> {
        const bool is_variable = node.op->kind == OpKind::kVariable;
        if (is_variable && initial_values) {
          if (inputs.empty()) {
            return absl::InvalidArgumentError(
                absl::StrCat("Variable '", node.display_name(), "' has no initial value"));
          }
          return Ports{inputs[0]};
        }
        absl::InlinedVector<AttributeValue, 1> attributes = node.attributes;
        for (AttributeValue& attribute : attributes) {
          if (Shape* shape = std::get_if<Shape>(&attribute)) *shape = shape->Substitute(bindings);
          if (Body* body = std::get_if<Body>(&attribute)) {
            GW_ASSIGN_OR_RETURN(Graph specialized, Specialize(**body, bindings));
            *body = std::make_shared<Graph>(std::move(specialized));
          }
        }
        GW_ASSIGN_OR_RETURN(
            NodeId copy, result.AddNode(node.op, std::move(attributes), is_variable ? absl::Span<const Port>() : inputs,
                                        node.name, node.device, node.location));
        return result.node(copy).ports();
      });
}

}  // namespace gradweave
