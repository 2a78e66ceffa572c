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
#include "gradweave/runtime/cuda/plan/cuda_timeline.h"
#include "gradweave/runtime/cuda/api/tell_once.h"

namespace gradweave {
namespace {

// Feeds go to pinned memory in pieces, so that the device reads one while the next is written.
constexpr size_t kPieceBytes = 1 << 20;

// What the device writes its error flag over at the end of a run.
constexpr int32_t kNotAtEnd = -1;

absl::Span<const void* const> AsConst(void* const* pointers, size_t count) {
  return {reinterpret_cast<const void* const*>(pointers), count};
}

// The ops of a kernel's nodes in their order, each with how often it is there: "Sum 2, Mul".
std::string OpsOf(const Kernel& kernel) {
  std::vector<std::pair<absl::string_view, int>> counts;
  for (const Kernel::Part& part : kernel.parts) {
    auto found =
        std::find_if(counts.begin(), counts.end(), [&](const auto& count) { return count.first == part.name; });
    if (found == counts.end()) found = counts.insert(found, {part.name, 0});
    ++found->second;
  }
  return absl::StrJoin(counts, ", ", [](std::string* text, const auto& count) {
    absl::StrAppend(text, count.first);
    if (count.second > 1) absl::StrAppend(text, " ", count.second);
  });
}

}  // namespace

CudaExecutable::~CudaExecutable() {
  // Nothing can be done about a failure here.
  if (device_ == nullptr || !uses_device_) return;
  (void)device_->MakeCurrent();
  for (const Segment& segment : segments_) {
    if (segment.graph != nullptr) (void)device_->api().DestroyGraph(segment.graph);
  }
  if (feeds_ready_ != nullptr) (void)device_->api().DestroyEvent(feeds_ready_);
  for (CudaEvent event : events_) (void)device_->api().DestroyEvent(event);
  for (const Slot& slot : slots_) {
    if (slot.taken != nullptr) (void)device_->api().DestroyEvent(slot.taken);
  }
  if (planner_ != nullptr) return;
  for (const UsedVariable& used : used_variables_) used.variable->plans -= used.side == kDevice ? 1 : 0;
}

CudaContext CudaExecutable::Context(int stream) const {
  return {.api = &device_->api(),
          .stream = device_->stream(stream),
          .run_state = reinterpret_cast<const CudaRunState*>(memory_.data() + kAlignment),
          .error = reinterpret_cast<int32_t*>(memory_.data()),
          .product_precision = product_precision_};
}

absl::Status CudaExecutable::WithNode(const absl::Status& status, const Step& step) const {
  if (status.ok()) return status;
  return absl::Status(status.code(),
                      absl::StrCat(status.message(), "; in ", DescribeNode(graph_, graph_.node(step.node))));
}

// What changes between runs, by way of a slot of pinned memory.
absl::Status CudaExecutable::EnqueueInputs(absl::Span<const void* const> feeds, uint64_t seed, uint64_t run_number) {
  CudaApi& api = device_->api();
  Slot& slot = slots_[next_slot_];
  const Slot& slot_before = slots_[1 - next_slot_];
  if (slot.is_used) GW_RETURN_IF_ERROR(api.SynchronizeEvent(slot.taken));
  const CudaRunState state = {.seed = seed, .run_number = run_number};
  std::memcpy(slot.data, &state, sizeof state);
  bool any_large = false;
  for (const DeviceFeed& feed : device_feeds_) {
    const auto* from = static_cast<const std::byte*>(feeds[feed.feed]);
    std::byte* const pinned = slot.data + feed.offset;
    if (feed.next_run == nullptr) {
      if (feed.bytes > 0) std::memcpy(pinned, from, feed.bytes);
      continue;
    }
    if (!any_large && slot_before.is_used) GW_RETURN_IF_ERROR(api.WaitEvent(slot_before.taken, device_->copy_stream()));
    any_large = true;
    for (size_t begin = 0; begin < feed.bytes; begin += kPieceBytes) {
      const size_t bytes = std::min(kPieceBytes, feed.bytes - begin);
      std::memcpy(pinned + begin, from + begin, bytes);
      GW_RETURN_IF_ERROR(api.CopyAsync(feed.next_run + begin, pinned + begin, bytes, CudaCopyKind::kHostToDevice,
                                       device_->copy_stream()));
    }
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
  GW_RETURN_IF_ERROR(api.CopyAsync(memory_.data() + kAlignment, slot.data, staged_bytes_, CudaCopyKind::kHostToDevice,
                                   device_->stream()));
  GW_RETURN_IF_ERROR(api.RecordEvent(slot.taken, device_->stream()));
  slot.is_used = true;
  next_slot_ = 1 - next_slot_;
  if (error_is_clear_) return absl::OkStatus();
  GW_RETURN_IF_ERROR(api.FillAsync(memory_.data(), 0, sizeof(int32_t), device_->stream()));
  error_is_clear_ = true;
  return absl::OkStatus();
}

// What comes after all kernels: fetched values before variables change, for they may be old values of variables.
absl::Status CudaExecutable::EnqueueEpilogue() const {
  CudaApi& api = device_->api();
  for (const Fetch& fetch : device_fetches_) {
    GW_RETURN_IF_ERROR(
        api.CopyAsync(fetch.pinned, fetch.device, fetch.bytes, CudaCopyKind::kDeviceToHost, device_->stream()));
  }
  const CudaContext context = Context();
  if (!commits_.empty()) GW_RETURN_IF_ERROR(device_->backend().commit(context, commits_));
  return api.CopyAsync(pinned_error_, context.error, sizeof(int32_t), CudaCopyKind::kDeviceToHost, device_->stream());
}

absl::Status CudaExecutable::RunStep(const Step& step, int stream, ThreadPool* pool, uint64_t seed,
                                     uint64_t run_number) {
  void* const* pointers = pointers_.data() + step.first_operand;
  CudaApi& api = device_->api();
  switch (step.kind) {
    case Step::kToDevice:
    case Step::kToHost: {
      const size_t bytes = static_cast<size_t>(graph_.type(step.outputs[0]).byte_size());
      if (bytes == 0) return absl::OkStatus();
      const CudaCopyKind kind =
          step.kind == Step::kToDevice ? CudaCopyKind::kHostToDevice : CudaCopyKind::kDeviceToHost;
      GW_RETURN_IF_ERROR(api.CopyAsync(pointers[1], pointers[0], bytes, kind, device_->stream(stream)));
      // Memory of the CPU that isn't pinned is mostly read before the call returns, but not where the device can read
      // it itself, and steps that follow may write there.
      return api.Synchronize(device_->stream(stream));
    }
    case Step::kOnHost:
    case Step::kOnDevice: {
      const CudaContext context = step.on_device() ? Context(stream) : CudaContext{};
      const KernelArguments arguments{.operands = AsConst(pointers, step.operands.size()),
                                      .outputs = {pointers + step.operands.size(), step.outputs.size()},
                                      .scratch = step.scratch,
                                      .pool = pool,
                                      .seed = seed,
                                      .run_number = run_number,
                                      .cuda = step.on_device() ? &context : nullptr};
      return step.kernel.run(arguments);
    }
  }
  return absl::OkStatus();
}

// Copies between the two sides are on the first stream.
int CudaExecutable::StreamOf(const Segment& segment, int step) {
  return segment.on_device ? segment.schedule.steps[step - segment.first].stream : 0;
}

// The mark where a step begins; 2 * step + 1 is where it ends. One that follows the step before it on its stream, and
// waits for no others, begins where that ends.
int CudaExecutable::BeginMark(const Segment& segment, int step) {
  const bool follows = segment.on_device && step > segment.first &&
                       segment.schedule.steps[step - segment.first].waits.empty() &&
                       StreamOf(segment, step - 1) == StreamOf(segment, step);
  return follows ? 2 * (step - 1) + 1 : 2 * step;
}

// A step of the device on its stream, with the waits before it and the event behind it.
absl::Status CudaExecutable::EnqueueStep(const Segment& segment, int index, CudaTimeline* timeline) {
  CudaApi& api = device_->api();
  const Step& step = steps_[index];
  const StreamSchedule::Step& scheduled = segment.schedule.steps[index - segment.first];
  const CudaStream stream = device_->stream(scheduled.stream);
  for (int event : scheduled.waits) GW_RETURN_IF_ERROR(api.WaitEvent(events_[event], stream));
  if (timeline != nullptr && BeginMark(segment, index) == 2 * index) {
    GW_RETURN_IF_ERROR(timeline->Mark(2 * index, stream));
  }
  GW_RETURN_IF_ERROR(WithNode(RunStep(step, scheduled.stream, nullptr, 0, 0), step));
  if (timeline != nullptr) GW_RETURN_IF_ERROR(timeline->Mark(2 * index + 1, stream));
  return scheduled.event < 0 ? absl::OkStatus() : api.RecordEvent(events_[scheduled.event], stream);
}

// All work of a segment of the device, with marks where there is a timeline.
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
  // A capture has to end, whatever came of it.
  absl::StatusOr<CudaGraph> graph = api.EndCapture(device_->stream());
  if (status.ok()) return graph;
  // It lacks what failed.
  if (graph.ok()) (void)api.DestroyGraph(*graph);
  return status;
}

// Records all segments of the device, before any is run. Where that fails, be it for a tool that watches the program or
// a library's call that cannot be recorded, runs go on without: what is wrong with the work itself they will meet.
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
  for (Segment& segment : segments_) {
    if (segment.graph != nullptr) (void)device_->api().DestroyGraph(segment.graph);
    segment.graph = nullptr;
  }
}

