// CudaExecutable: a plan that runs on a CUDA device, and partly on the CPU.
#ifndef GRADWEAVE_RUNTIME_CUDA_PLAN_CUDA_EXECUTABLE_H_
#define GRADWEAVE_RUNTIME_CUDA_PLAN_CUDA_EXECUTABLE_H_

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "gradweave/runtime/cuda/plan/cuda_device.h"
#include "gradweave/runtime/cuda/plan/stream_schedule.h"
#include "gradweave/runtime/plan/binding.h"
#include "gradweave/runtime/plan/compiled_graph.h"
#include "gradweave/runtime/plan/shared_memory.h"

namespace gradweave {

class CudaPlanner;
class CudaTimeline;

// Steps on the device are enqueued in order; independent steps run on several streams
// (StreamSchedule). A step of the CPU, or a copy to the CPU, waits for them. Consecutive steps of
// the device make a segment, which begins and ends on the device's first stream. The second run
// captures it into a CUDA graph, which later runs replay: all addresses belong to the plan, and the
// values that change between runs (feeds, seed and run number) are copied into the device's memory
// first.
//
// A plan has device memory of its own: error flag | run state and small feeds | small constants; it
// shares large constants with other plans that have them. All plans of the session use other memory
// in turn (SharedMemory): large feeds | large feeds of the next run | arena. They also share pinned
// memory: error flag | two slots | fetched values. If that memory has moved since the last run, the
// plan takes the new addresses and captures its CUDA graphs again.
//
// A plan with a single CUDA graph may be started again before its run has ended. Feeds, seed and
// run number are in one of two slots of pinned memory, which is free again when the device has
// copied it. Large feeds go to the device on a stream of their own while the previous run is in
// progress, and to their places when it has ended. After bad data the error flag stays set, so that
// later runs change no variables.
//
// Variables change all or not at all, even after failures: in replayed runs, only the last graph
// writes them. This is one call, and its last copy shows that it has completed. A run that is not
// replayed consists of many calls. Before it, the variables that it changes are copied to the host,
// and these values apply if it fails.
//
// RunOptions can stop a run when the host waits for the device, before a segment or a step of the
// CPU, until the first step that writes a variable in place. Work that is already enqueued still
// completes.
class CudaExecutable : public CompiledGraph {
 public:
  // Call Allocate before the first run.
  static std::unique_ptr<CudaExecutable> Create(std::unique_ptr<Plan> plan, std::shared_ptr<CudaDevice> device);
  ~CudaExecutable() override;

  absl::Status Allocate() override;
  int64_t arena_room() const override;

  // Bad data for a kernel of the device is an OutOfRange error that names the node. After a failure
  // of the device itself, either all variables have their old values or all have their new values;
  // the message says which. If this is unknown, variables with a value on the host return to it,
  // and the others are lost (Variables); the message says so. The old values are the values before
  // the first started run.
  absl::Status Run(absl::Span<const void* const> feeds, absl::Span<Tensor> results, ThreadPool& pool, uint64_t seed,
                   uint64_t run_number, Profiler* profiler = nullptr, const RunOptions& options = {}) override;
  absl::Status Start(absl::Span<const void* const> feeds, absl::Span<Tensor> results, ThreadPool& pool, uint64_t seed,
                     uint64_t run_number, const RunOptions& options = {}) override;
  absl::Status Finish(absl::Span<Tensor> results) override;
  // Describes each step with its device and kernel, the number of CUDA graphs, how the CPU's
  // regions run, and the nodes that run on the CPU because the device has no kernel.
  std::string Describe() const override;

 private:
  friend class CudaPlanner;
  CudaExecutable(std::unique_ptr<Plan> plan, std::shared_ptr<CudaDevice> device);

  static constexpr int kDevice = 1;  // The CUDA device among the plan's; the CPU is 0.

  // Steps [first, last): several steps of the device, or one other step.
  struct Segment {
    int first, last;
    bool on_device;
    StreamSchedule schedule = {};  // The device's steps.
    CudaGraph graph = nullptr;     // Null before the second run.
  };
  struct DeviceFeed {
    int feed;
    size_t bytes;
    size_t offset;        // The offset in a slot.
    std::byte* device;    // The address that kernels read.
    std::byte* next_run;  // The memory of a large feed from the host; null if the feed comes with the run state.
  };
  // Pinned memory for a CudaRunState, the small feeds, and the large ones.
  struct Slot {
    std::byte* data = nullptr;
    CudaEvent taken = nullptr;  // Completes when the device has copied all of it to the final places.
    bool is_used = false;       // `taken` has been recorded.
  };
  // The place of a fetched value after all steps: in pinned memory, or at a pointer of the CPU.
  struct ResultCopy {
    const void* pinned;  // Null if it is at the pointer.
    int pointer;
    size_t bytes;
  };

