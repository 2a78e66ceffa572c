#include "gradweave/frontend/layers.h"

#include "absl/strings/str_cat.h"
#include "gradweave/frontend/number_checks.h"
#include "gradweave/ops/conv.h"
#include "gradweave/ops/elementwise.h"
#include "gradweave/ops/indexing.h"
#include "gradweave/ops/matmul.h"
#include "gradweave/ops/normalization.h"
#include "gradweave/ops/pool.h"
#include "gradweave/ops/shape_ops.h"
#include "gradweave/ops/softmax.h"
#include "gradweave/ops/state.h"

namespace gradweave::nn {
namespace {

Integers Pair(const Size2& size) { return {size.height, size.width}; }

// Returns the size of an axis that determines the shape of variables. Records an error and returns
// 0 if it is unknown.
int64_t KnownSize(absl::string_view layer, const Value& x, int axis, int least_rank) {
  if (!x.valid()) return 0;
  if (x.rank() < least_rank) {
    BuilderError(layer, {Operand(x)}, absl::StrCat("the input has to have at least ", least_rank, " axes"));
    return 0;
  }
  const Dim& dim = x.shape()[axis < 0 ? axis + x.rank() : axis];
  if (!dim.is_known() || dim.size() < 1) {
    BuilderError(layer, {Operand(x)},
                 absl::StrCat("axis ", axis, " of the input is ", dim.ToString(),
                              " and has to be known, because the variables' shapes depend on it"));
    return 0;
  }
  return dim.size();
}

bool CheckPositive(absl::string_view layer, absl::string_view field, const Value& x, int64_t number) {
  if (number >= 1) return true;
  BuilderError(layer, {Operand(x)}, absl::StrCat(field, " is ", number, " and has to be at least 1"));
  return false;
}

Value Invalid(const Value& x) { return Value(x.graph(), Port{}); }

Pool2DOptions PoolOptions(const Size2& pool, const Size2& stride, const Size2& padding) {
  return {.window = Pair(pool), .stride = stride.height == 0 ? Pair(pool) : Pair(stride), .padding = Pair(padding)};
}

}  // namespace

Value Context::Variable(absl::string_view name, const Initializer& initializer, DType dtype, const Shape& shape,
                        VariableOptions options) const {
  Graph& graph = scope_.graph();
  const TensorType type{dtype, shape};
  auto with_type = [&](absl::string_view full_name, const Value& value, absl::string_view origin) {
    if (!value.valid() || value.type() == type) return value;
    graph.RecordError(
        absl::InvalidArgumentError(absl::StrCat("layer variable '", full_name, "' is ", value.type().ToString(),
                                                " from ", origin, ", and this call needs ", type.ToString())));
    return Value(&graph, Port{});
  };
  const std::string prefix = graph.builder().name_prefix;
  const std::string full_name = absl::StrCat(prefix, name);
  const absl::string_view relative = absl::string_view(full_name).substr(variables_.root.size());
  // Another graph may be gone: its variables are not looked at.
  const auto found = variables_.shared.find(std::string(relative));
  const bool shared = found != variables_.shared.end() && found->second.value.graph() == &graph &&
                      graph.FindNamed(found->second.full_name) == found->second.value.port().node;
  const std::string& variable_name = shared ? found->second.full_name : full_name;
  if (const auto given = options_.values.find(variable_name); given != options_.values.end()) {
    return with_type(variable_name, given->second, "the values of this call");
  }
  if (shared) return with_type(variable_name, found->second.value, "an earlier call");
  const Value variable = scope_.Variable(name, InitialValue(scope_, initializer, dtype, shape), options);
  if (variable.valid()) {
    variables_.shared[std::string(relative)] = {full_name, variable};
    variables_.by_full_name[full_name] = variable;
  }
  return variable;
}

Value Conv2D::Apply(const Context& context, Value x) const {
  const int64_t inputs = KnownSize("Conv2D", x, 1, 4);
  if (inputs == 0 || !CheckPositive("Conv2D", "channels", x, channels) || !CheckPositive("Conv2D", "groups", x, groups))
    return Invalid(x);
  const Value filter = context.Variable("filter", filter_initializer, x.dtype(),
                                        {channels, inputs / groups, kernel.height, kernel.width});
  const Conv2DOptions options{
      .stride = Pair(stride), .padding = Pair(padding), .dilation = Pair(dilation), .groups = groups};
  if (!bias) return gradweave::Conv2D(x, filter, options);
  return gradweave::Conv2D(x, filter, context.Variable("bias", bias_initializer, x.dtype(), {channels}), options);
}

Value ConvTranspose2D::Apply(const Context& context, Value x) const {
  const int64_t inputs = KnownSize("ConvTranspose2D", x, 1, 4);
  if (inputs == 0 || !CheckPositive("ConvTranspose2D", "channels", x, channels)) return Invalid(x);
  const Value filter =
      context.Variable("filter", filter_initializer, x.dtype(), {inputs, channels, kernel.height, kernel.width});
  const ConvTranspose2DOptions options{
      .stride = Pair(stride), .padding = Pair(padding), .output_padding = Pair(output_padding)};
  if (!bias) return gradweave::ConvTranspose2D(x, filter, options);
  return gradweave::ConvTranspose2D(x, filter, context.Variable("bias", bias_initializer, x.dtype(), {channels}),
                                    options);
}

Value Dense::Apply(const Context& context, Value x) const {
  const int64_t inputs = KnownSize("Dense", x, -1, 2);
  if (inputs == 0 || !CheckPositive("Dense", "features", x, features)) return Invalid(x);
  const Value y = MatMul(x, context.Variable("weight", weight_initializer, x.dtype(), {inputs, features}));
  return bias ? Add(y, context.Variable("bias", bias_initializer, x.dtype(), {features})) : y;
}

Value AvgPool2D::Apply(const Context&, Value x) const {
  Pool2DOptions options = PoolOptions(pool, stride, padding);
  options.count_padding = count_padding;
  return gradweave::AvgPool2D(x, options);
}
Value MaxPool2D::Apply(const Context&, Value x) const {
  return gradweave::MaxPool2D(x, PoolOptions(pool, stride, padding));
}
Value GlobalAvgPool::Apply(const Context&, Value x) const { return gradweave::GlobalAvgPool(x); }
Value Flatten::Apply(const Context&, Value x) const { return gradweave::Flatten(x); }

Value Dropout::Apply(const Context& context, Value x) const {
  return context.training() ? gradweave::Dropout(x, rate) : x;
}

Value BatchNorm::Apply(const Context& context, Value x) const {
  const int64_t channels = KnownSize("BatchNorm", x, 1, 2);
  if (channels == 0) return Invalid(x);
  const Shape shape = {channels};
  const Value scale = context.Variable("scale", nn::Constant{1}, x.dtype(), shape);
  const Value offset = context.Variable("offset", nn::Constant{0}, x.dtype(), shape);
  const Value mean = context.Variable("moving_mean", nn::Constant{0}, x.dtype(), shape, {.trainable = false});
  const Value variance = context.Variable("moving_variance", nn::Constant{1}, x.dtype(), shape, {.trainable = false});
  if (!context.training()) return BatchNormInference(x, scale, offset, mean, variance, epsilon);
  if (!CheckNumbers(context.scope().graph(), "BatchNorm", {{"momentum", momentum, NumberCheck::kFraction}})) {
    return Invalid(x);
  }
  const BatchNormResult result = BatchNormTraining(x, scale, offset, epsilon);
  // The unbiased variance is n/(n - 1) times the biased one.
  Integers axes = {0};
  for (int axis = 2; axis < x.rank(); ++axis) axes.push_back(axis);
  const Value count = NumElements(x, axes, x.dtype());
  const Value unbiased = result.variance * (count / (count - 1));
  // A batch of one value per channel has no variance, and an empty one no mean: the averages leave them out.
  const Value has_variance = Greater(count, 1);
  auto average = [&](const Value& moving, const Value& of_batch) {
    const Value next = moving * momentum + of_batch * (1 - momentum);
    Assign(moving, Where(has_variance, next, moving), {.with_training = true, .call = result.y});
  };
  average(mean, result.mean);
  average(variance, unbiased);
  return result.y;
}

Value LayerNorm::Apply(const Context& context, Value x) const {
  if (!x.valid()) return x;
  if (axes < 1 || axes > x.rank()) {
    return BuilderError("LayerNorm", {Operand(x)},
                        absl::StrCat("axes is ", axes, " and has to be in [1, ", x.rank(), "]"));
  }
  Shape shape;
  for (int64_t axis = x.rank() - axes; axis < x.rank(); ++axis) {
    const int64_t size = KnownSize("LayerNorm", x, static_cast<int>(axis), 1);
    if (size == 0) return Invalid(x);
    shape.Append(size);
  }
  return gradweave::LayerNorm(x, context.Variable("scale", nn::Constant{1}, x.dtype(), shape),
                              context.Variable("offset", nn::Constant{0}, x.dtype(), shape), axes, epsilon);
}

Value Embedding::Apply(const Context& context, Value x) const {
  if (!CheckPositive("Embedding", "vocabulary", x, vocabulary) || !CheckPositive("Embedding", "features", x, features))
    return Invalid(x);
  return Gather(context.Variable("table", initializer, dtype, {vocabulary, features}), x);
}

Value Sigmoid::Apply(const Context&, Value x) const { return gradweave::Sigmoid(x); }
Value Tanh::Apply(const Context&, Value x) const { return gradweave::Tanh(x); }
Value Relu::Apply(const Context&, Value x) const { return gradweave::Relu(x); }
Value LeakyRelu::Apply(const Context&, Value x) const { return gradweave::LeakyRelu(x, slope); }
Value Elu::Apply(const Context&, Value x) const { return gradweave::Elu(x, alpha); }
Value Selu::Apply(const Context&, Value x) const { return gradweave::Selu(x); }
Value Gelu::Apply(const Context&, Value x) const { return gradweave::Gelu(x); }
Value Softplus::Apply(const Context&, Value x) const { return gradweave::Softplus(x); }
Value Softmax::Apply(const Context&, Value x) const { return gradweave::Softmax(x, axis); }

Value Residual::Apply(const Context& context, Value x) const { return Add(x, layers.Apply(context, x)); }

Sequential::Sequential(std::initializer_list<Layer> layers) : state_(std::make_shared<State>()) {
  std::map<std::string, int> numbers;
  for (const Layer& layer : layers) {
    state_->layers.emplace_back(absl::StrCat(layer.kind(), "_", ++numbers[layer.kind()]), layer);
  }
}

Value Sequential::operator()(Scope& scope, Value x, CallOptions options, std::source_location location) const {
  const LocationGuard guard(
      scope.graph(), scope.graph().builder().location.file != nullptr ? SourceLocation() : ToSourceLocation(location));
  state_->variables.root = scope.graph().builder().name_prefix;
  return Apply(Context(scope, std::move(options), state_->variables), x);
}

Sequential Sequential::WithOwnVariables() const {
  Sequential other({});
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
