#include "gradweave/frontend/optimizers.h"

#include <algorithm>
#include <cmath>
#include <string>
#include <utility>

#include "absl/container/flat_hash_set.h"
#include "absl/strings/str_cat.h"
#include "gradweave/frontend/number_checks.h"
#include "gradweave/graph/passes/autodiff.h"
#include "gradweave/graph/passes/substitute.h"
#include "gradweave/ops/elementwise.h"
#include "gradweave/ops/reduction.h"
#include "gradweave/ops/scope.h"
#include "gradweave/ops/shape_ops.h"
#include "gradweave/ops/state.h"

namespace gradweave::optim {
namespace {

// Returns for each node id whether the value depends on the node within a run. A variable does not
// depend on its initial value then.
std::vector<bool> Ancestors(const Graph& graph, NodeId of) {
  std::vector<bool> is_ancestor(graph.num_nodes(), false);
  is_ancestor[of] = true;
  for (NodeId id = of; id >= 0; --id) {
    if (!is_ancestor[id] || graph.node(id).op->kind == OpKind::kVariable) continue;
    for (Port input : graph.node(id).inputs) is_ancestor[input.node] = true;
  }
  return is_ancestor;
}

// The common part of all optimizers: names, state variables, the step counter and the learning
// rate.
class Updater {
 public:
  Updater(const std::vector<Value>& variables, absl::string_view kind, const LearningRate& rate)
      : graph_(*variables[0].graph()),
        root_(graph_, *variables[0].node().op->registry),
        scope_(root_, UniqueName(graph_, kind)),
        rate_(rate) {
    for (const Value& variable : variables) {
      if (variable.dtype() == kFloat64) rate_dtype_ = kFloat64;
    }
  }

  // Returns the learning rate as a scalar of this dtype.
  Value Rate(DType dtype) {
    if (rate_value_.graph() == nullptr) rate_value_ = MakeRate();
    return Cast(rate_value_, dtype);
  }

  // Returns the number of the current step, from 1, as a scalar of this dtype.
  Value StepNumber(DType dtype) { return Cast(Counter() + 1, dtype); }

  Value Slot(const Value& variable, absl::string_view name) {
    return scope_.Variable(absl::StrCat(variable.node().name, "/", name), ZeroTensor(variable.type()),
                           {.trainable = false});
  }

  void Assign(const Value& variable, const Value& value) {
    update_.assignments.push_back(gradweave::Assign(variable, value));
  }

  Update TakeUpdate() {
    if (counter_.graph() != nullptr) Assign(counter_, counter_ + 1);
    return std::move(update_);
  }

 private:
  static std::string UniqueName(const Graph& graph, absl::string_view kind) {
    // A second optimizer of the same kind gets a number. Only variables need names, so an optimizer
    // without variables needs none.
    const std::string prefix = graph.builder().name_prefix;
    for (int number = 1;; ++number) {
      const std::string name = number == 1 ? std::string(kind) : absl::StrCat(kind, "_", number);
      bool taken = false;
      for (const Node& node : graph.nodes()) {
        taken |=
            node.op->kind == OpKind::kVariable &&
            absl::string_view(node.name).substr(0, prefix.size() + name.size() + 1) == absl::StrCat(prefix, name, "/");
      }
      if (!taken) return name;
    }
  }

  Value ZeroTensor(const TensorType& type) {
    return BroadcastTo(scope_.Constant(Tensor::ScalarOf(type.dtype, 0)), type.shape);
  }

  Value Counter() {
    if (counter_.graph() == nullptr)
      counter_ = scope_.Variable("step", scope_.Constant(Tensor::Scalar(int64_t{0})), {.trainable = false});
    return counter_;
  }

  Value MakeRate() {
    if (rate_.schedule() != nullptr) return rate_.schedule()(Cast(Counter(), kFloat64));
    if (!rate_.number().has_value()) return rate_.value();
    CheckNumbers(graph_, "optimizer", {{"learning_rate", *rate_.number(), NumberCheck::kNotNegative}});
    return scope_.Variable("learning_rate", scope_.Constant(Tensor::ScalarOf(rate_dtype_, *rate_.number())),
                           {.trainable = false});
  }

