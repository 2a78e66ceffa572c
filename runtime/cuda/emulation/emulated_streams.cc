#include "gradweave/runtime/cuda/emulation/emulated_streams.h"

#include <algorithm>
#include <chrono>
#include <deque>
#include <map>
#include <optional>
#include <random>
#include <set>
#include <thread>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "gradweave/graph/check.h"

namespace gradweave {
namespace {

using Work = EmulatedStreams::Work;

struct Stream;

// An entry in a stream's queue.
struct Item {
  Work work;                // Null if the entry only waits.
  Stream* other = nullptr;  // If set, the entry waits until this stream has reached `position`.
  int64_t position = 0;
};

struct CapturedNode {
  Work work;
  std::vector<int> follows;  // Earlier nodes.
  int lane;                  // Index of the stream it was captured from, within the graph.
};

struct CapturedGraph {
  std::vector<CapturedNode> nodes;
  int lanes = 0;
  int device = 0;
};

// Work that streams record instead of running it. The first stream began the capture.
struct Capture {
  int64_t number;  // Unique among all captures.
  std::thread::id thread;
  std::vector<Stream*> streams;
  CapturedGraph graph;
  bool invalid = false;  // A call failed meanwhile.
};

struct Stream {
  std::deque<Item> pending;
  int64_t done = 0;  // Number of entries taken from `pending`.
  uint64_t priority;
  int device;
  Capture* capture = nullptr;
  int lane = 0;             // Index within the capture.
  std::vector<int> behind;  // Nodes of the capture that the next node follows.

  int64_t end() const { return done + static_cast<int64_t>(pending.size()); }
  void AddBehind(const std::vector<int>& nodes) {
    behind.insert(behind.end(), nodes.begin(), nodes.end());
    std::sort(behind.begin(), behind.end());
    behind.erase(std::unique(behind.begin(), behind.end()), behind.end());
  }
};

struct Event {
  // Where it was last recorded: at a position of a stream, or in a capture.
  Stream* stream = nullptr;
  int64_t position = 0;
  int64_t capture = 0;  // The capture's number; 0 means none.
  std::vector<int> behind;
  int device = 0;
  bool timed = false;
  std::optional<double> microseconds = std::nullopt;  // Time when a timed event completed.
};

// Returns all nodes that `from` follows, and `from` itself.
std::vector<bool> Ancestors(const CapturedGraph& graph, const std::vector<int>& from) {
  std::vector<bool> found(graph.nodes.size(), false);
  for (int node : from) found[node] = true;
  for (int node = static_cast<int>(graph.nodes.size()) - 1; node >= 0; --node) {
    if (!found[node]) continue;
    for (int before : graph.nodes[node].follows) found[before] = true;
  }
  return found;
}

}  // namespace

struct EmulatedStreams::State {
  std::mt19937_64 random;
  absl::Status error;  // The first failure of any work that has not been reported.
  std::vector<std::unique_ptr<Stream>> streams;
  std::set<Event*> events;
  std::set<CapturedGraph*> graphs;
  std::vector<std::unique_ptr<Capture>> captures;
  int64_t num_captures = 0;                // Number of captures begun so far.
  std::map<std::thread::id, int> devices;  // The current devices of threads that have set one.

  int CurrentDevice() const {
    const auto found = devices.find(std::this_thread::get_id());
    return found == devices.end() ? 0 : found->second;
  }
  absl::StatusOr<Stream*> FindStream(const char* call, CudaStream handle) const {
    for (const auto& stream : streams) {
      if (stream.get() != handle) continue;
      if (stream->device == CurrentDevice()) return stream.get();
      return absl::InternalError(absl::StrCat(call, ": invalid resource handle: the stream is of device ",
                                              stream->device, ", and the thread's current device is ",
                                              CurrentDevice()));
    }
    return absl::InternalError(absl::StrCat(call, ": this is not a stream"));
  }
  // Returns an error unless an object of `device` may be used on the stream.
  static absl::Status CheckSameDevice(const char* call, const char* what, int device, const Stream& stream) {
    if (device == stream.device) return absl::OkStatus();
    return absl::InternalError(absl::StrCat(call, ": invalid resource handle: the ", what, " is of device ", device,
                                            ", and the stream is of device ", stream.device));
  }
  absl::StatusOr<Event*> FindEvent(const char* call, CudaEvent handle) const {
    Event* event = static_cast<Event*>(handle);
    if (events.count(event) == 0) return absl::InternalError(absl::StrCat(call, ": this is not an event"));
    return event;
  }

  // Changes are frequent enough that a stream can fall behind anywhere, and rare enough that it can
  // stay behind for long.
  bool ChangesPriority() { return random() % 8 == 0; }

