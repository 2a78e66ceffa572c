// Optimizers: they add the nodes that assign new values to variables.
#ifndef GRADWEAVE_FRONTEND_OPTIMIZERS_H_
#define GRADWEAVE_FRONTEND_OPTIMIZERS_H_

#include <optional>
#include <source_location>
#include <vector>

#include "gradweave/frontend/schedules.h"
#include "gradweave/graph/graph.h"
#include "gradweave/runtime/session/session.h"

namespace gradweave::optim {

// A number becomes the variable "<optimizer>/learning_rate", which Session::SetVariable changes; it is
// float64 if a variable that is trained is, else float32. A scalar of the graph or a schedule is used as
// it is.
class LearningRate {
 public:
  LearningRate(double number) : number_(number) {}                     // NOLINT
  LearningRate(Value value) : value_(value) {}                         // NOLINT
  LearningRate(Schedule schedule) : schedule_(std::move(schedule)) {}  // NOLINT

  const std::optional<double>& number() const { return number_; }
  const Value& value() const { return value_; }
  const Schedule& schedule() const { return schedule_; }

 private:
  std::optional<double> number_;
  Value value_;
  Schedule schedule_;
};

// Returns the trainable variables of the graph; with a loss, only those on which the loss depends.
std::vector<Value> TrainableVariables(Graph& graph, std::optional<Value> loss = {});

// Scales the gradients by min(1, max_norm/norm), where norm is the square root of the sum of all
// their squares (Pascanu et al., "On the difficulty of training recurrent neural networks", 2013,
// algorithm 1). max_norm must be positive.
std::vector<Value> ClipByGlobalNorm(const std::vector<Value>& gradients, double max_norm);

// The assignments that layers made to go with the training of this loss, such as BatchNorm's moving
// averages: those of exactly the calls of layers that the loss depends on. Where several of these calls
// assign one variable, as a layer does that is applied to two inputs, one assignment does the work of
// all, one after the other in the order of the calls. Minimize adds them; with Apply, run them beside its
// update:
//
//   session->Run(feeds, {loss, sgd.Apply(gradients, variables), gw::optim::LayerUpdates(loss)});
// The update may be empty.
Update LayerUpdates(Value loss);

// One update that does `first` and then `second`: in `second`, reads of variables that `first` assigns
// give their new values, and a variable that both assign is assigned once.
//
//   gw::Update step = gw::optim::Then(sgd.Minimize(loss), {{gw::Assign(w, gw::Clip(w, -1, 1))}});
//
// An assignment that is not valid is left out; its error is in the graph.
Update Then(const Update& first, const Update& second);

// Each optimizer's Minimize adds the gradients of the scalar loss and the updates, and returns what a
// training step has to run: new values of the variables, of the optimizer's own state, and
// LayerUpdates(loss). Where no variables are given, these are all trainable ones that the loss depends
// on. A variable that no gradient reaches, as behind StopGradient, is left alone, by weight decay too; it
// is an error if that goes for all. Apply makes the update from given gradients. State is kept in
// variables "<optimizer>/<variable>/<slot>", which start at zero, and the number of steps in the int64
// variable "<optimizer>/step". g is the gradient plus weight_decay * w; formulas are PyTorch's.
//
// Errors are recorded in the graph: numbers outside their range, a loss that is no scalar, and a loss
// that trains nothing. Ranges: momentum, alpha and betas in [0, 1); epsilon and weight_decay finite and
// at least 0; clip_norm above 0; learning rates finite and at least 0.

// v = momentum*v + g;  w -= rate * (nesterov ? g + momentum*v : v).
struct Sgd {
  LearningRate learning_rate = 0.01;
  double momentum = 0;
  bool nesterov = false;
  double weight_decay = 0;
  std::optional<double> clip_norm = {};
  Update Minimize(Value loss, std::vector<Value> variables = {},
                  std::source_location location = std::source_location::current()) const;
  Update Apply(const std::vector<Value>& gradients, const std::vector<Value>& variables) const;
};

// m = beta1*m + (1 - beta1)*g;  v = beta2*v + (1 - beta2)*g^2;
// w -= rate * m/(1 - beta1^t) / (sqrt(v/(1 - beta2^t)) + epsilon), where t counts the steps from 1
// (Kingma and Ba, "Adam", 2015, algorithm 1).
struct Adam {
  LearningRate learning_rate = 0.001;
  double beta1 = 0.9, beta2 = 0.999, epsilon = 1e-8;
  double weight_decay = 0;
  std::optional<double> clip_norm = {};
  Update Minimize(Value loss, std::vector<Value> variables = {},
                  std::source_location location = std::source_location::current()) const;
  Update Apply(const std::vector<Value>& gradients, const std::vector<Value>& variables) const;
};

// Adam that first scales w by 1 - rate*weight_decay instead of adding the decay to g (Loshchilov
// and Hutter, "Decoupled weight decay regularization", 2019).
struct AdamW {
  LearningRate learning_rate = 0.001;
  double beta1 = 0.9, beta2 = 0.999, epsilon = 1e-8;
  double weight_decay = 0.01;
  std::optional<double> clip_norm = {};
  Update Minimize(Value loss, std::vector<Value> variables = {},
                  std::source_location location = std::source_location::current()) const;
  Update Apply(const std::vector<Value>& gradients, const std::vector<Value>& variables) const;
};

// s = alpha*s + (1 - alpha)*g^2;  u = momentum*u + g/(sqrt(s) + epsilon);  w -= rate * u (Tieleman
// and Hinton, lecture 6.5, 2012).
struct RmsProp {
  LearningRate learning_rate = 0.01;
  double alpha = 0.99, epsilon = 1e-8, momentum = 0;
  double weight_decay = 0;
  std::optional<double> clip_norm = {};
  Update Minimize(Value loss, std::vector<Value> variables = {},
                  std::source_location location = std::source_location::current()) const;
  Update Apply(const std::vector<Value>& gradients, const std::vector<Value>& variables) const;
};

// s += g^2;  w -= rate * g/(sqrt(s) + epsilon) (Duchi et al., "Adaptive subgradient methods", 2011).
struct Adagrad {
  LearningRate learning_rate = 0.01;
  double epsilon = 1e-10;
  double weight_decay = 0;
  std::optional<double> clip_norm = {};
  Update Minimize(Value loss, std::vector<Value> variables = {},
                  std::source_location location = std::source_location::current()) const;
  Update Apply(const std::vector<Value>& gradients, const std::vector<Value>& variables) const;
};

}  // namespace gradweave::optim

#endif  // GRADWEAVE_FRONTEND_OPTIMIZERS_H_
