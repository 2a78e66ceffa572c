// ONNX's normalizations, and Dropout.
#include "gradweave/ops/normalization.h"

#include "gradweave/frontend/onnx/importer.h"
#include "gradweave/graph/status_macros.h"
#include "gradweave/ops/elementwise.h"
#include "gradweave/ops/random.h"
#include "gradweave/ops/reduction.h"
#include "gradweave/ops/shape_ops.h"

namespace gradweave::onnx {
namespace {

absl::Status BatchNormalization(Call& call) {
  if (call.Int("spatial", 1) == 0) return call.Refuse("statistics per element (spatial = 0) are not imported");
  const Value x = call.In(0), scale = call.In(1), offset = call.In(2);
  call.Ignore({"is_test", "training_mode"});
  // Training does not change the statistics.
  call.item(3).trainable = call.item(4).trainable = false;
  const Value mean = call.In(3), variance = call.In(4);
  const double epsilon = call.Float("epsilon", 1e-5), momentum = call.Float("momentum", 0.9);
  const bool training = call.opset() >= 14 ? call.Int("training_mode", 0) != 0
                                           : call.Wants(1) || (call.opset() < 7 && call.Int("is_test", 0) == 0);
  if (!training) {
    call.Set(0, BatchNormInference(x, scale, offset, mean, variance, epsilon));
    return absl::OkStatus();
  }
  const BatchNormResult result = BatchNormTraining(x, scale, offset, epsilon);
  call.Set(0, result.y);
  call.Set(1, Add(Mul(mean, momentum), Mul(result.mean, 1 - momentum)));
  call.Set(2, Add(Mul(variance, momentum), Mul(result.variance, 1 - momentum)));
  call.Set(3, result.mean);
  call.Set(4, result.variance);
  return absl::OkStatus();
}

absl::Status InstanceNormalization(Call& call) {
  const Value x = call.In(0);
  if (x.rank() < 3 || !SizeAt(x.shape(), 1).is_known()) return call.Wrong("its input needs channels of known number");
  call.Set(0, GroupNorm(x, SizeAt(x.shape(), 1).size(), call.In(1), call.In(2), call.Float("epsilon", 1e-5)));
  return absl::OkStatus();
}

absl::Status GroupNormalization(Call& call) {
  const Value x = call.In(0);
  const int64_t groups = call.Int("num_groups", 0);
  if (x.rank() < 2 || !SizeAt(x.shape(), 1).is_known() || groups < 1)
    return call.Wrong("it needs groups, and channels of known number");
  const int64_t channels = SizeAt(x.shape(), 1).size();
  Value scale = call.In(1), offset = call.In(2);
  if (call.opset() < 21 && channels % groups == 0) {
    // One number for each group.
    auto per_channel = [&](Value value) {
      return Reshape(BroadcastTo(Reshape(value, {groups, 1}), {groups, channels / groups}), {channels});
    };
    scale = per_channel(scale);
    offset = per_channel(offset);
  }
  call.Ignore({"stash_type"});
  call.Set(0, GroupNorm(x, groups, scale, offset, call.Float("epsilon", 1e-5)));
  return absl::OkStatus();
}

absl::Status LayerNormalization(Call& call) {
  const Value x = call.In(0);
  GW_ASSIGN_OR_RETURN(const int64_t axis, call.Axis(call.Int("axis", -1), x.rank()));
  const double epsilon = call.Float("epsilon", 1e-5);
  call.Ignore({"stash_type"});  // float32 is the least that is computed with.
  Integers axes;
  for (int64_t i = axis; i < x.rank(); ++i) axes.push_back(i);
  const bool plain = call.Has(2) && !call.Wants(1) && !call.Wants(2) && call.Type(1).shape == call.Type(2).shape &&
                     call.Rank(1) == static_cast<int64_t>(axes.size());
  if (plain) {
    call.Set(0, LayerNorm(x, call.In(1), call.In(2), static_cast<int64_t>(axes.size()), epsilon));
    return absl::OkStatus();
  }
  const Value mean = Mean(x, {.axes = axes, .keep_dims = true}), centred = Sub(x, mean);
  const Value inverse = Rsqrt(Add(Mean(Square(centred), {.axes = axes, .keep_dims = true}), epsilon));
  const Value y = Mul(Mul(centred, inverse), call.In(1));
  call.Set(0, call.Has(2) ? Add(y, call.In(2)) : y);
  call.Set(1, mean);
  call.Set(2, inverse);
  return absl::OkStatus();
}

absl::Status RmsNormalization(Call& call) {
  const Value x = call.In(0);
  GW_ASSIGN_OR_RETURN(const int64_t axis, call.Axis(call.Int("axis", -1), x.rank()));
  call.Ignore({"stash_type"});  // float32 is the least that is computed with.
  const double epsilon = call.Float("epsilon", 1e-5);
  if (call.Rank(1) == x.rank() - axis && !call.Wants(1)) {
    call.Set(0, RmsNorm(x, call.In(1), x.rank() - axis, epsilon));
    return absl::OkStatus();
  }
  Integers axes;
  for (int64_t i = axis; i < x.rank(); ++i) axes.push_back(i);
  const Value inverse = Rsqrt(Add(Mean(Square(x), {.axes = axes, .keep_dims = true}), epsilon));
  call.Set(0, Mul(Mul(x, inverse), call.In(1)));
  call.Set(1, inverse);
  return absl::OkStatus();
}

absl::Status LpNormalization(Call& call) {
  call.Set(0, LpNormalize(call.In(0), call.Int("axis", -1), call.Int("p", 2)));
  return absl::OkStatus();
}

absl::Status Lrn(Call& call) {
  call.Set(0, LocalResponseNorm(call.In(0), {.size = call.Int("size", 0),
                                             .alpha = call.Float("alpha", 1e-4),
                                             .beta = call.Float("beta", 0.75),
                                             .bias = call.Float("bias", 1)}));
  return absl::OkStatus();
}

absl::Status MeanVarianceNormalization(Call& call) {
  call.Set(0, MeanVarianceNorm(call.In(0), call.Ints("axes").value_or(Integers{0, 2, 3})));
  return absl::OkStatus();
}

// In training, the mode and the rate are inputs from opset 12 on.
absl::Status DropoutRow(Call& call) {
  const Value x = call.In(0);
  call.Ignore({"seed", "is_test"});
  double rate = call.Float("ratio", 0.5), training = 0;
  if (call.Has(1)) {
    GW_ASSIGN_OR_RETURN(rate, call.KnownNumber(1));
  }
  if (call.Has(2)) {
    GW_ASSIGN_OR_RETURN(training, call.KnownNumber(2));
  }
  if (call.opset() < 7) training = call.Int("is_test", 0) == 0 ? 1 : 0;
  const DType mask_dtype = call.opset() < 10 ? x.dtype() : kBool;
  if (training == 0 || rate == 0) {
    call.Set(0, &call.item(0));
    call.Set(1, call.scope().Full(1, x.shape(), mask_dtype));
    return absl::OkStatus();
  }
  if (!(rate >= 0 && rate < 1)) return call.Wrong("its ratio has to be in [0, 1)");
  RandomOptions options{.dtype = x.dtype()};
  if (call.Find("seed") != nullptr) options.seed = call.Int("seed", 0);
  const Value kept = GreaterEqual(RandomUniform(call.scope(), x.shape(), 0, 1, options), rate);
  call.Set(0, Where(kept, Mul(x, 1 / (1 - rate)), 0));
  call.Set(1, mask_dtype == kBool ? kept : Cast(kept, mask_dtype));
  return absl::OkStatus();
}

constexpr OpRow kRows[] = {
    {"BatchNormalization", 1, 5, BatchNormalization},
    {"Dropout", 1, 1, DropoutRow},
    {"GroupNormalization", 18, 3, GroupNormalization},
    {"InstanceNormalization", 1, 3, InstanceNormalization},
    {"LRN", 1, 1, Lrn},
    {"LayerNormalization", 17, 2, LayerNormalization},
    {"LpNormalization", 1, 1, LpNormalization},
    {"MeanVarianceNormalization", 9, 1, MeanVarianceNormalization},
    {"RMSNormalization", 23, 2, RmsNormalization},
    {"SimplifiedLayerNormalization", 1, 2, RmsNormalization},  // ONNX Runtime's, in the default domain.
};

}  // namespace

absl::Span<const OpRow> NormalizationRows() { return kRows; }

}  // namespace gradweave::onnx
