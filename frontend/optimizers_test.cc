// Optimizers: which variables a step changes, by how much, and what they refuse.
#include "gradweave/frontend/optimizers.h"

#include <cmath>
#include <limits>

#include "gmock/gmock.h"
#include "gradweave/frontend/layers.h"
#include "gradweave/frontend/losses.h"
#include "gradweave/graph/passes/autodiff.h"
#include "gradweave/ops/elementwise.h"
#include "gradweave/ops/reduction.h"
#include "gradweave/ops/shape_ops.h"
#include "gradweave/ops/state.h"
#include "gtest/gtest.h"

namespace gradweave {
namespace {

using ::testing::DoubleEq;
using ::testing::DoubleNear;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::Pointwise;

// A session of the graph, which has to be without errors.
Session Start(const Graph& graph) {
  absl::StatusOr<Session> session = Session::Create(graph, {.threads = 1});
  EXPECT_TRUE(session.ok()) << session.status();
  return *std::move(session);
}

void RunOnce(Session& session, const std::vector<Feed>& feeds, const std::vector<Fetch>& fetches) {
  const absl::StatusOr<std::vector<Tensor>> results = session.Run(feeds, fetches);
  ASSERT_TRUE(results.ok()) << results.status();
}

std::vector<double> Variable(const Session& session, absl::string_view name) {
  const absl::StatusOr<Tensor> value = session.GetVariable(name);
  EXPECT_TRUE(value.ok()) << value.status();
  return value.ok() ? value->ToDoubles() : std::vector<double>();
}

// The first step is the rate, whatever the betas: both averages hold one gradient, and so do their
// corrections. 1 - beta^t in float32 would be off by 0.7 % for a beta2 of 0.999999.
TEST(Adam, MakesAFirstStepOfTheRateForBetasCloseToOne) {
  for (double beta2 : {0.0, 0.9, 0.999, 0.9999, 0.999999, 1 - 1e-9}) {
    for (double beta1 : {0.0, 0.9, 0.9999}) {
      Graph graph;
      Scope scope(graph);
      const Value w = scope.Variable("w", scope.Constant(Tensor::Scalar(0.0f)));
      const Update step = optim::Adam{.learning_rate = 0.5, .beta1 = beta1, .beta2 = beta2}.Minimize(w);
      Session session = Start(graph);
      RunOnce(session, {}, {step});
      EXPECT_NEAR(Variable(session, "w")[0], -0.5, 5e-7) << "betas " << beta1 << ", " << beta2;
    }
  }
}

TEST(Optimizers, CountStepsBeyondTheIntegersOfFloat32) {
  Graph graph;
  Scope scope(graph);
  const Value w = scope.Variable("w", scope.Constant(Tensor::Scalar(1.0f)));
  std::vector<Value> steps;
  const optim::Schedule schedule = [&](Value step) {
    steps.push_back(step);
    return step * 0;
  };
  const Update step = optim::Sgd{.learning_rate = schedule}.Minimize(Square(w));
  Session session = Start(graph);
  const int64_t many = int64_t{1} << 40;
  ASSERT_TRUE(session.SetVariable("sgd/step", Tensor::Scalar(many)).ok());
  RunOnce(session, {}, {step});
  RunOnce(session, {}, {step});
  EXPECT_EQ(session.GetVariable("sgd/step")->values<int64_t>()[0], many + 2);
  ASSERT_EQ(steps.size(), 1u);
  EXPECT_EQ(steps[0].dtype(), kFloat64);
}

TEST(Optimizers, KeepTheRateOfAFloat64TrainingInFloat64) {
  for (const optim::LearningRate& rate : {optim::LearningRate(0.1), optim::LearningRate(optim::ConstantRate(0.1)),
                                          optim::LearningRate(optim::StepDecay(0.1, 0.5, 10))}) {
    Graph graph;
    Scope scope(graph);
    const Value w = scope.Variable("w", scope.Constant(Tensor::Scalar(0.0)));
    const Update step = optim::Sgd{.learning_rate = rate}.Minimize(w);
    Session session = Start(graph);
    RunOnce(session, {}, {step});
    EXPECT_EQ(Variable(session, "w")[0], -0.1);
  }
}

// A target network, a frozen backbone: weight decay must not shrink what no gradient reaches.
TEST(Optimizers, LeaveAloneWhatNoGradientReaches) {
  const auto check = [](const auto& optimizer) {
    Graph graph;
    Scope scope(graph);
    const Value w = scope.Variable("w", scope.Constant(Tensor::Scalar(2.0f)));
    const Value frozen = scope.Variable("frozen", scope.Constant(Tensor::Scalar(3.0f)));
    const Value rounded = scope.Variable("rounded", scope.Constant(Tensor::Scalar(4.0f)));
    const Value loss = Square(w - StopGradient(frozen)) + Floor(rounded);
    for (const std::vector<Value>& variables : {std::vector<Value>{}, std::vector<Value>{w, frozen, rounded}}) {
      const Update step = optimizer.Minimize(loss, variables);
      Session session = Start(graph);
      RunOnce(session, {}, {step});
      EXPECT_NE(Variable(session, "w")[0], 2);
      EXPECT_EQ(Variable(session, "frozen")[0], 3);
      EXPECT_EQ(Variable(session, "rounded")[0], 4);
    }
  };
  check(optim::Sgd{.weight_decay = 0.1});
  check(optim::Adam{.weight_decay = 0.1});
  check(optim::AdamW{});
  check(optim::RmsProp{.weight_decay = 0.1});
  check(optim::Adagrad{.weight_decay = 0.1});
}

TEST(Optimizers, NameTheOpThatCutsTheGradientOfALossThatTrainsNothing) {
  const struct {
    Value (*loss)(const Value& logits, const Value& labels);
    const char* cut;
  } rows[] = {
      {[](const Value& logits, const Value& labels) { return nn::Accuracy(logits, labels); }, "ArgMax"},
      {[](const Value& logits, const Value&) { return Mean(Cast(Greater(logits, 0), kFloat32)); }, "Greater"},
      {[](const Value& logits, const Value&) { return Mean(Cast(Cast(logits, kInt32), kFloat32)); }, "Cast"},
      {[](const Value& logits, const Value&) { return Mean(Floor(logits * 8) * 0.125); }, "Floor"},
      {[](const Value& logits, const Value&) { return Mean(StopGradient(logits)); }, "StopGradient"},
  };
  for (const auto& row : rows) {
    Graph graph;
    Scope scope(graph);
    const Value logits = scope.Variable("logits", scope.Constant(Tensor(kFloat32, {4, 3})));
    const Value labels = scope.Input("labels", kInt32, {4});
    const Update step = optim::Sgd{}.Minimize(row.loss(logits, labels));
    EXPECT_TRUE(step.assignments.empty());
    const std::string message(graph.status().message());
    EXPECT_THAT(message, HasSubstr("Minimize: no gradient reaches a variable: "));
    EXPECT_THAT(message, HasSubstr(std::string(row.cut) + "("));
    EXPECT_THAT(message, HasSubstr("optimizers_test.cc:"));
  }
}

TEST(Optimizers, RefuseNumbersThatMakeWeightsNaN) {
  constexpr double kNaN = std::numeric_limits<double>::quiet_NaN(), kInfinity = std::numeric_limits<double>::infinity();
  const auto message_of = [](const auto& optimizer) {
    Graph graph;
    Scope scope(graph);
    const Value w = scope.Variable("w", scope.Constant(Tensor::Scalar(1.0f)));
    optimizer.Minimize(Square(w));
    return std::string(graph.status().message());
  };
  EXPECT_THAT(message_of(optim::Sgd{.learning_rate = kNaN}), HasSubstr("learning_rate is nan"));
  EXPECT_THAT(message_of(optim::Sgd{.learning_rate = kInfinity}), HasSubstr("learning_rate is inf"));
  EXPECT_THAT(message_of(optim::Sgd{.learning_rate = -1}), HasSubstr("must be finite and at least 0"));
  EXPECT_THAT(message_of(optim::Sgd{.momentum = 1}), HasSubstr("Sgd: momentum is 1 and must be in [0, 1)"));
  EXPECT_THAT(message_of(optim::Sgd{.weight_decay = kNaN}), HasSubstr("Sgd: weight_decay is nan"));
  EXPECT_THAT(message_of(optim::Sgd{.clip_norm = kNaN}), HasSubstr("max_norm is nan"));
  EXPECT_THAT(message_of(optim::Adam{.beta1 = 1}), HasSubstr("Adam: beta1 is 1 and must be in [0, 1)"));
  EXPECT_THAT(message_of(optim::Adam{.beta2 = 1}), HasSubstr("Adam: beta2 is 1"));
  EXPECT_THAT(message_of(optim::AdamW{.beta2 = kNaN}), HasSubstr("AdamW: beta2 is nan"));
  EXPECT_THAT(message_of(optim::AdamW{.epsilon = -1}), HasSubstr("AdamW: epsilon is -1"));
  EXPECT_THAT(message_of(optim::AdamW{.weight_decay = kInfinity}), HasSubstr("AdamW: weight_decay is inf"));
  EXPECT_THAT(message_of(optim::RmsProp{.alpha = 1}), HasSubstr("RmsProp: alpha is 1"));
  EXPECT_THAT(message_of(optim::RmsProp{.epsilon = kNaN}), HasSubstr("RmsProp: epsilon is nan"));
  EXPECT_THAT(message_of(optim::RmsProp{.momentum = -0.1}), HasSubstr("RmsProp: momentum is -0.1"));
  EXPECT_THAT(message_of(optim::Adagrad{.epsilon = kInfinity}), HasSubstr("Adagrad: epsilon is inf"));
  EXPECT_THAT(message_of(optim::Sgd{.learning_rate = optim::ConstantRate(kNaN)}),
              HasSubstr("ConstantRate: rate is nan"));
  EXPECT_THAT(message_of(optim::Sgd{.learning_rate = optim::StepDecay(0.1, 0.5, 0)}),
              HasSubstr("StepDecay: every is 0 and must be at least 1"));
  EXPECT_THAT(message_of(optim::Sgd{.learning_rate = optim::ExponentialDecay(0.1, -0.5, 3)}),
              HasSubstr("ExponentialDecay: factor is -0.5"));
  EXPECT_THAT(message_of(optim::Sgd{.learning_rate = optim::CosineDecay(0.1, 0)}),
              HasSubstr("CosineDecay: steps is 0 and must be at least 1"));
  EXPECT_THAT(message_of(optim::Sgd{.learning_rate = optim::CosineDecay(0.1, 10, kNaN)}),
              HasSubstr("CosineDecay: final is nan"));
  EXPECT_THAT(message_of(optim::Sgd{.learning_rate = optim::LinearWarmup(0, optim::ConstantRate(0.1))}),
              HasSubstr("LinearWarmup: steps is 0"));
  EXPECT_EQ(message_of(optim::Adam{.beta1 = 0, .beta2 = 0, .epsilon = 0}), "");
}

// A weight is kept in [-1, 1]: the clip sees what the step made of it.
TEST(Then, DoesOneUpdateAfterTheOther) {
  Graph graph;
  Scope scope(graph);
  const Value w = scope.Variable("w", scope.Constant(Tensor::Scalar(0.5f)));
  const Value average = scope.Variable("average", scope.Constant(Tensor::Scalar(10.0f)), {.trainable = false});
  Update step = optim::Sgd{.learning_rate = 1}.Minimize(w * -3);
  step = optim::Then(step, {{Assign(w, Clip(w, -1, 1))}});
  step = optim::Then(step, {{Assign(average, average * 0.5 + w * 0.5)}});
  Session session = Start(graph);
  RunOnce(session, {}, {step});
  EXPECT_EQ(Variable(session, "w")[0], 1) << "0.5 + 3, clipped";
  EXPECT_EQ(Variable(session, "average")[0], 5.5) << "of the clipped weight";
}

// ---- Moving averages ----

const Tensor kBatch = Tensor::Of<float>({4, 2}, {1, 10, 2, 10, 3, 10, 6, 14});  // Means 3 and 11.

// With momentum 0.9 from 0, one batch makes the moving mean a tenth of its mean.
TEST(LayerUpdates, AreThoseOfTheCallsThatTheLossGoesThrough) {
  Graph graph;
  Scope scope(graph);
  const Value x = scope.Input("x", kFloat32, {Dim("batch"), 2});
  const nn::Sequential body{nn::BatchNorm{}}, head_a{nn::Dense{2}, nn::BatchNorm{}},
      head_b{nn::Dense{2}, nn::BatchNorm{}};
  Value common;
  Value loss_a, loss_b;
  {
    Scope in(scope, "body");
    common = body(in, x);
  }
  {
    Scope in(scope, "a");
    loss_a = Mean(Square(head_a(in, common) - 1));
  }
  {
    Scope in(scope, "b");
    loss_b = Mean(Square(head_b(in, common) - 1));
  }
  const Update step_a = optim::Sgd{.learning_rate = 0.1}.Minimize(loss_a);
  ASSERT_TRUE(graph.status().ok()) << graph.status();
  Session session = Start(graph);
  const auto variance = [&](absl::string_view name) { return Variable(session, name)[0]; };
  RunOnce(session, {{x, kBatch}}, {step_a});
  EXPECT_THAT(Variable(session, "body/batch_norm_1/moving_mean"), Pointwise(DoubleNear(1e-6), {0.3, 1.1}));
  EXPECT_NE(variance("a/batch_norm_1/moving_variance"), 1);
  EXPECT_EQ(variance("b/batch_norm_1/moving_variance"), 1) << "the loss of head a does not go through head b";
  (void)loss_b;
}

// A siamese net, or a discriminator that sees real and fake images: the layer's averages take in both
// batches, the one after the other.
TEST(LayerUpdates, OfSeveralCallsOfOneLayerAreOneAssignment) {
  Graph graph;
  Scope scope(graph);
  const Value x = scope.Input("x", kFloat32, {Dim("batch"), 2});
  const Value other = scope.Input("other", kFloat32, {Dim("batch"), 2});
  const nn::Sequential model{nn::BatchNorm{.momentum = 0.5}};
  const Value first = model(scope, x), second = model(scope, other);
  const Value loss = Mean(Square(first - 1)) + Mean(Square(second + 1));
  const Update step = optim::Sgd{.learning_rate = 0.1}.Minimize(loss);
  Session session = Start(graph);
  RunOnce(session, {{x, kBatch}, {other, Tensor::Of<float>({4, 2}, {8, 0, 8, 0, 8, 0, 8, 4})}}, {step});
  EXPECT_THAT(Variable(session, "batch_norm_1/moving_mean"),
              Pointwise(DoubleNear(1e-6), {0.5 * (0.5 * 3) + 0.5 * 8, 0.5 * (0.5 * 11) + 0.5 * 1}));
}

TEST(LayerUpdates, GoWithGradientsOfOnesOwn) {
  Graph graph;
  Scope scope(graph);
  const Value x = scope.Input("x", kFloat32, {Dim("batch"), 2});
  const nn::Sequential model{nn::BatchNorm{}};
  const Value loss = Mean(Square(model(scope, x) - 1));
  const std::vector<Value> variables = optim::TrainableVariables(graph, loss);
  const Update step = optim::Sgd{}.Apply(Gradients({loss}, variables), variables);
  const Update averages = optim::LayerUpdates(loss);
  EXPECT_EQ(averages.assignments.size(), 2u);
  Session session = Start(graph);
  RunOnce(session, {{x, kBatch}}, {loss, step, averages});
  EXPECT_THAT(Variable(session, "batch_norm_1/moving_mean"), Pointwise(DoubleNear(1e-6), {0.3, 1.1}));
}

// 101 samples in batches of 10 leave one sample, which has no variance; a loader may leave none.
TEST(BatchNorm, KeepsItsAveragesWhereABatchHasNoVariance) {
  Graph graph;
  Scope scope(graph);
  const Value x = scope.Input("x", kFloat32, {Dim("batch"), 2});
  const nn::Sequential model{nn::BatchNorm{}};
  const Update step = optim::Sgd{.learning_rate = 0.1}.Minimize(Sum(Square(model(scope, x) - 1)));
  Session session = Start(graph);
  RunOnce(session, {{x, kBatch}}, {step});
  const std::vector<double> mean = Variable(session, "batch_norm_1/moving_mean");
  const std::vector<double> variance = Variable(session, "batch_norm_1/moving_variance");
  RunOnce(session, {{x, Tensor::Of<float>({1, 2}, {5, 7})}}, {step});
  RunOnce(session, {{x, Tensor(kFloat32, {0, 2})}}, {step});
  EXPECT_THAT(Variable(session, "batch_norm_1/moving_mean"), Pointwise(DoubleEq(), mean));
  EXPECT_THAT(Variable(session, "batch_norm_1/moving_variance"), Pointwise(DoubleEq(), variance));
}

TEST(BatchNorm, RefusesToTrainOnOneValuePerChannel) {
  Graph graph;
  Scope scope(graph);
  const Value x = scope.Input("x", kFloat32, {1, 2, 1, 1});
  const nn::Sequential model{nn::BatchNorm{}};
  EXPECT_TRUE(model(scope, x, {.training = false}).valid());
  EXPECT_FALSE(model(scope, x).valid());
  EXPECT_THAT(std::string(graph.status().message()), HasSubstr("training needs more than one value per channel"));
}

// ---- Shared variables ----

TEST(Sequential, SharesItsVariablesBetweenScopes) {
  Graph graph;
  Scope scope(graph);
  const Value x = scope.Input("x", kFloat32, {Dim("batch"), 3});
  const nn::Sequential model{nn::Dense{2}, nn::Sequential{nn::Dense{4}}};
  const nn::Sequential other = model.WithOwnVariables();
  std::vector<Value> ys;
  for (const char* name : {"left", "right"}) {
    Scope in(scope, name);
    ys.push_back(model(in, x));
  }
  {
    Scope in(scope, "other");
    ys.push_back(other(in, x));
  }
  ASSERT_TRUE(graph.status().ok()) << graph.status();
  EXPECT_EQ(model.variables().size(), 4u);
  EXPECT_EQ(model.variables().begin()->first, "left/dense_1/bias");
  EXPECT_EQ(other.variables().begin()->first, "other/dense_1/bias");
  EXPECT_EQ(optim::TrainableVariables(graph).size(), 8u);
  Session session = Start(graph);
  const absl::StatusOr<std::vector<Tensor>> results =
      session.Run({{x, Tensor::Of<float>({1, 3}, {1, 2, 3})}}, {ys[0], ys[1], ys[2]});
  ASSERT_TRUE(results.ok()) << results.status();
  EXPECT_TRUE(SameBits((*results)[0], (*results)[1]));
  EXPECT_FALSE(SameBits((*results)[0], (*results)[2]));
}

// One step of MAML: the loss after a step of gradient descent, with the gradient through the step.
TEST(Sequential, RunsWithValuesInPlaceOfItsVariables) {
  Graph graph;
  Scope scope(graph);
  const Value x = scope.Input("x", kFloat64, {1, 1});
  const nn::Sequential model{nn::Dense{.features = 1, .bias = false, .weight_initializer = nn::Constant{2}}};
  const Value loss = Sum(Square(model(scope, x)));
  const Value w = model.variables().at("dense_1/weight");
  const Value fast = w - 0.1 * Gradients({loss}, {w})[0];
  const Value later = Sum(Square(model(scope, x, {.values = {{"dense_1/weight", fast}}})));
  const Value meta = Gradients({later}, {w})[0];
  ASSERT_TRUE(graph.status().ok()) << graph.status();
  Session session = Start(graph);
  const absl::StatusOr<std::vector<Tensor>> results =
      session.Run({{x, Tensor::Of<double>({1, 1}, {1})}}, {later, meta});
  ASSERT_TRUE(results.ok()) << results.status();
  // loss = w^2, fast = 0.8 w, later = 0.64 w^2, and its derivative is 1.28 w.
  EXPECT_NEAR((*results)[0].ToDouble(), 2.56, 1e-12);
  EXPECT_NEAR((*results)[1].ToDoubles()[0], 2.56, 1e-12);
}

TEST(Layer, MayBeALocalStruct) {
  struct Scale {
    Value Apply(const nn::Context& context, Value x) const {
      return Mul(x, context.Variable("factor", nn::Constant{3}, x.dtype(), {}));
    }
  };
  Graph graph;
  Scope scope(graph);
  const Value x = scope.Input("x", kFloat32, {2});
  const nn::Sequential model{Scale{}, Scale{}};
  const Value y = model(scope, x);
  ASSERT_TRUE(graph.status().ok()) << graph.status();
  EXPECT_EQ(model.variables().begin()->first, "layer_1/factor");
  Session session = Start(graph);
  EXPECT_THAT((*session.Run({{x, Tensor::Of<float>({2}, {1, 2})}}, {y}))[0].ToDoubles(), ElementsAre(9, 18));
}

}  // namespace
}  // namespace gradweave
