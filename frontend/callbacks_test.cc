// Callbacks of Fit.
#include "gradweave/frontend/callbacks.h"

#include <limits>
#include <optional>
#include <sstream>
#include <string>
#include <utility>
#include <vector>

#include "gmock/gmock.h"
#include "gradweave/frontend/optimizers.h"
#include "gradweave/frontend/schedules.h"
#include "gradweave/ops/elementwise.h"
#include "gradweave/ops/indexing.h"
#include "gradweave/ops/reduction.h"
#include "gradweave/ops/scope.h"
#include "gradweave/ops/state.h"
#include "gtest/gtest.h"

namespace gradweave {
namespace {

using ::testing::ContainsRegex;
using ::testing::HasSubstr;

// The learning rate is a variable or any scalar of the graph.
TEST(Fit, TellsTheLearningRate) {
  Graph graph;
  Scope scope(graph);
  const Value x = scope.Input("x", kFloat32, {Dim("batch")});
  const Value loss = Mean(Square(x - scope.Variable("w", 0.0)));

  const Value step = scope.Variable("my_step", scope.Constant(Tensor::Scalar(int64_t{0})), {.trainable = false});
  const Value rate = optim::StepDecay(0.5, 0.1, 2)(Cast(step, kFloat64));
  const Update update = optim::Sgd{.learning_rate = rate}.Minimize(loss);
  Update both = update;
  both.assignments.push_back(Assign(step, step + 1));
  absl::StatusOr<Session> session = Session::Create(graph, {.threads = 1});
  ASSERT_TRUE(session.ok()) << session.status();
  std::vector<double> rates;
  std::ostringstream progress;
  const absl::StatusOr<TrainingState> end =
      Fit(*session, {.loss = loss, .step = both, .learning_rate = rate}, {{x, Tensor(kFloat32, {20})}},
          {.epochs = 2,
           .batch_size = 10,
           .callbacks = {PrintProgress(progress, false), {.after_batch = [&](TrainingState& state) {
                           rates.push_back(state.learning_rate);
                           return absl::OkStatus();
                         }}}});
  ASSERT_TRUE(end.ok()) << end.status();
  EXPECT_THAT(rates,
              ::testing::ElementsAre(0.5, 0.5, ::testing::DoubleNear(0.05, 1e-15), ::testing::DoubleNear(0.05, 1e-15)));
  EXPECT_THAT(progress.str(), HasSubstr("learning rate 0.5"));
  EXPECT_THAT(progress.str(), HasSubstr("learning rate 0.05"));
}

// Small numbers show three digits, so that one sees them fall.
TEST(PrintProgress, ShowsThreeDigits) {
  std::ostringstream progress;
  TrainingState state{.epochs = 1, .batch = 1, .batches = 1};
  for (const auto& [name, value] : {std::pair("a", 0.00913), {"b", 0.0912}, {"c", 0.5}, {"d", 12.0}, {"e", 0.0}}) {
    state.train.Set(name, Tensor::Scalar(value));
  }
  ASSERT_TRUE(PrintProgress(progress, false).after_epoch(state).ok());
  EXPECT_THAT(progress.str(), HasSubstr("  a 0.00913  b 0.0912  c 0.500  d 12.000  e 0.000  "));
}

TEST(PrintProgress, ShowsRateTimeLeftAndMemory) {
  std::ostringstream progress;
  // Two epochs of four batches; three batches of the second are done. A batch takes 2 s.
  const TrainingState state{
      .epoch = 1, .epochs = 3, .batch = 3, .batches = 4, .examples = 70, .batches_done = 7, .step_seconds = 14};
  TrainingState copy = state;
  ASSERT_TRUE(PrintProgress(progress, false).after_epoch(copy).ok());
  EXPECT_THAT(progress.str(), ContainsRegex("epoch 2/3  batch 3/4  5 examples/sec  10 s left  [1-9][0-9]* MB"));
}

// A training whose validation "metric" follows a script, by epochs; it counts epochs in a variable.
class Scripted : public ::testing::Test {
 protected:
  Scripted() {
    Scope scope(graph_);
    const Value x = scope.Input("x", kFloat32, {Dim("batch")});
    epoch_ = scope.Variable("epoch", -1.0, {.trainable = false});
    step_ = {.assignments = {Assign(epoch_, epoch_ + 1)}};
    const float nan = std::numeric_limits<float>::quiet_NaN();
    const Value script = scope.Constant(Tensor::Of<float>({8}, {5, 3, nan, 4, 2, 2.9f, 1.95f, 1}));
    metric_ = {metrics::Mean("height", Gather(script, Cast(epoch_, kInt32)) + 0 * Mean(x))};
    loss_ = Mean(x);
  }
  // Returns the epoch to which the variables belong at the end, and the epochs that were trained.
  std::pair<double, int64_t> Train(std::vector<Callback> callbacks) {
    absl::StatusOr<Session> session = Session::Create(graph_, {.threads = 1});
    EXPECT_TRUE(session.ok()) << session.status();
    session_ = &*session;
    if (keep_.has_value()) callbacks.push_back(KeepBest(*keep_, *session));
    const data::Dataset data = {{"x", Tensor(kFloat32, {4})}};
    const absl::StatusOr<TrainingState> end =
        Fit(*session, {.loss = loss_, .step = step_, .validation_metrics = metric_}, data,
            {.validation = data, .epochs = 8, .callbacks = callbacks});
    EXPECT_TRUE(end.ok()) << end.status();
    return {session->GetVariable("epoch")->ToDouble(), end->epoch};
  }

