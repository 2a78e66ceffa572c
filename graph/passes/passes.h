// Passes: functions from a graph to a graph that computes the same outputs. A graph's outputs (Graph::outputs) say what
// is to be computed; nodes that no output needs are left out of the result.
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

using Ports = absl::InlinedVector<Port, 2>;

// What a rule does with a node: ports of the result that take the place of its outputs, or nothing to carry it over as
// it is. `inputs` are the node's inputs in the result, to which the rule may add nodes.
using RewriteRule = absl::FunctionRef<absl::StatusOr<std::optional<Ports>>(
    const Node& node, absl::Span<const Port> inputs, Graph& result)>;

// The graph rebuilt, node by node in order, by the rule: the one way in which passes change graphs. Only nodes that
// outputs need are visited.
absl::StatusOr<Graph> Rewrite(const Graph& graph, RewriteRule rule);

// The nodes that outputs need, by id.
std::vector<bool> NeededNodes(const Graph& graph);

// Computes a node's outputs from its operands' values.
using Evaluator =
    std::function<absl::StatusOr<std::vector<Tensor>>(const Node& node, absl::Span<const Tensor> operands)>;

// Leaves out the nodes that no output needs.
absl::StatusOr<Graph> EliminateDeadNodes(const Graph& graph);

// Puts sizes in for symbols; where all are bound, every shape of the result is known. With `initial_values`, variables
// are replaced by their initial values; else they lose them, since a run reads only their state. InvalidArgument where
// the shapes don't fit together at these sizes.
absl::StatusOr<Graph> Specialize(const Graph& graph, const DimBindings& bindings, bool initial_values = false);

// Equal ops with equal attributes on equal operands become one node; operands of commutative ops in either order.
absl::StatusOr<Graph> EliminateCommonSubexpressions(const Graph& graph);

// Nodes whose operands are constants become constants, where the result is not much larger than the operands.
absl::StatusOr<Graph> FoldConstants(const Graph& graph, const Evaluator& evaluate);

// Rules that hold for every IEEE value, bit for bit: x*1 is x, but x*0 stays and x + 0 stays (it turns -0 into 0).
absl::StatusOr<Graph> Simplify(const Graph& graph);

// Products of a batch of matrices with one matrix, and sums over a batch of products a^T b, become one large product.
absl::StatusOr<Graph> FlattenProducts(const Graph& graph);

// So that at most so many bytes of values are live at a time, values that wait long for their next use are dropped and
// computed again just before it, those first that save most bytes for their work (Chen et al., "Training deep nets with
// sublinear memory cost", 2016, section 4, where the values are chosen by hand). Stays above the budget where nothing
// more can be saved; never repeats random numbers. All shapes have to be known. Nodes run in the order of their ids.
absl::StatusOr<Graph> Rematerialize(const Graph& graph, int64_t budget_bytes);

// Specialize and all of the above but Rematerialize in the order that pays, for a graph that is about to be run.
// Between passes the verifier runs in debug builds and where GRADWEAVE_VERIFY is set in the environment; where
// GRADWEAVE_DUMP names a folder, the graph is written there after each, as text and for Graphviz.
struct PipelineOptions {
  DimBindings bindings;
  bool initial_values = false;
  Evaluator evaluate;
};
absl::StatusOr<Graph> RunPipeline(const Graph& graph, const PipelineOptions& options);

}  // namespace gradweave

#endif  // GRADWEAVE_GRAPH_PASSES_PASSES_H_
