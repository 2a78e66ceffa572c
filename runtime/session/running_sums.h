// Fetches that are added up over runs.
#ifndef GRADWEAVE_RUNTIME_SESSION_RUNNING_SUMS_H_
#define GRADWEAVE_RUNTIME_SESSION_RUNNING_SUMS_H_

#include <string>

#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "gradweave/graph/graph.h"

namespace gradweave {

struct RunningSum {
  int fetch = 0;  // The index in the output kFetches.
  double weight = 1;
  std::string name;  // The variable that holds the sum. The graph has no variable of this name.
};

// Returns the graph with float64 variables to which runs add weight times the fetched value; it
// fetches the new sums instead of the values. Returns InvalidArgument if a value's shape is unknown
// or it is not numeric.
absl::StatusOr<Graph> AddRunningSums(const Graph& graph, absl::Span<const RunningSum> sums);

}  // namespace gradweave

#endif  // GRADWEAVE_RUNTIME_SESSION_RUNNING_SUMS_H_
