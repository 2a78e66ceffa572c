// The cost of a batch region in tiles.
#ifndef GRADWEAVE_RUNTIME_CPU_TILE_TILE_COST_H_
#define GRADWEAVE_RUNTIME_CPU_TILE_TILE_COST_H_

#include "absl/container/flat_hash_set.h"
#include "gradweave/graph/graph.h"
#include "gradweave/graph/partition/batch_regions.h"
#include "gradweave/runtime/cpu/cost/cost_model.h"

namespace gradweave {

// The most chunks of tiles that are summed separately. More chunks keep more threads busy but cost
// more additions at the end. The number of chunks depends on the batch alone, so sums are the same
// bits for every number of threads.
inline constexpr int64_t kMostTileChunks = 16;

// Returns the variables that the graph assigns.
absl::flat_hash_set<NodeId> AssignedVariables(const Graph& graph);
// Returns true if each run packs the weights: they are computed, or a variable among `assigned`.
bool IsPackedAgain(const Graph& graph, Port weights, const absl::flat_hash_set<NodeId>& assigned);

// Returns the cost of all tiles of the region, in vectors of LanesOfTiles(region.batch). Absent
// samples of the last tile count like others. `toom_cook` allows the Toom-Cook algorithm.
Estimate TileEstimate(const Graph& graph, const BatchRegion& region, bool toom_cook);

}  // namespace gradweave

#endif  // GRADWEAVE_RUNTIME_CPU_TILE_TILE_COST_H_