  // Returns the streams, and their positions, that must be reached before `stream` can reach
  // `position`.
  std::vector<std::pair<Stream*, int64_t>> Needed(Stream& stream, int64_t position) {
    std::vector<std::pair<Stream*, int64_t>> needed;
    std::vector<std::pair<Stream*, int64_t>> stack = {{&stream, position}};
    while (!stack.empty()) {
      const auto [top, until] = stack.back();
      stack.pop_back();
      auto found = std::find_if(needed.begin(), needed.end(), [&, top = top](auto& n) { return n.first == top; });
      if (found == needed.end()) found = needed.insert(needed.end(), {top, top->done});
      const int64_t from = found->second;
      found->second = std::max(from, std::min(until, top->end()));
      for (int64_t i = from; i < found->second; ++i) {
        const Item& item = top->pending[i - top->done];
        if (item.other != nullptr) stack.push_back({item.other, item.position});
      }
    }
    return needed;
  }

  // Runs a stream's work up to the position, and the work that it waits for.
  void Do(Stream& stream, int64_t position) {
    const std::vector<std::pair<Stream*, int64_t>> needed = Needed(stream, position);
    while (true) {
      Stream* next = nullptr;
      bool all_done = true;
      for (const auto& [candidate, until] : needed) {
        if (candidate->done >= until) continue;
        all_done = false;
        const Item& item = candidate->pending.front();
        if (item.other != nullptr && item.other->done < item.position) continue;
        if (next == nullptr || candidate->priority > next->priority) next = candidate;
      }
      if (all_done) return;
      GW_CHECK(next != nullptr, "streams wait for each other");
      if (const Item& item = next->pending.front(); item.work != nullptr) {
        const absl::Status status = item.work();
        if (error.ok()) error = status;
      }
      next->pending.pop_front();
      ++next->done;
      if (ChangesPriority()) next->priority = random();
    }
  }

  // Returns a random order of the graph's nodes that respects its edges.
  std::vector<int> OrderOf(const CapturedGraph& graph) {
    std::vector<std::deque<int>> lanes(graph.lanes);
    std::vector<uint64_t> priorities(graph.lanes);
    for (uint64_t& priority : priorities) priority = random();
    for (int i = 0; i < static_cast<int>(graph.nodes.size()); ++i) lanes[graph.nodes[i].lane].push_back(i);
    std::vector<bool> done(graph.nodes.size(), false);
    std::vector<int> order;
    while (order.size() < graph.nodes.size()) {
      int next = -1;
      for (int lane = 0; lane < graph.lanes; ++lane) {
        if (lanes[lane].empty() || (next >= 0 && priorities[lane] < priorities[next])) continue;
        const std::vector<int>& follows = graph.nodes[lanes[lane].front()].follows;
        if (std::all_of(follows.begin(), follows.end(), [&](int node) { return done[node]; })) next = lane;
      }
      GW_CHECK(next >= 0, "a graph has a cycle");
      order.push_back(lanes[next].front());
      done[order.back()] = true;
      lanes[next].pop_front();
      if (ChangesPriority()) priorities[next] = random();
    }
    return order;
  }

  void Enqueue(Stream& stream, Work work) {
    if (stream.capture == nullptr) {
      stream.pending.push_back({std::move(work)});
      return;
    }
    std::vector<CapturedNode>& nodes = stream.capture->graph.nodes;
    nodes.push_back({std::move(work), stream.behind, stream.lane});
    stream.behind = {static_cast<int>(nodes.size()) - 1};
  }

