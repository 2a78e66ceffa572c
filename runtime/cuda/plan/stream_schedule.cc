#include "gradweave/runtime/cuda/plan/stream_schedule.h"

#include <algorithm>
#include <functional>
#include <iterator>
#include <map>
#include <utility>

#include "gradweave/graph/check.h"

namespace gradweave {
namespace {

using Steps = absl::InlinedVector<int, 8>;

// The last accesses to each range of bytes.
class Hazards {
 public:
  // Returns the steps that a step with these accesses must follow. The last reader on each stream
  // stands for earlier ones.
  Steps Find(const StepAccess& access) const {
    Steps found;
    for (const MemoryRange& range : access.reads) {
      Visit(range, [&](const Piece& piece) {
        if (piece.writer >= 0) found.push_back(piece.writer);
      });
    }
    for (const MemoryRange& range : access.writes) {
      Visit(range, [&](const Piece& piece) {
        if (piece.writer >= 0) found.push_back(piece.writer);
        for (const auto& [stream, reader] : piece.readers) found.push_back(reader);
      });
    }
    std::sort(found.begin(), found.end(), std::greater<int>());
    found.erase(std::unique(found.begin(), found.end()), found.end());
    return found;
  }

  void Add(const StepAccess& access, int step, int stream) {
    for (const MemoryRange& range : access.reads) AddReader(range, step, stream);
    for (const MemoryRange& range : access.writes) {
      if (range.begin == range.end) continue;
      const auto first = Split(range.begin);
      pieces_.erase(first, Split(range.end));
      pieces_[range.begin] = {.end = range.end, .writer = step};
    }
  }

 private:
  struct Piece {
    uint64_t end;
    int writer = -1;                                           // -1: none.
    absl::InlinedVector<std::pair<int, int>, 4> readers = {};  // Since then: streams, and the last step on each.
  };
  using Pieces = std::map<uint64_t, Piece>;  // Indexed by begin.

  template <typename Visitor>
  void Visit(const MemoryRange& range, Visitor visitor) const {
    if (range.begin == range.end) return;
    auto piece = pieces_.lower_bound(range.begin);
    if (piece != pieces_.begin() && std::prev(piece)->second.end > range.begin) --piece;
    for (; piece != pieces_.end() && piece->first < range.end; ++piece) visitor(piece->second);
  }

  // Returns the first piece that begins at the address or after it; no piece lies across the
  // address.
  Pieces::iterator Split(uint64_t address) {
    auto next = pieces_.lower_bound(address);
    if (next == pieces_.begin()) return next;
    Piece& before = std::prev(next)->second;
    if (before.end <= address) return next;
    const Piece rest = before;
    before.end = address;
    return pieces_.emplace_hint(next, address, rest);
  }

  void AddReader(const MemoryRange& range, int step, int stream) {
    if (range.begin == range.end) return;
    Split(range.end);
    auto piece = Split(range.begin);
    for (uint64_t at = range.begin; at < range.end;) {
      if (piece == pieces_.end() || piece->first > at) {
        // No step has accessed these bytes.
        const uint64_t end = piece == pieces_.end() ? range.end : std::min(range.end, piece->first);
        piece = pieces_.emplace_hint(piece, at, Piece{.end = end});
      }
      auto& readers = piece->second.readers;
      auto same = std::find_if(readers.begin(), readers.end(), [&](const auto& r) { return r.first == stream; });
      if (same == readers.end()) {
        readers.push_back({stream, step});
      } else {
        same->second = step;
      }
      at = piece->second.end;
      ++piece;
    }
  }

  Pieces pieces_;
};

// Indexed by stream, the last step that is known to be done; -1 if none.
using Clock = absl::InlinedVector<int, 8>;

void Merge(Clock& clock, const Clock& other) {
  for (size_t i = 0; i < clock.size(); ++i) clock[i] = std::max(clock[i], other[i]);
}

class Scheduler {
 public:
  explicit Scheduler(int most_streams) : never_(most_streams, -1), last_(most_streams, -1) {}

