// CudaExecutable: a graph compiled for a CUDA device, parts of which may run on the CPU.
#ifndef GRADWEAVE_RUNTIME_CUDA_PLAN_CUDA_EXECUTABLE_H_
#define GRADWEAVE_RUNTIME_CUDA_PLAN_CUDA_EXECUTABLE_H_

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "absl/container/inlined_vector.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "gradweave/graph/graph.h"
#include "gradweave/graph/partition/device_parts.h"
#include "gradweave/graph/passes/placement.h"
#include "gradweave/runtime/cpu/compile_options.h"
#include "gradweave/runtime/plan/compiled_graph.h"
#include "gradweave/runtime/cuda/plan/cuda_device.h"
#include "gradweave/runtime/cuda/plan/stream_schedule.h"
#include "gradweave/runtime/kernel/kernel.h"

namespace gradweave {

class CudaPlanner;
class CudaTimeline;

// Whether the device of that backend has a kernel for the node: what Place asks.
absl::Status CheckCudaKernel(const CudaBackend& backend, const Graph& graph, const Node& node);

// Steps on the device are enqueued in order, those that don't need each other on several streams (StreamSchedule); a
// step of the CPU, or a copy to the CPU, waits for them. Steps of the device between two others make a segment, which
// begins and ends on the device's first stream. It is captured into a CUDA graph at the second run, and replayed from
// then on: all addresses are those of the plan, and what changes between runs (feeds, seed and run number) is copied
// into the device's memory first. All of a plan's device memory is one allocation:
// error flag | run state and small feeds | large feeds | large feeds of the next run | constants | arena.
//
// A plan of one graph may be started again before it has ended. What the host has of feeds, seed and run number is in
// one of two slots of pinned memory, which is free again when the device has taken it. Large feeds go to the device on
// a stream of their own, while the run before is under way, and to their places when that has ended. The error flag
// stays set, so that the runs that follow change no variables.
//
// Variables change all or not at all, whatever fails: when runs are replayed, the last graph alone writes them, which
// is one call, and its last copy tells that it came to its end. A run that is not replayed is many calls; before it,
// variables that it changes are brought to the host, whose values hold if it fails.
class CudaExecutable : public CompiledGraph {
 public:
  struct Options {
    const KernelRegistry* cpu_kernels;
    CompileOptions cpu = {};  // Of what the CPU runs; whether rows are fused, on the device too.
    ProductPrecision product_precision = ProductPrecision::kIeee;
    int64_t memory_budget =
        0;  // Bytes that the arena does not go beyond for the sake of speed; 0: as many as there are.
  };
  // The placed graph has the outputs kFetches and kUpdates and known shapes throughout. The variables live as long as
  // this. Allocate comes before the first run. InvalidArgument where a variable is assigned twice, Unimplemented where
  // an op has no kernel.
  static absl::StatusOr<std::unique_ptr<CudaExecutable>> Compile(Placement placement,
                                                                 std::shared_ptr<CudaDevice> device,
                                                                 std::shared_ptr<CudaVariables> variables,
                                                                 const Options& options);
  ~CudaExecutable() override;

  absl::Status Allocate() override;
  int64_t arena_room() const override;

  const std::vector<std::string>& input_names() const override { return input_names_; }
  // Data that kernels of the device refuse is an OutOfRange error that names the node. After a failure of the device
  // itself all variables are as before, or all have their new values, which the message says. Where nobody can know,
  // those that the host has are as before, and the others are lost (CudaVariables); the message says that too. Of runs
  // that were started, "before" is then before the first of them.
  absl::Status Run(absl::Span<const void* const> feeds, absl::Span<Tensor> results, ThreadPool& pool, uint64_t seed,
                   uint64_t run_number, Profiler* profiler = nullptr) override;
  absl::Status Start(absl::Span<const void* const> feeds, absl::Span<Tensor> results, ThreadPool& pool, uint64_t seed,
                     uint64_t run_number) override;
  absl::Status Finish(absl::Span<Tensor> results) override;
  const Graph& graph() const override { return graph_; }
  // Of the device.
  int64_t arena_bytes() const override { return arena_bytes_[kDevice]; }
  // Each step with its device and kernel, how many CUDA graphs replay the plan, how the CPU's regions run, and what it
  // runs for want of a kernel.
  std::string Describe() const override;

 private:
  friend class CudaPlanner;
  CudaExecutable() = default;

  static constexpr size_t kAlignment = 256;  // Of the parts of device memory.

  enum Side { kHost, kDevice };
  struct Step {
    // Of the CPU; of the device; copies between the two, which have one operand and one output.
    enum Kind { kOnHost, kOnDevice, kToDevice, kToHost } kind;
    Kernel kernel;
    NodeId node;    // Of a group of nodes, the last.
    int num_nodes;  // One, or those of a group.
    absl::InlinedVector<Port, 3> operands = {};
    absl::InlinedVector<Port, 2> outputs = {};
    int first_operand = 0;  // In pointers_, followed by the outputs.
    std::byte* scratch = nullptr;
    double microseconds = 0;  // Of the latest profiled run; on the device's clock, but for steps of the CPU.

