// The CPU's kernels of collective ops.
#ifndef GRADWEAVE_RUNTIME_DISTRIBUTED_COLLECTIVE_KERNELS_H_
#define GRADWEAVE_RUNTIME_DISTRIBUTED_COLLECTIVE_KERNELS_H_

#include <memory>

#include "gradweave/runtime/distributed/communicator.h"
#include "gradweave/runtime/kernel/kernel.h"

namespace gradweave::distributed {

// Adds kernels of all collective ops that exchange data over this communicator. Null means a group
// of one shard. Making a kernel returns InvalidArgument for a node with another number of shards
// than the group's. Kernels can fail, so they run before any variable changes.
void RegisterCollectiveKernels(std::shared_ptr<Communicator> communicator, KernelRegistry& registry);

}  // namespace gradweave::distributed

#endif  // GRADWEAVE_RUNTIME_DISTRIBUTED_COLLECTIVE_KERNELS_H_
