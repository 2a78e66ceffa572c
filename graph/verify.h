// The verifier repeats the checks of Graph::AddNode over a whole graph.
#ifndef GRADWEAVE_GRAPH_VERIFY_H_
#define GRADWEAVE_GRAPH_VERIFY_H_

#include "absl/status/status.h"
#include "gradweave/graph/graph.h"

namespace gradweave {

// Returns Ok, or an Internal error that names the first node that breaks a rule. The rules: ids
// equal positions; operands are values of earlier nodes; attributes have their declared types;
// shape inference gives the stored output types; inputs and variables have unique names; outputs
// exist.
absl::Status VerifyGraph(const Graph& graph);

}  // namespace gradweave

#endif  // GRADWEAVE_GRAPH_VERIFY_H_
