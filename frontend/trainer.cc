#include "gradweave/frontend/trainer.h"

#include <algorithm>
#include <chrono>
#include <map>
#include <memory>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "gradweave/graph/check.h"

namespace gradweave {
namespace {

using Clock = std::chrono::steady_clock;

double Seconds(Clock::duration duration) { return std::chrono::duration<double>(duration).count(); }

// The batches of a data set, each run when it is asked for.
class BatchRuns {
 public:
  virtual ~BatchRuns() = default;
  virtual void StartEpoch(int64_t epoch) = 0;
  // Runs the next batch; the results hold until the one after it. Null at the end of the epoch.
  virtual absl::StatusOr<const std::vector<Tensor>*> RunNext() = 0;
  // Of the batch that ran.
  virtual int64_t batch_size() const = 0;
  // Spent in runs.
  double seconds() const { return seconds_; }

 protected:
  absl::Status Run(PreparedRun& run) {
    const Clock::time_point start = Clock::now();
    const absl::Status status = run.Run();
    seconds_ += Seconds(Clock::now() - start);
    return status;
  }

 private:
  double seconds_ = 0;
};

// What batches are made of, and what is run on them.
struct BatchRequest {
  Session& session;
  Value image, label;
  std::vector<Fetch> fetches;
  const data::Dataset& dataset;
  data::BatchOptions options;
};

// Batches that a loader makes and the session is fed, in runs prepared for the sizes that occur: the full one and that
// of the last batch.
class FedBatchRuns : public BatchRuns {
 public:
  explicit FedBatchRuns(const BatchRequest& request) : request_(request), loader_(request.dataset, request.options) {}

  void StartEpoch(int64_t epoch) override { loader_.StartEpoch(epoch); }
  int64_t batch_size() const override { return batch_size_; }

  absl::StatusOr<const std::vector<Tensor>*> RunNext() override {
    const data::Batch* batch = loader_.Next();
    if (batch == nullptr) return nullptr;
    batch_size_ = batch->size();
    std::unique_ptr<PreparedRun>& run = runs_[batch_size_];
    if (run == nullptr) {
      GW_ASSIGN_OR_RETURN(run,
                          request_.session.Prepare({{request_.image, batch->images}, {request_.label, batch->labels}},
                                                   request_.fetches));
    } else {
      GW_RETURN_IF_ERROR(run->SetFeed(0, batch->images));
      GW_RETURN_IF_ERROR(run->SetFeed(1, batch->labels));
    }
    GW_RETURN_IF_ERROR(Run(*run));
    return &run->results();
  }

 private:
  const BatchRequest request_;
  data::BatchLoader loader_;
  int64_t batch_size_ = 0;
  std::map<int64_t, std::unique_ptr<PreparedRun>> runs_;  // By batch size.
};

// Batches that are gathered on the device from the data set, which is kept there.
class GatheredBatchRuns : public BatchRuns {
 public:
  // ResourceExhausted where the device has no room for the data set.
  static absl::StatusOr<std::unique_ptr<BatchRuns>> Make(const BatchRequest& request) {
    auto runs = std::make_unique<GatheredBatchRuns>(request);
    GW_RETURN_IF_ERROR(runs->Find(std::min(request.options.batch_size, request.dataset.size())).status());
    return runs;
  }
  explicit GatheredBatchRuns(const BatchRequest& request) : request_(request), order_(request.dataset.size()) {}

  void StartEpoch(int64_t epoch) override {
    data::FillEpochOrder(order_, request_.options, epoch);
    next_ = 0;
  }
  int64_t batch_size() const override { return batch_size_; }

  absl::StatusOr<const std::vector<Tensor>*> RunNext() override {
    const absl::Span<const int64_t> rows = absl::MakeConstSpan(order_).subspan(next_, request_.options.batch_size);
    if (rows.empty()) return nullptr;
    batch_size_ = static_cast<int64_t>(rows.size());
    next_ += batch_size_;
    GW_ASSIGN_OR_RETURN(PreparedRun * run, Find(batch_size_));
    GW_RETURN_IF_ERROR(run->SetRows(rows));
    GW_RETURN_IF_ERROR(Run(*run));
    return &run->results();
  }