  void Join(Stream& stream, Capture& capture) {
    stream.capture = &capture;
    stream.lane = capture.graph.lanes++;
    stream.behind.clear();
    capture.streams.push_back(&stream);
  }
};

EmulatedStreams::EmulatedStreams(uint64_t seed) : state_(std::make_unique<State>()) { state_->random.seed(seed); }

EmulatedStreams::~EmulatedStreams() {
  for (Event* event : state_->events) delete event;
  for (CapturedGraph* graph : state_->graphs) delete graph;
}

CudaStream EmulatedStreams::Create() {
  auto stream = std::make_unique<Stream>();
  stream->device = state_->CurrentDevice();
  stream->priority = state_->random();
  state_->streams.push_back(std::move(stream));
  return state_->streams.back().get();
}

absl::Status EmulatedStreams::Destroy(CudaStream handle) {
  GW_ASSIGN_OR_RETURN(Stream * stream, state_->FindStream("DestroyStream", handle));
  if (stream->capture != nullptr) return absl::InternalError("DestroyStream: the stream is capturing");
  // Work that other streams wait for is done when the stream goes away.
  state_->Do(*stream, stream->end());
  for (Event* event : state_->events) {
    if (event->stream == stream) event->stream = nullptr;
  }
  for (const auto& other : state_->streams) {
    for (Item& item : other->pending) {
      if (item.other == stream) item.other = nullptr;
    }
  }
  state_->streams.erase(std::find_if(state_->streams.begin(), state_->streams.end(),
                                     [&](const auto& candidate) { return candidate.get() == stream; }));
  return absl::OkStatus();
}

absl::Status EmulatedStreams::Enqueue(const char* call, CudaStream handle, Work work) {
  GW_ASSIGN_OR_RETURN(Stream * stream, state_->FindStream(call, handle));
  state_->Enqueue(*stream, std::move(work));
  return absl::OkStatus();
}

absl::StatusOr<bool> EmulatedStreams::IsCapturing(const char* call, CudaStream handle) const {
  GW_ASSIGN_OR_RETURN(Stream * stream, state_->FindStream(call, handle));
  return stream->capture != nullptr;
}

absl::Status EmulatedStreams::Synchronize(CudaStream handle) {
  GW_ASSIGN_OR_RETURN(Stream * stream, state_->FindStream("Synchronize", handle));
  if (stream->capture != nullptr)
    return absl::InternalError("Synchronize: operation not permitted while the stream is capturing");
  state_->Do(*stream, stream->end());
  return std::exchange(state_->error, absl::OkStatus());
}

void EmulatedStreams::DoAll() {
  for (const auto& stream : state_->streams) state_->Do(*stream, stream->end());
}

CudaEvent EmulatedStreams::CreateEvent(bool timed) {
  auto* event = new Event;
  event->device = state_->CurrentDevice();
  event->timed = timed;
  state_->events.insert(event);
  return event;
}

absl::Status EmulatedStreams::DestroyEvent(CudaEvent handle) {
  GW_ASSIGN_OR_RETURN(Event * event, state_->FindEvent("DestroyEvent", handle));
  state_->events.erase(event);
  delete event;
  return absl::OkStatus();
}

absl::Status EmulatedStreams::RecordEvent(CudaEvent event_handle, CudaStream handle) {
  GW_ASSIGN_OR_RETURN(Stream * stream, state_->FindStream("RecordEvent", handle));
  GW_ASSIGN_OR_RETURN(Event * event, state_->FindEvent("RecordEvent", event_handle));
  GW_RETURN_IF_ERROR(State::CheckSameDevice("RecordEvent", "event", event->device, *stream));
  const bool captured = stream->capture != nullptr;
  event->stream = captured ? nullptr : stream;
  event->position = stream->end();
  event->capture = captured ? stream->capture->number : 0;
  event->behind = stream->behind;
  return absl::OkStatus();
}

absl::Status EmulatedStreams::WaitEvent(CudaEvent event_handle, CudaStream handle) {
  GW_ASSIGN_OR_RETURN(Stream * stream, state_->FindStream("WaitEvent", handle));
  GW_ASSIGN_OR_RETURN(Event * event, state_->FindEvent("WaitEvent", event_handle));
  if (event->capture == 0) {
    // An event that was never recorded counts as completed.
    if (event->stream == nullptr) return absl::OkStatus();
    if (stream->capture != nullptr)
      return absl::InternalError("WaitEvent: a stream that captures waits for work outside of the capture");
    stream->pending.push_back({nullptr, event->stream, event->position});
    return absl::OkStatus();
  }
  auto capture = std::find_if(state_->captures.begin(), state_->captures.end(),
                              [&](const auto& candidate) { return candidate->number == event->capture; });
  if (capture == state_->captures.end() || (stream->capture != nullptr && stream->capture != capture->get()))
    return absl::InternalError("WaitEvent: the event was last recorded in another capture");
  if (stream->capture == nullptr) state_->Join(*stream, **capture);
  stream->AddBehind(event->behind);
  return absl::OkStatus();
}

absl::Status EmulatedStreams::SynchronizeEvent(CudaEvent handle) {
  GW_ASSIGN_OR_RETURN(Event * event, state_->FindEvent("SynchronizeEvent", handle));
  if (event->capture != 0) return absl::InternalError("SynchronizeEvent: the event was last recorded in a capture");
  if (event->stream != nullptr) state_->Do(*event->stream, event->position);
  return absl::OkStatus();
}

absl::Status EmulatedStreams::RecordTime(CudaEvent event_handle, CudaStream handle) {
  GW_ASSIGN_OR_RETURN(Stream * stream, state_->FindStream("RecordTime", handle));
  GW_ASSIGN_OR_RETURN(Event * event, state_->FindEvent("RecordTime", event_handle));
  GW_RETURN_IF_ERROR(State::CheckSameDevice("RecordTime", "event", event->device, *stream));
  if (!event->timed) return absl::InternalError("RecordTime: this is not a timed event");
  state_->Enqueue(*stream, [state = state_.get(), event] {
    // The event may have been destroyed since.
    if (state->events.count(event) > 0) {
      event->microseconds =
          std::chrono::duration<double, std::micro>(std::chrono::steady_clock::now().time_since_epoch()).count();
    }
    return absl::OkStatus();
  });
  return absl::OkStatus();
}

absl::StatusOr<double> EmulatedStreams::ElapsedMicroseconds(CudaEvent begin_handle, CudaEvent end_handle) const {
  GW_ASSIGN_OR_RETURN(const Event* begin, state_->FindEvent("ElapsedMicroseconds", begin_handle));
  GW_ASSIGN_OR_RETURN(const Event* end, state_->FindEvent("ElapsedMicroseconds", end_handle));
  if (!begin->microseconds.has_value() || !end->microseconds.has_value())
    return absl::InternalError("ElapsedMicroseconds: a timed event has not happened");
  return *end->microseconds - *begin->microseconds;
}

absl::Status EmulatedStreams::BeginCapture(CudaStream handle) {
  GW_ASSIGN_OR_RETURN(Stream * stream, state_->FindStream("BeginCapture", handle));
  if (stream->capture != nullptr) return absl::InternalError("BeginCapture: the stream is capturing already");
  auto capture = std::make_unique<Capture>();
  capture->number = ++state_->num_captures;
  capture->thread = std::this_thread::get_id();
  capture->graph.device = stream->device;
  state_->Join(*stream, *capture);
  state_->captures.push_back(std::move(capture));
  return absl::OkStatus();
}

absl::StatusOr<CudaGraph> EmulatedStreams::EndCapture(CudaStream handle) {
  GW_ASSIGN_OR_RETURN(Stream * stream, state_->FindStream("EndCapture", handle));
  auto found = std::find_if(state_->captures.begin(), state_->captures.end(),
                            [&](const auto& candidate) { return candidate->streams[0] == stream; });
  if (found == state_->captures.end()) return absl::InternalError("EndCapture: the stream has not begun a capture");
  const std::unique_ptr<Capture> capture = std::move(*found);
  state_->captures.erase(found);
  const std::vector<bool> joined = Ancestors(capture->graph, stream->behind);
  bool all_joined = true;
  for (Stream* part : capture->streams) {
    for (int node : part->behind) all_joined = all_joined && joined[node];
    part->capture = nullptr;
    part->behind.clear();
  }
  if (capture->invalid)
    return absl::InternalError("EndCapture: operation failed due to a previous error during capture");
  if (!all_joined) return absl::InternalError("EndCapture: a stream that was forked off has not been joined");
  return *state_->graphs.insert(new CapturedGraph(std::move(capture->graph))).first;
}

absl::Status EmulatedStreams::LaunchGraph(CudaGraph handle, CudaStream stream_handle) {
  GW_ASSIGN_OR_RETURN(Stream * stream, state_->FindStream("LaunchGraph", stream_handle));
  auto found = state_->graphs.find(static_cast<CapturedGraph*>(handle));
  if (found == state_->graphs.end()) return absl::InternalError("LaunchGraph: this is not a graph");
  GW_RETURN_IF_ERROR(State::CheckSameDevice("LaunchGraph", "graph", (*found)->device, *stream));
  for (int node : state_->OrderOf(**found)) state_->Enqueue(*stream, (*found)->nodes[node].work);
  return absl::OkStatus();
}

absl::Status EmulatedStreams::DestroyGraph(CudaGraph handle) {
  if (state_->graphs.erase(static_cast<CapturedGraph*>(handle)) == 0)
    return absl::InternalError("DestroyGraph: this is not a graph");
  delete static_cast<CapturedGraph*>(handle);
  return absl::OkStatus();
}

void EmulatedStreams::InvalidateCapture() {
  for (const auto& capture : state_->captures) {
    if (capture->thread == std::this_thread::get_id()) capture->invalid = true;
  }
}

void EmulatedStreams::SetCurrentDevice(int device) { state_->devices[std::this_thread::get_id()] = device; }
int EmulatedStreams::current_device() const { return state_->CurrentDevice(); }

bool EmulatedStreams::ThisThreadCaptures() const {
  return std::any_of(state_->captures.begin(), state_->captures.end(),
                     [](const auto& capture) { return capture->thread == std::this_thread::get_id(); });
}

}  // namespace gradweave
