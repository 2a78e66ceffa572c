// Softmax and cross-entropy. Errors are recorded in the graph.
#ifndef GRADWEAVE_OPS_SOFTMAX_H_
#define GRADWEAVE_OPS_SOFTMAX_H_

#include "gradweave/ops/builder.h"

namespace gradweave {

// exp(x) / sum(exp(x)) along the axis, and its logarithm. Both subtract the maximum first.
Value Softmax(Operand x, int64_t axis = -1);
Value LogSoftmax(Operand x, int64_t axis = -1);
// The loss -log(softmax(logits)[label]) of each sample. logits [..., classes], labels [...] (int32,
// int64 or uint8) -> [...]. A label outside of [0, classes) fails the run with OutOfRange.
Value SparseSoftmaxCrossEntropy(Operand logits, Operand labels);

}  // namespace gradweave

#endif  // GRADWEAVE_OPS_SOFTMAX_H_