// The node whose kernel set the error flag.
absl::Status CudaExecutable::StatusOfData() {
  const int32_t code = *pinned_error_;
  if (code == 0) return absl::OkStatus();
  error_is_clear_ = false;
  if (code < 0 || code > graph_.num_nodes()) {
    return absl::InternalError(absl::StrCat("a kernel on ", device_->name(), " reported an error of no node: ", code));
  }
  return absl::OutOfRangeError(absl::StrCat("an index or a label is outside its range; in ",
                                            DescribeNode(graph_, graph_.node(code - 1)), " on ", device_->name()));
}

// What kernels of the device have refused, where the CPU has met something odd: it may come from there.
absl::Status CudaExecutable::DataErrorSoFar() {
  if (!uses_device_) return absl::OkStatus();
  const CudaContext context = Context();
  GW_RETURN_IF_ERROR(context.api->CopyAsync(pinned_error_, context.error, sizeof(int32_t), CudaCopyKind::kDeviceToHost,
                                            context.stream));
  GW_RETURN_IF_ERROR(context.api->Synchronize(context.stream));
  return StatusOfData();
}

// A step of the CPU, or a copy between the two.
absl::Status CudaExecutable::RunStepBesideDevice(int index, ThreadPool& pool, uint64_t seed, uint64_t run_number,
                                                 Profiler* profiler, CudaTimeline* timeline) {
  Step& step = steps_[index];
  if (step.kind != Step::kOnHost) {
    if (timeline != nullptr) GW_RETURN_IF_ERROR(timeline->Mark(2 * index, device_->stream()));
    GW_RETURN_IF_ERROR(WithNode(RunStep(step, 0, nullptr, 0, 0), step));
    return timeline == nullptr ? absl::OkStatus() : timeline->Mark(2 * index + 1, device_->stream());
  }
  const double begin = profiler == nullptr ? 0 : profiler->Now();
  const absl::Status status = RunStep(step, 0, &pool, seed, run_number);
  if (profiler != nullptr) {
    const double end = profiler->Now();
    profiler->AddSpan(0, absl::StrCat(graph_.node(step.node).display_name(), ": ", step.kernel.name), begin, end);
    step.microseconds = end - begin;
  }
  if (status.ok()) return status;
  const absl::Status earlier = DataErrorSoFar();
  return earlier.code() == absl::StatusCode::kOutOfRange ? earlier : WithNode(status, step);
}

