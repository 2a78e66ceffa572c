// CudaPlanner: how a CudaExecutable is made of a plan. Memory and addresses are in cuda_planner.cc, streams in
// cuda_planner_streams.cc.
#ifndef GRADWEAVE_RUNTIME_CUDA_PLAN_CUDA_PLANNER_H_
#define GRADWEAVE_RUNTIME_CUDA_PLAN_CUDA_PLANNER_H_

#include <cstddef>
#include <cstdint>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/container/inlined_vector.h"
#include "absl/status/status.h"
#include "absl/types/span.h"
#include "gradweave/graph/alignment.h"
#include "gradweave/runtime/cuda/plan/cuda_executable.h"
#include "gradweave/runtime/cuda/plan/stream_schedule.h"
#include "gradweave/runtime/plan/plan.h"

namespace gradweave {

class CudaPlanner {
 public:
  explicit CudaPlanner(CudaExecutable& executable);

  // All that needs no memory: segments, streams and the device's arena.
  void PlanDevice();
  // The rest. What it has taken when it fails is free again.
  absl::Status Allocate();
  // Device memory that the plan takes and hasn't got, but for the arena.
  int64_t BytesBesideArena() const;

 private:
  static constexpr int kDevice = CudaExecutable::kDevice;
  // Feeds up to this size go to the device with the run state, as one copy; larger ones are worth a stream of their
  // own.
  static constexpr size_t kSmallFeedBytes = 64 << 10;

  static size_t Aligned(size_t bytes) { return RoundUp(bytes, kCudaAlignment); }
  size_t Bytes(Port port) const { return static_cast<size_t>(plan_.Bytes(port)); }
  bool IsSmallFeed(Port port) const { return Bytes(port) <= kSmallFeedBytes; }
  // Where constants begin in the device's memory; the arena comes after them.
  size_t ConstantsAt() const { return kCudaAlignment + out_.staged_bytes_ + 2 * large_feed_bytes_; }
  size_t ArenaAt() const { return ConstantsAt() + constant_bytes_; }
  size_t SlotBytes() const { return out_.staged_bytes_ + large_feed_bytes_; }

  void MeasureSources();
  void MakeSegments();
  absl::Status AllocateOnDevice();
  void PlaceFeedsAndConstants();
  absl::Status OutOfMemory(const absl::Status& status) const;
  absl::Status PrepareDevice();
  void* DeviceAddress(Port root) const;
  void Bind();

  void PlanDeviceArena();
  std::vector<int> StreamsOfProducts() const;
  int64_t BytesOfWorkspaces() const;
  int MostStreams(const MemoryPlan& in_order) const;
  int64_t MostArenaBytes(const MemoryPlan& in_order) const;
  std::vector<BufferLifetime> LifetimesBesideOthers(int most_steps) const;
  absl::InlinedVector<int, 8> BuffersOf(int step) const;
  StepAccess AccessOf(int step, absl::Span<const int64_t> offsets) const;
  void ScheduleSegments(absl::Span<const int64_t> offsets, int most_streams);

  CudaExecutable& out_;
  Plan& plan_;
  Arena& arena_;                                   // The device's.
  absl::flat_hash_map<Port, std::byte*> sources_;  // Where feeds and constants are on the device.
  size_t constant_bytes_ = 0, large_feed_bytes_ = 0;
  // Where AccessOf puts things.
  absl::flat_hash_map<const Variable*, uint64_t> variables_at_;
  uint64_t arena_at_ = 0;
};

}  // namespace gradweave

#endif  // GRADWEAVE_RUNTIME_CUDA_PLAN_CUDA_PLANNER_H_
