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

// Steps on the device are enqueued in order, those that don't need each other on several streams
// (StreamSchedule); a step of the CPU, or a copy to the CPU, waits for them. Steps of the device
// between two others make a segment, which begins and ends on the device's first stream. It is
// captured into a CUDA graph at the second run, and replayed from then on: all addresses are those
// of the plan, and what changes between runs (feeds, seed and run number) is copied into the
// device's memory first.
//
// A plan has device memory of its own: error flag | run state and small feeds | small constants; it
// shares large constants with plans that have them too. What a run leaves behind is in memory that
// all plans of the session use in turn (SharedMemory): large feeds | large feeds of the next run |
// arena. So is its pinned memory: error flag | two slots | fetched values. If that memory has moved
// since the last run, the plan takes the new addresses and captures its CUDA graphs again.
//
// A plan of one graph may be started again before it has ended. What the host has of feeds, seed
// and run number is in one of two slots of pinned memory, which is free again when the device has
// taken it. Large feeds go to the device on a stream of their own, while the run before is under
// way, and to their places when that has ended. The error flag stays set, so that the runs that
// follow change no variables.
//
// Variables change all or not at all, even after failures: when runs are replayed, only the last
// graph writes them, which is one call, and its last copy tells that it came to its end. A run that
// is not replayed is many calls; before it, variables that it changes are brought to the host,
// whose values hold if it fails.
//
// RunOptions can stop a run where the host waits for the device, before a segment or a step of the
// CPU, until the first step that writes a variable in place. What the device was given before comes
// to its end.
class CudaExecutable : public CompiledGraph {
 public:
  // Allocate comes before the first run.
  static std::unique_ptr<CudaExecutable> Create(std::unique_ptr<Plan> plan, std::shared_ptr<CudaDevice> device);
  ~CudaExecutable() override;

  absl::Status Allocate() override;
  int64_t arena_room() const override;

  // Data that kernels of the device refuse is an OutOfRange error that names the node. After a
  // failure of the device itself all variables are as before, or all have their new values, which
  // the message says. Where nobody can know, those that the host has are as before, and the others
  // are lost (Variables); the message says that too. Of runs that were started, "before" is then
  // before the first of them.
  absl::Status Run(absl::Span<const void* const> feeds, absl::Span<Tensor> results, ThreadPool& pool, uint64_t seed,
                   uint64_t run_number, Profiler* profiler = nullptr, const RunOptions& options = {}) override;
  absl::Status Start(absl::Span<const void* const> feeds, absl::Span<Tensor> results, ThreadPool& pool, uint64_t seed,
                     uint64_t run_number, const RunOptions& options = {}) override;
  absl::Status Finish(absl::Span<Tensor> results) override;
  // Each step with its device and kernel, how many CUDA graphs replay the plan, how the CPU's
  // regions run, and what it runs for want of a kernel.
  std::string Describe() const override;

 private:
  friend class CudaPlanner;
  CudaExecutable(std::unique_ptr<Plan> plan, std::shared_ptr<CudaDevice> device);

  static constexpr int kDevice = 1;  // The CUDA device among the plan's; the CPU is 0.

  // Steps [first, last): of the device alone, or one that is not.
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
    CudaEvent taken = nullptr;  // The device has copied all of it, and has large feeds in their places.
    bool is_used = false;       // `taken` has been recorded.
  };
  // A fetched value, when all steps are done: in pinned memory, or where a pointer of the CPU says.
  struct ResultCopy {
    const void* pinned;  // Null: the pointer's.
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

  std::shared_ptr<std::byte> memory_;                  // On the device: what is the plan's own.
  std::vector<std::shared_ptr<std::byte>> constants_;  // On the device: large ones.
  MemoryClaim host_claim_, shared_claim_, pinned_claim_;
  // The addresses of the claims' memory when they were last held.
  std::byte *host_arena_ = nullptr, *shared_ = nullptr, *pinned_ = nullptr;
  std::byte* device_arena_ = nullptr;  // In shared_.
  bool is_bound_ = false;              // Addresses are those of this memory.
  Slot slots_[2];
  int next_slot_ = 0;
  size_t staged_bytes_ = 0;          // The run state and small feeds.
  int32_t* pinned_error_ = nullptr;  // Read back.
  CudaEvent feeds_ready_ = nullptr;  // Large ones are on the device.
  std::vector<CudaEvent> events_;    // Between streams, by their numbers in schedules.
  bool uses_device_ = false;
  const std::shared_ptr<CudaPlanner> planner_;
  bool has_memory_ = false;
  bool has_run_ = false;  // True after the first complete run.
  bool captured_ = false;
  bool may_capture_ = true;             // Until a capture has failed.
  absl::Status capture_failure_;        // The failure that is still to be reported.
  bool error_is_clear_ = true;          // The flag on the device, except for runs in progress.
  bool is_under_way_ = false;           // A run that was started and not waited for.
  bool last_segment_launched_ = false;  // Refers to the run in progress or the latest one.
  double device_microseconds_ = 0;      // The latest profiled run, from its first step on the device to its last.
};

}  // namespace gradweave

#endif  // GRADWEAVE_RUNTIME_CUDA_PLAN_CUDA_EXECUTABLE_H_
