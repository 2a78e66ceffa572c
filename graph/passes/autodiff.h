// Reverse-mode differentiation: adds the nodes that compute gradients.
#ifndef GRADWEAVE_GRAPH_PASSES_AUTODIFF_H_
#define GRADWEAVE_GRAPH_PASSES_AUTODIFF_H_

#include <source_location>
#include <vector>

#include "gradweave/graph/graph.h"

namespace gradweave {

struct GradientOptions {
  // What to do about an x that no y depends on: a gradient of zeros, or an error.
  enum Unreachable { kZeros, kError };
  Unreachable unreachable = kZeros;
};

// Adds nodes that compute, for each x, the gradient of sum over i of <ys[i], grad_ys[i]> with respect to x, by reverse
// accumulation (Baydin et al., "Automatic differentiation in machine learning: a survey", 2018, section 3.2). Results
// have the types of the xs. grad_ys has a value for each y, of its type; where it is empty, each is all ones (of a
// scalar loss: its gradient). The ys and xs are floating. Results may be differentiated again. Time and added nodes are
// linear in the nodes between xs and ys.
//
// Errors are recorded in the graph, and the results are then invalid: an op on the way that is not differentiable (the
// message names the path), an unreachable x where that is an error, values of other graphs.
std::vector<Value> Gradients(const std::vector<Value>& ys, const std::vector<Value>& xs,
                             const std::vector<Value>& grad_ys = {}, GradientOptions options = {},
                             std::source_location location = std::source_location::current());

}  // namespace gradweave

#endif  // GRADWEAVE_GRAPH_PASSES_AUTODIFF_H_
