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

// Merges Scans that take the same operands and have the same states into one Scan with the outputs
// of all. A gradient adds a forward Scan that stores more values; because of this pass it does not
// cost a second loop.
absl::StatusOr<Graph> MergeScans(const Graph& graph);

// Drops outputs of Scans that nothing reads, states that only these need, and operands that are
// then not read.
absl::StatusOr<Graph> PruneScans(const Graph& graph);

// Moves work out of Scans that have at least two steps and known sizes, from the innermost ones on:
// - Nodes that depend only on captured values run once before the loop. Views, and values that are
//   larger than their operands, stay.
// - The product of a scanned input with a matrix that is the same in all steps becomes one product
//   of the whole input.
// - An output that is a product with such a matrix becomes one product after the loop.
// - A state that only adds up products a^T b, as gradients of weights do, becomes one product of
//   the rows of all steps after the loop. Its additions have a different order. The same holds for
//   sums over axes of values that the loop reads or outputs anyway.
absl::StatusOr<Graph> HoistFromLoops(const Graph& graph);

}  // namespace gradweave

#endif  // GRADWEAVE_GRAPH_PASSES_BODIES_H_