    bool on_device() const { return kind == kOnDevice; }
    Side operand_side() const { return kind == kOnDevice || kind == kToHost ? kDevice : kHost; }
    Side output_side() const { return kind == kOnDevice || kind == kToDevice ? kDevice : kHost; }
  };
  // Steps [first, last): of the device alone, or one that is not.
  struct Segment {
    int first, last;
    bool on_device;
    StreamSchedule schedule = {};  // Of steps of the device.
    CudaGraph graph = nullptr;     // From the second run on.
  };
  struct DeviceFeed {
    int feed;
    size_t bytes;
    size_t offset;        // In a slot.
    std::byte* device;    // Where kernels read it.
    std::byte* next_run;  // Of a large one, where it comes from the host; null: it comes with the run state.
  };
  // Pinned memory for a CudaRunState, the small feeds, and the large ones.
  struct Slot {
    std::byte* data = nullptr;
    CudaEvent taken = nullptr;  // The device has copied all of it, and has large feeds in their places.
    bool is_used = false;       // `taken` has been recorded.
  };
  // From memory of the CPU, or pinned memory, when all steps are done.
  struct HostCopy {
    const void* from;  // Null: pointers_[pointer].
    int pointer;
    void* to;    // Null: the result of that index.
    int result;  // Or -1.
    size_t bytes;
  };
  struct FeedPatch {
    int pointer;
    int feed;
  };
  struct UsedVariable {
    CudaVariables::Variable* variable;
    Side side;
    bool assigned;
  };

  CudaContext Context(int stream = 0) const;
  absl::Status RunSteps(absl::Span<const void* const> feeds, ThreadPool& pool, uint64_t seed, uint64_t run_number,
                        Profiler* profiler);
  absl::Status AfterFailure(const absl::Status& failure, bool replayed, bool started = false);
  void TakeNewValues();
  absl::Status EnqueueInputs(absl::Span<const void* const> feeds, uint64_t seed, uint64_t run_number);
  bool MayStart() const;
  void CopyResults(absl::Span<Tensor> results) const;
  absl::Status RunStep(const Step& step, int stream, ThreadPool* pool, uint64_t seed, uint64_t run_number);
  absl::Status RunStepBesideDevice(int index, ThreadPool& pool, uint64_t seed, uint64_t run_number, Profiler* profiler,
                                   CudaTimeline* timeline);
  static int StreamOf(const Segment& segment, int step);
  static int BeginMark(const Segment& segment, int step);
  absl::Status EnqueueStep(const Segment& segment, int index, CudaTimeline* timeline);
  absl::Status EnqueueSegment(int index, CudaTimeline* timeline);
  absl::StatusOr<CudaGraph> CaptureSegment(int index, CudaTimeline* timeline);
  void Capture();
  void GoWithoutGraphs(const absl::Status& reason);
  absl::Status TakeTimes(const CudaTimeline& timeline, Profiler& profiler);
  absl::Status EnqueueEpilogue() const;
  absl::Status StatusOfData();
  absl::Status DataErrorSoFar();
  absl::Status WithNode(const absl::Status& status, const Step& step) const;

  Graph graph_;
  std::shared_ptr<CudaDevice> device_;
  std::shared_ptr<CudaVariables> variables_;
  ProductPrecision product_precision_ = ProductPrecision::kIeee;
  std::vector<std::string> moved_;    // What the CPU runs for want of a kernel.
  std::vector<std::string> choices_;  // How the CPU's regions run, and why.
  DeviceParts parts_;                 // Of graph_; kernels may refer to them.

  std::vector<Step> steps_;
  std::vector<Segment> segments_;
  std::vector<void*> pointers_;
  std::vector<FeedPatch> feed_patches_;
  std::vector<DeviceFeed> device_feeds_;
  std::vector<HostCopy> result_copies_, variable_copies_;
  struct Fetch {
    const void* device;
    void* pinned;
    size_t bytes;
  };
  std::vector<Fetch> device_fetches_;
  std::vector<CudaCommit> commits_;
  std::vector<UsedVariable> used_variables_;
  std::vector<std::string> input_names_;

  CudaMemory memory_, pinned_;
  std::shared_ptr<std::byte> host_arena_;
  Slot slots_[2];
  int next_slot_ = 0;
  size_t staged_bytes_ = 0;          // Of the run state and small feeds.
  int32_t* pinned_error_ = nullptr;  // Read back.
  int64_t arena_bytes_[2] = {0, 0};
  int64_t lower_bound_bytes_[2] = {0, 0};
  CudaEvent feeds_ready_ = nullptr;  // Large ones are on the device.
  std::vector<CudaEvent> events_;    // Between streams, by their numbers in schedules.
  bool uses_device_ = false;
  std::shared_ptr<CudaPlanner> planner_;  // Until the plan has its memory.
  bool has_run_ = false;                  // To the end, at least once.
  bool captured_ = false;
  bool may_capture_ = true;             // Until a capture has failed.
  absl::Status capture_failure_;        // That is still to be told.
  bool error_is_clear_ = true;          // On the device, but for runs under way.
  bool is_under_way_ = false;           // A run that was started and not waited for.
  bool last_segment_launched_ = false;  // Of the run that goes on, or was asked for.
  double device_microseconds_ = 0;      // Of the latest profiled run, from its first step on the device to its last.
};

}  // namespace gradweave

#endif  // GRADWEAVE_RUNTIME_CUDA_PLAN_CUDA_EXECUTABLE_H_
