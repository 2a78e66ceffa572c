// DataParallel: from a graph over a whole batch to the graph of one shard.
#ifndef GRADWEAVE_GRAPH_PASSES_DATA_PARALLEL_H_
#define GRADWEAVE_GRAPH_PASSES_DATA_PARALLEL_H_

#include <cstdint>

#include "absl/status/statusor.h"
#include "gradweave/graph/graph.h"

namespace gradweave {

// Returns a graph that computes one of `shards` shards, at least 1. All shards run it together,
// each with some of the samples of the batch, in the order of the shards and maybe none. The
// outputs with a batch axis are then those of the shard's samples, and all others equal those of
// `graph` for the whole batch, up to the order of sums.
//
// The batch is the symbol of the first axis of the inputs. What ops declare (OpDefinition::batch)
// determines the rest: a value of samples stays in its shard; what is summed over samples is a sum
// of the shard and an AllReduce, which comes after sums and differences of such values; a size of
// the batch is that of the whole batch; other reductions over the batch, such as Max, are those of
// the shards' results after an AllGather; a softmax over the batch takes the largest number and the
// sum from all shards; random numbers of samples are those of the samples' places in the batch.
// Collective ops form one chain, so all shards run them in the same order.
//
// A graph that has collective ops already is that of a shard, and stays as it is.
//
// Returns InvalidArgument, with the node, for other ops that mix samples, and for inputs with
// different symbols on their first axes.
absl::StatusOr<Graph> DataParallel(const Graph& graph, int64_t shards);

}  // namespace gradweave

#endif  // GRADWEAVE_GRAPH_PASSES_DATA_PARALLEL_H_