absl::Status CudaExecutable::RunSteps(absl::Span<const void* const> feeds, ThreadPool& pool, uint64_t seed,
                                      uint64_t run_number, Profiler* profiler) {
  CudaApi& api = device_->api();
  std::unique_ptr<CudaTimeline> timeline;
  std::vector<CudaGraph> graphs;  // With marks, for this run.
  const absl::Cleanup destroy_graphs = [&] {
    for (CudaGraph graph : graphs) (void)api.DestroyGraph(graph);
  };
  if (uses_device_) {
    *pinned_error_ = kNotAtEnd;
    if (profiler != nullptr) {
      GW_ASSIGN_OR_RETURN(timeline, CudaTimeline::Create(*device_, 2 * static_cast<int>(steps_.size()), *profiler));
    }
    GW_RETURN_IF_ERROR(EnqueueInputs(feeds, seed, run_number));
  }
  for (int i = 0; i < static_cast<int>(segments_.size()); ++i) {
    const Segment& segment = segments_[i];
    if (!segment.on_device) {
      for (int step = segment.first; step < segment.last; ++step) {
        GW_RETURN_IF_ERROR(RunStepBesideDevice(step, pool, seed, run_number, profiler, timeline.get()));
      }
      continue;
    }
    last_segment_launched_ = i + 1 == static_cast<int>(segments_.size());
    if (profiler == nullptr && captured_) {
      GW_RETURN_IF_ERROR(api.LaunchGraph(segment.graph, device_->stream()));
      continue;
    }
    if (profiler != nullptr && has_run_ && may_capture_) {
      // Enqueued one by one, small kernels would wait for the host, and their times would be its.
      const absl::StatusOr<CudaGraph> graph = CaptureSegment(i, timeline.get());
      if (graph.ok()) {
        graphs.push_back(*graph);
        GW_RETURN_IF_ERROR(api.LaunchGraph(*graph, device_->stream()));
        continue;
      }
      // Runs that are replayed have their graphs, whatever this one lacks.
      if (!captured_) GoWithoutGraphs(graph.status());
    }
    GW_RETURN_IF_ERROR(EnqueueSegment(i, timeline.get()));
  }
  if (!uses_device_) return absl::OkStatus();
  GW_RETURN_IF_ERROR(api.Synchronize(device_->stream()));
  return timeline == nullptr ? absl::OkStatus() : TakeTimes(*timeline, *profiler);
}

