// Optimizers: they add the nodes that assign new values to variables.
#ifndef GRADWEAVE_FRONTEND_OPTIMIZERS_H_
#define GRADWEAVE_FRONTEND_OPTIMIZERS_H_

#include <functional>
#include <optional>
#include <source_location>
#include <vector>

#include "gradweave/graph/graph.h"
#include "gradweave/runtime/session/session.h"

namespace gradweave::optim {

// A learning rate schedule: maps the number of completed steps, a float32 scalar, to a scalar of
// the graph.
using Schedule = std::function<Value(Value step)>;

Schedule StepDecay(double initial, double factor, int64_t every);         // initial * factor^floor(step/every).
Schedule ExponentialDecay(double initial, double factor, int64_t every);  // initial * factor^(step/every).
// Falls from `initial` to `final` along half a cosine in `steps` steps and then stays (Loshchilov
// and Hutter, "SGDR", 2017, formula 5).
Schedule CosineDecay(double initial, int64_t steps, double final = 0);
// then(0) * step/steps in the first `steps` steps, and then(step - steps) afterwards.
Schedule LinearWarmup(int64_t steps, Schedule then);
Schedule ConstantRate(double rate);  // rate.

// A learning rate. A number becomes the variable "<optimizer>/learning_rate", which
// Session::SetVariable can change. A value of the graph or a schedule is used directly. A negative
// number is an error.
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

// Minimize adds the gradients of a scalar loss and the updates to the graph. It returns the
// assignments that a training step runs: the variables, the optimizer's own state, and the layers'
// assignments with AssignOptions::with_training. Without `variables`, it updates all trainable
// variables on which the loss depends. Apply does the same from given gradients, without the
// layers' assignments. The optimizer's state is in variables "<optimizer>/<variable>/<slot>", which
// start at zero.
//
// In the formulas below, w is a variable, g its gradient plus weight_decay * w, and rate the
// learning rate. With clip_norm, ClipByGlobalNorm scales the gradients first. The formulas are those
// of PyTorch. Errors are recorded in the graph.

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
