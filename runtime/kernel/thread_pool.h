// The one owner of threads.
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

// Runs the parts of one loop at a time on a fixed number of threads, of which the caller is one. Allocates nothing
// after its construction.
class ThreadPool {
 public:
  // At least 1; with 1 everything runs in the caller.
  explicit ThreadPool(int threads);
  ~ThreadPool();
  ThreadPool(const ThreadPool&) = delete;
  ThreadPool& operator=(const ThreadPool&) = delete;

  int num_threads() const { return static_cast<int>(workers_.size()) + 1; }

  // Calls body(i, thread) once for each i in [0, count), on any thread in any order, 0 <= thread < num_threads(), and
  // returns when all have returned. What a result depends on must not be `thread`: results are the same bits for every
  // number of threads. Not to be called from a body, nor by two threads at a time.
  void ParallelFor(int64_t count, absl::FunctionRef<void(int64_t i, int thread)> body);

 private:
  void Work(int thread);
  void RunParts(int thread, uint32_t epoch);

  std::vector<std::thread> workers_;
  std::mutex mutex_;
  std::condition_variable wake_;
  std::atomic<uint32_t> epoch_{0};  // Counts loops; workers wait for it to change.
  std::atomic<bool> stop_{false};
  std::atomic<int64_t> next_{0};  // Epoch in the upper 32 bits, next part in the lower.
  std::atomic<int64_t> unfinished_{0};
  std::atomic<int> sleeping_{0};
  std::atomic<int64_t> count_{0};
  std::atomic<const absl::FunctionRef<void(int64_t, int)>*> body_{nullptr};
};

// Splits [0, count) into at most max_chunks ranges of equal size (the last may be smaller), each a multiple of `grain`
// but the last. The ranges depend on these numbers alone, never on threads.
struct Chunks {
  Chunks(int64_t count, int64_t grain, int64_t max_chunks = 64);
  int64_t count;
  int64_t size;    // Of each but the last.
  int64_t number;  // Of chunks.
  int64_t begin(int64_t chunk) const { return chunk * size; }
  int64_t end(int64_t chunk) const { return chunk + 1 == number ? count : (chunk + 1) * size; }
};

// Calls body(begin, end) for the chunks of [0, count).
void ParallelForRange(ThreadPool& pool, int64_t count, int64_t grain,
                      absl::FunctionRef<void(int64_t begin, int64_t end)> body);

}  // namespace gradweave

#endif  // GRADWEAVE_RUNTIME_KERNEL_THREAD_POOL_H_
