// ShardState: each shard keeps and updates a part of the state of optimizers.
#ifndef GRADWEAVE_GRAPH_PASSES_SHARD_STATE_H_
#define GRADWEAVE_GRAPH_PASSES_SHARD_STATE_H_

#include <cstdint>
#include <set>
#include <string>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "gradweave/graph/graph.h"

namespace gradweave {

// Returns the names of the variables whose elements are divided among `shards` shards: floating
// variables that are not trainable, are assigned, and are read only by elementwise ops of their
// shape, such as momenta. Variables of fewer than 256 elements stay whole, because a message for
// each would cost more than it saves.
std::set<std::string> VariablesToShard(const Graph& graph, int64_t shards);

// The elements of each shard's part of `count` elements: ceil(count / shards). Shard s has the
// elements from s*PartSize on. Zeros fill the last parts, which may be short or empty.
int64_t PartSize(int64_t count, int64_t shards);

// Changes the graph of a shard (DataParallel) so that each of the variables has only the shard's
// part, [PartSize]. The elementwise ops that compute new values of these variables, and of the
// parameters that follow from them, work on parts. A gradient that only these ops read comes from a
// ReduceScatter instead of an AllReduce, and an AllGather makes whole values from parts. Results
// have the same bits. `updates` names the output with the Assign nodes to carry out; values of the
// variables in other outputs are whole. This is the first stage of Rajbhandari et al., "ZeRO:
// memory optimizations toward training trillion parameter models", 2020, section 5.
absl::StatusOr<Graph> ShardState(const Graph& graph, int64_t shards, const std::set<std::string>& variables,
                                 absl::string_view updates);

}  // namespace gradweave

#endif  // GRADWEAVE_GRAPH_PASSES_SHARD_STATE_H_
