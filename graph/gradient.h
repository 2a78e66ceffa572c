// The argument of an op's gradient function: the node, its output gradients and the results.
#ifndef GRADWEAVE_GRAPH_GRADIENT_H_
#define GRADWEAVE_GRAPH_GRADIENT_H_

#include <utility>
#include <vector>

#include "absl/types/span.h"
#include "gradweave/graph/graph.h"

namespace gradweave {

// For a node y = op(x) and the gradient dy of a scalar loss with respect to y, a gradient function
// adds nodes that compute the vector-Jacobian product dx = dy^T * J (Baydin et al., "Automatic
// differentiation in machine learning: a survey", 2018, section 3.2). This is the gradient of Sin:
//
//   .gradient = [](GradientContext& g) { g.Set(0, Mul(g.output_gradient(), Cos(g.operand(0)))); },
//
// An operand that the function does not Set has a zero gradient. Indices, masks and other operands
// that carry no derivative are never Set.
class GradientContext {
 public:
  GradientContext(Graph& graph, const Node& node, absl::Span<const Value> output_gradients,
                  absl::Span<const bool> needed)
      : graph_(graph),
        node_(node),
        output_gradients_(output_gradients),
        needed_(needed),
        gradients_(node.inputs.size()) {}

  Graph& graph() const { return graph_; }
  const Node& node() const { return node_; }
  int num_operands() const { return static_cast<int>(node_.inputs.size()); }
  Value operand(int i) const { return graph_.value(node_.inputs[i]); }
  Value output(int i = 0) const { return graph_.value(Port{node_.id, i}); }

  // Returns the value of the attribute `name`, which has type T.
  template <typename T>
  const T& attribute(absl::string_view name) const {
    return node_.attribute<T>(name);
  }

  // The gradient with respect to output i, with that output's type. It is invalid if the gradient
  // is zero. At least one output of the node has a gradient, so an op with a single output need not
  // check.
  Value output_gradient(int i = 0) const { return output_gradients_[i]; }
  bool has_output_gradient(int i) const { return output_gradients_[i].valid(); }

  // True if the gradient of operand i is needed. Check it before building an expensive gradient.
  bool needs(int i) const { return needed_[i]; }

  // Sets the gradient with respect to operand i. It has that operand's type.
  void Set(int i, Value gradient) { gradients_[i] = gradient; }

  absl::Span<const Value> gradients() const { return gradients_; }

 private:
  Graph& graph_;
  const Node& node_;
  absl::Span<const Value> output_gradients_;
  absl::Span<const bool> needed_;
  std::vector<Value> gradients_;
};

}  // namespace gradweave

#endif  // GRADWEAVE_GRAPH_GRADIENT_H_
