// DataParallel: from a graph over a whole batch to the graph of one shard.
#ifndef GRADWEAVE_GRAPH_PASSES_DATA_PARALLEL_H_
#define GRADWEAVE_GRAPH_PASSES_DATA_PARALLEL_H_

#include <cstdint>

#include "absl/status/statusor.h"
#include "gradweave/graph/graph.h"

namespace gradweave {

// Returns a graph that computes one of `shards` shards, at least 1. All shards run it together,
// each with some of the samples of the batch, in the order of the shards and maybe none. The
// outputs with a batch axis then have the shard's samples. All other outputs equal the outputs of
// `graph` for the whole batch, up to the order of sums.
//
// The batch is the symbol of the first axis of the inputs. The treatment of the batch that ops
// declare (OpDefinition::batch) determines the rest. Values of samples stay in their shard. A sum
// over samples becomes a sum of the shard and an AllReduce, which comes after sums and differences
// of such values. The size of the batch is the size of the whole batch. Other reductions over the
// batch, such as Max, become an AllGather of the shards' results and a reduction of these. A
// softmax over the batch takes the largest number and the sum from all shards. Random numbers of
// samples are the numbers for the samples' places in the whole batch. Collective ops form one
// chain, so all shards run them in the same order.
//
// A graph that already has collective ops is the graph of a shard and does not change.
//
// Returns InvalidArgument, with the node, for other ops that mix samples, and for inputs with
// different symbols on their first axes.
absl::StatusOr<Graph> DataParallel(const Graph& graph, int64_t shards);

}  // namespace gradweave

#endif  // GRADWEAVE_GRAPH_PASSES_DATA_PARALLEL_H_
