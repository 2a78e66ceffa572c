// Signals that ask a training to end: SIGINT (Ctrl-C) and SIGTERM.
#ifndef GRADWEAVE_FRONTEND_STOP_SIGNALS_H_
#define GRADWEAVE_FRONTEND_STOP_SIGNALS_H_

#include "absl/status/status.h"
#include "absl/strings/string_view.h"

namespace gradweave {

// While an object exists, the first SIGINT or SIGTERM of the process is only noted, and a second
// one ends the process at once with the exit code 128 + its number. A signal that the process
// ignores stays ignored. When the last object is destroyed, the signals get their old handlers
// back.
class StopSignals {
 public:
  StopSignals();
  ~StopSignals();
  StopSignals(const StopSignals&) = delete;
  StopSignals& operator=(const StopSignals&) = delete;

  // The signal that was noted, or 0.
  static int Received();
};

// Returns the error of a training that a signal has ended: Cancelled, with the message.
absl::Status StoppedBySignal(int signal, absl::string_view message);

// Returns the exit code of a program that ends with this status: 0 if it is OK, 130 or 143 if
// SIGINT or SIGTERM has ended the training, and 1 after other errors.
int ExitCode(const absl::Status& status);

}  // namespace gradweave

#endif  // GRADWEAVE_FRONTEND_STOP_SIGNALS_H_