// The times of all steps but the CPU's, when the device has done them.
absl::Status CudaExecutable::TakeTimes(const CudaTimeline& timeline, Profiler& profiler) {
  std::vector<int> rows;  // By stream.
  double first = 0, last = 0;
  for (const Segment& segment : segments_) {
    for (int k = segment.first; k < segment.last; ++k) {
      Step& step = steps_[k];
      if (step.kind == Step::kOnHost) continue;
      const int stream = StreamOf(segment, k);
      for (int i = static_cast<int>(rows.size()); i <= stream; ++i) {
        rows.push_back(profiler.AddRow(i == 0 ? device_->name() : absl::StrCat(device_->name(), ", stream ", i)));
      }
      GW_ASSIGN_OR_RETURN(const double begin, timeline.Time(BeginMark(segment, k)));
      GW_ASSIGN_OR_RETURN(const double end, timeline.Time(2 * k + 1));
      step.microseconds = end - begin;
      profiler.AddSpan(rows[stream], absl::StrCat(graph_.node(step.node).display_name(), ": ", step.kernel.name), begin,
                       end);
      first = last == 0 ? begin : std::min(first, begin);
      last = std::max(last, end);
    }
  }
  device_microseconds_ = last - first;
  return absl::OkStatus();
}

// What holds after a run to the end.
void CudaExecutable::TakeNewValues() {
  for (const HostCopy& copy : variable_copies_) {
    if (copy.bytes > 0) std::memcpy(copy.to, pointers_[copy.pointer], copy.bytes);
  }
  for (const UsedVariable& used : used_variables_) {
    if (!used.assigned) continue;
    used.variable->device_current = used.side == kDevice;
    used.variable->host_current = used.side == kHost;
  }
}

