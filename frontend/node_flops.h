// The work of single nodes.
#ifndef GRADWEAVE_FRONTEND_NODE_FLOPS_H_
#define GRADWEAVE_FRONTEND_NODE_FLOPS_H_

#include "gradweave/graph/dim.h"
#include "gradweave/graph/graph.h"

namespace gradweave {

// The floating-point operations of one execution of the node with these sizes of symbols; 0 if a
// size is not known or the op's work is negligible.
double NodeFlops(const Graph& graph, const Node& node, const DimBindings& sizes);

}  // namespace gradweave

#endif  // GRADWEAVE_FRONTEND_NODE_FLOPS_H_
