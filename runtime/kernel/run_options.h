// RunOptions: limits of a run.
#ifndef GRADWEAVE_RUNTIME_KERNEL_RUN_OPTIONS_H_
#define GRADWEAVE_RUNTIME_KERNEL_RUN_OPTIONS_H_

#include <atomic>
#include <chrono>

namespace gradweave {

// Stops runs from another thread. Runs that were given the token, or are given it later, stop once
// it is cancelled. Any thread and any signal handler may call both functions.
class CancellationToken {
 public:
  CancellationToken() = default;
  CancellationToken(const CancellationToken&) = delete;
  CancellationToken& operator=(const CancellationToken&) = delete;

  void Cancel() { cancelled_.store(true, std::memory_order_relaxed); }
  bool cancelled() const { return cancelled_.load(std::memory_order_relaxed); }

 private:
  std::atomic<bool> cancelled_{false};
};

// Limits of one run. When one is reached, the run ends before its next step and returns an error:
// Cancelled for the token, DeadlineExceeded for the deadline. Long steps end before they are
// complete. A run whose last steps are in progress may still complete, and then returns its
// results.
struct RunOptions {
  using Clock = std::chrono::steady_clock;

  Clock::time_point deadline = Clock::time_point::max();  // Never, unless set.
  const CancellationToken* cancellation = nullptr;        // Null: none. It has to outlive the call.

  bool is_limited() const { return cancellation != nullptr || deadline != Clock::time_point::max(); }
  // True if the run has to stop; once true, it stays true.
  bool stopped() const {
    if (cancellation != nullptr && cancellation->cancelled()) return true;
    return deadline != Clock::time_point::max() && Clock::now() >= deadline;
  }
};

}  // namespace gradweave

#endif  // GRADWEAVE_RUNTIME_KERNEL_RUN_OPTIONS_H_
