// Ops on variables and on symbolic sizes. Scope adds the inputs, constants and variables
// themselves. Errors are recorded in the graph.
#ifndef GRADWEAVE_OPS_STATE_H_
#define GRADWEAVE_OPS_STATE_H_

#include "gradweave/ops/builder.h"

namespace gradweave {

// Options of Assign.
struct AssignOptions {
  // True if the assignment belongs to training but not to an optimizer, as BatchNorm's moving
  // averages do: optimizers add such assignments to their update (optim::LayerUpdates).
  bool with_training = false;
  // For with_training: the result of the layer's call that the assignment belongs to. Optimizers
  // add the assignment if the loss depends on this result.
  Value call = {};
};

// Sets the variable to the value at the end of each run that includes this node. Every read within
// the run sees the old value. Returns the new value. A run may assign a variable only once.
Value Assign(Operand variable, Operand value, AssignOptions options = {});

// Copies x to the memory of the current device of the scope (Scope::SetDevice). A session inserts
// the copies between devices itself, so programs rarely need this op.
Value Copy(Operand x);

// Returns the size of x along an axis as a scalar of this dtype. A known size becomes a constant.
Value DimSize(Operand x, int64_t axis, DType dtype = kInt64);
// Returns the product of x's sizes along the axes, or along all axes if none are given, as a scalar
// of this dtype.
Value NumElements(Operand x, absl::Span<const int64_t> axes, DType dtype);

// Returns x's shape filled with a constant of x's dtype.
Value FullLike(Operand x, double value);
inline Value ZerosLike(Operand x) { return FullLike(x, 0); }
inline Value OnesLike(Operand x) { return FullLike(x, 1); }

}  // namespace gradweave

#endif  // GRADWEAVE_OPS_STATE_H_
