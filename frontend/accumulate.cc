#include "gradweave/frontend/accumulate.h"

#include <map>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"
#include "absl/strings/strip.h"
#include "gradweave/frontend/updater.h"
#include "gradweave/frontend/updates.h"
#include "gradweave/graph/passes/autodiff.h"
#include "gradweave/graph/passes/substitute.h"
#include "gradweave/ops/composition.h"
#include "gradweave/ops/elementwise.h"
#include "gradweave/ops/state.h"

namespace gradweave::optim {
namespace {

// An optimizer that keeps the gradients that it is given.
struct Capture {
  Values* gradients;
  Values* variables;
  Update Apply(const GivenGradients& given, const Values& given_variables) const {
    *gradients = given.values();
    *variables = given_variables;
    return {};
  }
};

// The number of samples of a batch, a float64 scalar; an error if the inputs of the loss do not
// agree on it.
Value NumSamples(const Value& loss) {
  Graph& graph = *loss.graph();
  const std::vector<bool> of_loss = Ancestors(graph, loss.port().node);
  Value first;
  for (const Node& node : graph.nodes()) {
    if (node.id > loss.port().node || !of_loss[node.id] || node.op->kind != OpKind::kInput) continue;
    if (node.outputs[0].shape.rank() == 0) continue;
    const Value input = graph.value(node.id);
    if (!first.valid()) first = input;
    if (input.shape()[0] == first.shape()[0]) continue;
    return BuilderError(
        "Accumulate", {Operand(loss)},
        absl::StrCat("inputs '", first.node().name, "', ", first.type().ToString(), ", and '", node.name, "', ",
                     input.type().ToString(), ", have different first axes; give the weight of a batch"));
  }
  if (first.valid()) return DimSize(first, 0, kFloat64);
  return BuilderError("Accumulate", {Operand(loss)},
                      "the loss depends on no input with samples; give the weight of a "
                      "batch");
}

// State that batches add to and the step clears.
class Sums {
 public:
  explicit Sums(const Values& variables) : updater_(variables, "accumulated", LearningRate(0.0)) {}

  // A tensor like the variable, and a float64 scalar, that start at zero.
  Value Tensor(const Value& variable, absl::string_view name) { return updater_.Slot(variable, name); }
  Value Number(absl::string_view name) { return updater_.Number(name, 0); }

  // Sets the sum to `value` after a batch, and to zero after the last one. Returns the value.
  Value Add(const Value& sum, const Value& value) {
    add_.assignments.push_back(Assign(sum, value));
    clear_.assignments.push_back(Assign(sum, ZerosLike(sum)));
    return value;
  }

  const Update& add() const { return add_; }
  const Update& clear() const { return clear_; }

