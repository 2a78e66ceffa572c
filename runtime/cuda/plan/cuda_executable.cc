#include "gradweave/runtime/cuda/plan/cuda_executable.h"

#include <algorithm>
#include <cstring>
#include <string>
#include <utility>
#include <vector>

#include "absl/cleanup/cleanup.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_join.h"
#include "gradweave/graph/check.h"
#include "gradweave/runtime/cuda/api/tell_once.h"
#include "gradweave/runtime/cuda/plan/cuda_planner.h"
#include "gradweave/runtime/cuda/plan/cuda_timeline.h"
#include "gradweave/runtime/kernel/float_state.h"
#include "gradweave/runtime/plan/describe_plan.h"

namespace gradweave {
namespace {

// Feeds go to pinned memory in pieces, so that the device reads one while the next is written.
constexpr size_t kPieceBytes = 1 << 20;

// The value of the host's copy of the error flag before the device overwrites it at the end of a
// run.
constexpr int32_t kNotAtEnd = -1;

}  // namespace

CudaExecutable::CudaExecutable(std::unique_ptr<Plan> plan, std::shared_ptr<CudaDevice> device)
    : CompiledGraph(std::move(plan)), device_(std::move(device)), planner_(std::make_shared<CudaPlanner>(*this)) {}

std::unique_ptr<CudaExecutable> CudaExecutable::Create(std::unique_ptr<Plan> plan, std::shared_ptr<CudaDevice> device) {
  std::unique_ptr<CudaExecutable> executable(new CudaExecutable(std::move(plan), std::move(device)));
  executable->planner_->PlanDevice();
  return executable;
}

absl::Status CudaExecutable::Allocate() {
  if (has_memory_) return absl::OkStatus();
  GW_RETURN_IF_ERROR(planner_->Allocate());
  has_memory_ = true;
  return absl::OkStatus();
}

// Other plans may have moved the memory since the last run.
absl::Status CudaExecutable::HoldMemory() {
  GW_RETURN_IF_ERROR(device_->SettleOthers(this));
  auto hold = [this](MemoryClaim& claim, std::byte*& address) -> absl::Status {
    GW_ASSIGN_OR_RETURN(std::byte* const now, claim.Hold());
    is_bound_ &= now == address;
    address = now;
    return absl::OkStatus();
  };
  GW_RETURN_IF_ERROR(hold(host_claim_, host_arena_));
  if (uses_device_) {
    GW_RETURN_IF_ERROR(hold(pinned_claim_, pinned_));
    GW_RETURN_IF_ERROR(hold(shared_claim_, shared_));
  }
  if (is_bound_) return absl::OkStatus();
  DestroyGraphs();
  planner_->Bind();
  is_bound_ = true;
  return absl::OkStatus();
}

void CudaExecutable::DestroyGraphs() {
  for (Segment& segment : segments_) {
    if (segment.graph != nullptr) (void)device_->api().DestroyGraph(segment.graph);
    segment.graph = nullptr;
  }
  captured_ = false;
}

int64_t CudaExecutable::arena_room() const {
  if (has_memory_ || !uses_device_) return CompiledGraph::arena_room();
  // If the device does not report its free memory, an allocation will fail instead.
  const absl::StatusOr<int64_t> room = planner_->ArenaRoom();
  return room.ok() ? *room : CompiledGraph::arena_room();
}

CudaExecutable::~CudaExecutable() {
  // Nothing can be done about a failure here.
  if (!uses_device_) return;
  (void)device_->MakeCurrent();
  DestroyGraphs();
  if (feeds_ready_ != nullptr) (void)device_->api().DestroyEvent(feeds_ready_);
  for (CudaEvent event : events_) (void)device_->api().DestroyEvent(event);
  for (const Slot& slot : slots_) {
    if (slot.taken != nullptr) (void)device_->api().DestroyEvent(slot.taken);
  }
  if (!has_memory_) return;
  for (const VariableUse& used : plan_->variables) used.variable->plans -= used.device == kDevice ? 1 : 0;
}

CudaContext CudaExecutable::Context(int stream) const {
  return {.api = &device_->api(),
          .stream = device_->stream(stream),
          .run_state = reinterpret_cast<const CudaRunState*>(memory_.get() + kCudaAlignment),
          .error = reinterpret_cast<int32_t*>(memory_.get()),
          .product_precision = device_->product_precision()};
}

// Copies a large feed to its place for the next run, in pieces, by way of a slot.
absl::Status CudaExecutable::EnqueueLargeFeed(const DeviceFeed& feed, const void* from, std::byte* pinned) {
  for (size_t begin = 0; begin < feed.bytes; begin += kPieceBytes) {
    const size_t bytes = std::min(kPieceBytes, feed.bytes - begin);
    std::memcpy(pinned + begin, static_cast<const std::byte*>(from) + begin, bytes);
    GW_RETURN_IF_ERROR(device_->api().CopyAsync(feed.next_run + begin, pinned + begin, bytes,
                                                CudaCopyKind::kHostToDevice, device_->copy_stream()));
  }
  return absl::OkStatus();
}

// Enqueues the copies of all values that change between runs, through a slot of pinned memory.
absl::Status CudaExecutable::EnqueueInputs(absl::Span<const void* const> feeds, uint64_t seed, uint64_t run_number) {
  CudaApi& api = device_->api();
  Slot& slot = slots_[next_slot_];
  const Slot& slot_before = slots_[1 - next_slot_];
  if (slot.is_used) GW_RETURN_IF_ERROR(api.SynchronizeEvent(slot.taken));
  const CudaRunState state = {.seed = seed, .run_number = run_number};
  std::memcpy(slot.data, &state, sizeof state);
  bool any_large = false;
  for (const DeviceFeed& feed : device_feeds_) {
    std::byte* const pinned = slot.data + feed.offset;
    if (feed.next_run == nullptr) {
      if (feed.bytes > 0) std::memcpy(pinned, feeds[feed.feed], feed.bytes);
      continue;
    }
    if (!any_large && slot_before.is_used) GW_RETURN_IF_ERROR(api.WaitEvent(slot_before.taken, device_->copy_stream()));
    any_large = true;
    GW_RETURN_IF_ERROR(EnqueueLargeFeed(feed, feeds[feed.feed], pinned));
  }
  if (any_large) {
    GW_RETURN_IF_ERROR(api.RecordEvent(feeds_ready_, device_->copy_stream()));
    GW_RETURN_IF_ERROR(api.WaitEvent(feeds_ready_, device_->stream()));
  }
  for (const DeviceFeed& feed : device_feeds_) {
    if (feed.next_run == nullptr) continue;
    GW_RETURN_IF_ERROR(
        api.CopyAsync(feed.device, feed.next_run, feed.bytes, CudaCopyKind::kDeviceToDevice, device_->stream()));
  }
  GW_RETURN_IF_ERROR(api.CopyAsync(memory_.get() + kCudaAlignment, slot.data, staged_bytes_,
                                   CudaCopyKind::kHostToDevice, device_->stream()));
  GW_RETURN_IF_ERROR(api.RecordEvent(slot.taken, device_->stream()));
  slot.is_used = true;
  next_slot_ = 1 - next_slot_;
  if (error_is_clear_) return absl::OkStatus();
  GW_RETURN_IF_ERROR(api.FillAsync(memory_.get(), 0, sizeof(int32_t), device_->stream()));
  error_is_clear_ = true;
  return absl::OkStatus();
}

// Enqueues the work after all kernels. Fetched values come before variables change, because they
// may be old values of variables.
absl::Status CudaExecutable::EnqueueEpilogue() const {
  CudaApi& api = device_->api();
  for (const Fetch& fetch : device_fetches_) {
    GW_RETURN_IF_ERROR(
        api.CopyAsync(fetch.pinned, fetch.device, fetch.bytes, CudaCopyKind::kDeviceToHost, device_->stream()));
  }
  const CudaContext context = Context();
  if (!commits_.empty()) GW_RETURN_IF_ERROR(device_->platform().commit(context, commits_));
  return api.CopyAsync(pinned_error_, context.error, sizeof(int32_t), CudaCopyKind::kDeviceToHost, device_->stream());
}

// Enqueues a step of the device.
absl::Status CudaExecutable::EnqueueKernel(int index, int stream) const {
  const PlanStep& step = plan_->steps[index];
  void* const* pointers = binding_.pointers.data() + binding_.first_operand[index];
  const CudaContext context = Context(stream);
  const KernelArguments arguments{
      .operands = {reinterpret_cast<const void* const*>(pointers), step.operands.size()},
      .outputs = {pointers + step.operands.size(), step.outputs.size()},
      .scratch = step.scratch < 0 ? nullptr : device_arena_ + plan_->arenas[kDevice].memory.offsets[step.scratch],
      .context = &context};
  return WithNode(step.kernel.run(arguments), *plan_, step);
}

// Copies from one side to the other, on the first stream.
absl::Status CudaExecutable::RunTransfer(int index, CudaTimeline* timeline) const {
  const PlanStep& step = plan_->steps[index];
  void* const* pointers = binding_.pointers.data() + binding_.first_operand[index];
  CudaApi& api = device_->api();
  if (timeline != nullptr) GW_RETURN_IF_ERROR(timeline->Mark(2 * index, device_->stream()));
  if (const size_t bytes = static_cast<size_t>(plan_->Bytes(step.outputs[0])); bytes > 0) {
    const CudaCopyKind kind = step.to == kDevice ? CudaCopyKind::kHostToDevice : CudaCopyKind::kDeviceToHost;
    absl::Status status = api.CopyAsync(pointers[1], pointers[0], bytes, kind, device_->stream());
    // The call mostly reads unpinned memory of the CPU before it returns, but not if the device can
    // read this memory itself. Later steps may write there.
    if (status.ok()) status = api.Synchronize(device_->stream());
    GW_RETURN_IF_ERROR(WithNode(status, *plan_, step));
  }
  return timeline == nullptr ? absl::OkStatus() : timeline->Mark(2 * index + 1, device_->stream());
}

// Copies between the two sides are on the first stream.
int CudaExecutable::StreamOf(const Segment& segment, int step) {
  return segment.on_device ? segment.schedule.steps[step - segment.first].stream : 0;
}

// The mark of a step's begin; 2 * step + 1 marks its end. A step that follows the previous one on
// its stream, and waits for no others, begins at that step's end.
int CudaExecutable::BeginMark(const Segment& segment, int step) {
  const bool follows = segment.on_device && step > segment.first &&
                       segment.schedule.steps[step - segment.first].waits.empty() &&
                       StreamOf(segment, step - 1) == StreamOf(segment, step);
  return follows ? 2 * (step - 1) + 1 : 2 * step;
}

// Enqueues a step of the device on its stream, with the waits before it and the event after it.
absl::Status CudaExecutable::EnqueueStep(const Segment& segment, int index, CudaTimeline* timeline) {
  CudaApi& api = device_->api();
  const StreamSchedule::Step& scheduled = segment.schedule.steps[index - segment.first];
  const CudaStream stream = device_->stream(scheduled.stream);
  for (int event : scheduled.waits) GW_RETURN_IF_ERROR(api.WaitEvent(events_[event], stream));
  if (timeline != nullptr && BeginMark(segment, index) == 2 * index) {
    GW_RETURN_IF_ERROR(timeline->Mark(2 * index, stream));
  }
  GW_RETURN_IF_ERROR(EnqueueKernel(index, scheduled.stream));
  if (timeline != nullptr) GW_RETURN_IF_ERROR(timeline->Mark(2 * index + 1, stream));
  return scheduled.event < 0 ? absl::OkStatus() : api.RecordEvent(events_[scheduled.event], stream);
}

// Enqueues all work of a segment of the device, with marks if there is a timeline.
absl::Status CudaExecutable::EnqueueSegment(int index, CudaTimeline* timeline) {
  CudaApi& api = device_->api();
  const Segment& segment = segments_[index];
  const StreamSchedule& schedule = segment.schedule;
  if (schedule.begin_event >= 0) {
    GW_RETURN_IF_ERROR(api.RecordEvent(events_[schedule.begin_event], device_->stream()));
  }
  for (int step = segment.first; step < segment.last; ++step) GW_RETURN_IF_ERROR(EnqueueStep(segment, step, timeline));
  for (int event : schedule.end_waits) GW_RETURN_IF_ERROR(api.WaitEvent(events_[event], device_->stream()));
  return index + 1 == static_cast<int>(segments_.size()) ? EnqueueEpilogue() : absl::OkStatus();
}

absl::StatusOr<CudaGraph> CudaExecutable::CaptureSegment(int index, CudaTimeline* timeline) {
  CudaApi& api = device_->api();
  GW_RETURN_IF_ERROR(api.BeginCapture(device_->stream()));
  const absl::Status status = EnqueueSegment(index, timeline);
  // A capture has to end even after an error.
  absl::StatusOr<CudaGraph> graph = api.EndCapture(device_->stream());
  if (status.ok()) return graph;
  // The graph is incomplete.
  if (graph.ok()) (void)api.DestroyGraph(*graph);
  return status;
}

// Captures all segments of the device before any of them runs. If this fails, for example because
// of a tool that watches the program or a library's call that cannot be captured, runs continue
// without graphs. They will report errors of the work itself.
void CudaExecutable::Capture() {
  for (int i = 0; i < static_cast<int>(segments_.size()); ++i) {
    Segment& segment = segments_[i];
    if (!segment.on_device) continue;
    const absl::StatusOr<CudaGraph> graph = CaptureSegment(i, nullptr);
    if (!graph.ok()) {
      GoWithoutGraphs(graph.status());
      return;
    }
    segment.graph = *graph;
  }
  captured_ = true;
}

void CudaExecutable::GoWithoutGraphs(const absl::Status& reason) {
  may_capture_ = false;
  capture_failure_ = reason;
  DestroyGraphs();
}

// The node whose kernel set the error flag.
absl::Status CudaExecutable::StatusOfData() {
  const int32_t code = *pinned_error_;
  if (code == 0) return absl::OkStatus();
  error_is_clear_ = false;
  if (code < 0 || code > plan_->graph.num_nodes()) {
    return absl::InternalError(absl::StrCat("a kernel on ", device_->name(), " reported an error of no node: ", code));
  }
  return absl::OutOfRangeError(absl::StrCat("an index or a label is outside its range; in ",
                                            DescribeNode(plan_->graph, plan_->graph.node(code - 1)), " on ",
                                            device_->name()));
}

// Returns the error that kernels of the device have reported so far. It may be the cause of an
// error on the CPU.
absl::Status CudaExecutable::DataErrorSoFar() {
  if (!uses_device_) return absl::OkStatus();
  const CudaContext context = Context();
  GW_RETURN_IF_ERROR(context.api->CopyAsync(pinned_error_, context.error, sizeof(int32_t), CudaCopyKind::kDeviceToHost,
                                            context.stream));
  GW_RETURN_IF_ERROR(context.api->Synchronize(context.stream));
  return StatusOfData();
}

// Runs a step of the CPU, or a copy between the two.
absl::Status CudaExecutable::RunStepBesideDevice(int index, ThreadPool& pool, uint64_t seed, uint64_t run_number,
                                                 Profiler* profiler, CudaTimeline* timeline,
                                                 const RunOptions* options) {
  if (plan_->steps[index].is_transfer()) return RunTransfer(index, timeline);
  const Arena& arena = plan_->arenas[0];
  KernelArguments arguments{.scratch = host_arena_ + arena.memory.arena_bytes,
                            .pool = &pool,
                            .seed = seed,
                            .run_number = run_number,
                            .profiler = profiler,
                            .options = options};
  const absl::Status status = [&] {
    const KernelFloatState float_state;
    return RunHostStep(*plan_, binding_, index, arguments);
  }();
  if (status.ok()) return status;
  const absl::Status earlier = DataErrorSoFar();
  return earlier.code() == absl::StatusCode::kOutOfRange ? earlier : status;
}

// Runs a segment on the device, as a CUDA graph if possible. Adds graphs with marks of a timeline,
// which profiled runs have, to `graphs`.
absl::Status CudaExecutable::LaunchSegment(int index, CudaTimeline* timeline, std::vector<CudaGraph>& graphs) {
  CudaApi& api = device_->api();
  last_segment_launched_ = index + 1 == static_cast<int>(segments_.size());
  if (timeline == nullptr && captured_) return api.LaunchGraph(segments_[index].graph, device_->stream());
  if (timeline != nullptr && has_run_ && may_capture_) {
    // Small kernels that are enqueued one by one wait for the host, so their times would be the
    // host's.
    const absl::StatusOr<CudaGraph> graph = CaptureSegment(index, timeline);
    if (graph.ok()) {
      graphs.push_back(*graph);
      return api.LaunchGraph(*graph, device_->stream());
    }
    // Replayed runs have their graphs, even if this run lacks some.
    if (!captured_) GoWithoutGraphs(graph.status());
  }
  return EnqueueSegment(index, timeline);
}

absl::Status CudaExecutable::RunSteps(absl::Span<const void* const> feeds, ThreadPool& pool, uint64_t seed,
                                      uint64_t run_number, Profiler* profiler, const RunOptions& options) {
  CudaApi& api = device_->api();
  std::unique_ptr<CudaTimeline> timeline;
  std::vector<CudaGraph> graphs;  // With marks, for this run.
  const absl::Cleanup destroy_graphs = [&] {
    for (CudaGraph graph : graphs) (void)api.DestroyGraph(graph);
  };
  if (uses_device_) {
    *pinned_error_ = kNotAtEnd;
    if (profiler != nullptr) {
      GW_ASSIGN_OR_RETURN(timeline,
                          CudaTimeline::Create(*device_, 2 * static_cast<int>(plan_->steps.size()), *profiler));
    }
    GW_RETURN_IF_ERROR(EnqueueInputs(feeds, seed, run_number));
  }
  const int first_update = options.is_limited() ? FirstStepThatUpdates(*plan_) : 0;
  for (int i = 0; i < static_cast<int>(segments_.size()); ++i) {
    const Segment& segment = segments_[i];
    if (options.is_limited() && segment.first <= first_update && options.stopped()) {
      return StopError(options, BeforeStep(*plan_, segment.first));
    }
    if (!segment.on_device) {
      for (int step = segment.first; step < segment.last; ++step) {
        // A step of the CPU that stops before it is complete is not the last one that may stop the
        // run.
        const bool may_stop = options.is_limited() && step < first_update && i + 1 < static_cast<int>(segments_.size());
        GW_RETURN_IF_ERROR(
            RunStepBesideDevice(step, pool, seed, run_number, profiler, timeline.get(), may_stop ? &options : nullptr));
      }
      continue;
    }
    GW_RETURN_IF_ERROR(LaunchSegment(i, timeline.get(), graphs));
  }
  if (!uses_device_) return absl::OkStatus();
  GW_RETURN_IF_ERROR(api.Synchronize(device_->stream()));
  return timeline == nullptr ? absl::OkStatus() : TakeTimes(*timeline, *profiler);
}

// Reads the times of all device steps after the device has run them.
absl::Status CudaExecutable::TakeTimes(const CudaTimeline& timeline, Profiler& profiler) {
  std::vector<int> rows;  // Indexed by stream.
  double first = 0, last = 0;
  for (const Segment& segment : segments_) {
    for (int k = segment.first; k < segment.last; ++k) {
      PlanStep& step = plan_->steps[k];
      if (step.is_on(0)) continue;
      const int stream = StreamOf(segment, k);
      for (int i = static_cast<int>(rows.size()); i <= stream; ++i) {
        rows.push_back(profiler.AddRow(i == 0 ? device_->name() : absl::StrCat(device_->name(), ", stream ", i)));
      }
      GW_ASSIGN_OR_RETURN(const double begin, timeline.Time(BeginMark(segment, k)));
      GW_ASSIGN_OR_RETURN(const double end, timeline.Time(2 * k + 1));
      step.microseconds = end - begin;
      profiler.AddSpan(rows[stream], absl::StrCat(plan_->graph.node(step.node).display_name(), ": ", step.kernel.name),
                       begin, end);
      first = last == 0 ? begin : std::min(first, begin);
      last = std::max(last, end);
    }
  }
  device_microseconds_ = last - first;
  return absl::OkStatus();
}

// Makes the new values of a completed run the current ones.
void CudaExecutable::TakeNewValues() {
  for (const Binding::Update& update : variable_copies_) {
    if (update.bytes > 0) std::memcpy(update.to, binding_.pointers[update.pointer], update.bytes);
  }
  for (const VariableUse& used : plan_->variables) {
    if (used.assigned) used.variable->SetCurrent(used.device != kDevice);
  }
}

// Gives variables their values from before the run, or from after it, and describes which values
// are not the old ones. `started` is true if the run may be the last of several.
absl::Status CudaExecutable::AfterFailure(const absl::Status& failure, bool replayed, bool started) {
  // The enqueued work reads memory that the next run writes.
  error_is_clear_ = false;
  if (uses_device_) (void)device_->JoinStreams();
  const bool all_done = !uses_device_ || device_->Synchronize().ok();
  device_->SetBusyWith(all_done ? nullptr : this);
  if (replayed && !last_segment_launched_) return failure;
  if (replayed && all_done) {
    if (*pinned_error_ != 0) {
      // The device has the values of the previous runs.
      if (started) TakeNewValues();
      return failure;
    }
    TakeNewValues();
    return absl::Status(failure.code(),
                        absl::StrCat(failure.message(), "; the run came to its end, and variables have new values"));
  }
  std::vector<std::string> lost;
  for (const VariableUse& used : plan_->variables) {
    if (!used.assigned || used.device != kDevice) continue;
    used.variable->device_current = false;
    if (!used.variable->host_current) lost.push_back(absl::StrCat("'", used.variable->name, "'"));
  }
  if (lost.empty()) return failure;
  return absl::Status(failure.code(), absl::StrCat(failure.message(), "; the values of variables that were on ",
                                                   device_->name(), " alone are lost: ", absl::StrJoin(lost, ", ")));
}

absl::Status CudaExecutable::Run(absl::Span<const void* const> feeds, absl::Span<Tensor> results, ThreadPool& pool,
                                 uint64_t seed, uint64_t run_number, Profiler* profiler, const RunOptions& options) {
  GW_CHECK(has_memory_, "a plan runs before it has its memory");
  GW_CHECK(!is_under_way_, "a plan runs while it is under way");
  // The current device belongs to the thread, and any thread may run.
  GW_RETURN_IF_ERROR(device_->MakeCurrent());
  GW_RETURN_IF_ERROR(HoldMemory());
  for (const VariableUse& used : plan_->variables) {
    GW_RETURN_IF_ERROR(used.device == kDevice ? plan_->session_variables->ToDevice(*used.variable)
                                              : plan_->session_variables->ToHost(*used.variable));
  }
  binding_.SetFeeds(feeds);
  // Kernels make their searches, such as for the algorithm of a product, in the first run.
  if (uses_device_ && has_run_ && !captured_ && may_capture_ && profiler == nullptr) Capture();
  const bool replayed = captured_ && profiler == nullptr;
  if (!replayed) {
    for (const VariableUse& used : plan_->variables) {
      if (used.assigned) GW_RETURN_IF_ERROR(plan_->session_variables->ToHost(*used.variable));
    }
  }
  last_segment_launched_ = false;
  const absl::Status status = RunSteps(feeds, pool, seed, run_number, profiler, options);
  if (!status.ok()) return AfterFailure(status, replayed);
  if (uses_device_) GW_RETURN_IF_ERROR(StatusOfData());
  CopyResults(results);
  TakeNewValues();
  has_run_ = true;
  // Reported only now: if the device had failed as well, that would have been the reason.
  if (!capture_failure_.ok()) {
    TellOnce(
        absl::StrCat("a plan is launched kernel by kernel, which may be slower, for it could not be captured into ",
                     "a CUDA graph: ", capture_failure_.message()));
    capture_failure_ = absl::OkStatus();
  }
  return absl::OkStatus();
}

void CudaExecutable::CopyResults(absl::Span<Tensor> results) const {
  for (size_t i = 0; i < result_copies_.size(); ++i) {
    const ResultCopy& copy = result_copies_[i];
    const void* from = copy.pinned != nullptr ? copy.pinned : binding_.pointers[copy.pointer];
    if (copy.bytes > 0) std::memcpy(results[i].mutable_raw_data(), from, copy.bytes);
  }
}

// Returns true if a run is one CUDA graph and the host only copies results from pinned memory.
bool CudaExecutable::MayStart() const {
  return captured_ && segments_.size() == 1 && variable_copies_.empty() &&
         std::all_of(result_copies_.begin(), result_copies_.end(),
                     [](const ResultCopy& copy) { return copy.pinned != nullptr || copy.bytes == 0; });
}

absl::Status CudaExecutable::Start(absl::Span<const void* const> feeds, absl::Span<Tensor> results, ThreadPool& pool,
                                   uint64_t seed, uint64_t run_number, const RunOptions& options) {
  if (options.stopped()) return StopError(options, "before its first step");
  GW_RETURN_IF_ERROR(device_->MakeCurrent());
  if (!is_under_way_) GW_RETURN_IF_ERROR(HoldMemory());
  if (!MayStart()) return Run(feeds, results, pool, seed, run_number, nullptr, options);
  for (const VariableUse& used : plan_->variables) {
    if (used.device == kDevice) GW_RETURN_IF_ERROR(plan_->session_variables->ToDevice(*used.variable));
  }
  absl::Status status = EnqueueInputs(feeds, seed, run_number);
  if (!is_under_way_) *pinned_error_ = kNotAtEnd;
  if (status.ok()) status = device_->api().LaunchGraph(segments_[0].graph, device_->stream());
  // Nobody will wait for copies if no run is in progress.
  if (!status.ok() && !is_under_way_) device_->SetBusyWith(device_->Synchronize().ok() ? nullptr : this);
  GW_RETURN_IF_ERROR(status);
  is_under_way_ = true;
  return absl::OkStatus();
}

absl::Status CudaExecutable::Finish(absl::Span<Tensor> results) {
  if (!is_under_way_) return absl::OkStatus();
  is_under_way_ = false;
  last_segment_launched_ = true;
  absl::Status status = device_->MakeCurrent();
  if (status.ok()) status = device_->api().Synchronize(device_->stream());
  if (!status.ok()) return AfterFailure(status, true, true);
  // If a run has met bad data, the device has the values from before it. Until here, the host had
  // the values to return to.
  TakeNewValues();
  GW_RETURN_IF_ERROR(StatusOfData());
  CopyResults(results);
  return absl::OkStatus();
}

std::string CudaExecutable::Describe() const {
  int graphs = 0, streams = 1, waits = 0;
  std::vector<int> stream_of(plan_->steps.size(), 0);
  for (const Segment& segment : segments_) {
    graphs += segment.on_device ? 1 : 0;
    streams = std::max(streams, segment.schedule.num_streams);
    waits += segment.schedule.num_waits();
    for (int i = segment.first; i < segment.last; ++i) stream_of[i] = StreamOf(segment, i);
  }
  PlanNotes notes;
  notes.stream = [&](int step) { return plan_->steps[step].is_on(0) ? "" : absl::StrCat(stream_of[step]); };
  if (device_microseconds_ > 0) {
    notes.total =
        absl::StrFormat("; %.1f us from the first step on %s to the last", device_microseconds_, device_->name());
  }
  notes.lines =
      absl::StrFormat("%d CUDA graphs on %s, %s; %d streams with %d waits between them\n", graphs, device_->name(),
                      !may_capture_ ? "not captured"
                      : captured_   ? "captured"
                                    : "not captured yet",
                      streams, waits);
  return DescribePlan(*plan_, notes);
}

}  // namespace gradweave
