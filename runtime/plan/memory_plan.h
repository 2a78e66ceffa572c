// The places of a plan's values in an arena.
#ifndef GRADWEAVE_RUNTIME_PLAN_MEMORY_PLAN_H_
#define GRADWEAVE_RUNTIME_PLAN_MEMORY_PLAN_H_

#include <cstdint>
#include <vector>

#include "absl/types/span.h"

namespace gradweave {

// The most bytes of packed weights that a plan keeps from run to run. Products with more weights
// take so long that the time to copy the weights hardly matters.
inline constexpr int64_t kMostKeptBytes = 128 << 20;

// A buffer that is needed from step `first` to step `last`, both included.
struct BufferLifetime {
  int64_t bytes = 0;
  int first = 0;
  int last = 0;
};

struct MemoryPlan {
  std::vector<int64_t> offsets;   // The place of each buffer; a multiple of 64.
  int64_t arena_bytes = 0;        // The arena's size: the planned peak.
  int64_t lower_bound_bytes = 0;  // The largest sum of bytes that are live at one step: no plan needs less.
};

// Gives buffers whose lifetimes overlap disjoint places: largest first, each at the lowest place
// where it fits (greedy by size; Pisarchyk and Lee, "Efficient memory management for deep neural
// net inference", 2020, section 5.2). Many thousands of buffers are placed in the order of their
// lifetimes, each in the smallest gap that is wide enough. Sizes are rounded up to 64 bytes.
MemoryPlan PlanMemory(absl::Span<const BufferLifetime> buffers);

}  // namespace gradweave

#endif  // GRADWEAVE_RUNTIME_PLAN_MEMORY_PLAN_H_
