// The thread pool, the only owner of threads in a session.
#ifndef GRADWEAVE_RUNTIME_KERNEL_THREAD_POOL_H_
#define GRADWEAVE_RUNTIME_KERNEL_THREAD_POOL_H_

#include <atomic>
#include <condition_variable>
#include <cstdint>
#include <mutex>
#include <thread>
#include <vector>

#include "absl/functional/function_ref.h"

namespace gradweave {

// Runs one parallel loop at a time on a fixed number of threads, which include the caller.
// Allocates nothing after construction.
class ThreadPool {
 public:
  // `threads` is at least 1; with 1, every loop runs in the caller. The pool has fewer threads if
  // the system cannot create them all.
  explicit ThreadPool(int threads);
  ~ThreadPool();
  ThreadPool(const ThreadPool&) = delete;
  ThreadPool& operator=(const ThreadPool&) = delete;

  // Number of threads, including the caller.
  int num_threads() const { return static_cast<int>(workers_.size()) + 1; }

  // Calls body(i, thread) once for each i in [0, count), on any thread and in any order, with 0 <=
  // thread < num_threads(), and returns when all calls have returned. A result must not depend on
  // `thread`: results are the same bits for every number of threads. Bodies must not call
  // ParallelFor, and two threads must not call it at the same time.
  void ParallelFor(int64_t count, absl::FunctionRef<void(int64_t i, int thread)> body);

 private:
  void Work(int thread);
  void RunParts(int thread, uint32_t epoch);

  std::vector<std::thread> workers_;
  std::mutex mutex_;
  std::condition_variable wake_;
  std::atomic<uint32_t> epoch_{0};  // Counts loops. Workers wait for it to change.
  std::atomic<bool> stop_{false};
  std::atomic<int64_t> next_{0};  // The epoch in the upper 32 bits, the next part in the lower.
  std::atomic<int64_t> unfinished_{0};
  std::atomic<int> sleeping_{0};
  std::atomic<int64_t> count_{0};
  std::atomic<const absl::FunctionRef<void(int64_t, int)>*> body_{nullptr};
};

// Splits [0, count) into at most max_chunks ranges of equal size; only the last may be smaller. The
// size is a multiple of `grain`. The ranges depend on these numbers alone, never on the number of
// threads.
struct Chunks {
  Chunks(int64_t count, int64_t grain, int64_t max_chunks = 64);
  int64_t count;
  int64_t size;    // Elements of every chunk except the last.
  int64_t number;  // Number of chunks.
  int64_t begin(int64_t chunk) const { return chunk * size; }
  int64_t end(int64_t chunk) const { return chunk + 1 == number ? count : (chunk + 1) * size; }
};

// Calls body(begin, end) on the pool for each chunk of [0, count).
void ParallelForRange(ThreadPool& pool, int64_t count, int64_t grain,
                      absl::FunctionRef<void(int64_t begin, int64_t end)> body);

}  // namespace gradweave

#endif  // GRADWEAVE_RUNTIME_KERNEL_THREAD_POOL_H_
