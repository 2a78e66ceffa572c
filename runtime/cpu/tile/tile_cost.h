// The cost of a batch region in tiles.
#ifndef GRADWEAVE_RUNTIME_CPU_TILE_TILE_COST_H_
#define GRADWEAVE_RUNTIME_CPU_TILE_TILE_COST_H_

#include "gradweave/graph/partition/batch_regions.h"
#include "gradweave/runtime/cpu/cost/cost_model.h"

namespace gradweave {

// Returns the cost of all tiles of the region, in vectors of LanesOfTiles(region.batch). Absent
// samples of the last tile count like others. `toom_cook` allows the Toom-Cook algorithm.
Estimate TileEstimate(const Graph& graph, const BatchRegion& region, bool toom_cook);

}  // namespace gradweave

#endif  // GRADWEAVE_RUNTIME_CPU_TILE_TILE_COST_H_
