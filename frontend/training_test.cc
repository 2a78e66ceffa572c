// Data sets, batches and the training loop.
#include <chrono>
#include <cmath>
#include <fstream>
#include <set>
#include <sstream>

#include "gmock/gmock.h"
#include "gradweave/frontend/data.h"
#include "gradweave/frontend/layers.h"
#include "gradweave/frontend/losses.h"
#include "gradweave/frontend/optimizers.h"
#include "gradweave/frontend/trainer.h"
#include "gtest/gtest.h"

namespace gradweave {
namespace {

using ::testing::HasSubstr;

std::string TemporaryFile(const std::string& name, const std::string& contents) {
  const std::string path = ::testing::TempDir() + "/" + name;
  std::ofstream(path, std::ios::binary) << contents;
  return path;
}

std::string Bytes(std::initializer_list<int> bytes) { return std::string(bytes.begin(), bytes.end()); }

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

TEST(ReadIdx, ReadsSizesAndBytes) {
  const std::string path = TemporaryFile("good.idx", Bytes({0, 0, 8, 2, 0, 0, 0, 2, 0, 0, 0, 3, 1, 2, 3, 4, 5, 255}));
  const absl::StatusOr<Tensor> tensor = data::ReadIdx(path);
  ASSERT_TRUE(tensor.ok()) << tensor.status();
  EXPECT_EQ(tensor->type().ToString(), "uint8[2,3]");
  EXPECT_EQ(tensor->ToDoubles(), (std::vector<double>{1, 2, 3, 4, 5, 255}));
}

TEST(ReadIdx, TellsWhatIsWrong) {
  auto error = [](const std::string& contents) {
    return std::string(data::ReadIdx(TemporaryFile("bad.idx", contents), 1000).status().message());
  };
  EXPECT_THAT(error(""), HasSubstr("bad.idx: the file is truncated: 4 more bytes"));
  EXPECT_THAT(error(Bytes({0, 0, 13, 1, 0, 0, 0, 1, 0})), HasSubstr("magic number is 00000d01"));
  EXPECT_THAT(error(Bytes({0, 0, 8, 1, 0, 0, 0, 3, 1, 2})), HasSubstr("truncated: 1 more bytes"));
  EXPECT_THAT(error(Bytes({0, 0, 8, 1, 0, 0, 0, 1, 1, 2})), HasSubstr("more bytes than the sizes"));
  EXPECT_THAT(error(Bytes({0, 0, 8, 2, 127, 0, 0, 0, 127, 0, 0, 0})), HasSubstr("more than the 1000 bytes"));
  EXPECT_EQ(data::ReadIdx("/none").status().code(), absl::StatusCode::kNotFound);
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

struct Model {
  Graph graph;
  TrainingGraph training;
  Model() {
    Scope scope(graph);
    training.image = scope.Input("image", kFloat32, {Dim("batch"), 1, 1, 1});
    training.label = scope.Input("label", kInt32, {Dim("batch")});
    const nn::Sequential layers{nn::Flatten{}, nn::Dense{3}};
    const Value logits = layers(scope, training.image);
    training.loss = nn::SoftmaxCrossEntropy(logits, training.label);
    training.correct = nn::CorrectCount(logits, training.label);
    training.step = optim::Sgd{.learning_rate = 0.1}.Minimize(training.loss);
  }
};

TEST(Fit, CallsBackAfterBatchesAndEpochsAndStopsEarly) {
  Model model;
  absl::StatusOr<Session> session = Session::Create(model.graph, {.threads = 1});
  ASSERT_TRUE(session.ok()) << session.status();
  std::ostringstream progress;
  TrainingCurves curves;
  int saved = 0, batches = 0;
  const absl::StatusOr<TrainingState> end = Fit(*session, model.training, Numbered(25), Numbered(12),
                                                {.epochs = 9,
                                                 .batch_size = 10,
                                                 .callbacks = {PrintProgress(progress, false),
                                                               RecordCurves(curves),
                                                               Checkpoint(
                                                                   [&] {
                                                                     ++saved;
                                                                     return absl::OkStatus();
                                                                   },
                                                                   2),
                                                               StopEarly(2, 1.0),
                                                               {.after_batch = [&](TrainingState&) {
                                                                 ++batches;
                                                                 return absl::OkStatus();
                                                               }}}});
  ASSERT_TRUE(end.ok()) << end.status();
  // No epoch improves the first one by 1.0, so training stops after two more.
  EXPECT_EQ(batches, 9);
  EXPECT_EQ(saved, 1);
  EXPECT_EQ(end->examples, 75);
  EXPECT_EQ(curves.test_accuracy.size(), 3u);
  EXPECT_EQ(curves.train_loss.size(), 9u);
  EXPECT_THAT(progress.str(), HasSubstr("epoch 3/9  batch 3/3  loss"));
  EXPECT_EQ(*Evaluate(*session, model.training.image, model.training.label, model.training.correct, Numbered(12), 5),
            end->test_accuracy);
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
  absl::StatusOr<Session> session = Session::Create(model.graph, {.threads = 1});
  ASSERT_TRUE(session.ok()) << session.status();
  const Clock::time_point start = Clock::now();
  ASSERT_TRUE(Fit(*session, model.training, Numbered(25), Numbered(12),
                  {.epochs = 3,
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

TEST(Fit, RefusesOptionsOutsideTheirRange) {
  Model model;
  absl::StatusOr<Session> session = Session::Create(model.graph, {.threads = 1});
  EXPECT_THAT(
      std::string(Fit(*session, model.training, Numbered(5), Numbered(5), {.batch_size = 0}).status().message()),
      HasSubstr("batch_size is 0"));
}

}  // namespace
}  // namespace gradweave
