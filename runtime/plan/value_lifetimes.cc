#include "gradweave/runtime/plan/value_lifetimes.h"

#include <algorithm>
#include <utility>

#include "absl/container/flat_hash_set.h"
#include "absl/strings/str_cat.h"
#include "gradweave/graph/check.h"
#include "gradweave/runtime/plan/plan.h"

namespace gradweave {

void ValueLifetimes::AddNode(const Node& node, int aliased) {
  auto& roots = roots_.emplace_back();
  last_use_.emplace_back(node.outputs.size(), -1);
  for (int i = 0; i < static_cast<int>(node.outputs.size()); ++i) {
    roots.push_back(aliased < 0 ? Port{node.id, i} : Root(node.inputs[aliased]));
  }
}

absl::StatusOr<std::vector<Assignment>> ValueLifetimes::FindAssignments(const Graph& graph) const {
  std::vector<Assignment> assignments;
  auto updates = graph.outputs().find(kUpdates);
  if (updates == graph.outputs().end()) return assignments;
  absl::flat_hash_set<Port> assigned;
  absl::flat_hash_set<NodeId> seen;  // The same Assign node may be asked for twice.
  for (Port update : updates->second) {
    if (!seen.insert(update.node).second) continue;
    const Node& node = graph.node(update.node);
    const Port variable = Root(node.inputs[0]);
    if (!assigned.insert(variable).second) {
      return absl::InvalidArgumentError(absl::StrCat("variable '", graph.node(variable.node).display_name(),
                                                     "' is assigned twice in one run, the second time by ",
                                                     DescribeNode(graph, node), "; fetch one of the updates"));
    }
    assignments.push_back({Root(node.inputs[1]), variable});
  }
  return assignments;
}

void ValueLifetimes::FindLastUses(const Graph& graph, absl::Span<const PlanStep> steps,
                                  absl::Span<const Assignment> assignments) {
  for (size_t step = 0; step < steps.size(); ++step) {
    for (Port input : steps[step].operands) Use(Root(input), static_cast<int>(step));
  }
  if (auto fetches = graph.outputs().find(kFetches); fetches != graph.outputs().end()) {
    for (Port port : fetches->second) Use(Root(port), kEnd);
  }
  for (const Assignment& assignment : assignments) Use(assignment.value, kEnd);
}

// Returns true if the step's kernel may write the output in place of each operand that reads the
// root.
bool ValueLifetimes::MayOverwrite(const PlanStep& step, Port root, int output) const {
  bool any = false;
  for (int i = 0; i < static_cast<int>(step.operands.size()); ++i) {
    if (!(Root(step.operands[i]) == root)) continue;
    const auto& overwrites = step.kernel.overwrites;
    if (std::find(overwrites.begin(), overwrites.end(), std::pair<int, int>(i, output)) == overwrites.end()) {
      return false;
    }
    any = true;
  }
  return any;
}

bool ValueLifetimes::MayWriteToVariable(const Assignment& assignment, const PlanStep& step, int number) const {
  const int last_read = LastUse(assignment.variable);
  const auto output = std::find(step.outputs.begin(), step.outputs.end(), assignment.value);
  return last_read < number || (last_read == number && MayOverwrite(step, assignment.variable,
                                                                    static_cast<int>(output - step.outputs.begin())));
}

std::optional<Port> ValueLifetimes::FindOverwritten(const PlanStep& step, int number, int output,
                                                    absl::FunctionRef<bool(Port root)> may_give) const {
  for (const auto& [operand, overwriting] : step.kernel.overwrites) {
    if (overwriting != output || operand >= static_cast<int>(step.operands.size())) continue;
    const Port root = Root(step.operands[operand]);
    if (LastUse(root) <= number && MayOverwrite(step, root, output) && may_give(root)) return root;
  }
  return std::nullopt;
}

}  // namespace gradweave