  Graph graph_;
  Value epoch_, loss_;
  Update step_;
  std::vector<Metric> metric_;
  std::optional<Goal> keep_;
  Session* session_ = nullptr;
};

TEST_F(Scripted, StopsWhenAMetricNoLongerFallsOrRises) {
  // 5, 3, nan, 4, 2, 2.9, 1.95, 1.
  EXPECT_EQ(Train({StopEarly({.metric = "height"}, 2)}).second, 4);  // nan and 4 are not below 3.
  EXPECT_EQ(Train({StopEarly({.metric = "height"}, 3)}).second, 8);
  EXPECT_EQ(Train({StopEarly({.metric = "height", .least_change = 0.5}, 3)}).second, 8);  // 1 is the last.
  EXPECT_EQ(Train({StopEarly({.metric = "height", .least_change = 1}, 3)}).second, 5);    // 2 is not below 3 - 1.
  EXPECT_EQ(Train({StopEarly(Largest("height"), 3)}).second, 4);                          // Nothing is above 5.
}

TEST_F(Scripted, RefusesToSaveWithoutAFunctionOrAnInterval) {
  absl::StatusOr<Session> session = Session::Create(graph_, {.threads = 1});
  ASSERT_TRUE(session.ok()) << session.status();
  const std::pair<Callback, const char*> rows[] = {
      {Checkpoint(nullptr), "the function of Checkpoint is null"},
      {SaveBest({.of_training = true}, nullptr), "the function of SaveBest is null"},
      {Checkpoint([] { return absl::OkStatus(); }, 0), "`every` of Checkpoint is 0 and has to be at least 1"}};
  for (const auto& [callback, message] : rows) {
    const absl::Status status = Fit(*session, {.loss = loss_, .step = step_}, {{"x", Tensor(kFloat32, {4})}},
                                    {.epochs = 1, .callbacks = {callback}})
                                    .status();
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
    EXPECT_THAT(std::string(status.message()), HasSubstr(message));
  }
}

TEST_F(Scripted, KeepsTheVariablesOfTheBestEpoch) {
  keep_ = Largest("height");
  EXPECT_EQ(Train({}).first, 0);
  keep_ = Goal{.metric = "height"};
  EXPECT_EQ(Train({}).first, 7);
  // With the end after two epochs without a better one, epoch 1 was the best.
  EXPECT_EQ(Train({StopEarly({.metric = "height"}, 2)}).first, 1);
  std::vector<double> saved;
  EXPECT_EQ(Train({SaveBest({.metric = "height"},
                            [&] {
                              saved.push_back(session_->GetVariable("epoch")->ToDouble());
                              return absl::OkStatus();
                            })})
                .first,
            7);
  EXPECT_EQ(saved, (std::vector<double>{0, 1, 4, 6, 7}));
}

}  // namespace
}  // namespace gradweave
