// Losses: scalars to minimize, means over all elements or samples.
#ifndef GRADWEAVE_FRONTEND_LOSSES_H_
#define GRADWEAVE_FRONTEND_LOSSES_H_

#include "gradweave/ops/builder.h"

namespace gradweave::nn {

// The mean of -log(softmax(logits)[label]); logits [..., classes], integer labels [...].
Value SoftmaxCrossEntropy(Operand logits, Operand labels);
// The mean of (prediction - target)^2.
Value MeanSquaredError(Operand prediction, Operand target);
// The mean of -target*log(sigmoid(logits)) - (1 - target)*log(1 - sigmoid(logits)), as softplus(logits) -
// logits*target, which does not overflow; targets in [0, 1].
Value BinaryCrossEntropyWithLogits(Operand logits, Operand target);
// The mean of d^2/2 where |d| <= delta and delta*(|d| - delta/2) elsewhere, d = prediction - target (Huber, "Robust
// estimation of a location parameter", 1964).
Value Huber(Operand prediction, Operand target, double delta = 1);

// The share of rows of logits [n, classes] whose largest element is at the label [n]; a float32 scalar.
Value Accuracy(Operand logits, Operand labels);
// Their number, a float32 scalar: sums over batches of different sizes are exact.
Value CorrectCount(Operand logits, Operand labels);

}  // namespace gradweave::nn

#endif  // GRADWEAVE_FRONTEND_LOSSES_H_
