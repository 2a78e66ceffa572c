#include "gradweave/frontend/trainer.h"

#include <algorithm>
#include <chrono>
#include <cmath>
#include <limits>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <utility>

#include "absl/functional/function_ref.h"
#include "absl/strings/str_cat.h"
#include "gradweave/frontend/batch_runs.h"
#include "gradweave/frontend/batches.h"
#include "gradweave/frontend/check_numerics.h"
#include "gradweave/frontend/named_tensors.h"
#include "gradweave/frontend/seconds.h"
#include "gradweave/frontend/shard_sessions.h"
#include "gradweave/frontend/user_functions.h"
#include "gradweave/graph/check.h"
#include "gradweave/graph/out_of_memory.h"
#include "gradweave/graph/print.h"
#include "gradweave/graph/version.h"
#include "gradweave/runtime/distributed/group.h"

namespace gradweave {
namespace {

using Clock = std::chrono::steady_clock;

absl::Status CheckRange(const char* caller, const char* name, int64_t number, int64_t low) {
  if (number >= low) return absl::OkStatus();
  return absl::InvalidArgumentError(absl::StrCat(caller, ": ", name, " is ", number, " and has to be at least ", low));
}

absl::Status CheckOptions(const Session& session, const FitOptions& options, const Training& training) {
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
  if (options.check_numerics && session.options().group != nullptr) {
    return absl::InvalidArgumentError("Fit: check_numerics is for sessions without a group");
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

// The name of a callback's function in errors: "Fit: after_epoch of callback 'StopEarly'".
std::string NameOf(const Callback& callback, const char* function) {
  return absl::StrCat("Fit: ", function, " of ",
                      callback.name.empty() ? "a callback" : absl::StrCat("callback '", callback.name, "'"));
}

absl::Status Call(const std::vector<Callback>& callbacks, const char* name,
                  std::function<absl::Status(TrainingState&)> Callback::*when, TrainingState& state) {
  for (const Callback& callback : callbacks) {
    if (callback.*when == nullptr) continue;
    GW_RETURN_IF_ERROR(CallUserFunction(NameOf(callback, name), [&] { return (callback.*when)(state); }));
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

// Waits for the runs and computes the metrics. Returns the sums.
absl::StatusOr<std::vector<Tensor>> Read(BatchRuns& runs, const std::vector<Metric>& metrics, MetricValues& values) {
  GW_ASSIGN_OR_RETURN(std::vector<Tensor> sums, runs.Sums());
  absl::Span<const Tensor> rest = sums;
  for (const Metric& metric : metrics) {
    GW_ASSIGN_OR_RETURN(Tensor value, CallUserFunction(absl::StrCat("Fit: the function of metric '", metric.name, "'"),
                                                       [&]() -> absl::StatusOr<Tensor> {
                                                         return metric.result(rest.subspan(0, metric.sums.size()),
                                                                              static_cast<double>(runs.samples()));
                                                       }));
    values.Set(metric.name, std::move(value));
    rest.remove_prefix(metric.sums.size());
  }
  return sums;
}

// Stops between batches, without metrics, if the checkpoints are asked to stop.
absl::StatusOr<MetricValues> EvaluateBatches(BatchRuns& runs, const std::vector<Metric>& metrics,
                                             const TrainingCheckpoints* checkpoints = nullptr) {
  GW_RETURN_IF_ERROR(runs.StartEpoch(0, 0, /*keep_sums=*/false));
  for (int64_t size = 1; size > 0;) {
    if (checkpoints != nullptr && checkpoints->stops()) return MetricValues();
    GW_ASSIGN_OR_RETURN(size, runs.RunNext());
  }
  MetricValues values;
  GW_RETURN_IF_ERROR(Read(runs, metrics, values).status());
  return values;
}

NamedTensors StateOf(const MetricValues& metrics) { return {metrics.all().begin(), metrics.all().end()}; }

MetricValues MetricsOf(const NamedTensors& state) {
  MetricValues metrics;
  for (const auto& [name, value] : state) metrics.Set(name, value);
  return metrics;
}

// One training: the state of Fit.
struct Trainer {
  Session& session;
  const Training& training;
  const data::Dataset& data;
  const FitOptions& options;
  std::vector<Metric> metrics = {}, validation_metrics = {};
  std::unique_ptr<BatchRuns> steps = {}, validation = {};  // The second is null without validation.
  int64_t read_every = 1;
  TrainingState state = {};
  int64_t read_at = 0;  // Number of batches when the metrics were read.
  // The position of a training that continues from now, and true if its sums continue.
  int64_t next_epoch = 0, next_batch = 0;
  bool keep_sums = false;
  std::unique_ptr<TrainingCheckpoints> checkpoints = {};  // Null without checkpoints.
  std::optional<NumericsCheck> numerics = {};
  BestSoFar best = {};
  bool has_best = false;  // The checkpoints have a goal.

  // The options and sizes that the order of the samples, the steps and the sums depend on.
  std::vector<std::pair<const char*, int64_t>> Settings() const {
    std::vector<std::pair<const char*, int64_t>> settings = {
        {"the number of samples", data.size()},
        {"batch_size", options.batch_size},
        {"seed", static_cast<int64_t>(options.seed)},
        {"shuffle", options.shuffle},
        {"accumulate", options.accumulate},
        {"length_multiple", options.length_multiple},
        {"metrics_over_all_epochs", options.metrics_over_all_epochs}};
    if (const distributed::Communicator* const communicator = CommunicatorOf(session); communicator != nullptr) {
      settings.emplace_back("the number of shards", communicator->shards());
    }
    return settings;
  }

  // The text that has to be the same in all shards of a group: version, options and graph, a line
  // each.
  std::string CommonLines() const {
    std::string lines =
        absl::StrCat("version ", kVersion, "\nthe session's seed ", session.seed(), "\nepochs ", options.epochs,
                     "\nvalidation_batch_size ", options.validation_batch_size, "\nread_every ", read_every,
                     "\nthe number of samples of the validation ", options.validation.size());
    if (const std::shared_ptr<distributed::Group>& group = session.options().group; group != nullptr) {
      absl::StrAppend(&lines, "\nshard_optimizer ", group->shard_optimizer());
    }
    for (const auto& [name, number] : Settings()) absl::StrAppend(&lines, "\n", name, " ", number);
    return absl::StrCat(lines, "\n", GraphToText(session.graph()));
  }

  // Gives all shards the position and the state from which the training continues, which only the
  // main shard may know.
  absl::Status ShareStart() {
    GW_RETURN_IF_ERROR(CheckSameLines("Fit", session, CommonLines()));
    int64_t numbers[] = {next_epoch, next_batch, state.batches_done, read_at, keep_sums, state.stop};
    GW_RETURN_IF_ERROR(ShareNumbers(session, absl::MakeSpan(numbers)));
    next_epoch = numbers[0];
    next_batch = numbers[1];
    state.batches_done = numbers[2];
    read_at = numbers[3];
    keep_sums = numbers[4] != 0;
    state.stop = numbers[5] != 0;
    return ShareState(session);
  }

  // Calls the callbacks, which only the main shard has. Its decisions apply to all shards.
  absl::Status CallAll(const char* name, std::function<absl::Status(TrainingState&)> Callback::*when) {
    GW_RETURN_IF_ERROR(Call(options.callbacks, name, when, state));
    int64_t stops[] = {state.stop, state.stop_now};
    GW_RETURN_IF_ERROR(ShareNumbers(session, absl::MakeSpan(stops)));
    state.stop = stops[0] != 0;
    state.stop_now = stops[1] != 0;
    return absl::OkStatus();
  }

  // Calls the function with each callback that has a state, and the prefix of its tensors.
  absl::Status ForEachState(absl::FunctionRef<absl::Status(const Callback&, const std::string&)> function) const {
    std::map<std::string, int> numbers;
    for (const Callback& callback : options.callbacks) {
      if (callback.save_state == nullptr || callback.restore_state == nullptr) continue;
      GW_RETURN_IF_ERROR(
          function(callback, absl::StrCat("callback ", callback.name, " ", numbers[callback.name]++, "/")));
    }
    return absl::OkStatus();
  }

  absl::StatusOr<NamedTensors> SaveState() {
    GW_RETURN_IF_ERROR(ReadMetrics());
    NamedTensors saved = {{"epoch", Tensor::Scalar(next_epoch)},
                          {"batch", Tensor::Scalar(next_batch)},
                          {"examples", Tensor::Scalar(state.examples)},
                          {"batches_done", Tensor::Scalar(state.batches_done)},
                          {"stop", Tensor::Scalar(int64_t{state.stop})},
                          {"epoch_seconds", Tensor::Scalar(state.epoch_seconds)},
                          {"learning_rate", Tensor::Scalar(state.learning_rate)}};
    for (const auto& [name, number] : Settings()) saved.emplace_back(name, Tensor::Scalar(number));
    if (best.value.has_value()) saved.emplace_back("best", Tensor::Scalar(*best.value));
    Append("train/", StateOf(state.train), saved);
    Append("validation/", StateOf(state.validation), saved);
    GW_ASSIGN_OR_RETURN(NamedTensors sums, steps->SaveState());
    Append("sums/", std::move(sums), saved);
    if (validation != nullptr) {
      GW_ASSIGN_OR_RETURN(NamedTensors of_validation, validation->SaveState());
      Append("validation sums/", std::move(of_validation), saved);
    }
    GW_RETURN_IF_ERROR(ForEachState([&](const Callback& callback, const std::string& prefix) -> absl::Status {
      GW_ASSIGN_OR_RETURN(NamedTensors of_callback,
                          CallUserFunction(NameOf(callback, "save_state"),
                                           [&]() -> absl::StatusOr<NamedTensors> { return callback.save_state(); }));
      Append(prefix, std::move(of_callback), saved);
      return absl::OkStatus();
    }));
    return saved;
  }

  absl::Status RestoreState(const NamedTensors& saved) {
    for (const auto& [name, number] : Settings()) {
      GW_ASSIGN_OR_RETURN(const int64_t then, Integer(saved, name, std::numeric_limits<int64_t>::min()));
      if (then == number) continue;
      return absl::InvalidArgumentError(absl::StrCat(name, " was ", then, " and is ", number, " now"));
    }
    GW_ASSIGN_OR_RETURN(next_epoch, Integer(saved, "epoch"));
    if (next_epoch > options.epochs) {
      return absl::InvalidArgumentError(
          absl::StrCat(next_epoch, " epochs are done already, and epochs is ", options.epochs));
    }
    GW_ASSIGN_OR_RETURN(next_batch, Integer(saved, "batch", 0, state.batches));
    GW_ASSIGN_OR_RETURN(state.examples, Integer(saved, "examples"));
    GW_ASSIGN_OR_RETURN(state.batches_done, Integer(saved, "batches_done"));
    GW_ASSIGN_OR_RETURN(const int64_t stop, Integer(saved, "stop", 0, 1));
    GW_ASSIGN_OR_RETURN(state.epoch_seconds, Number(saved, "epoch_seconds"));
    GW_ASSIGN_OR_RETURN(state.learning_rate, Number(saved, "learning_rate"));
    if (Find(saved, "best") != nullptr) {
      GW_ASSIGN_OR_RETURN(best.value, Number(saved, "best"));
    }
    state.stop = stop != 0;
    state.train = MetricsOf(WithPrefix(saved, "train/"));
    state.validation = MetricsOf(WithPrefix(saved, "validation/"));
    GW_RETURN_IF_ERROR(steps->RestoreState(WithPrefix(saved, "sums/")));
    const NamedTensors of_validation = WithPrefix(saved, "validation sums/");
    if (validation != nullptr && !of_validation.empty()) GW_RETURN_IF_ERROR(validation->RestoreState(of_validation));
    state.step_seconds = steps->seconds();
    state.batch = next_batch > 0 || next_epoch == 0 ? next_batch : state.batches;
    read_at = state.batches_done;
    keep_sums = next_batch > 0 || options.metrics_over_all_epochs;
    return ForEachState([&](const Callback& callback, const std::string& prefix) -> absl::Status {
      const NamedTensors of_callback = WithPrefix(saved, prefix);
      if (of_callback.empty()) return absl::OkStatus();
      return CallUserFunction(NameOf(callback, "restore_state"), [&] { return callback.restore_state(of_callback); });
    });
  }

  // Opens the checkpoints, and restores the training if there is one to continue.
  absl::Status OpenCheckpoints() {
    if (options.checkpoints.dir.empty()) {
      return options.checkpoints.resume
                 ? absl::InvalidArgumentError("Fit: checkpoints.resume needs the folder checkpoints.dir")
                 : absl::OkStatus();
    }
    if (options.checkpoints.best.has_value()) {
      best.goal = *options.checkpoints.best;
    } else {
      best.goal.of_training = validation == nullptr;
    }
    has_best = options.checkpoints.best.has_value() || best.goal.of_training ||
               std::any_of(validation_metrics.begin(), validation_metrics.end(),
                           [&](const Metric& metric) { return metric.name == best.goal.metric; });
    GW_ASSIGN_OR_RETURN(checkpoints, TrainingCheckpoints::Open(options.checkpoints, session));
    if (checkpoints->resumed() == nullptr) return absl::OkStatus();
    const std::string& path = checkpoints->resumed_path();
    if (const absl::Status status = RestoreState(*checkpoints->resumed()); !status.ok()) {
      return absl::Status(status.code(),
                          absl::StrCat("Fit: the training cannot continue from ", path, ": ", status.message()));
    }
    return checkpoints->Tell(absl::StrCat("the training continues from ", path));
  }

  // True if the batch ends an accumulated step.
  bool IsStep(int64_t batch) const { return batch == state.batches || batch % options.accumulate == 0; }

  absl::Status NotFinite(std::string what) {
    absl::StrAppend(&what, " (epoch ", state.epoch + 1, ", batch ", state.batch, ")");
    if (!numerics.has_value()) return absl::OutOfRangeError(what + "; check_numerics names the node where it began");
    const absl::StatusOr<std::string> why = numerics->Explain(
        steps->LatestFeeds(), training.loss.mean(), IsStep(state.batch) ? training.step.apply : training.step.add);
    return absl::OutOfRangeError(absl::StrCat(what, ": ", why.ok() ? *why : why.status().message()));
  }

  // Reads the metrics unless they are up to date, and checks the loss.
  absl::Status ReadMetrics() {
    if (read_at == state.batches_done) return absl::OkStatus();
    const int64_t first = read_at + 1;
    read_at = state.batches_done;
    GW_ASSIGN_OR_RETURN(const std::vector<Tensor> sums, Read(*steps, metrics, state.train));
    if (!steps->latest().empty()) state.learning_rate = steps->latest()[0].ToDouble();
    state.step_seconds = steps->seconds();
    for (size_t i = 0; i < metrics[0].sums.size(); ++i) {
      if (const double sum = sums[i].ToDouble(); !std::isfinite(sum)) {
        return NotFinite(absl::StrCat("Fit: the loss is ", std::isnan(sum) ? "NaN" : "infinite", " in ",
                                      first == read_at ? "step " : absl::StrCat("one of the steps ", first, " to "),
                                      read_at));
      }
    }
    return absl::OkStatus();
  }

  absl::Status CheckNumerics() {
    GW_RETURN_IF_ERROR(ReadMetrics());
    GW_ASSIGN_OR_RETURN(const std::string spoiled, numerics->SpoiledVariable());
    if (spoiled.empty()) return absl::OkStatus();
    return NotFinite(absl::StrCat("Fit: step ", state.batches_done, " makes variable '", spoiled, "' NaN or infinite"));
  }

  absl::Status Validate() {
    if (checkpoints == nullptr) {
      GW_ASSIGN_OR_RETURN(state.validation, EvaluateBatches(*validation, validation_metrics));
      return absl::OkStatus();
    }
    const uint64_t run_number = session.run_number();
    GW_ASSIGN_OR_RETURN(const NamedTensors before, SaveState());
    GW_ASSIGN_OR_RETURN(MetricValues values, EvaluateBatches(*validation, validation_metrics, checkpoints.get()));
    if (checkpoints->stops())
      return checkpoints->Stop(
          state.batches_done, [&] { return before; }, run_number);
    state.validation = std::move(values);
    return absl::OkStatus();
  }

  // Saves if a checkpoint is due. If shards have parts of variables, all shards gather them first.
  absl::Status SaveAfterStep() {
    const std::shared_ptr<distributed::Group>& group = session.options().group;
    int64_t is_due = 0;
    if (checkpoints != nullptr) {
      GW_ASSIGN_OR_RETURN(is_due, checkpoints->IsDue(state.batches_done));
    }
    if (group != nullptr && group->shard_optimizer()) {
      GW_RETURN_IF_ERROR(ShareNumbers(session, {&is_due, 1}));
      if (is_due != 0) GW_RETURN_IF_ERROR(GatherState(session));
    }
    if (checkpoints == nullptr || is_due == 0) return absl::OkStatus();
    return checkpoints->SaveNow([this] { return SaveState(); });
  }

  // Trains the epoch, from its next batch on.
  absl::Status TrainEpoch() {
    // An epoch that continues has already taken some time.
    const std::chrono::duration<double> before(next_batch > 0 ? state.epoch_seconds : 0);
    const Clock::time_point start = Clock::now() - std::chrono::duration_cast<Clock::duration>(before);
    GW_RETURN_IF_ERROR(steps->StartEpoch(state.epoch, next_batch, keep_sums));
    keep_sums = options.metrics_over_all_epochs;
    for (state.batch = next_batch + 1; state.batch <= state.batches; ++state.batch) {
      if (numerics.has_value()) GW_RETURN_IF_ERROR(numerics->BeforeStep());
      const bool is_last = state.batch == state.batches;
      GW_ASSIGN_OR_RETURN(const int64_t batch_size, steps->RunNext(IsStep(state.batch) ? 0 : 1));
      state.examples += batch_size;
      ++state.batches_done;
      next_epoch = state.epoch;
      next_batch = state.batch;
      if (numerics.has_value()) GW_RETURN_IF_ERROR(CheckNumerics());
      if (state.batch % read_every == 0 || is_last) {
        GW_RETURN_IF_ERROR(ReadMetrics());
        state.epoch_seconds = SecondsSince(start);
        GW_RETURN_IF_ERROR(CallAll("after_batch", &Callback::after_batch));
      }
      GW_RETURN_IF_ERROR(SaveAfterStep());
      if (state.stop_now) return absl::OkStatus();
    }
    state.batch = state.batches;
    GW_RETURN_IF_ERROR(GatherState(session));  // For callbacks and checkpoints.
    if (validation != nullptr) GW_RETURN_IF_ERROR(Validate());
    GW_RETURN_IF_ERROR(CallAll("after_epoch", &Callback::after_epoch));
    GW_RETURN_IF_ERROR(ShareState(session));  // A callback may have changed variables, such as the learning rate.
    next_epoch = state.epoch + 1;
    next_batch = 0;
    if (checkpoints == nullptr) return absl::OkStatus();
    bool is_best = false;
    if (has_best) {
      GW_ASSIGN_OR_RETURN(is_best, best.Improve(state.train, state.validation));
    }
    return checkpoints->AfterEpoch(state.batches_done, next_epoch, is_best, [this] { return SaveState(); });
  }

  absl::Status Train() {
    // An epoch that continues is trained to its end even if it is the last one.
    for (state.epoch = next_epoch; state.epoch < options.epochs && (!state.stop || next_batch > 0); ++state.epoch) {
      GW_RETURN_IF_ERROR(TrainEpoch());
      if (state.stop_now) break;
    }
    GW_RETURN_IF_ERROR(GatherState(session));
    if (checkpoints != nullptr) {
      GW_RETURN_IF_ERROR(checkpoints->AtEnd(state.batches_done, [this] { return SaveState(); }));
    }
    GW_RETURN_IF_ERROR(CallAll("after_training", &Callback::after_training));
    return ShareState(session);
  }
};

// Fit for one shard, or without a group.
absl::StatusOr<TrainingState> FitShard(Session& session, const Training& training, const data::Dataset& data,
                                       const FitOptions& options) try {
  GW_RETURN_IF_ERROR(CheckOptions(session, options, training));
  GW_RETURN_IF_ERROR(CheckWeights(session, training.loss, data));
  Trainer trainer{.session = session, .training = training, .data = data, .options = options};
  trainer.metrics = WithLoss(training.loss, training.metrics);
  GW_RETURN_IF_ERROR(CheckMetrics("Fit", trainer.metrics));
  BatchRequest request{.caller = "Fit",
                       .session = session,
                       .dataset = data,
                       .options = {.batch_size = options.batch_size,
                                   .shuffle = options.shuffle,
                                   .seed = options.seed,
                                   .length_multiple = options.length_multiple},
                       .sums = SumsOf(trainer.metrics),
                       .updates = {training.step.apply},
                       .always_feed = options.check_numerics};
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
  trainer.next_epoch = options.first_epoch;
  trainer.next_batch = options.first_batch;
  if (options.check_numerics) trainer.numerics.emplace(session);
  GW_RETURN_IF_ERROR(trainer.OpenCheckpoints());
  GW_RETURN_IF_ERROR(trainer.ShareStart());
  GW_RETURN_IF_ERROR(trainer.Train());
  return state;
}
GW_CATCH_OUT_OF_MEMORY("Fit")

// Evaluate for one shard, or without a group.
absl::StatusOr<MetricValues> EvaluateShard(Session& session, const std::vector<Metric>& metrics,
                                           const data::Dataset& data, int64_t batch_size) try {
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

}  // namespace

absl::StatusOr<TrainingState> Fit(Session& session, const Training& training, const data::Dataset& data,
                                  const FitOptions& options) try {
  TrainingState end;
  GW_RETURN_IF_ERROR(RunOnShards("Fit", session, [&](Session& of_shard) -> absl::Status {
    FitOptions without_output;
    if (!IsMainShard(of_shard)) {
      without_output = options;
      without_output.callbacks.clear();
      without_output.checkpoints = {};
    }
    GW_ASSIGN_OR_RETURN(TrainingState state,
                        FitShard(of_shard, training, data, IsMainShard(of_shard) ? options : without_output));
    if (&of_shard == &session) end = std::move(state);
    return absl::OkStatus();
  }));
  return end;
}
GW_CATCH_OUT_OF_MEMORY("Fit")

absl::StatusOr<MetricValues> Evaluate(Session& session, const std::vector<Metric>& metrics, const data::Dataset& data,
                                      int64_t batch_size) try {
  MetricValues values;
  GW_RETURN_IF_ERROR(RunOnShards("Evaluate", session, [&](Session& of_shard) -> absl::Status {
    GW_RETURN_IF_ERROR(ShareState(of_shard));
    GW_ASSIGN_OR_RETURN(MetricValues of_all, EvaluateShard(of_shard, metrics, data, batch_size));
    if (&of_shard == &session) values = std::move(of_all);
    return absl::OkStatus();
  }));
  return values;
}
GW_CATCH_OUT_OF_MEMORY("Evaluate")

}  // namespace gradweave
