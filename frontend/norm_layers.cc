#include "gradweave/frontend/norm_layers.h"

#include <optional>

#include "absl/strings/str_cat.h"
#include "gradweave/frontend/layer_checks.h"
#include "gradweave/frontend/number_checks.h"
#include "gradweave/ops/elementwise.h"
#include "gradweave/ops/normalization.h"
#include "gradweave/ops/shape_ops.h"
#include "gradweave/ops/state.h"

namespace gradweave::nn {
namespace {

bool CheckEpsilon(const Context& context, absl::string_view layer, double epsilon) {
  return CheckNumbers(context.scope().graph(), layer, {{"epsilon", epsilon, NumberCheck::kNotNegative}});
}

// Returns the shape of the last axes; nullopt with an error if x has fewer or their sizes are not
// known.
std::optional<Shape> LastShape(absl::string_view layer, const Value& x, int64_t axes) {
  if (!x.valid()) return std::nullopt;
  if (axes < 1 || axes > x.rank()) {
    BuilderError(layer, {Operand(x)}, absl::StrCat("axes is ", axes, " and has to be in [1, ", x.rank(), "]"));
    return std::nullopt;
  }
  Shape shape;
  for (int64_t axis = x.rank() - axes; axis < x.rank(); ++axis) {
    const int64_t size = KnownSize(layer, x, static_cast<int>(axis), 1);
    if (size == 0) return std::nullopt;
    shape.Append(size);
  }
  return shape;
}

// y * scale + offset with new variables [channels].
Value ScaleChannels(const Context& context, const Value& y, int64_t channels) {
  const Value scale = context.Variable("scale", nn::Constant{1}, y.dtype(), {channels});
  const Value offset = context.Variable("offset", nn::Constant{0}, y.dtype(), {channels});
  const Shape shape = ChannelShape(y);
  return Add(Mul(y, gradweave::Reshape(scale, shape)), gradweave::Reshape(offset, shape));
}

}  // namespace

Value BatchNorm::Apply(const Context& context, Value x) const {
  const int64_t channels = KnownSize("BatchNorm", x, 1, 2);
  if (channels == 0 || !CheckNumbers(context.scope().graph(), "BatchNorm",
                                     {{"momentum", momentum, NumberCheck::kFraction},
                                      {"epsilon", epsilon, NumberCheck::kNotNegative}})) {
    return Invalid(x);
  }
  const Shape shape = {channels};
  const Value scale = context.Variable("scale", nn::Constant{1}, x.dtype(), shape);
  const Value offset = context.Variable("offset", nn::Constant{0}, x.dtype(), shape);
  const Value mean = context.Variable("moving_mean", nn::Constant{0}, x.dtype(), shape, {.trainable = false});
  const Value variance = context.Variable("moving_variance", nn::Constant{1}, x.dtype(), shape, {.trainable = false});
  if (!context.training()) return BatchNormInference(x, scale, offset, mean, variance, epsilon);
  const BatchNormResult result = BatchNormTraining(x, scale, offset, epsilon);
  // The unbiased variance is n/(n - 1) times the biased one.
  Integers axes = {0};
  for (int axis = 2; axis < x.rank(); ++axis) axes.push_back(axis);
  const Value count = NumElements(x, axes, x.dtype());
  const Value unbiased = result.variance * (count / (count - 1));
  // A batch of one value per channel has no variance, and an empty one no mean: the averages leave
  // them out.
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
  const std::optional<Shape> shape = LastShape("LayerNorm", x, axes);
  if (!shape.has_value() || !CheckEpsilon(context, "LayerNorm", epsilon)) return Invalid(x);
  return gradweave::LayerNorm(x, context.Variable("scale", nn::Constant{1}, x.dtype(), *shape),
                              context.Variable("offset", nn::Constant{0}, x.dtype(), *shape), axes, epsilon);
}

Value GroupNorm::Apply(const Context& context, Value x) const {
  const int64_t channels = KnownSize("GroupNorm", x, 1, 2);
  if (channels == 0 || !CheckSizes("GroupNorm", x, {{"groups", groups}}) ||
      !CheckDivides("GroupNorm", x, "groups", groups, "channels", channels) ||
      !CheckEpsilon(context, "GroupNorm", epsilon)) {
    return Invalid(x);
  }
  const Value y = gradweave::GroupNorm(x, groups, epsilon);
  return affine && y.valid() ? ScaleChannels(context, y, channels) : y;
}

Value InstanceNorm::Apply(const Context& context, Value x) const {
  const int64_t channels = KnownSize("InstanceNorm", x, 1, 3);
  if (channels == 0 || !CheckEpsilon(context, "InstanceNorm", epsilon)) return Invalid(x);
  Dim count(1);
  for (int axis = 2; axis < x.rank(); ++axis) count = count * x.shape()[axis];
  if (count == Dim(1)) {
    return BuilderError("InstanceNorm", {Operand(x)},
                        "each channel has one value in each sample, so every result would be the offset");
  }
  const Value y = gradweave::GroupNorm(x, channels, epsilon);
  return affine && y.valid() ? ScaleChannels(context, y, channels) : y;
}

Value RmsNorm::Apply(const Context& context, Value x) const {
  const std::optional<Shape> shape = LastShape("RmsNorm", x, axes);
  if (!shape.has_value() || !CheckEpsilon(context, "RmsNorm", epsilon)) return Invalid(x);
  return gradweave::RmsNorm(x, context.Variable("scale", nn::Constant{1}, x.dtype(), *shape), axes, epsilon);
}

}  // namespace gradweave::nn
