// Runs that are started without waiting, and sums over runs, on the emulated CUDA device and on the
// CPU.
#include <cmath>
#include <memory>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "gmock/gmock.h"
#include "gradweave/gradweave.h"
#include "gtest/gtest.h"
#include "tests/cuda/session.h"

namespace gradweave {
namespace {

using ::testing::HasSubstr;
using ::testing::Not;

using CudaStartedRuns = CudaSession;

// A step with one large and two small feeds (one of which can be bad), a random number, and new
// values that are copied at the end.
struct Step {
  static constexpr int64_t kColumns = 20'000;
  Graph graph;
  Value x, scale, label, loss;
  Update step;
  Tensor x_feed{kFloat32, {1, kColumns}}, scale_feed{kFloat32, {1}}, label_feed{kInt32, {1}};

  Step() {
    Scope scope(graph);
    x = scope.Input("x", kFloat32, {1, kColumns});
    scale = scope.Input("scale", kFloat32, {1});
    label = scope.Input("label", kInt32, {1});
    const Value w = scope.Variable("w", scope.Constant(Tensor(kFloat32, {1, 3})));
    const Value logits = w + Mean(x) * scale + 0.1 * RandomUniform(scope, {1, 3}, 0, 1);
    loss = Mean(SparseSoftmaxCrossEntropy(logits, label));
    step.assignments = {Assign(w, w - Gradients({loss}, {w})[0])};
    EXPECT_TRUE(graph.status().ok()) << graph.status();
  }
  std::vector<Feed> Feeds() const { return {{x, x_feed}, {scale, scale_feed}, {label, label_feed}}; }
  // Sets the feeds for a run.
  void Fill(int run) {
    for (float& element : x_feed.mutable_values<float>()) element = static_cast<float>(run % 5);
    scale_feed.mutable_data<float>()[0] = 0.5f * static_cast<float>(run % 3);
    label_feed.mutable_data<int32_t>()[0] = run % 3;
  }
};

TEST_F(CudaStartedRuns, FollowEachOtherWithoutAWait) {
  constexpr int kRuns = 9;
  Step step;
  std::vector<double> losses;
  Session cpu = MakeSession(step.graph, {.threads = 1, .seed = 3});
  double sum = 0;
  for (int i = 0; i < kRuns; ++i) {
    step.Fill(i);
    losses.push_back(RunAll(cpu, step.Feeds(), {step.loss, step.step})[0].ToDouble());
    sum += 0.25 * losses.back();
  }
  for (const Device& device : {kCuda0, Device::Cpu()}) {
    Session session = MakeSession(step.graph, {.device = device, .threads = 1, .seed = 3});
    absl::StatusOr<std::unique_ptr<PreparedRun>> run =
        session.Prepare(step.Feeds(), {step.loss, Fetch::RunningSum(step.loss, 0.25), step.step});
    ASSERT_TRUE(run.ok()) << run.status();
    int waits = 0;
    for (int i = 0; i < kRuns; ++i) {
      // The first run is eager, and the second captures.
      if (i == 2) waits = CountCalls("Synchronize");
      step.Fill(i);
      const absl::Status status = (*run)->Start();
      ASSERT_TRUE(status.ok()) << status;
    }
    EXPECT_EQ(CountCalls("Synchronize"), waits);
    step.Fill(0);
    ASSERT_TRUE((*run)->Finish().ok());
    EXPECT_NEAR((*run)->results()[0].ToDouble(), losses.back(), kTolerance);
    EXPECT_EQ((*run)->results()[1].dtype(), kFloat64);
    EXPECT_NEAR((*run)->results()[1].ToDouble(), sum, kTolerance);
    ExpectNear(session.GetVariable("w")->ToDoubles(), cpu.GetVariable("w")->ToDoubles());
    // A cleared sum restarts.
    ASSERT_TRUE((*run)->Start().ok());
    ASSERT_TRUE((*run)->ClearSums().ok());
    const double last = (*run)->results()[0].ToDouble();
    ASSERT_TRUE((*run)->Run().ok());
    EXPECT_NE((*run)->results()[0].ToDouble(), last);
    EXPECT_EQ((*run)->results()[1].ToDouble(), 0.25 * (*run)->results()[0].ToDouble());
    // It goes on from any value.
    ASSERT_TRUE((*run)->SetSums({Tensor::Scalar(10.0)}).ok());
    ASSERT_TRUE((*run)->Run().ok());
    EXPECT_EQ((*run)->results()[1].ToDouble(), 10 + 0.25 * (*run)->results()[0].ToDouble());
    EXPECT_THAT((*run)->SetSums({}).message(), HasSubstr("the run has 1 running sums and is given 0 values"));
    EXPECT_THAT((*run)->SetSums({Tensor::Scalar(1.0f)}).message(),
                HasSubstr("sum 0 is float64[] and was given float32[]"));
    // Earlier runs are repeated by their numbers.
    const uint64_t number = session.run_number();
    session.SetRunNumber(number - 1);
    EXPECT_EQ(session.run_number(), number - 1);
    // The sum is not a variable of the user.
    EXPECT_EQ(session.VariableNames(), std::vector<std::string>{"w"});
  }
}

TEST_F(CudaStartedRuns, ChangeNothingAfterOneThatFails) {
  Step step;
  Session cpu = MakeSession(step.graph, {.threads = 1});
  Session session = MakeSession(step.graph, {.device = kCuda0, .threads = 1});
  absl::StatusOr<std::unique_ptr<PreparedRun>> run = session.Prepare(step.Feeds(), {step.loss, step.step});
  ASSERT_TRUE(run.ok()) << run.status();
  for (int i = 0; i < 3; ++i) {
    step.Fill(i);
    ASSERT_TRUE((*run)->Start().ok());
    RunAll(cpu, step.Feeds(), {step.loss, step.step});
  }
  for (int round = 0; round < 2; ++round) {
    for (int label : {3, 0, 1}) {
      step.label_feed.mutable_data<int32_t>()[0] = label;
      ASSERT_TRUE((*run)->Start().ok());
    }
    // The object that started the runs gets the error, whoever waits first.
    if (round == 1) ExpectNear(session.GetVariable("w")->ToDoubles(), cpu.GetVariable("w")->ToDoubles());
    const absl::Status status = (*run)->Finish();
    EXPECT_EQ(status.code(), absl::StatusCode::kOutOfRange);
    EXPECT_THAT(status.message(), HasSubstr("in SparseSoftmaxCrossEntropy"));
    EXPECT_TRUE((*run)->Finish().ok());
    ExpectNear(session.GetVariable("w")->ToDoubles(), cpu.GetVariable("w")->ToDoubles());
  }
  // Later runs are unaffected.
  step.Fill(1);
  ASSERT_TRUE((*run)->Start().ok());
  ASSERT_TRUE((*run)->Finish().ok());
  EXPECT_TRUE(std::isfinite((*run)->results()[0].ToDouble()));
}

TEST_F(CudaStartedRuns, WaitForThoseOfAnotherPlan) {
  Graph graph;
  Scope scope(graph);
  const Value counter = scope.Variable("counter", 0);
  const Value w = scope.Variable("w", 1);
  const Update count{{Assign(counter, counter + 1)}}, both{{Assign(w, w * 2 + counter)}};
  Session session = MakeSession(graph, {.device = kCuda0});
  absl::StatusOr<std::unique_ptr<PreparedRun>> counts = session.Prepare({}, {counter, count});
  absl::StatusOr<std::unique_ptr<PreparedRun>> doubles = session.Prepare({}, {w, both});
  double want_counter = 0, want_w = 1;
  for (int i = 0; i < 5; ++i) {
    for (int k = 0; k < 3; ++k) {
      ASSERT_TRUE((*counts)->Start().ok());
      want_counter += 1;
    }
    for (int k = 0; k < 2; ++k) {
      ASSERT_TRUE((*doubles)->Start().ok());
      want_w = want_w * 2 + want_counter;
    }
    if (i == 2) {
      ASSERT_TRUE(session.SetVariable("counter", Tensor::Of<float>({}, {-7})).ok());
      want_counter = -7;
    }
    if (i == 3) {
      EXPECT_EQ(RunAll(session, {}, {w})[0].ToDouble(), want_w);
    }
  }
  EXPECT_EQ(session.GetVariable("w")->ToDouble(), want_w);
  EXPECT_EQ(session.GetVariable("counter")->ToDouble(), want_counter);
  // The results of the last started run: the value before its update.
  EXPECT_EQ((*counts)->results()[0].ToDouble(), want_counter - 1);
  // Destroy the object while its run is in flight.
  ASSERT_TRUE((*counts)->Start().ok());
  counts->reset();
  EXPECT_EQ(session.GetVariable("counter")->ToDouble(), want_counter + 1);
}

// Each call of a chain of runs fails once or three times.
TEST_F(CudaStartedRuns, LeaveVariablesTogetherWhenTheDeviceFails) {
  GRADWEAVE_NEEDS_EMULATION();
  int failures = 0;
  for (const char* call :
       {"SetDevice", "CopyAsync", "RecordEvent", "WaitEvent", "SynchronizeEvent", "LaunchGraph", "Synchronize"}) {
    for (int times : {1, 3}) {
      for (int n = 1;; ++n) {
        SCOPED_TRACE(absl::StrCat(call, " number ", n, ", ", times, " times"));
        Emulate({});
        Graph graph;
        Scope scope(graph);
        const Value x = scope.Input("x", kFloat32, {Step::kColumns});
        const Value a = scope.Variable("a", 0), b = scope.Variable("b", 0);
        const Update step{{Assign(a, a + Max(x)), Assign(b, b + 2 * Max(x))}};
        Session session = MakeSession(graph, {.device = kCuda0, .threads = 1});
        absl::StatusOr<std::unique_ptr<PreparedRun>> run =
            session.Prepare({{x, Tensor::Of<float>({Step::kColumns}, std::vector<float>(Step::kColumns, 1))}}, {step});
        ASSERT_TRUE(run.ok()) << run.status();
        for (int i = 0; i < 3; ++i) ASSERT_TRUE((*run)->Start().ok());
        for (int i = 0; i < times; ++i) api_->FailCall(call, n + i, absl::InternalError("injected"));
        int started = 3;
        for (int i = 0; i < 4; ++i) started += (*run)->Start().ok() ? 1 : 0;
        const absl::Status status = (*run)->Finish();
        const bool failed = started < 7 || !status.ok();
        api_->ForgetFailures();
        const absl::StatusOr<Tensor> a_value = session.GetVariable("a"), b_value = session.GetVariable("b");
        if (a_value.ok()) {
          ASSERT_TRUE(b_value.ok()) << b_value.status();
          EXPECT_EQ(a_value->ToDouble(), started);
          EXPECT_EQ(b_value->ToDouble(), 2 * started);
        } else {
          EXPECT_EQ(a_value.status().code(), absl::StatusCode::kDataLoss);
          EXPECT_EQ(b_value.status().code(), absl::StatusCode::kDataLoss);
          EXPECT_THAT(status.message(), HasSubstr("are lost: "));
          EXPECT_GT(times, 1);
        }
        if (!failed) break;
        ++failures;
      }
    }
  }
  EXPECT_GT(failures, 20);
}

// If the state of the device cannot be known, the host's values are those before the first of the
// runs.
TEST_F(CudaStartedRuns, GoBackToWhatTheHostHasWhenTheDeviceIsLost) {
  GRADWEAVE_NEEDS_EMULATION();
  Graph graph;
  Scope scope(graph);
  const Value a = scope.Variable("a", 0), b = scope.Variable("b", 0);
  const Update step{{Assign(a, a + 1), Assign(b, b + 2)}};
  for (bool read_both : {false, true}) {
    for (bool fails_at_once : {false, true}) {
      SCOPED_TRACE(absl::StrCat(read_both ? "both read" : "one read", fails_at_once ? ", device" : ", wait"));
      Emulate({});
      Session session = MakeSession(graph, {.device = kCuda0, .threads = 1});
      absl::StatusOr<std::unique_ptr<PreparedRun>> run = session.Prepare({}, {step});
      ASSERT_TRUE(run.ok()) << run.status();
      for (int i = 0; i < 3; ++i) ASSERT_TRUE((*run)->Start().ok());
      EXPECT_EQ(session.GetVariable("a")->ToDouble(), 3);
      if (read_both) {
        EXPECT_EQ(session.GetVariable("b")->ToDouble(), 6);
      }
      for (int i = 0; i < 2; ++i) ASSERT_TRUE((*run)->Start().ok());
      if (fails_at_once) api_->FailCall("SetDevice", 1, absl::InternalError("injected"));
      for (int n = 1; n <= 10; ++n) api_->FailCall("Synchronize", n, absl::InternalError("injected"));
      const absl::Status status = (*run)->Finish();
      EXPECT_EQ(status.code(), absl::StatusCode::kInternal);
      EXPECT_THAT(status.message(), HasSubstr("injected"));
      EXPECT_THAT(status.message(), Not(HasSubstr("'a'")));
      api_->ForgetFailures();
      EXPECT_EQ(session.GetVariable("a")->ToDouble(), 3);
      if (read_both) {
        EXPECT_THAT(status.message(), Not(HasSubstr("lost")));
        EXPECT_EQ(session.GetVariable("b")->ToDouble(), 6);
      } else {
        EXPECT_THAT(status.message(), HasSubstr("are lost: 'b'"));
        EXPECT_EQ(session.GetVariable("b").status().code(), absl::StatusCode::kDataLoss);
        ASSERT_TRUE(session.SetVariable("b", Tensor::Of<float>({}, {6})).ok());
      }
      // Later runs continue from there.
      ASSERT_TRUE((*run)->Start().ok());
      ASSERT_TRUE((*run)->Finish().ok());
      EXPECT_EQ(session.GetVariable("a")->ToDouble(), 4);
      EXPECT_EQ(session.GetVariable("b")->ToDouble(), 8);
    }
  }
}

// Runs before one with bad data have changed variables, even though the first wait fails.
TEST_F(CudaStartedRuns, KeepWhatRunsBeforeBadDataMade) {
  Step step;
  Session cpu = MakeSession(step.graph, {.threads = 1});
  Session session = MakeSession(step.graph, {.device = kCuda0, .threads = 1});
  absl::StatusOr<std::unique_ptr<PreparedRun>> run = session.Prepare(step.Feeds(), {step.loss, step.step});
  ASSERT_TRUE(run.ok()) << run.status();
  for (int i = 0; i < 4; ++i) {
    step.Fill(i);
    ASSERT_TRUE((*run)->Start().ok());
    RunAll(cpu, step.Feeds(), {step.loss, step.step});
    // Bring the value to the host too.
    if (i == 2) {
      ASSERT_TRUE(session.GetVariable("w").ok());
    }
  }
  step.label_feed.mutable_data<int32_t>()[0] = 3;
  ASSERT_TRUE((*run)->Start().ok());
  if (api_ != nullptr) api_->FailCall("Synchronize", 1, absl::InternalError("injected"));
  EXPECT_THAT((*run)->Finish().message(), HasSubstr(api_ != nullptr ? "injected" : "outside its range"));
  ExpectNear(session.GetVariable("w")->ToDoubles(), cpu.GetVariable("w")->ToDoubles());
}

TEST_F(CudaStartedRuns, SumsAreOfNumbersInKnownShapesOverPreparedRuns) {
  Graph graph;
  Scope scope(graph);
  const Value x = scope.Input("x", kFloat32, {Dim("n")});
  const Value large = Greater(Sum(x), 0.5), any = Sum(x), count = Cast(any, kInt32);
  Session session = MakeSession(graph, {.threads = 1});
  const std::vector<Feed> feeds = {{x, Tensor::Of<float>({2}, {0.25, 2})}};
  auto error = [&](const Value& value) {
    return std::string(session.Prepare(feeds, {Fetch::RunningSum(value)}).status().message());
  };
  EXPECT_THAT(error(x), HasSubstr("a running sum is one of numbers, in a shape that no feed changes"));
  EXPECT_THAT(error(large), HasSubstr("bool"));
  EXPECT_THAT(std::string(session.Run(feeds, {Fetch::RunningSum(any)}).status().message()), HasSubstr("use Prepare"));
  absl::StatusOr<std::unique_ptr<PreparedRun>> run =
      session.Prepare(feeds, {Fetch::RunningSum(any), x, Fetch::RunningSum(count, 3), Fetch::RunningSum(any, -1)});
  ASSERT_TRUE(run.ok()) << run.status();
  for (int i = 1; i <= 3; ++i) {
    ASSERT_TRUE((*run)->Run().ok());
    EXPECT_EQ((*run)->results()[0].ToDouble(), 2.25 * i);
    EXPECT_EQ((*run)->results()[1].ToDoubles(), (std::vector<double>{0.25, 2}));
    EXPECT_EQ((*run)->results()[2].ToDouble(), 6 * i);
    EXPECT_EQ((*run)->results()[3].ToDouble(), -2.25 * i);
  }
}

// A training loop waits for the device only when it reads loss and accuracy, not at each step.
TEST_F(CudaStartedRuns, TrainingWaitsWhereMetricsAreRead) {
  Graph graph;
  Scope scope(graph);
  const Value image = scope.Input("image", kFloat32, {Dim("batch"), 1, 4, 4});
  const Value label = scope.Input("label", kInt32, {Dim("batch")});
  const nn::Sequential model{nn::Flatten{}, nn::Dense{3}};
  const Value logits = model(scope, image);
  const Value loss = nn::SoftmaxCrossEntropy(logits, label);
  const Training training{loss, optim::Sgd{.learning_rate = 0.5}.Minimize(loss), {metrics::Accuracy(logits, label)}};
  ASSERT_TRUE(graph.status().ok()) << graph.status();
  Tensor images(kUint8, {205, 1, 4, 4}), labels(kInt32, {205});
  for (int i = 0; i < 205 * 16; ++i) images.mutable_data<uint8_t>()[i] = static_cast<uint8_t>(i * 37 % 256);
  for (int i = 0; i < 205; ++i) labels.mutable_data<int32_t>()[i] = i % 3;
  const data::Dataset dataset = *data::FromArrays(images, labels, 3);
  auto train = [&](const Device& device, int64_t read_every, std::vector<double>& losses) {
    Session session = MakeSession(graph, {.device = device, .threads = 1, .seed = 3});
    FitOptions options = {.validation = dataset.First(12), .epochs = 2, .batch_size = 10, .read_every = read_every};
    options.callbacks = {{.after_batch = [&](TrainingState& state) {
      losses.push_back(state.train["loss"]);
      return absl::OkStatus();
    }}};
    const absl::StatusOr<TrainingState> end = Fit(session, training, dataset, options);
    EXPECT_TRUE(end.ok()) << end.status();
    return *end;
  };
  std::vector<double> on_cpu, rarely_on_cpu, often, rarely;
  const TrainingState want = train(Device::Cpu(), 0, on_cpu);
  train(Device::Cpu(), 7, rarely_on_cpu);
  int waits = CountCalls("Synchronize");
  const TrainingState got_often = train(kCuda0, 1, often);
  const int waits_often = CountCalls("Synchronize") - waits;
  waits = CountCalls("Synchronize");
  const TrainingState got = train(kCuda0, 7, rarely);
  const int waits_rarely = CountCalls("Synchronize") - waits;

  // Metrics are read after 7, 14 and 21 batches of each epoch; the last interval is shorter.
  EXPECT_EQ(on_cpu.size(), 42u);
  ASSERT_EQ(rarely_on_cpu.size(), 6u);
  for (int i = 0; i < 6; ++i) EXPECT_EQ(rarely_on_cpu[i], on_cpu[i / 3 * 21 + i % 3 * 7 + 6]);
  ExpectNear(often, on_cpu);
  EXPECT_EQ(rarely.size(), 6u);
  EXPECT_EQ(got.train["loss"], got_often.train["loss"]);
  EXPECT_EQ(got.train["accuracy"], got_often.train["accuracy"]);
  EXPECT_NEAR(got.train["loss"], want.train["loss"], kTolerance);
  EXPECT_EQ(got.train["accuracy"], want.train["accuracy"]);
  // Waits for 36 batches are saved.
  if (api_ != nullptr) {
    EXPECT_LE(waits_rarely, waits_often - 30);
  }
}

}  // namespace
}  // namespace gradweave
