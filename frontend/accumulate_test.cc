// Steps over several batches, beside steps over one large batch.
#include "gradweave/frontend/accumulate.h"

#include <algorithm>
#include <cmath>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "gmock/gmock.h"
#include "gradweave/frontend/batches.h"
#include "gradweave/frontend/dataset.h"
#include "gradweave/frontend/layers.h"
#include "gradweave/frontend/losses.h"
#include "gradweave/frontend/optimizers.h"
#include "gradweave/frontend/trainer.h"
#include "gradweave/frontend/weighted_mean.h"
#include "gradweave/ops/elementwise.h"
#include "gradweave/ops/reduction.h"
#include "gradweave/ops/scope.h"
#include "gradweave/ops/state.h"
#include "gtest/gtest.h"

namespace gradweave {
namespace {

using ::testing::HasSubstr;

// n points of two features with far from equal means, targets and weights.
data::Dataset Points(int64_t n, DType dtype = kFloat32) {
  Tensor x(kFloat64, {n, 2}), y(kFloat64, {n, 1}), weight(kFloat64, {n, 1});
  data::SampleRandom random(1, 0, 0);
  for (int64_t i = 0; i < n; ++i) {
    const double a = x.mutable_data<double>()[2 * i] = random.Uniform() * 3 + 5;
    const double b = x.mutable_data<double>()[2 * i + 1] = random.Uniform() - 0.5;
    y.mutable_data<double>()[i] = std::sin(a) + b;
    weight.mutable_data<double>()[i] = random.Uniform() * 3;
  }
  return {{"x", x.Cast(dtype)}, {"y", y.Cast(dtype)}, {"weight", weight.Cast(dtype)}};
}

// A net in float64, so that rounding stays far below the tolerance.
struct Net {
  Graph graph;
  Scope scope{graph};
  Value x = scope.Input("x", kFloat64, {Dim("batch"), 2});
  Value y = scope.Input("y", kFloat64, {Dim("batch"), 1});
  Value weight = scope.Input("weight", kFloat64, {Dim("batch"), 1});
  Value prediction;
  explicit Net(const nn::Sequential& model) { prediction = model(scope, x); }

