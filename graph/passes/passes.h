// Passes: functions from a graph to a graph that computes the same outputs. Graph::outputs names
// the values to compute; passes drop nodes that no output needs.
#ifndef GRADWEAVE_GRAPH_PASSES_PASSES_H_
#define GRADWEAVE_GRAPH_PASSES_PASSES_H_

#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "absl/functional/function_ref.h"
#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "gradweave/graph/graph.h"
#include "gradweave/graph/tensor.h"

namespace gradweave {

// A rule of Rewrite. It receives a node and its inputs in the result, and may add nodes to the
// result. It returns the ports that replace the node's outputs, or nullopt to copy the node
// unchanged.
using RewriteRule = absl::FunctionRef<absl::StatusOr<std::optional<Ports>>(
    const Node& node, absl::Span<const Port> inputs, Graph& result)>;

// Rebuilds the graph node by node, in order, with the rule. All passes that replace nodes use it.
// It visits only the nodes that outputs need.
absl::StatusOr<Graph> Rewrite(const Graph& graph, RewriteRule rule);

// Returns for each node id whether an output needs the node.
std::vector<bool> NeededNodes(const Graph& graph);

// Computes the outputs of a node from the values of its operands.
using Evaluator =
    std::function<absl::StatusOr<std::vector<Tensor>>(const Node& node, absl::Span<const Tensor> operands)>;

// Removes the nodes that no output needs.
absl::StatusOr<Graph> EliminateDeadNodes(const Graph& graph);

// Replaces symbols by sizes. If all symbols are bound, every shape of the result is known. With
// `initial_values`, the initial value of a variable replaces the variable. Otherwise variables lose
// their initial values, because a run reads only their state. Returns InvalidArgument if shapes do
// not match at these sizes, or if a variable to be replaced has no initial value.
absl::StatusOr<Graph> Specialize(const Graph& graph, const DimBindings& bindings, bool initial_values = false);

// Merges nodes with the same op, attributes, operands and device. The operands of commutative ops
// match in either order.
absl::StatusOr<Graph> EliminateCommonSubexpressions(const Graph& graph);

// Replaces nodes whose operands are constants by constants, unless the result is much larger than
// the operands.
absl::StatusOr<Graph> FoldConstants(const Graph& graph, const Evaluator& evaluate);

// Applies algebraic rules that are exact for every IEEE value, bit for bit: x*1 becomes x, but x*0
// stays (NaN, infinity) and x + 0 stays (-0 becomes 0).
absl::StatusOr<Graph> Simplify(const Graph& graph);

// Turns batched matrix products that share one matrix into one large product. Does the same with
// sums over a batch of products a^T b.
absl::StatusOr<Graph> FlattenProducts(const Graph& graph);

// Reduces peak memory to at most `budget_bytes` of live values: moves nodes forward that free at
// least as many bytes as they take, drops values that wait long for their next use, and computes
// them again just before it. Values that save the most bytes per unit of work go first (Chen et
// al., "Training deep nets with sublinear memory cost", 2016, section 4, where the user chooses the
// values). The result stays above the budget if nothing more can be saved. Random numbers are never
// drawn again. All shapes must be known. The order of node ids is the order of execution.
absl::StatusOr<Graph> Rematerialize(const Graph& graph, int64_t budget_bytes);

}  // namespace gradweave

#endif  // GRADWEAVE_GRAPH_PASSES_PASSES_H_
