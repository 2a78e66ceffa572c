// A soak: eight threads use four sessions of one loaded model at once. Every answer is known
// before, and memory stays flat. It takes three seconds, or GRADWEAVE_SOAK_SECONDS.
#include <unistd.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <chrono>
#include <cmath>
#include <cstdint>
#include <cstdlib>
#include <fstream>
#include <iostream>
#include <memory>
#include <mutex>
#include <random>
#include <shared_mutex>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "examples/lenet_layers.h"
#include "gradweave/gradweave.h"
#include "gtest/gtest.h"

namespace gradweave {
namespace {

using Clock = RunOptions::Clock;

constexpr int kWorkers = 8;
constexpr int64_t kMostRows = 64;
constexpr int kPools = 2;  // Feeds of one size have different images in each pool.
// Results of sessions that differ in tiles or row fusion differ by rounding.
constexpr double kRounding = 1e-5;
// Beyond the resident set after the warm-up, the one at the end has at most this.
constexpr double kGrowth = 8;  // MB.

// A sanitizer keeps freed memory.
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
constexpr bool kMeasuresMemory = false;
#else
constexpr bool kMeasuresMemory = true;
#endif

// Options of the sessions that nobody trains, and of the one that is trained.
const SessionOptions kInference[] = {
    {.threads = 1, .batch_tiles = BatchTiles::kNever, .row_fusion = RowFusion::kNever},
    {.threads = 2, .batch_tiles = BatchTiles::kAuto, .row_fusion = RowFusion::kNever},
    {.threads = 2, .batch_tiles = BatchTiles::kNever, .row_fusion = RowFusion::kAuto},
};
constexpr int kInferenceSessions = std::size(kInference);
const SessionOptions kTraining = {.threads = 2, .batch_tiles = BatchTiles::kAuto, .row_fusion = RowFusion::kAuto};

// Rows of each step of the training, which begins anew when it ends.
constexpr int64_t kStepRows[] = {32, 7, 64, 1, 16, 33, 48, 2, 64, 5, 24, 32};
constexpr int kSteps = std::size(kStepRows);
constexpr int64_t kProbeRows = 9;

// Upper limit for the time of a run of an inference session, including its wait for others.
constexpr auto kUsual = std::chrono::milliseconds(4);

SessionOptions OnOneThread(SessionOptions options) {
  options.threads = 1;
  return options;
}

// Returns the resident set in MB.
double Resident() {
  int64_t pages = 0, resident = 0;
  std::ifstream("/proc/self/statm") >> pages >> resident;
  return static_cast<double>(resident * sysconf(_SC_PAGESIZE)) / 1e6;
}

double LargestDifference(const Tensor& a, const Tensor& b) {
  EXPECT_EQ(a.type(), b.type());
  double largest = 0;
  for (int64_t i = 0; i < a.num_elements(); ++i)
    largest = std::max<double>(largest, std::abs(a.values<float>()[i] - b.values<float>()[i]));
  return largest;
}

// A LeNet with a training step that was saved and loaded.
absl::StatusOr<Model> LoadedLeNet() {
  Graph graph;
  Scope scope(graph);
  const Value image = scope.Input("image", kFloat32, {Dim("batch"), 1, 28, 28});
  const Value label = scope.Input("label", kInt32, {Dim("batch")});
  const Value logits = examples::LeNet()(scope, image);
  const Value loss = nn::SoftmaxCrossEntropy(logits, label);
  graph.SetOutput("logits", {logits});
  graph.SetOutput("loss", {loss});
  graph.SetOutput("train_step", optim::Sgd{.learning_rate = 0.1, .momentum = 0.9}.Minimize(loss).assignments);
  GW_ASSIGN_OR_RETURN(const Session session, Session::Create(graph, {.threads = 1, .seed = 11}));
  const std::string path = ::testing::TempDir() + "/soak.gw";
  GW_RETURN_IF_ERROR(SaveModel(session, path));
  return LoadModel(path);
}

// The expected results for a set of options: logits by pool and number of rows.
using Answers = std::array<std::array<Tensor, kMostRows + 1>, kPools>;

// The expected state of the training before each step, and after the last one.
struct State {
  NamedTensors variables;
  Tensor probe;  // The logits of kProbeRows rows.
  Tensor loss;   // The loss that the step returns, if there is one more.
};

// One thread of the soak.
struct Worker {
  // A run of one inference session that is prepared for some rows.
  struct Prepared {
    std::unique_ptr<PreparedRun> run;
    int64_t rows = 0;
    int left = 0;        // The number of uses before another one replaces it.
    int last_pool = -1;  // The images of its last run that came to its end; -1 before.
  };