  // The values of the model's variables after a training, by name.
  std::vector<std::pair<std::string, std::vector<double>>> Train(const Loss& loss, const TrainingStep& step,
                                                                 int64_t batch_size, int64_t accumulate,
                                                                 int64_t samples) {
    absl::StatusOr<Session> session = Session::Create(graph, {.threads = 1, .seed = 3});
    EXPECT_TRUE(session.ok()) << session.status();
    const absl::StatusOr<TrainingState> end =
        Fit(*session, {loss, step}, Points(samples, kFloat64),
            {.epochs = 3, .batch_size = batch_size, .seed = 2, .accumulate = accumulate});
    EXPECT_TRUE(end.ok()) << end.status();
    EXPECT_EQ(end->batches, data::NumBatches(samples, batch_size));
    std::vector<std::pair<std::string, std::vector<double>>> values;
    for (const std::string& name : session->VariableNames()) {
      if (name.find("accumulated") == std::string::npos)
        values.emplace_back(name, session->GetVariable(name)->ToDoubles());
    }
    return values;
  }
};

void ExpectNear(const std::vector<std::pair<std::string, std::vector<double>>>& got,
                const std::vector<std::pair<std::string, std::vector<double>>>& want, double tolerance) {
  ASSERT_EQ(got.size(), want.size());
  for (size_t i = 0; i < got.size(); ++i) {
    ASSERT_EQ(got[i].second.size(), want[i].second.size());
    for (size_t k = 0; k < got[i].second.size(); ++k)
      EXPECT_NEAR(got[i].second[k], want[i].second[k], tolerance) << got[i].first;
  }
}

const nn::Sequential& Dense() {
  static const auto* const model = new nn::Sequential{nn::Dense{4}, nn::Tanh{}, nn::Dense{1}};
  return *model;
}

// 38 samples are steps of 5 + 5 + 5 + 5 and 5 + 5 + 5 + 3 samples; the large batches have 20 and
// 18.
TEST(Accumulate, StepsAsWithOneLargeBatch) {
  Net large(Dense()), small(Dense());
  const optim::Optimizer optimizer = optim::AdamW{.learning_rate = 0.1, .weight_decay = 0.1, .clip_norm = 0.5};
  const Value large_loss = nn::MeanSquaredError(large.prediction, large.y) + 0 * Sum(large.weight);
  const Value loss = nn::MeanSquaredError(small.prediction, small.y) + 0 * Sum(small.weight);
  const Update step = optimizer.Minimize(large_loss);
  const optim::AccumulatedUpdate accumulated = optim::Accumulate(optimizer, loss);
  const auto want = large.Train(large_loss, step, 20, 1, 38);
  ExpectNear(small.Train(loss, accumulated, 5, 4, 38), want, 1e-12);
  // With steps of another number of batches the result is another one.
  EXPECT_GT(std::abs(small.Train(loss, accumulated, 5, 3, 38)[0].second[0] - want[0].second[0]), 1e-6);
  // Without accumulation, the step is the optimizer's.
  ExpectNear(small.Train(loss, accumulated, 20, 1, 38), want, 1e-12);
}

TEST(Accumulate, WeighsBatchesByTheSumsOfTheirWeights) {
  Net large(Dense()), small(Dense());
  const optim::Optimizer optimizer = optim::Sgd{.learning_rate = 0.1, .momentum = 0.9};
  const WeightedMean large_loss = WeightedMeanOf(Square(large.prediction - large.y), large.weight);
  const WeightedMean loss = WeightedMeanOf(Square(small.prediction - small.y), small.weight);
  const Update step = optimizer.Minimize(large_loss.mean);
  const optim::AccumulatedUpdate accumulated = optim::Accumulate(optimizer, loss);
  ExpectNear(small.Train(loss, accumulated, 5, 4, 38), large.Train(large_loss, step, 20, 1, 38), 1e-12);
}

// The first layer normalizes the inputs, so all batches of a step together have the statistics of
// the large batch. The layer is frozen, so that the step does not change what comes behind it in
// another way.
TEST(Accumulate, GivesMovingAveragesTheStatisticsOfTheLargeBatch) {
  for (int64_t samples : {40, 38}) {
    const nn::Sequential model{nn::BatchNorm{.momentum = 0.7}, nn::Dense{1}};
    Net large(model), small(model);
    const optim::Optimizer optimizer = optim::Sgd{.learning_rate = 0};
    const Value large_loss = nn::MeanSquaredError(large.prediction, large.y) + 0 * Sum(large.weight);
    const Value loss = nn::MeanSquaredError(small.prediction, small.y) + 0 * Sum(small.weight);
    const Update step = optimizer.Minimize(large_loss);
    const optim::AccumulatedUpdate accumulated = optim::Accumulate(optimizer, loss);
    const auto want = large.Train(large_loss, step, 20, 1, samples);
    ExpectNear(small.Train(loss, accumulated, 5, 4, samples), want, 1e-12);
    // A moving average of averages, one for each small batch, is another number.
    double largest = 0;
    Net other(model);
    const Value other_loss = nn::MeanSquaredError(other.prediction, other.y) + 0 * Sum(other.weight);
    const auto naive = other.Train(other_loss, optimizer.Minimize(other_loss), 5, 1, samples);
    for (size_t i = 0; i < naive.size(); ++i) {
      for (size_t k = 0; k < naive[i].second.size(); ++k)
        largest = std::max(largest, std::abs(naive[i].second[k] - want[i].second[k]));
    }
    EXPECT_GT(largest, 1e-3);
  }
}

// A layer that is called twice averages the one call after the other.
TEST(Accumulate, AveragesSeveralCallsOfOneLayer) {
  const nn::Sequential norm{nn::BatchNorm{.momentum = 0.7}}, same_norm{nn::BatchNorm{.momentum = 0.7}};
  auto loss_of = [](Net& net, const nn::Sequential& norm) {
    return Mean(Square(net.prediction)) + Mean(Square(norm(net.scope, net.x * 2 + 1))) + 0 * Sum(net.weight * net.y);
  };
  Net large(norm), small(same_norm);
  const optim::Optimizer optimizer = optim::Sgd{.learning_rate = 0};
  const Value large_loss = loss_of(large, norm), loss = loss_of(small, same_norm);
  const Update step = optimizer.Minimize(large_loss);
  const optim::AccumulatedUpdate accumulated = optim::Accumulate(optimizer, loss);
  ExpectNear(small.Train(loss, accumulated, 5, 4, 38), large.Train(large_loss, step, 20, 1, 38), 1e-12);
}

// Another layer's assignments take the mean over the batches; one to an integer happens once for
// each step.
TEST(Accumulate, TakesTheMeanOfOtherAssignments) {
  Net large(Dense()), small(Dense());
  auto add = [](Net& net) {
    const Value mean = net.scope.Variable("mean", net.scope.Full(0, {}, kFloat64), {.trainable = false});
    const Value count =
        net.scope.Variable("count", net.scope.Constant(Tensor::Scalar(int64_t{0})), {.trainable = false});
    const Value loss = nn::MeanSquaredError(net.prediction, net.y) + 0 * Sum(net.weight);
    Assign(mean, mean * 0.5 + Mean(net.prediction) * 0.5, {.with_training = true});
    Assign(count, count + Cast(0 * Sum(net.prediction), kInt64) + 1, {.with_training = true});
    return loss;
  };
  const optim::Optimizer optimizer = optim::Sgd{.learning_rate = 0.1};
  const Value large_loss = add(large), loss = add(small);
  const Update step = optimizer.Minimize(large_loss);
  const optim::AccumulatedUpdate accumulated = optim::Accumulate(optimizer, loss);
  const auto want = large.Train(large_loss, step, 20, 1, 38);
  for (const auto& [name, values] : want) {
    if (name == "count") {
      EXPECT_EQ(values[0], 6);
    }
  }
  ExpectNear(small.Train(loss, accumulated, 5, 4, 38), want, 1e-12);
}

TEST(Accumulate, RefusesALossWithoutAWeight) {
  Graph graph;
  Scope scope(graph);
  const Value a = scope.Input("a", kFloat32, {Dim("n")}), b = scope.Input("b", kFloat32, {Dim("m")});
  const Value w = scope.Variable("w", 1.0);
  optim::Accumulate(optim::Sgd{}, w * (Mean(a) + Mean(b)));
  EXPECT_THAT(std::string(graph.status().message()),
              HasSubstr("inputs 'a', float32[n], and 'b', float32[m], have different first axes"));
  EXPECT_THAT(std::string(graph.status().message()), HasSubstr("accumulate_test.cc"));
  Graph other;
  Scope other_scope(other);
  optim::Accumulate(optim::Sgd{}, other_scope.Variable("w", 1.0) * 2);
  EXPECT_THAT(std::string(other.status().message()), HasSubstr("depends on no input with samples"));
}

}  // namespace
}  // namespace gradweave
