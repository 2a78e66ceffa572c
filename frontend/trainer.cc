#include "gradweave/frontend/trainer.h"

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

// Runs prepared for the batch sizes that occur: the full one and that of the last batch.
class PreparedBatches {
 public:
  PreparedBatches(Session& session, Value image, Value label, std::vector<Fetch> fetches)
      : session_(session), image_(image), label_(label), fetches_(std::move(fetches)) {}

  // Runs the batch; the results hold until the next.
  absl::StatusOr<const std::vector<Tensor>*> Run(const data::Batch& batch) {
    std::unique_ptr<PreparedRun>& run = runs_[batch.size()];
    if (run == nullptr) {
      GW_ASSIGN_OR_RETURN(run, session_.Prepare({{image_, batch.images}, {label_, batch.labels}}, fetches_));
    } else {
      GW_RETURN_IF_ERROR(run->SetFeed(0, batch.images));
      GW_RETURN_IF_ERROR(run->SetFeed(1, batch.labels));
    }
    GW_RETURN_IF_ERROR(run->Run());
    return &run->results();
  }

 private:
  Session& session_;
  Value image_, label_;
  std::vector<Fetch> fetches_;
  std::map<int64_t, std::unique_ptr<PreparedRun>> runs_;  // By batch size.
};

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

absl::StatusOr<double> EvaluateBatches(PreparedBatches& runs, data::BatchLoader& loader, int64_t examples) {
  double correct = 0;
  loader.StartEpoch(0);
  while (const data::Batch* batch = loader.Next()) {
    GW_ASSIGN_OR_RETURN(const std::vector<Tensor>* results, runs.Run(*batch));
    correct += (*results)[0].ToDouble();
  }
  return correct / static_cast<double>(examples);
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
  PreparedBatches steps(session, graph.image, graph.label, {graph.loss, graph.correct, graph.step});
  PreparedBatches tests(session, graph.image, graph.label, {test_correct});
  data::BatchLoader train_batches(train, {.batch_size = options.batch_size, .seed = options.seed});
  data::BatchLoader test_batches(test, {.batch_size = options.test_batch_size, .shuffle = false});

  TrainingState state{.epochs = options.epochs, .batches = train_batches.batches_per_epoch()};
  for (state.epoch = 0; state.epoch < options.epochs && !state.stop; ++state.epoch) {
    double loss_sum = 0, correct_sum = 0;
    int64_t examples = 0;
    train_batches.StartEpoch(state.epoch);
    for (state.batch = 0; const data::Batch* batch = train_batches.Next();) {
      const Clock::time_point start = Clock::now();
      GW_ASSIGN_OR_RETURN(const std::vector<Tensor>* results, steps.Run(*batch));
      state.step_seconds += Seconds(Clock::now() - start);
      loss_sum += (*results)[0].ToDouble() * static_cast<double>(batch->size());
      correct_sum += (*results)[1].ToDouble();
      examples += batch->size();
      state.examples += batch->size();
      ++state.batch;
      state.train_loss = loss_sum / static_cast<double>(examples);
      state.train_accuracy = correct_sum / static_cast<double>(examples);
      GW_RETURN_IF_ERROR(Call(options.callbacks, &Callback::after_batch, state));
    }
    GW_ASSIGN_OR_RETURN(state.test_accuracy, EvaluateBatches(tests, test_batches, test.size()));
    GW_RETURN_IF_ERROR(Call(options.callbacks, &Callback::after_epoch, state));
  }
  return state;
}

absl::StatusOr<double> Evaluate(Session& session, const Value& image, const Value& label, const Value& correct,
                                const data::Dataset& dataset, int64_t batch_size) {
  GW_RETURN_IF_ERROR(CheckAtLeastOne("batch_size", batch_size));
  GW_RETURN_IF_ERROR(CheckAtLeastOne("the number of samples", dataset.size()));
  PreparedBatches runs(session, image, label, {correct});
  data::BatchLoader batches(dataset, {.batch_size = batch_size, .shuffle = false});
  return EvaluateBatches(runs, batches, dataset.size());
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
