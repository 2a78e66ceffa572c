#include "gradweave/frontend/optimizers.h"

#include <cmath>
#include <string>
#include <utility>

#include "absl/strings/str_cat.h"
#include "gradweave/graph/passes/autodiff.h"
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

// Adds the assignments with `with_training` that share a computed value with the loss. These are
// the moving averages of the layers in this loss, but not those of another call of the layers.
void AddTrainingAssignments(Graph& graph, const Value& loss, Update& update) {
  const std::vector<bool> of_loss = Ancestors(graph, loss.port().node);
  for (NodeId id = 0; id < graph.num_nodes(); ++id) {
    const Node& node = graph.node(id);
    if (node.op->kind != OpKind::kAssign || !node.attribute<bool>("with_training")) continue;
    const std::vector<bool> of_value = Ancestors(graph, node.inputs[1].node);
    for (NodeId other = 0; other <= node.inputs[1].node; ++other) {
      if (of_value[other] && of_loss[other] && !graph.node(other).op->is_source()) {
        update.assignments.push_back(graph.value(id));
        break;
      }
    }
  }
}

// The common part of all optimizers: names, state variables, the step counter and the learning
// rate.
class Updater {
 public:
  Updater(Graph& graph, const OpRegistry& registry, absl::string_view kind, const LearningRate& rate)
      : graph_(graph), root_(graph, registry), scope_(root_, UniqueName(graph, kind)), rate_(rate) {}

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
      counter_ = scope_.Variable("step", scope_.Constant(Tensor::Scalar(0.0f)), {.trainable = false});
    return counter_;
  }

  Value MakeRate() {
    if (rate_.schedule() != nullptr) return rate_.schedule()(Counter());
    if (!rate_.number().has_value()) return rate_.value();
    if (!(*rate_.number() >= 0)) {
      graph_.RecordError(absl::InvalidArgumentError(
          absl::StrCat("optimizer: the learning rate is ", *rate_.number(), " and has to be at least 0")));
    }
    return scope_.Variable("learning_rate", scope_.Constant(Tensor::Scalar(*rate_.number())), {.trainable = false});
  }

  Graph& graph_;
  Scope root_, scope_;
  LearningRate rate_;
  Value rate_value_, counter_;
  Update update_;
};

// Calls rule(updater, gradient, variable) for each pair and assigns the result to the variable.
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
  if (optimizer.clip_norm.has_value()) gradients = ClipByGlobalNorm(gradients, *optimizer.clip_norm);
  Updater updater(graph, *variables[0].node().op->registry, kind, optimizer.learning_rate);
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
  Update update = optimizer.Apply(Gradients({loss}, variables), variables);
  AddTrainingAssignments(graph, loss, update);
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
  const Value correction1 = 1 - Exp(t * std::log(o.beta1)), correction2 = 1 - Exp(t * std::log(o.beta2));
  return (new_m / correction1) / (Sqrt(new_v / correction2) + o.epsilon);
}

Value Fraction(const Value& step, int64_t of) { return step / static_cast<double>(of); }
Value Number(const Value& like, double number) {
  return ConstantLike(like, Tensor::ScalarOf(like.dtype(), number), {});
}

}  // namespace

Schedule ConstantRate(double rate) {
  return [=](Value step) { return Number(step, rate); };
}
Schedule StepDecay(double initial, double factor, int64_t every) {
  return [=](Value step) { return Pow(Number(step, factor), Floor(Fraction(step, every))) * initial; };
}
Schedule ExponentialDecay(double initial, double factor, int64_t every) {
  return [=](Value step) { return Pow(Number(step, factor), Fraction(step, every)) * initial; };
}
Schedule CosineDecay(double initial, int64_t steps, double final) {
  return
      [=](Value step) { return (Cos(Minimum(Fraction(step, steps), 1) * M_PI) + 1) * ((initial - final) / 2) + final; };
}
Schedule LinearWarmup(int64_t steps, Schedule then) {
  return [steps, then = std::move(then)](Value step) {
    const Value rising = then(Number(step, 0)) * Fraction(step, steps);
    return Where(Less(step, static_cast<double>(steps)), rising, then(Maximum(step - static_cast<double>(steps), 0)));
  };
}

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
