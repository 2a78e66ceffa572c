#include "gradweave/frontend/trainer.h"

#include <algorithm>
#include <chrono>
#include <cmath>
#include <memory>
#include <string>
#include <utility>

#include "absl/strings/str_cat.h"
#include "gradweave/frontend/batch_runs.h"
#include "gradweave/frontend/batches.h"
#include "gradweave/graph/check.h"
#include "gradweave/graph/out_of_memory.h"

namespace gradweave {
namespace {

using Clock = std::chrono::steady_clock;

double Seconds(Clock::duration duration) { return std::chrono::duration<double>(duration).count(); }

absl::Status CheckRange(const char* caller, const char* name, int64_t number, int64_t low) {
  if (number >= low) return absl::OkStatus();
  return absl::InvalidArgumentError(absl::StrCat(caller, ": ", name, " is ", number, " and has to be at least ", low));
}

absl::Status CheckOptions(const FitOptions& options, const Training& training) {
  GW_RETURN_IF_ERROR(CheckRange("Fit", "epochs", options.epochs, 1));
  GW_RETURN_IF_ERROR(CheckRange("Fit", "batch_size", options.batch_size, 1));
  GW_RETURN_IF_ERROR(CheckRange("Fit", "validation_batch_size", options.validation_batch_size, 1));
  GW_RETURN_IF_ERROR(CheckRange("Fit", "accumulate", options.accumulate, 1));
  GW_RETURN_IF_ERROR(CheckRange("Fit", "first_epoch", options.first_epoch, 0));
  GW_RETURN_IF_ERROR(CheckRange("Fit", "first_batch", options.first_batch, 0));
  GW_RETURN_IF_ERROR(CheckRange("Fit", "read_every", options.read_every, 0));
  if (options.first_epoch > options.epochs) {
    return absl::InvalidArgumentError(
        absl::StrCat("Fit: first_epoch is ", options.first_epoch, " and there are only ", options.epochs, " epochs"));
  }
  if (options.accumulate > 1 && training.step.add.assignments.empty()) {
    return absl::InvalidArgumentError(
        absl::StrCat("Fit: accumulate is ", options.accumulate, " and the step is one for a single batch; use ",
                     "optim::Accumulate(optimizer, loss) in place of optimizer.Minimize(loss)"));
  }
  return absl::OkStatus();
}

// Checks weights of samples that are fed: a weight that is NaN would make all variables NaN.
absl::Status CheckWeights(const Session& session, const Loss& loss, const data::Dataset& data) {
  const Value& weights = loss.weighted().weights;
  const Graph& graph = session.graph();
  if (!weights.valid() || weights.port().node >= graph.num_nodes()) return absl::OkStatus();
  const Node& node = graph.node(weights.port().node);
  const int index = data.IndexOf(node.name);
  if (node.serial != weights.serial() || node.op->kind != OpKind::kInput || index < 0) return absl::OkStatus();
  const std::vector<double> numbers = data.arrays()[index].values.ToDoubles();
  for (size_t i = 0; i < numbers.size(); ++i) {
    if (std::isfinite(numbers[i]) && numbers[i] >= 0) continue;
    return absl::InvalidArgumentError(absl::StrCat("Fit: element ", i, " of the weights '", node.name, "' is ",
                                                   numbers[i], "; weights have to be finite and at least 0"));
  }
  return absl::OkStatus();
}

// Each metric has a name of its own and a function.
absl::Status CheckMetrics(const char* caller, const std::vector<Metric>& metrics) {
  for (size_t i = 0; i < metrics.size(); ++i) {
    for (size_t k = 0; k < i; ++k) {
      if (metrics[k].name != metrics[i].name) continue;
      return absl::InvalidArgumentError(
          absl::StrCat(caller, ": two metrics have the name '", metrics[i].name, "'; 'loss' is that of the loss"));
    }
    // A metric of a failed builder call has no function; running its values tells the reason.
    if (metrics[i].result != nullptr) continue;
    if (std::any_of(metrics[i].sums.begin(), metrics[i].sums.end(),
                    [](const Metric::Sum& sum) { return !sum.value.valid(); })) {
      continue;
    }
    return absl::InvalidArgumentError(absl::StrCat(caller, ": metric '", metrics[i].name, "' has no function"));
  }
  return absl::OkStatus();
}

absl::Status Call(const std::vector<Callback>& callbacks, std::function<absl::Status(TrainingState&)> Callback::*when,
                  TrainingState& state) {
  for (const Callback& callback : callbacks) {
    if (callback.*when != nullptr) GW_RETURN_IF_ERROR((callback.*when)(state));
  }
  return absl::OkStatus();
}

// The metrics with the loss as the first.
std::vector<Metric> WithLoss(const Loss& loss, const std::vector<Metric>& metrics) {
  std::vector<Metric> all;
  if (loss.weighted().sum.valid()) {
    all.push_back({.name = "loss",
                   .sums = {{loss.weighted().sum}, {loss.weighted().weight}},
                   .result = [](absl::Span<const Tensor> sums, double) {
                     const double weight = sums[1].ToDouble();
                     return Tensor::Scalar(weight == 0 ? 0 : sums[0].ToDouble() / weight);
                   }});
  } else {
    all.push_back({.name = "loss",
                   .sums = {{loss.mean(), /*is_mean=*/true}},
                   .result = [](absl::Span<const Tensor> sums, double samples) {
                     return Tensor::Scalar(sums[0].ToDouble() / samples);
                   }});
  }
  all.insert(all.end(), metrics.begin(), metrics.end());
  return all;
}

std::vector<Metric::Sum> SumsOf(const std::vector<Metric>& metrics) {
  std::vector<Metric::Sum> sums;
  for (const Metric& metric : metrics) sums.insert(sums.end(), metric.sums.begin(), metric.sums.end());
  return sums;
}

// Waits for the runs and computes the metrics.
absl::Status Read(BatchRuns& runs, const std::vector<Metric>& metrics, MetricValues& values) {
  GW_ASSIGN_OR_RETURN(const std::vector<Tensor> sums, runs.Sums());
  absl::Span<const Tensor> rest = sums;
  for (const Metric& metric : metrics) {
    values.Set(metric.name, metric.result(rest.subspan(0, metric.sums.size()), static_cast<double>(runs.samples())));
    rest.remove_prefix(metric.sums.size());
  }
  return absl::OkStatus();
}

absl::StatusOr<MetricValues> EvaluateBatches(BatchRuns& runs, const std::vector<Metric>& metrics) {
  GW_RETURN_IF_ERROR(runs.StartEpoch(0, 0, /*keep_sums=*/false));
  for (int64_t size = 1; size > 0;) {
    GW_ASSIGN_OR_RETURN(size, runs.RunNext());
  }
  MetricValues values;
  GW_RETURN_IF_ERROR(Read(runs, metrics, values));
  return values;
}

// One training: the state of Fit.
struct Trainer {
  const FitOptions& options;
  std::vector<Metric> metrics, validation_metrics;
  std::unique_ptr<BatchRuns> steps, validation;  // The second is null without validation.
  int64_t read_every;
  TrainingState state;

