// The training loop.
#ifndef GRADWEAVE_FRONTEND_TRAINER_H_
#define GRADWEAVE_FRONTEND_TRAINER_H_

#include <cstdint>
#include <functional>
#include <limits>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "gradweave/frontend/accumulate.h"
#include "gradweave/frontend/dataset.h"
#include "gradweave/frontend/metrics.h"
#include "gradweave/frontend/training_checkpoints.h"
#include "gradweave/frontend/weighted_mean.h"
#include "gradweave/graph/graph.h"
#include "gradweave/runtime/model_file/checkpoint.h"
#include "gradweave/runtime/session/session.h"

namespace gradweave {

// A scalar loss: a mean over the batch, or a mean with weights.
class Loss {
 public:
  Loss() = default;                             // None.
  Loss(Value mean) : weighted_{mean} {}         // NOLINT
  Loss(WeightedMean mean) : weighted_(mean) {}  // NOLINT
  const Value& mean() const { return weighted_.mean; }
  // The parts of a mean with weights; without weights, the values are not valid.
  const WeightedMean& weighted() const { return weighted_; }

 private:
  WeightedMean weighted_;
};

// A training step: an update after each batch (Minimize), or after several batches
// (optim::Accumulate).
struct TrainingStep {
  TrainingStep(Update update) : apply(std::move(update)) {}  // NOLINT
  TrainingStep(optim::AccumulatedUpdate update)              // NOLINT
      : apply(std::move(update.apply)), add(std::move(update.add)) {}
  Update apply;  // Runs after the last batch of a step.
  Update add;    // Runs after the earlier batches of a step.
};

// The values of a graph that training needs.
struct Training {
  Loss loss;
  TrainingStep step;
  std::vector<Metric> metrics = {};  // Computed for each training batch.
  // Validation computes these. If both are left out, these are the loss and the metrics above.
  // Models with layers that behave differently in training, such as Dropout and BatchNorm, need
  // metrics of an inference call here.
  Loss validation_loss = {};
  std::vector<Metric> validation_metrics = {};
  // The learning rate, a scalar, for callbacks: TrainingState::learning_rate.
  Value learning_rate = {};
};

// The progress of a training, as callbacks see it.
struct TrainingState {
  int64_t epoch = 0, epochs = 0;   // Current epoch, from 0, and number of epochs.
  int64_t batch = 0, batches = 0;  // Batches of the epoch: completed, and in total.
  MetricValues train;              // "loss" and the training metrics, over the epoch so far.
  MetricValues validation;         // "loss" and the validation metrics after the last completed epoch.
  double learning_rate = std::numeric_limits<double>::quiet_NaN();  // The last step's; NaN if it is not known.
  int64_t examples = 0, batches_done = 0;                           // Trained since the start.
  double step_seconds = 0;  // Time in training steps, without loading data and validation.
  // Wall-clock time of the epoch so far. It includes loading data and the earlier callbacks, but no
  // validation.
  double epoch_seconds = 0;
  double examples_per_second() const { return step_seconds > 0 ? static_cast<double>(examples) / step_seconds : 0; }
  bool stop = false;      // A callback sets it to end the training after this epoch.
  bool stop_now = false;  // A callback sets it to end the training after this batch, without validation.
};

// Functions that Fit calls during training; each may be null. An error or an exception ends the
// training.
struct Callback {
  // After batches, as FitOptions::read_every determines.
  std::function<absl::Status(TrainingState&)> after_batch;
  // After an epoch and its validation.
  std::function<absl::Status(TrainingState&)> after_epoch;
  // At the end of the training, also of one that a callback has stopped.
  std::function<absl::Status(TrainingState&)> after_training;
  // A callback with a state sets these three, so that checkpoints keep the state. The name
  // identifies this kind of callback. Fit restores the state before the first call, unless the
  // checkpoint has no state of that name.
  std::string name = {};
  std::function<NamedTensors()> save_state = {};
  std::function<absl::Status(const NamedTensors&)> restore_state = {};
};

// Options of Fit.
struct FitOptions {
  data::Dataset validation = {};  // Without arrays: no validation.
  int64_t epochs = 10;            // The number of the last epoch, counted from 1.
  int64_t batch_size = 256;
  int64_t validation_batch_size = 1000;
  uint64_t seed = 0;    // Determines the order of the training samples, and augmentation.
  bool shuffle = true;  // If false, training samples come in the order of the data set.
  // Batches for each step, at least 1. The step takes the mean gradient of their samples; it does
  // so after the last batch of an epoch too. More than 1 needs a step of optim::Accumulate.
  int64_t accumulate = 1;
  // The numbers of epochs, and of batches of the next epoch, that are already done. If the session
  // has the variables and the run number of that moment, as SaveModel keeps them, the training
  // continues with the same bits. Metrics of the first epoch cover the remaining batches.
  int64_t first_epoch = 0, first_batch = 0;
  // If true, training metrics and the loss go over all epochs so far.
  bool metrics_over_all_epochs = false;
  // Sequences of a batch are cut to a multiple of this number; see data::BatchOptions.
  int64_t length_multiple = 1;
  // Number of batches after which Fit reads metrics and calls the callbacks. It also does so after
  // the last batch of an epoch. Between two reads, a CUDA device runs steps without waiting for the
  // host. 0 means 1 on the CPU, and a twentieth of an epoch on a CUDA device.
  int64_t read_every = 0;
  std::vector<Callback> callbacks = {};
  // If a folder is given, a training that ends early, by a signal, a crash or a loss of power,
  // loses only the batches since the last checkpoint. With `resume`, the training continues with
  // the same bits, including its metrics and callbacks. It needs the same data, batch size, seed
  // and callbacks; the number of epochs may grow. Steps are batches here.
  CheckpointOptions checkpoints = {};
  // If true, a NaN or an infinity in the loss or in a variable ends the training with an error that
  // names the node where it began; see ExplainNonFinite. Each step then copies all variables. If
  // false, only the loss is checked, and the error names the step.
  bool check_numerics = false;
};

// Trains on batches of the data set, whose arrays feed the inputs of their names, and validates
// after each epoch. Data sets without augmentation are kept in the memory of a CUDA device if they
// fit. Returns the final state. Returns InvalidArgument for an option outside its range, an empty
// data set, an array that does not fit its input, an input without an array, and weights of samples
// that are not finite or below 0; passes on the errors of runs, generators, callbacks and
// checkpoints. An exception that a generator, an augmentation, a callback or a metric throws
// becomes Unknown with its text. A loss that is not finite ends the training with OutOfRange; it is
// noticed when metrics are read. SIGINT and SIGTERM end a training that has checkpoints with the
// error of StoppedBySignal, which ExitCode turns into 130 or 143.
//
// A session with a group (SessionOptions::group) trains with the other processes of the group,
// which make the same call. batch_size counts the samples of all shards together, each shard reads
// only its samples, and metrics, callbacks and checkpoints cover the whole training. Callbacks and
// checkpoints run only in the process of shard 0. Callbacks must not run values of samples or of
// the batch, because these need the other shards, and may change variables only after an epoch or
// after the training. Before the first step, all shards get the variables of shard 0; different
// graphs or options of the processes are a FailedPrecondition. The result has the same bits for any
// number of processes with the same number of shards.
//
//   const gw::Training training{loss, step, {gw::metrics::Accuracy(logits, label)}};  // Before the session is made.
//   ...
//   gw::Fit(*session, training, train, {.validation = test, .epochs = 5});
absl::StatusOr<TrainingState> Fit(Session& session, const Training& training, const data::Dataset& data,
                                  const FitOptions& options = {});

// Returns the metrics over the data set. Errors are those of Fit. With a group, all processes make
// the call.
absl::StatusOr<MetricValues> Evaluate(Session& session, const std::vector<Metric>& metrics, const data::Dataset& data,
                                      int64_t batch_size = 1000);

}  // namespace gradweave

#endif  // GRADWEAVE_FRONTEND_TRAINER_H_