// Makes the values of variables those before the run, or those after it, and says what is not as before. `started`: it
// may be the last of several runs.
absl::Status CudaExecutable::AfterFailure(const absl::Status& failure, bool replayed, bool started) {
  // What was enqueued reads memory that the next run writes.
  error_is_clear_ = false;
  if (uses_device_) (void)device_->JoinStreams();
  const bool all_done = !uses_device_ || device_->Synchronize().ok();
  if (replayed && !last_segment_launched_) return failure;
  if (replayed && all_done) {
    if (*pinned_error_ != 0) {
      // The device has what the runs before it have made.
      if (started) TakeNewValues();
      return failure;
    }
    TakeNewValues();
    return absl::Status(failure.code(),
                        absl::StrCat(failure.message(), "; the run came to its end, and variables have new values"));
  }
  std::vector<std::string> lost;
  for (const UsedVariable& used : used_variables_) {
    if (!used.assigned || used.side != kDevice) continue;
    used.variable->device_current = false;
    if (!used.variable->host_current) lost.push_back(absl::StrCat("'", used.variable->name, "'"));
  }
  if (lost.empty()) return failure;
  return absl::Status(failure.code(), absl::StrCat(failure.message(), "; the values of variables that were on ",
                                                   device_->name(), " alone are lost: ", absl::StrJoin(lost, ", ")));
}

absl::Status CudaExecutable::Run(absl::Span<const void* const> feeds, absl::Span<Tensor> results, ThreadPool& pool,
                                 uint64_t seed, uint64_t run_number, Profiler* profiler) {
  GW_CHECK(planner_ == nullptr, "a plan runs before it has its memory");
  GW_CHECK(!is_under_way_, "a plan runs while it is under way");
  // The device is the thread's, and any thread may run.
  GW_RETURN_IF_ERROR(device_->MakeCurrent());
  for (const UsedVariable& used : used_variables_) {
    GW_RETURN_IF_ERROR(used.side == kDevice ? variables_->ToDevice(*used.variable)
                                            : variables_->ToHost(*used.variable));
  }
  for (const FeedPatch& patch : feed_patches_) pointers_[patch.pointer] = const_cast<void*>(feeds[patch.feed]);
  // Kernels find out what they have to find out (which algorithm a product takes, for one) in the first run.
  if (uses_device_ && has_run_ && !captured_ && may_capture_ && profiler == nullptr) Capture();
  const bool replayed = captured_ && profiler == nullptr;
  if (!replayed) {
    for (const UsedVariable& used : used_variables_) {
      if (used.assigned) GW_RETURN_IF_ERROR(variables_->ToHost(*used.variable));
    }
  }
  last_segment_launched_ = false;
  const absl::Status status = RunSteps(feeds, pool, seed, run_number, profiler);
  if (!status.ok()) return AfterFailure(status, replayed);
  if (uses_device_) GW_RETURN_IF_ERROR(StatusOfData());
  CopyResults(results);
  TakeNewValues();
  has_run_ = true;
  // Told only now: had the device failed as well, that would have been the reason.
  if (!capture_failure_.ok()) {
    TellOnce(
        absl::StrCat("a plan is launched kernel by kernel, which may be slower, for it could not be captured into ",
                     "a CUDA graph: ", capture_failure_.message()));
    capture_failure_ = absl::OkStatus();
  }
  return absl::OkStatus();
}

void CudaExecutable::CopyResults(absl::Span<Tensor> results) const {
  for (const HostCopy& copy : result_copies_) {
    const void* from = copy.from != nullptr ? copy.from : pointers_[copy.pointer];
    if (copy.bytes > 0) std::memcpy(results[copy.result].mutable_raw_data(), from, copy.bytes);
  }
}

// Whether a run is one graph, and nothing is left for the host but results from pinned memory.
bool CudaExecutable::MayStart() const {
  return captured_ && segments_.size() == 1 && variable_copies_.empty() &&
         std::all_of(result_copies_.begin(), result_copies_.end(),
                     [](const HostCopy& copy) { return copy.from != nullptr || copy.bytes == 0; });
}

