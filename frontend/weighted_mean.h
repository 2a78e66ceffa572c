// Losses with weights of samples or classes.
#ifndef GRADWEAVE_FRONTEND_WEIGHTED_MEAN_H_
#define GRADWEAVE_FRONTEND_WEIGHTED_MEAN_H_

#include <cstdint>

#include "absl/status/statusor.h"
#include "gradweave/graph/graph.h"
#include "gradweave/graph/tensor.h"
#include "gradweave/ops/builder.h"

namespace gradweave {

// The mean of values with weights, sum(weight*value)/sum(weight), in parts that are exact over
// batches: a loss for Fit and Accumulate. Where all weights are 0, the mean is 0.
struct WeightedMean {
  Value mean;     // Scalar, to minimize.
  Value sum;      // sum(weight*value), a scalar.
  Value weight;   // sum(weight), a scalar.
  Value weights;  // The weights of the samples.
};
// `values` are losses of samples, floating [batch, ...]; weights have their shape, are finite and
// at least 0. A fed input of weights makes weights of samples; Gather(class_weights, labels) makes
// weights of classes. Other shapes and dtypes are recorded as errors in the graph.
//
//   const gw::Value weight = scope.Input("weight", gw::kFloat32, {gw::Dim("batch")});
//   const gw::WeightedMean loss = gw::WeightedMeanOf(gw::SparseSoftmaxCrossEntropy(logits, label), weight);
//   const gw::Update step = gw::optim::Sgd{}.Minimize(loss.mean);
WeightedMean WeightedMeanOf(Operand values, Operand weights);

// Weights of classes that balance them: n/(classes * count), float32 [classes], for integer labels
// [n] in [0, classes). Returns InvalidArgument for other labels and for a class without samples.
absl::StatusOr<Tensor> BalancedClassWeights(const Tensor& labels, int64_t classes);

}  // namespace gradweave

#endif  // GRADWEAVE_FRONTEND_WEIGHTED_MEAN_H_
