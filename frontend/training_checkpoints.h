// Checkpoints of a training: files from which it continues with the same bits after any
// interruption.
#ifndef GRADWEAVE_FRONTEND_TRAINING_CHECKPOINTS_H_
#define GRADWEAVE_FRONTEND_TRAINING_CHECKPOINTS_H_

#include <chrono>
#include <cstdint>
#include <functional>
#include <future>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/functional/function_ref.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "gradweave/frontend/goal.h"
#include "gradweave/frontend/stop_signals.h"
#include "gradweave/runtime/model_file/checkpoint.h"
#include "gradweave/runtime/session/session.h"

namespace gradweave {

// The interval between checkpoints, in steps, epochs or minutes.
struct CheckpointInterval {
  enum Unit { kSteps, kEpochs, kMinutes };
  int64_t count = 1;  // At least 1.
  Unit unit = kEpochs;
};

// Parses a whole number with a unit: "100steps", "1epoch", "5min". Returns InvalidArgument for any
// other text.
absl::StatusOr<CheckpointInterval> ParseCheckpointInterval(absl::string_view text);

// Says when to save.
struct CheckpointTimer {
  using Clock = std::chrono::steady_clock;
  CheckpointInterval every;
  Clock::time_point last_time = Clock::now();
  int64_t last_step = -1;  // Unknown before the first step.

  // Returns true if a multiple of the interval lies between the last Restart and now.
  bool IsDueAfterStep(int64_t step, Clock::time_point now);
  bool IsDueAfterEpoch(int64_t epochs) const;
  void Restart(int64_t step, Clock::time_point now);
};

// Options of checkpoints.
struct CheckpointOptions {
  // The folder of the checkpoints; it is made if it is missing. Empty: none are saved.
  std::string dir = {};
  CheckpointInterval every = {};
  int64_t keep = 3;  // The number of newest checkpoints to keep, at least 1.
  // The checkpoint of the best epoch is kept too, as best.gw. Unset: the goal is the loss of the
  // validation, or of the training if there is no validation.
  std::optional<Goal> best = {};
  // If true, the training continues from the newest readable checkpoint of the folder, and starts
  // from the beginning if the folder has none. If false, the folder must not have any.
  bool resume = false;
  // If true, SIGINT and SIGTERM end the training after the current step, with a checkpoint; see
  // StopSignals.
  bool stop_on_signals = true;
  // Receives lines about damaged checkpoints, and about the checkpoint from which the training
  // continues; null means stderr.
  std::function<void(const std::string& line)> tell = {};
};

// The checkpoints of one training: model files "checkpoint_<step>.gw", which have the state of the
// training too. Fit uses it; a program with a loop of its own can do so as well:
//
//   GW_ASSIGN_OR_RETURN(const auto checkpoints, gw::TrainingCheckpoints::Open(options, session));
//   int64_t step = 0;
//   if (const gw::NamedTensors* state = checkpoints->resumed()) step = ...;
//   auto state = [&]() -> absl::StatusOr<gw::NamedTensors> { return ...step, position, sums...; };
//   for (...) {
//     ...
//     GW_RETURN_IF_ERROR(checkpoints->AfterStep(++step, state));
//   }
//   GW_RETURN_IF_ERROR(checkpoints->AtEnd(step, state));
//
// The calling thread copies the values, and another thread writes them. Only one file is written at
// a time. If a checkpoint becomes due during a write, it is taken at the next step after the write,
// so that steps do not wait.
class TrainingCheckpoints {
 public:
  // Returns the state of the training that is not in the session, at the moment of the call.
  using State = absl::FunctionRef<absl::StatusOr<NamedTensors>()>;

  // Locks the folder against other trainings. With `resume`, gives the session the values and the
  // run number of the newest checkpoint that can be read, and reports a line for each one that
  // cannot. Returns InvalidArgument for options outside their range, and for a checkpoint of
  // another model or another seed; FailedPrecondition if another training uses the folder, or it
  // has checkpoints and `resume` is false; DataLoss if no checkpoint can be read; and the system's
  // error for a folder that cannot be used.
  static absl::StatusOr<std::unique_ptr<TrainingCheckpoints>> Open(CheckpointOptions options, Session& session);
  // Waits for the file that is being written.
  ~TrainingCheckpoints();
  TrainingCheckpoints(const TrainingCheckpoints&) = delete;
  TrainingCheckpoints& operator=(const TrainingCheckpoints&) = delete;

  // The state in the checkpoint from which the training continues, or null if it starts from the
  // beginning; and the path of that checkpoint.
  const NamedTensors* resumed() const { return resumed_.has_value() ? &*resumed_ : nullptr; }
  const std::string& resumed_path() const { return resumed_path_; }

  // Hands a line to CheckpointOptions::tell. Returns Unknown if that throws an exception.
  absl::Status Tell(const std::string& line) const;

  // Call it after each step. `step` counts from 1, and continues in resumed trainings. Saves if a
  // checkpoint is due. Returns the error of an earlier checkpoint that could not be written. After
  // a signal, it saves and returns StoppedBySignal. A checkpoint with a trainable variable that has
  // a NaN or an infinity is an error too, and is not written.
  absl::Status AfterStep(int64_t step, State state);
  // The same in two calls: IsDue returns true if a checkpoint is due or a signal has come, and
  // SaveNow then saves.
  absl::StatusOr<bool> IsDue(int64_t step);
  absl::Status SaveNow(State state);
  // The same after an epoch, the `epochs`-th, and its validation. If the epoch is the best one so
  // far, it saves best.gw.
  absl::Status AfterEpoch(int64_t step, int64_t epochs, bool is_best, State state);
  // Saves unless the last checkpoint has this state, and waits until it is written.
  absl::Status AtEnd(int64_t step, State state);

  // True after a signal that is to end the training; long work between steps should end then.
  bool stops() const { return signals_.has_value() && StopSignals::Received() != 0; }
  // Saves the state before that work, with the run number of that moment, and returns
  // StoppedBySignal. Returns FailedPrecondition if no signal has come.
  absl::Status Stop(int64_t step, State state, std::optional<uint64_t> run_number = {});

 private:
  TrainingCheckpoints(CheckpointOptions options, Session& session);
  absl::Status OpenFolder();
  absl::Status Resume();
  absl::Status GiveState(const Model& model) const;
  struct Moment {
    int64_t step = -1;
    bool after_epoch = false;
    friend bool operator==(const Moment&, const Moment&) = default;
  };
  // Starts to write the files of this moment.
  absl::Status Write(std::vector<std::string> names, State state, std::optional<uint64_t> run_number = {});
  std::string CheckpointName() const;
  // Returns the error of the last write. Waits for its end, or returns OK while the write is in
  // progress.
  absl::Status Finish(bool wait);

  const CheckpointOptions options_;
  Session& session_;
  std::optional<StopSignals> signals_;
  int folder_ = -1;  // The descriptor that holds the lock.
  CheckpointTimer timer_;
  Moment now_, saved_;  // The latest moment, and the moment of the last checkpoint.
  std::future<absl::Status> writing_;
  std::optional<NamedTensors> resumed_;
  std::string resumed_path_;
};

}  // namespace gradweave

#endif  // GRADWEAVE_FRONTEND_TRAINING_CHECKPOINTS_H_
