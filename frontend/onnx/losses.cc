// ONNX's losses.
#include "gradweave/frontend/onnx/importer.h"
#include "gradweave/graph/status_macros.h"
#include "gradweave/ops/elementwise.h"
#include "gradweave/ops/functions.h"
#include "gradweave/ops/indexing.h"
#include "gradweave/ops/reduction.h"
#include "gradweave/ops/shape_ops.h"
#include "gradweave/ops/softmax.h"

namespace gradweave::onnx {
namespace {

// -weight[target] * log_probabilities[n, target, ...] for each target, without those of
// ignore_index. The mean is weighted.
absl::StatusOr<Value> Loss(Call& call, Value log_probabilities) {
  if (log_probabilities.rank() < 2) return call.Wrong("its input needs a batch and classes");
  const DType dtype = log_probabilities.dtype();
  Value target = Cast(call.In(1), kInt64);
  Value weight;  // One for each target.
  const bool ignores = call.Find("ignore_index") != nullptr;
  Value counts;
  if (ignores) {
    counts = NotEqual(target, static_cast<double>(call.Int("ignore_index", 0)));
    target = Where(counts, target, 0);
  }
  if (call.Has(2)) weight = Gather(call.In(2), target);
  if (ignores) weight = weight.valid() ? Where(counts, weight, 0) : Cast(counts, dtype);
  const Value picked = Squeeze(TakeAlong(log_probabilities, ExpandDims(target, {1}), 1), {1});
  Value loss = Neg(picked);
  if (weight.valid()) loss = Mul(loss, weight);
  const std::string reduction = call.Text("reduction", "mean");
  if (reduction == "none") return loss;
  if (reduction == "sum") return Sum(loss);
  if (reduction != "mean") return call.Wrong("its reduction is unknown");
  return weight.valid() ? Div(Sum(loss), Sum(weight)) : Mean(loss);
}

absl::Status NegativeLogLikelihood(Call& call) {
  GW_ASSIGN_OR_RETURN(const Value loss, Loss(call, call.In(0)));
  call.Set(0, loss);
  return absl::OkStatus();
}

absl::Status SoftmaxCrossEntropy(Call& call) {
  if (call.Rank(0) < 2) return call.Wrong("its input needs a batch and classes");
  const Value log_probabilities = LogSoftmax(call.In(0), 1);
  GW_ASSIGN_OR_RETURN(const Value loss, Loss(call, log_probabilities));
  call.Set(0, loss);
  call.Set(1, log_probabilities);
  return absl::OkStatus();
}

constexpr OpRow kRows[] = {
    {"NegativeLogLikelihoodLoss", 12, 2, NegativeLogLikelihood},
    {"SoftmaxCrossEntropyLoss", 12, 2, SoftmaxCrossEntropy},
};

}  // namespace

absl::Span<const OpRow> LossRows() { return kRows; }

}  // namespace gradweave::onnx
