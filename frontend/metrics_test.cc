// Metrics over batches of different sizes, beside numbers computed by hand.
#include "gradweave/frontend/metrics.h"

#include <cmath>
#include <limits>
#include <string>
#include <vector>

#include "gmock/gmock.h"
#include "gradweave/frontend/dataset.h"
#include "gradweave/frontend/trainer.h"
#include "gradweave/frontend/weighted_mean.h"
#include "gradweave/ops/elementwise.h"
#include "gradweave/ops/reduction.h"
#include "gradweave/ops/scope.h"
#include "gradweave/ops/shape_ops.h"
#include "gtest/gtest.h"

namespace gradweave {
namespace {

using ::testing::HasSubstr;

// Seven samples of logits in three classes, evaluated in batches of three, three and one.
class Classified : public ::testing::Test {
 protected:
  Classified() : scope_(graph_) {
    logits_ = scope_.Input("logits", kFloat32, {Dim("batch"), 3});
    label_ = scope_.Input("label", kInt32, {Dim("batch")});
  }

  MetricValues Evaluate(const std::vector<Metric>& metrics) {
    absl::StatusOr<Session> session = Session::Create(graph_, {.threads = 1});
    EXPECT_TRUE(session.ok()) << session.status();
    absl::StatusOr<MetricValues> values = gradweave::Evaluate(*session, metrics, data_, 3);
    EXPECT_TRUE(values.ok()) << values.status();
    return *values;
  }

