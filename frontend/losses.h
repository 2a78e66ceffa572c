// Losses: scalars to minimize, averaged over all elements or samples. Prediction and target must
// have the same shape. Errors are recorded in the graph.
#ifndef GRADWEAVE_FRONTEND_LOSSES_H_
#define GRADWEAVE_FRONTEND_LOSSES_H_

#include "gradweave/ops/builder.h"

namespace gradweave::nn {

// The mean of -log(softmax(logits)[label]); logits [..., classes], integer labels [...].
Value SoftmaxCrossEntropy(Operand logits, Operand labels);
// The mean of (prediction - target)^2.
Value MeanSquaredError(Operand prediction, Operand target);
// The mean of -target*log(sigmoid(logits)) - (1 - target)*log(1 - sigmoid(logits)) for targets in
// [0, 1]. It neither overflows nor cancels: see SigmoidCrossEntropy.
Value BinaryCrossEntropyWithLogits(Operand logits, Operand target);
// The mean of d^2/2 where |d| <= delta, and of delta*(|d| - delta/2) elsewhere, with d = prediction
// - target and delta > 0 (Huber, "Robust estimation of a location parameter", 1964).
Value Huber(Operand prediction, Operand target, double delta = 1);

// The fraction of rows of logits [n, classes] whose largest element is at the label [n]; a float32
// scalar.
Value Accuracy(Operand logits, Operand labels);
// The number of these rows; a float32 scalar. Sums over batches of different sizes are exact.
Value CorrectCount(Operand logits, Operand labels);

}  // namespace gradweave::nn

#endif  // GRADWEAVE_FRONTEND_LOSSES_H_
