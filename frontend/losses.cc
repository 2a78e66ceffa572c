#include "gradweave/frontend/losses.h"

#include <algorithm>
#include <functional>
#include <limits>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "gradweave/frontend/number_checks.h"
#include "gradweave/ops/composition.h"
#include "gradweave/ops/elementwise.h"
#include "gradweave/ops/functions.h"
#include "gradweave/ops/indexing.h"
#include "gradweave/ops/reduction.h"
#include "gradweave/ops/shape_ops.h"
#include "gradweave/ops/softmax.h"

namespace gradweave::nn {
namespace {

// The first error of a loss's operands: an invalid value, whose error the graph has, or an error
// that is recorded here.
using Mistake = std::optional<Value>;

// Every operand has to be a floating value of one dtype.
Mistake CheckFloating(absl::string_view loss, const std::vector<Operand>& operands) {
  if (!AllValid(loss, operands))
    return Invalid(*std::find_if_not(operands.begin(), operands.end(), std::mem_fn(&Operand::is_number)));
  for (const Operand& operand : operands) {
    if (operand.is_number() || !IsFloating(operand.dtype()) || operand.dtype() != operands[0].dtype())
      return BuilderError(loss, operands,
                          "the operands have to be values of one dtype, float32 or float64; Cast converts");
  }
  return std::nullopt;
}

// The same, and all have one shape: broadcasting prediction and target would hide a mistake. The
// target of a loss of two may be a number.
Mistake CheckAlike(absl::string_view loss, const std::vector<Operand>& operands) {
  const bool to_number = operands.size() == 2 && operands[1].is_number();
  if (Mistake mistake = CheckFloating(loss, to_number ? std::vector<Operand>{operands[0]} : operands)) return mistake;
  if (to_number) return std::nullopt;
  for (const Operand& operand : operands) {
    if (!(operand.shape() == operands[0].shape()))
      return BuilderError(loss, operands, "prediction and target have to have the same shape");
  }
  return std::nullopt;
}

// The rows of `rows` have a last axis, and `each` one element for each row.
Mistake CheckRows(absl::string_view loss, const Operand& rows, const Operand& each, absl::string_view what) {
  if (!AllValid(loss, {rows, each})) return Invalid(rows);
  Shape expected = rows.shape();
  if (expected.rank() > 0) expected.Erase(expected.rank() - 1);
  if (!each.is_number() && rows.rank() > 0 && each.shape() == expected) return std::nullopt;
  return BuilderError(loss, {rows, each},
                      absl::StrCat(what, " have to have the shape of the first operand without its last axis"));
}

bool IsGiven(const Value& value) { return value.valid() || value.graph() != nullptr; }

Operand Last(const Value& x) { return Operand(ExpandDims(x, {x.rank()})); }

// Reduces losses, which count as `counts` (1 each if it is not given) in the mean.
Value Reduce(absl::string_view loss, Value losses, Value counts, const LossOptions& options) {
  if (!losses.valid()) return losses;
  if (IsGiven(options.sample_weights)) {
    Value weights = options.sample_weights;
    if (!AllValid(loss, {Operand(losses), Operand(weights)})) return Invalid(losses);
    bool fits = weights.rank() <= losses.rank();
    for (int axis = 0; fits && axis < weights.rank(); ++axis) fits = weights.shape()[axis] == losses.shape()[axis];
    if (!fits) {
      return BuilderError(loss, {weights},
                          absl::StrCat("sample_weights have to have the first axes of the losses ",
                                       losses.shape().ToString(), ", which they multiply"));
    }
    weights = Cast(weights, losses.dtype());
    while (weights.rank() < losses.rank()) weights = Last(weights).value();
    losses = losses * weights;
    counts = counts.valid() ? counts * weights : BroadcastTo(weights, losses.shape());
  }
  if (options.reduction == Reduction::kNone) return losses;
  if (options.reduction == Reduction::kSum) return Sum(losses);
  if (!counts.valid()) return Mean(losses);
  const Value total = Sum(counts);
  return Sum(losses) / Where(Equal(total, 0), 1, total);
}

Value Reduce(absl::string_view loss, const Value& losses, const LossOptions& options) {
  return Reduce(loss, losses, Value(), options);
}

// The elements of x [..., classes] at the labels [...].
Value AtLabels(const Operand& x, const Value& labels) {
  return Squeeze(TakeAlong(x, Last(labels), -1), {labels.rank()});
}

// target * log(p), which is 0 where the target is 0 and the logarithm infinite.
Value TimesLog(const Value& target, const Value& log) {
  const Value no_part = Equal(target, 0) && Equal(log, -std::numeric_limits<double>::infinity());
  return target * Where(no_part, 0, log);
}

// The cross entropy of log(softmax(x)), or of x, which then is the logarithm of probabilities.
Value CrossEntropy(absl::string_view loss, const Operand& x, const Operand& labels, bool is_logits,
                   const CrossEntropyOptions& options) {
  if (Mistake mistake = CheckFloating(loss, {x})) return *mistake;
  if (!AllValid(loss, {x, labels})) return Invalid(x);
  const CallLocation location(x);
  if (!CheckNumbers(*x.graph(), loss, {{"label_smoothing", options.label_smoothing, NumberCheck::kFraction}}))
    return Value(x.graph(), Port{});
  const double smoothing = options.label_smoothing;
  const LossOptions reduction = {options.reduction, options.sample_weights};
  const int axis = x.rank() - 1;
  if (axis < 0 || !x.shape()[axis].is_known() || x.shape()[axis].size() == 0)
    return BuilderError(loss, {x, labels}, "the last axis of the first operand has the classes, whose number is known");
  const double classes = static_cast<double>(x.shape()[axis].size());
  Value class_weights = options.class_weights;
  if (IsGiven(class_weights)) {
    if (!AllValid(loss, {x, Operand(class_weights)})) return Invalid(x);
    if (!(class_weights.shape() == Shape{x.shape()[axis]}))
      return BuilderError(loss, {x, labels, class_weights}, "class_weights have to have one element for each class");
    class_weights = Cast(class_weights, x.dtype());
  }
  const auto logs = [&] { return is_logits ? LogSoftmax(x) : x.value(); };
  const auto sum_over_classes = [&](const Value& terms) {
    return Sum(class_weights.valid() ? terms * class_weights : terms, {.axes = {axis}});
  };
  if (IsFloating(labels.dtype())) {
    if (labels.is_number() || !(labels.value().type() == x.value().type())) {
      return BuilderError(loss, {x, labels},
                          "labels have to be integers, one for each row, or targets of the type of the first operand");
    }
    if (options.ignore_index.has_value())
      return BuilderError(loss, {x, labels}, "ignore_index needs integer labels; sample_weights leave samples out");
    const Value target = smoothing > 0 ? labels.value() * (1 - smoothing) + smoothing / classes : labels.value();
    return Reduce(loss, -sum_over_classes(TimesLog(target, logs())), reduction);
  }
  if (Mistake mistake = CheckRows(loss, x, labels, "labels")) return *mistake;
  Value index = labels.value(), ignored;
  if (options.ignore_index.has_value()) {
    index = Cast(index, kInt64);
    ignored = Equal(index, *options.ignore_index);
    index = Where(ignored, 0, index);
  }
  Value losses = is_logits ? SparseSoftmaxCrossEntropy(x, index) : -AtLabels(x, index);
  Value counts;
  if (class_weights.valid()) {
    counts = Gather(class_weights, Cast(index, kInt64));
    losses = losses * counts;
  }
  if (smoothing > 0) losses = losses * (1 - smoothing) - sum_over_classes(logs()) * (smoothing / classes);
  if (ignored.valid()) {
    losses = Where(ignored, 0, losses);
    counts = counts.valid() ? Where(ignored, 0, counts) : Cast(!ignored, x.dtype());
  }
  return Reduce(loss, losses, counts, reduction);
}

// x divided by its norm along the last axis; zeros stay.
Value Unit(const Operand& x, Value& is_zero) {
  const Value norm = Norm(x, {.axes = {-1}, .keep_dims = true});
  is_zero = Equal(norm, 0);
  return x / Where(is_zero, 1, norm);
}

// The parts of size 1 of x along the axis. Halves are cut in halves, because the gradient of each
// cut adds zeros around its parts.
void Unstack(const Value& x, int64_t axis, std::vector<Value>& parts) {
  const int64_t size = x.valid() ? x.shape()[static_cast<int>(axis)].size() : 1;
  if (size == 1) {
    parts.push_back(Squeeze(x, {axis}));
    return;
  }
  Unstack(SliceAxis(x, axis, 0, size / 2), axis, parts);
  Unstack(SliceAxis(x, axis, size / 2, size), axis, parts);
}

// Checks the lengths of samples, and gives them as int64 [batch, 1]; a number if they were left
// out.
std::optional<Operand> Lengths(const Operand& logits, const Value& lengths, int64_t all, absl::string_view what) {
  if (!IsGiven(lengths)) return Operand(all);
  if (!AllValid("Ctc", {logits, Operand(lengths)})) return std::nullopt;
  if (!IsInteger(lengths.dtype()) || !(lengths.shape() == Shape{logits.shape()[0]})) {
    BuilderError("Ctc", {logits, lengths}, absl::StrCat(what, " have to be integers, one for each sample"));
    return std::nullopt;
  }
  return Last(Cast(lengths, kInt64));
}

}  // namespace

Value MeanSquaredError(Operand prediction, Operand target, LossOptions options) {
  if (Mistake mistake = CheckAlike("MeanSquaredError", {prediction, target})) return *mistake;
  const CallLocation location(prediction);
  return Reduce("MeanSquaredError", Square(Sub(prediction, target)), options);
}

Value MeanAbsoluteError(Operand prediction, Operand target, LossOptions options) {
  if (Mistake mistake = CheckAlike("MeanAbsoluteError", {prediction, target})) return *mistake;
  const CallLocation location(prediction);
  return Reduce("MeanAbsoluteError", Abs(Sub(prediction, target)), options);
}

Value Huber(Operand prediction, Operand target, double delta, LossOptions options) {
  if (Mistake mistake = CheckAlike("Huber", {prediction, target})) return *mistake;
  const CallLocation location(prediction);
  if (!CheckNumbers(*prediction.graph(), "Huber", {{"delta", delta, NumberCheck::kPositive}}))
    return Value(prediction.graph(), Port{});
  // With c = min(|d|, delta), c*(|d| - c/2) covers both cases.
  const Value distance = Abs(Sub(prediction, target));
  const Value clipped = Minimum(distance, delta);
  return Reduce("Huber", Mul(clipped, Sub(distance, Mul(clipped, 0.5))), options);
}

Value BinaryCrossEntropyWithLogits(Operand logits, Operand target, LossOptions options) {
  if (Mistake mistake = CheckAlike("BinaryCrossEntropyWithLogits", {logits, target})) return *mistake;
  const CallLocation location(logits);
  return Reduce("BinaryCrossEntropyWithLogits", SigmoidCrossEntropy(logits, target), options);
}

Value Hinge(Operand score, Operand target, double margin, LossOptions options) {
  if (Mistake mistake = CheckAlike("Hinge", {score, target})) return *mistake;
  const CallLocation location(score);
  if (!CheckNumbers(*score.graph(), "Hinge", {{"margin", margin, NumberCheck::kFinite}}))
    return Value(score.graph(), Port{});
  return Reduce("Hinge", Relu(margin - target * score), options);
}

Value SoftmaxCrossEntropy(Operand logits, Operand labels, CrossEntropyOptions options) {
  return CrossEntropy("SoftmaxCrossEntropy", logits, labels, true, options);
}

Value NegativeLogLikelihood(Operand log_probabilities, Operand labels, CrossEntropyOptions options) {
  return CrossEntropy("NegativeLogLikelihood", log_probabilities, labels, false, options);
}

Value KlDivergence(Operand log_probabilities, Operand target, LossOptions options) {
  if (Mistake mistake = CheckAlike("KlDivergence", {log_probabilities, target})) return *mistake;
  if (target.is_number() || target.rank() == 0)
    return BuilderError("KlDivergence", {log_probabilities, target}, "both have to have an axis of classes");
  const CallLocation location(log_probabilities);
  const Value is_zero = Equal(target, 0);
  const Value ratio = Log(Where(is_zero, 1, target)) - Where(is_zero, 0, log_probabilities);
  return Reduce("KlDivergence", Sum(target * ratio, {.axes = {-1}}), options);
}

Value MultiClassHinge(Operand scores, Operand labels, double margin, LossOptions options) {
  if (Mistake mistake = CheckFloating("MultiClassHinge", {scores})) return *mistake;
  if (Mistake mistake = CheckRows("MultiClassHinge", scores, labels, "labels")) return *mistake;
  const CallLocation location(scores);
  if (!CheckNumbers(*scores.graph(), "MultiClassHinge", {{"margin", margin, NumberCheck::kFinite}}))
    return Value(scores.graph(), Port{});
  const Dim& classes = scores.shape()[scores.rank() - 1];
  if (!IsInteger(labels.dtype()) || !classes.is_known())
    return BuilderError("MultiClassHinge", {scores, labels},
                        "labels have to be integers, of a known number of classes");
  const Operand index = Last(Cast(labels, kInt64));
  const Value terms = Relu(scores - TakeAlong(scores, index, -1) + margin);
  const Value others = NotEqual(RangeLike(scores, classes), index);
  const Value losses = Sum(Where(others, terms, 0), {.axes = {-1}}) / static_cast<double>(classes.size());
  return Reduce("MultiClassHinge", losses, options);
}

Value Triplet(Operand anchor, Operand positive, Operand negative, double margin, LossOptions options) {
  if (Mistake mistake = CheckAlike("Triplet", {anchor, positive, negative})) return *mistake;
  if (anchor.rank() == 0) return BuilderError("Triplet", {anchor}, "there has to be an axis of features");
  const CallLocation location(anchor);
  if (!CheckNumbers(*anchor.graph(), "Triplet", {{"margin", margin, NumberCheck::kFinite}}))
    return Value(anchor.graph(), Port{});
  const Value near = Norm(anchor - positive, {.axes = {-1}}), far = Norm(anchor - negative, {.axes = {-1}});
  return Reduce("Triplet", Relu(near - far + margin), options);
}

Value CosineEmbedding(Operand a, Operand b, Operand target, double margin, LossOptions options) {
  if (Mistake mistake = CheckFloating("CosineEmbedding", {a, b})) return *mistake;
  if (Mistake mistake = CheckAlike("CosineEmbedding", {a, b})) return *mistake;
  if (Mistake mistake = CheckRows("CosineEmbedding", a, target, "targets")) return *mistake;
  const CallLocation location(a);
  if (!(margin >= -1 && margin <= 1))
    return BuilderError("CosineEmbedding", {a, b, target},
                        absl::StrCat("margin is ", margin, " and must be in [-1, 1]"));
  Value a_is_zero, b_is_zero;
  const Value unit_a = Unit(a, a_is_zero), unit_b = Unit(b, b_is_zero);
  const Value cosine = Sum(unit_a * unit_b, {.axes = {-1}});
  // 1 - cos is half the squared distance of unit vectors, which does not cancel for almost equal
  // ones.
  const Value half = Sum(Square(unit_a - unit_b), {.axes = {-1}}) * 0.5;
  const Value apart = Where(Squeeze(a_is_zero || b_is_zero, {-1}), 1, half);
  return Reduce("CosineEmbedding", Where(Equal(target, 1), apart, Relu(cosine - margin)), options);
}

// The forward variables of Graves et al., section 4.1, as logarithms: alpha[s] is that of all
// alignments of the steps so far with the first s + 1 of the labels and the blanks before, between
// and behind them.
Value Ctc(Operand logits, Operand labels, CtcOptions options) {
  constexpr double kInfinity = std::numeric_limits<double>::infinity(), kImpossible = -kInfinity;
  if (Mistake mistake = CheckFloating("Ctc", {logits})) return *mistake;
  if (!AllValid("Ctc", {logits, labels})) return Invalid(logits);
  if (labels.is_number() || logits.rank() != 3 || labels.rank() != 2 || !IsInteger(labels.dtype()) ||
      !(logits.shape()[0] == labels.shape()[0])) {
    return BuilderError("Ctc", {logits, labels},
                        "logits have to be [batch, time, classes], and labels integers [batch, most labels]");
  }
  const Dim time = logits.shape()[1], classes = logits.shape()[2], most = labels.shape()[1];
  if (!time.is_known() || !classes.is_known() || !most.is_known() || time.size() < 1 || most.size() < 1)
    return BuilderError("Ctc", {logits, labels}, "time, classes and most labels have to be known and at least 1");
  if (options.blank < 0 || options.blank >= classes.size()) {
    return BuilderError("Ctc", {logits, labels},
                        absl::StrCat("blank is ", options.blank, " and must be in [0, ", classes.size(), ")"));
  }
  const CallLocation location(logits);
  const std::optional<Operand> steps = Lengths(logits, options.input_lengths, time.size(), "input_lengths");
  const std::optional<Operand> length = Lengths(logits, options.label_lengths, most.size(), "label_lengths");
  if (!steps.has_value() || !length.has_value()) return Value(logits.graph(), Port{});

  // Blanks go before, between and behind the labels. A step may leave out the blank between two
  // labels that differ.
  Value symbols = Cast(labels, kInt64);
  if (length->is_value()) symbols = Where(RangeLike(logits, most) < *length, symbols, options.blank);
  const double blank = static_cast<double>(options.blank);
  symbols = Pad(symbols, {.low = {0, 1}, .high = {0, 1}, .interior = {0, 1}, .value = blank});
  const Value two_before = Pad(symbols, {.low = {0, 2}, .high = {0, -2}, .value = blank});
  const Value may_skip = NotEqual(symbols, blank) && NotEqual(symbols, two_before);
  const Value place = RangeLike(logits, symbols.shape()[1]);

  const Value log_probabilities = LogSoftmax(logits);
  std::vector<Value> emissions;
  Unstack(TakeAlong(log_probabilities, ExpandDims(symbols, {1}), 2), 1, emissions);
  Value alpha;
  for (size_t t = 0; t < emissions.size(); ++t) {
    if (t == 0) {
      alpha = Where(place < 2, emissions[0], kImpossible);
      continue;
    }
    const Value from_one = Pad(alpha, {.low = {0, 1}, .high = {0, -1}, .value = kImpossible});
    const Value from_two = Pad(alpha, {.low = {0, 2}, .high = {0, -2}, .value = kImpossible});
    const std::vector<Value> paths = {ExpandDims(alpha, {0}), ExpandDims(from_one, {0}),
                                      ExpandDims(Where(may_skip, from_two, kImpossible), {0})};
    const Value next = LogSumExp(Concat(paths, 0), {.axes = {0}}) + emissions[t];
    // A sample that has ended keeps its sums.
    alpha = steps->is_value() ? Where(Operand(static_cast<double>(t)) < *steps, next, alpha) : next;
  }
  // Alignments end with the last label or the blank after it.
  const Operand last = length->is_value() ? Operand(length->value() * 2) : Operand(length->number() * 2);
  const Value ends =
      place <= last && place >= (last.is_value() ? Operand(last.value() - 1) : Operand(last.number() - 1));
  Value losses = -LogSumExp(Where(ends, alpha, kImpossible), {.axes = {1}});
  if (options.zero_infinity) losses = Where(Equal(losses, kInfinity), 0, losses);
  if (options.reduction == Reduction::kMean) {
    const Operand per_label =
        length->is_value() ? Operand(Cast(Squeeze(Maximum(length->value(), 1), {1}), logits.dtype())) : *length;
    losses = losses / per_label;
  }
  return Reduce("Ctc", losses, {.reduction = options.reduction});
}

Value CorrectCount(Operand logits, Operand labels) {
  if (!logits.is_value()) return NeedsValue("CorrectCount", logits);
  const CallLocation location(logits);
  const Value predicted = ArgMax(logits, {.axis = -1});
  return Sum(Cast(Equal(predicted, Cast(labels, kInt64)), kFloat32));
}

Value Accuracy(Operand logits, Operand labels) {
  if (!logits.is_value()) return NeedsValue("Accuracy", logits);
  const CallLocation location(logits);
  const Value predicted = ArgMax(logits, {.axis = -1});
  return Mean(Cast(Equal(predicted, Cast(labels, kInt64)), kFloat32));
}

}  // namespace gradweave::nn
