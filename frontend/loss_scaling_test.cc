// Dynamic loss scaling.
#include "gradweave/frontend/loss_scaling.h"

#include <cmath>
#include <limits>
#include <string>
#include <vector>

#include "frontend/test_session.h"
#include "gmock/gmock.h"
#include "gradweave/frontend/losses.h"
#include "gradweave/ops/elementwise.h"
#include "gradweave/ops/reduction.h"
#include "gradweave/ops/scope.h"
#include "gradweave/ops/state.h"
#include "gtest/gtest.h"

namespace gradweave::optim {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

// w * x is minimized over w, so the gradient of w is x.
struct Line {
  Graph graph;
  Scope scope{graph};
  Value x = scope.Input("x", kFloat32, {2});
  Value w = scope.Variable("w", scope.Constant(Tensor::Of<float>({2}, {1, 2})));
  Value loss = Sum(w * x);
};

Tensor Numbers(float a, float b) { return Tensor::Of<float>({2}, {a, b}); }

constexpr float kInfinity = std::numeric_limits<float>::infinity();

TEST(LossScaling, GivesTheOptimizerTheGradientsOfTheLoss) {
  Line line;
  const Update step = MinimizeScaled(Sgd{.learning_rate = 0.5}, line.loss, {.initial = 1024});
  Session session = Start(line.graph);
  RunOnce(session, {{line.x, Numbers(0.1f, -3)}}, {step});
  EXPECT_THAT(Variable(session, "w"), ElementsAre(1 - 0.5f * 0.1f, 3.5));
  EXPECT_THAT(Variable(session, "loss_scaling/scale"), ElementsAre(1024));
}

// The gradient 1e-9 vanishes in float16, and 65536 times as much does not.
TEST(LossScaling, KeepsSmallGradientsInFloat16) {
  for (const bool scaled : {false, true}) {
    Line line;
    // The gradient passes through float16.
    const Value loss = Sum(Cast(Cast(line.w, kFloat16), kFloat32) * line.x);
    const Update step =
        scaled ? MinimizeScaled(Sgd{.learning_rate = 1e9}, loss) : Sgd{.learning_rate = 1e9}.Minimize(loss);
    Session session = Start(line.graph);
    RunOnce(session, {{line.x, Numbers(1e-9f, 0)}}, {step});
    EXPECT_NEAR(Variable(session, "w")[0], scaled ? 0 : 1, 1e-3);
  }
}

TEST(LossScaling, SkipsAndCountsStepsWithInfiniteGradients) {
  for (const float bad : {kInfinity, -kInfinity, std::numeric_limits<float>::quiet_NaN(), 3e38f}) {
    Line line;
    const Update step = MinimizeScaled(Adam{.learning_rate = 0.5}, line.loss, {.initial = 8});
    Session session = Start(line.graph);
    RunOnce(session, {{line.x, Numbers(1, 1)}}, {step});
    EXPECT_THAT(session.VariableNames(), ::testing::Contains("adam/w/m"));
    const std::vector<double> before = Variable(session, "w"), moment = Variable(session, "adam/w/m");
    ASSERT_THAT(Variable(session, "adam/step"), ElementsAre(1));
    RunOnce(session, {{line.x, Numbers(1, bad)}}, {step});
    EXPECT_EQ(Variable(session, "w"), before);
    EXPECT_EQ(Variable(session, "adam/w/m"), moment);
    EXPECT_THAT(Variable(session, "adam/step"), ElementsAre(1)) << "a skipped step is no step of the optimizer";
    EXPECT_THAT(Variable(session, "loss_scaling/scale"), ElementsAre(4));
    EXPECT_THAT(Variable(session, "loss_scaling/good_steps"), ElementsAre(0));
    EXPECT_THAT(Variable(session, "loss_scaling/skipped_steps"), ElementsAre(1));
    RunOnce(session, {{line.x, Numbers(1, 1)}}, {step});
    EXPECT_NE(Variable(session, "w"), before);
    EXPECT_THAT(Variable(session, "adam/step"), ElementsAre(2));
    EXPECT_THAT(Variable(session, "loss_scaling/skipped_steps"), ElementsAre(1));
  }
}

TEST(LossScaling, GrowsAfterSoManyGoodStepsInARow) {
  Line line;
  const Update step = MinimizeScaled(Sgd{}, line.loss, {.initial = 2, .growth_factor = 4, .growth_interval = 3});
  Session session = Start(line.graph);
  std::vector<double> scales;
  for (const float last : {1.0f, 1.0f, kInfinity, 1.0f, 1.0f, 1.0f, 1.0f}) {
    RunOnce(session, {{line.x, Numbers(1, last)}}, {step});
    scales.push_back(Variable(session, "loss_scaling/scale")[0]);
  }
  EXPECT_THAT(scales, ElementsAre(2, 2, 1, 1, 1, 4, 4));
}

TEST(LossScaling, StopsGrowingBeforeTheScaleIsInfinite) {
  Line line;
  const Update step = MinimizeScaled(Sgd{}, line.loss, {.initial = 0x1p126, .growth_interval = 1});
  Session session = Start(line.graph);
  for (int i = 0; i < 4; ++i) RunOnce(session, {{line.x, Numbers(0, 0)}}, {step});
  EXPECT_THAT(Variable(session, "loss_scaling/scale"), ElementsAre(0x1p127));
}

TEST(LossScaling, RefusesNumbersOutsideTheirRange) {
  const auto message = [](const LossScaling& scaling) {
    Line line;
    EXPECT_TRUE(MinimizeScaled(Sgd{}, line.loss, scaling).assignments.empty());
    return std::string(line.graph.status().message());
  };
  EXPECT_THAT(message({.initial = 0}), HasSubstr("MinimizeScaled: initial is 0 and has to be above 0"));
  EXPECT_THAT(message({.growth_factor = 0.5}), HasSubstr("growth_factor is 0.5 and has to be finite and at least 1"));
  EXPECT_THAT(message({.backoff_factor = 1}), HasSubstr("backoff_factor is 1 and has to be above 0 and below 1"));
  EXPECT_THAT(message({.growth_interval = 0}), HasSubstr("growth_interval is 0 and has to be at least 1"));
  Line line;
  EXPECT_TRUE(MinimizeScaled(Sgd{}, line.x).assignments.empty());
  EXPECT_THAT(std::string(line.graph.status().message()), HasSubstr("MinimizeScaled: the loss has to be a scalar"));
}

}  // namespace
}  // namespace gradweave::optim
