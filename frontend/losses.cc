#include "gradweave/frontend/losses.h"

#include <optional>

#include "absl/strings/str_cat.h"
#include "gradweave/ops/elementwise.h"
#include "gradweave/ops/reduction.h"
#include "gradweave/ops/softmax.h"

namespace gradweave::nn {
namespace {

// All nodes of a loss get the line of the user's call. Does nothing if there is no graph.
class CallLocation {
 public:
  explicit CallLocation(const Operand& operand) {
    Graph* graph = operand.graph();
    if (graph != nullptr && graph->builder().location.file == nullptr) guard_.emplace(*graph, operand.location());
  }

 private:
  std::optional<LocationGuard> guard_;
};

// Checks that prediction and target have the same shape. Broadcasting them would hide a mistake.
bool SameShapes(absl::string_view loss, const Operand& prediction, const Operand& target) {
  if (!prediction.valid() || !target.valid() || target.is_number() || prediction.shape() == target.shape()) return true;
  BuilderError(loss, {prediction, target}, "prediction and target have to have the same shape");
  return false;
}

}  // namespace

Value SoftmaxCrossEntropy(Operand logits, Operand labels) {
  const CallLocation location(logits);
  return Mean(SparseSoftmaxCrossEntropy(logits, labels));
}

Value MeanSquaredError(Operand prediction, Operand target) {
  if (!SameShapes("MeanSquaredError", prediction, target)) return Value(prediction.graph(), Port{});
  const CallLocation location(prediction);
  return Mean(Square(Sub(prediction, target)));
}

Value BinaryCrossEntropyWithLogits(Operand logits, Operand target) {
  if (!SameShapes("BinaryCrossEntropyWithLogits", logits, target)) return Value(logits.graph(), Port{});
  const CallLocation location(logits);
  return Mean(SigmoidCrossEntropy(logits, target));
}

Value Huber(Operand prediction, Operand target, double delta) {
  if (!SameShapes("Huber", prediction, target)) return Value(prediction.graph(), Port{});
  if (!(delta > 0))
    return BuilderError("Huber", {prediction, target}, absl::StrCat("delta is ", delta, " and has to be above 0"));
  const CallLocation location(prediction);
  // With c = min(|d|, delta), c*(|d| - c/2) covers both cases.
  const Value distance = Abs(Sub(prediction, target));
  const Value clipped = Minimum(distance, delta);
  return Mean(Mul(clipped, Sub(distance, Mul(clipped, 0.5))));
}

Value CorrectCount(Operand logits, Operand labels) {
  const CallLocation location(logits);
  const Value predicted = ArgMax(logits, {.axis = -1});
  return Sum(Cast(Equal(predicted, Cast(labels, kInt64)), kFloat32));
}

Value Accuracy(Operand logits, Operand labels) {
  const CallLocation location(logits);
  const Value predicted = ArgMax(logits, {.axis = -1});
  return Mean(Cast(Equal(predicted, Cast(labels, kInt64)), kFloat32));
}

}  // namespace gradweave::nn