  explicit Worker(int seed) : random(seed) {}
  // A number in [0, count).
  int Pick(int64_t count) { return std::uniform_int_distribution<int>(0, static_cast<int>(count) - 1)(random); }
  // Half of the sizes are among a few: they find their plans, and the others need room for new
  // ones.
  int64_t PickRows() {
    constexpr int64_t kOften[] = {1, 2, 8, 16, 32, 64};
    return Pick(2) == 0 ? kOften[Pick(std::size(kOften))] : 1 + Pick(kMostRows);
  }

  std::mt19937 random;
  std::array<Prepared, kInferenceSessions> prepared;
  std::mutex mutex;  // Guards the token, which other workers cancel.
  std::unique_ptr<CancellationToken> token = std::make_unique<CancellationToken>();
};

struct Counts {
  std::atomic<int64_t> runs{0};           // All that came to their end, the following among them.
  std::atomic<int64_t> prepared{0};       // Those of prepared runs.
  std::atomic<int64_t> steps{0};          // Training steps.
  std::atomic<int64_t> stopped{0};        // Runs that their limits stopped.
  std::atomic<int64_t> in_the_middle{0};  // Those that had begun.
  std::atomic<int64_t> reads{0};          // Calls of GetVariable.
  std::atomic<int64_t> wrong{0};          // Wrong answers.
};

class Soak {
 public:
  // Computes all answers on one thread and makes the sessions.
  absl::Status Prepare();
  void Run(std::chrono::duration<double> duration);
  const Counts& counts() const { return counts_; }
  double worst_rounding() const { return worst_rounding_; }

 private:
  std::vector<Feed> Images(int pool, int64_t rows) const { return {{image_, images_[pool].Rows(0, rows)}}; }
  std::vector<Feed> Examples(int64_t rows) const {
    return {{image_, images_[0].Rows(0, rows)}, {label_, labels_.Rows(0, rows)}};
  }
  absl::Status ComputeAnswers();
  absl::Status ComputeTraining();

  void Work(Worker& worker);
  void Infer(Worker& worker);
  void InferPrepared(Worker& worker);
  void ReadVariable(Worker& worker);
  void CancelAnother(Worker& worker);
  void ReadTraining(Worker& worker);
  void Train(Worker& worker);
  void BeginTrainingAnew();
  RunOptions Limits(Worker& worker, Clock::duration usual);
  bool CameToItsEnd(const absl::Status& status, const RunOptions& options, const char* call);
  void Wrong(const std::string& what);

  std::unique_ptr<Model> model_;
  Value image_, label_, logits_, loss_;
  Update step_;
  std::array<Tensor, kPools> images_;
  Tensor labels_;
  std::array<Answers, kInferenceSessions> answers_;
  std::vector<State> states_;
  double worst_rounding_ = 0;

