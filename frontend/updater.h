// The common part of all optimizers.
#ifndef GRADWEAVE_FRONTEND_UPDATER_H_
#define GRADWEAVE_FRONTEND_UPDATER_H_

#include <initializer_list>
#include <optional>
#include <vector>

#include "absl/functional/function_ref.h"
#include "absl/strings/string_view.h"
#include "gradweave/frontend/number_checks.h"
#include "gradweave/frontend/optimizers.h"
#include "gradweave/ops/scope.h"

namespace gradweave::optim {

// While it lives, nodes and errors get the line of the user's call, unless a caller has set one.
LocationGuard CallLocation(Graph& graph, SourceLocation location);

// Makes an update: its variables "<kind>/...", its step counter, its learning rate and its
// assignments. A second optimizer of one kind is named "<kind>_2".
class Updater {
 public:
  // There is at least one variable, and all are valid.
  Updater(const Values& variables, absl::string_view kind, const LearningRate& rate);

  // The learning rate as a scalar of this dtype.
  Value Rate(DType dtype);
  // The number of steps before this one as an int64 scalar, and the number of the step, from 1, as
  // a scalar of this dtype.
  Value StepsDone();
  Value StepNumber(DType dtype);

  // State of the variable's type that starts at zero, "<kind>/<variable>/<name>", or
  // "<kind>/<variable>" if the name is empty; and a float64 scalar that starts at this number. For
  // rows of a variable (TakeRows), the same rows of its state.
  Value Slot(const Value& variable, absl::string_view name);
  Value Number(absl::string_view name, double initial);
  // The same with a value of any type.
  Value Scalar(absl::string_view name, const Tensor& initial);

  // Assigns the value to the variable, or to the rows of one (TakeRows).
  void Assign(const Value& variable, const Value& value);
  void Add(const Update& update);
  // The assignments so far, and the assignment of the step counter.
  Update TakeUpdate();

 private:
  Graph& graph_;
  Scope root_, scope_;
  LearningRate rate_;
  DType rate_dtype_ = kFloat32;
  Value rate_value_, counter_;
  Update update_;
};

// A call of an optimizer's Apply.
struct ApplyCall {
  absl::string_view name;  // "Adam"; in lower case, the kind in the names of its variables.
  const GivenGradients& gradients;
  const Values& variables;
  const LearningRate& rate;
  std::optional<double> clip_norm = {}, clip_value = {};
  // True if the rule does not change elements with a zero gradient, or if the user wants that. It
  // is then applied to some rows of a variable if the gradient is known to be zero in all others.
  bool by_rows = false;
};

// Assigns rule(updater, gradient, variable) to each variable. Gradients are clipped first by value
// and then by norm. With by_rows, gradient and variable may be rows of both. Records an error in
// the graph and returns an empty update if the numbers of gradients and variables differ, or if a
// number is out of range.
Update ApplyRule(const ApplyCall& call, std::initializer_list<NumberCheck> checks,
                 absl::FunctionRef<Value(Updater& updater, const Value& gradient, const Value& variable)> rule);

// The same for all variables at once: rule(updater, gradients) assigns them.
Update ApplyToAll(const ApplyCall& call, std::initializer_list<NumberCheck> checks,
                  absl::FunctionRef<void(Updater& updater, const Values& gradients)> rule);

// Records an error of the function `name` and returns false unless the loss is a scalar value.
bool CheckLoss(absl::string_view name, const Operand& loss);

// The variables that get a gradient, and their gradients.
struct LossGradients {
  std::vector<Value> variables, gradients;
};
// Returns what Minimize trains, with the gradients of the loss times `of_loss`, which is a scalar
// of its dtype, or none for 1. Records the errors of Minimize, which is `name`, and returns no
// variables then.
LossGradients GradientsOfLoss(absl::string_view name, const Operand& loss, std::vector<Value> variables,
                              const std::vector<Value>& of_loss = {});

// Returns for each node id whether the value depends on the node within a run. A variable does not
// depend on its initial value then.
std::vector<bool> Ancestors(const Graph& graph, NodeId of);

// The variable of an assignment, operand 0, or its new value, operand 1.
Value AssignOperand(const Value& assignment, int i);

// The assignments that make LayerUpdates(loss), one for each variable and call.
std::vector<Value> LayerAssignments(const Value& loss);

// The value that the update assigns to the variable; not valid if there is none.
Value AssignedValue(const Update& update, const Value& variable);

}  // namespace gradweave::optim

#endif  // GRADWEAVE_FRONTEND_UPDATER_H_
