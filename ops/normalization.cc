#include "gradweave/ops/normalization.h"

#include <cmath>

#include "absl/strings/str_cat.h"
#include "gradweave/ops/body_builder.h"
#include "gradweave/ops/composition.h"
#include "gradweave/ops/elementwise.h"
#include "gradweave/ops/pool.h"
#include "gradweave/ops/random.h"
#include "gradweave/ops/reduction.h"
#include "gradweave/ops/shape_ops.h"
#include "gradweave/ops/state.h"

namespace gradweave {
namespace {

// Checks everything but shapes. Records an error and returns false if a check fails.
bool CheckOperands(absl::string_view name, std::initializer_list<Operand> operands, double epsilon) {
  const absl::Span<const Operand> all(operands.begin(), operands.size());
  if (!AllValid(name, all)) return false;
  for (const Operand& operand : operands) {
    if (operand.is_number() || !IsReal(operand.dtype()) || operand.dtype() != all[0].dtype()) {
      BuilderError(name, all, "the operands have to be values of one floating dtype, and not numbers");
      return false;
    }
    if (!BelongTogether({all[0], operand})) {
      BuilderError(name, all, "the operands belong to different graphs");
      return false;
    }
  }
  if (!(epsilon >= 0 && std::isfinite(epsilon))) {
    BuilderError(name, all, absl::StrCat("epsilon is ", epsilon, " and has to be a number of at least 0"));
    return false;
  }
  return true;
}

// The result of a composition whose operands were refused.
Value Refused(absl::string_view name, const Operand& x) {
  return x.is_number() ? NeedsValue(name, x) : Value(x.graph(), Port{});
}

// Halves as float32, in which means of many elements lose nothing and squares are finite.
Value Wide(const Operand& x) { return IsHalf(x.dtype()) ? Cast(x, kFloat32) : x.value(); }

// The shape that makes one value per channel broadcast with x: [channels, 1, 1].
Shape ChannelShape(const Operand& x) {
  Shape shape = {x.shape()[1]};
  for (int axis = 2; axis < x.rank(); ++axis) shape.Append(Dim(1));
  return shape;
}

// Returns true if x has channels and each other operand has one value per channel. Records an error
// otherwise.
bool CheckChannels(absl::string_view name, const Operand& x, std::initializer_list<Operand> per_channel) {
  if (x.rank() < 2) {
    BuilderError(name, {x}, "x has to be [batch, channels, ...]");
    return false;
  }
  for (const Operand& operand : per_channel) {
    if (operand.shape() == Shape{x.shape()[1]}) continue;
    BuilderError(name, {x, operand},
                 absl::StrCat("scale, offset, mean and variance have to have shape [", x.shape()[1].ToString(),
                              "], one number for each channel of x"));
    return false;
  }
  return true;
}

// Returns the last `axes` axes of x. Records an error if x has fewer, or if a parameter's shape is
// not that of these axes.
std::optional<Integers> LastAxes(absl::string_view name, const Operand& x, int64_t axes,
                                 std::initializer_list<Operand> parameters) {
  if (axes < 1 || axes > x.rank()) {
    BuilderError(name, {x}, absl::StrCat("axes is ", axes, " and has to be in [1, ", x.rank(), "], the rank of x"));
    return std::nullopt;
  }
  Integers last;
  Shape expected;
  for (int64_t axis = x.rank() - axes; axis < x.rank(); ++axis) {
    last.push_back(axis);
    expected.Append(x.shape()[static_cast<int>(axis)]);
  }
  for (const Operand& parameter : parameters) {
    if (parameter.shape() == expected) continue;
    BuilderError(
        name, {x, parameter},
        absl::StrCat("the parameters have to have shape ", expected.ToString(), ", the shape of the last axes of x"));
    return std::nullopt;
  }
  return last;
}

// Returns (x - mean) * scale/sqrt(variance + epsilon) + offset. All shapes broadcast with x.
Value Normalize(const Value& x, const Value& mean, const Value& variance, const Value& scale, const Value& offset,
                double epsilon) {
  return Add(Mul(Sub(x, mean), Mul(scale, Rsqrt(Add(variance, epsilon)))), offset);
}

}  // namespace

BatchNormResult BatchNormTraining(Operand x, Operand scale, Operand offset, double epsilon) {
  if (!CheckOperands("BatchNorm", {x, scale, offset}, epsilon) || !CheckChannels("BatchNorm", x, {scale, offset})) {
    const Value invalid = Refused("BatchNorm", x);
    return {invalid, invalid, invalid};
  }
  Integers axes = {0};
  for (int axis = 2; axis < x.rank(); ++axis) axes.push_back(axis);
  Dim count(1);
  for (int64_t axis : axes) count = count * x.shape()[static_cast<int>(axis)];
  if (count == Dim(1)) {
    BuilderError("BatchNorm", {x},
                 "training needs more than one value per channel, and x has one: every result would be the offset; "
                 "use a larger batch, or .training = false");
    const Value invalid(x.graph(), Port{});
    return {invalid, invalid, invalid};
  }
  const CallLocation location(x);
  if (IsHalf(x.dtype())) {
    const BatchNormResult wide = BatchNormTraining(Wide(x), Wide(scale), Wide(offset), epsilon);
    return {Cast(wide.y, x.dtype()), Cast(wide.mean, x.dtype()), Cast(wide.variance, x.dtype())};
  }
  const Shape channels = ChannelShape(x);
  const Value mean = Mean(x, {.axes = axes});
  const Value centered = Sub(x, Reshape(mean, channels));
  const Value variance = Mean(Square(centered), {.axes = axes});
  const Value factor = Mul(scale, Rsqrt(Add(variance, epsilon)));
  const Value y = Add(Mul(centered, Reshape(factor, channels)), Reshape(offset, channels));
  return {y, mean, variance};
}

Value BatchNormInference(Operand x, Operand scale, Operand offset, Operand mean, Operand variance, double epsilon) {
  if (!CheckOperands("BatchNorm", {x, scale, offset, mean, variance}, epsilon) ||
      !CheckChannels("BatchNorm", x, {scale, offset, mean, variance})) {
    return Refused("BatchNorm", x);
  }
  const CallLocation location(x);
  if (IsHalf(x.dtype())) {
    return Cast(BatchNormInference(Wide(x), Wide(scale), Wide(offset), Wide(mean), Wide(variance), epsilon), x.dtype());
  }
  const Shape channels = ChannelShape(x);
  return Normalize(x.value(), Reshape(mean, channels), Reshape(variance, channels), Reshape(scale, channels),
                   Reshape(offset, channels), epsilon);
}

Value LayerNorm(Operand x, Operand scale, Operand offset, int64_t axes, double epsilon) {
  if (!CheckOperands("LayerNorm", {x, scale, offset}, epsilon)) return Refused("LayerNorm", x);
  const std::optional<Integers> last = LastAxes("LayerNorm", x, axes, {scale, offset});
  if (!last.has_value()) return Value(x.graph(), Port{});
  const CallLocation location(x);
  if (IsHalf(x.dtype())) return Cast(LayerNorm(Wide(x), Wide(scale), Wide(offset), axes, epsilon), x.dtype());
  const Value centered = Sub(x, Mean(x, {.axes = *last, .keep_dims = true}));
  const Value variance = Mean(Square(centered), {.axes = *last, .keep_dims = true});
  return Add(Mul(Mul(centered, Rsqrt(Add(variance, epsilon))), scale), offset);
}

Value GroupNorm(Operand x, int64_t groups, double epsilon) {
  if (!CheckOperands("GroupNorm", {x}, epsilon)) return Refused("GroupNorm", x);
  if (x.rank() < 2) return BuilderError("GroupNorm", {x}, "x has to be [batch, channels, ...]");
  const std::optional<Dim> channels = groups < 1 ? std::nullopt : DivideExactly(x.shape()[1], Dim(groups));
  if (!channels.has_value()) {
    return BuilderError("GroupNorm", {x},
                        absl::StrCat("groups is ", groups, " and has to be at least 1 and divide the ",
                                     x.shape()[1].ToString(), " channels of x"));
  }
  Dim count = *channels;
  for (int axis = 2; axis < x.rank(); ++axis) count = count * x.shape()[axis];
  if (count == Dim(1)) {
    return BuilderError("GroupNorm", {x}, "each group has one value in each sample, so every result would be 0");
  }
  const CallLocation location(x);
  if (IsHalf(x.dtype())) return Cast(GroupNorm(Wide(x), groups, epsilon), x.dtype());
  const Value grouped = Reshape(x, {x.shape()[0], groups, count});
  const Value centered = Sub(grouped, Mean(grouped, {.axes = {2}, .keep_dims = true}));
  const Value variance = Mean(Square(centered), {.axes = {2}, .keep_dims = true});
  return Reshape(Mul(centered, Rsqrt(Add(variance, epsilon))), x.shape());
}

Value GroupNorm(Operand x, int64_t groups, Operand scale, Operand offset, double epsilon) {
  if (!CheckOperands("GroupNorm", {x, scale, offset}, epsilon) || !CheckChannels("GroupNorm", x, {scale, offset}))
    return Refused("GroupNorm", x);
  const CallLocation location(x);
  if (IsHalf(x.dtype())) return Cast(GroupNorm(Wide(x), groups, Wide(scale), Wide(offset), epsilon), x.dtype());
  const Value normal = GroupNorm(x, groups, epsilon);
  if (!normal.valid()) return normal;
  const Shape channels = ChannelShape(x);
  return Add(Mul(normal, Reshape(scale, channels)), Reshape(offset, channels));
}

Value LocalResponseNorm(Operand x, LocalResponseOptions options) {
  if (!CheckOperands("LocalResponseNorm", {x}, 0)) return Refused("LocalResponseNorm", x);
  const bool finite = std::isfinite(options.alpha) && std::isfinite(options.beta) && std::isfinite(options.bias);
  if (x.rank() < 2 || options.size < 1 || !finite) {
    return BuilderError("LocalResponseNorm", {x},
                        "x has to be [batch, channels, ...], the size at least 1, and the other numbers finite");
  }
  const CallLocation location(x);
  if (IsHalf(x.dtype())) return Cast(LocalResponseNorm(Wide(x), options), x.dtype());
  const int64_t before = (options.size - 1) / 2;
  Dim pixels(1);
  for (int axis = 2; axis < x.rank(); ++axis) pixels = pixels * x.shape()[axis];
  const Value squares = Reshape(Square(x), {x.shape()[0], 1, x.shape()[1], pixels});
  const Value means = AvgPool2D(squares, {.window = {options.size, 1},
                                          .stride = {1, 1},
                                          .padding = {before, options.size - 1 - before, 0, 0},
                                          .count_padding = true});
  if (!means.valid()) return means;
  return Div(x, Pow(Add(Mul(Reshape(means, x.shape()), options.alpha), options.bias), options.beta));
}

Value MeanVarianceNorm(Operand x, const Integers& axes, double epsilon) {
  if (!CheckOperands("MeanVarianceNorm", {x}, epsilon)) return Refused("MeanVarianceNorm", x);
  const CallLocation location(x);
  if (IsHalf(x.dtype())) return Cast(MeanVarianceNorm(Wide(x), axes, epsilon), x.dtype());
  const Value mean = Mean(x, {.axes = axes, .keep_dims = true});
  if (!mean.valid()) return mean;
  const Value centered = Sub(x, mean);
  // The gradient of the deviation is 0 where the deviation is.
  const Value variance = Mean(Square(centered), {.axes = axes, .keep_dims = true}), is_zero = Equal(variance, 0);
  const Value deviation = Where(is_zero, 0, Sqrt(Where(is_zero, 1, variance)));
  return Div(centered, Add(deviation, epsilon));
}

Value LpNormalize(Operand x, int64_t axis, int64_t p) {
  if (!CheckOperands("LpNormalize", {x}, 0)) return Refused("LpNormalize", x);
  if (p != 1 && p != 2) return BuilderError("LpNormalize", {x}, absl::StrCat("p is ", p, " and has to be 1 or 2"));
  const CallLocation location(x);
  if (IsHalf(x.dtype())) return Cast(LpNormalize(Wide(x), axis, p), x.dtype());
  const ReductionOptions along = {.axes = {axis}, .keep_dims = true};
  const Value norm = p == 1 ? SumOfSizes(x, along) : Norm(x, along);
  if (!norm.valid()) return norm;
  return Div(x, Where(Equal(norm, 0), 1, norm));
}

Value RmsNorm(Operand x, Operand scale, int64_t axes, double epsilon) {
  if (!CheckOperands("RmsNorm", {x, scale}, epsilon)) return Refused("RmsNorm", x);
  const std::optional<Integers> last = LastAxes("RmsNorm", x, axes, {scale});
  if (!last.has_value()) return Value(x.graph(), Port{});
  const CallLocation location(x);
  if (IsHalf(x.dtype())) return Cast(RmsNorm(Wide(x), Wide(scale), axes, epsilon), x.dtype());
  return Mul(Mul(x, Rsqrt(Add(Mean(Square(x), {.axes = *last, .keep_dims = true}), epsilon))), scale);
}

Value Dropout(Operand x, double rate, std::optional<int64_t> seed) {
  if (!CheckOperands("Dropout", {x}, 0)) return Refused("Dropout", x);
  if (!(rate >= 0 && rate < 1)) {
    return BuilderError("Dropout", {x}, absl::StrCat("the rate is ", rate, " and has to be in [0, 1)"));
  }
  if (rate == 0) return x.value();
  const CallLocation location(x);
  const Value kept = GreaterEqual(RandomUniformLike(Wide(x), 0, 1, seed), rate);
  return Where(kept, Mul(x, 1 / (1 - rate)), 0);
}

}  // namespace gradweave
