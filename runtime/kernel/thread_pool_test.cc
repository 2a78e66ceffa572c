#include "gradweave/runtime/kernel/thread_pool.h"

#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <chrono>
#include <cstdint>
#include <optional>
#include <thread>
#include <utility>
#include <vector>

#include "gtest/gtest.h"

namespace gradweave {
namespace {

TEST(ThreadPool, CallsEachPartOnceWithAThreadOfItsOwn) {
  ThreadPool pool(3);
  EXPECT_EQ(pool.num_threads(), 3);
  for (int64_t count : {0, 1, 2, 7, 1000}) {
    std::vector<std::atomic<int>> calls(count);
    pool.ParallelFor(count, [&](int64_t i, int thread) {
      EXPECT_LT(thread, 3);
      calls[i].fetch_add(1);
    });
    for (auto& number : calls) EXPECT_EQ(number.load(), 1);
  }
}

// A late thread could take a part of the wrong loop when loops follow each other at once.
TEST(ThreadPool, ShortLoopsInQuickSuccessionLoseNoPart) {
  ThreadPool pool(4);
  for (int round = 0; round < 20000; ++round) {
    const int64_t count = round % 5 + 1;
    std::atomic<int64_t> sum{0};
    pool.ParallelFor(count, [&](int64_t i, int) { sum.fetch_add(i + 1); });
    ASSERT_EQ(sum.load(), count * (count + 1) / 2) << round;
  }
}

// A worker that takes up a loop while the pool is destroyed could miss the end, and wait for ever.
// One in some ten thousand pools met this.
TEST(ThreadPool, EndsWhileWorkersTakeUpALoop) {
  for (int round = 0; round < 50000; ++round) {
    ThreadPool pool(3);
    for (int loop = 0; loop <= round % 3; ++loop) pool.ParallelFor(4, [](int64_t, int) {});
  }
}

TEST(ThreadPool, ACopyInAChildRunsLoopsInTheCallerAndIsDestroyed) {
  std::optional<ThreadPool> pool(std::in_place, 4);
  std::atomic<int64_t> sum{0};
  const auto run = [&] {
    sum = 0;
    pool->ParallelFor(100, [&](int64_t i, int) { sum.fetch_add(i); });
    return sum.load();
  };
  for (const int pause : {0, 50}) {
    EXPECT_EQ(run(), 4950);
    // The threads spin at first, and then they sleep.
    std::this_thread::sleep_for(std::chrono::milliseconds(pause));
    const pid_t child = fork();
    if (child == 0) {
      alarm(20);  // Ends a child that waits for threads that it does not have.
      const bool right = run() == 4950 && pool->num_threads() == 4;
      pool.reset();
      _exit(right ? 0 : 1);
    }
    int status = -1;
    ASSERT_EQ(waitpid(child, &status, 0), child);
    EXPECT_TRUE(WIFEXITED(status) && WEXITSTATUS(status) == 0) << status;
  }
  EXPECT_EQ(run(), 4950);
}

TEST(Chunks, CoverTheCountInMultiplesOfTheGrain) {
  for (int64_t count : {0, 1, 63, 64, 65, 1000, 100000}) {
    const Chunks chunks(count, 16, 8);
    EXPECT_LE(chunks.number, 8);
    int64_t covered = 0;
    for (int64_t i = 0; i < chunks.number; ++i) {
      EXPECT_EQ(chunks.begin(i), covered);
      EXPECT_EQ(chunks.begin(i) % 16, 0);
      covered = chunks.end(i);
    }
    EXPECT_EQ(covered, count);
  }
}

}  // namespace
}  // namespace gradweave
