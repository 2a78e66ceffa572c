// Optimizers: they add the nodes that assign new values to variables.
#ifndef GRADWEAVE_FRONTEND_OPTIMIZERS_H_
#define GRADWEAVE_FRONTEND_OPTIMIZERS_H_

#include <cstdint>
#include <functional>
#include <initializer_list>
#include <optional>
#include <source_location>
#include <type_traits>
#include <utility>
#include <vector>

#include "gradweave/frontend/schedules.h"
#include "gradweave/frontend/updates.h"
#include "gradweave/graph/graph.h"
#include "gradweave/ops/builder.h"
#include "gradweave/runtime/session/session.h"

namespace gradweave::optim {

// A number becomes the variable "<optimizer>/learning_rate", which Session::SetVariable changes. It
// is float64 if a trained variable is float64, else float32. A scalar of the graph or a schedule is
// used directly.
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

using Values = std::vector<Value>;

// Gradients, in the order of their variables, and the line of the call that passes them, which
// errors name.
class GivenGradients {
 public:
  GivenGradients(Values values, std::source_location location = std::source_location::current())  // NOLINT
      : values_(std::move(values)), location_(location) {}
  GivenGradients(std::initializer_list<Value> values, std::source_location location = std::source_location::current())
      : values_(values), location_(location) {}

  operator const Values&() const { return values_; }  // NOLINT
  const Values& values() const { return values_; }
  const std::source_location& location() const { return location_; }

 private:
  Values values_;
  std::source_location location_;
};

// Each optimizer's Minimize adds the gradients of the scalar loss and the updates, and returns the
// assignments of a training step: new values of the variables, of the optimizer's own state, and
// LayerUpdates(loss). If no variables are given, these are all trainable variables that the loss
// depends on. A variable that no gradient reaches, for example because of StopGradient, does not
// change, not even by weight decay; it is an error if no gradient reaches any variable. Apply makes
// the update from given gradients, so parts of a model may have optimizers and rates of their own:
//
//   session->Run(feeds, {sgd.Apply(body_gradients, body), adam.Apply(head_gradients, head)});
//
// State is kept in variables "<optimizer>/<variable>/<slot>", which start at zero, and the number
// of steps in the int64 variable "<optimizer>/step". g is the gradient plus weight_decay * w, t
// counts the steps from 1, and formulas are PyTorch's, except where noted. Gradients are first
// limited to ±clip_value (ClipByValue), then scaled to the global norm clip_norm
// (ClipByGlobalNorm), if these are given.
//
// A variable that the loss only gathers along axis 0, such as the table of an Embedding, has a
// gradient that is zero except for the gathered rows. If these are few, Sgd without momentum and
// decay, and Adagrad without decay, read and write only these rows; the results have the same bits
// as with the whole gradient. The other rules change every row in each step, also by decay and by
// moments from earlier steps. With lazy_rows, Sgd, Adam and AdamW do not change the other rows and
// their moments: results differ from the formulas, and a step takes time for the gathered rows
// only. A variable that the loss also reads as a whole, and a clipped gradient, are updated as a
// whole.
//
// Errors are recorded in the graph: numbers outside their range, a loss that is not a scalar, and a
// loss that trains no variable. Ranges: momentum, alpha, rho and betas in [0, 1); epsilon and
// weight_decay finite and at least 0; clip_norm and clip_value finite and above 0; learning rates
// finite and at least 0.

// Any optimizer: one of those below, or a user's type with a function Apply of gradients and
// variables.
class Optimizer {
 public:
  template <typename O>
  requires(!std::is_same_v<O, Optimizer>) Optimizer(O optimizer)  // NOLINT: Lookahead{.inner = Adam{}}
      : apply_([optimizer = std::move(optimizer)](const GivenGradients& gradients, const Values& variables) {
          return optimizer.Apply(gradients, variables);
        }) {}

  Update Minimize(Operand loss, Values variables = {}) const;
  Update Apply(const GivenGradients& gradients, const Values& variables) const { return apply_(gradients, variables); }

