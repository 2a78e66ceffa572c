#include "gradweave/runtime/plan/compiled_graph.h"

#include <algorithm>

#include "absl/strings/str_cat.h"

namespace gradweave {

absl::Status StopError(const RunOptions& options, absl::string_view where) {
  if (options.cancellation != nullptr && options.cancellation->cancelled()) {
    return absl::CancelledError(absl::StrCat("Run: the run was cancelled ", where, "; it changed no variable"));
  }
  return absl::DeadlineExceededError(
      absl::StrCat("Run: the run reached its deadline ", where, "; it changed no variable"));
}

std::string BeforeStep(const Plan& plan, int step) {
  const int steps = static_cast<int>(plan.steps.size());
  if (step == steps) return "after its last step";
  return absl::StrCat("before step ", step + 1, " of ", steps, ", ",
                      DescribeNode(plan.graph, plan.graph.node(plan.steps[step].node)));
}

int FirstStepThatUpdates(const Plan& plan) {
  int first = static_cast<int>(plan.steps.size());
  for (const Assignment& assignment : plan.assignments) {
    if (assignment.in_place) first = std::min(first, plan.step_of[assignment.value.node]);
  }
  return first;
}

std::vector<TensorType> CompiledGraph::fetch_types() const {
  std::vector<TensorType> types;
  if (auto fetches = graph().outputs().find(kFetches); fetches != graph().outputs().end()) {
    for (Port port : fetches->second) types.push_back(graph().type(port));
  }
  return types;
}

}  // namespace gradweave
