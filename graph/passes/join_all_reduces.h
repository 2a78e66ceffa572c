// JoinAllReduces: fewer and larger messages between shards.
#ifndef GRADWEAVE_GRAPH_PASSES_JOIN_ALL_REDUCES_H_
#define GRADWEAVE_GRAPH_PASSES_JOIN_ALL_REDUCES_H_

#include <cstdint>

#include "absl/status/statusor.h"
#include "gradweave/graph/graph.h"

namespace gradweave {

// Returns a graph with the same results, bit for bit, whose collective ops come as early as their
// operands allow, in a new chain. AllReduces of one dtype and of known sizes share one AllReduce of
// their concatenated elements, a bucket: it is complete at `bucket_bytes` bytes, or when the first
// of its results is read. Results that another collective op needs, such as statistics of a batch,
// and other results, such as gradients, go to different buckets.
//
// The result depends only on the graph and on `bucket_bytes`, so all shards get the same chain. The
// pass comes before Specialize, since shards have different numbers of samples.
absl::StatusOr<Graph> JoinAllReduces(const Graph& graph, int64_t bucket_bytes);

}  // namespace gradweave

#endif  // GRADWEAVE_GRAPH_PASSES_JOIN_ALL_REDUCES_H_
