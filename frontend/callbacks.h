// Callbacks of Fit: progress, curves, checkpoints, early stopping, the best model.
#ifndef GRADWEAVE_FRONTEND_CALLBACKS_H_
#define GRADWEAVE_FRONTEND_CALLBACKS_H_

#include <cstdint>
#include <functional>
#include <map>
#include <ostream>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "gradweave/frontend/goal.h"
#include "gradweave/frontend/trainer.h"
#include "gradweave/runtime/session/session.h"

namespace gradweave {

// Prints a line for each epoch with batch, training metrics, learning rate (if Training has it),
// examples per second, remaining time, the peak of main memory, and validation metrics. It leaves
// out metrics that are not scalars. With `redraw`, for terminals, it redraws the line several times
// per second. Otherwise it prints the line once, at the end of the epoch. `out` must outlive the
// training.
Callback PrintProgress(std::ostream& out, bool redraw);

// The points of a training's curves, (epochs so far, value), by metric. Metrics that are not
// scalars are left out.
struct TrainingCurves {
  using Points = std::vector<std::pair<double, double>>;
  std::map<std::string, Points> train, validation;
};
// Records training metrics several times per epoch, and validation metrics after each epoch.
// `curves` must outlive the training.
Callback RecordCurves(TrainingCurves& curves, int64_t times_per_epoch = 5);

// Calls `save` after every `every` epochs, at least 1, for example to call SaveModel.
// FitOptions::checkpoints saves everything that a training needs to continue.
Callback Checkpoint(std::function<absl::Status()> save, int64_t every = 1);

// These return InvalidArgument after the first epoch if the goal's metric is unknown or not a
// scalar, or if a number is outside its range. An epoch in which the metric is NaN is not better
// than any other.

// Ends the training if no epoch has been better than the best one for `patience` epochs, at least
// 1.
Callback StopEarly(Goal goal, int64_t patience);
// Calls `save` after each epoch that is better than all earlier ones.
Callback SaveBest(Goal goal, std::function<absl::Status()> save);
// At the end of the training, gives all variables of the session the values that they had after the
// best epoch. The session must outlive the training.
Callback KeepBest(Goal goal, Session& session);

}  // namespace gradweave

#endif  // GRADWEAVE_FRONTEND_CALLBACKS_H_
