// Memory plans: buffers that live at the same time lie apart, and the arena is near what no plan
// can do without.
#include "gradweave/runtime/plan/memory_plan.h"

#include <algorithm>
#include <random>
#include <vector>

#include "gtest/gtest.h"

namespace gradweave {
namespace {

class MemoryPlanOf : public testing::TestWithParam<int> {};

// The lives of a training step: a value of each layer is read again in the backward pass, others
// soon die.
TEST_P(MemoryPlanOf, ATrainingStepIsCompactAndFreeOfOverlaps) {
  const int layers = GetParam(), steps = 2 * layers;
  std::mt19937 random(1);
  std::vector<BufferLifetime> buffers;
  for (int i = 0; i < layers; ++i) {
    const int64_t bytes = 100 + static_cast<int64_t>(random() % 4000);
    buffers.push_back({bytes, i, steps - i - 1});
    buffers.push_back({bytes, i, i + 1});
    buffers.push_back({bytes, steps - i - 1, std::min(steps - 1, steps - i)});
  }
  const MemoryPlan plan = PlanMemory(buffers);
  EXPECT_LE(plan.arena_bytes, plan.lower_bound_bytes * 1.1);
  // The buffers that are live at each step, by bytes of the arena: a buffer never takes one that
  // another holds.
  std::vector<std::vector<int>> starting(steps), ending(steps + 1);
  for (size_t i = 0; i < buffers.size(); ++i) {
    starting[buffers[i].first].push_back(static_cast<int>(i));
    ending[buffers[i].last + 1].push_back(static_cast<int>(i));
  }
  std::vector<bool> held(plan.arena_bytes / 64, false);
  for (int step = 0; step < steps; ++step) {
    for (int i : ending[step]) {
      for (int64_t at = plan.offsets[i]; at < plan.offsets[i] + buffers[i].bytes; at += 64) held[at / 64] = false;
    }
    for (int i : starting[step]) {
      ASSERT_EQ(plan.offsets[i] % 64, 0);
      for (int64_t at = plan.offsets[i]; at < plan.offsets[i] + buffers[i].bytes; at += 64) {
        ASSERT_FALSE(held.at(at / 64)) << "buffer " << i << " at step " << step;
        held[at / 64] = true;
      }
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Layers, MemoryPlanOf, testing::Values(1, 10, 500, 5000));

}  // namespace
}  // namespace gradweave
