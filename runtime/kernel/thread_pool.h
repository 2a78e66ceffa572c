// The thread pool, the only owner of threads in a session.
#ifndef GRADWEAVE_RUNTIME_KERNEL_THREAD_POOL_H_
#define GRADWEAVE_RUNTIME_KERNEL_THREAD_POOL_H_

#include <cstdint>
#include <memory>

#include "absl/functional/function_ref.h"

namespace gradweave {

// Runs one parallel loop at a time on a fixed number of threads, which include the caller.
// Allocates nothing after construction.
//
// fork() copies the memory of a pool and none of its threads. In a child, all loops of such a copy
// run in the caller, and its destructor leaves alone what the missing threads may have been using.
class ThreadPool {
 public:
  // `threads` is at least 1; with 1, every loop runs in the caller. The pool has fewer threads if
  // the system cannot create them all.
  explicit ThreadPool(int threads);
  ~ThreadPool();
  ThreadPool(const ThreadPool&) = delete;
  ThreadPool& operator=(const ThreadPool&) = delete;

  // Number of threads, including the caller.
  int num_threads() const { return num_threads_; }

  // Calls body(i, thread) once for each i in [0, count), on any thread and in any order, with 0 <=
  // thread < num_threads(), and returns when all calls have returned. A result must not depend on
  // `thread`: results are the same bits for every number of threads. Bodies must not call
  // ParallelFor, and two threads must not call it at the same time.
  void ParallelFor(int64_t count, absl::FunctionRef<void(int64_t i, int thread)> body);

 private:
  struct Workers;

  int num_threads_ = 1;
  std::unique_ptr<Workers> workers_;  // Null with one thread.
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
