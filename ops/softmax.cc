#include "gradweave/ops/softmax.h"

#include <utility>

#include "absl/strings/str_cat.h"
#include "gradweave/graph/check.h"
#include "gradweave/graph/gradient.h"
#include "gradweave/ops/elementwise.h"
#include "gradweave/ops/indexing.h"
#include "gradweave/ops/reduction.h"
#include "gradweave/ops/registry.h"
#include "gradweave/ops/shape_ops.h"

namespace gradweave {
namespace {

using BatchAxes = absl::InlinedVector<BatchAxis, 2>;

absl::StatusOr<TensorTypes> InferSoftmax(const OpView& op) {
  const int64_t axis = op.attribute<int64_t>("axis");
  if (axis < 0 || axis >= op.shape(0).rank())
    return op.Error("axis ", axis, " is outside [0, ", op.shape(0).rank(), ")");
  return TensorTypes{op.operand(0)};
}

BatchAxes SoftmaxBatch(const OpView& op, absl::Span<const BatchAxis> operands) {
  if (operands[0] == BatchAxis::Axis(static_cast<int>(op.attribute<int64_t>("axis")))) return {{BatchAxis::kMixed, 0}};
  return {operands[0]};
}

// Checks logits [..., classes] and labels [...].
absl::Status CheckLogitsAndLabels(const OpView& op) {
  const Shape& logits = op.shape(0);
  if (logits.rank() < 1) return op.Error("logits have to have an axis of classes");
  const Dim& classes = logits[logits.rank() - 1];
  if (!classes.is_known() || classes.size() == 0) {
    return op.Error("the number of classes, the last axis of logits, is ", classes.ToString(),
                    " and has to be known and at least 1");
  }
  Shape expected = logits;
  expected.Erase(logits.rank() - 1);
  if (op.shape(1) == expected) return absl::OkStatus();
  return op.Error("labels have to have shape ", expected.ToString(), ", the shape of logits without the last axis");
}

BatchAxes ByLabelBatch(const OpView& op, absl::Span<const BatchAxis> operands) {
  for (const BatchAxis& operand : operands) {
    if (!(operand == operands[0]) || operand.kind == BatchAxis::kMixed) return {{BatchAxis::kMixed, 0}};
  }
  if (operands[0] == BatchAxis::Axis(op.shape(0).rank() - 1)) return {{BatchAxis::kMixed, 0}};
  return {operands[0]};
}

double FlopsPerElement(const OpView& op, double flops) {
  return flops * static_cast<double>(op.shape(0).num_elements().size());
}

int64_t Normalized(const Operand& x, int64_t axis) {
  const int64_t normalized = NormalizedAxis(axis, x.rank());
  return normalized < 0 ? axis : normalized;
}

Value SumAlong(const Value& x, int64_t axis) { return Sum(x, {.axes = {axis}, .keep_dims = true}); }

}  // namespace

void RegisterSoftmaxOps(OpRegistry& registry) {
  const AttributeDefinition axis = {"axis", AttributeType::kInteger, "In [0, rank)."};
  registry.Add({
      .name = "Softmax",
      .doc = "e^x / sum(e^x) along the axis, after subtracting the maximum.",
      .operands = {{"x", "At least one axis.", kFloating}},
      .attributes = {axis},
      .infer = InferSoftmax,
      // dx = y * (dy - sum(dy * y)).
      .gradient =
          [](GradientContext& g) {
            const Value y = g.output(), dy = g.output_gradient();
            g.Set(0, Mul(y, Sub(dy, SumAlong(Mul(dy, y), g.attribute<int64_t>("axis")))));
          },
      .batch = SoftmaxBatch,
      .flops = [](const OpView& op, absl::Span<const TensorType>) { return FlopsPerElement(op, 4); },
      .kind = OpKind::kSoftmax,
  });
  registry.Add({
      .name = "LogSoftmax",
      .doc = "x - log(sum(e^x)) along the axis, after subtracting the maximum.",
      .operands = {{"x", "At least one axis.", kFloating}},
      .attributes = {axis},
      .infer = InferSoftmax,
      // dx = dy - softmax(x) * sum(dy).
      .gradient =
          [](GradientContext& g) {
            const Value dy = g.output_gradient();
            g.Set(0, Sub(dy, Mul(Exp(g.output()), SumAlong(dy, g.attribute<int64_t>("axis")))));
          },
      .batch = SoftmaxBatch,
      .flops = [](const OpView& op, absl::Span<const TensorType>) { return FlopsPerElement(op, 4); },
      .kind = OpKind::kLogSoftmax,
  });
  const OperandDefinition logits = {"logits", "[..., classes].", kFloating};
  const OperandDefinition labels = {"labels", "[...], each in [0, classes).", kIntegers};
  registry.Add({
      .name = "SparseSoftmaxCrossEntropy",
      .doc = "-log(softmax(logits)[label]) for each label: logits [..., classes] and labels [...] give [...]. A label "
             "outside of [0, classes) fails the run.",
      .operands = {logits, labels},
      .infer = [](const OpView& op) -> absl::StatusOr<TensorTypes> {
        GW_RETURN_IF_ERROR(CheckLogitsAndLabels(op));
        return TensorTypes{{op.dtype(0), op.shape(1)}};
      },
      .gradient =
          [](GradientContext& g) {
            g.Set(0, AddOp("SparseSoftmaxCrossEntropyGrad", {g.operand(0), g.operand(1), g.output_gradient()}));
          },
      .batch = ByLabelBatch,
      .flops = [](const OpView& op, absl::Span<const TensorType>) { return FlopsPerElement(op, 4); },
      .kind = OpKind::kSparseSoftmaxCrossEntropy,
  });
  registry.Add({
      .name = "SparseSoftmaxCrossEntropyGrad",
      .doc =
          "dy * (softmax(logits) - onehot(labels)): the gradient of SparseSoftmaxCrossEntropy with respect to logits.",
      .operands = {logits, labels, {"dy", "[...], with the dtype of logits.", kFloating}},
      .infer = [](const OpView& op) -> absl::StatusOr<TensorTypes> {
        GW_RETURN_IF_ERROR(CheckLogitsAndLabels(op));
        if (!(op.operand(2) == TensorType{op.dtype(0), op.shape(1)}))
          return op.Error("dy has to have the shape of labels and the dtype of logits");
        return TensorTypes{op.operand(0)};
      },
      // With p = softmax(logits), the derivative of p in direction v is p * (v - sum(p * v)).
      .gradient =
          [](GradientContext& g) {
            const Value logits = g.operand(0), labels = g.operand(1), dy = g.operand(2), v = g.output_gradient();
            const int64_t classes = logits.rank() - 1;
            const Value p = Softmax(logits);
            const Value pv = SumAlong(Mul(p, v), classes);
            if (g.needs(0)) g.Set(0, Mul(Mul(p, Sub(v, pv)), ExpandDims(dy, {classes})));
            if (g.needs(2)) {
              const Value one_hot = OneHot(labels, logits.shape()[static_cast<int>(classes)].size(), logits.dtype());
              g.Set(2, Sum(Mul(v, Sub(p, one_hot)), {.axes = {classes}}));
            }
          },
      .batch = ByLabelBatch,
      .flops = [](const OpView& op, absl::Span<const TensorType>) { return FlopsPerElement(op, 5); },
      .kind = OpKind::kSparseSoftmaxCrossEntropyGrad,
  });
}

Value Softmax(Operand x, int64_t axis) { return AddOp("Softmax", {x}, {{"axis", Normalized(x, axis)}}); }
Value LogSoftmax(Operand x, int64_t axis) { return AddOp("LogSoftmax", {x}, {{"axis", Normalized(x, axis)}}); }
Value SparseSoftmaxCrossEntropy(Operand logits, Operand labels) {
  return AddOp("SparseSoftmaxCrossEntropy", {logits, labels});
}

}  // namespace gradweave
