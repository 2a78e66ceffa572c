#include "gradweave/frontend/metrics.h"

#include <cmath>
#include <limits>
#include <optional>

#include "absl/strings/str_cat.h"
#include "gradweave/frontend/losses.h"
#include "gradweave/ops/composition.h"
#include "gradweave/ops/elementwise.h"
#include "gradweave/ops/indexing.h"
#include "gradweave/ops/matmul.h"
#include "gradweave/ops/reduction.h"
#include "gradweave/ops/shape_ops.h"
#include "gradweave/ops/state.h"

namespace gradweave {
namespace {

// All nodes of a metric get the line of the user's call. Does nothing if there is no graph.
class MetricLocation {
 public:
  explicit MetricLocation(const Operand& operand) {
    Graph* graph = operand.graph();
    if (graph != nullptr && graph->builder().location.file == nullptr) guard_.emplace(*graph, operand.location());
  }

 private:
  std::optional<LocationGuard> guard_;
};

double Scalar(const Tensor& tensor) { return tensor.ToDouble(); }

// The sum of one value, divided by the sum of another.
Metric Quotient(std::string name, Value numerator, Value denominator) {
  return {.name = std::move(name),
          .sums = {{std::move(numerator)}, {std::move(denominator)}},
          .result = [](absl::Span<const Tensor> sums, double) {
            return Tensor::Scalar(Scalar(sums[0]) / Scalar(sums[1]));
          }};
}

// The sum of `total`, divided by the number of elements of `of`. If that is known for a sample, it
// needs no sum of its own.
Metric PerElement(std::string name, Value total, const Value& of) {
  if (!of.valid() || of.rank() == 0) return Quotient(std::move(name), std::move(total), Value(of.graph(), Port{}));
  double of_sample = 1;
  for (int axis = 1; axis < of.rank(); ++axis) {
    if (!of.shape()[axis].is_known()) return Quotient(std::move(name), std::move(total), NumElements(of, {}, kFloat64));
    of_sample *= static_cast<double>(of.shape()[axis].size());
  }
  return {.name = std::move(name),
          .sums = {{std::move(total)}},
          .result = [of_sample](absl::Span<const Tensor> sums, double samples) {
            return Tensor::Scalar(Scalar(sums[0]) / (samples * of_sample));
          }};
}

// Checks that the operands are values of one type with a first axis of samples; records an error
// otherwise.
bool SameTypes(absl::string_view name, const Operand& a, const Operand& b) {
  if (!AllValid(name, {a, b})) return false;
  if (a.is_value() && b.is_value() && a.value().type() == b.value().type() && a.rank() >= 1) return true;
  BuilderError(name, {a, b}, "both have to have the same type, with a first axis for the samples");
  return false;
}

// A metric that cannot be computed; the graph has the error.
Metric Invalid(std::string name, const Operand& operand) {
  return {.name = std::move(name), .sums = {{Value(operand.graph(), Port{})}}, .result = nullptr};
}

// Checks that logits are [..., classes] and labels integers [...].
bool LogitsAndLabels(absl::string_view name, const Operand& logits, const Operand& labels, bool only_rows = false) {
  if (!AllValid(name, {logits, labels})) return false;
  bool fit = logits.is_value() && labels.is_value() && IsFloating(logits.dtype()) && IsInteger(labels.dtype()) &&
             logits.rank() == labels.rank() + 1 && labels.rank() >= 1 && (!only_rows || labels.rank() == 1) &&
             logits.shape()[labels.rank()].is_known();
  for (int axis = 0; fit && axis < labels.rank(); ++axis) fit = logits.shape()[axis] == labels.shape()[axis];
  if (fit) return true;
  BuilderError(name, {logits, labels},
               only_rows ? "the operands have to be floating logits [batch, classes] and integer labels [batch]"
                         : "the operands have to be floating logits [..., classes] and integer labels [...]");
  return false;
}

Value Doubles(const Operand& operand) { return Cast(operand, kFloat64); }

}  // namespace

double MetricValues::operator[](absl::string_view name) const {
  const Tensor* value = Find(name);
  return value == nullptr ? std::numeric_limits<double>::quiet_NaN() : value->ToDouble();
}

const Tensor* MetricValues::Find(absl::string_view name) const {
  for (const auto& [known, value] : all_) {
    if (known == name) return &value;
  }
  return nullptr;
}

void MetricValues::Set(absl::string_view name, Tensor value) {
  for (auto& [known, old] : all_) {
    if (known != name) continue;
    old = std::move(value);
    return;
  }
  all_.emplace_back(name, std::move(value));
}

namespace metrics {

Metric Accuracy(Operand logits, Operand labels) {
  if (!LogitsAndLabels("Accuracy", logits, labels)) return Invalid("accuracy", logits);
  if (logits.shape()[labels.rank()].size() < 2) {
    BuilderError("Accuracy", {logits, labels},
                 "the logits have to have two classes at least; BinaryAccuracy takes one number for each sample");
    return Invalid("accuracy", logits);
  }
  const MetricLocation location(logits);
  return PerElement("accuracy", nn::CorrectCount(logits, labels), labels.value());
}

Metric BinaryAccuracy(Operand logits, Operand targets) {
  if (!AllValid("BinaryAccuracy", {logits, targets})) return Invalid("accuracy", logits);
  if (!logits.is_value() || !targets.is_value() || !IsFloating(logits.dtype()) || !kNumeric.Contains(targets.dtype()) ||
      logits.rank() < 1 || !(logits.shape() == targets.shape())) {
    BuilderError("BinaryAccuracy", {logits, targets},
                 "the operands have to be floating logits [batch, ...] and numeric targets of the same shape");
    return Invalid("accuracy", logits);
  }
  const MetricLocation location(logits);
  const Value is_target = Doubles(targets) > 0.5;
  const Value correct = (is_target && logits > 0) || (!is_target && logits <= 0);
  return PerElement("accuracy", gradweave::Sum(Cast(correct, kFloat32)), targets.value());
}

Metric TopKAccuracy(Operand logits, Operand labels, int64_t k) {
  std::string name = absl::StrCat("top-", k, " accuracy");
  if (!LogitsAndLabels("TopKAccuracy", logits, labels)) return Invalid(std::move(name), logits);
  const int64_t classes = logits.shape()[labels.rank()].size();
  if (k < 1 || k > classes) {
    BuilderError("TopKAccuracy", {logits, labels}, absl::StrCat("k is ", k, " and has to be in [1, ", classes, "]"));
    return Invalid(std::move(name), logits);
  }
  const MetricLocation location(logits);
  Tensor numbers(kInt64, {classes});
  for (int64_t i = 0; i < classes; ++i) numbers.mutable_data<int64_t>()[i] = i;
  const Value index = ConstantLike(logits.value(), numbers, logits.location());
  const Value label = ExpandDims(Cast(labels, kInt64), {-1});
  const Value at_label =
      gradweave::Max(Where(Equal(index, label), logits, FullLike(logits, -std::numeric_limits<double>::infinity())),
                     {.axes = {-1}, .keep_dims = true});
  const Value ahead = LogicalOr(Greater(logits, at_label), LogicalAnd(Equal(logits, at_label), Less(index, label)));
  const Value rank = gradweave::Sum(Cast(ahead, kFloat32), {.axes = {-1}, .keep_dims = true});
  const Value correct = LogicalAnd(Less(rank, static_cast<double>(k)), Equal(at_label, at_label));
  return PerElement(std::move(name), gradweave::Sum(Cast(correct, kFloat32)), labels.value());
}

Metric ConfusionMatrix(Operand logits, Operand labels) {
  if (!LogitsAndLabels("ConfusionMatrix", logits, labels, /*only_rows=*/true)) return Invalid("confusion", logits);
  const MetricLocation location(logits);
  const int64_t classes = logits.shape()[1].size();
  const Value counts =
      MatMul(OneHot(labels, classes), OneHot(ArgMax(logits, {.axis = -1}), classes), {.transpose_a = true});
  return {.name = "confusion", .sums = {{counts}}, .result = [](absl::Span<const Tensor> sums, double) {
            return sums[0].Clone();
          }};
}

Metric MeanSquaredError(Operand prediction, Operand target) {
  if (!SameTypes("MeanSquaredError", prediction, target)) return Invalid("mse", prediction);
  const MetricLocation location(prediction);
  return PerElement("mse", gradweave::Sum(Square(Doubles(prediction) - Doubles(target))), target.value());
}

Metric MeanAbsoluteError(Operand prediction, Operand target) {
  if (!SameTypes("MeanAbsoluteError", prediction, target)) return Invalid("mae", prediction);
  const MetricLocation location(prediction);
  return PerElement("mae", gradweave::Sum(Abs(Doubles(prediction) - Doubles(target))), target.value());
}

Metric R2(Operand prediction, Operand target) {
  if (!SameTypes("R2", prediction, target)) return Invalid("r2", prediction);
  const MetricLocation location(prediction);
  const Value y = Doubles(target);
  const ReductionOptions over_samples = {.axes = {0}};
  auto result = [](absl::Span<const Tensor> sums, double samples) {
    const absl::Span<const double> residual = sums[0].values<double>(), sum = sums[1].values<double>(),
                                   squares = sums[2].values<double>();
    double r2 = 0;
    for (size_t i = 0; i < sum.size(); ++i) {
      const double variation = squares[i] - sum[i] * sum[i] / samples;
      // The squares of a constant column leave nothing but rounding errors.
      const bool is_constant = variation <= squares[i] * samples * std::numeric_limits<double>::epsilon();
      r2 += is_constant ? (residual[i] == 0 ? 1 : 0) : 1 - residual[i] / variation;
    }
    return Tensor::Scalar(r2 / static_cast<double>(sum.size()));
  };
  return {.name = "r2",
          .sums = {{gradweave::Sum(Square(Doubles(prediction) - y), over_samples)},
                   {gradweave::Sum(y, over_samples)},
                   {gradweave::Sum(Square(y), over_samples)}},
          .result = result};
}

Metric Mean(std::string name, Operand value) {
  if (!value.is_value()) {
    NeedsValue("Mean", value);
    return Invalid(std::move(name), value);
  }
  const MetricLocation location(value);
  const bool has_samples = value.rank() > 0 && !value.shape()[0].is_known();
  if (has_samples) return PerElement(std::move(name), gradweave::Sum(Doubles(value)), value.value());
  const Value mean = value.rank() > 0 ? gradweave::Mean(Doubles(value)) : value.value();
  return {.name = std::move(name),
          .sums = {{mean, /*is_mean=*/true}},
          .result = [](absl::Span<const Tensor> sums, double samples) {
            return Tensor::Scalar(Scalar(sums[0]) / samples);
          }};
}

Metric Sum(std::string name, Operand value) {
  if (!value.is_value()) {
    NeedsValue("Sum", value);
    return Invalid(std::move(name), value);
  }
  const MetricLocation location(value);
  return {.name = std::move(name),
          .sums = {{gradweave::Sum(Doubles(value))}},
          .result = [](absl::Span<const Tensor> sums, double) { return sums[0].Clone(); }};
}

Metric Ratio(std::string name, Operand numerator, Operand denominator) {
  if (!numerator.is_value() || !denominator.is_value()) {
    NeedsValue("Ratio", numerator.is_value() ? denominator : numerator);
    return Invalid(std::move(name), numerator);
  }
  const MetricLocation location(numerator);
  return Quotient(std::move(name), gradweave::Sum(Doubles(numerator)), gradweave::Sum(Doubles(denominator)));
}

}  // namespace metrics
}  // namespace gradweave