 private:
  Updater updater_;
  Update add_, clear_;
};

// An assignment v = coefficient*v + rest, whose parts do not depend on v.
struct Affine {
  Value variable, coefficient, rest;
};

Affine AsAffine(const Value& assignment) {
  const Value variable = AssignOperand(assignment, 0), value = AssignOperand(assignment, 1);
  return {variable, Gradients({value}, {variable})[0], Substitute({value}, {{variable, ZerosLike(variable)}})[0]};
}

// The moving averages of one call of BatchNorm on a batch: mean = m*mean + (1 - m)*mean of the
// batch, and the same with the unbiased variance, where m is 1 if the batch has none.
struct MovingAverages {
  Value mean, variance;  // Assignments.
  Value result;          // The call's result, [batch, channels, ...].
};

// Combines mean and variance of batches (Chan et al., "Updating formulae and a pairwise algorithm
// for computing sample variances", 1979, formulas 2.1), which are here times 1 - m. Returns the
// assignments of the step.
Update PooledAverages(Sums& sums, const MovingAverages& averages, absl::string_view suffix) {
  const Affine mean = AsAffine(averages.mean), variance = AsAffine(averages.variance);
  if (!mean.rest.valid() || !variance.rest.valid()) return {};
  Integers axes = {0};
  for (int axis = 2; axis < averages.result.rank(); ++axis) axes.push_back(axis);
  const Value all = NumElements(averages.result, axes, kFloat64);
  const Value n = Where(Greater(all, 1), all, ZerosLike(all));
  auto state = [&](const Value& variable, absl::string_view name) {
    return sums.Tensor(variable, absl::StrCat(name, suffix));
  };
  const Value old_n = sums.Number(absl::StrCat(mean.variable.node().name, "/count", suffix));
  const Value old_mean = state(mean.variable, "mean"), old_squares = state(variance.variable, "squares");
  const Value old_share = state(mean.variable, "share");
  const DType dtype = old_mean.dtype();
  const Value new_n = sums.Add(old_n, old_n + n);
  // 1 - m, from the batches that have a variance.
  const Value share = sums.Add(old_share, Maximum(old_share, 1 - mean.coefficient));
  const Value delta = mean.rest - old_mean;
  const Value new_mean = sums.Add(old_mean, old_mean + delta * Cast(n / Maximum(new_n, 1), dtype));
  constexpr double kTiny = 1e-30;
  const Value squares = variance.rest * Cast(Maximum(n - 1, 0), dtype) +
                        Square(delta) / Maximum(share, kTiny) * Cast(old_n * n / Maximum(new_n, 1), dtype);
  const Value new_squares = sums.Add(old_squares, old_squares + squares);
  return {.assignments = {Assign(mean.variable, mean.variable * (1 - share) + new_mean),
                          Assign(variance.variable,
                                 variance.variable * (1 - share) + new_squares / Cast(Maximum(new_n - 1, 1), dtype))}};
}

// Splits the assignments of the loss's layers into moving averages of BatchNorm and others.
void SortAssignments(const Value& loss, std::vector<MovingAverages>& averages, Values& others) {
  Graph& graph = *loss.graph();
  constexpr absl::string_view kMean = "moving_mean", kVariance = "moving_variance";
  std::map<std::pair<std::string, std::string>, size_t> of_call;  // Indexed by call and layer.
  for (const Value& assignment : LayerAssignments(loss)) {
    const std::string& call = assignment.node().attribute<std::string>("call");
    absl::string_view layer = AssignOperand(assignment, 0).node().name;
    const bool is_mean = absl::ConsumeSuffix(&layer, kMean), is_variance = absl::ConsumeSuffix(&layer, kVariance);
    if (call.empty() || (!is_mean && !is_variance)) {
      others.push_back(assignment);
      continue;
    }
    const auto [found, is_new] = of_call.emplace(std::pair(call, std::string(layer)), averages.size());
    if (is_new) averages.emplace_back();
    (is_mean ? averages[found->second].mean : averages[found->second].variance) = assignment;
  }
  for (const Node& node : graph.nodes()) {
    for (auto& [call, index] : of_call) {
      if (node.name == call.first) averages[index].result = graph.value(node.id);
    }
  }
  // A call with only one of the two belongs to another kind of layer.
  std::vector<MovingAverages> complete;
  for (const MovingAverages& average : averages) {
    if (average.mean.valid() && average.variance.valid() && average.result.valid() && average.result.rank() >= 2) {
      complete.push_back(average);
    } else {
      for (const Value& assignment : {average.mean, average.variance}) {
        if (assignment.valid()) others.push_back(assignment);
      }
    }
  }
  averages = std::move(complete);
}

}  // namespace

namespace {

// The result of a step's batches: the mean gradients, the layers' assignments, and the assignments
// of the sums.
struct Pooled {
  Values gradients;
  Update layers, add, clear;
};

// The scope of the sums' names ends with this function, before the optimizer makes variables of its
// own.
Pooled Pool(const Value& loss, const Value& weight, const Values& gradients, const Values& variables) {
  Sums sums(variables);
  const Value old_weight = sums.Number("weight");
  const Value new_weight = sums.Add(old_weight, old_weight + Cast(weight, kFloat64));
  const Value divisor = Where(Greater(new_weight, 0), new_weight, OnesLike(new_weight));
  // Returns the mean of the values that batches give.
  auto mean = [&](const Value& variable, absl::string_view name, const Value& value) {
    const Value sum = sums.Tensor(variable, name);
    return sums.Add(sum, sum + value * Cast(weight, sum.dtype())) / Cast(divisor, sum.dtype());
  };
  Pooled result;
  for (size_t i = 0; i < variables.size(); ++i) {
    result.gradients.push_back(mean(variables[i], "gradient", gradients[i]));
  }

  std::vector<MovingAverages> averages;
  Values others;
  SortAssignments(loss, averages, others);
  std::map<std::string, int> calls;  // Indexed by variable: a layer may be called several times.
  auto suffix = [&calls](const Value& assignment) {
    const int call = ++calls[AssignOperand(assignment, 0).node().name];
    return call == 1 ? std::string() : absl::StrCat("_", call);
  };
  for (const MovingAverages& average : averages) {
    result.layers = Then(result.layers, PooledAverages(sums, average, suffix(average.mean)));
  }
  for (const Value& assignment : others) {
    const Value variable = AssignOperand(assignment, 0), value = AssignOperand(assignment, 1);
    Value assigned = assignment;
    if (IsFloating(variable.dtype())) {
      const Value change = mean(variable, absl::StrCat("change", suffix(assignment)), value - variable);
      assigned = Assign(variable, variable + change);
    }
    result.layers = Then(result.layers, {.assignments = {assigned}});
  }
  result.add = sums.add();
  result.clear = sums.clear();
  return result;
}

}  // namespace

AccumulatedUpdate Accumulate(const Optimizer& optimizer, Operand loss, AccumulateOptions options) {
  Values gradients, variables;
  Optimizer(Capture{&gradients, &variables}).Minimize(loss, options.variables);
  if (gradients.empty()) return {};
  const LocationGuard guard = CallLocation(*loss.graph(), loss.location());
  const Value weight = options.weight.graph() == nullptr ? NumSamples(loss.value()) : options.weight;
  if (!AllValid("Accumulate", {loss, Operand(weight)})) return {};
  if (weight.rank() != 0) {
    BuilderError("Accumulate", {loss, Operand(weight)}, "the weight of a batch has to be a scalar");
    return {};
  }
  const Pooled pooled = Pool(loss.value(), weight, gradients, variables);
  AccumulatedUpdate result{.apply = optimizer.Apply(GivenGradients(pooled.gradients), variables), .add = pooled.add};
  for (const Update* update : {&pooled.layers, &pooled.clear}) {
    result.apply.assignments.insert(result.apply.assignments.end(), update->assignments.begin(),
                                    update->assignments.end());
  }
  return result;
}

AccumulatedUpdate Accumulate(const Optimizer& optimizer, const WeightedMean& loss, AccumulateOptions options,
                             std::source_location location) {
  if (options.weight.graph() == nullptr) options.weight = loss.weight;
  return Accumulate(optimizer, Operand(loss.mean, location), std::move(options));
}

}  // namespace gradweave::optim
