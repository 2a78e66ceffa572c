#include "gradweave/frontend/weighted_mean.h"

#include <optional>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"
#include "gradweave/graph/out_of_memory.h"
#include "gradweave/ops/composition.h"
#include "gradweave/ops/elementwise.h"
#include "gradweave/ops/reduction.h"
#include "gradweave/ops/state.h"

namespace gradweave {

WeightedMean WeightedMeanOf(Operand values, Operand weights) {
  if (!values.is_value() || !weights.is_value() || !(values.value().type() == weights.value().type()) ||
      values.rank() == 0 || !IsFloating(values.dtype())) {
    const Value invalid = AllValid("WeightedMeanOf", {values, weights})
                              ? BuilderError("WeightedMeanOf", {values, weights},
                                             "values and weights have to have the same floating type [batch, ...]")
                              : Value(values.graph(), Port{});
    return {invalid, invalid, invalid, invalid};
  }
  std::optional<LocationGuard> guard;
  if (Graph& graph = *values.graph(); graph.builder().location.file == nullptr) guard.emplace(graph, values.location());
  const Value sum = Sum(Mul(values, weights)), weight = Sum(weights);
  const Value mean = sum / Where(Greater(weight, 0), weight, OnesLike(weight));
  return {mean, sum, weight, weights.value()};
}

absl::StatusOr<Tensor> BalancedClassWeights(const Tensor& labels, int64_t classes) try {
  auto error = [&](absl::string_view problem) {
    return absl::InvalidArgumentError(absl::StrCat("BalancedClassWeights: the labels are ", labels.type().ToString(),
                                                   " in ", classes, " classes: ", problem));
  };
  if (!IsInteger(labels.dtype()) || labels.rank() != 1 || classes < 1)
    return error("labels have to be integers [n], and classes at least 1");
  if (classes > labels.num_elements()) return error("a class has no samples");
  const Tensor as_long = labels.Cast(kInt64);
  std::vector<int64_t> counts(classes, 0);
  for (int64_t label : as_long.values<int64_t>()) {
    if (label < 0 || label >= classes) return error(absl::StrCat("label ", label, " is outside [0, ", classes, ")"));
    ++counts[label];
  }
  Tensor weights(kFloat32, {classes});
  for (int64_t i = 0; i < classes; ++i) {
    if (counts[i] == 0) return error(absl::StrCat("class ", i, " has no samples"));
    weights.mutable_data<float>()[i] = static_cast<float>(
        static_cast<double>(labels.num_elements()) / (static_cast<double>(classes) * static_cast<double>(counts[i])));
  }
  return weights;
}
GW_CATCH_OUT_OF_MEMORY("BalancedClassWeights")

}  // namespace gradweave
