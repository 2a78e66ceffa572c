// Losses beside the numbers that PyTorch 1.13 gives (make_loss_reference.py prints them), and their
// first and second derivatives beside central differences.
#include <cmath>
#include <functional>
#include <limits>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "gmock/gmock.h"
#include "gradweave/gradweave.h"
#include "gtest/gtest.h"
#include "tests/ops/op_case.h"
#include "tests/test_device.h"

namespace gradweave {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

constexpr double kInfinity = std::numeric_limits<double>::infinity();

// The operands of make_loss_reference.py.
OperandCase Waves(std::vector<int64_t> sizes, double phase, double scale, double shift = 0) {
  OperandCase operand{std::move(sizes)};
  int64_t count = 1;
  for (int64_t size : operand.sizes) count *= size;
  for (int64_t i = 0; i < count; ++i)
    operand.values.push_back(static_cast<float>(scale * std::sin(phase + static_cast<double>(i)) + shift));
  return operand;
}
OperandCase Fixed(OperandCase operand) {
  operand.differentiate = false;
  return operand;
}
OperandCase Whole(std::vector<int64_t> sizes, std::vector<double> values) {
  return {std::move(sizes), kInt32, 0, 0, std::move(values)};
}

const OperandCase kX = Waves({5, 4}, 1, 3), kT = Waves({5, 4}, 2, 1), kN = Waves({5, 4}, 3, 2),
                  kP = Waves({5, 4}, 4, 0.5, 0.5), kSamples = Waves({5}, 5, 0.5, 0.75),
                  kClasses = Waves({4}, 6, 0.5, 0.75), kLabels = Whole({5}, {1, 3, 0, 3, 2}),
                  kSigns = Fixed({{5}, kFloat64, 0, 0, {1, -1, -1, 1, -1}}), kLogits = Waves({3, 6, 4}, 7, 2),
                  kLetters = Whole({3, 3}, {1, 1, 2, 3, 2, 3, 2, 1, 1}), kSteps = Whole({3}, {6, 4, 5});

using Values = std::vector<Value>;

struct LossCase {
  std::string name;
  double pytorch;
  std::vector<OperandCase> operands;
  std::function<Value(const Values&)> build;
  bool symbolic = true;  // True if every size may be a symbol; the batch always may.
};

void PrintTo(const LossCase& row, std::ostream* out) { *out << row.name; }

nn::CrossEntropyOptions AllOptions(const Value& class_weights, nn::Reduction reduction = nn::Reduction::kMean) {
  return {.reduction = reduction, .class_weights = class_weights, .label_smoothing = 0.2, .ignore_index = 3};
}

const LossCase kCases[] = {
    {"mean_absolute_error",
     1.65294176638126,
     {kX, kT},
     [](const Values& x) { return nn::MeanAbsoluteError(x[0], x[1]); }},
    {"mean_squared_error_weighted",
     3.29544318704407,
     {kX, kT, kSamples},
     [](const Values& x) { return nn::MeanSquaredError(x[0], x[1], {.sample_weights = x[2]}); }},
    {"mean_squared_error_sum",
     67.2903559508576,
     {kX, kT},
     [](const Values& x) { return nn::MeanSquaredError(x[0], x[1], {.reduction = nn::Reduction::kSum}); }},
    {"huber", 0.927269390416625, {kX, kT}, [](const Values& x) { return nn::Huber(x[0], x[1], 0.7); }},
    {"binary_cross_entropy_weighted",
     1.89535183397168,
     {kX, kP, Fixed(kP)},
     [](const Values& x) { return nn::BinaryCrossEntropyWithLogits(x[0], x[1], {.sample_weights = x[2]}); }},
    {"hinge",
     0.92373073965311,
     {kX, kSigns},
     [](const Values& x) { return nn::Hinge(x[0], BroadcastTo(ExpandDims(x[1], {1}), x[0].shape()), 0.8); }},
    {"cross_entropy",
     1.55687578793707,
     {kX, kLabels},
     [](const Values& x) { return nn::SoftmaxCrossEntropy(x[0], x[1]); },
     false},
    {"cross_entropy_class_weights",
     1.6863986065064,
     {kX, kLabels, kClasses},
     [](const Values& x) { return nn::SoftmaxCrossEntropy(x[0], x[1], {.class_weights = x[2]}); },
     false},
    {"cross_entropy_ignored",
     1.05678537617434,
     {kX, kLabels},
     [](const Values& x) { return nn::SoftmaxCrossEntropy(x[0], x[1], {.ignore_index = 3}); },
     false},
    {"cross_entropy_smoothed",
     1.78765890445652,
     {kX, kLabels},
     [](const Values& x) { return nn::SoftmaxCrossEntropy(x[0], x[1], {.label_smoothing = 0.2}); },
     false},
    {"cross_entropy_all",
     1.60416955768445,
     {kX, kLabels, kClasses},
     [](const Values& x) { return nn::SoftmaxCrossEntropy(x[0], x[1], AllOptions(x[2])); },
     false},
    {"cross_entropy_all_sum",
     4.70577477981722,
     {kX, kLabels, kClasses},
     [](const Values& x) { return nn::SoftmaxCrossEntropy(x[0], x[1], AllOptions(x[2], nn::Reduction::kSum)); },
     false},
    {"cross_entropy_samples",
     1.95432253928763,
     {kX, kLabels, kSamples},
     [](const Values& x) { return nn::SoftmaxCrossEntropy(x[0], x[1], {.sample_weights = x[2]}); },
     false},
    {"cross_entropy_soft",
     3.07248311146332,
     {kX, kN},
     [](const Values& x) { return nn::SoftmaxCrossEntropy(x[0], Softmax(x[1])); },
     false},
    {"cross_entropy_soft_all",
     2.82358454165742,
     {kX, kN, kClasses},
     [](const Values& x) {
       return nn::SoftmaxCrossEntropy(x[0], Softmax(x[1]), {.class_weights = x[2], .label_smoothing = 0.2});
     },
     false},
    {"nll",
     1.6863986065064,
     {kX, kLabels, kClasses},
     [](const Values& x) { return nn::NegativeLogLikelihood(LogSoftmax(x[0]), x[1], {.class_weights = x[2]}); },
     false},
    {"kl",
     2.12688037338018,
     {kX, kN},
     [](const Values& x) { return nn::KlDivergence(LogSoftmax(x[0]), Softmax(x[1])); }},
    {"multi_class_hinge",
     0.718002054095268,
     {kX, kLabels},
     [](const Values& x) { return nn::MultiClassHinge(x[0], x[1], 0.7); },
     false},
    {"triplet", 2.77425511546903, {kX, kN, kT}, [](const Values& x) { return nn::Triplet(x[0], x[1], x[2], 0.5); }},
    {"cosine_embedding",
     0.499857286701195,
     {kX, kN, kSigns},
     [](const Values& x) { return nn::CosineEmbedding(x[0], x[1], x[2], 0.1); }},
    {"ctc", 1.99359095132544, {kLogits, kLetters}, [](const Values& x) { return nn::Ctc(x[0], x[1]); }, false},
    {"ctc_lengths_mean",
     3.3761458769237,
     {kLogits, kLetters, kSteps, Whole({3}, {3, 2, 1})},
     [](const Values& x) { return nn::Ctc(x[0], x[1], {.input_lengths = x[2], .label_lengths = x[3]}); },
     false},
    {"ctc_lengths_sum",
     20.0288047402874,
     {kLogits, kLetters, kSteps, Whole({3}, {3, 2, 0})},
     [](const Values& x) {
       return nn::Ctc(x[0], x[1], {.reduction = nn::Reduction::kSum, .input_lengths = x[2], .label_lengths = x[3]});
     },
     false},
    {"ctc_zero_infinity",
     11.0061120045826,
     {kLogits, kLetters, Whole({3}, {3, 4, 6})},
     [](const Values& x) {
       return nn::Ctc(x[0], x[1], {.reduction = nn::Reduction::kSum, .input_lengths = x[2], .zero_infinity = true});
     },
     false},
};

class Losses : public ::testing::TestWithParam<LossCase> {};

TEST_P(Losses, AreThoseOfPyTorchAndTheirDerivativesThoseOfDifferences) {
  const LossCase& row = GetParam();
  const OpCase op_case = {.op = row.name,
                          .name = row.name,
                          .operands = row.operands,
                          .build = [&](const Values& x) { return Values{row.build(x)}; },
                          .reference =
                              [&](const std::vector<Array>&) {
                                return std::vector<Array>{{{}, {row.pytorch}}};
                              },
                          .symbolic = row.symbolic};
  EXPECT_EQ(CheckOpCase(op_case, TestDevice()), "");
}

INSTANTIATE_TEST_SUITE_P(Rows, Losses, ::testing::ValuesIn(kCases), [](const auto& info) { return info.param.name; });

std::vector<double> Results(const Graph& graph, const std::vector<Feed>& feeds, Value value) {
  EXPECT_TRUE(graph.status().ok()) << graph.status();
  absl::StatusOr<Session> session = Session::Create(graph, {.device = TestDevice(), .threads = 1});
  EXPECT_TRUE(session.ok()) << session.status();
  absl::StatusOr<std::vector<Tensor>> results = session->Run(feeds, {value});
  EXPECT_TRUE(results.ok()) << results.status();
  return results.ok() ? (*results)[0].ToDoubles() : std::vector<double>();
}

Tensor Fed(const OperandCase& operand, DType dtype) {
  return Tensor::Of<double>(operand.sizes, operand.values).Cast(dtype);
}

// The constants of a graph with a batch that is only known when it runs.
struct BatchGraph {
  Graph graph;
  Scope scope{graph};
  std::vector<Feed> feeds;

