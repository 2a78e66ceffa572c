#include "gradweave/runtime/plan/memory_plan.h"

#include <random>

#include "gtest/gtest.h"

namespace gradweave {
namespace {

bool Overlap(int64_t begin_a, int64_t end_a, int64_t begin_b, int64_t end_b) {
  return begin_a < end_b && begin_b < end_a;
}

TEST(MemoryPlan, ReusesTheMemoryOfABufferThatIsDone) {
  const MemoryPlan plan = PlanMemory({{1024, 0, 1}, {1024, 1, 2}, {1024, 2, 3}});
  EXPECT_EQ(plan.arena_bytes, 2048);
  EXPECT_EQ(plan.lower_bound_bytes, 2048);
  EXPECT_EQ(plan.offsets[0], plan.offsets[2]);
}

TEST(MemoryPlan, BuffersThatLiveTogetherNeverOverlap) {
  std::mt19937 random(1);
  for (int round = 0; round < 50; ++round) {
    std::vector<BufferLifetime> buffers;
    for (int i = 0; i < 60; ++i) {
      const int first = static_cast<int>(random() % 100);
      buffers.push_back({static_cast<int64_t>(random() % 5000), first, first + static_cast<int>(random() % 20)});
    }
    const MemoryPlan plan = PlanMemory(buffers);
    EXPECT_GE(plan.arena_bytes, plan.lower_bound_bytes);
    for (size_t a = 0; a < buffers.size(); ++a) {
      EXPECT_EQ(plan.offsets[a] % 64, 0);
      EXPECT_LE(plan.offsets[a] + buffers[a].bytes, plan.arena_bytes);
      for (size_t b = 0; b < a; ++b) {
        if (!Overlap(buffers[a].first, buffers[a].last + 1, buffers[b].first, buffers[b].last + 1)) continue;
        EXPECT_FALSE(Overlap(plan.offsets[a], plan.offsets[a] + buffers[a].bytes, plan.offsets[b],
                             plan.offsets[b] + buffers[b].bytes));
      }
    }
  }
}

// A hostile model may have any number of values that no machine can hold. Their sum may overflow,
// even to a small number.
TEST(PlanMemory, TellsOfMoreBytesThanInt64Has) {
  constexpr int64_t kBytes = int64_t{1} << 51;
  for (int count : {2048, 4096, 8192, 8193, 16384}) {
    const std::vector<BufferLifetime> buffers(count, {kBytes, 0, 1});
    const MemoryPlan plan = PlanMemory(buffers);
    EXPECT_GE(plan.arena_bytes, int64_t{1} << 60) << count;
    EXPECT_GE(plan.lower_bound_bytes, int64_t{1} << 60) << count;
  }
}

}  // namespace
}  // namespace gradweave
