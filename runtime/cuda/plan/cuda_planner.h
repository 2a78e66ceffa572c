// CudaPlanner: how a CudaExecutable is made. Steps, lifetimes and buffers are in cuda_planner.cc, addresses on both
// sides in cuda_planner_memory.cc, streams in cuda_planner_streams.cc.
#ifndef GRADWEAVE_RUNTIME_CUDA_PLAN_CUDA_PLANNER_H_
#define GRADWEAVE_RUNTIME_CUDA_PLAN_CUDA_PLANNER_H_

#include <cstddef>
#include <cstdint>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/container/flat_hash_set.h"
#include "absl/container/inlined_vector.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "gradweave/graph/device_name.h"
#include "gradweave/runtime/cuda/plan/cuda_executable.h"
#include "gradweave/runtime/cuda/fusion/fusion.h"
#include "gradweave/runtime/cuda/fusion/kernel_store.h"
#include "gradweave/runtime/cuda/plan/stream_schedule.h"
#include "gradweave/runtime/plan/memory_plan.h"
#include "gradweave/runtime/cpu/region_steps.h"
#include "gradweave/runtime/plan/value_lifetimes.h"

namespace gradweave {

class CudaPlanner {
 public:
  CudaPlanner(CudaExecutable& executable, const CudaExecutable::Options& options)
      : out_(executable), graph_(executable.graph_), options_(options) {}

  // All that needs no memory.
  absl::Status Plan();
  // The rest. What it has taken when it fails is free again.
  absl::Status Allocate();
  // Device memory that the plan takes and hasn't got, but for the arena.
  int64_t BytesBesideArena() const;

 private:
  using Side = CudaExecutable::Side;
  using Step = CudaExecutable::Step;
  static constexpr size_t kAlignment = CudaExecutable::kAlignment;
  static constexpr Side kHost = CudaExecutable::kHost, kDevice = CudaExecutable::kDevice;

  // Where the elements of a root are.
  struct Place {
    enum Kind { kUnset, kArena, kVariable } kind = kUnset;
    Side side = kHost;
    int buffer = -1;  // Of kArena, in buffers_[side].
    CudaVariables::Variable* variable = nullptr;
  };
  // Feeds up to this size go to the device with the run state, as one copy; larger ones are worth a stream of their
  // own.
  static constexpr size_t kSmallFeedBytes = 64 << 10;

  static bool IsInput(const Node& node) { return node.op->name == "Input"; }
  static bool IsConstant(const Node& node) { return node.op->name == "Constant"; }
  static bool IsVariable(const Node& node) { return node.op->name == "Variable"; }
  static size_t RoundUp(size_t bytes) { return (bytes + kAlignment - 1) / kAlignment * kAlignment; }
  Side SideOf(const Node& node) const { return IsCudaDevice(node.device) ? kDevice : kHost; }
  // Inputs and constants are on both sides.
  bool IsEverywhere(Port root) const { return IsInput(graph_.node(root.node)) || IsConstant(graph_.node(root.node)); }
  Port Root(Port port) const { return values_.Root(port); }
  Place& PlaceOf(Port root) { return places_[root.node][root.output]; }
  const Place& PlaceOf(Port root) const { return places_[root.node][root.output]; }
  bool IsSmallFeed(Port port) const { return Bytes(port) <= kSmallFeedBytes; }
  // Where constants begin in the device's memory; the arena comes after them.
  size_t ConstantsAt() const { return kAlignment + out_.staged_bytes_ + 2 * large_feed_bytes_; }
  size_t ArenaAt() const { return ConstantsAt() + constant_bytes_; }
  size_t SlotBytes() const { return out_.staged_bytes_ + large_feed_bytes_; }
  size_t Bytes(Port port) const;

  // What a part runs: groups on the device, regions on the CPU, by ports of the part.
  struct PartSteps {
    FusionPlan fusion;
    std::vector<KernelStore::GroupKernels> generated;  // By group.
    RegionSteps regions;
  };
  absl::Status MakeSteps();
  absl::Status FindGroups(std::vector<PartSteps>& steps);
  absl::StatusOr<std::vector<PartSteps>> FindPartSteps();
  absl::Status AddStep(const Node& node);
  absl::Status AddDevicePart(const DevicePart& part, const PartSteps& steps);
  void AddGroupStep(const DevicePart& part, const FusedGroup& group, const KernelStore::GroupKernels& generated);
  void AddRegionStep(const DevicePart& part, RegionStep planned);
  void AddTables(const Node& node, int aliased);
  bool IsTransfer(const Node& node) const;
  void MarkAssignedVariables();
  void PlaceAssignmentsInVariables();
  void AddCopiesOfVariables();
  void AssignBuffers();
  bool UsesDevice() const;
  void MakeSegments();

  void FindSources();
  void PlanArenas();
  absl::Status AllocateOnDevice();
  void PlaceFeedsAndConstants();
  absl::Status OutOfMemory(const absl::Status& status) const;
  absl::Status PrepareDevice();
  void* Address(Port root, Side side);
  std::byte* BufferAddress(int buffer, Side side) const;
  int AddPointer(Port port, Side side);
  absl::Status Bind();

  MemoryPlan PlanDeviceArena();
  std::vector<int> StreamsOfProducts() const;
  int64_t BytesOfWorkspaces() const;
  int MostStreams(const MemoryPlan& in_order) const;
  int64_t MostArenaBytes(const MemoryPlan& in_order) const;
  std::vector<BufferLifetime> LifetimesBesideOthers(int most_steps) const;
  absl::InlinedVector<int, 8> BuffersOf(int step) const;
  StepAccess AccessOf(int step, absl::Span<const int64_t> offsets) const;
  void ScheduleSegments(absl::Span<const int64_t> offsets, int most_streams);

  CudaExecutable& out_;
  Graph& graph_;
  const CudaExecutable::Options options_;

  ValueLifetimes values_;
  std::vector<absl::InlinedVector<Place, 1>> places_;  // By node and output, of roots.
  std::vector<int> step_of_;                           // By node; -1: no step.
  absl::flat_hash_set<Port> tiled_;                    // Values that regions of the CPU keep in tiles.
  std::vector<Assignment> assignments_;
  std::vector<BufferLifetime> buffers_[2];  // By side: of values, then scratch.
  std::vector<Port> owners_[2];             // Of each buffer of values, the one that it was made for.
  MemoryPlan plans_[2];
  std::vector<Port> device_inputs_, device_constants_;  // What the device reads of them.
  absl::flat_hash_map<Port, std::byte*> sources_;       // Where they are on the device.
  absl::flat_hash_map<NodeId, int> feeds_;              // The number of the feed, by input.
  std::vector<int> scratch_;                            // By step, its buffer for scratch; -1: none.
  size_t constant_bytes_ = 0, large_feed_bytes_ = 0;
  // Where AccessOf puts things.
  absl::flat_hash_map<const CudaVariables::Variable*, uint64_t> variables_at_;
  uint64_t arena_at_ = 0;
};

}  // namespace gradweave

#endif  // GRADWEAVE_RUNTIME_CUDA_PLAN_CUDA_PLANNER_H_
