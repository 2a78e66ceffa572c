#include "gradweave/runtime/memory_plan.h"

#include <algorithm>
#include <numeric>

namespace gradweave {
namespace {

constexpr int64_t kAlignment = 64;

int64_t Rounded(int64_t bytes) { return (bytes + kAlignment - 1) / kAlignment * kAlignment; }

}  // namespace

MemoryPlan PlanMemory(absl::Span<const BufferLifetime> buffers) {
  MemoryPlan plan;
  plan.offsets.resize(buffers.size());
  std::vector<int> order(buffers.size());
  std::iota(order.begin(), order.end(), 0);
  std::stable_sort(order.begin(), order.end(), [&](int a, int b) { return buffers[a].bytes > buffers[b].bytes; });

  std::vector<int> placed;  // By offset.
  for (int i : order) {
    const BufferLifetime& buffer = buffers[i];
    // Walk the placed buffers that live at the same time, upwards, to the first gap that is wide enough.
    int64_t offset = 0;
    for (int other : placed) {
      if (buffers[other].last < buffer.first || buffer.last < buffers[other].first) continue;
      if (plan.offsets[other] - offset >= Rounded(buffer.bytes)) break;
      offset = std::max(offset, plan.offsets[other] + Rounded(buffers[other].bytes));
    }
    plan.offsets[i] = offset;
    plan.arena_bytes = std::max(plan.arena_bytes, offset + Rounded(buffer.bytes));
    placed.insert(std::upper_bound(placed.begin(), placed.end(), i,
                                   [&](int a, int b) { return plan.offsets[a] < plan.offsets[b]; }),
                  i);
  }

  int steps = 0;
  for (const BufferLifetime& buffer : buffers) steps = std::max(steps, buffer.last + 1);
  std::vector<int64_t> change(steps + 1, 0);
  for (const BufferLifetime& buffer : buffers) {
    change[buffer.first] += Rounded(buffer.bytes);
    change[buffer.last + 1] -= Rounded(buffer.bytes);
  }
  int64_t live = 0;
  for (int64_t delta : change) {
    live += delta;
    plan.lower_bound_bytes = std::max(plan.lower_bound_bytes, live);
  }
  return plan;
}

}  // namespace gradweave
