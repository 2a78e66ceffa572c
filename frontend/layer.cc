#include "gradweave/frontend/layer.h"

#include "absl/strings/str_cat.h"
#include "gradweave/ops/elementwise.h"

namespace gradweave::nn {

Value Context::Variable(absl::string_view name, const Initializer& initializer, DType dtype, const Shape& shape,
                        VariableOptions options) const {
  auto initial_value = [&](Scope& scope) { return InitialValue(scope, initializer, dtype, shape); };
  return Variable(name, initial_value, dtype, shape, options);
}

Value Context::Variable(absl::string_view name, const std::function<Value(Scope&)>& initial_value, DType dtype,
                        const Shape& shape, VariableOptions options) const {
  Graph& graph = scope_.graph();
  const TensorType type{dtype, shape};
  auto with_type = [&](absl::string_view full_name, const Value& value, absl::string_view origin) {
    if (!value.valid() || value.type() == type) return value;
    graph.RecordError(absl::InvalidArgumentError(
        absl::StrCat("layer variable '", full_name, "' is ", value.type().ToString(), " from ", origin,
                     ", and this call needs ", type.ToString(), " at ", ToString(graph.builder().location))));
    return Value(&graph, Port{});
  };
  const std::string prefix = graph.builder().name_prefix;
  const std::string full_name = absl::StrCat(prefix, name);
  const absl::string_view relative = absl::string_view(full_name).substr(variables_.root.size());
  // Another graph may be destroyed, so its variables are not accessed.
  const auto found = variables_.shared.find(std::string(relative));
  const bool shared = found != variables_.shared.end() && found->second.value.graph() == &graph &&
                      graph.FindNamed(found->second.full_name) == found->second.value.port().node;
  const std::string& variable_name = shared ? found->second.full_name : full_name;
  if (const auto given = options_.values.find(variable_name); given != options_.values.end()) {
    return with_type(variable_name, given->second, "the values of this call");
  }
  if (shared) return with_type(variable_name, found->second.value, "an earlier call");
  if (graph.FindNamed(full_name) >= 0) {
    graph.RecordError(absl::InvalidArgumentError(
        absl::StrCat("layer variable '", full_name,
                     "': the name is taken, as by another model in the same scope; put each model under a Scope of its "
                     "own, or both into one Sequential; at ",
                     ToString(graph.builder().location))));
    return Value(&graph, Port{});
  }
  if (initial_value == nullptr) {
    graph.RecordError(absl::InvalidArgumentError(absl::StrCat("layer variable '", full_name,
                                                              "': the function for its initial value is null, at ",
                                                              ToString(graph.builder().location))));
    return Value(&graph, Port{});
  }
  const Value variable = scope_.Variable(name, initial_value(scope_), options);
  if (variable.valid()) {
    variables_.shared[std::string(relative)] = {full_name, variable};
    variables_.by_full_name[full_name] = variable;
  }
  return variable;
}

Value Layer::NullFunction(const Value& x) {
  return BuilderError("Sequential", {Operand(x)}, "a function given as a layer is null; leave it out, or set it first");
}

Value Residual::Apply(const Context& context, Value x) const {
  const Value y = layers.Apply(context, x);
  if (!y.valid() || y.shape() == x.shape()) return Add(x, y);
  return BuilderError("Residual", {Operand(x), Operand(y)}, "the output of the layers has to have the input's shape");
}

Sequential::Sequential(std::vector<Layer> layers) : state_(std::make_shared<State>()) {
  std::map<std::string, int> numbers;
  for (Layer& layer : layers) {
    std::string name = absl::StrCat(layer.kind(), "_", ++numbers[layer.kind()]);
    state_->layers.emplace_back(std::move(name), std::move(layer));
  }
}

Value Sequential::operator()(Scope& scope, Value x, CallOptions options, std::source_location location) const {
  const LocationGuard guard(
      scope.graph(), scope.graph().builder().location.file != nullptr ? SourceLocation() : ToSourceLocation(location));
  if (x.graph() != nullptr && x.graph() != &scope.graph()) {
    const std::string failed_call = ErrorOfCall(x);
    scope.graph().RecordError(absl::InvalidArgumentError(
        !failed_call.empty() ? failed_call
                             : absl::StrCat("Sequential: the input belongs to another graph than the scope, at ",
                                            ToString(scope.graph().builder().location))));
    return Value(&scope.graph(), Port{});
  }
  state_->variables.root = scope.graph().builder().name_prefix;
  return Apply(Context(scope, std::move(options), state_->variables), x);
}

Sequential Sequential::WithOwnVariables() const {
  Sequential other(std::vector<Layer>{});
  other.state_->layers = state_->layers;
  return other;
}

Value Sequential::Apply(const Context& context, Value x) const {
  state_->outputs.clear();
  for (const auto& [name, layer] : state_->layers) {
    Scope scope(context.scope(), name);
    x = layer.Apply(Context(scope, context.options(), context.variables()), x);
    state_->outputs.emplace_back(name, x);
  }
  return x;
}

}  // namespace gradweave::nn
