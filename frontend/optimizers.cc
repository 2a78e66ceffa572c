#include "gradweave/frontend/optimizers.h"

#include <algorithm>
#include <cmath>

#include "absl/strings/string_view.h"
#include "gradweave/frontend/number_checks.h"
#include "gradweave/frontend/updater.h"
#include "gradweave/ops/elementwise.h"
#include "gradweave/ops/matmul.h"
#include "gradweave/ops/reduction.h"
#include "gradweave/ops/shape_ops.h"
#include "gradweave/ops/state.h"

namespace gradweave::optim {
namespace {

NumberCheck Beta(absl::string_view name, double beta) { return {name, beta, NumberCheck::kBelowOne}; }
NumberCheck NotNegative(absl::string_view name, double number) { return {name, number, NumberCheck::kNotNegative}; }

// The call of an optimizer with a rate and clipping.
template <typename O>
ApplyCall CallOf(absl::string_view name, const O& optimizer, const GivenGradients& gradients, const Values& variables,
                 bool by_rows = false) {
  return {.name = name,
          .gradients = gradients,
          .variables = variables,
          .rate = optimizer.learning_rate,
          .clip_norm = optimizer.clip_norm,
          .clip_value = optimizer.clip_value,
          .by_rows = by_rows};
}

Value WithDecay(const Value& gradient, const Value& variable, double weight_decay) {
  return weight_decay == 0 ? gradient : gradient + variable * weight_decay;
}

// The moving average beta*average + (1 - beta)*x in a slot of the variable, and its assignment.
Value MovingAverage(Updater& updater, const Value& variable, absl::string_view slot, double beta, const Value& x) {
  const Value average = updater.Slot(variable, slot);
  const Value next = average * beta + x * (1 - beta);
  updater.Assign(average, next);
  return next;
}

// 1 - beta^t, which a beta close to 1 would round away.
Value Correction(const Value& t, double beta) { return beta == 0 ? OnesLike(t) : Neg(Expm1(t * std::log(beta))); }

struct Moments {
  Value m, v;  // Moving averages of the gradient and its square.
};

template <typename O>
Moments AdamMoments(const O& o, Updater& updater, const Value& g, const Value& w) {
  const Value m = MovingAverage(updater, w, "m", o.beta1, g);
  return {m, MovingAverage(updater, w, "v", o.beta2, Square(g))};
}

template <typename O>
Value AdamDirection(const O& o, Updater& updater, const Value& g, const Value& w) {
  auto [m, v] = AdamMoments(o, updater, g, w);
  if constexpr (requires { o.amsgrad; }) {
    if (o.amsgrad) {
      const Value largest = updater.Slot(w, "v_max");
      v = Maximum(largest, v);
      updater.Assign(largest, v);
    }
  }
  const Value t = updater.StepNumber(w.dtype());
  const Value correction1 = Correction(t, o.beta1), correction2 = Correction(t, o.beta2);
  return (m / correction1) / (Sqrt(v / correction2) + o.epsilon);
}

}  // namespace

Update Sgd::Apply(const GivenGradients& gradients, const Values& variables) const {
  const bool by_rows = lazy_rows || (momentum == 0 && weight_decay == 0);
  return ApplyRule(CallOf("Sgd", *this, gradients, variables, by_rows),
                   {Beta("momentum", momentum), NotNegative("weight_decay", weight_decay)},
                   [this](Updater& updater, const Value& gradient, const Value& w) {
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

Update Adam::Apply(const GivenGradients& gradients, const Values& variables) const {
  return ApplyRule(CallOf("Adam", *this, gradients, variables, lazy_rows),
                   {Beta("beta1", beta1), Beta("beta2", beta2), NotNegative("epsilon", epsilon),
                    NotNegative("weight_decay", weight_decay)},
                   [this](Updater& updater, const Value& gradient, const Value& w) {
                     return w - AdamDirection(*this, updater, WithDecay(gradient, w, weight_decay), w) *
                                    updater.Rate(w.dtype());
                   });
}

Update AdamW::Apply(const GivenGradients& gradients, const Values& variables) const {
  return ApplyRule(CallOf("AdamW", *this, gradients, variables, lazy_rows),
                   {Beta("beta1", beta1), Beta("beta2", beta2), NotNegative("epsilon", epsilon),
                    NotNegative("weight_decay", weight_decay)},
                   [this](Updater& updater, const Value& gradient, const Value& w) {
                     const Value rate = updater.Rate(w.dtype());
                     return w * (1 - rate * weight_decay) - AdamDirection(*this, updater, gradient, w) * rate;
                   });
}

Update Adamax::Apply(const GivenGradients& gradients, const Values& variables) const {
  return ApplyRule(CallOf("Adamax", *this, gradients, variables),
                   {Beta("beta1", beta1), Beta("beta2", beta2), NotNegative("epsilon", epsilon),
                    NotNegative("weight_decay", weight_decay)},
                   [this](Updater& updater, const Value& gradient, const Value& w) {
                     const Value g = WithDecay(gradient, w, weight_decay);
                     const Value m = MovingAverage(updater, w, "m", beta1, g);
                     const Value u = updater.Slot(w, "u");
                     const Value new_u = Maximum(u * beta2, Abs(g) + epsilon);
                     updater.Assign(u, new_u);
                     const Value rate = updater.Rate(w.dtype()) / Correction(updater.StepNumber(w.dtype()), beta1);
                     return w - m / new_u * rate;
                   });
}

Update NAdam::Apply(const GivenGradients& gradients, const Values& variables) const {
  return ApplyToAll(CallOf("NAdam", *this, gradients, variables),
                    {Beta("beta1", beta1), Beta("beta2", beta2), NotNegative("epsilon", epsilon),
                     NotNegative("momentum_decay", momentum_decay), NotNegative("weight_decay", weight_decay)},
                    [&](Updater& updater, const Values& clipped) {
                      const Value t = updater.StepNumber(kFloat64);
                      auto momentum = [&](const Value& step) {
                        return (1 - Exp(step * (momentum_decay * std::log(0.96))) * 0.5) * beta1;
                      };
                      const Value mu = momentum(t), next_mu = momentum(t + 1);
                      const Value product = updater.Number("momentum_product", 1);
                      const Value new_product = product * mu;
                      updater.Assign(product, new_product);
                      const Value of_m = next_mu / (1 - new_product * next_mu), of_g = (1 - mu) / (1 - new_product);
                      for (size_t i = 0; i < variables.size(); ++i) {
                        const Value& w = variables[i];
                        const Value g = WithDecay(clipped[i], w, weight_decay);
                        const auto [m, v] = AdamMoments(*this, updater, g, w);
                        const Value deviation = Sqrt(v / Cast(Correction(t, beta2), w.dtype())) + epsilon;
                        const Value direction = (m * Cast(of_m, w.dtype()) + g * Cast(of_g, w.dtype())) / deviation;
                        updater.Assign(w, w - direction * updater.Rate(w.dtype()));
                      }
                    });
}

Update RAdam::Apply(const GivenGradients& gradients, const Values& variables) const {
  return ApplyRule(
      CallOf("RAdam", *this, gradients, variables),
      {Beta("beta1", beta1), Beta("beta2", beta2), NotNegative("epsilon", epsilon),
       NotNegative("weight_decay", weight_decay)},
      [this](Updater& updater, const Value& gradient, const Value& w) {
        const auto [m, v] = AdamMoments(*this, updater, WithDecay(gradient, w, weight_decay), w);
        // rho_t is a small difference of large numbers.
        const Value t = updater.StepNumber(kFloat64);
        const Value correction2 = Correction(t, beta2);
        Value direction = m / Cast(Correction(t, beta1), w.dtype());
        const double rho = 2 / (1 - beta2) - 1;
        if (rho > 5) {
          const Value rho_t = rho - 2 * t * (1 - correction2) / correction2;
          const Value large = Maximum(rho_t, 5);  // Where it is not, the root may be of a negative number.
          const Value r = Sqrt((large - 4) * (large - 2) / large * (rho / ((rho - 4) * (rho - 2))) * correction2);
          direction = Where(Greater(rho_t, 5), direction * Cast(r, w.dtype()) / (Sqrt(v) + epsilon), direction);
        }
        return w - direction * updater.Rate(w.dtype());
      });
}

Update RmsProp::Apply(const GivenGradients& gradients, const Values& variables) const {
  return ApplyRule(CallOf("RmsProp", *this, gradients, variables),
                   {Beta("alpha", alpha), NotNegative("epsilon", epsilon), Beta("momentum", momentum),
                    NotNegative("weight_decay", weight_decay)},
                   [this](Updater& updater, const Value& gradient, const Value& w) {
                     const Value g = WithDecay(gradient, w, weight_decay);
                     const Value s = MovingAverage(updater, w, "square_average", alpha, Square(g));
                     Value direction = g / (Sqrt(s) + epsilon);
                     if (momentum != 0) {
                       const Value slot = updater.Slot(w, "momentum");
                       direction = slot * momentum + direction;
                       updater.Assign(slot, direction);
                     }
                     return w - direction * updater.Rate(w.dtype());
                   });
}

Update Adagrad::Apply(const GivenGradients& gradients, const Values& variables) const {
  return ApplyRule(CallOf("Adagrad", *this, gradients, variables, weight_decay == 0 && epsilon > 0),
                   {NotNegative("epsilon", epsilon), NotNegative("weight_decay", weight_decay)},
                   [this](Updater& updater, const Value& gradient, const Value& w) {
                     const Value g = WithDecay(gradient, w, weight_decay);
                     const Value s = updater.Slot(w, "square_sum");
                     const Value new_s = s + Square(g);
                     updater.Assign(s, new_s);
                     return w - g / (Sqrt(new_s) + epsilon) * updater.Rate(w.dtype());
                   });
}

Update Adadelta::Apply(const GivenGradients& gradients, const Values& variables) const {
  return ApplyRule(CallOf("Adadelta", *this, gradients, variables),
                   {Beta("rho", rho),
                    {"epsilon", epsilon, NumberCheck::kPositive},
                    NotNegative("epsilon", epsilon),
                    NotNegative("weight_decay", weight_decay)},
                   [this](Updater& updater, const Value& gradient, const Value& w) {
                     const Value g = WithDecay(gradient, w, weight_decay);
                     const Value s = MovingAverage(updater, w, "square_average", rho, Square(g));
                     const Value a = updater.Slot(w, "step_average");
                     const Value step = Sqrt(a + epsilon) / Sqrt(s + epsilon) * g;
                     updater.Assign(a, a * rho + Square(step) * (1 - rho));
                     return w - step * updater.Rate(w.dtype());
                   });
}

Update Lion::Apply(const GivenGradients& gradients, const Values& variables) const {
  return ApplyRule(CallOf("Lion", *this, gradients, variables),
                   {Beta("beta1", beta1), Beta("beta2", beta2), NotNegative("weight_decay", weight_decay)},
                   [this](Updater& updater, const Value& g, const Value& w) {
                     const Value m = updater.Slot(w, "m");
                     updater.Assign(m, m * beta2 + g * (1 - beta2));
                     const Value direction = Sign(m * beta1 + g * (1 - beta1));
                     return w - WithDecay(direction, w, weight_decay) * updater.Rate(w.dtype());
                   });
}

Update Lamb::Apply(const GivenGradients& gradients, const Values& variables) const {
  return ApplyRule(CallOf("Lamb", *this, gradients, variables),
                   {Beta("beta1", beta1), Beta("beta2", beta2), NotNegative("epsilon", epsilon),
                    NotNegative("weight_decay", weight_decay)},
                   [this](Updater& updater, const Value& g, const Value& w) {
                     const Value u = WithDecay(AdamDirection(*this, updater, g, w), w, weight_decay);
                     const Value w_norm = Norm(w), u_norm = Norm(u);
                     const Value trust = Where(Greater(Minimum(w_norm, u_norm), 0), w_norm / u_norm, OnesLike(w_norm));
                     return w - u * (trust * updater.Rate(w.dtype()));
                   });
}

Value Orthogonalized(Operand matrix, int64_t iterations) {
  if (!matrix.is_value()) return NeedsValue("Orthogonalized", matrix);
  const LocationGuard guard = CallLocation(*matrix.graph(), matrix.location());
  if (matrix.rank() != 2) return BuilderError("Orthogonalized", {matrix}, "the operand has to be a matrix");
  if (!CheckNumbers(*matrix.graph(), "Orthogonalized",
                    {{"iterations", static_cast<double>(iterations), NumberCheck::kAtLeastOne}})) {
    return Value(matrix.graph(), Port{});
  }
  constexpr double kA = 3.4445, kB = -4.775, kC = 2.0315;
  // A A^T is the smaller product.
  const Dim rows = matrix.shape()[0], columns = matrix.shape()[1];
  const bool tall = rows.is_known() && columns.is_known() && rows.size() > columns.size();
  Value x = matrix.value() / Maximum(Norm(matrix), 1e-7);
  if (tall) x = Transpose(x);
  for (int64_t i = 0; i < iterations; ++i) {
    const Value a = MatMul(x, x, {.transpose_b = true});
    x = x * kA + MatMul(a * kB + MatMul(a, a) * kC, x);
  }
  return tall ? Transpose(x) : x;
}

Update Muon::Apply(const GivenGradients& gradients, const Values& variables) const {
  return ApplyToAll(CallOf("Muon", *this, gradients, variables),
                    {Beta("momentum", momentum),
                     {"iterations", static_cast<double>(iterations), NumberCheck::kAtLeastOne},
                     NotNegative("weight_decay", weight_decay)},
                    [&](Updater& updater, const Values& clipped) {
                      Values other_gradients, other_variables;
                      for (size_t i = 0; i < variables.size(); ++i) {
                        const Value &w = variables[i], &g = clipped[i];
                        if (orthogonalizes ? !orthogonalizes(w) : w.rank() < 2) {
                          other_gradients.push_back(g);
                          other_variables.push_back(w);
                          continue;
                        }
                        const Value m = MovingAverage(updater, w, "momentum", momentum, g);
                        Value u = nesterov ? g * (1 - momentum) + m * momentum : m;
                        if (w.rank() > 2) u = Flatten(u);
                        const Value orthogonal = Orthogonalized(u, iterations);
                        if (!orthogonal.valid()) return;
                        double in = static_cast<double>(u.shape()[0].size()),
                               out = static_cast<double>(u.shape()[1].size());
                        if (w.rank() > 2) std::swap(in, out);
                        const Value direction = Reshape(orthogonal, w.shape()) * std::sqrt(std::max(1.0, out / in));
                        updater.Assign(w, w - WithDecay(direction, w, weight_decay) * updater.Rate(w.dtype()));
                      }
                      if (!other_variables.empty()) updater.Add(others.Apply(other_gradients, other_variables));
                    });
}

Update Lookahead::Apply(const GivenGradients& gradients, const Values& variables) const {
  return ApplyToAll(
      {.name = "Lookahead", .gradients = gradients, .variables = variables, .rate = LearningRate(0)},
      {{"alpha", alpha, NumberCheck::kFraction}, {"every", static_cast<double>(every), NumberCheck::kAtLeastOne}},
      [&](Updater& updater, const Values& given) {
        const Update update = inner.Apply(given, variables);
        const Value done = updater.StepsDone(), t = done + 1;
        const Value is_last = Equal(t, t / every * every);
        for (const Value& w : variables) {
          const Value fast = AssignedValue(update, w);
          if (!fast.valid()) continue;
          const Value slot = updater.Slot(w, "slow");
          const Value slow = Where(Equal(done, 0), w, slot);
          const Value synchronized = slow + (fast - slow) * alpha;
          updater.Assign(slot, Where(is_last, synchronized, slow));
          updater.Assign(w, Where(is_last, synchronized, fast));
        }
        for (const Value& assignment : update.assignments) {
          const Value variable = assignment.graph()->value(assignment.node().inputs[0]);
          if (std::find(variables.begin(), variables.end(), variable) == variables.end()) updater.Add({{assignment}});
        }
      });
}

}  // namespace gradweave::optim
