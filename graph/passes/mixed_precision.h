// Products and convolutions in half precision, and all else in float32.
#ifndef GRADWEAVE_GRAPH_PASSES_MIXED_PRECISION_H_
#define GRADWEAVE_GRAPH_PASSES_MIXED_PRECISION_H_

#include <cstdint>
#include <string>

#include "absl/status/statusor.h"
#include "gradweave/graph/graph.h"

namespace gradweave {

// Counts of the nodes that the pass changed. Bytes count values of known sizes.
struct MixedPrecisionReport {
  DType half = kBFloat16;
  int64_t products = 0;   // Nodes of ops that take halves (MixedPrecision::kHalf).
  int64_t followers = 0;  // Nodes between these.
  int64_t casts = 0;
  // Bytes that the results of both kinds of nodes take in float32; they take half as many in the half
  // type.
  int64_t bytes = 0;

  // One line: "mixed precision: 12 products and 9 other nodes in bfloat16, 14 casts; ...".
  std::string ToString() const;
};

// Returns a graph with the same outputs, of the same types, whose float32 nodes do what
// OpDefinition::mixed_precision says (Micikevicius et al., "Mixed precision training", 2018):
// - kHalf: takes halves, of which it sums products in float32, and rounds its results to halves;
// - kFollows: takes halves if one of its operands is a half already, all others are halves,
//   variables or constants that the half type has roughly, and a node of kHalf depends on it;
// - kFloat32: takes float32.
// Each value is cast at most once. Nodes of other floating types stay as they are. An update of
// variables is float32, because no product of the same run depends on it.
//
// The pass does not change bodies; see ApplyWithBodies. `half` is kFloat16 or kBFloat16. Adds to
// the report, if there is one. Returns errors of Graph::AddNode.
absl::StatusOr<Graph> MakeMixedPrecision(const Graph& graph, DType half, MixedPrecisionReport* report = nullptr);

}  // namespace gradweave

#endif  // GRADWEAVE_GRAPH_PASSES_MIXED_PRECISION_H_
