// The assignment of a plan's steps to CUDA streams, with the waits between streams.
//
// Steps are numbered in the order in which the host enqueues them. A stream runs its steps in
// order. An event recorded after a step lets another stream wait for it.
#ifndef GRADWEAVE_RUNTIME_CUDA_PLAN_STREAM_SCHEDULE_H_
#define GRADWEAVE_RUNTIME_CUDA_PLAN_STREAM_SCHEDULE_H_

#include <cstdint>
#include <vector>

#include "absl/container/inlined_vector.h"
#include "absl/types/span.h"

namespace gradweave {

// Bytes from begin to before end, in an address space that all steps share.
struct MemoryRange {
  uint64_t begin, end;
};

// The memory that a step accesses. A range that it updates in place is in both lists. Memory that
// only this step uses, such as scratch, is in the writes.
struct StepAccess {
  absl::InlinedVector<MemoryRange, 4> reads, writes;
};

// Stream 0 is where everything begins and ends: begin_event is recorded there, then the host
// enqueues the steps, each with its waits before it and its event behind it, then stream 0 waits
// for end_waits. That makes a fork and a join, as the capture of a CUDA graph needs them.
struct StreamSchedule {
  struct Step {
    int stream = 0;
    absl::InlinedVector<int, 2> waits = {};  // The events that its stream waits for first.
    int event = -1;                          // Recorded on its stream behind it; -1: none.
  };
  std::vector<Step> steps;
  int begin_event = -1;  // -1: none.
  absl::InlinedVector<int, 4> end_waits;
  int num_streams = 1;
  int num_events = 0;  // Their numbers are below this, and each is recorded once.

  int num_waits() const;
};

// Orders a step behind each earlier one that writes what it touches or touches what it writes
// (Bernstein, "Analysis of programs for parallel processing", 1966), and no others than its stream
// makes it follow. A step continues the stream of one that it must follow, where that is the last
// there; else it takes a stream whose last step it has to follow anyway; else the one whose last
// step is the oldest. Waits that streams and other waits imply are left out: each step knows the
// last step of each stream that it follows (vector clocks; Mattern, "Virtual time and global states
// of distributed systems", 1988). Takes time in proportion to the steps, except for a logarithm and
// the number of streams. At least one stream.
StreamSchedule ScheduleOnStreams(absl::Span<const StepAccess> steps, int most_streams);

// For each step, the last one that may run while it runs, which is the step itself where it runs
// alone: steps from the next number on follow it.
std::vector<int> LastBeside(const StreamSchedule& schedule);

}  // namespace gradweave

#endif  // GRADWEAVE_RUNTIME_CUDA_PLAN_STREAM_SCHEDULE_H_