absl::Status CudaExecutable::Start(absl::Span<const void* const> feeds, absl::Span<Tensor> results, ThreadPool& pool,
                                   uint64_t seed, uint64_t run_number) {
  if (!MayStart()) return Run(feeds, results, pool, seed, run_number);
  GW_RETURN_IF_ERROR(device_->MakeCurrent());
  for (const UsedVariable& used : used_variables_) {
    if (used.side == kDevice) GW_RETURN_IF_ERROR(variables_->ToDevice(*used.variable));
  }
  absl::Status status = EnqueueInputs(feeds, seed, run_number);
  if (!is_under_way_) *pinned_error_ = kNotAtEnd;
  if (status.ok()) status = device_->api().LaunchGraph(segments_[0].graph, device_->stream());
  // Nobody will wait for copies of a run that isn't under way.
  if (!status.ok() && !is_under_way_) (void)device_->Synchronize();
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
  // Where a run has met bad data, the device has what there was before it. Until here, the host's values were those to
  // go back to.
  TakeNewValues();
  GW_RETURN_IF_ERROR(StatusOfData());
  CopyResults(results);
  return absl::OkStatus();
}

std::string CudaExecutable::Describe() const {
  std::string text = absl::StrFormat("%-5s %-36s %-8s %-6s %-24s %-26s %12s %13s %11s %8s\n", "step", "node", "device",
                                     "stream", "kernel", "output", "bytes", "FLOPs", "us", "GFLOP/s");
  double total_flops = 0, total_microseconds = 0;
  int graphs = 0, streams = 1, waits = 0;
  for (const Segment& segment : segments_) {
    graphs += segment.on_device ? 1 : 0;
    streams = std::max(streams, segment.schedule.num_streams);
    waits += segment.schedule.num_waits();
    for (int i = segment.first; i < segment.last; ++i) {
      const Step& step = steps_[i];
      const Node& node = graph_.node(step.node);
      const TensorTypes operands = graph_.OperandTypes(node);
      double flops = 0;
      for (const Kernel::Part& part : step.kernel.parts) flops += part.flops;
      if (step.kernel.parts.empty() && node.op->flops != nullptr) {
        flops = node.op->flops(OpView(*node.op, node.attributes, operands), node.outputs);
      }
      const std::string name = step.num_nodes == 1 ? node.display_name() : absl::StrCat(step.num_nodes, " nodes");
      int64_t bytes = 0;
      for (Port output : step.outputs) bytes += graph_.type(output).byte_size();
      const std::string output = step.outputs.size() == 1 ? graph_.type(step.outputs[0]).ToString()
                                                          : absl::StrCat(step.outputs.size(), " values");
      const std::string stream = step.kind == Step::kOnHost ? "" : absl::StrCat(StreamOf(segment, i));
      absl::StrAppendFormat(&text, "%-5d %-36s %-8s %-6s %-24s %-26s %12d %13.0f", i, name, node.device, stream,
                            step.kernel.name, output, bytes, flops);
      // Times are there after a profiled run alone.
      if (step.microseconds > 0) {
        absl::StrAppendFormat(&text, " %11.1f %8.1f", step.microseconds, flops / step.microseconds / 1e3);
      }
      text += "\n";
      if (step.num_nodes > 1) absl::StrAppend(&text, "      holds ", OpsOf(step.kernel), "\n");
      total_flops += flops;
      total_microseconds += step.microseconds;
    }
  }
  absl::StrAppendFormat(&text, "%d steps, %.0f FLOPs, planned peak %d bytes, lower bound %d bytes", steps_.size(),
                        total_flops, arena_bytes_[kDevice], lower_bound_bytes_[kDevice]);
  if (arena_bytes_[kHost] > 0) absl::StrAppendFormat(&text, "; %d bytes on the CPU", arena_bytes_[kHost]);
  if (total_microseconds > 0) {
    absl::StrAppendFormat(&text, "; %.1f us, %.1f GFLOP/s", total_microseconds, total_flops / total_microseconds / 1e3);
  }
  if (device_microseconds_ > 0) {
    absl::StrAppendFormat(&text, "; %.1f us from the first step on %s to the last", device_microseconds_,
                          device_->name());
  }
  text += "\n";
  absl::StrAppendFormat(&text, "%d CUDA graphs on %s, %s; %d streams with %d waits between them\n", graphs,
                        device_->name(),
                        !may_capture_ ? "not captured"
                        : captured_   ? "captured"
                                      : "not captured yet",
                        streams, waits);
  for (const std::string& line : choices_) absl::StrAppend(&text, line, "\n");
  for (const std::string& line : moved_) absl::StrAppend(&text, line, "\n");
  return text;
}

}  // namespace gradweave
