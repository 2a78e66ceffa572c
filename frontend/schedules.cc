#include "gradweave/frontend/schedules.h"

#include <algorithm>
#include <cmath>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"
#include "gradweave/frontend/number_checks.h"
#include "gradweave/ops/elementwise.h"

namespace gradweave::optim {
namespace {

Value Number(const Value& like, double number) {
  return ConstantLike(like, Tensor::ScalarOf(like.dtype(), number), {});
}

Value Invalid(const Value& step) { return Value(step.graph(), Port{}); }

Value Mistake(const Value& step, absl::string_view message) {
  Graph& graph = *step.graph();
  graph.RecordError(absl::InvalidArgumentError(absl::StrCat(message, ", at ", ToString(graph.builder().location))));
  return Invalid(step);
}

// The schedule, after checks of its numbers in the graph that it is applied in.
Schedule Checked(const char* name, std::vector<NumberCheck> checks, Schedule schedule) {
  return [=](Value step) {
    for (const NumberCheck& check : checks) {
      if (!step.valid() || !CheckNumbers(*step.graph(), name, {check})) return Invalid(step);
    }
    return schedule(step);
  };
}

NumberCheck Rate(const char* name, double rate) { return {name, rate, NumberCheck::kNotNegative}; }
NumberCheck Count(const char* name, int64_t count) {
  return {name, static_cast<double>(count), NumberCheck::kAtLeastOne};
}

// From `from` to `to` along half a cosine, as the share, a value, goes from 0 to 1.
Value HalfCosine(double from, double to, const Value& share) {
  return (Cos(share * M_PI) + 1) * ((from - to) / 2) + to;
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
  return Checked("CosineDecay", {Rate("initial", initial), Count("steps", steps), Rate("final", final)},
                 [=](Value step) { return HalfCosine(initial, final, Minimum(step / static_cast<double>(steps), 1)); });
}

Schedule CosineRestarts(double initial, int64_t first, double growth, double final) {
  return Checked("CosineRestarts",
                 {Rate("initial", initial),
                  Count("first", first),
                  Rate("growth", growth),
                  {"growth", growth, NumberCheck::kAtLeastOne},
                  Rate("final", final)},
                 [=](Value step) {
                   const Value cycles = step / static_cast<double>(first);
                   if (growth == 1) return HalfCosine(initial, final, cycles - Floor(cycles));
                   // Cycle n is growth^n long and starts at (growth^n - 1)/(growth - 1). In the
                   // middle of a step, rounding does not make the wrong one of two cycles.
                   const Value middle = (step + 0.5) / static_cast<double>(first);
                   const Value n = Floor(Log1p(middle * (growth - 1)) / std::log(growth));
                   const Value length = Pow(Number(step, growth), n);
                   return HalfCosine(initial, final, (cycles - (length - 1) / (growth - 1)) / length);
                 });
}

Schedule PolynomialDecay(double initial, int64_t steps, double power, double final) {
  return Checked("PolynomialDecay",
                 {Rate("initial", initial),
                  Count("steps", steps),
                  Rate("power", power),
                  {"power", power, NumberCheck::kPositive},
                  Rate("final", final)},
                 [=](Value step) {
                   const Value left = 1 - Minimum(step / static_cast<double>(steps), 1);
                   return Pow(left, power) * (initial - final) + final;
                 });
}

Schedule PiecewiseConstant(std::vector<int64_t> boundaries, std::vector<double> rates) {
  return [boundaries = std::move(boundaries), rates = std::move(rates)](Value step) {
    if (!step.valid()) return step;
    Graph& graph = *step.graph();
    if (rates.size() != boundaries.size() + 1) {
      return Mistake(step, absl::StrCat("PiecewiseConstant: there are ", rates.size(), " rates and ", boundaries.size(),
                                        " boundaries, and there has to be one more rate than boundaries"));
    }
    for (double rate : rates) {
      if (!CheckNumbers(graph, "PiecewiseConstant", {Rate("a rate", rate)})) return Invalid(step);
    }
    Value result = Number(step, rates[0]);
    for (size_t i = 0; i < boundaries.size(); ++i) {
      if (boundaries[i] < 1 || (i > 0 && boundaries[i] <= boundaries[i - 1])) {
        return Mistake(step, absl::StrCat("PiecewiseConstant: boundary ", i, " is ", boundaries[i],
                                          ", and the boundaries have to rise from at least 1"));
      }
      result = Where(Less(step, static_cast<double>(boundaries[i])), result, Number(step, rates[i + 1]));
    }
    return result;
  };
}

Schedule LinearWarmup(int64_t steps, Schedule then) {
  return Checked("LinearWarmup", {Count("steps", steps)}, [steps, then = std::move(then)](Value step) {
    if (then == nullptr) return Mistake(step, "LinearWarmup: the schedule after it is null");
    const Value rising = then(Number(step, 0)) * (step / static_cast<double>(steps));
    return Where(Less(step, static_cast<double>(steps)), rising, then(Maximum(step - static_cast<double>(steps), 0)));
  });
}

Schedule OneCycle(double highest, int64_t steps, OneCycleOptions options) {
  return Checked("OneCycle",
                 {Rate("highest", highest),
                  Count("steps", steps),
                  {"warmup", options.warmup, NumberCheck::kBelowOne},
                  {"start_divisor", options.start_divisor, NumberCheck::kAtLeastOne},
                  {"final_divisor", options.final_divisor, NumberCheck::kAtLeastOne}},
                 [=](Value step) {
                   const double first = highest / options.start_divisor, last = first / options.final_divisor;
                   const double end = static_cast<double>(steps - 1);
                   const double top = std::max(options.warmup * static_cast<double>(steps) - 1, 0.0);
                   const Value falling =
                       HalfCosine(highest, last, Clip((step - top) / (end > top ? end - top : 1), 0, 1));
                   if (top == 0) return falling;
                   return Where(Less(step, top), HalfCosine(first, highest, Minimum(step / top, 1)), falling);
                 });
}

absl::StatusOr<double> ReduceOnPlateau::Next(double metric) {
  const absl::Status checked =
      CheckNumbers("ReduceOnPlateau", {{"rate", options_.rate, NumberCheck::kNotNegative},
                                       {"factor", options_.factor, NumberCheck::kBelowOne},
                                       {"patience", static_cast<double>(options_.patience), NumberCheck::kNotNegative},
                                       {"cooldown", static_cast<double>(options_.cooldown), NumberCheck::kNotNegative},
                                       {"threshold", options_.threshold, NumberCheck::kBelowOne},
                                       {"lowest", options_.lowest, NumberCheck::kNotNegative}});
  if (!checked.ok()) return checked;
  const double gain = options_.higher_is_better ? metric - best_ : best_ - metric;
  if (std::isnan(best_) || gain > options_.threshold * std::abs(best_)) {
    best_ = metric;
    waited_ = 0;
  } else {
    ++waited_;
  }
  if (cooling_ > 0) {
    --cooling_;
    waited_ = 0;
  }
  if (waited_ > options_.patience) {
    rate_ = std::max(rate_ * options_.factor, std::min(rate_, options_.lowest));
    cooling_ = options_.cooldown;
    waited_ = 0;
  }
  return rate_;
}

}  // namespace gradweave::optim
