// The callback TensorBoard: which events a training writes, and that it trains as without it.
#include "gradweave/frontend/watch/tensorboard.h"

#include <map>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "gmock/gmock.h"
#include "gradweave/frontend/layers.h"
#include "gradweave/frontend/losses.h"
#include "gradweave/frontend/optimizers.h"
#include "gradweave/ops/elementwise.h"
#include "gradweave/ops/reduction.h"
#include "gradweave/ops/scope.h"
#include "gtest/gtest.h"
#include "tests/watch/read_events.h"

namespace gradweave {
namespace {

using ::testing::DoubleNear;
using ::testing::ElementsAre;
using ::testing::HasSubstr;

// A linear model of images of two by two pixels with dropout, whose random numbers depend on the
// runs of the session.
class TensorBoardTest : public ::testing::Test {
 protected:
  TensorBoardTest() {
    Scope scope(graph_);
    const Value image = scope.Input("image", kFloat32, {Dim("batch"), 1, 2, 2});
    const Value label = scope.Input("label", kInt32, {Dim("batch")});
    const nn::Sequential model{nn::Flatten{}, nn::Dropout{0.5}, nn::Dense{3}};
    logits_ = model(scope, image);
    loss_ = nn::SoftmaxCrossEntropy(logits_, label);
    training_ = {.loss = loss_,
                 .step = optim::Sgd{.learning_rate = 0.1}.Minimize(loss_),
                 .metrics = {metrics::Accuracy(logits_, label), metrics::ConfusionMatrix(logits_, label)}};
    Tensor images(kUint8, {20, 1, 2, 2}), labels(kInt32, {20});
    for (int i = 0; i < 80; ++i) images.mutable_data<uint8_t>()[i] = static_cast<uint8_t>(i * 37 % 256);
    for (int i = 0; i < 20; ++i) labels.mutable_data<int32_t>()[i] = i % 3;
    data_ = {{"image", images}, {"label", labels}};
    folder_ = ::testing::TempDir() + "/board";
    std::filesystem::remove_all(folder_);
  }
  FitOptions Options(int64_t epochs) const { return {.validation = data_, .epochs = epochs, .batch_size = 4}; }
  Session NewSession() const { return *Session::Create(graph_, {.threads = 1, .seed = 3}); }
  // Trains with the callback and returns the weights.
  Tensor Train(FitOptions options, TensorBoardOptions board) const {
    Session session = NewSession();
    absl::StatusOr<Callback> callback = TensorBoard(session, training_, std::move(board));
    EXPECT_TRUE(callback.ok()) << callback.status();
    options.callbacks = {*callback};
    const absl::StatusOr<TrainingState> end = Fit(session, training_, data_, options);
    EXPECT_TRUE(end.ok()) << end.status();
    return *session.GetVariable("dense_1/weight");
  }
  // Returns tags with the steps at which they come.
  static std::map<std::string, std::vector<int64_t>> Steps(const std::vector<tensorboard::Event>& events) {
    std::map<std::string, std::vector<int64_t>> steps;
    for (const tensorboard::Event& event : events) {
      if (event.what_case() == tensorboard::Event::kGraphDef) steps["the graph"].push_back(event.step());
      if (event.what_case() == tensorboard::Event::kSessionLog) steps["the start"].push_back(event.step());
      for (const auto& value : event.summary().value()) steps[value.tag()].push_back(event.step());
    }
    return steps;
  }