  void Add(const StepAccess& access) {
    const int step = static_cast<int>(out_.steps.size());
    const Steps follows = hazards_.Find(access);
    const int stream = ChooseStream(follows);
    out_.steps.push_back({.stream = stream});
    Clock clock = ClockOf(last_[stream]);
    // The latest first: they follow others.
    for (int before : follows) {
      if (Wait(clock, before)) out_.steps.back().waits.push_back(out_.steps[before].event);
    }
    if (stream > 0 && last_[stream] < 0 && out_.steps.back().waits.empty()) {
      if (out_.begin_event < 0) out_.begin_event = out_.num_events++;
      out_.steps.back().waits.push_back(out_.begin_event);
    }
    clock[stream] = last_[stream] = step;
    clocks_.push_back(std::move(clock));
    hazards_.Add(access, step, stream);
    out_.num_streams = std::max(out_.num_streams, stream + 1);
  }

  StreamSchedule Finish() {
    Steps lasts(last_.begin() + 1, last_.end());
    std::sort(lasts.begin(), lasts.end(), std::greater<int>());
    Clock clock = ClockOf(last_[0]);
    for (int last : lasts) {
      if (last >= 0 && Wait(clock, last)) out_.end_waits.push_back(out_.steps[last].event);
    }
    return std::move(out_);
  }

 private:
  const Clock& ClockOf(int step) const { return step < 0 ? never_ : clocks_[step]; }

  // Returns true if the owner of the clock needs a wait to run after the step, and records the wait
  // in the clock.
  bool Wait(Clock& clock, int step) {
    StreamSchedule::Step& before = out_.steps[step];
    if (clock[before.stream] >= step) return false;
    Merge(clock, clocks_[step]);
    if (before.event < 0) before.event = out_.num_events++;
    return true;
  }

  int ChooseStream(const Steps& follows) const {
    for (int step : follows) {
      if (last_[out_.steps[step].stream] == step) return out_.steps[step].stream;
    }
    Clock clock = never_;
    for (int step : follows) Merge(clock, clocks_[step]);
    for (size_t i = 0; i < last_.size(); ++i) {
      if (clock[i] >= last_[i]) return static_cast<int>(i);
    }
    return static_cast<int>(std::min_element(last_.begin(), last_.end()) - last_.begin());
  }

  const Clock never_;
  std::vector<int> last_;      // The last step of each stream; -1: none.
  std::vector<Clock> clocks_;  // When each step is done.
  Hazards hazards_;
  StreamSchedule out_;
};

}  // namespace

int StreamSchedule::num_waits() const {
  size_t count = end_waits.size();
  for (const Step& step : steps) count += step.waits.size();
  return static_cast<int>(count);
}

StreamSchedule ScheduleOnStreams(absl::Span<const StepAccess> steps, int most_streams) {
  GW_CHECK(most_streams >= 1, most_streams);
  Scheduler scheduler(most_streams);
  for (const StepAccess& access : steps) scheduler.Add(access);
  return scheduler.Finish();
}

std::vector<int> LastBeside(const StreamSchedule& schedule) {
  const int count = static_cast<int>(schedule.steps.size());
  std::vector<int> recorded_by(schedule.num_events, -1), before(count), last(schedule.num_streams, -1);
  for (int step = 0; step < count; ++step) {
    const StreamSchedule::Step& scheduled = schedule.steps[step];
    if (scheduled.event >= 0) recorded_by[scheduled.event] = step;
    before[step] = std::exchange(last[scheduled.stream], step);
  }
  // Indexed by step and stream, the first step on the stream that follows it; `count` if none does.
  std::vector<Clock> next(count, Clock(schedule.num_streams, count));
  auto follow = [&](int step, int first) {
    for (int i = 0; i < schedule.num_streams; ++i) next[step][i] = std::min(next[step][i], next[first][i]);
    int& own = next[step][schedule.steps[first].stream];
    own = std::min(own, first);
  };
  std::vector<int> result(count);
  for (int step = count - 1; step >= 0; --step) {
    // All steps that follow this one have been visited.
    result[step] = step;
    for (int i = 0; i < schedule.num_streams; ++i) {
      result[step] = std::max(result[step], next[step][i] == count ? last[i] : before[next[step][i]]);
    }
    if (before[step] >= 0) follow(before[step], step);
    for (int event : schedule.steps[step].waits) {
      if (recorded_by[event] >= 0) follow(recorded_by[event], step);
    }
  }
  return result;
}

}  // namespace gradweave
