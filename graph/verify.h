// The verifier: what AddNode checks, checked again over a whole graph.
#ifndef GRADWEAVE_GRAPH_VERIFY_H_
#define GRADWEAVE_GRAPH_VERIFY_H_

#include "absl/status/status.h"
#include "gradweave/graph/graph.h"

namespace gradweave {

// Ok, or an Internal error that names the first node that breaks a rule: ids are positions; operands are values of
// earlier nodes; attributes have their declared types; inference gives the stored output types; inputs and variables
// have unique names; outputs exist.
absl::Status VerifyGraph(const Graph& graph);

}  // namespace gradweave

#endif  // GRADWEAVE_GRAPH_VERIFY_H_
