// The values of losses where they saturate: the loss of a sure and right prediction is small, and
// not lost in rounding.
#include <cmath>
#include <limits>
#include <vector>

#include "gmock/gmock.h"
#include "gradweave/frontend/losses.h"
#include "gradweave/graph/passes/autodiff.h"
#include "gradweave/ops/elementwise.h"
#include "gradweave/ops/reduction.h"
#include "gradweave/ops/scope.h"
#include "gradweave/ops/shape_ops.h"
#include "gradweave/ops/softmax.h"
#include "gradweave/runtime/session/session.h"
#include "gtest/gtest.h"

namespace gradweave {
namespace {

using ::testing::DoubleNear;
using ::testing::ElementsAre;
using ::testing::Pointwise;

constexpr float kInfinity = std::numeric_limits<float>::infinity();

std::vector<double> Results(const Graph& graph, const std::vector<Feed>& feeds, Value value,
                            SessionOptions options = {}) {
  EXPECT_TRUE(graph.status().ok()) << graph.status();
  options.threads = 1;
  absl::StatusOr<Session> session = Session::Create(graph, options);
  EXPECT_TRUE(session.ok()) << session.status();
  absl::StatusOr<std::vector<Tensor>> results = session->Run(feeds, {value});
  EXPECT_TRUE(results.ok()) << results.status();
  return results.ok() ? (*results)[0].ToDoubles() : std::vector<double>();
}

// Each is within this fraction of the expected number.
MATCHER_P(RelativelyNear, fraction, "") {
  const double actual = std::get<0>(arg), expected = std::get<1>(arg);
  return actual == expected || std::abs(actual - expected) <= fraction * std::abs(expected);
}

struct Binary {
  Graph graph;
  Scope scope{graph};
  Value z = scope.Input("z", kFloat32, {Dim("batch")}), t = scope.Input("t", kFloat32, {Dim("batch")});
  Value loss = nn::BinaryCrossEntropyWithLogits(z, t);

