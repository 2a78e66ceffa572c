#include "gradweave/frontend/loss_scaling.h"

#include <cmath>
#include <string>
#include <utility>

#include "absl/strings/str_cat.h"
#include "gradweave/frontend/updater.h"
#include "gradweave/ops/elementwise.h"
#include "gradweave/ops/reduction.h"
#include "gradweave/ops/state.h"

namespace gradweave::optim {
namespace {

constexpr absl::string_view kName = "MinimizeScaled";

// The largest scale. One above it might become infinite, and stay so.
constexpr double kLargestScale = 0x1p127;

bool CheckScaling(const Operand& loss, const LossScaling& scaling) {
  std::string problem;
  if (!(scaling.initial > 0) || scaling.initial > kLargestScale)
    problem = absl::StrCat("initial is ", scaling.initial, " and has to be above 0 and at most 2^127");
  if (!(scaling.growth_factor >= 1) || !std::isfinite(scaling.growth_factor))
    problem = absl::StrCat("growth_factor is ", scaling.growth_factor, " and has to be finite and at least 1");
  if (!(scaling.backoff_factor > 0 && scaling.backoff_factor < 1))
    problem = absl::StrCat("backoff_factor is ", scaling.backoff_factor, " and has to be above 0 and below 1");
  if (scaling.growth_interval < 1)
    problem = absl::StrCat("growth_interval is ", scaling.growth_interval, " and has to be at least 1");
  if (!problem.empty()) BuilderError(kName, {loss}, problem);
  return problem.empty();
}

struct State {
  Value scale, good_steps, skipped_steps;
};

// Makes the variables. Those of the optimizer, which come later, keep their names.
State MakeState(const Value& loss, double initial) {
  Updater updater({loss}, "loss_scaling", LearningRate(0));
  return {updater.Scalar("scale", Tensor::Scalar(static_cast<float>(initial))),
          updater.Scalar("good_steps", Tensor::Scalar(int64_t{0})),
          updater.Scalar("skipped_steps", Tensor::Scalar(int64_t{0}))};
}

// A bool scalar: true if all elements are finite. 0 times another number is NaN.
Value AllFinite(const Values& values) {
  Value sum;
  for (const Value& value : values) {
    const Value zero = Cast(Sum(Mul(value, 0)), kFloat64);
    sum = sum.valid() ? sum + zero : zero;
  }
  return Equal(sum, 0);
}

}  // namespace

Update MinimizeScaled(const Optimizer& optimizer, Operand loss, const LossScaling& scaling, Values variables) {
  if (!CheckLoss(kName, loss)) return {};
  const LocationGuard guard = CallLocation(*loss.graph(), loss.location());
  if (!CheckScaling(loss, scaling)) return {};
  const State state = MakeState(loss.value(), scaling.initial);
  const Value &scale = state.scale, &good_steps = state.good_steps, &skipped_steps = state.skipped_steps;

  LossGradients trained = GradientsOfLoss(kName, loss, std::move(variables), {Cast(scale, loss.value().dtype())});
  if (trained.variables.empty()) return {};
  const Value finite = AllFinite(trained.gradients);
  for (Value& gradient : trained.gradients) gradient = Div(gradient, Cast(scale, gradient.dtype()));
  Update update = optimizer.Apply(trained.gradients, trained.variables);
  for (const Value& assignment : LayerUpdates(loss.value()).assignments) update.assignments.push_back(assignment);

  Update result;
  for (const Value& assignment : update.assignments) {
    if (!assignment.valid()) return {};
    const Value variable = AssignOperand(assignment, 0);
    result.assignments.push_back(Assign(variable, Where(finite, AssignOperand(assignment, 1), variable)));
  }
  const Value grows = GreaterEqual(good_steps + 1, scaling.growth_interval);
  const Value larger = Minimum(scale * scaling.growth_factor, kLargestScale);
  const auto assign = [&](const Value& variable, const Value& value) {
    result.assignments.push_back(Assign(variable, value));
  };
  assign(scale, Where(finite, Where(grows, larger, scale), scale * scaling.backoff_factor));
  assign(good_steps, Where(finite && !grows, good_steps + 1, 0));
  assign(skipped_steps, Where(finite, skipped_steps, skipped_steps + 1));
  return result;
}

}  // namespace gradweave::optim
