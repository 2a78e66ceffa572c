#include "gradweave/frontend/updater.h"

#include <algorithm>
#include <optional>
#include <set>
#include <string>
#include <utility>

#include "absl/status/status.h"
#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "gradweave/graph/passes/autodiff.h"
#include "gradweave/graph/tensor.h"
#include "gradweave/ops/composition.h"
#include "gradweave/ops/elementwise.h"
#include "gradweave/ops/shape_ops.h"
#include "gradweave/ops/state.h"

namespace gradweave::optim {
namespace {

// Only variables need names, so an optimizer without variables needs none.
std::string UniqueName(const Graph& graph, absl::string_view kind) {
  const std::string prefix = graph.builder().name_prefix;
  for (int number = 1;; ++number) {
    const std::string name = number == 1 ? std::string(kind) : absl::StrCat(kind, "_", number);
    const std::string start = absl::StrCat(prefix, name, "/");
    const bool taken = std::any_of(graph.nodes().begin(), graph.nodes().end(), [&](const Node& node) {
      return node.op->kind == OpKind::kVariable && absl::string_view(node.name).substr(0, start.size()) == start;
    });
    if (!taken) return name;
  }
}

// Rows of a variable, TakeRows(variable, indices), and the rows of its gradient, which is zero
// elsewhere.
struct GradientRows {
  Value variable, gradient;
};

// Returns the size under the assumption that each symbol, such as the batch, is 32.
int64_t TypicalSize(const Dim& dim) {
  std::set<std::string> symbols;
  Shape{dim}.CollectSymbols(symbols);
  DimBindings bindings;
  for (const std::string& symbol : symbols) bindings[symbol] = 32;
  return Shape{dim}.Substitute(bindings)[0].size();
}

// Finds the rows of a gradient that comes from gathers along axis 0 only: ScatterAdd(0, indices,
// rows). Returns nullopt for other gradients, and if there are more rows than half of the
// variable's, which would not be faster.
std::optional<GradientRows> FindRows(const Value& gradient, const Value& variable) {
  const Graph& graph = *gradient.graph();
  const Node& node = gradient.node();
  if (node.op->kind != OpKind::kScatterAdd || node.attribute<int64_t>("axis") != 0) return std::nullopt;
  const Node& zeros = graph.node(node.inputs[0].node);
  if (zeros.op->kind != OpKind::kBroadcastTo) return std::nullopt;
  const Node& zero = graph.node(zeros.inputs[0].node);
  if (zero.op->kind != OpKind::kConstant || zero.attribute<Tensor>("value").num_elements() != 1 ||
      zero.attribute<Tensor>("value").ToDouble() != 0)
    return std::nullopt;
  const Value indices = AssignOperand(gradient, 1), rows = AssignOperand(gradient, 2);
  if (TypicalSize(indices.shape().num_elements()) > variable.shape()[0].size() / 2) return std::nullopt;
  return GradientRows{AddOp("TakeRows", {variable, indices}), AddOp("SumRows", {indices, rows})};
}

// Returns the variable whose rows (TakeRows) these are, or a variable itself.
Value VariableOf(const Value& rows) {
  return rows.valid() && rows.node().op->kind == OpKind::kTakeRows ? AssignOperand(rows, 0) : rows;
}

}  // namespace

LocationGuard CallLocation(Graph& graph, SourceLocation location) {
  return LocationGuard(graph, graph.builder().location.file != nullptr ? SourceLocation() : location);
}

Updater::Updater(const Values& variables, absl::string_view kind, const LearningRate& rate)
    : graph_(*variables[0].graph()),
      root_(graph_, *variables[0].node().op->registry),
      scope_(root_, UniqueName(graph_, kind)),
      rate_(rate) {
  for (const Value& variable : variables) {
    if (variable.dtype() == kFloat64) rate_dtype_ = kFloat64;
  }
}

Value Updater::Rate(DType dtype) {
  if (rate_value_.graph() == nullptr) {
    if (rate_.schedule() != nullptr) {
      rate_value_ = rate_.schedule()(Cast(StepsDone(), kFloat64));
    } else if (!rate_.number().has_value()) {
      rate_value_ = rate_.value();
    } else {
      CheckNumbers(graph_, "optimizer", {{"learning_rate", *rate_.number(), NumberCheck::kNotNegative}});
      rate_value_ = scope_.Variable("learning_rate", scope_.Constant(Tensor::ScalarOf(rate_dtype_, *rate_.number())),
                                    {.trainable = false});
    }
    if (!rate_value_.valid() || rate_value_.rank() != 0 || !IsFloating(rate_value_.dtype())) {
      std::string cause = ErrorOfCall(rate_value_);
      if (!cause.empty()) cause = absl::StrCat(": ", cause);
      graph_.RecordError(absl::InvalidArgumentError(
          absl::StrCat("optimizer: the learning rate has to be a floating scalar, and it is ",
                       rate_value_.valid() ? rate_value_.type().ToString() : "no value", cause, ", at ",
                       ToString(graph_.builder().location))));
      rate_value_ = Value(&graph_, Port{});
    }
  }
  return Cast(rate_value_, dtype);
}

Value Updater::StepsDone() {
  if (counter_.graph() == nullptr) {
    counter_ = scope_.Variable("step", scope_.Constant(Tensor::Scalar(int64_t{0})), {.trainable = false});
  }
  return counter_;
}

Value Updater::StepNumber(DType dtype) { return Cast(StepsDone() + 1, dtype); }

Value Updater::Slot(const Value& variable, absl::string_view name) {
  const Value whole = VariableOf(variable);
  const TensorType& type = whole.type();
  const Value slot =
      scope_.Variable(absl::StrCat(whole.node().name, name.empty() ? "" : "/", name),
                      BroadcastTo(scope_.Constant(Tensor::ScalarOf(type.dtype, 0)), type.shape), {.trainable = false});
  return whole == variable ? slot : AddOp("TakeRows", {slot, AssignOperand(variable, 1)});
}

Value Updater::Number(absl::string_view name, double initial) { return Scalar(name, Tensor::Scalar(initial)); }

Value Updater::Scalar(absl::string_view name, const Tensor& initial) {
  return scope_.Variable(name, scope_.Constant(initial), {.trainable = false});
}

void Updater::Assign(const Value& variable, const Value& value) {
  const Value whole = VariableOf(variable);
  update_.assignments.push_back(gradweave::Assign(
      whole, whole == variable ? value : AddOp("PutRows", {whole, AssignOperand(variable, 1), value})));
}

void Updater::Add(const Update& update) {
  update_.assignments.insert(update_.assignments.end(), update.assignments.begin(), update.assignments.end());
}

Update Updater::TakeUpdate() {
  if (counter_.graph() != nullptr) Assign(counter_, counter_ + 1);
  return std::move(update_);
}

Update ApplyToAll(const ApplyCall& call, std::initializer_list<NumberCheck> checks,
                  absl::FunctionRef<void(Updater& updater, const Values& gradients)> rule) {
  const Values& variables = call.variables;
  Values gradients = call.gradients.values();
  std::vector<Operand> operands;
  for (const Values* values : {&variables, &std::as_const(gradients)}) {
    for (const Value& value : *values) operands.emplace_back(value, call.gradients.location());
  }
  if (variables.empty() || !AllValid(call.name, operands)) return {};
  Graph& graph = *variables[0].graph();
  const LocationGuard guard = CallLocation(graph, ToSourceLocation(call.gradients.location()));
  if (gradients.size() != variables.size()) {
    graph.RecordError(absl::InvalidArgumentError(absl::StrCat(call.name, ": there are ", gradients.size(),
                                                              " gradients and ", variables.size(), " variables, at ",
                                                              ToString(graph.builder().location))));
    return {};
  }
  for (size_t i = 0; i < variables.size(); ++i) {
    if (gradients[i].type() == variables[i].type()) continue;
    BuilderError(call.name, {gradients[i], variables[i]},
                 absl::StrCat("the gradient of '", variables[i].node().name, "' has to have the variable's type"));
    return {};
  }
  if (!CheckNumbers(graph, call.name, checks)) return {};
  if (call.clip_value.has_value()) gradients = ClipByValue(gradients, *call.clip_value);
  if (call.clip_norm.has_value()) gradients = ClipByGlobalNorm(gradients, *call.clip_norm);
  Updater updater(variables, absl::AsciiStrToLower(call.name), call.rate);
  rule(updater, gradients);
  return updater.TakeUpdate();
}

Update ApplyRule(const ApplyCall& call, std::initializer_list<NumberCheck> checks,
                 absl::FunctionRef<Value(Updater& updater, const Value& gradient, const Value& variable)> rule) {
  return ApplyToAll(call, checks, [&](Updater& updater, const Values& gradients) {
    for (size_t i = 0; i < gradients.size(); ++i) {
      std::optional<GradientRows> rows;
      if (call.by_rows && gradients[i].valid()) rows = FindRows(gradients[i], call.variables[i]);
      if (!rows.has_value()) rows = GradientRows{call.variables[i], gradients[i]};
      updater.Assign(rows->variable, rule(updater, rows->gradient, rows->variable));
    }
  });
}

LossGradients GradientsOfLoss(absl::string_view name, const Operand& loss, Values variables, const Values& of_loss) {
  Graph& graph = *loss.graph();
  if (variables.empty()) variables = TrainableVariables(graph, loss.value());
  if (variables.empty()) {
    BuilderError(name, {loss}, "the loss depends on no trainable variable");
    return {};
  }
  const Values gradients = Gradients({loss.value()}, variables, of_loss, {.unreachable = GradientOptions::kInvalid});
  if (!graph.status().ok()) return {};
  LossGradients result;
  for (size_t i = 0; i < variables.size(); ++i) {
    if (!gradients[i].valid()) continue;
    result.variables.push_back(variables[i]);
    result.gradients.push_back(gradients[i]);
  }
  if (result.variables.empty()) {
    BuilderError(name, {loss},
                 absl::StrCat("no gradient reaches a variable: ", DescribeGradientCut(loss.value(), variables[0])));
  }
  return result;
}

bool CheckLoss(absl::string_view name, const Operand& loss) {
  if (!loss.is_value()) {
    NeedsValue(name, loss);
    return false;
  }
  if (loss.rank() == 0) return true;
  const LocationGuard guard = CallLocation(*loss.graph(), loss.location());
  BuilderError(name, {loss}, "the loss has to be a scalar; Mean or Sum makes one");
  return false;
}

Update Optimizer::Minimize(Operand loss, Values variables) const {
  if (!CheckLoss("Minimize", loss)) return {};
  const LocationGuard guard = CallLocation(*loss.graph(), loss.location());
  const LossGradients trained = GradientsOfLoss("Minimize", loss, std::move(variables));
  if (trained.variables.empty()) return {};
  Update update = Apply(trained.gradients, trained.variables);
  for (const Value& assignment : LayerUpdates(loss.value()).assignments) update.assignments.push_back(assignment);
  return update;
}

}  // namespace gradweave::optim