  std::vector<double> Of(Value value, const std::vector<float>& logits, const std::vector<float>& targets) {
    const int64_t n = static_cast<int64_t>(logits.size());
    return Results(graph, {{z, Tensor::Of<float>({n}, logits)}, {t, Tensor::Of<float>({n}, targets)}}, value);
  }
};

TEST(BinaryCrossEntropyWithLogits, IsExactWhereThePredictionIsSureAndRight) {
  Binary binary;
  // log(1 + e^-z) to nine digits.
  const std::vector<double> exact = {4.53988992e-05, 3.05902274e-07, 2.06115362e-09};
  const std::vector<float> logits = {10, 15, 20};
  for (size_t i = 0; i < exact.size(); ++i) {
    EXPECT_THAT(binary.Of(binary.loss, {logits[i]}, {1}),
                Pointwise(RelativelyNear(1e-6), std::vector<double>{exact[i]}));
    EXPECT_THAT(binary.Of(binary.loss, {-logits[i]}, {0}),
                Pointwise(RelativelyNear(1e-6), std::vector<double>{exact[i]}));
  }
}

TEST(BinaryCrossEntropyWithLogits, OfInfiniteLogitsIsZeroOrInfinite) {
  Binary binary;
  EXPECT_THAT(binary.Of(binary.loss, {kInfinity}, {1}), ElementsAre(0));
  EXPECT_THAT(binary.Of(binary.loss, {-kInfinity}, {0}), ElementsAre(0));
  EXPECT_THAT(binary.Of(binary.loss, {kInfinity}, {0}), ElementsAre(kInfinity));
  EXPECT_THAT(binary.Of(binary.loss, {-kInfinity}, {1}), ElementsAre(kInfinity));
  EXPECT_THAT(binary.Of(binary.loss, {kInfinity}, {0.25f}), ElementsAre(kInfinity));
}

TEST(BinaryCrossEntropyWithLogits, HasExactFirstAndSecondDerivativesWhereItSaturates) {
  Binary binary;
  const Value dz = Gradients({Sum(SigmoidCrossEntropy(binary.z, binary.t))}, {binary.z})[0];
  const Value dzz = Gradients({Sum(dz)}, {binary.z})[0];
  const std::vector<float> z = {20, -20, 20, -20, kInfinity, kInfinity, -kInfinity, 0, 0};
  const std::vector<float> t = {1, 0, 0, 1, 1, 0, 1, 1, 0.5f};
  const double small = 2.06115362e-09;
  EXPECT_THAT(binary.Of(dz, z, t),
              Pointwise(RelativelyNear(1e-6), std::vector<double>{-small, small, 1, -1, 0, 1, -1, -0.5, 0}));
  EXPECT_THAT(binary.Of(dzz, {20, -20, kInfinity, kInfinity, 0}, {1, 0, 1, 0, 0.5f}),
              Pointwise(RelativelyNear(1e-6), std::vector<double>{small, small, 0, 0, 0.25}));
}

// The losses of one logit above the others, for each way in which the CPU computes them.
struct Dominated {
  std::vector<float> logits;
  double loss;  // log(1 + the sum of e^-(the distance to the largest)).
};
const Dominated kDominated[] = {
    {{20, 0}, 2.06115362e-09}, {{0, -15}, 3.05902274e-07}, {{1000, 990, 985}, 4.57047876e-05},
    {{0, -1}, 0.313261688},    {{5, 5}, 0.693147181},      {{0, -kInfinity}, 0},
};

TEST(SoftmaxCrossEntropy, IsExactWhereOneLogitDominates) {
  for (const Dominated& row : kDominated) {
    Graph graph;
    Scope scope(graph);
    const int64_t n = static_cast<int64_t>(row.logits.size());
    const Value x = scope.Input("x", kFloat32, {Dim("batch"), n}), label = scope.Input("label", kInt32, {Dim("batch")});
    const Value loss = nn::SoftmaxCrossEntropy(x, label);
    const std::vector<Feed> feeds = {{x, Tensor::Of<float>({1, n}, row.logits)},
                                     {label, Tensor::Of<int32_t>({1}, {0})}};
    const auto is_exact = Pointwise(RelativelyNear(1e-6), std::vector<double>{row.loss});
    EXPECT_THAT(Results(graph, feeds, loss, {.batch_tiles = BatchTiles::kNever}), is_exact);
    EXPECT_THAT(Results(graph, feeds, loss, {.batch_tiles = BatchTiles::kAlways}), is_exact);
  }
}

TEST(LogSoftmax, IsExactWhereOneLogitDominates) {
  for (const Dominated& row : kDominated) {
    Graph graph;
    Scope scope(graph);
    const int64_t n = static_cast<int64_t>(row.logits.size());
    const Value x = scope.Input("x", kFloat32, {n});
    const std::vector<Feed> feeds = {{x, Tensor::Of<float>({n}, row.logits)}};
    EXPECT_THAT(Results(graph, feeds, Neg(LogSoftmax(x)))[0], DoubleNear(row.loss, 1e-6 * row.loss));
    if (row.logits[0] != 0) continue;  // The largest logit is 0, and adds nothing to the loss.
    const Value columns = LogSumExp(BroadcastTo(ExpandDims(x, {1}), {n, 2}), {.axes = {0}});
    EXPECT_THAT(Results(graph, feeds, LogSumExp(x))[0], DoubleNear(row.loss, 1e-6 * row.loss));
    EXPECT_THAT(Results(graph, feeds, columns)[0], DoubleNear(row.loss, 1e-6 * row.loss));
  }
}

TEST(Comparisons, OfValuesHaveOperators) {
  Graph graph;
  Scope scope(graph);
  const Value a = scope.Constant(Tensor::Of<float>({3}, {1, 2, 3})),
              b = scope.Constant(Tensor::Of<float>({3}, {2, 2, 2}));
  EXPECT_THAT(Results(graph, {}, a < b), ElementsAre(1, 0, 0));
  EXPECT_THAT(Results(graph, {}, a <= b), ElementsAre(1, 1, 0));
  EXPECT_THAT(Results(graph, {}, a > b), ElementsAre(0, 0, 1));
  EXPECT_THAT(Results(graph, {}, a >= b), ElementsAre(0, 1, 1));
  EXPECT_THAT(Results(graph, {}, 2 < a), ElementsAre(0, 0, 1));
  EXPECT_THAT(Results(graph, {}, a > 1 && a < 3), ElementsAre(0, 1, 0));
  EXPECT_THAT(Results(graph, {}, a < 2 || !(a < 3)), ElementsAre(1, 0, 1));
  EXPECT_TRUE(a == a);
  EXPECT_FALSE(a == b);
}

}  // namespace
}  // namespace gradweave