  Graph graph_;
  Value logits_, loss_;
  Training training_{Loss(), Update()};
  data::Dataset data_;
  std::string folder_;
};

TEST_F(TensorBoardTest, WritesCurvesHistogramsImagesAndTheGraph) {
  Train(Options(2), {.dir = folder_, .scalars_per_epoch = 2, .samples = data_, .most_samples = 8, .most_images = 2});
  const auto steps = Steps(ReadEventsOfFolder(folder_));
  EXPECT_THAT(steps.at("the start"), ElementsAre(1));
  EXPECT_THAT(steps.at("the graph"), ElementsAre(0));
  // Five batches of an epoch, read after every second and at the end.
  EXPECT_THAT(steps.at("loss/train"), ElementsAre(2, 4, 5, 7, 9, 10));
  EXPECT_THAT(steps.at("accuracy/train"), ElementsAre(2, 4, 5, 7, 9, 10));
  EXPECT_THAT(steps.at("examples_per_second"), ElementsAre(2, 4, 5, 7, 9, 10));
  for (const char* tag : {"loss/validation", "accuracy/validation", "weights/dense_1/weight", "weights/dense_1/bias",
                          "gradients/dense_1/weight", "gradients/dense_1/bias"}) {
    ASSERT_EQ(steps.count(tag), 1u) << tag;
    EXPECT_THAT(steps.at(tag), ElementsAre(5, 10)) << tag;
  }
  EXPECT_THAT(steps.at("samples/0"), ElementsAre(1));
  EXPECT_THAT(steps.at("samples/1"), ElementsAre(1));
  EXPECT_EQ(steps.count("samples/2"), 0u);
  EXPECT_EQ(steps.count("confusion/train"), 0u) << "a matrix is no scalar";
  EXPECT_EQ(steps.count("learning_rate"), 0u) << "the training has none";
}

TEST_F(TensorBoardTest, ChangesNoBitOfTheTraining) {
  Session session = NewSession();
  ASSERT_TRUE(Fit(session, training_, data_, Options(3)).ok());
  EXPECT_TRUE(SameBits(*session.GetVariable("dense_1/weight"), Train(Options(3), {.dir = folder_, .samples = data_})));
}

// The gradient of a mean of -x * w over the samples with respect to w is minus the mean of x.
TEST_F(TensorBoardTest, WritesTheGradientOfTheSamples) {
  Graph graph;
  Scope scope(graph);
  const Value x = scope.Input("x", kFloat32, {Dim("batch"), 2});
  const Value w = scope.Variable("w", scope.Constant(Tensor::Of<float>({2}, {0.5f, 0.25f})));
  const Value loss = -Mean(Sum(x * w, {.axes = {1}}));
  const Training training{loss, optim::Sgd{.learning_rate = 1}.Minimize(loss)};
  const data::Dataset data = {{"x", Tensor::Of<float>({2, 2}, {1, 10, 3, 30})}};
  Session session = *Session::Create(graph);
  absl::StatusOr<Callback> callback = TensorBoard(session, training, {.dir = folder_, .samples = data});
  ASSERT_TRUE(callback.ok()) << callback.status();
  ASSERT_TRUE(Fit(session, training, data, {.epochs = 1, .callbacks = {*callback}}).ok());
  std::set<std::string> found;
  for (const tensorboard::Event& event : ReadEventsOfFolder(folder_)) {
    for (const auto& value : event.summary().value()) {
      if (value.tag() == "gradients/w" || value.tag() == "weights/w") found.insert(value.tag());
      if (value.tag() == "gradients/w") {
        EXPECT_THAT(value.histo().min(), DoubleNear(-20, 1e-5));
        EXPECT_THAT(value.histo().max(), DoubleNear(-2, 1e-5));
      } else if (value.tag() == "weights/w") {  // One step from (0.5, 0.25) along (2, 20).
        EXPECT_THAT(value.histo().min(), DoubleNear(2.5, 1e-5));
        EXPECT_THAT(value.histo().max(), DoubleNear(20.25, 1e-5));
      }
    }
  }
  EXPECT_THAT(found, ElementsAre("gradients/w", "weights/w"));
}

// The loss is w^2 and its gradient 2w. A step with a rate of 0.25 halves w, which is 1 at first.
TEST_F(TensorBoardTest, WritesTheGradientOfThePresentWeights) {
  Graph graph;
  Scope scope(graph);
  const Value x = scope.Input("x", kFloat32, {Dim("batch")});
  const Value loss = Mean(Square(x + scope.Variable("w", 1.0f)));
  const Training training{loss, optim::Sgd{.learning_rate = 0.25}.Minimize(loss)};
  const data::Dataset data = {{"x", Tensor(kFloat32, {2})}};
  Session session = *Session::Create(graph);
  absl::StatusOr<Callback> callback = TensorBoard(session, training, {.dir = folder_, .samples = data});
  ASSERT_TRUE(callback.ok()) << callback.status();
  ASSERT_TRUE(Fit(session, training, data, {.epochs = 3, .callbacks = {*callback}}).ok());
  std::vector<double> gradients;
  for (const tensorboard::Event& event : ReadEventsOfFolder(folder_)) {
    for (const auto& value : event.summary().value()) {
      if (value.tag() == "gradients/w") gradients.push_back(value.histo().min());
    }
  }
  EXPECT_THAT(gradients, ElementsAre(1, 0.5, 0.25));
}

TEST_F(TensorBoardTest, GoesOnInAFileOfItsOwn) {
  FitOptions options = Options(1);
  options.checkpoints.dir = folder_ + "/checkpoints";
  Train(options, {.dir = folder_ + "/events"});
  options.epochs = 2;
  options.checkpoints.resume = true;
  Train(options, {.dir = folder_ + "/events"});
  const auto steps = Steps(ReadEventsOfFolder(folder_ + "/events"));
  EXPECT_THAT(steps.at("the start"), ElementsAre(1, 6));
  EXPECT_THAT(steps.at("loss/train"), ElementsAre(1, 2, 3, 4, 5, 6, 7, 8, 9, 10));
}

TEST_F(TensorBoardTest, RefusesBadOptions) {
  const Session session = NewSession();
  const auto message = [&](TensorBoardOptions options) {
    return std::string(TensorBoard(session, training_, std::move(options)).status().message());
  };
  EXPECT_THAT(message({}), HasSubstr("TensorBoard: dir is empty"));
  EXPECT_THAT(message({.dir = folder_, .scalars_per_epoch = 0}), HasSubstr("scalars_per_epoch is 0"));
  EXPECT_THAT(message({.dir = folder_, .most_samples = 0}), HasSubstr("most_samples is 0"));
  EXPECT_THAT(message({.dir = folder_, .most_images = -1}), HasSubstr("most_images is -1"));
  EXPECT_THAT(message({.dir = folder_, .samples = data::Dataset::Failed(absl::InternalError("spoiled"))}),
              HasSubstr("spoiled"));
}

}  // namespace
}  // namespace gradweave
