// Collective ops exchange values between the shards of a data-parallel run. The pass DataParallel
// adds them to a graph (graph/passes/data_parallel.h); a program may also use them directly.
#ifndef GRADWEAVE_OPS_COLLECTIVES_H_
#define GRADWEAVE_OPS_COLLECTIVES_H_

#include <cstdint>
#include <source_location>

#include "gradweave/graph/graph.h"
#include "gradweave/ops/builder.h"
#include "gradweave/ops/scope.h"

namespace gradweave {

// All shards run the same collective ops in the same order. In a graph with several of them that do
// not depend on each other, `after` gives them an order. A session without a communicator is a
// group of one shard. Gradients are gradients of the sum of all shards' losses. Errors are recorded
// in the graph: a dtype that the op does not take, and shapes that do not fit.
struct CollectiveOptions {
  int64_t shards = 1;  // The shards of the group, at least 1; the run checks it.
  Value after = {};    // The result of the collective op before this one; none for the first.
};

// The sum over all shards of their x, added in one binary tree by shard number.
Value AllReduce(Operand x, const CollectiveOptions& options);
// [shards, ...]: the x of each shard.
Value AllGather(Operand x, const CollectiveOptions& options);
// For x [shards, ...]: the sum over all shards of the part of their x for this shard.
Value ReduceScatter(Operand x, const CollectiveOptions& options);
// The x of the shard `root`, in [0, shards).
Value Broadcast(Operand x, int64_t root, const CollectiveOptions& options);
// The number of this shard, an int64 scalar in [0, shards).
Value ShardIndex(Scope& scope, int64_t shards, std::source_location location = std::source_location::current());

}  // namespace gradweave

#endif  // GRADWEAVE_OPS_COLLECTIVES_H_
