#include "gradweave/frontend/updates.h"

#include <algorithm>
#include <cmath>
#include <optional>
#include <utility>

#include "absl/container/flat_hash_set.h"
#include "absl/strings/string_view.h"
#include "gradweave/frontend/number_checks.h"
#include "gradweave/frontend/updater.h"
#include "gradweave/graph/passes/substitute.h"
#include "gradweave/ops/elementwise.h"
#include "gradweave/ops/reduction.h"
#include "gradweave/ops/state.h"

namespace gradweave::optim {
namespace {

bool IsAssignment(const Value& value) { return value.valid() && value.node().op->kind == OpKind::kAssign; }

// Returns true if the limit is finite and above 0.
bool CheckLimit(Graph& graph, absl::string_view function, absl::string_view name, double limit) {
  return CheckNumbers(graph, function, {{name, limit, NumberCheck::kPositive}, {name, limit, NumberCheck::kFinite}});
}

std::vector<Value> Invalid(const std::vector<Value>& values) {
  return std::vector<Value>(values.size(), Value(values[0].graph(), Port{}));
}

}  // namespace

std::vector<bool> Ancestors(const Graph& graph, NodeId of) {
  std::vector<bool> is_ancestor(graph.num_nodes(), false);
  is_ancestor[of] = true;
  for (NodeId id = of; id >= 0; --id) {
    if (!is_ancestor[id] || graph.node(id).op->kind == OpKind::kVariable) continue;
    for (Port input : graph.node(id).inputs) is_ancestor[input.node] = true;
  }
  return is_ancestor;
}

Value AssignOperand(const Value& assignment, int i) { return assignment.graph()->value(assignment.node().inputs[i]); }

std::vector<Value> TrainableVariables(Graph& graph, std::optional<Value> value) {
  std::vector<bool> wanted(graph.num_nodes(), true);
  if (value.has_value()) {
    if (!value->valid()) return {};
    wanted = Ancestors(graph, value->port().node);
  }
  std::vector<Value> variables;
  for (const Node& node : graph.nodes()) {
    if (node.op->kind == OpKind::kVariable && wanted[node.id] && node.attribute<bool>("trainable"))
      variables.push_back(graph.value(node.id));
  }
  return variables;
}

std::vector<Value> ClipByGlobalNorm(const std::vector<Value>& gradients, double max_norm,
                                    std::source_location location) {
  if (gradients.empty() || !gradients[0].valid()) return gradients;
  Graph& graph = *gradients[0].graph();
  const LocationGuard guard = CallLocation(graph, ToSourceLocation(location));
  if (!CheckLimit(graph, "ClipByGlobalNorm", "max_norm", max_norm)) return Invalid(gradients);
  Value sum;
  for (const Value& gradient : gradients) {
    const Value squares = Cast(Sum(Square(gradient)), gradients[0].dtype());
    sum = sum.graph() == nullptr ? squares : sum + squares;
  }
  // Maximum(norm, max_norm) avoids a division by a norm of zero.
  const Value factor = max_norm / Maximum(Sqrt(sum), max_norm);
  std::vector<Value> clipped;
  for (const Value& gradient : gradients) clipped.push_back(gradient * Cast(factor, gradient.dtype()));
  return clipped;
}

std::vector<Value> ClipByNorm(const std::vector<Value>& gradients, double max_norm, std::source_location location) {
  std::vector<Value> clipped;
  for (const Value& gradient : gradients) clipped.push_back(ClipByGlobalNorm({gradient}, max_norm, location)[0]);
  return clipped;
}

std::vector<Value> ClipByValue(const std::vector<Value>& gradients, double limit, std::source_location location) {
  if (gradients.empty() || !gradients[0].valid()) return gradients;
  Graph& graph = *gradients[0].graph();
  const LocationGuard guard = CallLocation(graph, ToSourceLocation(location));
  if (!CheckLimit(graph, "ClipByValue", "limit", limit)) return Invalid(gradients);
  std::vector<Value> clipped;
  for (const Value& gradient : gradients) clipped.push_back(Clip(gradient, -limit, limit));
  return clipped;
}

std::vector<Value> LayerAssignments(const Value& loss) {
  if (!loss.valid()) return {};
  Graph& graph = *loss.graph();
  const std::vector<bool> of_loss = Ancestors(graph, loss.port().node);
  absl::flat_hash_set<absl::string_view> names;
  for (NodeId id = 0; id <= loss.port().node; ++id) {
    if (of_loss[id] && !graph.node(id).name.empty()) names.insert(graph.node(id).name);
  }
  // Files from before version 2 of Assign don't say which call an assignment belongs to: there it
  // goes with every loss that shares some node with it.
  auto shares_a_node = [&](const Node& assign) {
    const std::vector<bool> of_value = Ancestors(graph, assign.inputs[1].node);
    for (NodeId id = 0; id <= std::min(assign.inputs[1].node, loss.port().node); ++id) {
      if (of_value[id] && of_loss[id] && !graph.node(id).op->is_source()) return true;
    }
    return false;
  };
  std::vector<Value> assignments;
  for (const Node& node : graph.nodes()) {
    if (node.op->kind != OpKind::kAssign || !node.attribute<bool>("with_training")) continue;
    const std::string& call = node.attribute<std::string>("call");
    if (call.empty() ? shares_a_node(node) : names.contains(call)) assignments.push_back(graph.value(node.id));
  }
  return assignments;
}

Update LayerUpdates(Value loss) {
  Update update{.may_be_empty = loss.valid()};
  for (const Value& assignment : LayerAssignments(loss)) {
    update = Then(update, {.assignments = {assignment}, .may_be_empty = true});
  }
  return update;
}

Update Then(const Update& first, const Update& second) {
  Update result{.may_be_empty = first.may_be_empty && second.may_be_empty};
  std::vector<Substitution> new_values;
  for (const Value& assignment : first.assignments) {
    if (!IsAssignment(assignment)) continue;
    result.assignments.push_back(assignment);
    new_values.emplace_back(AssignOperand(assignment, 0), AssignOperand(assignment, 1));
  }
  std::vector<Value> later, values;
  for (const Value& assignment : second.assignments) {
    if (!IsAssignment(assignment)) continue;
    later.push_back(assignment);
    values.push_back(AssignOperand(assignment, 1));
  }
  const std::vector<Value> substituted = Substitute(values, new_values);
  for (size_t i = 0; i < later.size(); ++i) {
    const Value variable = AssignOperand(later[i], 0);
    const Value assignment = substituted[i] == values[i] ? later[i] : Assign(variable, substituted[i]);
    const auto earlier = std::find_if(result.assignments.begin(), result.assignments.end(),
                                      [&](const Value& other) { return AssignOperand(other, 0) == variable; });
    if (earlier == result.assignments.end()) {
      result.assignments.push_back(assignment);
    } else {
      *earlier = assignment;
    }
  }
  return result;
}

Value AssignedValue(const Update& update, const Value& variable) {
  for (const Value& assignment : update.assignments) {
    if (IsAssignment(assignment) && AssignOperand(assignment, 0) == variable) return AssignOperand(assignment, 1);
  }
  return {};
}

WeightAverages AverageWeights(const Update& step, AverageOptions options, std::source_location location) {
  std::vector<Value>& variables = options.variables;
  if (variables.empty()) {
    for (const Value& assignment : step.assignments) {
      if (!IsAssignment(assignment)) continue;
      const Value variable = AssignOperand(assignment, 0);
      if (variable.node().attribute<bool>("trainable")) variables.push_back(variable);
    }
  }
  if (variables.empty()) return {.step = step};
  WeightAverages result;
  Graph& graph = *variables[0].graph();
  for (const Value& variable : variables) {
    if (!variable.valid()) return {};
    if (IsFloating(variable.dtype())) continue;
    BuilderError("AverageWeights", {Operand(variable, location)}, "the variables have to be floating");
    return {};
  }
  const LocationGuard guard = CallLocation(graph, ToSourceLocation(location));
  if (!CheckNumbers(graph, "AverageWeights", {{"decay", options.decay, NumberCheck::kBelowOne}})) return {};
  Updater updater(variables, "average", LearningRate(0));
  // The share of the way from the average to the weights. The average with bias correction is sum_i
  // (1 - decay) decay^(t-i) w_i / (1 - decay^t), so (1 - decay)/(1 - decay^t) of w_t are in it.
  const Value t = updater.StepNumber(kFloat64);
  const Value way = options.bias_correction && options.decay > 0
                        ? (options.decay - 1) / Expm1(t * std::log(options.decay))
                        : Where(Equal(t, 1), t, 1 - options.decay);
  for (const Value& variable : variables) {
    const Value average = updater.Slot(variable, "");
    updater.Assign(average, average + (variable - average) * Cast(way, variable.dtype()));
    result.values[variable.node().name] = average;
    result.swap.assignments.push_back(Assign(variable, average));
    result.swap.assignments.push_back(Assign(average, variable));
  }
  result.step = Then(step, updater.TakeUpdate());
  return result;
}

}  // namespace gradweave::optim
