// Losses to minimize. Each computes one loss for each element or sample; LossOptions say how these
// are reduced. Prediction and target must have the same shape, except where noted. Errors are
// recorded in the graph: wrong shapes and dtypes, and numbers out of range.
#ifndef GRADWEAVE_FRONTEND_LOSSES_H_
#define GRADWEAVE_FRONTEND_LOSSES_H_

#include <cstdint>
#include <optional>

#include "gradweave/ops/builder.h"

namespace gradweave::nn {

enum class Reduction {
  kMean,  // The mean of all losses; with weights, sum(weight * loss) / sum(weight), and 0 if all weights are 0.
  kSum,   // The sum of all losses, each times its weight.
  kNone,  // All losses, each times its weight.
};

struct LossOptions {
  Reduction reduction = Reduction::kMean;
  // Numbers of any dtype that multiply the losses. Their shape has to be the first axes of the
  // shape of the losses: [batch] for one weight for each sample.
  Value sample_weights = {};
};

// The mean of (prediction - target)^2.
Value MeanSquaredError(Operand prediction, Operand target, LossOptions options = {});
// The mean of |prediction - target|, with gradient 0 where both are equal.
Value MeanAbsoluteError(Operand prediction, Operand target, LossOptions options = {});
// The mean of d^2/2 where |d| <= delta, and of delta*(|d| - delta/2) elsewhere, with d = prediction
// - target and delta > 0 (Huber, "Robust estimation of a location parameter", 1964).
Value Huber(Operand prediction, Operand target, double delta = 1, LossOptions options = {});
// The mean of -target*log(sigmoid(logits)) - (1 - target)*log(1 - sigmoid(logits)) for targets in
// [0, 1]. It neither overflows nor cancels: see SigmoidCrossEntropy.
Value BinaryCrossEntropyWithLogits(Operand logits, Operand target, LossOptions options = {});
// The mean of max(0, margin - target*score) for targets of -1 and 1.
Value Hinge(Operand score, Operand target, double margin = 1, LossOptions options = {});

struct CrossEntropyOptions {
  Reduction reduction = Reduction::kMean;
  Value sample_weights = {};  // The same as in LossOptions.
  // One weight for each class, [classes]. With integer labels, the mean is over the weights of the
  // labels.
  Value class_weights = {};
  // In [0, 1]. The target of each class is (1 - label_smoothing) times its own, plus
  // label_smoothing / classes (Szegedy et al., "Rethinking the Inception architecture for computer
  // vision", 2016, section 7).
  double label_smoothing = 0;
  // Samples with this integer label, which need not be a class, are left out: their loss is 0, and
  // the mean does not count them.
  std::optional<int64_t> ignore_index = std::nullopt;
};

// The mean of -sum(class_weights * target * log(softmax(logits))) over the last axis of logits
// [..., classes]. Labels are integers [...], which mean a target of 1 at the label and 0 elsewhere,
// or targets with the shape and dtype of logits, whose sum should be 1. A label outside of [0,
// classes) fails the run.
Value SoftmaxCrossEntropy(Operand logits, Operand labels, CrossEntropyOptions options = {});
// The same with log_probabilities instead of log(softmax(logits)).
Value NegativeLogLikelihood(Operand log_probabilities, Operand labels, CrossEntropyOptions options = {});
// The mean of sum(target * (log(target) - log_probabilities)) over the last axis, where 0 * log(0)
// is 0 (Kullback and Leibler, "On information and sufficiency", 1951). The target is a probability.
Value KlDivergence(Operand log_probabilities, Operand target, LossOptions options = {});
// The mean over the samples of sum(max(0, margin - score[label] + score[i])) / classes over all
// other classes i (Crammer and Singer, "On the algorithmic implementation of multiclass
// kernel-based vector machines", 2001); scores [..., classes], integer labels [...]. A label
// outside of [0, classes) fails the run.
Value MultiClassHinge(Operand scores, Operand labels, double margin = 1, LossOptions options = {});

// The mean of max(0, |anchor - positive| - |anchor - negative| + margin), with Euclidean distances
// along the last axis and a finite margin (Schroff et al., "FaceNet", 2015). The gradient of a
// distance of 0 is 0.
Value Triplet(Operand anchor, Operand positive, Operand negative, double margin = 1, LossOptions options = {});
// The mean of 1 - cos(a, b) where the target is 1, and of max(0, cos(a, b) - margin) elsewhere,
// with the angle between a and b [..., features] along the last axis; targets of -1 and 1 [...], a
// margin in [-1, 1]. The cosine with a vector of zeros is 0.
Value CosineEmbedding(Operand a, Operand b, Operand target, double margin = 0, LossOptions options = {});

struct CtcOptions {
  // The mean is over the samples; a sample counts with its loss divided by max(1, its number of
  // labels).
  Reduction reduction = Reduction::kMean;
  int64_t blank = 0;         // The class that stands for no label, in [0, classes).
  Value input_lengths = {};  // Integers [batch], at most `time`; all of the time if left out.
  Value label_lengths = {};  // Integers [batch], at most `most labels`; all of the labels if left out.
  // Labels that do not fit into the time have an infinite loss with gradient 0. If this is set,
  // their loss is 0.
  bool zero_infinity = false;
};

// Connectionist temporal classification (Graves et al., 2006): -log of the sum of the probabilities
// of all alignments that give the sample's labels. An alignment is a class for each time step;
// merging equal neighbours and removing blanks gives its labels. Softmax is applied to the logits
// [batch, time, classes]; the integer labels [batch, most labels] have no blanks. All sizes except
// the batch are known; there is at least one step and one label. The graph gets some nodes for each
// time step.
Value Ctc(Operand logits, Operand labels, CtcOptions options = {});

// The fraction of rows of logits [n, classes] whose largest element is at the label [n]; a float32
// scalar.
Value Accuracy(Operand logits, Operand labels);
// The number of these rows; a float32 scalar. Sums over batches of different sizes are exact.
Value CorrectCount(Operand logits, Operand labels);

}  // namespace gradweave::nn

#endif  // GRADWEAVE_FRONTEND_LOSSES_H_