  Graph& graph_;
  Scope root_, scope_;
  LearningRate rate_;
  DType rate_dtype_ = kFloat32;
  Value rate_value_, counter_;
  Update update_;
};

bool CheckNumbers(Graph& graph, const Sgd& o) {
  return CheckNumbers(
      graph, "Sgd",
      {{"momentum", o.momentum, NumberCheck::kBelowOne}, {"weight_decay", o.weight_decay, NumberCheck::kNotNegative}});
}

template <typename AdamLike>
bool CheckAdamNumbers(Graph& graph, absl::string_view name, const AdamLike& o) {
  return CheckNumbers(graph, name,
                      {{"beta1", o.beta1, NumberCheck::kBelowOne},
                       {"beta2", o.beta2, NumberCheck::kBelowOne},
                       {"epsilon", o.epsilon, NumberCheck::kNotNegative},
                       {"weight_decay", o.weight_decay, NumberCheck::kNotNegative}});
}
bool CheckNumbers(Graph& graph, const Adam& o) { return CheckAdamNumbers(graph, "Adam", o); }
bool CheckNumbers(Graph& graph, const AdamW& o) { return CheckAdamNumbers(graph, "AdamW", o); }

bool CheckNumbers(Graph& graph, const RmsProp& o) {
  return CheckNumbers(graph, "RmsProp",
                      {{"alpha", o.alpha, NumberCheck::kBelowOne},
                       {"epsilon", o.epsilon, NumberCheck::kNotNegative},
                       {"momentum", o.momentum, NumberCheck::kBelowOne},
                       {"weight_decay", o.weight_decay, NumberCheck::kNotNegative}});
}

bool CheckNumbers(Graph& graph, const Adagrad& o) {
  return CheckNumbers(
      graph, "Adagrad",
      {{"epsilon", o.epsilon, NumberCheck::kNotNegative}, {"weight_decay", o.weight_decay, NumberCheck::kNotNegative}});
}

// Applies rule(updater, gradient, variable) -> the variable's new value to each pair.
template <typename Optimizer, typename Rule>
Update ApplyRule(const Optimizer& optimizer, absl::string_view kind, std::vector<Value> gradients,
                 const std::vector<Value>& variables, Rule rule) {
  for (const std::vector<Value>* values : {static_cast<const std::vector<Value>*>(&gradients), &variables}) {
    for (const Value& value : *values) {
      if (!value.valid()) return {};
    }
  }
  if (variables.empty()) return {};
  Graph& graph = *variables[0].graph();
  if (gradients.size() != variables.size()) {
    graph.RecordError(absl::InvalidArgumentError(
        absl::StrCat("optimizer: there are ", gradients.size(), " gradients and ", variables.size(), " variables")));
    return {};
  }
  if (!CheckNumbers(graph, optimizer)) return {};
  if (optimizer.clip_norm.has_value()) gradients = ClipByGlobalNorm(gradients, *optimizer.clip_norm);
  Updater updater(variables, kind, optimizer.learning_rate);
  for (size_t i = 0; i < variables.size(); ++i) updater.Assign(variables[i], rule(updater, gradients[i], variables[i]));
  return updater.TakeUpdate();
}

Value WithDecay(const Value& gradient, const Value& variable, double weight_decay) {
  return weight_decay == 0 ? gradient : gradient + variable * weight_decay;
}

template <typename Optimizer>
Update MinimizeWith(const Optimizer& optimizer, const Value& loss, std::vector<Value> variables,
                    const std::source_location& location) {
  if (!loss.valid()) return {};
  Graph& graph = *loss.graph();
  const LocationGuard guard(graph,
                            graph.builder().location.file != nullptr ? SourceLocation() : ToSourceLocation(location));
  if (loss.rank() != 0) {
    BuilderError("Minimize", {Operand(loss)}, "the loss has to be a scalar; Mean or Sum makes one");
    return {};
  }
  if (variables.empty()) variables = TrainableVariables(graph, loss);
  if (variables.empty()) {
    BuilderError("Minimize", {Operand(loss)}, "the loss depends on no trainable variable");
    return {};
  }
  const std::vector<Value> gradients = Gradients({loss}, variables, {}, {.unreachable = GradientOptions::kInvalid});
  if (!graph.status().ok()) return {};
  std::vector<Value> trained, trained_gradients;
  for (size_t i = 0; i < variables.size(); ++i) {
    if (!gradients[i].valid()) continue;
    trained.push_back(variables[i]);
    trained_gradients.push_back(gradients[i]);
  }
  if (trained.empty()) {
    BuilderError("Minimize", {Operand(loss)},
                 absl::StrCat("no gradient reaches a variable: ", DescribeGradientCut(loss, variables[0])));
    return {};
  }
  Update update = optimizer.Apply(trained_gradients, trained);
  for (const Value& assignment : LayerUpdates(loss).assignments) update.assignments.push_back(assignment);
  return update;
}

template <typename Optimizer>
Value AdamDirection(const Optimizer& o, Updater& updater, const Value& g, const Value& w) {
  const Value m = updater.Slot(w, "m"), v = updater.Slot(w, "v");
  const Value new_m = m * o.beta1 + g * (1 - o.beta1);
  const Value new_v = v * o.beta2 + Square(g) * (1 - o.beta2);
  updater.Assign(m, new_m);
  updater.Assign(v, new_v);
  const Value t = updater.StepNumber(w.dtype());
  // 1 - beta^t, which a beta close to 1 would round away.
  auto correction = [&t](double beta) { return beta == 0 ? OnesLike(t) : Neg(Expm1(t * std::log(beta))); };
  const Value correction1 = correction(o.beta1), correction2 = correction(o.beta2);
  return (new_m / correction1) / (Sqrt(new_v / correction2) + o.epsilon);
}

}  // namespace

std::vector<Value> TrainableVariables(Graph& graph, std::optional<Value> loss) {
  std::vector<bool> wanted(graph.num_nodes(), true);
  if (loss.has_value()) {
    if (!loss->valid()) return {};
    wanted = Ancestors(graph, loss->port().node);
  }
  std::vector<Value> variables;
  for (const Node& node : graph.nodes()) {
    if (node.op->kind == OpKind::kVariable && wanted[node.id] && node.attribute<bool>("trainable"))
      variables.push_back(graph.value(node.id));
  }
  return variables;
}

std::vector<Value> ClipByGlobalNorm(const std::vector<Value>& gradients, double max_norm) {
  if (gradients.empty() || !gradients[0].valid()) return gradients;
  if (!(max_norm > 0)) {
    BuilderError("ClipByGlobalNorm", {Operand(gradients[0])},
                 absl::StrCat("max_norm is ", max_norm, " and has to be above 0"));
    return std::vector<Value>(gradients.size(), Value(gradients[0].graph(), Port{}));
  }
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

Update LayerUpdates(Value loss) {
  if (!loss.valid()) return {};
  Graph& graph = *loss.graph();
  const std::vector<bool> of_loss = Ancestors(graph, loss.port().node);
  absl::flat_hash_set<absl::string_view> names;
  for (NodeId id = 0; id <= loss.port().node; ++id) {
    if (of_loss[id] && !graph.node(id).name.empty()) names.insert(graph.node(id).name);
  }
  // Files from before version 2 of Assign don't say which call an assignment belongs to: there it goes
  // with every loss that shares some node with it.
  auto shares_a_node = [&](const Node& assign) {
    const std::vector<bool> of_value = Ancestors(graph, assign.inputs[1].node);
    for (NodeId id = 0; id <= std::min(assign.inputs[1].node, loss.port().node); ++id) {
      if (of_value[id] && of_loss[id] && !graph.node(id).op->is_source()) return true;
    }
    return false;
  };
  Update update{.may_be_empty = true};
  const int num_nodes = graph.num_nodes();
  for (NodeId id = 0; id < num_nodes; ++id) {
    const Node& node = graph.node(id);
    if (node.op->kind != OpKind::kAssign || !node.attribute<bool>("with_training")) continue;
    const std::string& call = node.attribute<std::string>("call");
    if (call.empty() ? shares_a_node(node) : names.contains(call))
      update = Then(update, {.assignments = {graph.value(id)}, .may_be_empty = true});
  }
  return update;
}

Update Then(const Update& first, const Update& second) {
  auto is_assignment = [](const Value& value) { return value.valid() && value.node().op->kind == OpKind::kAssign; };
  auto operand = [](const Value& assignment, int i) { return assignment.graph()->value(assignment.node().inputs[i]); };
  Update result{.may_be_empty = first.may_be_empty && second.may_be_empty};
  std::vector<Substitution> new_values;
  for (const Value& assignment : first.assignments) {
    if (!is_assignment(assignment)) continue;
    result.assignments.push_back(assignment);
    new_values.emplace_back(operand(assignment, 0), operand(assignment, 1));
  }
  std::vector<Value> later, values;
  for (const Value& assignment : second.assignments) {
    if (!is_assignment(assignment)) continue;
    later.push_back(assignment);
    values.push_back(operand(assignment, 1));
  }
  const std::vector<Value> substituted = Substitute(values, new_values);
  for (size_t i = 0; i < later.size(); ++i) {
    const Value variable = operand(later[i], 0);
    const Value assignment = substituted[i] == values[i] ? later[i] : Assign(variable, substituted[i]);
    const auto earlier = std::find_if(result.assignments.begin(), result.assignments.end(),
                                      [&](const Value& other) { return operand(other, 0) == variable; });
    if (earlier == result.assignments.end()) {
      result.assignments.push_back(assignment);
    } else {
      *earlier = assignment;
    }
  }
  return result;
}

Update Sgd::Apply(const std::vector<Value>& gradients, const std::vector<Value>& variables) const {
  return ApplyRule(*this, "sgd", gradients, variables, [this](Updater& updater, const Value& gradient, const Value& w) {
    Value direction = WithDecay(gradient, w, weight_decay);
    if (momentum != 0) {
      const Value slot = updater.Slot(w, "momentum");
      const Value velocity = slot * momentum + direction;
      updater.Assign(slot, velocity);
      direction = nesterov ? direction + velocity * momentum : velocity;
    }
    return w - direction * updater.Rate(w.dtype());
  });
}

Update Adam::Apply(const std::vector<Value>& gradients, const std::vector<Value>& variables) const {
  return ApplyRule(
      *this, "adam", gradients, variables, [this](Updater& updater, const Value& gradient, const Value& w) {
        return w - AdamDirection(*this, updater, WithDecay(gradient, w, weight_decay), w) * updater.Rate(w.dtype());
      });
}

Update AdamW::Apply(const std::vector<Value>& gradients, const std::vector<Value>& variables) const {
  return ApplyRule(*this, "adamw", gradients, variables,
                   [this](Updater& updater, const Value& gradient, const Value& w) {
                     const Value rate = updater.Rate(w.dtype());
                     return w * (1 - rate * weight_decay) - AdamDirection(*this, updater, gradient, w) * rate;
                   });
}

Update RmsProp::Apply(const std::vector<Value>& gradients, const std::vector<Value>& variables) const {
  return ApplyRule(*this, "rmsprop", gradients, variables,
                   [this](Updater& updater, const Value& gradient, const Value& w) {
                     const Value g = WithDecay(gradient, w, weight_decay);
                     const Value s = updater.Slot(w, "square_average");
                     const Value new_s = s * alpha + Square(g) * (1 - alpha);
                     updater.Assign(s, new_s);
                     Value direction = g / (Sqrt(new_s) + epsilon);
                     if (momentum != 0) {
                       const Value slot = updater.Slot(w, "momentum");
                       direction = slot * momentum + direction;
                       updater.Assign(slot, direction);
                     }
                     return w - direction * updater.Rate(w.dtype());
                   });
}

Update Adagrad::Apply(const std::vector<Value>& gradients, const std::vector<Value>& variables) const {
  return ApplyRule(*this, "adagrad", gradients, variables,
                   [this](Updater& updater, const Value& gradient, const Value& w) {
                     const Value g = WithDecay(gradient, w, weight_decay);
                     const Value s = updater.Slot(w, "square_sum");
                     const Value new_s = s + Square(g);
                     updater.Assign(s, new_s);
                     return w - g / (Sqrt(new_s) + epsilon) * updater.Rate(w.dtype());
                   });
}

Update Sgd::Minimize(Value loss, std::vector<Value> variables, std::source_location location) const {
  return MinimizeWith(*this, loss, std::move(variables), location);
}
Update Adam::Minimize(Value loss, std::vector<Value> variables, std::source_location location) const {
  return MinimizeWith(*this, loss, std::move(variables), location);
}
Update AdamW::Minimize(Value loss, std::vector<Value> variables, std::source_location location) const {
  return MinimizeWith(*this, loss, std::move(variables), location);
}
Update RmsProp::Minimize(Value loss, std::vector<Value> variables, std::source_location location) const {
  return MinimizeWith(*this, loss, std::move(variables), location);
}
Update Adagrad::Minimize(Value loss, std::vector<Value> variables, std::source_location location) const {
  return MinimizeWith(*this, loss, std::move(variables), location);
}

}  // namespace gradweave::optim