  absl::Status HoldMemory();
  void DestroyGraphs();
  CudaContext Context(int stream = 0) const;
  absl::Status RunSteps(absl::Span<const void* const> feeds, ThreadPool& pool, uint64_t seed, uint64_t run_number,
                        Profiler* profiler, const RunOptions& options);
  absl::Status AfterFailure(const absl::Status& failure, bool replayed, bool started = false);
  void TakeNewValues();
  absl::Status EnqueueInputs(absl::Span<const void* const> feeds, uint64_t seed, uint64_t run_number);
  absl::Status EnqueueLargeFeed(const DeviceFeed& feed, const void* from, std::byte* pinned);
  bool MayStart() const;
  void CopyResults(absl::Span<Tensor> results) const;
  absl::Status EnqueueKernel(int index, int stream) const;
  absl::Status RunTransfer(int index, CudaTimeline* timeline) const;
  absl::Status RunStepBesideDevice(int index, ThreadPool& pool, uint64_t seed, uint64_t run_number, Profiler* profiler,
                                   CudaTimeline* timeline, const RunOptions* options);
  static int StreamOf(const Segment& segment, int step);
  static int BeginMark(const Segment& segment, int step);
  absl::Status EnqueueStep(const Segment& segment, int index, CudaTimeline* timeline);
  absl::Status EnqueueSegment(int index, CudaTimeline* timeline);
  absl::Status LaunchSegment(int index, CudaTimeline* timeline, std::vector<CudaGraph>& graphs);
  absl::StatusOr<CudaGraph> CaptureSegment(int index, CudaTimeline* timeline);
  void Capture();
  void GoWithoutGraphs(const absl::Status& reason);
  absl::Status TakeTimes(const CudaTimeline& timeline, Profiler& profiler);
  absl::Status EnqueueEpilogue() const;
  absl::Status StatusOfData();
  absl::Status DataErrorSoFar();

  const std::shared_ptr<CudaDevice> device_;
  std::vector<Segment> segments_;
  Binding binding_;
  std::vector<DeviceFeed> device_feeds_;
  std::vector<ResultCopy> result_copies_;
  std::vector<Binding::Update> variable_copies_;  // Variables on the CPU.
  struct Fetch {
    const void* device;
    void* pinned;
    size_t bytes;
  };
  std::vector<Fetch> device_fetches_;
  std::vector<CudaCommit> commits_;

  std::shared_ptr<std::byte> memory_;                  // On the device: the plan's own memory.
  std::vector<std::shared_ptr<std::byte>> constants_;  // On the device: large constants.
  MemoryClaim host_claim_, shared_claim_, pinned_claim_;
  // The addresses of the claims' memory when they were last held.
  std::byte *host_arena_ = nullptr, *shared_ = nullptr, *pinned_ = nullptr;
  std::byte* device_arena_ = nullptr;  // In shared_.
  bool is_bound_ = false;              // The steps have the addresses of this memory.
  Slot slots_[2];
  int next_slot_ = 0;
  size_t staged_bytes_ = 0;          // Bytes of the run state and small feeds.
  int32_t* pinned_error_ = nullptr;  // The host's copy of the error flag.
  CudaEvent feeds_ready_ = nullptr;  // Completes when large feeds are on the device.
  std::vector<CudaEvent> events_;    // Events between streams, indexed by their numbers in schedules.
  bool uses_device_ = false;
  const std::shared_ptr<CudaPlanner> planner_;
  bool has_memory_ = false;
  bool has_run_ = false;  // True after the first complete run.
  bool captured_ = false;
  bool may_capture_ = true;             // False after a capture has failed.
  absl::Status capture_failure_;        // The failure that is still to be reported.
  bool error_is_clear_ = true;          // The flag on the device, except for runs in progress.
  bool is_under_way_ = false;           // True if a run was started and not waited for.
  bool last_segment_launched_ = false;  // Refers to the run in progress or the latest one.
  double device_microseconds_ = 0;      // From the first to the last device step of the latest profiled run.
};

}  // namespace gradweave

#endif  // GRADWEAVE_RUNTIME_CUDA_PLAN_CUDA_EXECUTABLE_H_
