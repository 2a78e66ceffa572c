// Values of a plan that share memory, their lifetimes, and the variables that are assigned.
#ifndef GRADWEAVE_RUNTIME_PLAN_VALUE_LIFETIMES_H_
#define GRADWEAVE_RUNTIME_PLAN_VALUE_LIFETIMES_H_

#include <limits>
#include <optional>
#include <vector>

#include "absl/container/inlined_vector.h"
#include "absl/functional/function_ref.h"
#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "gradweave/graph/graph.h"
#include "gradweave/runtime/plan/steps.h"

namespace gradweave {

// The assignment of a new value to a variable, by an update of the graph.
struct Assignment {
  Port value;  // The roots of both.
  Port variable;
  bool in_place = false;  // The value's step writes it to the variable.
};

// Values by root. The root of values that share memory is the value of which the others are views.
class ValueLifetimes {
 public:
  static constexpr int kEnd = std::numeric_limits<int>::max();  // After all steps.

  // Adds the outputs of the graph's next node. They share the memory of this operand; -1 means
  // none.
  void AddNode(const Node& node, int aliased);

  Port Root(Port port) const { return roots_[port.node][port.output]; }
  // The last step that reads a root; -1 if none does.
  int LastUse(Port root) const { return last_use_[root.node][root.output]; }
  void Use(Port root, int step) { last_use_[root.node][root.output] = step; }

  // Returns the assignments of the graph's updates. Returns InvalidArgument if two assign one
  // variable.
  absl::StatusOr<std::vector<Assignment>> FindAssignments(const Graph& graph) const;

  // Sets the last uses: by steps, and after all steps by fetches and assignments.
  void FindLastUses(const Graph& graph, absl::Span<const PlanStep> steps, absl::Span<const Assignment> assignments);

  // Returns true if the step, which computes the new value, may write it to the variable: no later
  // step reads the old one.
  bool MayWriteToVariable(const Assignment& assignment, const PlanStep& step, int number) const;

  // Returns the root of an operand whose last use is this step and whose memory the output may
  // take, among the candidates of the caller.
  std::optional<Port> FindOverwritten(const PlanStep& step, int number, int output,
                                      absl::FunctionRef<bool(Port root)> may_give) const;

 private:
  bool MayOverwrite(const PlanStep& step, Port root, int output) const;

  std::vector<absl::InlinedVector<Port, 1>> roots_;  // Indexed by node and output.
  std::vector<absl::InlinedVector<int, 1>> last_use_;
};

}  // namespace gradweave

#endif  // GRADWEAVE_RUNTIME_PLAN_VALUE_LIFETIMES_H_
