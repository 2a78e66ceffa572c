// Updates: one after another, those of layers, clipped gradients, and averages of weights.
#include "gradweave/frontend/updates.h"

#include <cstdint>
#include <iterator>
#include <limits>
#include <source_location>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "frontend/test_session.h"
#include "gmock/gmock.h"
#include "gradweave/frontend/dataset.h"
#include "gradweave/frontend/layers.h"
#include "gradweave/frontend/losses.h"
#include "gradweave/frontend/metrics.h"
#include "gradweave/frontend/optimizers.h"
#include "gradweave/frontend/trainer.h"
#include "gradweave/graph/passes/autodiff.h"
#include "gradweave/ops/elementwise.h"
#include "gradweave/ops/reduction.h"
#include "gradweave/ops/state.h"
#include "gtest/gtest.h"

namespace gradweave {
namespace {

using ::testing::DoubleEq;
using ::testing::DoubleNear;
using ::testing::HasSubstr;
using ::testing::Pointwise;

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

// A siamese net, or a discriminator that sees real and fake images: the layer's averages take in
// both batches, the one after the other.
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

// 101 samples in batches of 10: the last batch of each epoch has one sample, and so no variance.
// The averages are those of the other batches, and predictions are as good as the training was.
TEST(BatchNorm, PredictsAfterBatchesOfOneSample) {
  constexpr int64_t kSamples = 101, kBatch = 10, kEpochs = 30;
  Tensor points(kFloat32, {kSamples, 2}), labels(kInt32, {kSamples});
  data::SampleRandom random(1, 0, 0);
  for (int64_t i = 0; i < kSamples; ++i) {
    float* point = points.mutable_data<float>() + 2 * i;
    for (int k : {0, 1}) point[k] = static_cast<float>(random.Uniform() + 3 * k);
    labels.mutable_data<int32_t>()[i] = point[0] + 3 > point[1] ? 1 : 0;
  }
  std::vector<double> mean(2, 0), variance(2, 1);
  for (int64_t batch = 0; batch < kEpochs * 10; ++batch) {
    for (int k : {0, 1}) {
      double sum = 0, squares = 0;
      for (int64_t i = 0; i < kBatch; ++i) {
        const double value = points.data<float>()[(batch % 10 * kBatch + i) * 2 + k];
        sum += value;
        squares += value * value;
      }
      mean[k] = 0.9 * mean[k] + 0.1 * sum / kBatch;
      variance[k] = 0.9 * variance[k] + 0.1 * (squares - sum * sum / kBatch) / (kBatch - 1);
    }
  }
  Graph graph;
  Scope scope(graph);
  const Value x = scope.Input("x", kFloat32, {Dim("batch"), 2}), label = scope.Input("label", kInt32, {Dim("batch")});
  const nn::Sequential model{nn::BatchNorm{}, nn::Dense{2}};
  const Value logits = model(scope, x), answers = model(scope, x, {.training = false});
  const Value loss = nn::SoftmaxCrossEntropy(logits, label);
  const Training training{.loss = loss,
                          .step = optim::Adam{.learning_rate = 0.05}.Minimize(loss),
                          .metrics = {metrics::Accuracy(logits, label)},
                          .validation_metrics = {metrics::Accuracy(answers, label)}};
  Session session = Start(graph);
  const data::Dataset dataset = {{x, points}, {label, labels}};
  const absl::StatusOr<TrainingState> end = Fit(
      session, training, dataset, {.validation = dataset, .epochs = kEpochs, .batch_size = kBatch, .shuffle = false});
  ASSERT_TRUE(end.ok()) << end.status();
  EXPECT_THAT(Variable(session, "batch_norm_1/moving_mean"), Pointwise(DoubleNear(1e-5), mean));
  EXPECT_THAT(Variable(session, "batch_norm_1/moving_variance"), Pointwise(DoubleNear(1e-5), variance));
  EXPECT_GT(end->train["accuracy"], 0.9);
  EXPECT_GT(end->validation["accuracy"], 0.9);
}

// A batch of one value and one of none leave the averages as they are, bit for bit.
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

// ---- Clipping ----

TEST(Clipping, LimitsElementsNormsAndTheNormOfAll) {
  Graph graph;
  Scope scope(graph);
  const std::vector<Value> gradients = {scope.Constant(Tensor::Of<double>({2}, {3, -4})),
                                        scope.Constant(Tensor::Of<double>({2}, {0, 12})),
                                        scope.Constant(Tensor::Of<double>({1}, {0.5}))};
  std::vector<Fetch> fetches;
  for (const auto& clipped : {optim::ClipByValue(gradients, 2), optim::ClipByNorm(gradients, 2.5),
                              optim::ClipByGlobalNorm({gradients[0], gradients[1]}, 6.5)}) {
    for (const Value& value : clipped) fetches.push_back(value);
  }
  Session session = Start(graph);
  const absl::StatusOr<std::vector<Tensor>> results = session.Run({}, fetches);
  ASSERT_TRUE(results.ok()) << results.status();
  const std::vector<double> expected[] = {{2, -2}, {0, 2}, {0.5}, {1.5, -2}, {0, 2.5}, {0.5}, {1.5, -2}, {0, 6}};
  for (size_t i = 0; i < std::size(expected); ++i) {
    EXPECT_THAT((*results)[i].ToDoubles(), Pointwise(DoubleNear(1e-12), expected[i])) << i;
  }
}

TEST(Clipping, RefusesLimitsThatMakeNaNAtTheCallersLine) {
  using Clip = std::vector<Value> (*)(const std::vector<Value>&, double, std::source_location);
  for (Clip clip : {&optim::ClipByValue, &optim::ClipByNorm, &optim::ClipByGlobalNorm}) {
    for (double limit :
         {0.0, -1.0, std::numeric_limits<double>::quiet_NaN(), std::numeric_limits<double>::infinity()}) {
      Graph graph;
      Scope scope(graph);
      const Value gradient = scope.Constant(Tensor::Scalar(1.0));
      const int line = __LINE__ + 1;
      EXPECT_FALSE(clip({gradient}, limit, std::source_location::current())[0].valid());
      EXPECT_THAT(std::string(graph.status().message()), HasSubstr(absl::StrCat("is ", limit, " and must be ")));
      EXPECT_THAT(std::string(graph.status().message()), HasSubstr("updates_test.cc:" + std::to_string(line)));
    }
  }
}

// ---- Averages of weights ----

// The loss w makes the weights 9, 8, 7, whose average with decay 0.5 is 9, 8.5, 7.75, or by the
// weights 1, 2, 4 of (9 + 2*8 + 4*7)/7.
TEST(AverageWeights, StartWithTheFirstWeights) {
  for (bool corrected : {false, true}) {
    Graph graph;
    Scope scope(graph);
    const Value w = scope.Variable("w", scope.Constant(Tensor::Scalar(10.0)));
    const Value frozen = scope.Variable("frozen", scope.Constant(Tensor::Scalar(1.0)));
    const optim::WeightAverages averages =
        optim::AverageWeights(optim::Sgd{.learning_rate = 1}.Minimize(w + StopGradient(frozen)),
                              {.decay = 0.5, .bias_correction = corrected});
    EXPECT_EQ(averages.values.size(), 1u) << "the step does not assign what no gradient reaches";
    Session session = Start(graph);
    const std::vector<double> expected = corrected
                                             ? std::vector<double>{9, (9 + 2 * 8) / 3.0, (9 + 2 * 8 + 4 * 7) / 7.0}
                                             : std::vector<double>{9, 8.5, 7.75};
    for (double average : expected) {
      RunOnce(session, {}, {averages.step});
      EXPECT_NEAR(Variable(session, "average/w")[0], average, 1e-12);
    }
    EXPECT_EQ(Variable(session, "w")[0], 7);
  }
}

// A model is evaluated with the averages by a call with other values, or after a swap.
TEST(AverageWeights, TakeTheVariablesPlace) {
  Graph graph;
  Scope scope(graph);
  const Value x = scope.Input("x", kFloat64, {Dim("batch"), 3});
  const nn::Sequential model{nn::Dense{2}, nn::Tanh{}, nn::Dense{1}};
  const Value y = model(scope, x);
  const optim::WeightAverages averages =
      optim::AverageWeights(optim::Adam{.learning_rate = 0.1}.Minimize(Mean(Square(y - 1))), {.decay = 0.7});
  const Value averaged = model(scope, x, {.training = false, .values = averages.values});
  Session session = Start(graph);
  const std::vector<Feed> feeds = {{x, Tensor::Of<double>({2, 3}, {1, 2, 3, -1, 0, 2})}};
  for (int i = 0; i < 5; ++i) RunOnce(session, feeds, {averages.step});
  const absl::StatusOr<std::vector<Tensor>> before = session.Run(feeds, {y, averaged});
  RunOnce(session, {}, {averages.swap});
  const absl::StatusOr<std::vector<Tensor>> after = session.Run(feeds, {y, averaged});
  ASSERT_TRUE(before.ok() && after.ok());
  EXPECT_FALSE(SameBits((*before)[0], (*before)[1]));
  EXPECT_TRUE(SameBits((*before)[1], (*after)[0]));
  EXPECT_TRUE(SameBits((*before)[0], (*after)[1]));
}

TEST(AverageWeights, RefuseADecayOutOfRangeAndIntegers) {
  Graph graph;
  Scope scope(graph);
  const Value w = scope.Variable("w", scope.Constant(Tensor::Scalar(1.0)));
  const Update step = optim::Sgd{}.Minimize(w);
  optim::AverageWeights(step, {.decay = 1});
  EXPECT_THAT(std::string(graph.status().message()), HasSubstr("AverageWeights: decay is 1 and must be in [0, 1)"));
  EXPECT_THAT(std::string(graph.status().message()), HasSubstr("updates_test.cc:"));
  Graph other;
  Scope other_scope(other);
  const Value count = other_scope.Variable("count", other_scope.Constant(Tensor::Scalar(int64_t{1})));
  optim::AverageWeights({{Assign(count, count + 1)}});
  EXPECT_THAT(std::string(other.status().message()), HasSubstr("AverageWeights: the variables have to be floating"));
}

}  // namespace
}  // namespace gradweave