 private:
  absl::StatusOr<PreparedRun*> Find(int64_t size) {
    std::unique_ptr<PreparedRun>& run = runs_[size];
    if (run == nullptr) {
      const data::Dataset& dataset = request_.dataset;
      GW_ASSIGN_OR_RETURN(
          run, request_.session.PrepareRows({{request_.image, dataset.images}, {request_.label, dataset.labels}}, size,
                                            request_.fetches));
    }
    return run.get();
  }

  const BatchRequest request_;
  std::vector<int64_t> order_;
  int64_t next_ = 0, batch_size_ = 0;
  std::map<int64_t, std::unique_ptr<PreparedRun>> runs_;  // By batch size.
};

// A CUDA device keeps the data set where it has room for it: feeds would take longer than the step.
absl::StatusOr<std::unique_ptr<BatchRuns>> MakeBatchRuns(const BatchRequest& request) {
  if (request.session.device().kind == Device::kCuda) {
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
  double correct = 0;
  runs.StartEpoch(0);
  while (true) {
    GW_ASSIGN_OR_RETURN(const std::vector<Tensor>* results, runs.RunNext());
    if (results == nullptr) return correct / static_cast<double>(examples);
    correct += (*results)[0].ToDouble();
  }
}

}  // namespace

absl::StatusOr<TrainingState> Fit(Session& session, const TrainingGraph& graph, const data::Dataset& train,
                                  const data::Dataset& test, const FitOptions& options) {
  GW_RETURN_IF_ERROR(CheckAtLeastOne("epochs", options.epochs));
  GW_RETURN_IF_ERROR(CheckAtLeastOne("batch_size", options.batch_size));
  GW_RETURN_IF_ERROR(CheckAtLeastOne("test_batch_size", options.test_batch_size));
  GW_RETURN_IF_ERROR(CheckAtLeastOne("the number of training samples", train.size()));
  GW_RETURN_IF_ERROR(CheckAtLeastOne("the number of test samples", test.size()));
  const Value test_correct = graph.test_correct.valid() ? graph.test_correct : graph.correct;
  GW_ASSIGN_OR_RETURN(const std::unique_ptr<BatchRuns> steps,
                      MakeBatchRuns({session,
                                     graph.image,
                                     graph.label,
                                     {graph.loss, graph.correct, graph.step},
                                     train,
                                     {.batch_size = options.batch_size, .seed = options.seed}}));
  GW_ASSIGN_OR_RETURN(const std::unique_ptr<BatchRuns> tests,
                      MakeBatchRuns({session,
                                     graph.image,
                                     graph.label,
                                     {test_correct},
                                     test,
                                     {.batch_size = options.test_batch_size, .shuffle = false}}));

  TrainingState state{.epochs = options.epochs,
                      .batches = (train.size() + options.batch_size - 1) / options.batch_size};
  for (state.epoch = 0; state.epoch < options.epochs && !state.stop; ++state.epoch) {
    double loss_sum = 0, correct_sum = 0;
    int64_t examples = 0;
    steps->StartEpoch(state.epoch);
    state.batch = 0;
    while (true) {
      GW_ASSIGN_OR_RETURN(const std::vector<Tensor>* results, steps->RunNext());
      if (results == nullptr) break;
      state.step_seconds = steps->seconds();
      const int64_t batch_size = steps->batch_size();
      loss_sum += (*results)[0].ToDouble() * static_cast<double>(batch_size);
      correct_sum += (*results)[1].ToDouble();
      examples += batch_size;
      state.examples += batch_size;
      ++state.batch;
      state.train_loss = loss_sum / static_cast<double>(examples);
      state.train_accuracy = correct_sum / static_cast<double>(examples);
      GW_RETURN_IF_ERROR(Call(options.callbacks, &Callback::after_batch, state));
    }
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
      MakeBatchRuns({session, image, label, {correct}, dataset, {.batch_size = batch_size, .shuffle = false}}));
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
  return {.after_batch =
              [&curves, times_per_epoch](TrainingState& state) {
                const int64_t every = std::max<int64_t>(1, state.batches / times_per_epoch);
                if (state.batch % every == 0 || state.batch == state.batches) {
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
