#include "gradweave/frontend/stop_signals.h"

#include <signal.h>
#include <unistd.h>

#include <atomic>
#include <mutex>
#include <optional>

#include "absl/strings/cord.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"

namespace gradweave {
namespace {

constexpr int kSignals[] = {SIGINT, SIGTERM};
constexpr int kExitCodeOfSignals = 128;  // Shells report 128 + signal for a process that a signal ended.
constexpr char kPayload[] = "gradweave/signal";

std::mutex mutex;
int objects = 0;
struct sigaction old_actions[2];
std::atomic<int> received = 0;
static_assert(std::atomic<int>::is_always_lock_free, "a signal handler uses it");

void Note(int signal) {
  int none = 0;
  if (!received.compare_exchange_strong(none, signal)) _exit(kExitCodeOfSignals + signal);
}

}  // namespace

StopSignals::StopSignals() {
  std::lock_guard lock(mutex);
  if (objects++ > 0) return;
  received = 0;
  for (int i = 0; i < 2; ++i) {
    struct sigaction action = {};
    action.sa_handler = Note;
    action.sa_flags = SA_RESTART;  // Reading files goes on.
    sigemptyset(&action.sa_mask);
    sigaction(kSignals[i], nullptr, &old_actions[i]);
    const bool ignored = (old_actions[i].sa_flags & SA_SIGINFO) == 0 && old_actions[i].sa_handler == SIG_IGN;
    if (!ignored) sigaction(kSignals[i], &action, nullptr);
  }
}

StopSignals::~StopSignals() {
  std::lock_guard lock(mutex);
  if (--objects > 0) return;
  for (int i = 0; i < 2; ++i) sigaction(kSignals[i], &old_actions[i], nullptr);
}

int StopSignals::Received() { return received; }

absl::Status StoppedBySignal(int signal, absl::string_view message) {
  absl::Status status = absl::CancelledError(message);
  status.SetPayload(kPayload, absl::Cord(absl::StrCat(signal)));
  return status;
}

int ExitCode(const absl::Status& status) {
  if (status.ok()) return 0;
  const auto payload = status.GetPayload(kPayload);
  int signal = 0;
  if (!payload.has_value() || !absl::SimpleAtoi(std::string(*payload), &signal)) return 1;
  return kExitCodeOfSignals + signal;
}

}  // namespace gradweave
