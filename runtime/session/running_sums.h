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

// The graph with variables of float64 to which runs add weight times the fetched value, and the new
// sums fetched in the values' places. InvalidArgument where a value's shape isn't known or it is no
// number.
absl::StatusOr<Graph> AddRunningSums(const Graph& graph, absl::Span<const RunningSum> sums);

}  // namespace gradweave

#endif  // GRADWEAVE_RUNTIME_SESSION_RUNNING_SUMS_H_
