// A training that is ended and goes on has the bits of one that is not.
#include "gradweave/frontend/training_checkpoints.h"

#include <signal.h>
#include <sys/resource.h>
#include <unistd.h>

#include <algorithm>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <memory>
#include <set>
#include <stdexcept>
#include <string>
#include <tuple>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "gmock/gmock.h"
#include "gradweave/frontend/accumulate.h"
#include "gradweave/frontend/callbacks.h"
#include "gradweave/frontend/layers.h"
#include "gradweave/frontend/losses.h"
#include "gradweave/frontend/optimizers.h"
#include "gradweave/frontend/trainer.h"
#include "gradweave/ops/elementwise.h"
#include "gradweave/ops/reduction.h"
#include "gradweave/ops/scope.h"
#include "gradweave/ops/shape_ops.h"
#include "gradweave/runtime/model_file/checkpoint.h"
#include "gtest/gtest.h"

namespace gradweave {
namespace {

using ::testing::AllOf;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
namespace fs = std::filesystem;

// A path in the test's folder where nothing is yet.
std::string NewFolder(const std::string& name) {
  const std::string folder = ::testing::TempDir() + "/training_checkpoints_test." + name;
  fs::remove_all(folder);
  return folder;
}

std::set<std::string> NamesIn(const std::string& folder) {
  std::set<std::string> names;
  for (const fs::directory_entry& entry : fs::directory_iterator(folder)) names.insert(entry.path().filename());
  return names;
}

std::string Checkpoint(int step) { return absl::StrCat("checkpoint_", absl::StrFormat("%012d", step), ".gw"); }

TEST(ParseCheckpointInterval, TakesAWholeNumberWithAUnit) {
  const auto parse = [](absl::string_view text) {
    const absl::StatusOr<CheckpointInterval> interval = ParseCheckpointInterval(text);
    EXPECT_TRUE(interval.ok()) << interval.status();
    return std::pair(interval->count, interval->unit);
  };
  EXPECT_EQ(parse("100steps"), std::pair(int64_t{100}, CheckpointInterval::kSteps));
  EXPECT_EQ(parse("1step"), std::pair(int64_t{1}, CheckpointInterval::kSteps));
  EXPECT_EQ(parse("1epoch"), std::pair(int64_t{1}, CheckpointInterval::kEpochs));
  EXPECT_EQ(parse("2epochs"), std::pair(int64_t{2}, CheckpointInterval::kEpochs));
  EXPECT_EQ(parse("5min"), std::pair(int64_t{5}, CheckpointInterval::kMinutes));
  for (const char* text : {"", "5", "min", "0steps", "-1steps", "1.5min", "5 min", "5mins", "5minx", "5Min", "+5min",
                           "1000000001steps", "99999999999999999999steps", "5min "}) {
    EXPECT_EQ(ParseCheckpointInterval(text).status().message(),
              absl::StrCat("'", text,
                           "' is not an interval of checkpoints; give a whole number in [1, 1000000000] with a unit: "
                           "100steps, 1epoch or 5min"));
  }
}

TEST(CheckpointTimer, IsDueAtMultiplesAndAfterMinutes) {
  using Clock = CheckpointTimer::Clock;
  const Clock::time_point start = Clock::now();
  CheckpointTimer steps{.every = {10, CheckpointInterval::kSteps}};
  // A training that goes on at step 17.
  EXPECT_FALSE(steps.IsDueAfterStep(18, start));
  EXPECT_TRUE(steps.IsDueAfterStep(20, start));
  EXPECT_TRUE(steps.IsDueAfterStep(21, start)) << "it stays due until it restarts";
  steps.Restart(21, start);
  EXPECT_FALSE(steps.IsDueAfterStep(29, start));
  EXPECT_TRUE(steps.IsDueAfterStep(30, start));
  EXPECT_FALSE(steps.IsDueAfterEpoch(10));
  CheckpointTimer minutes{.every = {2, CheckpointInterval::kMinutes}, .last_time = start};
  EXPECT_FALSE(minutes.IsDueAfterStep(1, start + std::chrono::seconds(119)));
  EXPECT_TRUE(minutes.IsDueAfterStep(1, start + std::chrono::seconds(120)));
  minutes.Restart(1, start + std::chrono::seconds(121));
  EXPECT_FALSE(minutes.IsDueAfterStep(2, start + std::chrono::seconds(240)));
  CheckpointTimer epochs{.every = {3, CheckpointInterval::kEpochs}};
  EXPECT_FALSE(epochs.IsDueAfterStep(3, start));
  EXPECT_FALSE(epochs.IsDueAfterEpoch(4));
  EXPECT_TRUE(epochs.IsDueAfterEpoch(6));
}

// The results of a training: variables, metrics and curves.
struct Outcome {
  absl::Status status;
  TrainingState state;
  NamedTensors values;
  uint64_t run_number = 0;
  TrainingCurves curves;
  std::vector<std::string> told;
};

void ExpectSame(const NamedTensors& got, const NamedTensors& want) {
  ASSERT_EQ(got.size(), want.size());
  for (size_t i = 0; i < got.size(); ++i) {
    EXPECT_EQ(got[i].first, want[i].first);
    EXPECT_TRUE(SameBits(got[i].second, want[i].second))
        << got[i].first << ": " << got[i].second.ToString() << " and not " << want[i].second.ToString();
  }
}

void ExpectSameOutcome(const Outcome& got, const Outcome& want) {
  ASSERT_TRUE(got.status.ok()) << got.status;
  ExpectSame(got.values, want.values);
  ExpectSame(got.state.train.all(), want.state.train.all());
  ExpectSame(got.state.validation.all(), want.state.validation.all());
  EXPECT_EQ(got.run_number, want.run_number);
  EXPECT_EQ(got.state.examples, want.state.examples);
  EXPECT_EQ(got.state.epoch, want.state.epoch);
  EXPECT_EQ(got.curves.train, want.curves.train);
  EXPECT_EQ(got.curves.validation, want.curves.validation);
}

// Sequences of numbers; the classifier has dropout, and Adam has a state.
data::Dataset Sequences(int64_t n, int64_t longest = 4) {
  Tensor x(kFloat32, {n, longest}), lengths(kInt32, {n}), labels(kInt32, {n});
  data::SampleRandom random(9, 0, 0);
  for (int64_t i = 0; i < n; ++i) {
    const int32_t length = lengths.mutable_data<int32_t>()[i] = static_cast<int32_t>(1 + i % longest);
    double sum = 0;
    for (int32_t k = 0; k < length; ++k) {
      sum += x.mutable_data<float>()[i * longest + k] = static_cast<float>(random.Uniform() - 0.5);
    }
    labels.mutable_data<int32_t>()[i] = sum > 0 ? 1 : 0;
  }
  return data::Dataset{{"x", x}, {"label", labels}}.WithLengths(lengths, {"x"});
}

struct Task {
  Graph graph;
  std::unique_ptr<Training> training;
  data::Dataset data = Sequences(25), test = Sequences(12);
  FitOptions options = {.epochs = 3, .batch_size = 10, .seed = 7};
  bool accumulate = false;
  uint64_t seed = 5;
  int64_t features = 8;

