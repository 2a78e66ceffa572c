// A model for tests of the C interface.
#ifndef GRADWEAVE_TESTS_C_LINEAR_MODEL_H_
#define GRADWEAVE_TESTS_C_LINEAR_MODEL_H_

#include "gradweave/gradweave.h"

namespace gradweave {

// Adds y = x w, for the input x, float32[batch,2], and the variable w = (2, 3). Outputs are y, the
// sum of its squares as "loss", and "both", which lists y and x + 1. Returns w.
inline Value AddLinearModel(Scope& scope) {
  const Value x = scope.Input("x", kFloat32, {Dim("batch"), 2});
  const Value w = scope.Variable("w", scope.Constant(Tensor::Of<float>({2, 1}, {2, 3})));
  const Value y = MatMul(x, w);
  Graph& graph = *y.graph();
  graph.SetOutput("y", {y});
  graph.SetOutput("loss", {Sum(y * y)});
  graph.SetOutput("both", {y, x + 1.0});
  return w;
}

}  // namespace gradweave

#endif  // GRADWEAVE_TESTS_C_LINEAR_MODEL_H_
