// Optimizers: which variables a step changes, by how much, and what they refuse.
#include "gradweave/frontend/optimizers.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <string>
#include <vector>

#include "frontend/test_session.h"
#include "gmock/gmock.h"
#include "gradweave/frontend/layers.h"
#include "gradweave/frontend/losses.h"
#include "gradweave/graph/passes/autodiff.h"
#include "gradweave/ops/elementwise.h"
#include "gradweave/ops/indexing.h"
#include "gradweave/ops/matmul.h"
#include "gradweave/ops/reduction.h"
#include "gradweave/ops/shape_ops.h"
#include "gradweave/ops/state.h"
#include "gtest/gtest.h"

namespace gradweave {
namespace {

using ::testing::DoubleEq;
using ::testing::DoubleNear;
using ::testing::Each;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::Pointwise;

// The first step is the rate for all betas: both averages hold one gradient, and so do their
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
  check(optim::Lion{.weight_decay = 0.1});
  check(optim::Lamb{});
  check(optim::Muon{.weight_decay = 0.1});
  check(optim::Lookahead{.inner = optim::AdamW{}});
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
  EXPECT_THAT(message_of(optim::Adamax{.beta1 = 1}), HasSubstr("Adamax: beta1 is 1"));
  EXPECT_THAT(message_of(optim::NAdam{.beta2 = 1}), HasSubstr("NAdam: beta2 is 1"));
  EXPECT_THAT(message_of(optim::NAdam{.momentum_decay = -1}), HasSubstr("NAdam: momentum_decay is -1"));
  EXPECT_THAT(message_of(optim::RAdam{.epsilon = kNaN}), HasSubstr("RAdam: epsilon is nan"));
  EXPECT_THAT(message_of(optim::Adadelta{.rho = 1}), HasSubstr("Adadelta: rho is 1"));
  EXPECT_THAT(message_of(optim::Adadelta{.epsilon = 0}), HasSubstr("Adadelta: epsilon is 0 and must be above 0"));
  EXPECT_THAT(message_of(optim::Adadelta{.epsilon = kInfinity}), HasSubstr("Adadelta: epsilon is inf"));
  EXPECT_THAT(message_of(optim::Lion{.beta2 = -1}), HasSubstr("Lion: beta2 is -1"));
  EXPECT_THAT(message_of(optim::Lion{.weight_decay = kNaN}), HasSubstr("Lion: weight_decay is nan"));
  EXPECT_THAT(message_of(optim::Lamb{.beta1 = kNaN}), HasSubstr("Lamb: beta1 is nan"));
  EXPECT_THAT(message_of(optim::Muon{.momentum = 1}), HasSubstr("Muon: momentum is 1"));
  EXPECT_THAT(message_of(optim::Muon{.iterations = 0}), HasSubstr("Muon: iterations is 0"));
  EXPECT_THAT(message_of(optim::Muon{.others = optim::Sgd{.momentum = 2}}), HasSubstr("Sgd: momentum is 2"));
  EXPECT_THAT(message_of(optim::Muon{.orthogonalizes = [](const Value&) { return true; }}),
              HasSubstr("Orthogonalized: the operand has to be a matrix"));
  EXPECT_THAT(message_of(optim::Lookahead{.inner = optim::Sgd{}, .alpha = 1.5}),
              HasSubstr("Lookahead: alpha is 1.5 and must be in [0, 1]"));
  EXPECT_THAT(message_of(optim::Lookahead{.inner = optim::Sgd{}, .every = 0}), HasSubstr("Lookahead: every is 0"));
  EXPECT_THAT(message_of(optim::Sgd{.clip_value = 0}), HasSubstr("ClipByValue: limit is 0 and must be above 0"));
  const optim::Optimizer all_zero[] = {
      optim::Adam{.beta1 = 0, .beta2 = 0, .epsilon = 0}, optim::Adamax{.beta1 = 0, .beta2 = 0, .epsilon = 0},
      optim::NAdam{.beta1 = 0, .beta2 = 0, .epsilon = 0, .momentum_decay = 0}, optim::RAdam{.beta1 = 0, .beta2 = 0},
      optim::Lamb{.beta1 = 0, .beta2 = 0, .epsilon = 0, .weight_decay = 0}};
  for (const optim::Optimizer& optimizer : all_zero) {
    Graph graph;
    Scope scope(graph);
    const Value w = scope.Variable("w", scope.Constant(Tensor::Scalar(1.0f)));
    const Update step = optimizer.Minimize(Square(w));
    Session session = Start(graph);
    for (int i = 0; i < 3; ++i) RunOnce(session, {}, {step});
    EXPECT_LT(Variable(session, "w")[0], 1);
  }
}

TEST(Optimizers, NameTheLineOfApplyInErrors) {
  Graph graph;
  Scope scope(graph);
  const Value w = scope.Variable("w", scope.Constant(Tensor::Scalar(1.0f)));
  const int line = __LINE__ + 1;
  EXPECT_TRUE(optim::Sgd{}.Apply({w, w}, {w}).assignments.empty());
  EXPECT_THAT(std::string(graph.status().message()), HasSubstr("Sgd: there are 2 gradients and 1 variables"));
  EXPECT_THAT(std::string(graph.status().message()), HasSubstr("optimizers_test.cc:" + std::to_string(line)));
}

// A gradient or a rate of another shape would broadcast, and train something else in silence.
TEST(Optimizers, RefuseGradientsAndRatesOfAnotherTypeAtTheCallersLine) {
  using Step = Update (*)(Scope & scope, const Value& w);
  const std::pair<Step, const char*> rows[] = {
      {[](Scope&, const Value& w) { return optim::Sgd{}.Apply({Sum(w)}, {w}); },
       "Sgd: the gradient of 'w' has to have the variable's type; operands are (float32[], float32[2])"},
      {[](Scope&, const Value& w) { return optim::Adam{}.Apply({Cast(w, kFloat64)}, {w}); },
       "Adam: the gradient of 'w' has to have the variable's type"},
      {[](Scope&, const Value& w) {
         return optim::Muon{}.Apply({Reshape(w, {1, 2})}, {w});
       },
       "Muon: the gradient of 'w' has to have the variable's type"},
      {[](Scope&, const Value& w) { return optim::Sgd{.learning_rate = w}.Minimize(Sum(w)); },
       "the learning rate has to be a floating scalar, and it is float32[2]"},
      {[](Scope& scope, const Value& w) {
         return optim::AdamW{.learning_rate = scope.Constant(Tensor::Scalar(int32_t{1}))}.Minimize(Sum(w));
       },
       "the learning rate has to be a floating scalar, and it is int32[]"},
      {[](Scope&, const Value& w) { return optim::Sgd{.learning_rate = Value()}.Minimize(Sum(w)); },
       "the learning rate has to be a floating scalar, and it is no value"},
      {[](Scope&, const Value& w) {
         return optim::Lamb{.learning_rate = optim::Schedule([w](Value) { return w; })}.Minimize(Sum(w));
       },
       "the learning rate has to be a floating scalar, and it is float32[2]"},
      {[](Scope&, const Value& w) {
         return optim::Sgd{.learning_rate = optim::PiecewiseConstant({0}, {1, 2})}.Minimize(Sum(w));
       },
       "PiecewiseConstant: boundary 0 is 0"},
      {[](Scope&, const Value& w) { return optim::Sgd{}.Minimize(ArgMax(w)); },
       "Gradients: argmax_2 is int64[]; each y has to be float32, float64, float16 or bfloat16"},
  };
  for (const auto& [step, message] : rows) {
    Graph graph;
    Scope scope(graph);
    step(scope, scope.Variable("w", scope.Constant(Tensor(kFloat32, {2}))));
    EXPECT_THAT(std::string(graph.status().message()), HasSubstr(message));
    EXPECT_THAT(std::string(graph.status().message()), HasSubstr("optimizers_test.cc:"));
  }
}

TEST(Optimizers, MayBeOfTheUser) {
  struct SignDescent {
    Update Apply(const std::vector<Value>& gradients, const std::vector<Value>& variables) const {
      Update update;
      for (size_t i = 0; i < variables.size(); ++i) {
        update.assignments.push_back(Assign(variables[i], variables[i] - Sign(gradients[i])));
      }
      return update;
    }
  };
  Graph graph;
  Scope scope(graph);
  const Value w = scope.Variable("w", scope.Constant(Tensor::Scalar(5.0)));
  const Update step = optim::Lookahead{.inner = SignDescent{}, .alpha = 0.5, .every = 2}.Minimize(Square(w));
  Session session = Start(graph);
  for (double expected : {4, 4, 3, 3}) {  // 5, 4, 3 and half the way back to 5; 4, 3, 2 and half the way back to 4.
    RunOnce(session, {}, {step});
    EXPECT_EQ(Variable(session, "w")[0], expected);
  }
}

// Pretrained weights are set after the session is made: the first way back leads to them.
TEST(Lookahead, StartsFromTheWeightsBeforeTheFirstStep) {
  Graph graph;
  Scope scope(graph);
  const Value w = scope.Variable("w", scope.Constant(Tensor::Scalar(1.0)));
  const optim::Lookahead lookahead{.inner = optim::Sgd{.learning_rate = 1}, .alpha = 0.25, .every = 2};
  const Update step = lookahead.Minimize(w);
  Session session = Start(graph);
  ASSERT_TRUE(session.SetVariable("w", Tensor::Scalar(100.0)).ok());
  RunOnce(session, {}, {step});
  RunOnce(session, {}, {step});
  EXPECT_EQ(Variable(session, "w")[0], 99.5) << "100 - 2, and a quarter of the way from 100";
  EXPECT_EQ(Variable(session, "lookahead/w/slow")[0], 99.5);
  EXPECT_EQ(Variable(session, "lookahead/sgd/learning_rate")[0], 1);
}

// ---- Muon ----

double Polynomial(double s) {
  for (int i = 0; i < 5; ++i) s = 3.4445 * s - 4.775 * std::pow(s, 3) + 2.0315 * std::pow(s, 5);
  return s;
}

// The polynomial acts on the singular values of the matrix, which has norm 5 before it is divided
// by it.
TEST(Orthogonalized, BringsSingularValuesNearOne) {
  Graph graph;
  Scope scope(graph);
  const Value wide = scope.Constant(Tensor::Of<double>({2, 3}, {3, 0, 0, 0, 0, -4}));
  const Value tall = scope.Constant(Tensor::Of<double>({3, 2}, {3, 0, 0, 0, 0, -4}));
  const Value zero = scope.Constant(Tensor(kFloat64, {2, 2}));
  const std::vector<Fetch> fetches = {optim::Orthogonalized(wide), optim::Orthogonalized(tall),
                                      optim::Orthogonalized(zero)};
  Session session = Start(graph);
  const absl::StatusOr<std::vector<Tensor>> results = session.Run({}, fetches);
  ASSERT_TRUE(results.ok()) << results.status();
  const double first = Polynomial(0.6), second = Polynomial(0.8);
  EXPECT_THAT((*results)[0].ToDoubles(), Pointwise(DoubleNear(1e-12), {first, 0.0, 0.0, 0.0, 0.0, -second}));
  EXPECT_THAT((*results)[1].ToDoubles(), Pointwise(DoubleNear(1e-12), {first, 0.0, 0.0, 0.0, 0.0, -second}));
  EXPECT_THAT((*results)[2].ToDoubles(), ElementsAre(0, 0, 0, 0));
}

// A step is the rate times sqrt(max(1, out/in)) times a matrix of singular value p(1), for these
// gradients of rank 1 and norm 1. A dense weight is [in, out], a filter [out, in, window].
TEST(Muon, ScalesItsStepsByTheShapeAndLeavesTheRestToAdamW) {
  Graph graph;
  Scope scope(graph);
  const auto variable = [&](const char* name, std::vector<int64_t> sizes) {
    return scope.Variable(name, scope.Constant(Tensor(kFloat64, sizes)));
  };
  const Value up = variable("up", {1, 4}), down = variable("down", {4, 1}), filter = variable("filter", {8, 1, 1, 2}),
              bias = variable("bias", {4}), embedding = variable("embedding", {4, 1});
  const optim::Muon muon{.learning_rate = 0.1,
                         .nesterov = false,
                         .orthogonalizes = [&](const Value& w) { return w.rank() > 1 && w != embedding; },
                         .others = optim::AdamW{.learning_rate = 0.01}};
  const Update step = muon.Minimize(Sum(up) + Sum(down) + Sum(filter) + Sum(bias) + Sum(embedding));
  Session session = Start(graph);
  RunOnce(session, {}, {step});
  const double p = Polynomial(1);
  EXPECT_THAT(Variable(session, "up"), Each(DoubleNear(-0.1 * 2 * p * 0.5, 1e-9)));
  EXPECT_THAT(Variable(session, "down"), Each(DoubleNear(-0.1 * p * 0.5, 1e-9)));
  EXPECT_THAT(Variable(session, "filter"), Each(DoubleNear(-0.1 * 2 * p * 0.25, 1e-9)));
  EXPECT_THAT(Variable(session, "bias"), Each(DoubleNear(-0.01, 1e-9)));
  EXPECT_THAT(Variable(session, "embedding"), Each(DoubleNear(-0.01, 1e-9)));
  EXPECT_EQ(Variable(session, "muon/adamw/bias/m").size(), 4u);
  EXPECT_EQ(Variable(session, "muon/up/momentum").size(), 4u);
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

// Takes three steps of a model that gathers rows of a table twice. If `whole` is true, the
// optimizer cannot see that the gradient is zero elsewhere.
struct TableModel {
  Graph graph;
  Scope scope{graph};
  Value table = scope.Variable("table", scope.Constant(Table()));
  Value ids = scope.Input("ids", kInt32, {Dim("batch"), 2}), more = scope.Input("more", kInt64, {1});
  Value loss;

  TableModel() {
    const Value rows = Gather(table, ids), last = Gather(table, more);
    loss = Sum(Square(rows) * 0.25f) + Sum(Sin(last));
  }
  static Tensor Table() {
    Tensor t(kFloat32, {200, 3});
    for (int64_t i = 0; i < t.num_elements(); ++i) t.mutable_data<float>()[i] = static_cast<float>(i % 37) / 8 - 2;
    return t;
  }
  template <typename O>
  Session Train(const O& optimizer, bool whole) {
    std::vector<Value> gradients = Gradients({loss}, {table});
    if (whole) gradients[0] = Neg(Neg(gradients[0]));
    const Update step = optimizer.Apply(gradients, {table});
    Session session = Start(graph);
    // Index 4 occurs three times in one step, and row 7 is read in the second one only.
    const std::vector<Tensor> batches = {Tensor::Of<int32_t>({3, 2}, {4, 4, 0, 19, 4, 199}),
                                         Tensor::Of<int32_t>({2, 2}, {7, 4, 19, 7}),
                                         Tensor::Of<int32_t>({1, 2}, {0, 4})};
    for (const Tensor& batch : batches) RunOnce(session, {{ids, batch}, {more, Tensor::Of<int64_t>({1}, {4})}}, {step});
    EXPECT_EQ(PutsRows(), !whole);
    return session;
  }
  bool PutsRows() const {
    return std::any_of(graph.nodes().begin(), graph.nodes().end(),
                       [](const Node& node) { return node.op->name == "PutRows"; });
  }
};

template <typename O>
void ExpectSameBits(const O& optimizer, const std::vector<std::string>& variables) {
  TableModel whole, rows;
  const Session expected = whole.Train(optimizer, true), actual = rows.Train(optimizer, false);
  for (const std::string& name : variables) EXPECT_EQ(Variable(actual, name), Variable(expected, name)) << name;
  EXPECT_NE(Variable(actual, "table"), TableModel::Table().ToDoubles());
}

TEST(RowUpdates, OfSgdAndAdagradAreThoseOfTheWholeGradient) {
  ExpectSameBits(optim::Sgd{.learning_rate = 0.1}, {"table"});
  ExpectSameBits(optim::Adagrad{.learning_rate = 0.1}, {"table", "adagrad/table/square_sum"});
}

// In the first step all moments are zero, so rows without a gradient stay as they are. In later
// steps they do so only with lazy_rows.
TEST(RowUpdates, OfLazyAdamLeaveOtherRowsAlone) {
  TableModel model;
  const Session session = model.Train(optim::Adam{.learning_rate = 0.1, .lazy_rows = true}, false);
  // The formulas of Adam for the steps that read the row: with the number of the step as t, and m
  // and v as they were.
  const std::vector<double> before = TableModel::Table().ToDoubles();
  const std::vector<double> table = Variable(session, "table"), m = Variable(session, "adam/table/m");
  const struct {
    int64_t row;
    std::vector<int> counts;  // The times that `ids` has the row in each step; `more` has index 4 too.
  } rows[] = {{0, {1, 0, 1}}, {4, {3, 1, 1}}, {7, {0, 2, 0}}, {19, {1, 1, 0}}, {1, {0, 0, 0}}, {198, {0, 0, 0}}};
  for (const auto& [row, counts] : rows) {
    for (int64_t j = row * 3; j < row * 3 + 3; ++j) {
      double w = before[j], first = 0, second = 0;
      for (int t = 1; t <= 3; ++t) {
        if (counts[t - 1] == 0) continue;
        const double g = counts[t - 1] * 0.5 * w + (row == 4 ? std::cos(w) : 0);
        first = 0.9 * first + 0.1 * g;
        second = 0.999 * second + 0.001 * g * g;
        w -= 0.1 * first / (1 - std::pow(0.9, t)) / (std::sqrt(second / (1 - std::pow(0.999, t))) + 1e-8);
      }
      EXPECT_NEAR(table[j], w, 1e-5) << "row " << row;
      EXPECT_NEAR(m[j], first, 1e-6) << "row " << row;
    }
  }
}

TEST(RowUpdates, AreThoseOfTheWholeGradientWhereOtherRowsMove) {
  for (const optim::Optimizer& optimizer :
       {optim::Optimizer(optim::Adam{}), optim::Optimizer(optim::Sgd{.momentum = 0.9}),
        optim::Optimizer(optim::Sgd{.weight_decay = 0.1}), optim::Optimizer(optim::Sgd{.clip_norm = 1}),
        optim::Optimizer(optim::Adagrad{.weight_decay = 0.1}), optim::Optimizer(optim::Adagrad{.epsilon = 0}),
        optim::Optimizer(optim::RmsProp{})}) {
    TableModel model;
    optimizer.Minimize(model.loss);
    EXPECT_FALSE(model.PutsRows());
  }
  // The table is also a matrix of a product.
  TableModel model;
  optim::Sgd{}.Minimize(model.loss + Sum(Square(MatMul(model.table, model.table, {.transpose_b = true}))));
  EXPECT_TRUE(model.graph.status().ok()) << model.graph.status();
  EXPECT_FALSE(model.PutsRows());
}

// A step needs memory for the rows that it reads. The table of 4 MB is changed where it lies.
TEST(RowUpdates, TakeTheMemoryOfTheirRows) {
  for (const optim::Optimizer& optimizer :
       {optim::Optimizer(optim::Sgd{}), optim::Optimizer(optim::Adagrad{}),
        optim::Optimizer(optim::Adam{.lazy_rows = true}), optim::Optimizer(optim::AdamW{.lazy_rows = true}),
        optim::Optimizer(optim::Sgd{.momentum = 0.9, .lazy_rows = true})}) {
    Graph graph;
    Scope scope(graph);
    const Value a = scope.Variable("a", scope.Full(1, {16384, 64})),
                b = scope.Variable("b", scope.Full(1, {16384, 64}));
    const Value ids = scope.Input("ids", kInt32, {32});
    const Update step = optimizer.Minimize(Sum(Square(Gather(a, ids))) + Sum(Square(Gather(b, ids))));
    Session session = Start(graph);
    const std::string plan = *session.DescribePlan({{ids, Tensor(kInt32, {32})}}, {step});
    const std::string label = "planned peak ";
    const int64_t peak = std::stoll(plan.substr(plan.find(label) + label.size()));
    EXPECT_LT(peak, 200000) << plan;
  }
}

}  // namespace
}  // namespace gradweave
