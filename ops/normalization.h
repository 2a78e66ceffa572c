// Normalization and dropout, composed of core ops.
#ifndef GRADWEAVE_OPS_NORMALIZATION_H_
#define GRADWEAVE_OPS_NORMALIZATION_H_

#include <optional>

#include "gradweave/ops/builder.h"

namespace gradweave {

struct BatchNormResult {
  Value y;         // Normalized, scaled and shifted.
  Value mean;      // Of the batch, [channels].
  Value variance;  // Of the batch, biased (divided by the count), [channels].
};
// x [n, channels, ...] normalized per channel over all other axes (Ioffe and Szegedy, "Batch normalization", 2015,
// algorithm 1); scale and offset [channels].
BatchNormResult BatchNormTraining(Operand x, Operand scale, Operand offset, double epsilon = 1e-5);
// With a mean and variance [channels] that were estimated before.
Value BatchNormInference(Operand x, Operand scale, Operand offset, Operand mean, Operand variance,
                         double epsilon = 1e-5);

// x normalized over its last `axes` axes (Ba et al., "Layer normalization", 2016); scale and offset have their shape.
Value LayerNorm(Operand x, Operand scale, Operand offset, int64_t axes = 1, double epsilon = 1e-5);

// Zeroes each element with probability rate and multiplies the others by 1/(1 - rate); 0 <= rate < 1.
Value Dropout(Operand x, double rate, std::optional<int64_t> seed = {});

}  // namespace gradweave

#endif  // GRADWEAVE_OPS_NORMALIZATION_H_
