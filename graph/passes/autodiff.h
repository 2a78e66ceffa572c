// Reverse-mode differentiation: adds nodes that compute gradients.
#ifndef GRADWEAVE_GRAPH_PASSES_AUTODIFF_H_
#define GRADWEAVE_GRAPH_PASSES_AUTODIFF_H_

#include <source_location>
#include <string>
#include <vector>

#include "gradweave/graph/graph.h"

namespace gradweave {

// Options of Gradients.
struct GradientOptions {
  // The result for an x that no gradient reaches: zeros, an error, or a Value that is not valid. A
  // gradient reaches x if differentiable ops lead from a y to x; StopGradient, integers and
  // comparisons on the way cut it off.
  enum Unreachable { kZeros, kError, kInvalid };
  Unreachable unreachable = kZeros;
};

// Adds nodes that compute, for each x, the gradient of sum_i <ys[i], grad_ys[i]> with respect to x,
// by reverse accumulation (Baydin et al., "Automatic differentiation in machine learning: a
// survey", 2018, section 3.2). The ys and xs have floating dtypes. grad_ys has one value of the
// same type for each y; if it is empty, all its elements are ones, so a scalar loss gives its
// gradient. Each result has the type of its x and may be differentiated again. Time and added nodes
// are linear in the number of nodes between xs and ys.
//
// The graph records errors, and all results are then invalid. Errors are: an op on the way is not
// differentiable (the message shows the path), an x is unreachable and `options` makes that an
// error, the values belong to different graphs, or a dtype or type does not match.
std::vector<Value> Gradients(const std::vector<Value>& ys, const std::vector<Value>& xs,
                             const std::vector<Value>& grad_ys = {}, GradientOptions options = {},
                             std::source_location location = std::source_location::current());

// Says where the gradient of y ends before it reaches x, for error messages: "ArgMax
// (float32[8,10]) at model.cc:12 passes no gradient on", or that y does not depend on x. Both
// values are valid.
std::string DescribeGradientCut(const Value& y, const Value& x);

}  // namespace gradweave

#endif  // GRADWEAVE_GRAPH_PASSES_AUTODIFF_H_