 private:
  std::function<Update(const GivenGradients&, const Values&)> apply_;
};

// v = momentum*v + g;  w -= rate * (nesterov ? g + momentum*v : v).
struct Sgd {
  LearningRate learning_rate = 0.01;
  double momentum = 0;
  bool nesterov = false;
  double weight_decay = 0;
  std::optional<double> clip_norm = {}, clip_value = {};
  bool lazy_rows = false;
  Update Minimize(Operand loss, Values variables = {}) const { return Optimizer(*this).Minimize(loss, variables); }
  Update Apply(const GivenGradients& gradients, const Values& variables) const;
};

// With
//   m = beta1*m + (1 - beta1)*g,  v = beta2*v + (1 - beta2)*g^2:
//   w -= rate * m/(1 - beta1^t) / (sqrt(v/(1 - beta2^t)) + epsilon)
// (Kingma and Ba, "Adam", 2015, algorithm 1). With amsgrad, the last line uses the largest v so far
// (Reddi et al., "On the convergence of Adam and beyond", 2018, algorithm 2).
struct Adam {
  LearningRate learning_rate = 0.001;
  double beta1 = 0.9, beta2 = 0.999, epsilon = 1e-8;
  double weight_decay = 0;
  std::optional<double> clip_norm = {}, clip_value = {};
  bool amsgrad = false;
  bool lazy_rows = false;
  Update Minimize(Operand loss, Values variables = {}) const { return Optimizer(*this).Minimize(loss, variables); }
  Update Apply(const GivenGradients& gradients, const Values& variables) const;
};

// Adam that first scales w by 1 - rate*weight_decay instead of adding the decay to g (Loshchilov
// and Hutter, "Decoupled weight decay regularization", 2019).
struct AdamW {
  LearningRate learning_rate = 0.001;
  double beta1 = 0.9, beta2 = 0.999, epsilon = 1e-8;
  double weight_decay = 0.01;
  std::optional<double> clip_norm = {}, clip_value = {};
  bool amsgrad = false;
  bool lazy_rows = false;
  Update Minimize(Operand loss, Values variables = {}) const { return Optimizer(*this).Minimize(loss, variables); }
  Update Apply(const GivenGradients& gradients, const Values& variables) const;
};

// With Adam's m and
//   u = max(beta2*u, |g| + epsilon):
//   w -= rate * m/(1 - beta1^t) / u
// (Kingma and Ba, "Adam", 2015, algorithm 2).
struct Adamax {
  LearningRate learning_rate = 0.002;
  double beta1 = 0.9, beta2 = 0.999, epsilon = 1e-8;
  double weight_decay = 0;
  std::optional<double> clip_norm = {}, clip_value = {};
  Update Minimize(Operand loss, Values variables = {}) const { return Optimizer(*this).Minimize(loss, variables); }
  Update Apply(const GivenGradients& gradients, const Values& variables) const;
};

// Adam with Nesterov's momentum. With Adam's m and v, and
//   mu_t = beta1 * (1 - 0.96^(t*momentum_decay)/2),  M_t = mu_1 * ... * mu_t:
//   w -= rate * (mu_{t+1} * m/(1 - M_{t+1}) + (1 - mu_t) * g/(1 - M_t))
//        / (sqrt(v/(1 - beta2^t)) + epsilon)
// (Dozat, "Incorporating Nesterov momentum into Adam", 2016, algorithm 2). momentum_decay is at
// least 0.
struct NAdam {
  LearningRate learning_rate = 0.002;
  double beta1 = 0.9, beta2 = 0.999, epsilon = 1e-8, momentum_decay = 0.004;
  double weight_decay = 0;
  std::optional<double> clip_norm = {}, clip_value = {};
  Update Minimize(Operand loss, Values variables = {}) const { return Optimizer(*this).Minimize(loss, variables); }
  Update Apply(const GivenGradients& gradients, const Values& variables) const;
};

// Rectified Adam. With Adam's m and v, and
//   rho = 2/(1 - beta2) - 1,  rho_t = rho - 2*t*beta2^t/(1 - beta2^t),
//   r = sqrt((rho_t - 4)*(rho_t - 2)*rho / ((rho - 4)*(rho - 2)*rho_t)):
//   w -= rate * m/(1 - beta1^t) * r * sqrt(1 - beta2^t)/(sqrt(v) + epsilon)   where rho_t > 5,
//   w -= rate * m/(1 - beta1^t)                                               elsewhere
// (Liu et al., "On the variance of the adaptive learning rate and beyond", 2020, algorithm 2).
struct RAdam {
  LearningRate learning_rate = 0.001;
  double beta1 = 0.9, beta2 = 0.999, epsilon = 1e-8;
  double weight_decay = 0;
  std::optional<double> clip_norm = {}, clip_value = {};
  Update Minimize(Operand loss, Values variables = {}) const { return Optimizer(*this).Minimize(loss, variables); }
  Update Apply(const GivenGradients& gradients, const Values& variables) const;
};

// s = alpha*s + (1 - alpha)*g^2;  u = momentum*u + g/(sqrt(s) + epsilon);  w -= rate * u (Tieleman
// and Hinton, lecture 6.5, 2012).
struct RmsProp {
  LearningRate learning_rate = 0.01;
  double alpha = 0.99, epsilon = 1e-8, momentum = 0;
  double weight_decay = 0;
  std::optional<double> clip_norm = {}, clip_value = {};
  Update Minimize(Operand loss, Values variables = {}) const { return Optimizer(*this).Minimize(loss, variables); }
  Update Apply(const GivenGradients& gradients, const Values& variables) const;
};

// s += g^2;  w -= rate * g/(sqrt(s) + epsilon) (Duchi et al., "Adaptive subgradient methods",
// 2011).
struct Adagrad {
  LearningRate learning_rate = 0.01;
  double epsilon = 1e-10;
  double weight_decay = 0;
  std::optional<double> clip_norm = {}, clip_value = {};
  Update Minimize(Operand loss, Values variables = {}) const { return Optimizer(*this).Minimize(loss, variables); }
  Update Apply(const GivenGradients& gradients, const Values& variables) const;
};

// With
//   s = rho*s + (1 - rho)*g^2,  d = sqrt(a + epsilon)/sqrt(s + epsilon) * g:
//   w -= rate * d,  a = rho*a + (1 - rho)*d^2
// (Zeiler, "Adadelta", 2012, algorithm 1). epsilon is above 0.
struct Adadelta {
  LearningRate learning_rate = 1;
  double rho = 0.9, epsilon = 1e-6;
  double weight_decay = 0;
  std::optional<double> clip_norm = {}, clip_value = {};
  Update Minimize(Operand loss, Values variables = {}) const { return Optimizer(*this).Minimize(loss, variables); }
  Update Apply(const GivenGradients& gradients, const Values& variables) const;
};

// With g the gradient alone:
//   w -= rate * (sign(beta1*m + (1 - beta1)*g) + weight_decay*w),  m = beta2*m + (1 - beta2)*g
// (Chen et al., "Symbolic discovery of optimization algorithms", 2023, algorithm 2). The rate is
// commonly a third to a tenth of Adam's.
struct Lion {
  LearningRate learning_rate = 0.0001;
  double beta1 = 0.9, beta2 = 0.99;
  double weight_decay = 0;
  std::optional<double> clip_norm = {}, clip_value = {};
  Update Minimize(Operand loss, Values variables = {}) const { return Optimizer(*this).Minimize(loss, variables); }
  Update Apply(const GivenGradients& gradients, const Values& variables) const;
};

// With g the gradient alone, Adam's m and v, and
//   u = m/(1 - beta1^t) / (sqrt(v/(1 - beta2^t)) + epsilon) + weight_decay*w:
//   w -= rate * |w|/|u| * u
// with norms over the variable; the quotient is 1 where either norm is 0 (You et al., "Large batch
// optimization for deep learning", 2020, algorithm 2).
struct Lamb {
  LearningRate learning_rate = 0.001;
  double beta1 = 0.9, beta2 = 0.999, epsilon = 1e-6;
  double weight_decay = 0.01;
  std::optional<double> clip_norm = {}, clip_value = {};
  Update Minimize(Operand loss, Values variables = {}) const { return Optimizer(*this).Minimize(loss, variables); }
  Update Apply(const GivenGradients& gradients, const Values& variables) const;
};

// Momentum whose matrices are made nearly orthogonal. With g the gradient alone, and
//   m = momentum*m + (1 - momentum)*g,  u = nesterov ? (1 - momentum)*g + momentum*m : m:
//   w -= rate * (sqrt(max(1, out/in)) * Orthogonalized(u, iterations) + weight_decay*w)
// (Jordan et al., "Muon: an optimizer for hidden layers in neural networks", 2024). A dense weight
// is the matrix [in, out]; a filter is the matrix [out, in], where `in` is the product of its other
// axes. The optimizer is meant for the weights of hidden layers, so `orthogonalizes` says which
// variables it is for; by default these are all with two or more axes. The others go to the
// optimizer `others`, whose own variables are "muon/adamw/...". iterations is at least 1.
struct Muon {
  LearningRate learning_rate = 0.02;
  double momentum = 0.95;
  bool nesterov = true;
  int64_t iterations = 5;
  std::function<bool(const Value& variable)> orthogonalizes = {};
  Optimizer others = AdamW{.learning_rate = 3e-4, .beta2 = 0.95, .weight_decay = 0};
  double weight_decay = 0;
  std::optional<double> clip_norm = {}, clip_value = {};
  Update Minimize(Operand loss, Values variables = {}) const { return Optimizer(*this).Minimize(loss, variables); }
  Update Apply(const GivenGradients& gradients, const Values& variables) const;
};

// `iterations` steps of
//   X = a*X + (b*A + c*A^2)*X  with  A = X*X^T, a = 3.4445, b = -4.775, c = 2.0315,
// from the matrix divided by its norm, transposed if it has more rows than columns. Five steps
// bring all singular values above 0.002 of the norm to between 0.68 and 1.21 (ibid.).
Value Orthogonalized(Operand matrix, int64_t iterations = 5);

// After every `every` steps of the optimizer `inner`, the weights move back toward the slow
// weights:
//   slow += alpha * (w - slow),  w = slow
// (Zhang et al., "Lookahead optimizer", 2019, algorithm 1). Before the first step, the slow weights
// are the variables' values. The inner optimizer's own variables are "lookahead/<inner>/...". alpha
// is in [0, 1], and `every` is at least 1.
struct Lookahead {
  Optimizer inner;
  double alpha = 0.5;
  int64_t every = 5;
  Update Minimize(Operand loss, Values variables = {}) const { return Optimizer(*this).Minimize(loss, variables); }
  Update Apply(const GivenGradients& gradients, const Values& variables) const;
};

}  // namespace gradweave::optim

#endif  // GRADWEAVE_FRONTEND_OPTIMIZERS_H_
