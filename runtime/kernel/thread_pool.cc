#include "gradweave/runtime/kernel/thread_pool.h"

#include <algorithm>
#include <atomic>
#include <condition_variable>
#include <mutex>
#include <new>
#include <system_error>
#include <thread>
#include <utility>
#include <vector>

#include "gradweave/runtime/kernel/float_state.h"
#include "gradweave/runtime/kernel/forks.h"

namespace gradweave {
namespace {

// Number of polls before a waiting thread sleeps. They take about 20 to 50 microseconds, which is
// both the time between two kernels of a running plan and the cost of waking a thread.
constexpr int kSpins = 4000;

void Pause() {
#if defined(__x86_64__) || defined(__i386__)
  __builtin_ia32_pause();
#elif defined(__aarch64__)
  asm volatile("isb");  // Takes as long as x86's pause, where "yield" does nothing.
#endif
}

}  // namespace

struct ThreadPool::Workers {
  void Work(int thread);
  void RunParts(int thread, uint32_t epoch);
  void Run(int64_t count, const absl::FunctionRef<void(int64_t, int)>& body);

  const uint64_t forks = ForksSoFar();
  std::vector<std::thread> threads;
  std::mutex mutex;
  std::condition_variable wake;
  // Workers that wait read the epoch again and again, so it has a cache line apart from what loops
  // write.
  alignas(64) std::atomic<uint32_t> epoch{0};  // Counts loops. Workers wait for it to change.
  std::atomic<bool> stop{false};
  alignas(64) std::atomic<int64_t> next{0};  // The epoch in the upper 32 bits, the next part in the lower.
  std::atomic<int64_t> unfinished{0};
  std::atomic<int> sleeping{0};
  std::atomic<int64_t> count{0};
  std::atomic<const absl::FunctionRef<void(int64_t, int)>*> body{nullptr};
};

ThreadPool::ThreadPool(int threads) {
  if (threads <= 1) return;
  workers_ = std::make_unique<Workers>();
  for (int i = 1; i < threads; ++i) {
    try {
      workers_->threads.emplace_back([workers = workers_.get(), i] { workers->Work(i); });
    } catch (const std::system_error&) {
      break;  // The system has no more threads. No result depends on their number.
    } catch (const std::bad_alloc&) {
      break;  // Nor has it memory for one.
    }
  }
  num_threads_ = static_cast<int>(workers_->threads.size()) + 1;
}

ThreadPool::~ThreadPool() {
  if (workers_ == nullptr) return;
  if (workers_->forks != ForksSoFar()) {
    // The threads are the parent's. Nobody joins them here, and the condition variable would wait
    // for those that slept when the process was copied.
    (void)workers_.release();  // NOLINT(bugprone-unused-return-value): it is left to the parent.
    return;
  }
  {
    std::lock_guard lock(workers_->mutex);
    workers_->stop.store(true);
    workers_->epoch.fetch_add(1);
  }
  workers_->wake.notify_all();
  for (std::thread& thread : workers_->threads) thread.join();
}

// Runs parts of this loop while there are any. The ticket holds the epoch beside the counter, so a
// late thread cannot take a part of a later loop and run an earlier loop's body on it.
void ThreadPool::Workers::RunParts(int thread, uint32_t of_epoch) {
  int64_t ticket = next.load(std::memory_order_acquire);
  while (static_cast<uint32_t>(ticket >> 32) == of_epoch) {
    const int64_t part = ticket & 0xffffffff;
    if (part >= count.load(std::memory_order_relaxed)) return;
    if (!next.compare_exchange_weak(ticket, ticket + 1, std::memory_order_acq_rel, std::memory_order_acquire)) continue;
    (*body.load(std::memory_order_relaxed))(part, thread);
    unfinished.fetch_sub(1, std::memory_order_acq_rel);
    ticket = next.load(std::memory_order_acquire);
  }
}

void ThreadPool::Workers::Work(int thread) {
  const KernelFloatState float_state;
  uint32_t seen = 0;
  while (true) {
    for (int spin = 0; spin < kSpins && epoch.load(std::memory_order_acquire) == seen; ++spin) Pause();
    if (epoch.load(std::memory_order_acquire) == seen) {
      std::unique_lock lock(mutex);
      sleeping.fetch_add(1);
      wake.wait(lock, [&] { return epoch.load(std::memory_order_acquire) != seen; });
      sleeping.fetch_sub(1);
    }
    // The epoch comes first: the destructor raises it after `stop`, so a thread that has seen its
    // epoch stops here, and does not wait for another one.
    seen = epoch.load(std::memory_order_acquire);
    if (stop.load(std::memory_order_acquire)) return;
    RunParts(thread, seen);
  }
}

void ThreadPool::Workers::Run(int64_t parts, const absl::FunctionRef<void(int64_t, int)>& of_part) {
  const uint32_t new_epoch = epoch.load(std::memory_order_relaxed) + 1;
  const int64_t first_ticket = static_cast<int64_t>(new_epoch) << 32;
  // Close the old loop before anything changes: a thread that still looks for its parts finds none,
  // whatever count it reads.
  next.exchange(first_ticket | 0xffffffff, std::memory_order_acq_rel);
  body.store(&of_part, std::memory_order_relaxed);
  count.store(parts, std::memory_order_relaxed);
  unfinished.store(parts, std::memory_order_relaxed);
  next.store(first_ticket, std::memory_order_release);
  epoch.store(new_epoch, std::memory_order_seq_cst);
  if (sleeping.load(std::memory_order_seq_cst) > 0) {
    // A worker holds the lock between its last check and its sleep. Taking the lock here makes sure
    // that the worker is already waiting and hears the notification.
    { std::lock_guard lock(mutex); }
    wake.notify_all();
  }
  RunParts(0, new_epoch);
  for (int spin = 0; unfinished.load(std::memory_order_acquire) > 0; ++spin) {
    // With more threads than processors, the awaited thread may need this thread's processor.
    if (spin < kSpins) {
      Pause();
    } else {
      std::this_thread::yield();
    }
  }
}

void ThreadPool::ParallelFor(int64_t count, absl::FunctionRef<void(int64_t i, int thread)> body) {
  if (num_threads_ == 1 || count <= 1 || workers_->forks != ForksSoFar()) {
    for (int64_t i = 0; i < count; ++i) body(i, 0);
    return;
  }
  workers_->Run(count, body);
}

Chunks::Chunks(int64_t count, int64_t grain, int64_t max_chunks) : count(count) {
  grain = std::max<int64_t>(grain, 1);
  const int64_t grains = (count + grain - 1) / grain;
  size = std::max<int64_t>((grains + max_chunks - 1) / max_chunks, 1) * grain;
  number = (count + size - 1) / size;
}

void ParallelForRange(ThreadPool& pool, int64_t count, int64_t grain,
                      absl::FunctionRef<void(int64_t begin, int64_t end)> body) {
  const Chunks chunks(count, grain);
  pool.ParallelFor(chunks.number, [&](int64_t chunk, int) { body(chunks.begin(chunk), chunks.end(chunk)); });
}

}  // namespace gradweave
