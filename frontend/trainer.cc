#include "gradweave/frontend/trainer.h"

#include <algorithm>
#include <chrono>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "gradweave/graph/check.h"

namespace gradweave {
namespace {

using Clock = std::chrono::steady_clock;

double Seconds(Clock::duration duration) { return std::chrono::duration<double>(duration).count(); }

// The data of the batches and the values to sum up over them.
struct BatchRequest {
  struct Sum {
    Value value;
    bool is_mean = false;  // A mean over the batch is multiplied by the batch size before it is added.
  };

  Session& session;
  Value image, label;
  std::vector<Sum> sums;
  std::optional<Update> step;
  const data::Dataset& dataset;
  data::BatchOptions options;
};

// Runs the batches of a data set one by one. The session keeps the sums where it computes them, so
// a CUDA device executes runs back to back until the sums are read.
class BatchRuns {
 public:
  explicit BatchRuns(BatchRequest request) : request_(std::move(request)) {}
  virtual ~BatchRuns() = default;

  virtual absl::Status StartEpoch(int64_t epoch) {
    ran_.clear();
    for (auto& [size, run] : runs_) GW_RETURN_IF_ERROR(run->ClearSums());
    return absl::OkStatus();
  }
  // Starts the run of the next batch and returns its size, or 0 at the end of the epoch.
  virtual absl::StatusOr<int64_t> RunNext() = 0;
  // Waits for the runs and returns the sums over the epoch so far.
  absl::StatusOr<std::vector<double>> Sums() {
    const Clock::time_point start = Clock::now();
    std::vector<double> sums(request_.sums.size(), 0);
    // Adds the sums of the full batch size first, because its batches ran first.
    for (auto run = runs_.rbegin(); run != runs_.rend(); ++run) {
      GW_RETURN_IF_ERROR(run->second->Finish());
      if (ran_.count(run->first) == 0) continue;
      for (size_t i = 0; i < sums.size(); ++i) sums[i] += run->second->results()[i].ToDouble();
    }
    seconds_ += Seconds(Clock::now() - start);
    return sums;
  }
  // Time spent in runs.
  double seconds() const { return seconds_; }

 protected:
  std::vector<Fetch> Fetches(int64_t batch_size) const {
    std::vector<Fetch> fetches;
    for (const BatchRequest::Sum& sum : request_.sums) {
      fetches.push_back(Fetch::RunningSum(sum.value, sum.is_mean ? static_cast<double>(batch_size) : 1));
    }
    if (request_.step.has_value()) fetches.push_back(*request_.step);
    return fetches;
  }
  absl::Status Start(int64_t size) {
    ran_.insert(size);
    const Clock::time_point start = Clock::now();
    const absl::Status status = runs_.at(size)->Start();
    seconds_ += Seconds(Clock::now() - start);
    return status;
  }

  const BatchRequest request_;
  // By batch size: the full size and that of the last batch.
  std::map<int64_t, std::unique_ptr<PreparedRun>> runs_;

 private:
  std::set<int64_t> ran_;  // The batch sizes that ran in this epoch.
  double seconds_ = 0;
};

// Feeds the session with the batches of a loader.
class FedBatchRuns : public BatchRuns {
 public:
  explicit FedBatchRuns(const BatchRequest& request) : BatchRuns(request), loader_(request.dataset, request.options) {}

  absl::Status StartEpoch(int64_t epoch) override {
    loader_.StartEpoch(epoch);
    return BatchRuns::StartEpoch(epoch);
  }