  static constexpr float kNan = std::numeric_limits<float>::quiet_NaN();
  Graph graph_;
  Scope scope_;
  Value logits_, label_;
  data::Dataset data_ = {{"logits", Tensor::Of<float>({7, 3}, {3,    1, 2,     // 0: right.
                                                               3,    1, 2,     // 2: second.
                                                               3,    1, 2,     // 1: third.
                                                               5,    5, 5,     // 0: right, as the first of equals.
                                                               5,    5, 5,     // 1: second.
                                                               0,    9, 1,     // 1: right.
                                                               kNan, 1, 2})},  // 0: NaN counts as the largest.
                         {"label", Tensor::Of<int32_t>({7}, {0, 2, 1, 0, 1, 1, 0})}};
};

TEST_F(Classified, CountsRightPredictionsAmongTheFirstK) {
  const MetricValues values =
      Evaluate({metrics::Accuracy(logits_, label_), metrics::TopKAccuracy(logits_, label_, 1),
                metrics::TopKAccuracy(logits_, label_, 2), metrics::TopKAccuracy(logits_, label_, 3)});
  EXPECT_EQ(values["accuracy"], 4.0 / 7);
  // A label whose logit is NaN is not among the first.
  EXPECT_EQ(values["top-1 accuracy"], 3.0 / 7);
  EXPECT_EQ(values["top-2 accuracy"], 5.0 / 7);
  EXPECT_EQ(values["top-3 accuracy"], 6.0 / 7);
}

TEST_F(Classified, CountsPairsOfLabelAndPrediction) {
  const MetricValues values = Evaluate({metrics::ConfusionMatrix(logits_, label_)});
  ASSERT_NE(values.Find("confusion"), nullptr);
  EXPECT_EQ(values.Find("confusion")->type().ToString(), "float64[3,3]");
  EXPECT_EQ(values.Find("confusion")->ToDoubles(), (std::vector<double>{3, 0, 0, 2, 1, 0, 1, 0, 0}));
  // It is no scalar.
  EXPECT_TRUE(std::isnan(values["confusion"]));
}

TEST_F(Classified, TakesValuesOfTheUser) {
  const Value weight = Cast(label_, kFloat32);
  const MetricValues values = Evaluate({metrics::Mean("mean of batches", Mean(weight)), metrics::Mean("mean", weight),
                                        metrics::Sum("sum", weight), metrics::Ratio("ratio", Square(weight), weight)});
  // Labels are 0, 2, 1, 0, 1, 1, 0. The mean of batch means is one of all samples.
  EXPECT_NEAR(values["mean of batches"], 5.0 / 7, 1e-7);
  EXPECT_EQ(values["mean"], 5.0 / 7);
  EXPECT_EQ(values["sum"], 5);
  EXPECT_EQ(values["ratio"], 7.0 / 5);
}

// The first axis of such a value is not a batch: it counts as the mean of its batch, for any
// batch's size.
TEST_F(Classified, AveragesMeansOfColumns) {
  const Value above = Cast(Greater(logits_, 1.5), kFloat32);
  const MetricValues values =
      Evaluate({metrics::Mean("of columns", Mean(above, {.axes = {0}})), metrics::Mean("of elements", above)});
  EXPECT_NEAR(values["of columns"], 14.0 / 21, 1e-7);
  EXPECT_EQ(values["of elements"], 14.0 / 21);
}

TEST_F(Classified, RefusesOneClass) {
  metrics::Accuracy(SliceAxis(logits_, 1, 0, 1), label_);
  EXPECT_THAT(std::string(graph_.status().message()), HasSubstr("BinaryAccuracy takes one number for each sample"));
}

TEST(BinaryAccuracy, ComparesTheSignOfTheLogitWithTheTarget) {
  Graph graph;
  Scope scope(graph);
  const Value logits = scope.Input("logits", kFloat32, {Dim("batch"), 1});
  const Value y = scope.Input("y", kFloat32, {Dim("batch"), 1}),
              label = scope.Input("label", kInt32, {Dim("batch"), 1});
  const Metric of_numbers = metrics::BinaryAccuracy(logits, y), of_labels = metrics::BinaryAccuracy(logits, label);
  absl::StatusOr<Session> session = Session::Create(graph, {.threads = 1});
  ASSERT_TRUE(session.ok()) << session.status();
  const float nan = std::numeric_limits<float>::quiet_NaN();
  const Tensor z = Tensor::Of<float>({7, 1}, {2, -2, 0, 1e-3f, -1, nan, nan});  // 0 is no.
  const absl::StatusOr<MetricValues> numbers =
      Evaluate(*session, {of_numbers}, {{logits, z}, {y, Tensor::Of<float>({7, 1}, {1, 0.1f, 0, 0, 0.9f, 0, 1})}}, 3);
  const absl::StatusOr<MetricValues> labels =
      Evaluate(*session, {of_labels}, {{logits, z}, {label, Tensor::Of<int32_t>({7, 1}, {1, 0, 1, 1, 0, 0, 1})}}, 3);
  ASSERT_TRUE(numbers.ok() && labels.ok()) << numbers.status() << labels.status();
  EXPECT_EQ((*numbers)["accuracy"], 3.0 / 7);
  EXPECT_EQ((*labels)["accuracy"], 4.0 / 7);
  metrics::BinaryAccuracy(logits, Squeeze(y, {1}));
  EXPECT_THAT(std::string(graph.status().message()), HasSubstr("numeric targets of the same shape"));
}

TEST_F(Classified, RefusesWhatDoesNotFit) {
  metrics::Accuracy(logits_, logits_);
  EXPECT_THAT(std::string(graph_.status().message()), HasSubstr("floating logits [..., classes] and integer labels"));
  EXPECT_THAT(std::string(graph_.status().message()), HasSubstr("metrics_test.cc"));
}

TEST_F(Classified, RefusesKOutsideTheClasses) {
  metrics::TopKAccuracy(logits_, label_, 4);
  EXPECT_THAT(std::string(graph_.status().message()), HasSubstr("k is 4 and has to be in [1, 3]"));
}

TEST(TokenMetrics, CountTokens) {
  Graph graph;
  Scope scope(graph);
  const Value logits = scope.Input("logits", kFloat32, {Dim("batch"), Dim("length"), 2});
  const Value label = scope.Input("label", kInt64, {Dim("batch"), Dim("length")});
  const std::vector<Metric> metrics = {metrics::Accuracy(logits, label), metrics::TopKAccuracy(logits, label, 2)};
  absl::StatusOr<Session> session = Session::Create(graph, {.threads = 1});
  ASSERT_TRUE(session.ok()) << session.status();
  const data::Dataset data = {{"logits", Tensor::Of<float>({3, 2, 2}, {1, 0, 0, 1, 1, 0, 1, 0, 1, 0, 0, 1})},
                              {"label", Tensor::Of<int64_t>({3, 2}, {0, 1, 1, 1, 0, 0})}};
  const absl::StatusOr<MetricValues> values = Evaluate(*session, metrics, data, 2);
  ASSERT_TRUE(values.ok()) << values.status();
  EXPECT_EQ((*values)["accuracy"], 3.0 / 6);
  EXPECT_EQ((*values)["top-2 accuracy"], 1);
}

// The definitions are those of scikit-learn's mean_squared_error, mean_absolute_error and r2_score,
// computed in Python for
//   y = [[3, -0.5], [2, 7], [7, 8], [1, 1], [-1, 2]], p = [[2.5, 0], [0, 8], [8, 8], [1, 1], [0, 0]].
TEST(RegressionMetrics, FollowTheDefinitionsOfScikitLearn) {
  Graph graph;
  Scope scope(graph);
  const Value p = scope.Input("p", kFloat32, {Dim("batch"), 2}), y = scope.Input("y", kFloat32, {Dim("batch"), 2});
  const std::vector<Metric> metrics = {metrics::MeanSquaredError(p, y), metrics::MeanAbsoluteError(p, y),
                                       metrics::R2(p, y)};
  absl::StatusOr<Session> session = Session::Create(graph, {.threads = 1});
  ASSERT_TRUE(session.ok()) << session.status();
  const data::Dataset data = {{p, Tensor::Of<float>({5, 2}, {2.5, 0, 0, 8, 8, 8, 1, 1, 0, 0})},
                              {y, Tensor::Of<float>({5, 2}, {3, -0.5, 2, 7, 7, 8, 1, 1, -1, 2})}};
  for (int64_t batch_size : {1, 2, 5}) {
    const absl::StatusOr<MetricValues> values = Evaluate(*session, metrics, data, batch_size);
    ASSERT_TRUE(values.ok()) << values.status();
    EXPECT_NEAR((*values)["mse"], 1.15, 1e-12);
    EXPECT_NEAR((*values)["mae"], 0.8, 1e-12);
    EXPECT_NEAR((*values)["r2"], 0.8651689593301435, 1e-12);
  }
}

TEST(RegressionMetrics, HaveAValueForAConstantTarget) {
  Graph graph;
  Scope scope(graph);
  const Value p = scope.Input("p", kFloat64, {Dim("batch")}), y = scope.Input("y", kFloat64, {Dim("batch")});
  const std::vector<Metric> metrics = {metrics::R2(p, y)};
  absl::StatusOr<Session> session = Session::Create(graph, {.threads = 1});
  ASSERT_TRUE(session.ok()) << session.status();
  const Tensor tenths = Tensor::Of<double>({3}, {0.1, 0.1, 0.1}), others = Tensor::Of<double>({3}, {0.1, 0.1, 0.2});
  EXPECT_EQ((*Evaluate(*session, metrics, {{p, tenths}, {y, tenths}}))["r2"], 1);
  EXPECT_EQ((*Evaluate(*session, metrics, {{p, others}, {y, tenths}}))["r2"], 0);
  // A large mean takes no digits of a target that varies: 1 - 0.01/0.02.
  const Tensor far = Tensor::Of<double>({2}, {1e6, 1e6 + 0.2}), near = Tensor::Of<double>({2}, {1e6, 1e6 + 0.1});
  EXPECT_NEAR((*Evaluate(*session, metrics, {{p, near}, {y, far}}))["r2"], 0.5, 0.05);
}

TEST(BalancedClassWeights, FollowTheDefinitionsOfScikitLearn) {
  // compute_class_weight("balanced", classes=[0, 1, 2], y=[0, 0, 0, 1, 2, 2]).
  const absl::StatusOr<Tensor> weights = BalancedClassWeights(Tensor::Of<int32_t>({6}, {0, 0, 0, 1, 2, 2}), 3);
  ASSERT_TRUE(weights.ok()) << weights.status();
  EXPECT_EQ(weights->ToDoubles(), (std::vector<double>{2.0f / 3, 2, 1}));
  EXPECT_THAT(std::string(BalancedClassWeights(Tensor::Of<int32_t>({3}, {0, 0, 2}), 3).status().message()),
              HasSubstr("class 1 has no samples"));
  EXPECT_THAT(std::string(BalancedClassWeights(Tensor::Of<int32_t>({3}, {0, 3, 2}), 3).status().message()),
              HasSubstr("label 3 is outside [0, 3)"));
}

}  // namespace
}  // namespace gradweave
