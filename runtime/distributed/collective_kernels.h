// The CPU's kernels of collective ops.
#ifndef GRADWEAVE_RUNTIME_DISTRIBUTED_COLLECTIVE_KERNELS_H_
#define GRADWEAVE_RUNTIME_DISTRIBUTED_COLLECTIVE_KERNELS_H_

#include <cstdint>
#include <memory>
#include <string>

#include "gradweave/graph/dtype.h"
#include "gradweave/runtime/distributed/communicator.h"
#include "gradweave/runtime/kernel/kernel.h"
#include "gradweave/runtime/kernel/profiler.h"

namespace gradweave::distributed {

// Adds kernels of all collective ops that exchange data over this communicator. Null means a group
// of one shard. Making a kernel returns InvalidArgument for a node with another number of shards
// than the group's. Kernels can fail, so they run before any variable changes.
void RegisterCollectiveKernels(std::shared_ptr<Communicator> communicator, KernelRegistry& registry);

// An AllReduce as two kernels; other kernels run between them.
struct OverlappedKernels {
  // Copies x to the output, which the communicator's thread then replaces by the sum. The scratch
  // and the output belong to that thread until `wait` returns.
  Kernel start;
  // Reads no operands and has no outputs. Returns the error of the sum. Ends the sum if the run has
  // to stop.
  Kernel wait;
};

// The kernels of one plan share the row of their sums in a profile.
struct OverlappedRow {
  const Profiler* profiler = nullptr;  // The profile that has the row; null: none yet.
  int row = 0;
};

// The kernels for the sum of `count` elements. `what` names it in errors and profiles. `is_first`
// is true for the first sum of a plan, which begins the row of a run.
OverlappedKernels MakeOverlappedAllReduce(std::shared_ptr<Communicator> communicator, DType dtype, int64_t count,
                                          std::string what, bool is_first, std::shared_ptr<OverlappedRow> row);

}  // namespace gradweave::distributed

#endif  // GRADWEAVE_RUNTIME_DISTRIBUTED_COLLECTIVE_KERNELS_H_