  absl::StatusOr<int64_t> RunNext() override {
    const data::Batch* batch = loader_.Next();
    if (batch == nullptr) return loader_.status().ok() ? absl::StatusOr<int64_t>(0) : loader_.status();
    std::unique_ptr<PreparedRun>& run = runs_[batch->size];
    if (run == nullptr) {
      GW_ASSIGN_OR_RETURN(
          run, request_.session.Prepare({{request_.image, batch->arrays[0]}, {request_.label, batch->arrays[1]}},
                                        Fetches(batch->size)));
    } else {
      GW_RETURN_IF_ERROR(run->SetFeed(0, batch->arrays[0]));
      GW_RETURN_IF_ERROR(run->SetFeed(1, batch->arrays[1]));
    }
    GW_RETURN_IF_ERROR(Start(batch->size));
    return batch->size;
  }

 private:
  data::BatchLoader loader_;
};

// Keeps the data set on the device and gathers the batches there.
class GatheredBatchRuns : public BatchRuns {
 public:
  // Returns ResourceExhausted if the data set does not fit in the device's memory.
  static absl::StatusOr<std::unique_ptr<BatchRuns>> Make(const BatchRequest& request) {
    auto runs = std::make_unique<GatheredBatchRuns>(request);
    GW_RETURN_IF_ERROR(runs->Find(std::min(request.options.batch_size, request.dataset.size())).status());
    return runs;
  }
  explicit GatheredBatchRuns(const BatchRequest& request) : BatchRuns(request), order_(request.dataset.size()) {}

  absl::Status StartEpoch(int64_t epoch) override {
    data::FillEpochOrder(absl::MakeSpan(order_), request_.options.shuffle, request_.options.seed, epoch);
    next_ = 0;
    return BatchRuns::StartEpoch(epoch);
  }

  absl::StatusOr<int64_t> RunNext() override {
    const absl::Span<const int64_t> rows = absl::MakeConstSpan(order_).subspan(next_, request_.options.batch_size);
    if (rows.empty()) return 0;
    const int64_t size = static_cast<int64_t>(rows.size());
    next_ += size;
    GW_ASSIGN_OR_RETURN(PreparedRun * run, Find(size));
    GW_RETURN_IF_ERROR(run->SetRows(rows));
    GW_RETURN_IF_ERROR(Start(size));
    return size;
  }

 private:
  absl::StatusOr<PreparedRun*> Find(int64_t size) {
    std::unique_ptr<PreparedRun>& run = runs_[size];
    if (run == nullptr) {
      const data::Dataset& dataset = request_.dataset;
      GW_ASSIGN_OR_RETURN(run, request_.session.PrepareRows({{request_.image, dataset.arrays()[0].values},
                                                             {request_.label, dataset.arrays()[1].values}},
                                                            size, Fetches(size)));
    }
    return run.get();
  }

