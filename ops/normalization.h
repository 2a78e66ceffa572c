// Normalization and dropout, composed of core ops. All operands have one floating dtype. Errors of
// shapes, dtypes and options are recorded in the graph.
#ifndef GRADWEAVE_OPS_NORMALIZATION_H_
#define GRADWEAVE_OPS_NORMALIZATION_H_

#include <optional>

#include "gradweave/ops/builder.h"

namespace gradweave {

// Results of BatchNormTraining.
struct BatchNormResult {
  Value y;         // Normalized, scaled and shifted.
  Value mean;      // Mean of the batch, [channels].
  Value variance;  // Biased variance of the batch (divided by the count), [channels].
};
// Normalizes x [n, channels, ...] per channel over all other axes (Ioffe and Szegedy, "Batch
// normalization", 2015, algorithm 1). Scale and offset have shape [channels].
BatchNormResult BatchNormTraining(Operand x, Operand scale, Operand offset, double epsilon = 1e-5);
// The same with a given mean and variance, both [channels].
Value BatchNormInference(Operand x, Operand scale, Operand offset, Operand mean, Operand variance,
                         double epsilon = 1e-5);

// Normalizes x over its last `axes` axes (Ba et al., "Layer normalization", 2016). Scale and offset
// have the shape of these axes.
Value LayerNorm(Operand x, Operand scale, Operand offset, int64_t axes = 1, double epsilon = 1e-5);

// Normalizes each sample of x [n, channels, ...] over groups of neighbouring channels and all axes
// behind them (Wu and He, "Group normalization", 2018). `groups` must divide the channels. One
// channel in each group is instance normalization (Ulyanov et al., "Instance normalization", 2016).
// The result has mean 0 and variance 1 in each group; scale and offset are the caller's.
Value GroupNorm(Operand x, int64_t groups, double epsilon = 1e-5);

// The same with a scale and an offset for each channel, both [channels].
Value GroupNorm(Operand x, int64_t groups, Operand scale, Operand offset, double epsilon = 1e-5);

// x / (bias + alpha * mean(x^2))^beta, where the mean is over the `size` channels around each
// channel of x [n, channels, ...]; channels beyond the first and the last one count as zeros. If
// the size is even, it covers one more channel after than before (Krizhevsky et al., "ImageNet
// classification with deep convolutional neural networks", 2012, section 3.3, where alpha stands
// for alpha/size).
struct LocalResponseOptions {
  int64_t size = 5;  // At least 1.
  double alpha = 1e-4, beta = 0.75, bias = 1;
};
Value LocalResponseNorm(Operand x, LocalResponseOptions options = {});

// (x - mean) / (standard deviation + epsilon) over the axes, with the biased variance. Negative
// axes count from the end.
Value MeanVarianceNorm(Operand x, const Integers& axes, double epsilon = 1e-9);

// x / norm along the axis, where the norm is the sum of |x| for p = 1 and the Euclidean one for p =
// 2. Where the norm is 0, so is the result.
Value LpNormalize(Operand x, int64_t axis = -1, int64_t p = 2);

// x / sqrt(mean(x^2) + epsilon) * scale over the last `axes` axes (Zhang and Sennrich, "Root mean
// square layer normalization", 2019). The scale has the shape of these axes.
Value RmsNorm(Operand x, Operand scale, int64_t axes = 1, double epsilon = 1e-5);

// Sets each element to zero with probability `rate` and multiplies the others by 1/(1 - rate); 0 <=
// rate < 1 (Srivastava et al., "Dropout", 2014). Without a seed, the graph chooses one.
Value Dropout(Operand x, double rate, std::optional<int64_t> seed = {});

}  // namespace gradweave

#endif  // GRADWEAVE_OPS_NORMALIZATION_H_