  std::vector<Session> sessions_;
  std::unique_ptr<Session> training_;
  std::vector<std::unique_ptr<PreparedRun>> prepared_steps_;
  std::array<Clock::duration, kSteps> usual_{};  // The time that each step of the training took last.
  std::mutex training_mutex_;                    // Held by whoever changes variables.
  std::shared_mutex whole_;                      // Held alone while variables of different states are in the session.
  std::atomic<int> state_{0};                    // The training's state, once a step has returned.
  std::array<std::unique_ptr<Worker>, kWorkers> workers_;
  Clock::time_point end_;
  Counts counts_;
};

absl::Status Soak::ComputeAnswers() {
  for (int i = 0; i < kInferenceSessions; ++i) {
    GW_ASSIGN_OR_RETURN(Session session, CreateSession(*model_, OnOneThread(kInference[i])));
    for (int pool = 0; pool < kPools; ++pool) {
      for (int64_t rows = 1; rows <= kMostRows; ++rows) {
        GW_ASSIGN_OR_RETURN(const std::vector<Tensor> results, session.Run(Images(pool, rows), {logits_}));
        answers_[i][pool][rows] = results[0];
        worst_rounding_ = std::max(worst_rounding_, LargestDifference(results[0], answers_[0][pool][rows]));
      }
    }
  }
  return absl::OkStatus();
}

absl::Status Soak::ComputeTraining() {
  GW_ASSIGN_OR_RETURN(Session session, CreateSession(*model_, OnOneThread(kTraining)));
  for (int i = 0; i <= kSteps; ++i) {
    State state;
    for (const std::string& name : session.VariableNames()) {
      GW_ASSIGN_OR_RETURN(state.variables.emplace_back(name, Tensor()).second, session.GetVariable(name));
    }
    GW_ASSIGN_OR_RETURN(const std::vector<Tensor> probe, session.Run(Images(0, kProbeRows), {logits_}));
    state.probe = probe[0];
    if (i < kSteps) {
      GW_ASSIGN_OR_RETURN(const std::vector<Tensor> results, session.Run(Examples(kStepRows[i]), {loss_, step_}));
      state.loss = results[0];
    }
    states_.push_back(std::move(state));
  }
  return absl::OkStatus();
}

absl::Status Soak::Prepare() {
  GW_ASSIGN_OR_RETURN(Model model, LoadedLeNet());
  model_ = std::make_unique<Model>(std::move(model));
  Graph& graph = model_->graph;
  image_ = graph.value(graph.FindNamed("image"));
  label_ = graph.value(graph.FindNamed("label"));
  logits_ = graph.Output("logits")[0];
  loss_ = graph.Output("loss")[0];
  step_.assignments = graph.Output("train_step");

  std::mt19937 random(5);
  std::uniform_real_distribution<float> pixels(0, 1);
  for (Tensor& images : images_) {
    images = Tensor(kFloat32, {kMostRows, 1, 28, 28});
    for (float& pixel : images.mutable_values<float>()) pixel = pixels(random);
  }
  labels_ = Tensor(kInt32, {kMostRows});
  for (int32_t& label : labels_.mutable_values<int32_t>()) label = static_cast<int32_t>(random() % 10);
  GW_RETURN_IF_ERROR(ComputeAnswers());
  GW_RETURN_IF_ERROR(ComputeTraining());

  for (const SessionOptions& options : kInference) {
    GW_ASSIGN_OR_RETURN(Session session, CreateSession(*model_, options));
    sessions_.push_back(std::move(session));
  }
  GW_ASSIGN_OR_RETURN(Session training, CreateSession(*model_, kTraining));
  training_ = std::make_unique<Session>(std::move(training));
  for (int64_t rows : kStepRows) {
    GW_ASSIGN_OR_RETURN(prepared_steps_.emplace_back(), training_->Prepare(Examples(rows), {loss_, step_}));
  }
  for (int i = 0; i < kWorkers; ++i) workers_[i] = std::make_unique<Worker>(i);
  return absl::OkStatus();
}

// Reports the first wrong answers, and counts all.
void Soak::Wrong(const std::string& what) {
  if (counts_.wrong.fetch_add(1) < 10) ADD_FAILURE() << what;
}

// Limits that stop a run before it begins, in its middle or never. A run usually takes so long.
RunOptions Soak::Limits(Worker& worker, Clock::duration usual) {
  {
    std::lock_guard lock(worker.mutex);
    worker.token = std::make_unique<CancellationToken>();
  }
  switch (worker.Pick(8)) {
    case 0:
      worker.token->Cancel();
      return {.cancellation = worker.token.get()};
    case 1:
      return {.deadline = Clock::now() + std::chrono::hours(1)};
    case 2:
    case 3:
      return {.cancellation = worker.token.get()};
    default:
      return {.deadline = Clock::now() + usual * worker.Pick(1300) / 1000};
  }
}

// True if the run has results. Counts what the limits have stopped; other errors are wrong answers.
bool Soak::CameToItsEnd(const absl::Status& status, const RunOptions& options, const char* call) {
  if (status.ok()) {
    ++counts_.runs;
    return true;
  }
  const absl::StatusCode expected =
      options.cancellation != nullptr ? absl::StatusCode::kCancelled : absl::StatusCode::kDeadlineExceeded;
  if (!options.is_limited() || status.code() != expected) {
    Wrong(absl::StrCat(call, ": ", status.ToString()));
    return false;
  }
  ++counts_.stopped;
  if (absl::StrContains(status.message(), "before step ")) ++counts_.in_the_middle;
  return false;
}

void Soak::Infer(Worker& worker) {
  const int i = worker.Pick(kInferenceSessions), pool = worker.Pick(kPools);
  const int64_t rows = worker.PickRows();
  const RunOptions options = worker.Pick(4) == 0 ? Limits(worker, kUsual) : RunOptions();
  const absl::StatusOr<std::vector<Tensor>> results = sessions_[i].Run(Images(pool, rows), {logits_}, options);
  if (!CameToItsEnd(results.status(), options, "Run")) return;
  if (!SameBits((*results)[0], answers_[i][pool][rows]))
    Wrong(absl::StrCat("Run of ", rows, " rows in session ", i, ": ", (*results)[0].ToString()));
}

void Soak::InferPrepared(Worker& worker) {
  const int i = worker.Pick(kInferenceSessions), pool = worker.Pick(kPools);
  Worker::Prepared& prepared = worker.prepared[i];
  if (prepared.left == 0) {
    prepared = {.run = nullptr, .rows = worker.PickRows(), .left = 1 + worker.Pick(40)};
    absl::StatusOr<std::unique_ptr<PreparedRun>> run = sessions_[i].Prepare(Images(0, prepared.rows), {logits_});
    if (!run.ok()) return Wrong(absl::StrCat("Prepare: ", run.status().ToString()));
    prepared.run = *std::move(run);
  }
  --prepared.left;
  if (const absl::Status status = prepared.run->SetFeed(0, images_[pool].Rows(0, prepared.rows)); !status.ok())
    Wrong(absl::StrCat("SetFeed: ", status.ToString()));
  const RunOptions options = worker.Pick(4) == 0 ? Limits(worker, kUsual) : RunOptions();
  const bool starts = worker.Pick(2) == 0;
  absl::Status status = starts ? prepared.run->Start(options) : prepared.run->Run(options);
  if (starts && status.ok()) status = prepared.run->Finish();
  if (CameToItsEnd(status, options, "PreparedRun")) {
    ++counts_.prepared;
    prepared.last_pool = pool;
  }
  // A run that was stopped leaves the results as they were.
  if (prepared.last_pool >= 0 &&
      !SameBits(prepared.run->results()[0], answers_[i][prepared.last_pool][prepared.rows])) {
    Wrong(absl::StrCat("PreparedRun of ", prepared.rows, " rows in session ", i, ": ",
                       prepared.run->results()[0].ToString()));
  }
}

void Soak::ReadVariable(Worker& worker) {
  const int i = worker.Pick(kInferenceSessions);
  const auto& [name, expected] = model_->variables[worker.Pick(model_->variables.size())];
  const absl::StatusOr<Tensor> value = sessions_[i].GetVariable(name);
  ++counts_.reads;
  if (!value.ok() || !SameBits(*value, expected)) Wrong(absl::StrCat("GetVariable of ", name, " in session ", i));
}

void Soak::CancelAnother(Worker& worker) {
  Worker& other = *workers_[worker.Pick(kWorkers)];
  std::lock_guard lock(other.mutex);
  other.token->Cancel();
}

// While others train, a run and a variable belong to one state, whichever it is.
void Soak::ReadTraining(Worker& worker) {
  std::shared_lock lock(whole_);
  const int first = state_;
  if (worker.Pick(2) == 0) {
    const size_t variable = worker.Pick(states_[0].variables.size());
    const std::string& name = states_[0].variables[variable].first;
    const absl::StatusOr<Tensor> value = training_->GetVariable(name);
    const int last = std::min(state_ + 1, kSteps);
    ++counts_.reads;
    bool known = false;
    for (int i = first; i <= last; ++i) known |= value.ok() && SameBits(*value, states_[i].variables[variable].second);
    if (!known) Wrong(absl::StrCat("GetVariable of ", name, " between steps ", first, " and ", last));
  } else {
    const RunOptions options = worker.Pick(4) == 0 ? Limits(worker, kUsual) : RunOptions();
    const absl::StatusOr<std::vector<Tensor>> results = training_->Run(Images(0, kProbeRows), {logits_}, options);
    const int last = std::min(state_ + 1, kSteps);
    if (!CameToItsEnd(results.status(), options, "Run")) return;
    bool known = false;
    for (int i = first; i <= last; ++i) known |= SameBits((*results)[0], states_[i].probe);
    if (!known) Wrong(absl::StrCat("Run between steps ", first, " and ", last, ": ", (*results)[0].ToString()));
  }
}

void Soak::Train(Worker& worker) {
  std::lock_guard lock(training_mutex_);
  if (state_ == kSteps) BeginTrainingAnew();
  const int step = state_;
  const RunOptions options = worker.Pick(2) == 0 ? Limits(worker, usual_[step]) : RunOptions();
  const Clock::time_point begin = Clock::now();
  absl::Status status;
  Tensor loss;
  if (worker.Pick(2) == 0) {
    status = prepared_steps_[step]->Run(options);
    if (status.ok()) loss = prepared_steps_[step]->results()[0];
  } else {
    const absl::StatusOr<std::vector<Tensor>> results =
        training_->Run(Examples(kStepRows[step]), {loss_, step_}, options);
    status = results.status();
    if (status.ok()) loss = (*results)[0];
  }
  if (CameToItsEnd(status, options, "training step")) {
    ++counts_.steps;
    usual_[step] = Clock::now() - begin;
    state_ = step + 1;
    if (!SameBits(loss, states_[step].loss)) Wrong(absl::StrCat("loss of step ", step, ": ", loss.ToString()));
  }
  // A step that was stopped leaves the variables as they were.
  const auto& [name, expected] = states_[state_].variables[worker.Pick(states_[0].variables.size())];
  const absl::StatusOr<Tensor> value = training_->GetVariable(name);
  ++counts_.reads;
  if (!value.ok() || !SameBits(*value, expected)) Wrong(absl::StrCat("GetVariable of ", name, " behind step ", step));
}

void Soak::BeginTrainingAnew() {
  std::unique_lock lock(whole_);
  for (const auto& [name, expected] : states_[kSteps].variables) {
    const absl::StatusOr<Tensor> value = training_->GetVariable(name);
    ++counts_.reads;
    if (!value.ok() || !SameBits(*value, expected)) Wrong(absl::StrCat("GetVariable of ", name, " behind all steps"));
  }
  for (const auto& [name, value] : states_[0].variables) {
    if (const absl::Status status = training_->SetVariable(name, value); !status.ok())
      Wrong(absl::StrCat("SetVariable: ", status.ToString()));
  }
  state_ = 0;
}

void Soak::Work(Worker& worker) {
  while (Clock::now() < end_) {
    const int job = worker.Pick(100);
    if (job < 35) {
      Infer(worker);
    } else if (job < 60) {
      InferPrepared(worker);
    } else if (job < 70) {
      ReadVariable(worker);
    } else if (job < 80) {
      CancelAnother(worker);
    } else if (job < 88) {
      ReadTraining(worker);
    } else {
      Train(worker);
    }
  }
}

void Soak::Run(std::chrono::duration<double> duration) {
  const Clock::time_point begin = Clock::now();
  end_ = begin + std::chrono::duration_cast<Clock::duration>(duration);
  auto tell = [&](double megabytes) {
    const double seconds = std::chrono::duration<double>(Clock::now() - begin).count();
    std::cout << "after " << std::round(seconds) << " s: " << std::round(counts_.runs / std::max(seconds, 1e-3))
              << " runs per second, " << counts_.runs << " runs, " << counts_.prepared << " of them prepared and "
              << counts_.steps << " training steps, " << counts_.stopped << " stopped, " << counts_.in_the_middle
              << " of them in their middle, " << counts_.reads << " reads, " << counts_.wrong
              << " wrong answers, resident set " << megabytes << " MB" << std::endl;
  };
  tell(Resident());

  std::vector<std::thread> threads;
  for (const std::unique_ptr<Worker>& worker : workers_) threads.emplace_back([&] { Work(*worker); });
  // The warm-up is a minute, or half of less than two.
  const auto warm_up = std::min<Clock::duration>(std::chrono::minutes(1), (end_ - begin) / 2);
  std::this_thread::sleep_until(begin + warm_up);
  const double before = Resident();
  tell(before);
  for (auto next = begin + 2 * std::chrono::minutes(1); next < end_; next += std::chrono::minutes(1)) {
    std::this_thread::sleep_until(next);
    tell(Resident());
  }
  for (std::thread& thread : threads) thread.join();
  const double after = Resident();
  tell(after);
  if (kMeasuresMemory) {
    EXPECT_LT(after, before + kGrowth) << "MB";
  }
}

TEST(Soak, AnswersAreRightAndMemoryStaysFlat) {
  double seconds = 3;
  if (const char* given = std::getenv("GRADWEAVE_SOAK_SECONDS"); given != nullptr) {
    ASSERT_TRUE(absl::SimpleAtod(given, &seconds) && seconds > 0 && seconds < 1e6) << given;
  }
  Soak soak;
  const absl::Status status = soak.Prepare();
  ASSERT_TRUE(status.ok()) << status;
  EXPECT_LT(soak.worst_rounding(), kRounding);
  soak.Run(std::chrono::duration<double>(seconds));
  const Counts& counts = soak.counts();
  EXPECT_EQ(counts.wrong, 0);
  for (const std::atomic<int64_t>* count :
       {&counts.runs, &counts.prepared, &counts.steps, &counts.stopped, &counts.reads})
    EXPECT_GT(*count, 0);
}

}  // namespace
}  // namespace gradweave
