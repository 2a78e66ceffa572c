// Image data sets, batches and the training loop.
#include <algorithm>
#include <chrono>
#include <cmath>
#include <limits>
#include <memory>
#include <optional>
#include <set>
#include <sstream>
#include <stdexcept>
#include <string>
#include <thread>

#include "gmock/gmock.h"
#include "gradweave/frontend/batches.h"
#include "gradweave/frontend/callbacks.h"
#include "gradweave/frontend/data.h"
#include "gradweave/frontend/layers.h"
#include "gradweave/frontend/losses.h"
#include "gradweave/frontend/optimizers.h"
#include "gradweave/frontend/trainer.h"
#include "gradweave/ops/elementwise.h"
#include "gradweave/ops/indexing.h"
#include "gradweave/ops/reduction.h"
#include "gradweave/ops/softmax.h"
#include "gradweave/ops/state.h"
#include "gtest/gtest.h"

namespace gradweave {
namespace {

using ::testing::HasSubstr;

// Returns n images of one pixel. The shade identifies the sample.
data::Dataset Numbered(int64_t n) {
  Tensor images(kUint8, {n, 1, 1, 1}), labels(kInt32, {n});
  for (int64_t i = 0; i < n; ++i) {
    images.mutable_data<uint8_t>()[i] = static_cast<uint8_t>(i);
    labels.mutable_data<int32_t>()[i] = static_cast<int32_t>(i % 3);
  }
  return *data::FromArrays(images, labels, 3);
}

// Returns the samples of an epoch, in order.
std::vector<int> Order(data::BatchLoader& loader, int64_t epoch, std::vector<int64_t>* sizes = nullptr) {
  std::vector<int> order;
  loader.StartEpoch(epoch);
  while (const data::Batch* batch = loader.Next()) {
    if (sizes != nullptr) sizes->push_back(batch->size);
    for (int64_t i = 0; i < batch->size; ++i) {
      const int sample = static_cast<int>(std::lround(batch->arrays[0].data<float>()[i] * 255));
      EXPECT_EQ(batch->arrays[1].data<int32_t>()[i], sample % 3);
      order.push_back(sample);
    }
  }
  return order;
}

TEST(BatchLoader, GivesEverySampleOnceAndTheLastBatchSmaller) {
  data::BatchLoader loader(Numbered(25), {.batch_size = 10});
  for (int64_t epoch = 0; epoch < 3; ++epoch) {
    std::vector<int64_t> sizes;
    const std::vector<int> order = Order(loader, epoch, &sizes);
    EXPECT_EQ(sizes, (std::vector<int64_t>{10, 10, 5}));
    EXPECT_EQ(std::set<int>(order.begin(), order.end()).size(), 25u);
    EXPECT_EQ(order.size(), 25u);
  }
}

TEST(BatchLoader, ShufflesBySeedAndEpoch) {
  data::BatchLoader a(Numbered(25), {.batch_size = 4, .seed = 1}), b(Numbered(25), {.batch_size = 7, .seed = 1}),
      c(Numbered(25), {.batch_size = 4, .seed = 2});
  const std::vector<int> first = Order(a, 0);
  EXPECT_EQ(Order(b, 0), first);
  EXPECT_NE(Order(c, 0), first);
  EXPECT_NE(Order(a, 1), first);
  // An epoch that was left early starts again.
  a.StartEpoch(0);
  a.Next();
  EXPECT_EQ(Order(a, 0), first);
}

TEST(FromArrays, RefusesWhatDoesNotFit) {
  EXPECT_THAT(std::string(data::FromArrays(Tensor(kUint8, {2, 1, 1, 1}), Tensor(kInt32, {3}), 3).status().message()),
              HasSubstr("images are uint8[2,1,1,1] and labels int32[3]"));
  EXPECT_EQ(data::FromArrays(Tensor(kUint8, {1, 1, 1, 1}), Tensor::Of<int32_t>({1}, {3}), 3).status().code(),
            absl::StatusCode::kOutOfRange);
}

using Sessions = absl::StatusOr<Session>;

// Logistic regression on one pixel.
struct Model {
  Graph graph;
  std::unique_ptr<Training> training;
  Model() {
    Scope scope(graph);
    const Value image = scope.Input("image", kFloat32, {Dim("batch"), 1, 1, 1});
    const Value label = scope.Input("label", kInt32, {Dim("batch")});
    const nn::Sequential layers{nn::Flatten{}, nn::Dense{3}};
    const Value logits = layers(scope, image);
    const Value loss = nn::SoftmaxCrossEntropy(logits, label);
    training = std::make_unique<Training>(
        Training{loss, optim::Sgd{.learning_rate = 0.1}.Minimize(loss), {metrics::Accuracy(logits, label)}});
  }
};

std::string ErrorOf(const absl::StatusOr<TrainingState>& result) { return std::string(result.status().message()); }

TEST(Fit, CallsBackAfterBatchesAndEpochsAndStopsEarly) {
  Model model;
  Sessions session = Session::Create(model.graph, {.threads = 1});
  ASSERT_TRUE(session.ok()) << session.status();
  std::ostringstream progress;
  TrainingCurves curves;
  int saved = 0, batches = 0, ended = 0;
  const absl::StatusOr<TrainingState> end = Fit(*session, *model.training, Numbered(25),
                                                {.validation = Numbered(12),
                                                 .epochs = 9,
                                                 .batch_size = 10,
                                                 .callbacks = {PrintProgress(progress, false),
                                                               RecordCurves(curves),
                                                               Checkpoint(
                                                                   [&] {
                                                                     ++saved;
                                                                     return absl::OkStatus();
                                                                   },
                                                                   2),
                                                               StopEarly({"accuracy", true, false, 1.0}, 2),
                                                               {.after_batch =
                                                                    [&](TrainingState&) {
                                                                      ++batches;
                                                                      return absl::OkStatus();
                                                                    },
                                                                .after_training =
                                                                    [&](TrainingState&) {
                                                                      ++ended;
                                                                      return absl::OkStatus();
                                                                    }}}});
  ASSERT_TRUE(end.ok()) << end.status();
  // No epoch improves the first one by 1.0, so training stops after two more.
  EXPECT_EQ(batches, 9);
  EXPECT_EQ(saved, 1);
  EXPECT_EQ(ended, 1);
  EXPECT_EQ(end->examples, 75);
  EXPECT_EQ(curves.validation["accuracy"].size(), 3u);
  EXPECT_EQ(curves.validation["loss"].size(), 3u);
  EXPECT_EQ(curves.train["loss"].size(), 9u);
  EXPECT_THAT(progress.str(), HasSubstr("epoch 3/9  batch 3/3  loss"));
  EXPECT_THAT(progress.str(), HasSubstr("  validation:  loss"));
  EXPECT_THAT(progress.str(), ::testing::Not(HasSubstr("learning rate")));
  const absl::StatusOr<MetricValues> again = Evaluate(*session, model.training->metrics, Numbered(12), 5);
  EXPECT_EQ((*again)["accuracy"], end->validation["accuracy"]);
}

TEST(Fit, MeasuresEpochsByTheClock) {
  using Clock = std::chrono::steady_clock;
  constexpr std::chrono::milliseconds kNap(20);
  auto nap = [&](TrainingState&) {
    std::this_thread::sleep_for(kNap);
    return absl::OkStatus();
  };
  std::vector<double> epochs;
  Model model;
  Sessions session = Session::Create(model.graph, {.threads = 1});
  ASSERT_TRUE(session.ok()) << session.status();
  const Clock::time_point start = Clock::now();
  ASSERT_TRUE(Fit(*session, *model.training, Numbered(25),
                  {.validation = Numbered(12),
                   .epochs = 3,
                   .batch_size = 10,
                   .callbacks = {{.after_batch = nap, .after_epoch = nap},
                                 {.after_epoch =
                                      [&](TrainingState& state) {
                                        epochs.push_back(state.epoch_seconds);
                                        return absl::OkStatus();
                                      }}}})
                  .ok());
  const double all = std::chrono::duration<double>(Clock::now() - start).count();
  ASSERT_EQ(epochs.size(), 3u);
  // The epoch time includes the naps after all batches but the last. It includes neither that nap
  // nor the one after the epoch.
  constexpr double kNapSeconds = std::chrono::duration<double>(kNap).count();
  for (double seconds : epochs) EXPECT_GE(seconds, 2 * kNapSeconds);
  EXPECT_LE(epochs[0] + epochs[1] + epochs[2] + 6 * kNapSeconds, all);
}

// y = 2 x0 - x1 + noise for n points, and a linear model of it that starts at zero.
struct Line {
  Graph graph;
  Value x, y, prediction, loss;
  data::Dataset data;
  explicit Line(int64_t n) {
    Scope scope(graph);
    x = scope.Input("x", kFloat32, {Dim("batch"), 2});
    y = scope.Input("y", kFloat32, {Dim("batch"), 1});
    prediction = nn::Sequential{nn::Dense{.features = 1, .weight_initializer = nn::Constant{0}}}(scope, x);
    loss = nn::MeanSquaredError(prediction, y);
    Tensor points(kFloat32, {n, 2}), values(kFloat32, {n, 1});
    data::SampleRandom random(3, 0, 0);
    for (int64_t i = 0; i < n; ++i) {
      const double a = random.Uniform() - 0.5, b = random.Uniform() - 0.5;
      points.mutable_data<float>()[2 * i] = static_cast<float>(a);
      points.mutable_data<float>()[2 * i + 1] = static_cast<float>(b);
      values.mutable_data<float>()[i] = static_cast<float>(2 * a - b + 0.01 * random.Uniform());
    }
    data = {{x, points}, {y, values}};
  }
};

// Without labels, classes or validation: a regression, whose metrics are those of its last epoch.
TEST(Fit, TrainsARegression) {
  Line line(64);
  const Training training{line.loss,
                          optim::Sgd{.learning_rate = 0.3}.Minimize(line.loss),
                          {metrics::MeanSquaredError(line.prediction, line.y), metrics::R2(line.prediction, line.y)}};
  Sessions session = Session::Create(line.graph, {.threads = 1});
  ASSERT_TRUE(session.ok()) << session.status();
  const absl::StatusOr<TrainingState> end = Fit(*session, training, line.data, {.epochs = 60, .batch_size = 10});
  ASSERT_TRUE(end.ok()) << end.status();
  EXPECT_NEAR(end->train["loss"], end->train["mse"], 1e-8);
  EXPECT_GT(end->train["r2"], 0.999);
  EXPECT_TRUE(end->validation.all().empty());
  const std::vector<double> weight = session->GetVariable("dense_1/weight")->ToDoubles();
  EXPECT_NEAR(weight[0], 2, 0.02);
  EXPECT_NEAR(weight[1], -1, 0.02);
}

// An autoencoder: one array, and nothing else.
TEST(Fit, TakesOneArray) {
  Graph graph;
  Scope scope(graph);
  const Value x = scope.Input("x", kFloat64, {Dim("batch"), 3});
  const nn::Sequential model{nn::Dense{2}, nn::Dense{3}};
  const Value loss = nn::MeanSquaredError(model(scope, x), x);
  const Training training{loss, optim::Adam{.learning_rate = 0.05}.Minimize(loss)};
  Sessions session = Session::Create(graph, {.threads = 1});
  ASSERT_TRUE(session.ok()) << session.status();
  Tensor rows(kFloat64, {20, 3});
  for (int i = 0; i < 20; ++i) {
    for (int k = 0; k < 3; ++k) rows.mutable_data<double>()[3 * i + k] = (i % 5 - 2) * (k + 1) * 0.1;
  }
  const absl::StatusOr<TrainingState> end = Fit(*session, training, {{x, rows}}, {.epochs = 100, .batch_size = 20});
  ASSERT_TRUE(end.ok()) << end.status();
  EXPECT_LT(end->train["loss"], 1e-3);
}

// Tokens, numbers and a flag of each sample are three inputs of different dtypes and ranks.
TEST(Fit, TakesSeveralInputs) {
  Graph graph;
  Scope scope(graph);
  const Value token = scope.Input("token", kInt64, {Dim("batch")});
  const Value numbers = scope.Input("numbers", kFloat32, {Dim("batch"), 2});
  const Value byte = scope.Input("byte", kUint8, {Dim("batch")});
  const Value y = scope.Input("y", kFloat32, {Dim("batch")});
  const nn::Sequential embedding{nn::Embedding{.vocabulary = 4, .features = 1}}, dense{nn::Dense{1}};
  const Value prediction =
      Sum(embedding(scope, token), {.axes = {1}}) + Sum(dense(scope, numbers), {.axes = {1}}) * Cast(byte, kFloat32);
  const Value loss = nn::MeanSquaredError(prediction, y);
  const Training training{loss, optim::Adam{.learning_rate = 0.05}.Minimize(loss), {metrics::R2(prediction, y)}};
  Sessions session = Session::Create(graph, {.threads = 1});
  ASSERT_TRUE(session.ok()) << session.status();
  Tensor tokens(kInt64, {64}), pairs(kFloat32, {64, 2}), bytes(kUint8, {64}), targets(kFloat32, {64});
  data::SampleRandom random(1, 0, 0);
  for (int i = 0; i < 64; ++i) {
    const int64_t t = tokens.mutable_data<int64_t>()[i] = random.Below(4);
    const double a = random.Uniform(), b = random.Uniform();
    pairs.mutable_data<float>()[2 * i] = static_cast<float>(a);
    pairs.mutable_data<float>()[2 * i + 1] = static_cast<float>(b);
    const int flag = bytes.mutable_data<uint8_t>()[i] = static_cast<uint8_t>(random.Below(2));
    targets.mutable_data<float>()[i] = static_cast<float>(static_cast<double>(t) - 1 + flag * (a - 2 * b));
  }
  const data::Dataset all = {{y, targets}, {token, tokens}, {numbers, pairs}, {byte, bytes}};
  const absl::StatusOr<TrainingState> end = Fit(*session, training, all, {.epochs = 200, .batch_size = 16});
  ASSERT_TRUE(end.ok()) << end.status();
  EXPECT_GT(end->train["r2"], 0.99);
}

TEST(Fit, TellsWhichArrayDoesNotFit) {
  Line line(4);
  const Training training{line.loss, optim::Sgd{}.Minimize(line.loss)};
  Sessions session = Session::Create(line.graph, {.threads = 1});
  ASSERT_TRUE(session.ok()) << session.status();
  const Tensor x(kFloat32, {4, 2}), y(kFloat32, {4, 1});
  auto error = [&](const data::Dataset& data) { return ErrorOf(Fit(*session, training, data)); };
  EXPECT_THAT(error({{"x", x}, {"y", y}, {"z", y}}), HasSubstr("no input 'z'"));
  EXPECT_THAT(error({{"x", x}, {"y", y}, {"z", y}}), HasSubstr("'x', float32[batch,2]; 'y', float32[batch,1]"));
  EXPECT_THAT(error({{"x", x}}), HasSubstr("needs input 'y', float32[batch,1], and the data set has no array of that "
                                           "name; its arrays are 'x', float32[4,2]"));
  EXPECT_THAT(error({{"x", Tensor(kFloat64, {4, 2})}, {"y", y}}),
              HasSubstr("'x' is float32[batch,2] and its array float64[4,2]: the dtypes"));
  EXPECT_THAT(error({{"x", Tensor(kFloat32, {4, 3})}, {"y", y}}), HasSubstr("float32[4,3]: axis 1 differs"));
  EXPECT_THAT(error({{"x", Tensor(kFloat32, {4})}, {"y", y}}),
              HasSubstr("float32[4]: they have to have the same number"));
  EXPECT_THAT(error({{"x", x}, {"y", Tensor(kFloat32, {3, 1})}}), HasSubstr("have to have the same first axis"));
  EXPECT_THAT(error(line.data.First(0)), HasSubstr("the data set has no samples"));
  EXPECT_THAT(ErrorOf(Fit(*session, training, line.data, {.validation = line.data.First(0)})),
              HasSubstr("Fit, validation: the data set has no samples"));
  EXPECT_THAT(ErrorOf(Fit(*session, training, line.data, {.validation = line.data.Select({"x"})})),
              HasSubstr("needs input 'y'"));
}

TEST(Fit, RefusesOptionsOutsideTheirRange) {
  Line line(5);
  const Training training{line.loss, optim::Sgd{}.Minimize(line.loss)};
  Sessions session = Session::Create(line.graph, {.threads = 1});
  ASSERT_TRUE(session.ok()) << session.status();
  auto error = [&](const FitOptions& options) { return ErrorOf(Fit(*session, training, line.data, options)); };
  EXPECT_THAT(error({.epochs = 0}), HasSubstr("epochs is 0"));
  EXPECT_THAT(error({.batch_size = 0}), HasSubstr("batch_size is 0"));
  EXPECT_THAT(error({.validation_batch_size = -1}), HasSubstr("validation_batch_size is -1"));
  EXPECT_THAT(error({.accumulate = 0}), HasSubstr("accumulate is 0"));
  EXPECT_THAT(error({.accumulate = 2}), HasSubstr("use optim::Accumulate"));
  EXPECT_THAT(error({.epochs = 2, .first_epoch = 3}), HasSubstr("first_epoch is 3 and there are only 2 epochs"));
  EXPECT_THAT(error({.batch_size = 2, .first_batch = 4}), HasSubstr("first_batch is 4 and an epoch has only 3"));
  EXPECT_THAT(error({.length_multiple = 0}), HasSubstr("length_multiple is 0"));
  EXPECT_THAT(error({.read_every = -1}), HasSubstr("read_every is -1"));
  // One batch for all samples, with any number from theirs to the largest.
  for (int64_t batch_size : {int64_t{5}, std::numeric_limits<int64_t>::max()}) {
    const absl::StatusOr<TrainingState> end =
        Fit(*session, training, line.data,
            {.validation = line.data, .epochs = 1, .batch_size = batch_size, .validation_batch_size = batch_size});
    ASSERT_TRUE(end.ok()) << end.status();
    EXPECT_EQ(end->batches, 1);
    EXPECT_EQ(end->examples, 5);
  }
}

TEST(Fit, RefusesMetricsThatCannotBeComputed) {
  Line line(5);
  Training training{line.loss,
                    optim::Sgd{}.Minimize(line.loss),
                    {metrics::R2(line.prediction, line.y), metrics::R2(line.prediction, line.y)}};
  Sessions session = Session::Create(line.graph, {.threads = 1});
  ASSERT_TRUE(session.ok()) << session.status();
  EXPECT_THAT(ErrorOf(Fit(*session, training, line.data)), HasSubstr("two metrics have the name 'r2'"));
  training.metrics = {{.name = "mine", .sums = {{line.loss}}}};
  EXPECT_THAT(ErrorOf(Fit(*session, training, line.data)), HasSubstr("metric 'mine' has no function"));
  training.metrics = {metrics::Sum("predictions", line.prediction)};
  EXPECT_THAT(ErrorOf(Fit(*session, training, line.data)), HasSubstr("was added to the graph after Session::Create"));
  training.metrics = {};
  for (const Callback& callback : {StopEarly({"loss"}, 2), SaveBest({"loss"}, [] { return absl::OkStatus(); })}) {
    EXPECT_THAT(ErrorOf(Fit(*session, training, line.data, {.callbacks = {callback}})),
                HasSubstr("needs the validation metric 'loss', a scalar; the metrics are none, because there is no "
                          "validation; give FitOptions::validation, or set Goal::of_training"));
  }
  EXPECT_THAT(ErrorOf(Fit(*session, training, line.data, {.callbacks = {StopEarly({.of_training = true}, 0)}})),
              HasSubstr("patience of StopEarly is 0"));
  EXPECT_THAT(ErrorOf(Fit(*session, training, line.data,
                          {.callbacks = {StopEarly({.of_training = true, .least_change = std::nan("")}, 1)}})),
              HasSubstr("least_change is nan"));
}

// The loss of a weighted mean over batches of 4, 4 and 2 is that over all samples.
TEST(Fit, WeighsSamplesAndClasses) {
  Graph graph;
  Scope scope(graph);
  const Value x = scope.Input("x", kFloat32, {Dim("batch"), 2});
  const Value label = scope.Input("label", kInt32, {Dim("batch")});
  const Value weight = scope.Input("weight", kFloat32, {Dim("batch")});
  const nn::Sequential model{nn::Dense{.features = 3, .weight_initializer = nn::Constant{0}}};
  const Value losses = SparseSoftmaxCrossEntropy(model(scope, x), label) * Cast(label + 1, kFloat32);
  const WeightedMean of_samples = WeightedMeanOf(losses, weight);
  const WeightedMean of_classes =
      WeightedMeanOf(losses, Gather(scope.Constant(Tensor::Of<float>({3}, {1, 2, 0})), label));
  const Update nothing = {.assignments = {}, .may_be_empty = true};
  Sessions session = Session::Create(graph, {.threads = 1});
  ASSERT_TRUE(session.ok()) << session.status();
  const data::Dataset data = {{x, Tensor(kFloat32, {10, 2})},
                              {label, Tensor::Of<int32_t>({10}, {0, 1, 2, 0, 1, 2, 0, 1, 2, 0})},
                              {weight, Tensor::Of<float>({10}, {1, 2, 3, 4, 5, 6, 7, 8, 9, 0})}};
  // All logits are 0, so the loss of a sample is log(3)*(label + 1).
  const FitOptions options = {.epochs = 1, .batch_size = 4};
  EXPECT_NEAR(Fit(*session, {of_samples, nothing}, data, options)->train["loss"],
              std::log(3) * (12 * 1 + 15 * 2 + 18 * 3) / 45, 1e-6);
  EXPECT_NEAR(Fit(*session, {of_classes, nothing}, data, options)->train["loss"],
              std::log(3) * (4 * 1 * 1 + 3 * 2 * 2) / (4 * 1 + 3 * 2), 1e-6);
  // A batch in which all weights are 0 has the loss 0.
  EXPECT_EQ(Fit(*session, {of_classes, nothing}, data.Subset({2, 5}), options)->train["loss"], 0);
  const data::Dataset bad = {{x, Tensor(kFloat32, {2, 2})},
                             {label, Tensor(kInt32, {2})},
                             {weight, Tensor::Of<float>({2}, {1, std::numeric_limits<float>::quiet_NaN()})}};
  EXPECT_THAT(ErrorOf(Fit(*session, {of_samples, nothing}, bad, options)),
              HasSubstr("element 1 of the weights 'weight' is nan"));
}

// A step without updates is an error, unless it may be empty.
TEST(Fit, RefusesAStepThatTrainsNothing) {
  Line line(5);
  Sessions session = Session::Create(line.graph, {.threads = 1});
  ASSERT_TRUE(session.ok()) << session.status();
  EXPECT_THAT(ErrorOf(Fit(*session, {line.loss, Update()}, line.data)), HasSubstr("no assignments"));
}

// A classifier with dropout, and an optimizer with state.
struct Dropping {
  Graph graph;
  std::unique_ptr<Training> training;
  Dropping() {
    Scope scope(graph);
    const Value image = scope.Input("image", kFloat32, {Dim("batch"), 1, 1, 1});
    const Value label = scope.Input("label", kInt32, {Dim("batch")});
    const nn::Sequential layers{nn::Flatten{}, nn::Dense{8}, nn::Tanh{}, nn::Dropout{0.5}, nn::Dense{3}};
    const Value logits = layers(scope, image), test_logits = layers(scope, image, {.training = false});
    const Value loss = nn::SoftmaxCrossEntropy(logits, label);
    training = std::make_unique<Training>(Training{.loss = loss,
                                                   .step = optim::Adam{.learning_rate = 0.01}.Minimize(loss),
                                                   .metrics = {metrics::Accuracy(logits, label)},
                                                   .validation_loss = nn::SoftmaxCrossEntropy(test_logits, label),
                                                   .validation_metrics = {metrics::Accuracy(test_logits, label)}});
  }
  // The variables' values after a training; a later part goes on in another session with what a
  // file keeps.
  std::vector<Tensor> Train(const std::vector<FitOptions>& parts) {
    std::vector<std::pair<std::string, Tensor>> variables;
    uint64_t run_number = 1;
    for (const FitOptions& options : parts) {
      Sessions session =
          Session::Create(graph, {.threads = 1, .seed = 5, .variables = variables, .run_number = run_number});
      EXPECT_TRUE(session.ok()) << session.status();
      const absl::StatusOr<TrainingState> end = Fit(*session, *training, Numbered(25), options);
      EXPECT_TRUE(end.ok()) << end.status();
      variables.clear();
      for (const std::string& name : session->VariableNames())
        variables.emplace_back(name, *session->GetVariable(name));
      run_number = session->run_number();
    }
    std::vector<Tensor> values;
    for (const auto& [name, value] : variables) values.push_back(value);
    return values;
  }
};

void ExpectSameBits(const std::vector<Tensor>& a, const std::vector<Tensor>& b) {
  ASSERT_EQ(a.size(), b.size());
  for (size_t i = 0; i < a.size(); ++i) EXPECT_TRUE(SameBits(a[i], b[i])) << i;
}

TEST(Fit, GoesOnWithTheSameBits) {
  Dropping model;
  const FitOptions all = {.validation = Numbered(12), .epochs = 4, .batch_size = 10, .seed = 7};
  FitOptions first = all, second = all;
  first.epochs = 2;
  second.first_epoch = 2;
  const std::vector<Tensor> want = model.Train({all});
  ExpectSameBits(model.Train({first, second}), want);
  // Another order is another result.
  FitOptions wrong = second;
  wrong.first_epoch = 1;
  wrong.epochs = 3;
  EXPECT_FALSE(SameBits(model.Train({first, wrong})[0], want[0]));
}

TEST(Fit, GoesOnInTheMiddleOfAnEpoch) {
  Dropping model;
  const FitOptions all = {.validation = Numbered(12), .epochs = 3, .batch_size = 10, .seed = 7};
  FitOptions first = all, second = all;
  first.callbacks = {{.after_batch = [](TrainingState& state) {
    state.stop_now = state.epoch == 1 && state.batch == 2;
    return absl::OkStatus();
  }}};
  second.first_epoch = 1;
  second.first_batch = 2;
  ExpectSameBits(model.Train({first, second}), model.Train({all}));
}

// Metrics over all epochs: a mean of losses that no epoch sets back.
TEST(Fit, KeepsMetricsOverAllEpochsIfAsked) {
  Line line(25);
  const Training training{line.loss, optim::Sgd{.learning_rate = 0.3}.Minimize(line.loss)};
  auto losses = [&](bool over_all) {
    Sessions session = Session::Create(line.graph, {.threads = 1});
    EXPECT_TRUE(session.ok()) << session.status();
    std::vector<double> result;
    EXPECT_TRUE(Fit(*session, training, line.data,
                    {.epochs = 3,
                     .batch_size = 10,
                     .metrics_over_all_epochs = over_all,
                     .callbacks = {{.after_epoch =
                                        [&](TrainingState& state) {
                                          result.push_back(state.train["loss"]);
                                          return absl::OkStatus();
                                        }}}})
                    .ok());
    return result;
  };
  const std::vector<double> of_epochs = losses(false), of_all = losses(true);
  ASSERT_EQ(of_all.size(), 3u);
  EXPECT_EQ(of_all[0], of_epochs[0]);
  EXPECT_NEAR(of_all[1], (of_epochs[0] + of_epochs[1]) / 2, 1e-12);
  EXPECT_NEAR(of_all[2], (of_epochs[0] + of_epochs[1] + of_epochs[2]) / 3, 1e-12);
}

// Sequences of many lengths: sums are exact over more plans than are kept.
TEST(Fit, TakesSequencesOfManyLengths) {
  Graph graph;
  Scope scope(graph);
  const Value tokens = scope.Input("tokens", kFloat32, {Dim("batch"), Dim("length")});
  const Value scale = scope.Variable("scale", 1.0);
  const Value loss = Mean(Sum(tokens, {.axes = {1}})) * scale;
  constexpr int64_t kSamples = 150;
  Tensor padded(kFloat32, {kSamples, kSamples}), lengths(kInt32, {kSamples});
  for (int64_t i = 0; i < kSamples; ++i) {
    lengths.mutable_data<int32_t>()[i] = static_cast<int32_t>(i + 1);
    std::fill_n(padded.mutable_data<float>() + i * kSamples, i + 1, 1.0f);
  }
  const data::Dataset data = data::Dataset{{"tokens", padded}}.WithLengths(lengths, {"tokens"});
  const std::vector<Metric> metrics = {metrics::Mean("width", Sum(OnesLike(tokens), {.axes = {1}})),
                                       metrics::Sum("tokens", tokens)};
  Sessions session = Session::Create(graph, {.threads = 1});
  ASSERT_TRUE(session.ok()) << session.status();
  const Update nothing = {.assignments = {}, .may_be_empty = true};
  const absl::StatusOr<TrainingState> end =
      Fit(*session, {loss, nothing, metrics}, data, {.epochs = 2, .batch_size = 1});
  ASSERT_TRUE(end.ok()) << end.status();
  EXPECT_EQ(end->train["tokens"], kSamples * (kSamples + 1) / 2);
  EXPECT_EQ(end->train["width"], (kSamples + 1) / 2.0);
  EXPECT_EQ(end->train["loss"], (kSamples + 1) / 2.0);
  // Batches of two samples are padded to the longer one: 2, 4, .. 150 if the two are neighbours.
  EXPECT_EQ(Fit(*session, {loss, nothing, metrics}, data, {.epochs = 1, .batch_size = 2})->train["width"],
            (kSamples + 2) / 2.0);
  Graph fixed;
  Scope fixed_scope(fixed);
  const Value full = fixed_scope.Input("tokens", kFloat32, {Dim("batch"), kSamples});
  const Value fixed_loss = Mean(full);
  Sessions fixed_session = Session::Create(fixed, {.threads = 1});
  EXPECT_THAT(ErrorOf(Fit(*fixed_session, {fixed_loss, nothing}, data)),
              HasSubstr("axis 1 of the input has to be a symbol"));
}

TEST(Fit, TakesSamplesOfAGenerator) {
  Line line(4);
  const Training training{line.loss, optim::Sgd{.learning_rate = 0.3}.Minimize(line.loss)};
  Sessions session = Session::Create(line.graph, {.threads = 1});
  ASSERT_TRUE(session.ok()) << session.status();
  const data::Dataset data =
      data::Dataset::Generated({{line.x, kFloat32, {2}}, {line.y, kFloat32, {1}}}, 200,
                               [](const data::GeneratorCall& call, absl::Span<Tensor> arrays) {
                                 if (call.epoch == 20) return absl::UnavailableError("the sensor is gone");
                                 for (int64_t i = 0; i < call.count; ++i) {
                                   data::SampleRandom random(call.seed, call.epoch, call.first + i);
                                   float* x = arrays[0].mutable_data<float>() + 2 * i;
                                   x[0] = static_cast<float>(random.Uniform());
                                   x[1] = static_cast<float>(random.Uniform());
                                   arrays[1].mutable_data<float>()[i] = x[0] - 2 * x[1];
                                 }
                                 return absl::OkStatus();
                               });
  ASSERT_TRUE(Fit(*session, training, data, {.epochs = 20, .batch_size = 16}).ok());
  EXPECT_NEAR(session->GetVariable("dense_1/weight")->ToDoubles()[1], -2, 0.02);
  EXPECT_EQ(Fit(*session, training, data, {.epochs = 21, .first_epoch = 20}).status(),
            absl::UnavailableError("the sensor is gone"));
}

// A function of the program throws; Fit returns a status that names the function, with the text.
TEST(Fit, TurnsExceptionsOfFunctionsIntoAStatus) {
  auto throws = [](TrainingState&) -> absl::Status { throw std::runtime_error("disk full"); };
  const Metric metric{.name = "broken", .result = [](absl::Span<const Tensor>, double) -> Tensor {
                        throw std::logic_error("no samples");
                      }};
  const struct {
    Callback callback;
    std::vector<Metric> metrics;
    std::string message;
  } rows[] = {
      {{.after_batch = throws}, {}, "Fit: after_batch of a callback threw an exception: disk full"},
      {{.after_epoch = throws, .name = "Upload"},
       {},
       "Fit: after_epoch of callback 'Upload' threw an exception: disk full"},
      {{.after_training = throws}, {}, "Fit: after_training of a callback threw an exception: disk full"},
      {{}, {metric}, "Fit: the function of metric 'broken' threw an exception: no samples"},
  };
  for (const auto& [callback, metrics, message] : rows) {
    Line line(4);
    const Training training{line.loss, optim::Sgd{}.Minimize(line.loss), metrics};
    Sessions session = Session::Create(line.graph, {.threads = 1});
    ASSERT_TRUE(session.ok()) << session.status();
    EXPECT_EQ(Fit(*session, training, line.data, {.epochs = 1, .callbacks = {callback}}).status(),
              absl::UnknownError(message));
  }
}

}  // namespace
}  // namespace gradweave
