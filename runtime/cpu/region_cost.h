// Expected costs of nodes one by one, and of batch regions.
#ifndef GRADWEAVE_RUNTIME_CPU_REGION_COST_H_
#define GRADWEAVE_RUNTIME_CPU_REGION_COST_H_

#include "gradweave/graph/graph.h"
#include "gradweave/graph/partition/batch_regions.h"
#include "gradweave/runtime/cpu/cost/cost_model.h"

namespace gradweave {

// Returns the cost of a node with known shapes by itself, with its cheapest kernel. An elementwise
// node does not read from memory what an elementwise node or a product of its size passes to it,
// because row regions run those together. Here and below, `toom_cook` allows algorithms with fewer
// multiplications.
Estimate NodeEstimate(const Graph& graph, const Node& node, bool toom_cook);

// Returns the cost of all nodes of a region one by one.
Estimate OneByOneEstimate(const Graph& graph, const BatchRegion& region, bool toom_cook);

// Returns the microseconds of one thread that tiles are expected to save over nodes one by one.
double TilesSaving(const Graph& graph, const BatchRegion& region, bool toom_cook);

}  // namespace gradweave

#endif  // GRADWEAVE_RUNTIME_CPU_REGION_COST_H_