  void Build() {
    Scope scope(graph);
    const Value x = scope.Input("x", kFloat32, {Dim("batch"), Dim("length")});
    const Value label = scope.Input("label", kInt32, {Dim("batch")});
    const nn::Sequential layers{nn::Dense{features}, nn::Tanh{}, nn::Dropout{0.5}, nn::Dense{2}};
    const Value features_of_x =
        Concat({Sum(x, {.axes = {1}, .keep_dims = true}), Max(x, {.axes = {1}, .keep_dims = true})}, 1);
    const Value logits = layers(scope, features_of_x), test_logits = layers(scope, features_of_x, {.training = false});
    const Value loss = nn::SoftmaxCrossEntropy(logits, label);
    const optim::Adam adam{.learning_rate = 0.03};
    const TrainingStep step =
        accumulate ? TrainingStep(optim::Accumulate(adam, loss)) : TrainingStep(adam.Minimize(loss));
    training = std::make_unique<Training>(Training{.loss = loss,
                                                   .step = step,
                                                   .metrics = {metrics::Accuracy(logits, label)},
                                                   .validation_loss = nn::SoftmaxCrossEntropy(test_logits, label),
                                                   .validation_metrics = {metrics::Accuracy(test_logits, label)}});
    options.accumulate = accumulate ? 2 : 1;
    options.validation = test;
    options.validation_batch_size = 5;
  }