  // Trains one epoch, from this batch on.
  absl::Status TrainEpoch(int64_t first_batch) {
    const Clock::time_point start = Clock::now();
    const bool is_first = state.epoch == options.first_epoch;
    GW_RETURN_IF_ERROR(steps->StartEpoch(state.epoch, first_batch, options.metrics_over_all_epochs && !is_first));
    for (state.batch = first_batch + 1; state.batch <= state.batches; ++state.batch) {
      const bool is_last = state.batch == state.batches;
      const bool is_step = is_last || state.batch % options.accumulate == 0;
      GW_ASSIGN_OR_RETURN(const int64_t batch_size, steps->RunNext(is_step ? 0 : 1));
      state.examples += batch_size;
      ++state.batches_done;
      if (state.batch % read_every != 0 && !is_last) continue;
      GW_RETURN_IF_ERROR(Read(*steps, metrics, state.train));
      if (!steps->latest().empty()) state.learning_rate = steps->latest()[0].ToDouble();
      state.step_seconds = steps->seconds();
      state.epoch_seconds = Seconds(Clock::now() - start);
      GW_RETURN_IF_ERROR(Call(options.callbacks, &Callback::after_batch, state));
      if (state.stop_now) return absl::OkStatus();
    }
    state.batch = state.batches;
    if (validation != nullptr) {
      GW_ASSIGN_OR_RETURN(state.validation, EvaluateBatches(*validation, validation_metrics));
    }
    return Call(options.callbacks, &Callback::after_epoch, state);
  }
};

}  // namespace

absl::StatusOr<TrainingState> Fit(Session& session, const Training& training, const data::Dataset& data,
                                  const FitOptions& options) try {
  GW_RETURN_IF_ERROR(CheckOptions(options, training));
  GW_RETURN_IF_ERROR(CheckWeights(session, training.loss, data));
  Trainer trainer{.options = options, .metrics = WithLoss(training.loss, training.metrics)};
  GW_RETURN_IF_ERROR(CheckMetrics("Fit", trainer.metrics));
  BatchRequest request{.caller = "Fit",
                       .session = session,
                       .dataset = data,
                       .options = {.batch_size = options.batch_size,
                                   .shuffle = options.shuffle,
                                   .seed = options.seed,
                                   .length_multiple = options.length_multiple},
                       .sums = SumsOf(trainer.metrics),
                       .updates = {training.step.apply}};
  if (options.accumulate > 1) request.updates.push_back(training.step.add);
  if (training.learning_rate.valid()) request.latest.push_back(training.learning_rate);
  GW_ASSIGN_OR_RETURN(trainer.steps, BatchRuns::Make(request));
  if (!options.validation.status().ok()) return options.validation.status();
  if (!options.validation.arrays().empty()) {
    const bool as_in_training = !training.validation_loss.mean().valid() && training.validation_metrics.empty();
    if (as_in_training) {
      trainer.validation_metrics = trainer.metrics;
    } else if (training.validation_loss.mean().valid()) {
      trainer.validation_metrics = WithLoss(training.validation_loss, training.validation_metrics);
    } else {
      trainer.validation_metrics = training.validation_metrics;
    }
    GW_ASSIGN_OR_RETURN(trainer.validation, BatchRuns::Make({.caller = "Fit, validation",
                                                             .session = session,
                                                             .dataset = options.validation,
                                                             .options = {.batch_size = options.validation_batch_size,
                                                                         .shuffle = false,
                                                                         .length_multiple = options.length_multiple},
                                                             .sums = SumsOf(trainer.validation_metrics)}));
  }

  TrainingState& state = trainer.state;
  state.epochs = options.epochs;
  state.batches = data::NumBatches(data.size(), options.batch_size);
  if (options.first_batch > state.batches) {
    return absl::InvalidArgumentError(absl::StrCat("Fit: first_batch is ", options.first_batch,
                                                   " and an epoch has only ", state.batches, " batches"));
  }
  // If runs do not wait for the host, occasional reads cost almost nothing.
  constexpr int64_t kReadsOfEpoch = 20;
  trainer.read_every = options.read_every > 0       ? options.read_every
                       : !session.device().is_cpu() ? std::max<int64_t>(1, state.batches / kReadsOfEpoch)
                                                    : 1;
  for (state.epoch = options.first_epoch; state.epoch < options.epochs && !state.stop && !state.stop_now;
       ++state.epoch) {
    GW_RETURN_IF_ERROR(trainer.TrainEpoch(state.epoch == options.first_epoch ? options.first_batch : 0));
    if (state.stop_now) break;
  }
  GW_RETURN_IF_ERROR(Call(options.callbacks, &Callback::after_training, state));
  return state;
}
GW_CATCH_OUT_OF_MEMORY("Fit")

absl::StatusOr<MetricValues> Evaluate(Session& session, const std::vector<Metric>& metrics, const data::Dataset& data,
                                      int64_t batch_size) try {
  GW_RETURN_IF_ERROR(CheckRange("Evaluate", "batch_size", batch_size, 1));
  if (metrics.empty()) return absl::InvalidArgumentError("Evaluate: there are no metrics");
  GW_RETURN_IF_ERROR(CheckMetrics("Evaluate", metrics));
  GW_ASSIGN_OR_RETURN(const std::unique_ptr<BatchRuns> runs,
                      BatchRuns::Make({.caller = "Evaluate",
                                       .session = session,
                                       .dataset = data,
                                       .options = {.batch_size = batch_size, .shuffle = false},
                                       .sums = SumsOf(metrics)}));
  return EvaluateBatches(*runs, metrics);
}
GW_CATCH_OUT_OF_MEMORY("Evaluate")

}  // namespace gradweave
