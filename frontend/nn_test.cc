// Layers, losses and optimizers.
#include <cmath>
#include <functional>
#include <string>
#include <vector>

#include "gmock/gmock.h"
#include "gradweave/frontend/layers.h"
#include "gradweave/frontend/losses.h"
#include "gradweave/frontend/optimizers.h"
#include "gradweave/frontend/summary.h"
#include "gradweave/graph/passes/autodiff.h"
#include "gradweave/ops/elementwise.h"
#include "gradweave/ops/reduction.h"
#include "gradweave/ops/shape_ops.h"
#include "gtest/gtest.h"

namespace gradweave {
namespace {

using ::testing::DoubleNear;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::Pointwise;

std::vector<Tensor> RunSession(Session& session, const std::vector<Feed>& feeds, const std::vector<Fetch>& fetches) {
  absl::StatusOr<std::vector<Tensor>> results = session.Run(feeds, fetches);
  EXPECT_TRUE(results.ok()) << results.status();
  return results.ok() ? *results : std::vector<Tensor>();
}

TEST(Sequential, NamesVariablesByKindAndNumberAndSharesThem) {
  Graph graph;
  Scope scope(graph);
  const Value x = scope.Input("x", kFloat32, {Dim("batch"), 1, 8, 8});
  const nn::Sequential model{nn::Conv2D{.channels = 2, .kernel = 3}, nn::Relu{}, nn::Flatten{}, nn::Dense{4},
                             nn::Dense{2}};
  const Value first = model(scope, x), second = model(scope, x, {.training = false});
  ASSERT_TRUE(graph.status().ok()) << graph.status();
  EXPECT_EQ(first.shape().ToString(), "[batch,2]");
  EXPECT_EQ(second.shape().ToString(), "[batch,2]");
  std::vector<std::string> names;
  for (const auto& [name, variable] : model.variables()) names.push_back(name);
  EXPECT_THAT(names, ElementsAre("conv2d_1/bias", "conv2d_1/filter", "dense_1/bias", "dense_1/weight", "dense_2/bias",
                                 "dense_2/weight"));
  EXPECT_EQ(optim::TrainableVariables(graph).size(), 6u);
}

TEST(Sequential, MistakesNameTheLineThatAppliesTheLayers) {
  Graph graph;
  Scope scope(graph);
  const Value x = scope.Input("x", kFloat32, {Dim("batch"), 5});
  const nn::Sequential model{nn::Dense{4}, nn::Conv2D{.channels = 2}};
  const int line = __LINE__ + 1;
  model(scope, x);
  EXPECT_THAT(std::string(graph.status().message()), HasSubstr("Conv2D: the input has to have at least 4 axes"));
  EXPECT_THAT(std::string(graph.status().message()), HasSubstr("nn_test.cc:" + std::to_string(line)));
}

TEST(Sequential, NamesTheLineOfACallThatDoesNotFitItsVariablesOrItsGraph) {
  Graph graph, other;
  Scope scope(graph), other_scope(other);
  const nn::Sequential model{nn::Dense{4}};
  model(scope, scope.Input("x", kFloat32, {2, 5}));
  const int line = __LINE__ + 1;
  model(scope, scope.Input("wide", kFloat32, {2, 6}));
  EXPECT_THAT(std::string(graph.status().message()), HasSubstr("is float32[5,4] from an earlier call, and this call "));
  EXPECT_THAT(std::string(graph.status().message()), HasSubstr("nn_test.cc:" + std::to_string(line)));
  EXPECT_FALSE(model(other_scope, graph.value(graph.FindNamed("x"))).valid());
  EXPECT_THAT(std::string(other.status().message()), HasSubstr("Sequential: the input belongs to another graph"));
  EXPECT_THAT(std::string(other.status().message()), HasSubstr("nn_test.cc:" + std::to_string(line + 3)));
}

TEST(Sequential, TakesFunctionsAsLayers) {
  Graph graph;
  Scope scope(graph);
  const Value x = scope.Input("x", kFloat32, {Dim("batch"), 3, 5});
  const nn::Sequential model{[](Value v) {
                               return Transpose(v, {0, 2, 1});
                             },
                             nn::Conv1D{.channels = 2, .kernel = 3, .bias = false}, [](Value v) { return v * 2; }};
  const Value y = model(scope, x);
  ASSERT_TRUE(graph.status().ok()) << graph.status();
  EXPECT_EQ(y.shape().ToString(), "[batch,2,1]");
  EXPECT_EQ(model.outputs()[0].first, "layer_1");
  EXPECT_EQ(model.outputs()[2].first, "layer_2");
}

TEST(Sequential, RefusesANullFunctionAtTheLineOfTheCall) {
  const std::function<Value(Value)> empty;
  Value (*const null_pointer)(Value) = nullptr;
  for (const nn::Layer& layer : {nn::Layer(empty), nn::Layer(null_pointer)}) {
    Graph graph;
    Scope scope(graph);
    const Value x = scope.Input("x", kFloat32, {Dim("batch"), 3});
    const nn::Sequential model{nn::Dense{4}, layer};
    const int line = __LINE__ + 1;
    EXPECT_FALSE(model(scope, x).valid());
    EXPECT_THAT(std::string(graph.status().message()), HasSubstr("a function given as a layer is null"));
    EXPECT_THAT(std::string(graph.status().message()), HasSubstr("nn_test.cc:" + std::to_string(line)));
  }
}

TEST(Sequential, TakesLayersOfAVector) {
  Graph graph;
  Scope scope(graph);
  const Value x = scope.Input("x", kFloat32, {Dim("batch"), 3});
  std::vector<nn::Layer> layers;
  for (int64_t units : {8, 5}) {
    layers.push_back(nn::Dense{units});
    layers.push_back(nn::Relu{});
  }
  const nn::Sequential model{layers};
  EXPECT_EQ(model(scope, x).shape().ToString(), "[batch,5]");
  ASSERT_TRUE(graph.status().ok()) << graph.status();
  EXPECT_EQ(model.outputs()[2].first, "dense_2");
  EXPECT_EQ(nn::Sequential(std::vector<nn::Layer>())(scope, x).port(), x.port());
}

TEST(Sequential, TellsHowTwoModelsOfOneScopeGetNames) {
  Graph graph;
  Scope scope(graph);
  const Value x = scope.Input("x", kFloat32, {Dim("batch"), 5});
  const nn::Sequential encoder{nn::Dense{4}}, decoder{nn::Dense{5}};
  const Value code = encoder(scope, x);
  const int line = __LINE__ + 1;
  const Value decoded = decoder(scope, code);
  EXPECT_FALSE(decoded.valid());
  EXPECT_EQ(std::string(graph.status().message()),
            "layer variable 'dense_1/weight': the name is taken, as by another model in the same scope; put each model "
            "under a Scope of its own, or both into one Sequential; at frontend/nn_test.cc:" +
                std::to_string(line));
}

TEST(Summary, CountsParametersAndFlopsOfEachLayer) {
  Graph graph;
  Scope scope(graph);
  const Value x = scope.Input("x", kFloat32, {Dim("batch"), 5});
  const nn::Sequential model{nn::Dense{4}, nn::Sigmoid{}};
  model(scope, x);
  const std::vector<nn::LayerSummary> rows = nn::Summarize(model, x, {{"batch", 10}});
  ASSERT_EQ(rows.size(), 2u);
  EXPECT_EQ(rows[0].name, "dense_1");
  EXPECT_EQ(rows[0].output.ToString(), "[10,4]");
  EXPECT_EQ(rows[0].parameters, 24);
  EXPECT_EQ(rows[0].flops, 2 * 10 * 5 * 4 + 40);
  EXPECT_EQ(rows[1].parameters, 0);
}

TEST(Dropout, ZeroesSomeAndScalesTheOthersInTrainingOnly) {
  Graph graph;
  Scope scope(graph);
  const Value x = scope.Input("x", kFloat32, {1000});
  const nn::Sequential model{nn::Dropout{0.25}};
  const Value training = model(scope, x), inference = model(scope, x, {.training = false});
  absl::StatusOr<Session> session = Session::Create(graph, {.threads = 1});
  Tensor ones(kFloat32, {1000});
  for (float& one : ones.mutable_values<float>()) one = 1;
  const std::vector<Tensor> results = RunSession(*session, {{x, ones}}, {training, inference});
  int zeros = 0;
  for (float value : results[0].values<float>()) {
    zeros += value == 0;
    if (value != 0) {
      EXPECT_FLOAT_EQ(value, 1 / 0.75f);
    }
  }
  EXPECT_NEAR(zeros, 250, 60);
  EXPECT_TRUE(SameBits(results[1], ones));
  EXPECT_FALSE(SameBits(RunSession(*session, {{x, ones}}, {training})[0], results[0])) << "every run drops others";
}

// The momentum is 0.9 and the averages start at 0 and 1, so the new mean is 0.1*batch mean and the
// new variance is 0.9 + 0.1*unbiased batch variance.
TEST(BatchNorm, TrainsItsMovingAveragesWithTheOptimizer) {
  Graph graph;
  Scope scope(graph);
  const Value x = scope.Input("x", kFloat32, {Dim("batch"), 2});
  const nn::Sequential model{nn::BatchNorm{}};
  const Value y = model(scope, x), inference = model(scope, x, {.training = false});
  const Update step = optim::Sgd{.learning_rate = 0.1}.Minimize(Mean(Square(y)));
  ASSERT_TRUE(graph.status().ok()) << graph.status();
  absl::StatusOr<Session> session = Session::Create(graph, {.threads = 1});
  const Tensor batch = Tensor::Of<float>({4, 2}, {1, 10, 2, 10, 3, 10, 6, 14});
  RunSession(*session, {{x, batch}}, {y});
  EXPECT_THAT(session->GetVariable("batch_norm_1/moving_mean")->ToDoubles(), ElementsAre(0, 0))
      << "only a training step moves them";
  RunSession(*session, {{x, batch}}, {step});
  EXPECT_THAT(session->GetVariable("batch_norm_1/moving_mean")->ToDoubles(), Pointwise(DoubleNear(1e-6), {0.3, 1.1}));
  EXPECT_THAT(session->GetVariable("batch_norm_1/moving_variance")->ToDoubles(),
              Pointwise(DoubleNear(1e-6), {0.9 + 0.1 * 14 / 3, 0.9 + 0.1 * 4}));
  EXPECT_EQ(RunSession(*session, {{x, batch}}, {inference})[0].num_elements(), 8);
}

TEST(Losses, AreTheirFormulas) {
  Graph graph;
  Scope scope(graph);
  const Value p = scope.Input("p", kFloat64, {3}), t = scope.Input("t", kFloat64, {3});
  const std::vector<Feed> feeds = {{p, Tensor::Of<double>({3}, {0.5, -2, 3})}, {t, Tensor::Of<double>({3}, {1, 0, 1})}};
  const Value mse = nn::MeanSquaredError(p, t), bce = nn::BinaryCrossEntropyWithLogits(p, t),
              huber = nn::Huber(p, t, 1);
  absl::StatusOr<Session> session = Session::Create(graph, {.threads = 1});
  const std::vector<Tensor> results = RunSession(*session, feeds, {mse, bce, huber});
  EXPECT_NEAR(results[0].ToDouble(), (0.25 + 4 + 4) / 3, 1e-12);
  EXPECT_NEAR(results[1].ToDouble(),
              (std::log1p(std::exp(-0.5)) + std::log1p(std::exp(-2.0)) + std::log1p(std::exp(-3.0))) / 3, 1e-12);
  EXPECT_NEAR(results[2].ToDouble(), (0.125 + 1.5 + 1.5) / 3, 1e-12);
}

// Returns the variable w after some steps on the loss w^2/2, whose gradient is w.
std::vector<double> Minimized(const std::function<Update(Value)>& minimize, int steps) {
  Graph graph;
  Scope scope(graph);
  const Value w = scope.Variable("w", scope.Constant(Tensor::Scalar(1.0)));
  const Update step = minimize(Square(w) * 0.5);
  EXPECT_TRUE(graph.status().ok()) << graph.status();
  absl::StatusOr<Session> session = Session::Create(graph, {.threads = 1});
  std::vector<double> values;
  for (int i = 0; i < steps; ++i) {
    RunSession(*session, {}, {step});
    values.push_back(session->GetVariable("w")->ToDouble());
  }
  return values;
}

// The expected steps are calculated by hand from the formulas.
TEST(Optimizers, TakeTheStepsOfTheirFormulas) {
  const double rate = 0.1;
  {
    double w = 1, v = 0;
    std::vector<double> plain, nesterov;
    for (int i = 0; i < 4; ++i) {
      v = 0.9 * v + w + 0.01 * w;
      w -= rate * v;
      plain.push_back(w);
    }
    EXPECT_THAT(Minimized(
                    [&](Value loss) {
                      return optim::Sgd{.learning_rate = rate, .momentum = 0.9, .weight_decay = 0.01}.Minimize(loss);
                    },
                    4),
                Pointwise(DoubleNear(1e-12), plain));
    w = 1, v = 0;
    for (int i = 0; i < 4; ++i) {
      v = 0.9 * v + w;
      w -= rate * (w + 0.9 * v);
      nesterov.push_back(w);
    }
    EXPECT_THAT(Minimized(
                    [&](Value loss) {
                      return optim::Sgd{.learning_rate = rate, .momentum = 0.9, .nesterov = true}.Minimize(loss);
                    },
                    4),
                Pointwise(DoubleNear(1e-12), nesterov));
  }
  for (bool decoupled : {false, true}) {
    double w = 1, m = 0, v = 0;
    std::vector<double> expected;
    for (int t = 1; t <= 5; ++t) {
      double g = w;
      if (decoupled)
        w *= 1 - rate * 0.1;
      else
        g += 0.1 * w;
      m = 0.9 * m + 0.1 * g;
      v = 0.999 * v + 0.001 * g * g;
      w -= rate * (m / (1 - std::pow(0.9, t))) / (std::sqrt(v / (1 - std::pow(0.999, t))) + 1e-8);
      expected.push_back(w);
    }
    EXPECT_THAT(Minimized(
                    [&](Value loss) {
                      return decoupled ? optim::AdamW{.learning_rate = rate, .weight_decay = 0.1}.Minimize(loss)
                                       : optim::Adam{.learning_rate = rate, .weight_decay = 0.1}.Minimize(loss);
                    },
                    5),
                Pointwise(DoubleNear(1e-9), expected));
  }
  {
    double w = 1, s = 0, u = 0, a = 1, sum = 0;
    std::vector<double> rms, ada;
    for (int i = 0; i < 4; ++i) {
      s = 0.99 * s + 0.01 * w * w;
      u = 0.5 * u + w / (std::sqrt(s) + 1e-8);
      w -= rate * u;
      rms.push_back(w);
      sum += a * a;
      a -= rate * a / (std::sqrt(sum) + 1e-10);
      ada.push_back(a);
    }
    EXPECT_THAT(
        Minimized([&](Value loss) { return optim::RmsProp{.learning_rate = rate, .momentum = 0.5}.Minimize(loss); }, 4),
        Pointwise(DoubleNear(1e-9), rms));
    EXPECT_THAT(Minimized([&](Value loss) { return optim::Adagrad{.learning_rate = rate}.Minimize(loss); }, 4),
                Pointwise(DoubleNear(1e-9), ada));
  }
}

TEST(Optimizers, FollowSchedulesAndTheLearningRateVariable) {
  // A step on the loss w^2/2 multiplies w by 1 - rate.
  auto rates = [](optim::LearningRate rate, int steps) {
    std::vector<double> result;
    double before = 1;
    for (double w : Minimized([&](Value loss) { return optim::Sgd{.learning_rate = rate}.Minimize(loss); }, steps)) {
      result.push_back(1 - w / before);
      before = w;
    }
    return result;
  };
  EXPECT_THAT(rates(optim::StepDecay(0.4, 0.5, 2), 5), Pointwise(DoubleNear(1e-6), {0.4, 0.4, 0.2, 0.2, 0.1}));
  EXPECT_THAT(rates(optim::ExponentialDecay(0.4, 0.25, 2), 3), Pointwise(DoubleNear(1e-6), {0.4, 0.2, 0.1}));
  EXPECT_THAT(
      rates(optim::CosineDecay(0.4, 4), 6),
      Pointwise(DoubleNear(1e-6), {0.4, 0.2 * (1 + std::sqrt(0.5)), 0.2, 0.2 * (1 - std::sqrt(0.5)), 0.0, 0.0}));
  EXPECT_THAT(rates(optim::LinearWarmup(2, optim::ConstantRate(0.4)), 4),
              Pointwise(DoubleNear(1e-6), {0.0, 0.2, 0.4, 0.4}));

  Graph graph;
  Scope scope(graph);
  const Value w = scope.Variable("w", scope.Constant(Tensor::Scalar(1.0)));
  const Update step = optim::Sgd{.learning_rate = 0.5}.Minimize(Square(w) * 0.5);
  absl::StatusOr<Session> session = Session::Create(graph, {.threads = 1});
  RunSession(*session, {}, {step});
  ASSERT_TRUE(session->SetVariable("sgd/learning_rate", Tensor::Scalar(0.1)).ok());
  RunSession(*session, {}, {step});
  EXPECT_NEAR(session->GetVariable("w")->ToDouble(), 0.5 * 0.9, 1e-12);
}

TEST(ClipByGlobalNorm, ScalesOnlyWhatIsTooLong) {
  Graph graph;
  Scope scope(graph);
  const Value a = scope.Input("a", kFloat64, {1}), b = scope.Input("b", kFloat64, {1});
  const std::vector<Value> clipped = optim::ClipByGlobalNorm({a, b}, 1);
  absl::StatusOr<Session> session = Session::Create(graph, {.threads = 1});
  const std::vector<Tensor> longer = RunSession(
      *session, {{a, Tensor::Of<double>({1}, {3})}, {b, Tensor::Of<double>({1}, {4})}}, {clipped[0], clipped[1]});
  EXPECT_NEAR(longer[0].ToDouble(), 0.6, 1e-12);
  EXPECT_NEAR(longer[1].ToDouble(), 0.8, 1e-12);
  const std::vector<Tensor> zero =
      RunSession(*session, {{a, Tensor(kFloat64, {1})}, {b, Tensor::Of<double>({1}, {0.5})}}, {clipped[0], clipped[1]});
  EXPECT_EQ(zero[0].ToDouble(), 0);
  EXPECT_EQ(zero[1].ToDouble(), 0.5);
}

}  // namespace
}  // namespace gradweave
