// Metrics: measures of the quality of a model, exact over batches of different sizes.
#ifndef GRADWEAVE_FRONTEND_METRICS_H_
#define GRADWEAVE_FRONTEND_METRICS_H_

#include <cstdint>
#include <functional>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/string_view.h"
#include "absl/types/span.h"
#include "gradweave/graph/graph.h"
#include "gradweave/graph/tensor.h"
#include "gradweave/ops/builder.h"

namespace gradweave {

// Values of a batch that are summed up over batches, and a function of the sums. The functions of
// gradweave::metrics make metrics; a program may make its own.
struct Metric {
  struct Sum {
    Value value;           // Numbers in a shape that does not depend on feeds.
    bool is_mean = false;  // A mean over the batch; it is multiplied by the batch's number of samples.
  };
  std::string name;
  std::vector<Sum> sums;
  // The metric's value: a scalar, or a tensor such as a confusion matrix. `sums` are float64, in
  // the order above, over `samples` samples.
  std::function<Tensor(absl::Span<const Tensor> sums, double samples)> result;
};

// Names and values of metrics, in order.
class MetricValues {
 public:
  // Returns the scalar, or NaN if there is no scalar of that name.
  double operator[](absl::string_view name) const;
  // Returns the value, or null.
  const Tensor* Find(absl::string_view name) const;
  void Set(absl::string_view name, Tensor value);
  const std::vector<std::pair<std::string, Tensor>>& all() const { return all_; }

 private:
  std::vector<std::pair<std::string, Tensor>> all_;
};

namespace metrics {

// These add nodes to the graph, so they come before the session. Errors of shapes and dtypes are
// recorded in the graph.

// "accuracy": the fraction of rows of logits [..., classes] whose largest element is at the label
// [...]. There are at least two classes; for one logit per sample, use BinaryAccuracy.
Metric Accuracy(Operand logits, Operand labels);
// "accuracy" of two classes: the fraction of elements whose logit is above 0 where the target is
// above 0.5, and at most 0 elsewhere. A NaN is wrong. Logits and targets, of any dtype but bool,
// have the same shape [batch, ...].
Metric BinaryAccuracy(Operand logits, Operand targets);
// "top-<k> accuracy": the fraction of rows in which fewer than k elements are ahead of the label's.
// An element is ahead if it is larger, or equal and before it; k = 1 is Accuracy. A row whose
// element at the label is NaN does not count.
Metric TopKAccuracy(Operand logits, Operand labels, int64_t k);
// "confusion": [classes, classes], the number of rows of logits [batch, classes] with each label
// (the row of the matrix) and prediction (its column).
Metric ConfusionMatrix(Operand logits, Operand labels);

// "mse" and "mae": the mean of (prediction - target)^2 and of |prediction - target| over all
// elements. Prediction and target have the same type, [batch, ...].
Metric MeanSquaredError(Operand prediction, Operand target);
Metric MeanAbsoluteError(Operand prediction, Operand target);
// "r2": 1 - sum((prediction - target)^2)/sum((target - mean(target))^2), for each column, averaged
// over the columns. A constant column counts 1 if it is predicted exactly, else 0, as in
// scikit-learn's r2_score. The operands are [batch] or [batch, columns...] with known columns.
Metric R2(Operand prediction, Operand target);

// The mean over all samples of a value. If the value has a batch, a first axis whose size feeds
// determine, it has at least one number for each sample. Otherwise the value, or its mean if it is
// not a scalar, counts as the mean of its batch. Sum is the sum of all elements.
Metric Mean(std::string name, Operand value);
Metric Sum(std::string name, Operand value);
// sum(numerator)/sum(denominator) over all elements of all batches: a mean with a mask or weights.
Metric Ratio(std::string name, Operand numerator, Operand denominator);

}  // namespace metrics
}  // namespace gradweave

#endif  // GRADWEAVE_FRONTEND_METRICS_H_
