// Inputs, constants and variables are made by Scope; here is what works on them afterwards.
#ifndef GRADWEAVE_OPS_STATE_H_
#define GRADWEAVE_OPS_STATE_H_

#include "gradweave/ops/builder.h"

namespace gradweave {

struct AssignOptions {
  // Part of training without being an optimizer's work, as BatchNorm's moving averages are: optimizers add to their
  // update all such assignments that depend on what the loss depends on.
  bool with_training = false;
};

// Sets the variable to the value at the end of a run that includes this node; every read within the run sees the value
// before it. The result is the new value. A run may assign a variable once.
Value Assign(Operand variable, Operand value, AssignOptions options = {});

// x in the memory of the device that nodes made now run on (Scope::SetDevice). Needed nowhere: a session puts copies
// between nodes of different devices itself.
Value Copy(Operand x);

// The size of x along an axis, as a scalar of the dtype: a symbolic dimension as a value.
Value DimSize(Operand x, int64_t axis, DType dtype = kInt64);
// The number of elements of x over the product of known and symbolic dimensions given by axes (all if empty), as a
// scalar of the dtype.
Value NumElements(Operand x, absl::Span<const int64_t> axes, DType dtype);

// A constant of x's dtype in x's graph, spread over x's shape.
Value FullLike(Operand x, double value);
inline Value ZerosLike(Operand x) { return FullLike(x, 0); }
inline Value OnesLike(Operand x) { return FullLike(x, 1); }

}  // namespace gradweave

#endif  // GRADWEAVE_OPS_STATE_H_
