// What planners for every device share: which values lie in one place, how long they live, and what is assigned.
#ifndef GRADWEAVE_RUNTIME_PLAN_VALUE_LIFETIMES_H_
#define GRADWEAVE_RUNTIME_PLAN_VALUE_LIFETIMES_H_

#include <algorithm>
#include <limits>
#include <optional>
#include <utility>
#include <vector>

#include "absl/container/inlined_vector.h"
#include "absl/functional/function_ref.h"
#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "gradweave/graph/graph.h"
#include "gradweave/runtime/kernel/kernel.h"

namespace gradweave {

// The kernel for a node of known shapes. Unimplemented where the registry has none for the op; errors name the node.
absl::StatusOr<Kernel> MakeKernel(const KernelRegistry& kernels, const Graph& graph, const Node& node, int threads);

// A variable's new value, where the update of a graph asks for one.
struct Assignment {
  Port value;  // The roots of both.
  Port variable;
  bool in_place = false;  // The value's step writes it to the variable.
};

// Values by root: of those that share memory, the one that the others are views of. A step is whatever has the members
// kernel, operands and outputs.
class ValueLifetimes {
 public:
  static constexpr int kEnd = std::numeric_limits<int>::max();  // Behind all steps.

  // The outputs of the graph's next node. They share the memory of its operand of that number; -1: of none.
  void AddNode(const Node& node, int aliased);

  Port Root(Port port) const { return roots_[port.node][port.output]; }
  // The last step that reads a root; -1: none.
  int LastUse(Port root) const { return last_use_[root.node][root.output]; }
  void Use(Port root, int step) { last_use_[root.node][root.output] = step; }

  // What the graph's updates assign, each asked for once. InvalidArgument where two assign one variable.
  absl::StatusOr<std::vector<Assignment>> FindAssignments(const Graph& graph) const;

  // Sets the last uses: by steps, and behind them by fetches and assignments.
  template <typename Step>
  void FindLastUses(const Graph& graph, const std::vector<Step>& steps, absl::Span<const Assignment> assignments) {
    for (size_t step = 0; step < steps.size(); ++step) {
      for (Port input : steps[step].operands) Use(Root(input), static_cast<int>(step));
    }
    UseAtEnd(graph, assignments);
  }

  // Whether the step's kernel can write the output where it reads the root, in all places where it reads it.
  template <typename Step>
  bool MayOverwrite(const Step& step, Port root, int output) const {
    bool any = false;
    for (int i = 0; i < static_cast<int>(step.operands.size()); ++i) {
      if (!(Root(step.operands[i]) == root)) continue;
      const auto& overwrites = step.kernel.overwrites;
      if (std::find(overwrites.begin(), overwrites.end(), std::pair<int, int>(i, output)) == overwrites.end())
        return false;
      any = true;
    }
    return any;
  }

  // Whether the step of that number, which makes the new value, can write it to the variable: nothing reads the old one
  // afterwards.
  template <typename Step>
  bool MayWriteToVariable(const Assignment& assignment, const Step& step, int number) const {
    const int last_read = LastUse(assignment.variable);
    const auto output = std::find(step.outputs.begin(), step.outputs.end(), assignment.value);
    return last_read < number || (last_read == number && MayOverwrite(step, assignment.variable,
                                                                      static_cast<int>(output - step.outputs.begin())));
  }

  // The root of an operand that dies in the step of that number and whose memory the output may take, among those that
  // the caller would give.
  template <typename Step>
  std::optional<Port> FindOverwritten(const Step& step, int number, int output,
                                      absl::FunctionRef<bool(Port root)> may_give) const {
    for (const auto& [operand, overwriting] : step.kernel.overwrites) {
      if (overwriting != output || operand >= static_cast<int>(step.operands.size())) continue;
      const Port root = Root(step.operands[operand]);
      if (LastUse(root) <= number && MayOverwrite(step, root, output) && may_give(root)) return root;
    }
    return std::nullopt;
  }

 private:
  void UseAtEnd(const Graph& graph, absl::Span<const Assignment> assignments);

  std::vector<absl::InlinedVector<Port, 1>> roots_;  // By node and output.
  std::vector<absl::InlinedVector<int, 1>> last_use_;
};

}  // namespace gradweave

#endif  // GRADWEAVE_RUNTIME_PLAN_VALUE_LIFETIMES_H_
