#include "gradweave/runtime/kernel/thread_pool.h"

#include <algorithm>
#include <new>
#include <system_error>

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

ThreadPool::ThreadPool(int threads) {
  for (int i = 1; i < threads; ++i) {
    try {
      workers_.emplace_back([this, i] { Work(i); });
    } catch (const std::system_error&) {
      break;  // The system has no more threads. No result depends on their number.
    } catch (const std::bad_alloc&) {
      break;  // Nor has it memory for one.
    }
  }
}

ThreadPool::~ThreadPool() {
  {
    std::lock_guard lock(mutex_);
    stop_.store(true);
    epoch_.fetch_add(1);
  }
  wake_.notify_all();
  for (std::thread& worker : workers_) worker.join();
}

// Runs parts of this loop while there are any. The ticket holds the epoch beside the counter, so a
// late thread cannot take a part of a later loop and run an earlier loop's body on it.
void ThreadPool::RunParts(int thread, uint32_t epoch) {
  int64_t ticket = next_.load(std::memory_order_acquire);
  while (static_cast<uint32_t>(ticket >> 32) == epoch) {
    const int64_t part = ticket & 0xffffffff;
    if (part >= count_.load(std::memory_order_relaxed)) return;
    if (!next_.compare_exchange_weak(ticket, ticket + 1, std::memory_order_acq_rel, std::memory_order_acquire))
      continue;
    (*body_.load(std::memory_order_relaxed))(part, thread);
    unfinished_.fetch_sub(1, std::memory_order_acq_rel);
    ticket = next_.load(std::memory_order_acquire);
  }
}

void ThreadPool::Work(int thread) {
  uint32_t seen = 0;
  while (true) {
    for (int spin = 0; spin < kSpins && epoch_.load(std::memory_order_acquire) == seen; ++spin) Pause();
    if (epoch_.load(std::memory_order_acquire) == seen) {
      std::unique_lock lock(mutex_);
      sleeping_.fetch_add(1);
      wake_.wait(lock, [&] { return epoch_.load(std::memory_order_acquire) != seen; });
      sleeping_.fetch_sub(1);
    }
    if (stop_.load(std::memory_order_acquire)) return;
    seen = epoch_.load(std::memory_order_acquire);
    RunParts(thread, seen);
  }
}

void ThreadPool::ParallelFor(int64_t count, absl::FunctionRef<void(int64_t i, int thread)> body) {
  if (workers_.empty() || count <= 1) {
    for (int64_t i = 0; i < count; ++i) body(i, 0);
    return;
  }
  const uint32_t epoch = epoch_.load(std::memory_order_relaxed) + 1;
  const int64_t first_ticket = static_cast<int64_t>(epoch) << 32;
  // Close the old loop before anything changes: a thread that still looks for its parts finds none,
  // whatever count it reads.
  next_.exchange(first_ticket | 0xffffffff, std::memory_order_acq_rel);
  body_.store(&body, std::memory_order_relaxed);
  count_.store(count, std::memory_order_relaxed);
  unfinished_.store(count, std::memory_order_relaxed);
  next_.store(first_ticket, std::memory_order_release);
  epoch_.store(epoch, std::memory_order_seq_cst);
  if (sleeping_.load(std::memory_order_seq_cst) > 0) {
    // A worker holds the lock between its last check and its sleep. Taking the lock here makes sure
    // that the worker is already waiting and hears the notification.
    { std::lock_guard lock(mutex_); }
    wake_.notify_all();
  }
  RunParts(0, epoch);
  for (int spin = 0; unfinished_.load(std::memory_order_acquire) > 0; ++spin) {
    // With more threads than processors, the awaited thread may need this thread's processor.
    if (spin < kSpins) {
      Pause();
    } else {
      std::this_thread::yield();
    }
  }
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
