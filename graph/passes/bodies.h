// Passes on the bodies of loops and branches.
#ifndef GRADWEAVE_GRAPH_PASSES_BODIES_H_
#define GRADWEAVE_GRAPH_PASSES_BODIES_H_

#include "absl/functional/function_ref.h"
#include "absl/status/statusor.h"
#include "gradweave/graph/graph.h"

namespace gradweave {

// A pass that keeps the types of the outputs.
using GraphPass = absl::FunctionRef<absl::StatusOr<Graph>(const Graph&)>;

// Applies the pass to the graph, then to the bodies of its nodes and the bodies in these.
absl::StatusOr<Graph> ApplyWithBodies(const Graph& graph, GraphPass pass);

// Makes one Scan of several that take the same operands and have the same states. Its outputs are
// those of all. So a gradient, which adds a forward Scan that stores more, costs no second loop.
absl::StatusOr<Graph> MergeScans(const Graph& graph);

// Drops outputs of Scans that nothing reads, states that only they need, and operands that then are
// not read.
absl::StatusOr<Graph> PruneScans(const Graph& graph);

// Moves work out of Scans that have at least two steps and known sizes, from the innermost ones on:
// - Nodes that depend on captured values alone run once before the loop. Views, and what is larger
//   than its operands, stay.
// - The product of a scanned input with a matrix that is the same in all steps becomes one product
//   of the whole input.
// - An output that is a product with such a matrix becomes one product behind the loop.
// - A state that only adds up products a^T b, as gradients of weights do, becomes one product of
//   the rows of all steps behind the loop. Its additions have another order. The same for sums over
//   axes of what the loop reads or gives anyway.
absl::StatusOr<Graph> HoistFromLoops(const Graph& graph);

}  // namespace gradweave

#endif  // GRADWEAVE_GRAPH_PASSES_BODIES_H_
