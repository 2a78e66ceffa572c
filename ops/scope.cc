#include "gradweave/ops/scope.h"

#include <utility>

#include "absl/strings/str_cat.h"

namespace gradweave {

Scope::Scope(Graph& graph, const OpRegistry& registry) : graph_(graph), previous_(graph.builder()) {
  graph_.builder().registry = &registry;
  // Gradients and other functions still need the registry after this scope ends.
  previous_.registry = &registry;
}

Scope::Scope(Scope& parent, absl::string_view name) : graph_(parent.graph_), previous_(graph_.builder()) {
  absl::StrAppend(&graph_.builder().name_prefix, name, "/");
}

Scope::~Scope() {
  // The seeds that this scope used stay used.
  previous_.next_seed = graph_.builder().next_seed;
  graph_.builder() = std::move(previous_);
}

Value Scope::Input(absl::string_view name, DType dtype, Shape shape, std::source_location location) {
  if (name.empty()) {
    graph_.RecordError(absl::InvalidArgumentError(
        absl::StrCat("Input: the name is empty; runs are fed by name, at ", ToString(ToSourceLocation(location)))));
    return Value(&graph_, Port{});
  }
  return AddSource(graph_, "Input", {{"dtype", dtype}, {"shape", std::move(shape)}}, ToSourceLocation(location), name);
}

Value Scope::Constant(Tensor value, std::source_location location) {
  return AddSource(graph_, "Constant", {{"value", std::move(value)}}, ToSourceLocation(location));
}

Value Scope::Full(double number, const Shape& shape, DType dtype, std::source_location location) {
  if (!Represents(dtype, number)) {
    const Value like = Constant(Tensor(dtype, {}), location);
    return ToValue(Operand(number, location), like);  // Records the error.
  }
  const Value scalar = Constant(Tensor::ScalarOf(dtype, number), location);
  if (!scalar.valid() || shape.rank() == 0) return scalar;
  const OpDefinition* op = graph_.builder().registry->Find(OpKind::kBroadcastTo);
  const NamedAttribute attributes[] = {{"shape", shape}};
  const Port inputs[] = {scalar.port()};
  const absl::StatusOr<NodeId> node = graph_.AddNode({.op = op,
                                                      .inputs = inputs,
                                                      .attributes = attributes,
                                                      .device = graph_.builder().device,
                                                      .location = scalar.node().location});
  if (node.ok()) return graph_.value(*node);
  graph_.RecordError(node.status());
  return Value(&graph_, Port{});
}

void Scope::SetDevice(absl::string_view device) { graph_.builder().device = std::string(device); }

}  // namespace gradweave
