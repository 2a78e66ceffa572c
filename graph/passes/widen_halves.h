// Halves computed in float32.
#ifndef GRADWEAVE_GRAPH_PASSES_WIDEN_HALVES_H_
#define GRADWEAVE_GRAPH_PASSES_WIDEN_HALVES_H_

#include "absl/status/statusor.h"
#include "gradweave/graph/graph.h"

namespace gradweave {

// Returns a graph with the same outputs, of the same types, in which no op computes with float16 or
// bfloat16: it computes with float32, and its results are rounded to the half type once, to
// nearest, to even if two are equally near. So devices need kernels for float32 alone, and nodes of
// halves join the chains, tiles and rows of others.
//
// A value of a half type has up to two forms in the result. The wide form is float32 and has the
// same numbers, which RoundToFloat16 or RoundToBFloat16 makes. The stored form has the half type,
// and Cast makes it, where there is a reader for it. Inputs, constants, variables, what is assigned
// to these, operands and results of loops and branches, and outputs are stored. Ops that only move
// elements, which take halves by their definitions, take the forms that their operands have.
// Casts between float32 and a half type become roundings, or nothing.
//
// The pass does not change bodies; see ApplyWithBodies. It returns a graph without halves as it is.
// Returns errors of Graph::AddNode.
absl::StatusOr<Graph> WidenHalves(const Graph& graph);

}  // namespace gradweave

#endif  // GRADWEAVE_GRAPH_PASSES_WIDEN_HALVES_H_
