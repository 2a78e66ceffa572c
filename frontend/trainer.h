// The training loop.
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
#include "gradweave/frontend/data.h"
#include "gradweave/runtime/session/session.h"

namespace gradweave {

// What of a graph is trained.
struct TrainingGraph {
  Value image;    // The input for images.
  Value label;    // The input for labels.
  Value loss;     // The mean over the batch; a scalar.
  Value correct;  // How many samples of the batch are classified correctly; a scalar.
  Update step;
  Value test_correct = {};  // The same for inference; `correct` where it is left out.
};

// Where a training is, as callbacks see it. Loss and accuracy are means over the epoch so far.
struct TrainingState {
  int64_t epoch = 0, epochs = 0;   // From 0; of how many.
  int64_t batch = 0, batches = 0;  // Of the epoch, done so far; of how many.
  double train_loss = 0, train_accuracy = 0;
  double test_accuracy = std::numeric_limits<double>::quiet_NaN();  // Of the last epoch that ended.
  int64_t examples = 0;                                             // Trained on since the beginning.
  double step_seconds = 0;  // Spent in training steps: without loading data and testing.
  // Of the epoch so far, by the clock: with its data, and callbacks but those that come now; without testing.
  double epoch_seconds = 0;
  double examples_per_second() const { return step_seconds > 0 ? examples / step_seconds : 0; }
  bool stop = false;  // A callback sets it to end the training after this epoch.
};

// Called after batches and after each epoch, whose test accuracy is known then. An error ends the training.
struct Callback {
  std::function<absl::Status(TrainingState&)> after_batch;  // As often as FitOptions::read_every says. May be null.
  std::function<absl::Status(TrainingState&)> after_epoch;  // May be null.
};

struct FitOptions {
  int64_t epochs = 10;
  int64_t batch_size = 256;
  int64_t test_batch_size = 1000;
  uint64_t seed = 0;  // Of the order of the training images.
  // Batches from one reading of loss and accuracy, with callbacks after it, to the next; one comes after an epoch's
  // last batch too. Steps between two readings follow each other on a CUDA device without waiting for the host. 0:
  // every batch on the CPU, twenty times an epoch on a CUDA device.
  int64_t read_every = 0;
  std::vector<Callback> callbacks = {};
};

// Trains on shuffled batches, and tests after each epoch. On a CUDA device both data sets are kept in its memory where
// that has room for them. Returns the state at the end. InvalidArgument for an option
// below 1 or an empty data set, and what a run or a callback may return.
absl::StatusOr<TrainingState> Fit(Session& session, const TrainingGraph& graph, const data::Dataset& train,
                                  const data::Dataset& test, const FitOptions& options);

// The share of the samples that are classified correctly.
absl::StatusOr<double> Evaluate(Session& session, const Value& image, const Value& label, const Value& correct,
                                const data::Dataset& dataset, int64_t batch_size = 1000);

// A line for each epoch with batch, loss, accuracy, examples a second and time left. With redraw, for terminals, it is
// drawn over itself a few times a second; else it is printed once, at the end of the epoch.
Callback PrintProgress(std::ostream& out, bool redraw);

// Points for the curves of a training: (epochs so far, value).
struct TrainingCurves {
  std::vector<std::pair<double, double>> train_loss, train_accuracy, test_accuracy;
};
// Records loss and accuracy on the training images several times an epoch, and the test accuracy after each. The curves
// outlive the training.
Callback RecordCurves(TrainingCurves& curves, int64_t times_per_epoch = 5);

// Calls save after every `every` epochs: SaveModel, for example.
Callback Checkpoint(std::function<absl::Status()> save, int64_t every = 1);

// Ends the training when the test accuracy has not risen by more than least_change for `patience` epochs.
Callback StopEarly(int64_t patience, double least_change = 0);

}  // namespace gradweave

#endif  // GRADWEAVE_FRONTEND_TRAINER_H_
