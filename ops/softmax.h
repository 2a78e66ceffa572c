// Softmax and the cross-entropy on it.
#ifndef GRADWEAVE_OPS_SOFTMAX_H_
#define GRADWEAVE_OPS_SOFTMAX_H_

#include "gradweave/ops/builder.h"

namespace gradweave {

// exp(x) / sum(exp(x)) along the axis, computed after subtracting the maximum.
Value Softmax(Operand x, int64_t axis = -1);
Value LogSoftmax(Operand x, int64_t axis = -1);
// logits [..., classes], labels [...] (int32, int64 or uint8): -log(softmax(logits)[label]), one for each label. A
// label outside [0, classes) fails the run with OutOfRange.
Value SparseSoftmaxCrossEntropy(Operand logits, Operand labels);

}  // namespace gradweave

#endif  // GRADWEAVE_OPS_SOFTMAX_H_
