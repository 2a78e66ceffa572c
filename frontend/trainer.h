// The training loop and its callbacks.
#ifndef GRADWEAVE_FRONTEND_TRAINER_H_
#define GRADWEAVE_FRONTEND_TRAINER_H_

#include <cstdint>
#include <functional>
#include <limits>
#include <ostream>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "gradweave/frontend/batches.h"
#include "gradweave/frontend/dataset.h"
#include "gradweave/runtime/session/session.h"

namespace gradweave {

// The values of a graph that training needs.
struct TrainingGraph {
  Value image;    // The Input for images.
  Value label;    // The Input for labels.
  Value loss;     // Scalar: the mean over the batch.
  Value correct;  // Scalar: the number of correctly classified samples of the batch.
  Update step;
  Value test_correct = {};  // The same for inference; defaults to `correct`.
};

// The progress of a training, as callbacks see it. Loss and accuracy are means over the epoch so
// far.
struct TrainingState {
  int64_t epoch = 0, epochs = 0;   // Current epoch, from 0, and number of epochs.
  int64_t batch = 0, batches = 0;  // Batches of the epoch: completed, and in total.
  double train_loss = 0, train_accuracy = 0;
  double test_accuracy = std::numeric_limits<double>::quiet_NaN();  // After the last completed epoch.
  int64_t examples = 0;                                             // Trained since the start.
  double step_seconds = 0;  // Time in training steps, without loading data and testing.
  // Wall-clock time of the epoch so far. It includes loading data and the earlier callbacks, but no
  // testing.
  double epoch_seconds = 0;
  double examples_per_second() const { return step_seconds > 0 ? examples / step_seconds : 0; }
  bool stop = false;  // A callback sets it to end the training after this epoch.
};

// Functions that Fit calls during training. An error ends the training. After an epoch, its test
// accuracy is known.
struct Callback {
  // After batches, as FitOptions::read_every determines. May be null.
  std::function<absl::Status(TrainingState&)> after_batch;
  std::function<absl::Status(TrainingState&)> after_epoch;  // May be null.
};

// Options of Fit.
struct FitOptions {
  int64_t epochs = 10;
  int64_t batch_size = 256;
  int64_t test_batch_size = 1000;
  uint64_t seed = 0;  // Determines the order of the training images.
  // Number of batches after which Fit reads loss and accuracy and calls the callbacks. It also does
  // so after the last batch of an epoch. Between two reads, a CUDA device runs steps without
  // waiting for the host. 0 means 1 on the CPU, and a twentieth of an epoch on a CUDA device.
  int64_t read_every = 0;
  std::vector<Callback> callbacks = {};
};

// Trains on shuffled batches and tests after each epoch. Both data sets are kept in the memory of a
// CUDA device if they fit. Returns the final state. Returns InvalidArgument for an option below 1
// or an empty data set, and passes on the errors of runs and callbacks.
absl::StatusOr<TrainingState> Fit(Session& session, const TrainingGraph& graph, const data::Dataset& train,
                                  const data::Dataset& test, const FitOptions& options);

// Returns the fraction of correctly classified samples. Returns InvalidArgument for a batch size
// below 1 or an empty data set, and passes on the errors of runs.
absl::StatusOr<double> Evaluate(Session& session, const Value& image, const Value& label, const Value& correct,
                                const data::Dataset& dataset, int64_t batch_size = 1000);

// Prints a line for each epoch with batch, loss, accuracy, examples per second and remaining time.
// With `redraw`, for terminals, it redraws the line several times per second. Otherwise it prints
// the line once, at the end of the epoch. `out` must outlive the training.
Callback PrintProgress(std::ostream& out, bool redraw);

// The points of a training's curves: (epochs so far, value).
struct TrainingCurves {
  std::vector<std::pair<double, double>> train_loss, train_accuracy, test_accuracy;
};
// Records training loss and accuracy several times per epoch, and the test accuracy after each
// epoch. `curves` must outlive the training.
Callback RecordCurves(TrainingCurves& curves, int64_t times_per_epoch = 5);

// Calls `save` after every `every` epochs, for example to call SaveModel.
Callback Checkpoint(std::function<absl::Status()> save, int64_t every = 1);

// Ends the training if the test accuracy has not risen by more than `least_change` for `patience`
// epochs.
Callback StopEarly(int64_t patience, double least_change = 0);

}  // namespace gradweave

#endif  // GRADWEAVE_FRONTEND_TRAINER_H_
