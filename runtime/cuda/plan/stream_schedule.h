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

// Everything begins and ends on stream 0. begin_event is recorded there; then the host enqueues the
// steps, each with its waits before it and its event after it; then stream 0 waits for end_waits.
// This makes a fork and a join, as the capture of a CUDA graph requires.
struct StreamSchedule {
  struct Step {
    int stream = 0;
    absl::InlinedVector<int, 2> waits = {};  // The events that its stream waits for first.
    int event = -1;                          // Recorded on its stream after it; -1 if none.
  };
  std::vector<Step> steps;
  int begin_event = -1;  // -1 if none.
  absl::InlinedVector<int, 4> end_waits;
  int num_streams = 1;
  int num_events = 0;  // Their numbers are below this, and each is recorded once.

  int num_waits() const;
};

// Orders a step after each earlier step that writes memory that it accesses, or accesses memory
// that it writes (Bernstein, "Analysis of programs for parallel processing", 1966). It follows no
// other steps except those before it on its stream. If a step that it must follow is the last one
// on a stream, it continues that stream; else it takes a stream whose last step it follows anyway;
// else the stream whose last step is the oldest. Waits that streams and other waits imply are
// omitted: each step knows the last step of each stream that it follows (vector clocks; Mattern,
// "Virtual time and global states of distributed systems", 1988). Takes time in proportion to the
// steps, except for a logarithm and the number of streams. At least one stream.
StreamSchedule ScheduleOnStreams(absl::Span<const StepAccess> steps, int most_streams);

// Returns for each step the last step that may run at the same time, or the step itself if it runs
// alone. All later steps follow it.
std::vector<int> LastBeside(const StreamSchedule& schedule);

}  // namespace gradweave

#endif  // GRADWEAVE_RUNTIME_CUDA_PLAN_STREAM_SCHEDULE_H_