  Value Batch(const OperandCase& operand, DType dtype) {
    Shape shape(operand.sizes);
    shape[0] = Dim("batch");
    feeds.emplace_back(scope.Input(absl::StrCat("x", feeds.size()), dtype, shape), Fed(operand, dtype));
    return feeds.back().first;
  }
};

MATCHER_P(Near, expected, "") { return arg == expected || std::abs(arg - expected) < 1e-9; }

TEST(SoftmaxCrossEntropy, GivesTheLossOfEachSampleAndZeroForThoseLeftOut) {
  BatchGraph batch;
  const Value x = batch.Batch(kX, kFloat64), labels = batch.Batch(kLabels, kInt64);
  const Value weights = batch.scope.Constant(Fed(kClasses, kFloat64));
  const Value loss = nn::SoftmaxCrossEntropy(x, labels, AllOptions(weights, nn::Reduction::kNone));
  EXPECT_THAT(Results(batch.graph, batch.feeds, loss),
              ElementsAre(Near(1.0795909595646), 0, Near(0.637401552907591), 0, Near(2.98878226734503)));
}

TEST(SoftmaxCrossEntropy, OfNoSampleIsZero) {
  BatchGraph batch;
  const Value x = batch.Batch(kX, kFloat32), labels = batch.Batch(Whole({5}, {-1, -1, -1, -1, -1}), kInt32);
  const Value loss = nn::SoftmaxCrossEntropy(x, labels, {.ignore_index = -1});
  const Value dx = Gradients({loss}, {x})[0];
  EXPECT_THAT(Results(batch.graph, batch.feeds, loss), ElementsAre(0));
  EXPECT_THAT(Results(batch.graph, batch.feeds, dx), ::testing::Each(0));
}

TEST(SoftmaxCrossEntropy, OfTargetsLeavesOutClassesThatCannotBe) {
  BatchGraph batch;
  const Value x = batch.Batch({{1, 3}, kFloat32, 0, 0, {1, -kInfinity, 1}}, kFloat32);
  const Value target = batch.Batch({{1, 3}, kFloat32, 0, 0, {0.5, 0, 0.5}}, kFloat32);
  const Value loss = nn::SoftmaxCrossEntropy(x, target);
  const Value dx = Gradients({loss}, {x})[0];
  EXPECT_THAT(Results(batch.graph, batch.feeds, loss), ElementsAre(static_cast<float>(std::log(2.0))));
  EXPECT_THAT(Results(batch.graph, batch.feeds, dx), ElementsAre(0, 0, 0));
}

TEST(KlDivergence, TakesZeroTargets) {
  BatchGraph batch;
  const Value log_p = batch.Batch({{1, 2}, kFloat32, 0, 0, {0, -kInfinity}}, kFloat32);
  const Value target = batch.Batch({{1, 2}, kFloat32, 0, 0, {1, 0}}, kFloat32);
  const Value loss = nn::KlDivergence(log_p, target);
  EXPECT_THAT(Results(batch.graph, batch.feeds, loss), ElementsAre(0));
  EXPECT_THAT(Results(batch.graph, batch.feeds, Gradients({loss}, {log_p})[0]), ElementsAre(-1, 0));
}

TEST(CosineEmbedding, IsExactForAlmostEqualVectorsAndOneBesideZero) {
  BatchGraph batch;
  const Value a = batch.Batch({{2, 2}, kFloat32, 0, 0, {1, 0, 0, 0}}, kFloat32);
  const Value b = batch.Batch({{2, 2}, kFloat32, 0, 0, {1, 1e-4, 3, 4}}, kFloat32);
  const Value target = batch.Batch({{2}, kFloat32, 0, 0, {1, 1}}, kFloat32);
  const Value loss = nn::CosineEmbedding(a, b, target, 0, {.reduction = nn::Reduction::kNone});
  // 1 - cos(atan(1e-4)) is 1e-8 / 2.
  const std::vector<double> losses = Results(batch.graph, batch.feeds, loss);
  EXPECT_NEAR(losses[0], 0.5e-8, 1e-14);
  EXPECT_EQ(losses[1], 1);
}

TEST(Ctc, GivesTheLossOfEachSampleAndPyTorchsGradient) {
  BatchGraph batch;
  const Value logits = batch.Batch(kLogits, kFloat64), letters = batch.Batch(kLetters, kInt32),
              steps = batch.Batch(kSteps, kInt64), lengths = batch.Batch(Whole({3}, {3, 2, 1}), kInt64);
  const Value loss =
      nn::Ctc(logits, letters, {.reduction = nn::Reduction::kNone, .input_lengths = steps, .label_lengths = lengths});
  EXPECT_THAT(Results(batch.graph, batch.feeds, loss),
              ElementsAre(Near(6.54570434474602), Near(2.89724689654219), Near(6.49791273425132)));
  const Value gradient = Reshape(Gradients({Sum(loss)}, {logits})[0], {Dim(-1)});
  EXPECT_THAT(Results(batch.graph, batch.feeds, SliceAxis(gradient, 0, 0, 8)),
              ElementsAre(Near(0.0227956741998818), Near(-0.215628860049627), Near(0.168010732662561),
                          Near(0.0248224531871842), Near(-0.246548377305442), Near(-0.705943047304027),
                          Near(0.230654084566663), Near(0.721837340042806)));
}

TEST(Ctc, OfLabelsThatDoNotFitIsInfiniteWithAGradientOfZero) {
  BatchGraph batch;
  const Value logits = batch.Batch(kLogits, kFloat64), letters = batch.Batch(kLetters, kInt32),
              steps = batch.Batch(Whole({3}, {3, 4, 6}), kInt64);
  const Value loss = nn::Ctc(logits, letters, {.reduction = nn::Reduction::kNone, .input_lengths = steps});
  EXPECT_THAT(Results(batch.graph, batch.feeds, loss),
              ElementsAre(kInfinity, Near(4.4006521711648), Near(6.60545983341775)));
  const Value gradient = Reshape(Gradients({Sum(loss)}, {logits})[0], {Dim(-1)});
  EXPECT_THAT(Results(batch.graph, batch.feeds, SliceAxis(gradient, 0, 0, 24)), ::testing::Each(0));
}

// A class that cannot be at a step, and a blank that is not class 0.
TEST(Ctc, TakesInfiniteLogitsAndAnyBlank) {
  BatchGraph batch;
  // One label in two steps: "ab", "ba" and "aa" with the blank b, of which "aa" and "ba" have
  // probability 0.
  const Value logits =
      batch.Batch({{1, 2, 2}, kFloat32, 0, 0, {std::log(0.75), std::log(0.25), -kInfinity, 0}}, kFloat32);
  const Value label = batch.Batch(Whole({1, 1}, {0}), kInt32);
  const Value loss = nn::Ctc(logits, label, {.blank = 1});
  EXPECT_NEAR(Results(batch.graph, batch.feeds, loss)[0], -std::log(0.75), 1e-6);
  const std::vector<double> gradient = Results(batch.graph, batch.feeds, Gradients({loss}, {logits})[0]);
  EXPECT_NEAR(gradient[0], -0.25, 1e-6);
  EXPECT_NEAR(gradient[1], 0.25, 1e-6);
  EXPECT_EQ(gradient[2], 0);
  EXPECT_EQ(gradient[3], 0);
}

// The second step can only be the class 3, which is none of the labels.
TEST(Ctc, OfAStepThatCannotBeIsInfiniteWithAGradientOfZero) {
  BatchGraph batch;
  const Value logits = batch.Batch(
      {{1, 3, 4}, kFloat32, 0, 0, {1, 2, 3, 4, -kInfinity, -kInfinity, -kInfinity, 0, 1, 2, 3, 4}}, kFloat32);
  const Value label = batch.Batch(Whole({1, 2}, {1, 2}), kInt32);
  const Value loss = nn::Ctc(logits, label);
  EXPECT_THAT(Results(batch.graph, batch.feeds, loss), ElementsAre(kInfinity));
  EXPECT_THAT(Results(batch.graph, batch.feeds, Gradients({loss}, {logits})[0]), ::testing::Each(0));
}

struct MistakeCase {
  std::string name;
  std::function<Value(Scope&, Value x)> build;  // x is float32 [batch, 4].
  std::string message;
};
void PrintTo(const MistakeCase& row, std::ostream* out) { *out << row.name; }

Value Labels(Scope& scope) { return scope.Input("labels", kInt32, {Dim("batch")}); }

const MistakeCase kMistakes[] = {
    {"shapes",
     [](Scope& s, Value x) {
       return nn::MeanAbsoluteError(x, s.Input("t", kFloat32, {Dim("batch"), 1}));
     },
     "MeanAbsoluteError: prediction and target have to have the same shape; operands are (float32[batch,4], "
     "float32[batch,1])"},
    {"dtypes",
     [](Scope& s, Value x) {
       return nn::Hinge(x, s.Input("t", kInt32, {Dim("batch"), 4}));
     },
     "Hinge: the operands have to be values of one dtype, float32 or float64; Cast converts"},
    {"delta", [](Scope&, Value x) { return nn::Huber(x, x, 0); }, "Huber: delta is 0 and must be above 0"},
    {"margin", [](Scope&, Value x) { return nn::Triplet(x, x, x, kInfinity); },
     "Triplet: margin is inf and must be finite"},
    {"cosine_margin", [](Scope& s, Value x) { return nn::CosineEmbedding(x, x, Labels(s), 1.5); },
     "CosineEmbedding: margin is 1.5 and must be in [-1, 1]"},
    {"smoothing", [](Scope& s, Value x) { return nn::SoftmaxCrossEntropy(x, Labels(s), {.label_smoothing = 1.5}); },
     "SoftmaxCrossEntropy: label_smoothing is 1.5 and must be in [0, 1]"},
    {"targets", [](Scope& s, Value x) { return nn::SoftmaxCrossEntropy(x, s.Input("t", kFloat32, {Dim("batch")})); },
     "labels have to be integers, one for each row, or targets of the type of the first operand"},
    {"ignored_targets", [](Scope&, Value x) { return nn::SoftmaxCrossEntropy(x, x, {.ignore_index = 1}); },
     "ignore_index needs integer labels"},
    {"class_weights",
     [](Scope& s, Value x) {
       return nn::SoftmaxCrossEntropy(x, Labels(s), {.class_weights = s.Input("w", kFloat32, {3})});
     },
     "class_weights have to have one element for each class; operands are (float32[batch,4], int32[batch], "
     "float32[3])"},
    {"sample_weights",
     [](Scope& s, Value x) { return nn::MeanSquaredError(x, x, {.sample_weights = s.Input("w", kFloat32, {4})}); },
     "MeanSquaredError: sample_weights have to have the first axes of the losses [batch,4], which they multiply"},
    {"hinge_labels", [](Scope&, Value x) { return nn::MultiClassHinge(x, x); },
     "MultiClassHinge: labels have to have the shape of the first operand without its last axis"},
    {"ctc_shapes", [](Scope& s, Value x) { return nn::Ctc(x, Labels(s)); },
     "Ctc: logits have to be [batch, time, classes], and labels integers [batch, most labels]"},
    {"ctc_blank",
     [](Scope& s, Value x) { return nn::Ctc(ExpandDims(x, {1}), ExpandDims(Labels(s), {1}), {.blank = 4}); },
     "Ctc: blank is 4 and must be in [0, 4)"},
};

class LossMistakes : public ::testing::TestWithParam<MistakeCase> {};

TEST_P(LossMistakes, AreNamedWithTheCallersLine) {
  Graph graph;
  Scope scope(graph);
  const Value loss = GetParam().build(scope, scope.Input("x", kFloat32, {Dim("batch"), 4}));
  EXPECT_FALSE(loss.valid());
  EXPECT_THAT(std::string(graph.status().message()), HasSubstr(GetParam().message));
  EXPECT_THAT(std::string(graph.status().message()), HasSubstr("losses_test.cc:"));
}

INSTANTIATE_TEST_SUITE_P(Rows, LossMistakes, ::testing::ValuesIn(kMistakes),
                         [](const auto& info) { return info.param.name; });

}  // namespace
}  // namespace gradweave