  std::vector<int64_t> order_;
  int64_t next_ = 0;
};

// A CUDA device keeps the data set if it fits, because feeding a batch takes longer than a step.
absl::StatusOr<std::unique_ptr<BatchRuns>> MakeBatchRuns(const BatchRequest& request) {
  if (!request.session.device().is_cpu()) {
    absl::StatusOr<std::unique_ptr<BatchRuns>> runs = GatheredBatchRuns::Make(request);
    if (runs.status().code() != absl::StatusCode::kResourceExhausted) return runs;
  }
  return std::make_unique<FedBatchRuns>(request);
}

absl::Status CheckAtLeastOne(absl::string_view name, int64_t number) {
  if (number >= 1) return absl::OkStatus();
  return absl::InvalidArgumentError(absl::StrCat("Fit: ", name, " is ", number, " and has to be at least 1"));
}

absl::Status Call(const std::vector<Callback>& callbacks, std::function<absl::Status(TrainingState&)> Callback::*when,
                  TrainingState& state) {
  for (const Callback& callback : callbacks) {
    if (callback.*when != nullptr) GW_RETURN_IF_ERROR((callback.*when)(state));
  }
  return absl::OkStatus();
}

absl::StatusOr<double> EvaluateBatches(BatchRuns& runs, int64_t examples) {
  GW_RETURN_IF_ERROR(runs.StartEpoch(0));
  for (int64_t size = 1; size > 0;) {
    GW_ASSIGN_OR_RETURN(size, runs.RunNext());
  }
  GW_ASSIGN_OR_RETURN(const std::vector<double> sums, runs.Sums());
  return sums[0] / static_cast<double>(examples);
}

}  // namespace

absl::StatusOr<TrainingState> Fit(Session& session, const TrainingGraph& graph, const data::Dataset& train,
                                  const data::Dataset& test, const FitOptions& options) {
  GW_RETURN_IF_ERROR(CheckAtLeastOne("epochs", options.epochs));
  GW_RETURN_IF_ERROR(CheckAtLeastOne("batch_size", options.batch_size));
  GW_RETURN_IF_ERROR(CheckAtLeastOne("test_batch_size", options.test_batch_size));
  if (options.read_every < 0) {
    return absl::InvalidArgumentError(absl::StrCat("Fit: read_every is ", options.read_every,
                                                   " batches and has to be at least 1, or 0 for a good choice"));
  }
  GW_RETURN_IF_ERROR(CheckAtLeastOne("the number of training samples", train.size()));
  GW_RETURN_IF_ERROR(CheckAtLeastOne("the number of test samples", test.size()));
  const Value test_correct = graph.test_correct.valid() ? graph.test_correct : graph.correct;
  GW_ASSIGN_OR_RETURN(const std::unique_ptr<BatchRuns> steps,
                      MakeBatchRuns({session,
                                     graph.image,
                                     graph.label,
                                     {{graph.loss, true}, {graph.correct}},
                                     graph.step,
                                     train,
                                     {.batch_size = options.batch_size, .seed = options.seed}}));
  GW_ASSIGN_OR_RETURN(const std::unique_ptr<BatchRuns> tests,
                      MakeBatchRuns({session,
                                     graph.image,
                                     graph.label,
                                     {{test_correct}},
                                     std::nullopt,
                                     test,
                                     {.batch_size = options.test_batch_size, .shuffle = false}}));

  TrainingState state{.epochs = options.epochs,
                      .batches = (train.size() + options.batch_size - 1) / options.batch_size};
  // If runs do not wait for the host, occasional reads cost almost nothing.
  constexpr int64_t kReadsOfEpoch = 20;
  const int64_t read_every = options.read_every > 0       ? options.read_every
                             : !session.device().is_cpu() ? std::max<int64_t>(1, state.batches / kReadsOfEpoch)
                                                          : 1;
  for (state.epoch = 0; state.epoch < options.epochs && !state.stop; ++state.epoch) {
    int64_t examples = 0;
    const Clock::time_point start = Clock::now();
    GW_RETURN_IF_ERROR(steps->StartEpoch(state.epoch));
    for (state.batch = 1; state.batch <= state.batches; ++state.batch) {
      GW_ASSIGN_OR_RETURN(const int64_t batch_size, steps->RunNext());
      examples += batch_size;
      state.examples += batch_size;
      if (state.batch % read_every != 0 && state.batch != state.batches) continue;
      GW_ASSIGN_OR_RETURN(const std::vector<double> sums, steps->Sums());
      state.step_seconds = steps->seconds();
      state.epoch_seconds = Seconds(Clock::now() - start);
      state.train_loss = sums[0] / static_cast<double>(examples);
      state.train_accuracy = sums[1] / static_cast<double>(examples);
      GW_RETURN_IF_ERROR(Call(options.callbacks, &Callback::after_batch, state));
    }
    state.batch = state.batches;
    GW_ASSIGN_OR_RETURN(state.test_accuracy, EvaluateBatches(*tests, test.size()));
    GW_RETURN_IF_ERROR(Call(options.callbacks, &Callback::after_epoch, state));
  }
  return state;
}

absl::StatusOr<double> Evaluate(Session& session, const Value& image, const Value& label, const Value& correct,
                                const data::Dataset& dataset, int64_t batch_size) {
  GW_RETURN_IF_ERROR(CheckAtLeastOne("batch_size", batch_size));
  GW_RETURN_IF_ERROR(CheckAtLeastOne("the number of samples", dataset.size()));
  GW_ASSIGN_OR_RETURN(
      const std::unique_ptr<BatchRuns> runs,
      MakeBatchRuns(
          {session, image, label, {{correct}}, std::nullopt, dataset, {.batch_size = batch_size, .shuffle = false}}));
  return EvaluateBatches(*runs, dataset.size());
}

Callback PrintProgress(std::ostream& out, bool redraw) {
  auto line = [](const TrainingState& state) {
    const int64_t batches_left = state.batches * (state.epochs - state.epoch) - state.batch;
    const double batches_done = static_cast<double>(state.epoch * state.batches + state.batch);
    const double seconds_left =
        batches_done > 0 ? state.step_seconds / batches_done * static_cast<double>(batches_left) : 0;
    return absl::StrFormat("epoch %d/%d  batch %d/%d  loss %.3f  train acc %.3f  %.0f examples/sec  %.0f s left",
                           state.epoch + 1, state.epochs, state.batch, state.batches, state.train_loss,
                           state.train_accuracy, state.examples_per_second(), seconds_left);
  };
  auto last_drawn = std::make_shared<Clock::time_point>();
  return {.after_batch =
              [&out, redraw, line, last_drawn](TrainingState& state) {
                constexpr double kSecondsBetween = 0.1;
                if (redraw && Seconds(Clock::now() - *last_drawn) > kSecondsBetween) {
                  out << "\r" << line(state) << "\x1b[K" << std::flush;
                  *last_drawn = Clock::now();
                }
                return absl::OkStatus();
              },
          .after_epoch =
              [&out, redraw, line](TrainingState& state) {
                out << (redraw ? "\r" : "") << line(state) << absl::StrFormat("  test acc %.3f", state.test_accuracy)
                    << (redraw ? "\x1b[K" : "") << "\n"
                    << std::flush;
                return absl::OkStatus();
              }};
}

Callback RecordCurves(TrainingCurves& curves, int64_t times_per_epoch) {
  auto last = std::make_shared<int64_t>(0);
  return {.after_batch =
              [&curves, times_per_epoch, last](TrainingState& state) {
                const int64_t every = std::max<int64_t>(1, state.batches / times_per_epoch);
                // Callbacks do not come after every batch.
                const int64_t part = state.batch / every;
                if (part != *last || state.batch == state.batches) {
                  *last = state.batch == state.batches ? 0 : part;
                  const double at = static_cast<double>(state.epoch) +
                                    static_cast<double>(state.batch) / static_cast<double>(state.batches);
                  curves.train_loss.emplace_back(at, state.train_loss);
                  curves.train_accuracy.emplace_back(at, state.train_accuracy);
                }
                return absl::OkStatus();
              },
          .after_epoch =
              [&curves](TrainingState& state) {
                curves.test_accuracy.emplace_back(static_cast<double>(state.epoch + 1), state.test_accuracy);
                return absl::OkStatus();
              }};
}

Callback Checkpoint(std::function<absl::Status()> save, int64_t every) {
  return {.after_epoch = [save = std::move(save), every](TrainingState& state) {
    return (state.epoch + 1) % std::max<int64_t>(every, 1) == 0 ? save() : absl::OkStatus();
  }};
}

Callback StopEarly(int64_t patience, double least_change) {
  struct Best {
    double accuracy = -1;
    int64_t epochs_since = 0;
  };
  auto best = std::make_shared<Best>();
  return {.after_epoch = [best, patience, least_change](TrainingState& state) {
    if (state.test_accuracy > best->accuracy + least_change) {
      *best = {state.test_accuracy, 0};
    } else if (++best->epochs_since >= patience) {
      state.stop = true;
    }
    return absl::OkStatus();
  }};
}

}  // namespace gradweave
