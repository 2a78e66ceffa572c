// Recomputes values after replacing some of the values that they depend on.
#ifndef GRADWEAVE_GRAPH_PASSES_SUBSTITUTE_H_
#define GRADWEAVE_GRAPH_PASSES_SUBSTITUTE_H_

#include <utility>
#include <vector>

#include "absl/types/span.h"
#include "gradweave/graph/graph.h"

namespace gradweave {

// A value and its replacement, which has the same type.
using Substitution = std::pair<Value, Value>;

// Adds copies of the nodes that lead from the replaced values to `values`, reading the replacements
// instead, and returns the new values in order. A value that depends on no replaced value is
// returned unchanged; random ops keep their seeds, so a copy draws the same numbers. All values
// belong to one graph and are valid. A replacement of another type is an error, which the graph
// records; the results are then not valid.
std::vector<Value> Substitute(const std::vector<Value>& values, absl::Span<const Substitution> substitutions);

}  // namespace gradweave

#endif  // GRADWEAVE_GRAPH_PASSES_SUBSTITUTE_H_