  // Trains in a session of its own. `more` comes after the callbacks that have a state.
  Outcome Run(const CheckpointOptions& checkpoints, Callback more = {}) const {
    Outcome outcome;
    absl::StatusOr<Session> session = Session::Create(graph, {.threads = 1, .seed = seed});
    EXPECT_TRUE(session.ok()) << session.status();
    FitOptions fit = options;
    fit.checkpoints = checkpoints;
    fit.checkpoints.tell = [&](const std::string& line) { outcome.told.push_back(line); };
    fit.callbacks.insert(fit.callbacks.end(), {RecordCurves(outcome.curves), StopEarly({.least_change = 0.01}, 2),
                                               KeepBest(Largest("accuracy"), *session), std::move(more)});
    const absl::StatusOr<TrainingState> end = Fit(*session, *training, data, fit);
    outcome.status = end.status();
    if (end.ok()) outcome.state = *end;
    for (const std::string& name : session->VariableNames()) {
      outcome.values.emplace_back(name, *session->GetVariable(name));
    }
    outcome.run_number = session->run_number();
    return outcome;
  }
};

// Ends the training with an error after this batch, as a crash would.
Callback CrashAfter(int64_t batches) {
  return {.after_batch = [batches](TrainingState& state) {
    return state.batches_done == batches ? absl::AbortedError("crash") : absl::OkStatus();
  }};
}

// Ends the training at every batch, or every few, and compares where it goes on with the training
// that did not end.
void ExpectSameBitsWhereverItEnds(Task& task, CheckpointInterval every, int64_t stride = 1) {
  task.Build();
  const Outcome want = task.Run({});
  ASSERT_TRUE(want.status.ok()) << want.status;
  for (int64_t end = 2; end <= want.state.batches_done; end += stride) {
    SCOPED_TRACE(end);
    const std::string dir = NewFolder("ended");
    EXPECT_EQ(task.Run({.dir = dir, .every = every}, CrashAfter(end)).status, absl::AbortedError("crash"));
    ExpectSameOutcome(task.Run({.dir = dir, .every = every, .resume = true}), want);
    // It has ended; nothing is left to do.
    ExpectSameOutcome(task.Run({.dir = dir, .every = every, .resume = true}, CrashAfter(end)), want);
    if (::testing::Test::HasFailure()) return;
  }
}

TEST(Checkpoints, GoOnWithTheSameBits) {
  Task task;
  ExpectSameBitsWhereverItEnds(task, {1, CheckpointInterval::kSteps});
}

TEST(Checkpoints, ReturnTheExceptionOfTheFunctionThatIsTold) {
  Task task;
  task.Build();
  absl::StatusOr<Session> session = Session::Create(task.graph, {.threads = 1});
  ASSERT_TRUE(session.ok()) << session.status();
  FitOptions fit = task.options;
  fit.checkpoints = {.dir = NewFolder("told"), .resume = true};
  fit.checkpoints.tell = [](const std::string&) { throw std::runtime_error("the log is closed"); };
  EXPECT_EQ(Fit(*session, *task.training, task.data, fit).status(),
            absl::UnknownError("Fit: CheckpointOptions::tell threw an exception: the log is closed"));
}

TEST(Checkpoints, GoOnFromOlderSteps) {
  Task task;
  ExpectSameBitsWhereverItEnds(task, {4, CheckpointInterval::kSteps});
}

TEST(Checkpoints, GoOnFromTheEndOfAnEpoch) {
  Task task;
  ExpectSameBitsWhereverItEnds(task, {1, CheckpointInterval::kEpochs});
}

TEST(Checkpoints, GoOnWithinAnAccumulatedStepAndMetricsOverAllEpochs) {
  Task task;
  task.accumulate = true;
  task.options.metrics_over_all_epochs = true;
  task.options.batch_size = 4;
  ExpectSameBitsWhereverItEnds(task, {1, CheckpointInterval::kSteps}, /*stride=*/3);
}

TEST(Checkpoints, GoOnWhileMetricsAreReadSeldom) {
  Task task;
  task.options.read_every = 3;
  task.options.batch_size = 4;
  task.Build();
  const Outcome want = task.Run({});
  for (int64_t end : {3, 6, 7, 10}) {
    const std::string dir = NewFolder("seldom");
    EXPECT_FALSE(task.Run({.dir = dir, .every = {2, CheckpointInterval::kSteps}}, CrashAfter(end)).status.ok());
    ExpectSameOutcome(task.Run({.dir = dir, .resume = true}), want);
  }
}

// More lengths than plans are kept, so sums of plans that gave way are added in the order in which
// they did.
TEST(Checkpoints, GoOnWithSumsOverManyLengths) {
  Task task;
  task.data = task.test = Sequences(90, 90);
  task.options.batch_size = 1;
  task.options.epochs = 2;
  task.Build();
  task.options.validation_batch_size = 1;
  const Outcome want = task.Run({});
  for (int64_t end : {75, 90, 100, 170}) {
    SCOPED_TRACE(end);
    const std::string dir = NewFolder("lengths");
    EXPECT_FALSE(task.Run({.dir = dir, .every = {7, CheckpointInterval::kSteps}}, CrashAfter(end)).status.ok());
    ExpectSameOutcome(task.Run({.dir = dir, .resume = true}), want);
  }
}

TEST(Checkpoints, MayHaveMoreEpochs) {
  Task task;
  task.Build();
  const Outcome want = task.Run({});
  const std::string dir = NewFolder("more");
  task.options.epochs = 1;
  ASSERT_TRUE(task.Run({.dir = dir}).status.ok());
  task.options.epochs = 3;
  const Outcome got = task.Run({.dir = dir, .resume = true});
  EXPECT_THAT(got.told, ElementsAre("the training continues from " + dir + "/" + Checkpoint(3)));
  ExpectSameOutcome(got, want);
}

TEST(Checkpoints, KeepTheNewestAndTheBest) {
  Task task;
  task.Build();
  // The accuracies of the epochs decide which is the best.
  std::vector<double> accuracies;
  std::vector<NamedTensors> values;
  const std::string dir = NewFolder("keep");
  Session* session = nullptr;
  absl::StatusOr<Session> made = Session::Create(task.graph, {.threads = 1});
  ASSERT_TRUE(made.ok());
  session = &*made;
  FitOptions fit = task.options;
  fit.epochs = 6;
  fit.checkpoints = {.dir = dir, .keep = 2, .best = Largest("accuracy")};
  fit.callbacks = {{.after_epoch = [&](TrainingState& state) {
    accuracies.push_back(state.validation["accuracy"]);
    values.push_back(ModelOf(*session)->variables);
    return absl::OkStatus();
  }}};
  ASSERT_TRUE(Fit(*session, *task.training, task.data, fit).ok());
  EXPECT_EQ(NamesIn(dir), (std::set<std::string>{"best.gw", Checkpoint(15), Checkpoint(18)}));
  const size_t best = std::max_element(accuracies.begin(), accuracies.end()) - accuracies.begin();
  const absl::StatusOr<Model> model = LoadModel(dir + "/best.gw");
  ASSERT_TRUE(model.ok()) << model.status();
  ExpectSame(model->variables, values[best]);
  // Any checkpoint is a model.
  EXPECT_TRUE(CreateSession(*LoadModel(dir + "/" + Checkpoint(15)), {.threads = 1}).ok());
}

TEST(Checkpoints, SweepUpWhatKilledTrainingsLeft) {
  Task task;
  task.Build();
  const std::string dir = NewFolder("sweep");
  ASSERT_TRUE(task.Run({.dir = dir, .every = {1, CheckpointInterval::kSteps}, .keep = 1}).status.ok());
  const std::set<std::string> names = NamesIn(dir);
  std::ofstream(dir + "/" + Checkpoint(4) + ".0123456789abcdef.tmp") << "half";
  std::ofstream(dir + "/" + Checkpoint(5) + ".0123456789abcdef.weights.tmp") << "half";
  std::ofstream(dir + "/best.gw.0123456789abcdef.tmp") << "half";
  std::ofstream(dir + "/mine.txt") << "a file of the user";
  ASSERT_TRUE(task.Run({.dir = dir, .resume = true}).status.ok());
  EXPECT_TRUE(fs::remove(dir + "/mine.txt"));
  EXPECT_EQ(NamesIn(dir), names);
}

TEST(Checkpoints, FallBackWhenTheNewestIsDamaged) {
  Task task;
  task.Build();
  const Outcome want = task.Run({});
  const std::string dir = NewFolder("damaged"), newest = dir + "/" + Checkpoint(6), older = dir + "/" + Checkpoint(3);
  EXPECT_FALSE(task.Run({.dir = dir}, CrashAfter(8)).status.ok());
  ASSERT_TRUE(fs::exists(newest) && fs::exists(older));
  std::fstream(newest, std::ios::in | std::ios::out).seekp(400).put('!');
  // With one file to keep, the damaged one does not count.
  const Outcome got = task.Run({.dir = dir, .every = {50, CheckpointInterval::kSteps}, .keep = 1, .resume = true});
  EXPECT_THAT(got.told, ElementsAre(AllOf(HasSubstr(newest + ": "), HasSubstr("damaged"),
                                          HasSubstr("; " + Checkpoint(3) + " takes its place")),
                                    "the training continues from " + older));
  ExpectSameOutcome(got, want);

  for (const std::string& name : NamesIn(dir)) fs::resize_file(dir + "/" + name, 100);
  const Outcome none = task.Run({.dir = dir, .resume = true});
  EXPECT_EQ(none.status.code(), absl::StatusCode::kDataLoss);
  EXPECT_THAT(std::string(none.status.message()), HasSubstr("checkpoints in " + dir + " can be read: "));
}

TEST(Checkpoints, RefuseWhatDoesNotFit) {
  Task task;
  task.Build();
  const std::string dir = NewFolder("fit");
  auto error = [&](const Task& of, const CheckpointOptions& options) {
    return std::string(of.Run(options).status.message());
  };
  EXPECT_EQ(error(task, {.resume = true}), "Fit: checkpoints.resume needs the folder checkpoints.dir");
  EXPECT_EQ(error(task, {.dir = dir, .keep = 0}), "Fit: checkpoints.keep is 0 and has to be at least 1");
  EXPECT_THAT(error(task, {.dir = dir, .every = {0}}), HasSubstr("interval of checkpoints is 0"));
  EXPECT_THAT(error(task, {.dir = "/proc/none"}), HasSubstr("the folder /proc/none cannot be opened"));
  EXPECT_THAT(error(task, {.dir = dir, .best = Largest("beauty")}), HasSubstr("needs the validation metric 'beauty'"));
  fs::remove_all(dir);

  const Outcome first = task.Run({.dir = dir, .resume = true});
  ASSERT_TRUE(first.status.ok()) << first.status;
  EXPECT_THAT(first.told, ElementsAre(dir + " has no checkpoint; the training begins"));
  EXPECT_EQ(error(task, {.dir = dir}), "Fit: " + dir +
                                           " has checkpoints of an earlier training; resume continues it, "
                                           "and a new one needs an empty folder");
  auto changed = [&](auto change) {
    Task other;
    change(other);
    other.Build();
    return error(other, {.dir = dir, .resume = true});
  };
  const std::string start = "Fit: the training cannot continue from " + dir + "/" + Checkpoint(9) + ": ";
  EXPECT_EQ(changed([](Task& other) { other.options.batch_size = 5; }), start + "batch_size was 10 and is 5 now");
  EXPECT_EQ(changed([](Task& other) { other.options.epochs = 2; }),
            start + "3 epochs are done already, and epochs is 2");
  EXPECT_EQ(changed([](Task& other) { other.options.shuffle = false; }), start + "shuffle was 1 and is 0 now");
  EXPECT_EQ(changed([](Task& other) { other.data = Sequences(24); }),
            start + "the number of samples was 25 and is 24 now");
  EXPECT_EQ(changed([](Task& other) { other.seed = 6; }), start + "its session had the seed 5, and this one has 6");
  EXPECT_THAT(
      changed([](Task& other) { other.features = 9; }),
      HasSubstr("it is of another model: its variable 'dense_1/weight' is float32[2,8], and has to be float32[2,9]"));

  // Two trainings would remove each other's files.
  std::string of_second;
  const std::string own = NewFolder("own");
  ASSERT_TRUE(task.Run({.dir = own}, {.after_batch =
                                          [&](TrainingState& state) {
                                            if (state.batches_done == 2)
                                              of_second = error(task, {.dir = own, .resume = true});
                                            return absl::OkStatus();
                                          }})
                  .status.ok());
  EXPECT_THAT(of_second, HasSubstr("another training keeps its checkpoints in " + own));
}

TEST(Checkpoints, AFullDiskIsAnErrorAndTheOlderOnesStay) {
  Task task;
  task.features = 3000;
  task.Build();
  const std::string dir = NewFolder("full");
  signal(SIGXFSZ, SIG_IGN);
  rlimit old_limit, limit;
  ASSERT_EQ(getrlimit(RLIMIT_FSIZE, &old_limit), 0);
  limit = old_limit;
  limit.rlim_cur = 10'000;
  auto fill = [&](TrainingState& state) {
    if (state.batches_done != 5) return absl::OkStatus();
    while (!fs::exists(dir + "/" + Checkpoint(3))) usleep(1000);
    // A limit of the process makes writes fail as a full disk does.
    setrlimit(RLIMIT_FSIZE, &limit);
    return absl::OkStatus();
  };
  const Outcome got = task.Run({.dir = dir}, {.after_batch = fill});
  ASSERT_EQ(setrlimit(RLIMIT_FSIZE, &old_limit), 0);
  EXPECT_THAT(std::string(got.status.message()), AllOf(HasSubstr("Fit: no checkpoint of step 6 was written: "),
                                                       HasSubstr("the file cannot be written to its end")));
  EXPECT_TRUE(LoadModel(dir + "/" + Checkpoint(3)).ok());
  EXPECT_FALSE(fs::exists(dir + "/" + Checkpoint(6)));
  ExpectSameOutcome(task.Run({.dir = dir, .resume = true}), task.Run({}));
}

TEST(Checkpoints, ASignalEndsTheTrainingWithACheckpoint) {
  Task task;
  task.Build();
  const Outcome want = task.Run({});
  for (const auto& [number, name, code] : {std::tuple(SIGINT, "SIGINT", 130), std::tuple(SIGTERM, "SIGTERM", 143)}) {
    const std::string dir = NewFolder("signal");
    auto stop = [number = number](TrainingState& state) {
      if (state.batches_done == 5) raise(number);
      return absl::OkStatus();
    };
    const Outcome ended = task.Run({.dir = dir, .every = {100, CheckpointInterval::kEpochs}}, {.after_batch = stop});
    EXPECT_EQ(ended.status.code(), absl::StatusCode::kCancelled);
    EXPECT_EQ(ended.status.message(),
              absl::StrCat(name, " ended the training after step 5; ", dir, "/", Checkpoint(5), " has its state"));
    EXPECT_EQ(ExitCode(ended.status), code);
    ExpectSameOutcome(task.Run({.dir = dir, .resume = true}), want);
  }
  EXPECT_EQ(ExitCode(absl::OkStatus()), 0);
  EXPECT_EQ(ExitCode(absl::InternalError("")), 1);
}

TEST(Checkpoints, ASignalEndsAValidation) {
  Task task;
  task.Build();
  bool armed = false;
  const data::Dataset plain = task.test;
  // Batches of the validation come from a function, which raises the signal.
  const Tensor x = *plain.Find("x"), label = *plain.Find("label");
  task.options.validation = data::Dataset::Generated(
      {{"x", kFloat32, {4}}, {"label", kInt32, {}}}, 12,
      [&](const data::GeneratorCall& call, absl::Span<Tensor> arrays) {
        if (armed && call.first >= 5) raise(SIGTERM);
        armed = armed && call.first < 5;
        std::memcpy(arrays[0].mutable_raw_data(), x.data<float>() + 4 * call.first, 16 * call.count);
        std::memcpy(arrays[1].mutable_raw_data(), label.data<int32_t>() + call.first, 4 * call.count);
        return absl::OkStatus();
      });
  const Outcome want = task.Run({});
  ASSERT_TRUE(want.status.ok()) << want.status;
  const std::string dir = NewFolder("validation");
  auto arm = [&](TrainingState& state) {
    armed = state.batches_done == 6;
    return absl::OkStatus();
  };
  const Outcome ended = task.Run({.dir = dir}, {.after_batch = arm});
  EXPECT_THAT(std::string(ended.status.message()), HasSubstr("SIGTERM ended the training after step 6"));
  const absl::StatusOr<Model> model = LoadModel(dir + "/" + Checkpoint(6));
  ASSERT_TRUE(model.ok()) << model.status();
  ExpectSameOutcome(task.Run({.dir = dir, .resume = true}), want);
}

TEST(StopSignals, ASecondOneEndsTheProcessAtOnce) {
  EXPECT_EXIT(
      {
        StopSignals signals;
        raise(SIGTERM);
        if (StopSignals::Received() == SIGTERM) raise(SIGINT);
      },
      ::testing::ExitedWithCode(130), "");
  EXPECT_EXIT(
      {
        { StopSignals signals; }
        raise(SIGTERM);
      },
      ::testing::KilledBySignal(SIGTERM), "");
  // As nohup and shells without jobs do.
  signal(SIGINT, SIG_IGN);
  {
    StopSignals signals;
    raise(SIGINT);
    EXPECT_EQ(StopSignals::Received(), 0);
  }
  signal(SIGINT, SIG_DFL);
}

// y = w x, where the loss of the sample 1e30 is infinite in float32.
TEST(Fit, EndsWhenTheLossIsNotFinite) {
  Graph graph;
  Scope scope(graph);
  const Value x = scope.Input("x", kFloat32, {Dim("batch")});
  const Value w = scope.Variable("w", 1.0);
  const Value loss = Mean(Square(w * x));
  const Training training{loss, optim::Sgd{.learning_rate = 0.1}.Minimize(loss)};
  const data::Dataset data = {{x, Tensor::Of<float>({6}, {0, 1, 0, 1e30f, 0, 1})}};
  auto fit = [&](FitOptions options) {
    absl::StatusOr<Session> session = Session::Create(graph, {.threads = 1});
    options.epochs = 1;
    options.batch_size = 1;
    options.shuffle = false;
    return std::string(Fit(*session, training, data, options).status().message());
  };
  EXPECT_EQ(fit({}),
            "Fit: the loss is infinite in step 4 (epoch 1, batch 4); check_numerics names the node where it began");
  EXPECT_THAT(fit({.read_every = 6}), HasSubstr("the loss is NaN in one of the steps 1 to 6"));
  EXPECT_THAT(
      fit({.check_numerics = true}),
      AllOf(HasSubstr("the loss is infinite in step 4 (epoch 1, batch 4): element [0] of Square(x: float32[batch])"),
            HasSubstr("is inf (nothing finite, 0 NaN and 1 infinite of 1); operand x: 8e+29 to 8e+29")));
  const std::string dir = NewFolder("infinite");
  EXPECT_THAT(fit({.checkpoints = {.dir = dir, .every = {1, CheckpointInterval::kSteps}}}), HasSubstr("in step 4"));
  // None of the files has the infinity.
  EXPECT_FALSE(NamesIn(dir).empty());
  for (const std::string& name : NamesIn(dir)) {
    EXPECT_LT(name, Checkpoint(4));
    EXPECT_TRUE(LoadModel(dir + "/" + name).ok());
  }
}

// The loss of sqrt(w) at w = 0 is finite, and its gradient is not.
TEST(Fit, NoticesAStepThatSpoilsAVariable) {
  Graph graph;
  Scope scope(graph);
  const Value x = scope.Input("x", kFloat32, {Dim("batch")});
  const Value loss = Mean(Sqrt(scope.Variable("w", 0.0) * x));
  const Training training{loss, optim::Sgd{}.Minimize(loss)};
  auto fit = [&](FitOptions options) {
    absl::StatusOr<Session> session = Session::Create(graph, {.threads = 1});
    options.epochs = 1;
    return std::string(Fit(*session, training, {{x, Tensor::Of<float>({1}, {2})}}, options).status().message());
  };
  EXPECT_EQ(fit({}), "");
  EXPECT_THAT(fit({.check_numerics = true}),
              HasSubstr("step 1 makes variable 'w' NaN or infinite (epoch 1, batch 1): "));
  const std::string dir = NewFolder("spoiled");
  EXPECT_THAT(fit({.checkpoints = {.dir = dir}}),
              HasSubstr("no checkpoint of step 1 was written: variable 'w' has NaN or infinite elements"));
  EXPECT_TRUE(NamesIn(dir).empty());
}

}  // namespace
}  // namespace gradweave
