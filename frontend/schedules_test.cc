// Schedules: their rates step by step, and what they refuse. Rates that are written out are those
// of PyTorch 1.13's torch.optim.lr_scheduler.
#include "gradweave/frontend/schedules.h"

#include <cmath>
#include <cstdint>
#include <limits>
#include <string>
#include <utility>
#include <vector>

#include "gmock/gmock.h"
#include "gradweave/ops/elementwise.h"
#include "gradweave/ops/scope.h"
#include "gradweave/runtime/session/session.h"
#include "gtest/gtest.h"

namespace gradweave::optim {
namespace {

using ::testing::DoubleEq;
using ::testing::DoubleNear;
using ::testing::HasSubstr;
using ::testing::Pointwise;

std::vector<double> RatesAt(const Schedule& schedule, const std::vector<double>& steps) {
  Graph graph;
  Scope scope(graph);
  const Value step = scope.Input("step", kFloat64, {});
  const Value rate = schedule(step);
  EXPECT_TRUE(graph.status().ok()) << graph.status();
  absl::StatusOr<Session> session = Session::Create(graph, {.threads = 1});
  std::vector<double> rates;
  for (double number : steps) {
    const absl::StatusOr<std::vector<Tensor>> results = session->Run({{step, Tensor::Scalar(number)}}, {rate});
    EXPECT_TRUE(results.ok()) << results.status();
    rates.push_back(results.ok() ? (*results)[0].ToDouble() : NAN);
  }
  return rates;
}

// The rates of the first steps.
std::vector<double> Rates(const Schedule& schedule, int64_t count) {
  std::vector<double> steps;
  for (int64_t step = 0; step < count; ++step) steps.push_back(static_cast<double>(step));
  return RatesAt(schedule, steps);
}

TEST(Schedules, AreTheirFormulas) {
  const auto near = [](std::vector<double> rates) { return Pointwise(DoubleNear(1e-15), std::move(rates)); };
  EXPECT_THAT(Rates(ConstantRate(0.3), 3), near({0.3, 0.3, 0.3}));
  EXPECT_THAT(Rates(StepDecay(0.4, 0.5, 2), 5), near({0.4, 0.4, 0.2, 0.2, 0.1}));
  EXPECT_THAT(Rates(ExponentialDecay(0.4, 0.25, 2), 4), near({0.4, 0.2, 0.1, 0.05}));
  EXPECT_THAT(Rates(CosineDecay(0.4, 2, 0.1), 5), near({0.4, 0.25, 0.1, 0.1, 0.1}));
  EXPECT_THAT(Rates(LinearWarmup(4, StepDecay(0.4, 0.5, 1)), 7), near({0, 0.1, 0.2, 0.3, 0.4, 0.2, 0.1}));
  EXPECT_THAT(Rates(PolynomialDecay(0.5, 4, 1, 0.1), 6), near({0.5, 0.4, 0.3, 0.2, 0.1, 0.1}));
  EXPECT_THAT(Rates(PiecewiseConstant({2, 5}, {0.4, 0.04, 0.7}), 7), near({0.4, 0.4, 0.04, 0.04, 0.04, 0.7, 0.7}));
  EXPECT_THAT(Rates(PiecewiseConstant({}, {0.4}), 2), near({0.4, 0.4}));
}

TEST(Schedules, AreThoseOfPyTorch) {
  const auto near = [](std::vector<double> rates) { return Pointwise(DoubleNear(1e-15), std::move(rates)); };
  EXPECT_THAT(Rates(PolynomialDecay(0.4, 8, 2), 10),
              near({0.4, 0.30625, 0.225, 0.15625, 0.1, 0.05625, 0.025, 0.00625, 0, 0}));
  EXPECT_THAT(Rates(CosineRestarts(0.4, 3, 1, 0.01), 8), near({0.4, 0.3025, 0.1075, 0.4, 0.3025, 0.1075, 0.4, 0.3025}));
  EXPECT_THAT(Rates(CosineRestarts(0.4, 2, 2), 14),
              near({0.4, 0.2, 0.4, 0.34142135623730951, 0.2, 0.058578643762690508, 0.4, 0.38477590650225735,
                    0.34142135623730951, 0.27653668647301799, 0.2, 0.12346331352698206, 0.058578643762690508,
                    0.015224093497742654}));
  EXPECT_THAT(Rates(OneCycle(0.4, 10), 12),
              near({0.016, 0.208, 0.4, 0.38019385280538953, 0.32469826157990522, 0.24450480877451572,
                    0.15549679122548429, 0.075303338420094804, 0.019807747194610516, 1.6e-06, 1.6e-06, 1.6e-06}));
  EXPECT_THAT(Rates(OneCycle(1, 12, {.warmup = 0.5, .start_divisor = 10, .final_divisor = 100}), 12),
              near({0.1, 0.18594235253127367, 0.41094235253127365, 0.68905764746872622, 0.91405764746872631, 1,
                    0.93307968919032724, 0.75025, 0.5005, 0.25075, 0.067920310809672868, 0.001}));
}

TEST(OneCycle, StartsAtTheTopWithoutWarmup) {
  EXPECT_THAT(Rates(OneCycle(0.4, 3, {.warmup = 0, .start_divisor = 4, .final_divisor = 1}), 4),
              Pointwise(DoubleNear(1e-15), {0.4, 0.25, 0.1, 0.1}));
  EXPECT_THAT(Rates(OneCycle(0.4, 1), 1), Pointwise(DoubleEq(), {0.4}));
}

// Each cycle starts with the first rate, however long the training is.
TEST(CosineRestarts, StartAgainAtTheStepAndNotBesideIt) {
  std::vector<double> starts, before;
  for (double start = 7, length = 7; start < 1e9; length *= 3, start += length) {
    starts.push_back(start);
    before.push_back(start - 1);
  }
  for (double rate : RatesAt(CosineRestarts(0.4, 7, 3), starts)) EXPECT_NEAR(rate, 0.4, 1e-12);
  for (double rate : RatesAt(CosineRestarts(0.4, 7, 3), before)) EXPECT_LT(rate, 0.03);
}

std::vector<double> RatesAfter(ReduceOnPlateauOptions options, const std::vector<double>& metrics) {
  ReduceOnPlateau plateau(options);
  std::vector<double> rates;
  for (double metric : metrics) {
    const absl::StatusOr<double> rate = plateau.Next(metric);
    EXPECT_TRUE(rate.ok()) << rate.status();
    rates.push_back(rate.value_or(NAN));
    EXPECT_EQ(rates.back(), plateau.rate());
  }
  return rates;
}

TEST(ReduceOnPlateau, GivesPyTorchsRates) {
  const std::vector<double> metrics = {5, 4, 4, 3.9999, 4.1, 4.2, 3, 3, 3, 3, 3, 3, 3, 3};
  const auto rates = [](std::vector<double> numbers) { return Pointwise(DoubleEq(), std::move(numbers)); };
  EXPECT_THAT(RatesAfter({.rate = 0.8, .factor = 0.5, .patience = 2}, metrics),
              rates({0.8, 0.8, 0.8, 0.8, 0.4, 0.4, 0.4, 0.4, 0.4, 0.2, 0.2, 0.2, 0.1, 0.1}));
  EXPECT_THAT(RatesAfter({.rate = 0.8, .factor = 0.5, .patience = 1, .cooldown = 2}, metrics),
              rates({0.8, 0.8, 0.8, 0.4, 0.4, 0.4, 0.4, 0.4, 0.2, 0.2, 0.2, 0.2, 0.1, 0.1}));
  EXPECT_THAT(RatesAfter({.rate = 0.8, .factor = 0.1, .patience = 0, .lowest = 0.01}, {5, 4, 4, 4, 4, 3}),
              rates({0.8, 0.8, 0.080000000000000016, 0.01, 0.01, 0.01}));
  EXPECT_THAT(RatesAfter({.rate = 0.8, .factor = 0.25, .patience = 1, .threshold = 1e-3, .higher_is_better = true},
                         {.1, .2, .3, .3, .2, .30001, .4, .4, .4}),
              rates({0.8, 0.8, 0.8, 0.8, 0.2, 0.2, 0.2, 0.2, 0.05}));
  EXPECT_THAT(RatesAfter({.rate = 0.8, .factor = 0.5, .patience = 1}, {1, NAN, NAN, 0.5}), rates({0.8, 0.8, 0.4, 0.4}));
}

// PyTorch takes a slightly worse metric below 0 for a better one.
TEST(ReduceOnPlateau, TakesNegativeMetrics) {
  EXPECT_THAT(RatesAfter({.rate = 0.8, .factor = 0.5, .patience = 0}, {-1, -0.99995, -1.00005, -1.1}),
              Pointwise(DoubleEq(), {0.8, 0.4, 0.2, 0.2}));
}

// A rate below `lowest` from the start is not raised.
TEST(ReduceOnPlateau, NeverRaisesTheRate) {
  EXPECT_THAT(RatesAfter({.rate = 0.001, .patience = 0, .lowest = 0.01}, {1, 1}),
              Pointwise(DoubleEq(), {0.001, 0.001}));
}

TEST(Schedules, RefuseNumbersOutOfRange) {
  constexpr double kNaN = std::numeric_limits<double>::quiet_NaN(), kInfinity = std::numeric_limits<double>::infinity();
  const std::pair<Schedule, const char*> rows[] = {
      {CosineRestarts(-1, 2), "CosineRestarts: initial is -1"},
      {CosineRestarts(0.1, 0), "CosineRestarts: first is 0 and must be at least 1"},
      {CosineRestarts(0.1, 2, 0.5), "CosineRestarts: growth is 0.5 and must be at least 1"},
      {CosineRestarts(0.1, 2, kInfinity), "CosineRestarts: growth is inf"},
      {CosineRestarts(0.1, 2, 1, kNaN), "CosineRestarts: final is nan"},
      {PolynomialDecay(kNaN, 2), "PolynomialDecay: initial is nan"},
      {PolynomialDecay(0.1, -1), "PolynomialDecay: steps is -1"},
      {PolynomialDecay(0.1, 2, 0), "PolynomialDecay: power is 0 and must be above 0"},
      {PolynomialDecay(0.1, 2, kInfinity), "PolynomialDecay: power is inf"},
      {PiecewiseConstant({2}, {0.1}), "there are 1 rates and 1 boundaries"},
      {PiecewiseConstant({2, 2}, {0.1, 0.2, 0.3}), "boundary 1 is 2, and the boundaries have to rise"},
      {PiecewiseConstant({0}, {0.1, 0.2}), "boundary 0 is 0"},
      {PiecewiseConstant({2}, {0.1, kNaN}), "PiecewiseConstant: a rate is nan"},
      {LinearWarmup(2, nullptr), "LinearWarmup: the schedule after it is null"},
      {OneCycle(kInfinity, 2), "OneCycle: highest is inf"},
      {OneCycle(0.1, 0), "OneCycle: steps is 0"},
      {OneCycle(0.1, 2, {.warmup = 1}), "OneCycle: warmup is 1 and must be in [0, 1)"},
      {OneCycle(0.1, 2, {.start_divisor = 0.5}), "OneCycle: start_divisor is 0.5"},
      {OneCycle(0.1, 2, {.final_divisor = kNaN}), "OneCycle: final_divisor is nan"},
  };
  for (const auto& [schedule, message] : rows) {
    Graph graph;
    Scope scope(graph);
    EXPECT_FALSE(schedule(scope.Input("step", kFloat64, {})).valid());
    EXPECT_THAT(std::string(graph.status().message()), HasSubstr(message));
  }
  const std::pair<ReduceOnPlateauOptions, const char*> plateaus[] = {
      {{.rate = -1}, "ReduceOnPlateau: rate is -1"},
      {{.factor = 1}, "ReduceOnPlateau: factor is 1 and must be in [0, 1)"},
      {{.patience = -1}, "ReduceOnPlateau: patience is -1"},
      {{.cooldown = -1}, "ReduceOnPlateau: cooldown is -1"},
      {{.threshold = kNaN}, "ReduceOnPlateau: threshold is nan"},
      {{.lowest = kInfinity}, "ReduceOnPlateau: lowest is inf"},
  };
  for (const auto& [options, message] : plateaus) {
    EXPECT_THAT(std::string(ReduceOnPlateau(options).Next(1).status().message()), HasSubstr(message));
  }
}

}  // namespace
}  // namespace gradweave::optim
