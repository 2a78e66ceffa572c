#include "gradweave/runtime/plan/memory_plan.h"

#include <algorithm>
#include <map>
#include <numeric>
#include <set>
#include <utility>

#include "gradweave/graph/alignment.h"

namespace gradweave {
namespace {

// No machine has this much memory. Buffers of this size are not placed: their plan cannot be
// allocated.
constexpr int64_t kMostArenaBytes = int64_t{1} << 60;

int64_t Rounded(int64_t bytes) { return RoundUp(bytes, kAlignment); }

// Greedy by size takes time that is quadratic in the number of buffers; beyond this many they are
// placed in the order of their lifetimes.
constexpr size_t kMostBySize = 8192;

// Largest first, each at the lowest place where it fits.
void PlaceBySize(absl::Span<const BufferLifetime> buffers, MemoryPlan& plan) {
  std::vector<int> order(buffers.size());
  std::iota(order.begin(), order.end(), 0);
  std::stable_sort(order.begin(), order.end(), [&](int a, int b) { return buffers[a].bytes > buffers[b].bytes; });
  std::vector<int> placed;  // Indexed by offset.
  for (int i : order) {
    const BufferLifetime& buffer = buffers[i];
    // Walk the placed buffers that live at the same time, upwards, to the first gap that is wide
    // enough.
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
}

// The free stretches of an arena that grows. Neighbours are one gap.
class Gaps {
 public:
  void Add(int64_t offset, int64_t bytes) {
    if (bytes == 0) return;
    auto next = by_offset_.lower_bound(offset);
    if (next != by_offset_.end() && next->first == offset + bytes) {
      bytes += next->second;
      next = Remove(next);
    }
    if (next != by_offset_.begin()) {
      const auto before = std::prev(next);
      if (before->first + before->second == offset) {
        offset = before->first;
        bytes += before->second;
        Remove(before);
      }
    }
    by_offset_[offset] = bytes;
    by_size_.insert({bytes, offset});
  }

  // Takes bytes from the smallest gap that is wide enough. If there is none, widens the last gap or
  // takes bytes after the arena's end. Returns their offset.
  int64_t Take(int64_t bytes, int64_t end) {
    const auto fit = by_size_.lower_bound({bytes, 0});
    int64_t offset = end, width = 0;
    if (fit != by_size_.end()) {
      width = fit->first;
      offset = fit->second;
    } else if (!by_offset_.empty() && by_offset_.rbegin()->first + by_offset_.rbegin()->second == end) {
      offset = by_offset_.rbegin()->first;
      width = by_offset_.rbegin()->second;
    }
    if (width > 0) Remove(by_offset_.find(offset));
    if (width > bytes) Add(offset + bytes, width - bytes);
    return offset;
  }

 private:
  std::map<int64_t, int64_t>::iterator Remove(std::map<int64_t, int64_t>::iterator gap) {
    by_size_.erase({gap->second, gap->first});
    return by_offset_.erase(gap);
  }

  std::map<int64_t, int64_t> by_offset_;           // Sizes by offset.
  std::set<std::pair<int64_t, int64_t>> by_size_;  // Sizes and offsets.
};

// Places buffers like an allocator does from step to step: each in the smallest gap that is wide
// enough (best fit).
void PlaceByTime(absl::Span<const BufferLifetime> buffers, MemoryPlan& plan) {
  std::vector<int> starts(buffers.size());
  std::iota(starts.begin(), starts.end(), 0);
  std::vector<int> ends = starts;
  std::stable_sort(starts.begin(), starts.end(), [&](int a, int b) { return buffers[a].first < buffers[b].first; });
  std::stable_sort(ends.begin(), ends.end(), [&](int a, int b) { return buffers[a].last < buffers[b].last; });
  Gaps gaps;
  size_t ended = 0;
  for (int i : starts) {
    for (; ended < ends.size() && buffers[ends[ended]].last < buffers[i].first; ++ended) {
      gaps.Add(plan.offsets[ends[ended]], Rounded(buffers[ends[ended]].bytes));
    }
    const int64_t bytes = Rounded(buffers[i].bytes);
    plan.offsets[i] = gaps.Take(bytes, plan.arena_bytes);
    plan.arena_bytes = std::max(plan.arena_bytes, plan.offsets[i] + bytes);
  }
}

}  // namespace

MemoryPlan PlanMemory(absl::Span<const BufferLifetime> buffers) {
  MemoryPlan plan;
  plan.offsets.resize(buffers.size());
  int64_t sum = 0;
  for (const BufferLifetime& buffer : buffers) {
    sum += std::min(Rounded(buffer.bytes), kMostArenaBytes);
    if (sum < kMostArenaBytes) continue;
    plan.arena_bytes = plan.lower_bound_bytes = kMostArenaBytes;
    return plan;
  }
  if (buffers.size() <= kMostBySize) {
    PlaceBySize(buffers, plan);
  } else {
    PlaceByTime(buffers, plan);
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
