// CudaPlanner makes a CudaExecutable from a plan. cuda_planner.cc has memory and addresses, and
// cuda_planner_streams.cc has streams.
#ifndef GRADWEAVE_RUNTIME_CUDA_PLAN_CUDA_PLANNER_H_
#define GRADWEAVE_RUNTIME_CUDA_PLAN_CUDA_PLANNER_H_

#include <cstddef>
#include <cstdint>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/container/inlined_vector.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "gradweave/graph/alignment.h"
#include "gradweave/runtime/cuda/plan/cuda_executable.h"
#include "gradweave/runtime/cuda/plan/stream_schedule.h"
#include "gradweave/runtime/plan/plan.h"

namespace gradweave {

class CudaPlanner {
 public:
  explicit CudaPlanner(CudaExecutable& executable);

  // Plans segments, streams and the device's arena; allocates nothing.
  void PlanDevice();
  // Allocates memory and binds addresses. After an error, it has freed everything again.
  absl::Status Allocate();
  // Gives steps, feeds and results their addresses in the memory that the plan holds.
  void Bind();
  // Bytes that the arena may take in the device's memory beside all else that the plan lacks there.
  absl::StatusOr<int64_t> ArenaRoom() const;

 private:
  static constexpr int kDevice = CudaExecutable::kDevice;
  // Feeds up to this size go to the device with the run state, as one copy; larger ones are worth a
  // stream of their own.
  static constexpr size_t kSmallFeedBytes = 64 << 10;
  // Constants up to this size are copied for each plan, because separate allocations would take
  // longer.
  static constexpr size_t kSmallConstantBytes = 64 << 10;

  static size_t Aligned(size_t bytes) { return RoundUp(bytes, kCudaAlignment); }
  size_t Bytes(Port port) const { return static_cast<size_t>(plan_.Bytes(port)); }
  bool IsSmallFeed(Port port) const { return Bytes(port) <= kSmallFeedBytes; }
  const Tensor& ValueOf(Port constant) const { return plan_.graph.node(constant.node).attribute<Tensor>("value"); }
  // Plans share the memory of larger constants.
  bool IsSmallConstant(Port port) const { return Bytes(port) <= kSmallConstantBytes; }
  // The offset of small constants in the plan's own memory, and the end of that memory.
  size_t ConstantsAt() const { return kCudaAlignment + out_.staged_bytes_; }
  size_t OwnBytes() const { return ConstantsAt() + small_constant_bytes_; }
  // The offset of the arena in the memory that plans share.
  size_t ArenaAt() const { return 2 * large_feed_bytes_; }
  size_t SharedBytes() const { return ArenaAt() + Aligned(static_cast<size_t>(arena_.run_bytes())); }
  size_t PinnedBytes() const;
  size_t SlotBytes() const { return out_.staged_bytes_ + large_feed_bytes_; }

  void MeasureSources();
  void MakeSegments();
  absl::Status AllocatePinned();
  absl::Status AllocateOnDevice();
  void PlaceFeedsAndConstants();
  absl::Status OutOfMemory(const absl::Status& status) const;
  absl::Status PrepareDevice();
  void* DeviceAddress(Port root) const;

  void PlanDeviceArena();
  std::vector<int> StreamsOfProducts() const;
  int MissingWorkspaces() const;
  int MostStreams(const MemoryPlan& in_order) const;
  int64_t MostArenaBytes(const MemoryPlan& in_order) const;
  std::vector<BufferLifetime> LifetimesBesideOthers(int most_steps) const;
  absl::InlinedVector<int, 8> BuffersOf(int step) const;
  StepAccess AccessOf(int step, absl::Span<const int64_t> offsets) const;
  void ScheduleSegments(absl::Span<const int64_t> offsets, int most_streams);

  CudaExecutable& out_;
  Plan& plan_;
  Arena& arena_;                                   // The device's arena.
  absl::flat_hash_map<Port, std::byte*> sources_;  // The addresses of feeds and constants on the device.
  size_t constant_bytes_ = 0, small_constant_bytes_ = 0, large_feed_bytes_ = 0;
  // The addresses that AccessOf assigns.
  absl::flat_hash_map<const Variable*, uint64_t> variables_at_;
  uint64_t arena_at_ = 0;
};

}  // namespace gradweave

#endif  // GRADWEAVE_RUNTIME_CUDA_PLAN_CUDA_PLANNER_H_
