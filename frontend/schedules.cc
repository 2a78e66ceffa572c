#include "gradweave/frontend/schedules.h"

#include <cmath>
#include <utility>
#include <vector>

#include "gradweave/frontend/number_checks.h"
#include "gradweave/ops/elementwise.h"

namespace gradweave::optim {
namespace {

Value Number(const Value& like, double number) {
  return ConstantLike(like, Tensor::ScalarOf(like.dtype(), number), {});
}

// The schedule, after checks of its numbers in the graph that it is applied in.
Schedule Checked(const char* name, std::vector<NumberCheck> checks, Schedule schedule) {
  return [=](Value step) {
    for (const NumberCheck& check : checks) {
      if (!step.valid() || !CheckNumbers(*step.graph(), name, {check})) return Value(step.graph(), Port{});
    }
    return schedule(step);
  };
}

NumberCheck Rate(const char* name, double rate) { return {name, rate, NumberCheck::kNotNegative}; }
NumberCheck Count(const char* name, int64_t count) {
  return {name, static_cast<double>(count), NumberCheck::kAtLeastOne};
}

}  // namespace

Schedule ConstantRate(double rate) {
  return Checked("ConstantRate", {Rate("rate", rate)}, [=](Value step) { return Number(step, rate); });
}

Schedule StepDecay(double initial, double factor, int64_t every) {
  return Checked(
      "StepDecay", {Rate("initial", initial), Rate("factor", factor), Count("every", every)},
      [=](Value step) { return Pow(Number(step, factor), Floor(step / static_cast<double>(every))) * initial; });
}

Schedule ExponentialDecay(double initial, double factor, int64_t every) {
  return Checked("ExponentialDecay", {Rate("initial", initial), Rate("factor", factor), Count("every", every)},
                 [=](Value step) { return Pow(Number(step, factor), step / static_cast<double>(every)) * initial; });
}

Schedule CosineDecay(double initial, int64_t steps, double final) {
  return Checked(
      "CosineDecay", {Rate("initial", initial), Count("steps", steps), Rate("final", final)}, [=](Value step) {
        return (Cos(Minimum(step / static_cast<double>(steps), 1) * M_PI) + 1) * ((initial - final) / 2) + final;
      });
}

Schedule LinearWarmup(int64_t steps, Schedule then) {
  return Checked("LinearWarmup", {Count("steps", steps)}, [steps, then = std::move(then)](Value step) {
    const Value rising = then(Number(step, 0)) * (step / static_cast<double>(steps));
    return Where(Less(step, static_cast<double>(steps)), rising, then(Maximum(step - static_cast<double>(steps), 0)));
  });
}

}  // namespace gradweave::optim
