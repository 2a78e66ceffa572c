// The streams of steps, and the memory that they take.
#include <algorithm>
#include <utility>
#include <vector>

#include "gradweave/graph/check.h"
#include "gradweave/runtime/cuda/plan/cuda_planner.h"

namespace gradweave {
namespace {

// An arena may be larger than steps in order need, so that steps can run side by side: by a tenth
// of the lower bound, or by half of the workspace that one more stream takes for matrix products.
constexpr int64_t kLeastFraction = 10;
constexpr int64_t kAlwaysBytes = 16 << 20;

// The numbers of further steps for which values may keep their places, the best first.
constexpr int kSlacks[] = {ValueLifetimes::kEnd, 64, 16, 4};

}  // namespace

// In an arena that is planned for steps in order, a branch often reuses the memory of the previous
// branch and has to wait for it. So values keep their places while other steps may run beside their
// last use, for as many steps as the arena has room for. Without room, steps that reuse memory
// wait.
void CudaPlanner::PlanDeviceArena() {
  MemoryPlan& plan = arena_.memory;
  const int most_streams = MostStreams(plan);
  if (most_streams > 1) {
    // Plan the streams as if no two values shared memory.
    std::vector<int64_t> apart;
    int64_t end = 0;
    for (const BufferLifetime& buffer : arena_.buffers) {
      apart.push_back(end);
      end += buffer.bytes;
    }
    ScheduleSegments(apart, most_streams);
    const int64_t most_bytes = MostArenaBytes(plan);
    for (int slack : kSlacks) {
      MemoryPlan wider = PlanMemory(LifetimesBesideOthers(slack));
      if (wider.arena_bytes > most_bytes) continue;
      plan.arena_bytes = wider.arena_bytes;
      plan.offsets = std::move(wider.offsets);
      break;
    }
  }
  ScheduleSegments(plan.offsets, most_streams);
}

// The streams that have products, which need a workspace each.
std::vector<int> CudaPlanner::StreamsOfProducts() const {
  std::vector<bool> has_products(out_.device_->num_streams(), false);
  for (const CudaExecutable::Segment& segment : out_.segments_) {
    // It has no streams before it is scheduled.
    for (size_t i = 0; i < segment.schedule.steps.size(); ++i) {
      if (plan_.steps[segment.first + i].kernel.needs_workspace) has_products[segment.schedule.steps[i].stream] = true;
    }
  }
  std::vector<int> streams;
  for (size_t i = 0; i < has_products.size(); ++i) {
    if (has_products[i]) streams.push_back(static_cast<int>(i));
  }
  return streams;
}

// Returns the number of workspaces that the plan's streams still lack.
int CudaPlanner::MissingWorkspaces() const {
  if (out_.device_->platform().workspace_bytes == 0) return 0;
  const std::vector<int> streams = StreamsOfProducts();
  return static_cast<int>(
      std::count_if(streams.begin(), streams.end(), [&](int stream) { return !out_.device_->has_workspace(stream); }));
}

// Streams after the first one only serve speed. Their workspaces must leave room for the arena.
int CudaPlanner::MostStreams(const MemoryPlan& in_order) const {
  const int64_t workspace_bytes = out_.device_->BytesTaken({out_.device_->platform().workspace_bytes});
  int products = 0;
  for (const PlanStep& step : plan_.steps) products += step.is_on(kDevice) && step.kernel.needs_workspace ? 1 : 0;
  const int64_t room = out_.arena_room();
  int streams = out_.device_->num_streams();
  for (; streams > 1; --streams) {
    int missing = std::min(streams, products);
    for (int i = 0; i < streams; ++i) missing -= out_.device_->has_workspace(i) ? 1 : 0;
    if (room - std::max(missing, 0) * workspace_bytes >= in_order.arena_bytes) break;
  }
  return streams;
}

int64_t CudaPlanner::MostArenaBytes(const MemoryPlan& in_order) const {
  const int64_t least = in_order.lower_bound_bytes;
  int64_t most = std::max(in_order.arena_bytes, least + std::max(least / kLeastFraction, kAlwaysBytes));
  if (plan_.options.arena_limit > 0) most = std::min(most, plan_.options.arena_limit);
  return std::min(most, out_.arena_room());
}

// Returns the lifetimes, each extended past all steps that may run beside the buffer's uses, by at
// most `most_steps` steps.
std::vector<BufferLifetime> CudaPlanner::LifetimesBesideOthers(int most_steps) const {
  std::vector<BufferLifetime> lifetimes = arena_.buffers;
  for (const CudaExecutable::Segment& segment : out_.segments_) {
    if (!segment.on_device) continue;
    const std::vector<int> beside = LastBeside(segment.schedule);
    for (int step = segment.first; step < segment.last; ++step) {
      const int later = std::min(segment.first + beside[step - segment.first] - step, most_steps);
      for (int buffer : BuffersOf(step)) lifetimes[buffer].last = std::max(lifetimes[buffer].last, step + later);
    }
  }
  return lifetimes;
}

// The buffers that a step of the device touches.
absl::InlinedVector<int, 8> CudaPlanner::BuffersOf(int step) const {
  absl::InlinedVector<int, 8> buffers;
  auto add = [&](Port port) {
    const ValuePlace& place = plan_.PlaceOf(plan_.Root(port));
    if (place.kind == ValuePlace::kArena) buffers.push_back(place.index);
  };
  for (Port operand : plan_.steps[step].operands) add(operand);
  for (Port output : plan_.steps[step].outputs) add(output);
  if (plan_.steps[step].scratch >= 0) buffers.push_back(plan_.steps[step].scratch);
  return buffers;
}

// Returns the memory that a step of the device accesses: the error flag, variables, and the arena,
// one after another. Feeds and constants are only read, and each stream has its own workspace for
// products.
StepAccess CudaPlanner::AccessOf(int step, absl::Span<const int64_t> offsets) const {
  const PlanStep& current = plan_.steps[step];
  const MemoryRange error_flag = {0, 1};
  auto range = [&](Port root) {
    const ValuePlace& place = plan_.PlaceOf(root);
    const uint64_t begin =
        place.kind == ValuePlace::kVariable ? variables_at_.at(place.variable) : arena_at_ + offsets[place.index];
    return MemoryRange{begin, begin + Bytes(root)};
  };
  StepAccess access;
  for (Port operand : current.operands) {
    const Port root = plan_.Root(operand);
    if (!plan_.PlaceOf(root).is_everywhere()) access.reads.push_back(range(root));
  }
  for (Port output : current.outputs) access.writes.push_back(range(plan_.Root(output)));
  if (current.scratch >= 0) {
    const uint64_t begin = arena_at_ + offsets[current.scratch];
    access.writes.push_back({begin, begin + current.kernel.scratch_bytes});
  }
  // The first report of bad data wins, so the order of reports must not depend on chance.
  if (current.kernel.fallible) access.writes.push_back(error_flag);
  return access;
}

// Schedules the steps for buffers at these offsets in the arena.
void CudaPlanner::ScheduleSegments(absl::Span<const int64_t> offsets, int most_streams) {
  arena_at_ = 1;
  for (const VariableUse& used : plan_.variables) {
    if (used.device != kDevice) continue;
    variables_at_[used.variable] = arena_at_;
    arena_at_ += used.variable->host.byte_size();
  }
  for (CudaExecutable::Segment& segment : out_.segments_) {
    if (!segment.on_device) continue;
    std::vector<StepAccess> accesses;
    for (int step = segment.first; step < segment.last; ++step) accesses.push_back(AccessOf(step, offsets));
    segment.schedule = ScheduleOnStreams(accesses, most_streams);
  }
}

}  // namespace gradweave
