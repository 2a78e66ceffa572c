// Cases that the harness does not run: functions without operands, draws, gradients at infinity,
// and indices that are out of range.
#include <cmath>
#include <limits>
#include <string>
#include <vector>

#include "gmock/gmock.h"
#include "gradweave/gradweave.h"
#include "gradweave/graph/check.h"
#include "gtest/gtest.h"
#include "tests/test_device.h"

namespace gradweave {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

absl::StatusOr<std::vector<double>> RunOnce(const Graph& graph, const std::vector<Feed>& feeds, Value value) {
  GW_RETURN_IF_ERROR(graph.status());
  GW_ASSIGN_OR_RETURN(Session session, Session::Create(graph, {.device = TestDevice(), .threads = 1}));
  GW_ASSIGN_OR_RETURN(std::vector<Tensor> results, session.Run(feeds, {value}));
  return results[0].ToDoubles();
}

std::vector<double> Results(const Graph& graph, const std::vector<Feed>& feeds, Value value) {
  const absl::StatusOr<std::vector<double>> results = RunOnce(graph, feeds, value);
  EXPECT_TRUE(results.ok()) << results.status();
  return results.ok() ? *results : std::vector<double>();
}

TEST(Range, CountsInAnyDTypeByAnyStep) {
  Graph graph;
  Scope scope(graph);
  const Value plain = Range(scope, 3);
  EXPECT_EQ(plain.type().ToString(), "int64[3]");
  EXPECT_THAT(Results(graph, {}, plain), ElementsAre(0, 1, 2));
  EXPECT_THAT(Results(graph, {}, Range(scope, 4, {.start = 5, .step = -2, .dtype = kInt32})), ElementsAre(5, 3, 1, -1));
  EXPECT_THAT(Results(graph, {}, Range(scope, 3, {.start = 0.5, .step = 0.25, .dtype = kFloat64})),
              ElementsAre(0.5, 0.75, 1));
  EXPECT_THAT(Results(graph, {}, Range(scope, 0)), ElementsAre());
  // Each element is rounded once, and not the sum of rounded steps.
  EXPECT_EQ(Results(graph, {}, Range(scope, 1001, {.step = 0.1, .dtype = kFloat64}))[1000], 1000 * 0.1);
}

// Large ranges are computed in the run, with the same numbers.
TEST(Range, IsNoConstantWhereItIsLarge) {
  constexpr int64_t kSize = (int64_t{1} << 20) + 2;
  Graph graph;
  Scope scope(graph);
  const Value whole = Range(scope, kSize, {.dtype = kInt32});
  const Value steps = Range(scope, kSize, {.start = 0.5, .step = 0.1, .dtype = kFloat32});
  for (const Node& node : graph.nodes()) {
    if (node.op->kind == OpKind::kConstant) {
      EXPECT_LT(node.outputs[0].byte_size(), 64) << node.display_name();
    }
  }
  const std::vector<double> integers = Results(graph, {}, whole), numbers = Results(graph, {}, steps);
  ASSERT_EQ(integers.size(), kSize);
  ASSERT_EQ(numbers.size(), kSize);
  for (int64_t i = 0; i < kSize; ++i) {
    ASSERT_EQ(integers[i], i);
    ASSERT_EQ(numbers[i], static_cast<float>(0.5 + static_cast<double>(i) * 0.1)) << i;
  }
  const int line = __LINE__ + 1;
  EXPECT_FALSE(Range(scope, int64_t{1} << 60).valid());
  EXPECT_THAT(std::string(graph.status().message()), HasSubstr("functions_test.cc:" + std::to_string(line)));
}

TEST(Range, HasTheSizeOfASymbol) {
  Graph graph;
  Scope scope(graph);
  const Value x = scope.Input("x", kFloat32, {Dim("n")});
  const std::vector<Feed> feeds = {{x, Tensor(kFloat32, {4})}};
  const Value range = Range(scope, Dim("n"), {.start = 1, .step = 2, .dtype = kInt32});
  EXPECT_EQ(range.type().ToString(), "int32[n]");
  EXPECT_THAT(Results(graph, feeds, range + Cast(x, kInt32)), ElementsAre(1, 3, 5, 7));
}

TEST(TriangleMask, IsTrueOnOneSideOfADiagonal) {
  Graph graph;
  Scope scope(graph);
  EXPECT_THAT(Results(graph, {}, TriangleMask(scope, 2, 3)), ElementsAre(1, 0, 0, 1, 1, 0));
  EXPECT_THAT(Results(graph, {}, TriangleMask(scope, 2, 3, {.upper = true, .diagonal = 1})),
              ElementsAre(0, 1, 1, 0, 0, 1));
  const Value x = scope.Input("x", kFloat32, {Dim("n")});
  const Value causal = TriangleMask(scope, Dim("n"), Dim("n")) && ExpandDims(x >= 0, {1});
  EXPECT_THAT(Results(graph, {{x, Tensor(kFloat32, {2})}}, causal), ElementsAre(1, 0, 1, 1));
}

// Each share of the draws is within four standard deviations of its probability.
TEST(RandomCategorical, DrawsWithTheProbabilitiesOfSoftmax) {
  for (const DType dtype : {kFloat32, kFloat64}) {
    Graph graph;
    Scope scope(graph);
    const double never = -std::numeric_limits<double>::infinity();
    const std::vector<double> logits = {std::log(0.5) + 3, never, std::log(0.3) + 3, std::log(0.2) + 3};
    const int64_t n = 20000;
    const Value rows = BroadcastTo(Cast(scope.Constant(Tensor::Of<double>({4}, logits)), dtype), {n, 2, 4});
    const Value drawn = RandomCategorical(rows);
    ASSERT_EQ(drawn.type().ToString(), "int64[20000,2]");
    std::vector<double> share(4, 0);
    for (const double i : Results(graph, {}, drawn)) share[static_cast<size_t>(i)] += 1.0 / (2 * n);
    EXPECT_NEAR(share[0], 0.5, 4 * std::sqrt(0.5 * 0.5 / (2 * n)));
    EXPECT_EQ(share[1], 0);
    EXPECT_NEAR(share[2], 0.3, 4 * std::sqrt(0.3 * 0.7 / (2 * n)));
    EXPECT_NEAR(share[3], 0.2, 4 * std::sqrt(0.2 * 0.8 / (2 * n)));
  }
}

TEST(RandomCategorical, DrawsTheSameForTheSameSeed) {
  Graph graph;
  Scope scope(graph);
  const Value logits = scope.Full(0, {100, 5});
  const Value a = RandomCategorical(logits, 7), b = RandomCategorical(logits, 7), c = RandomCategorical(logits, 8);
  EXPECT_EQ(Results(graph, {}, a), Results(graph, {}, b));
  EXPECT_NE(Results(graph, {}, a), Results(graph, {}, c));
}

TEST(RandomCategorical, RefusesWhatHasNoProbabilities) {
  Graph graph;
  Scope scope(graph);
  RandomCategorical(scope.Full(1, {3}, kInt32));
  EXPECT_THAT(std::string(graph.status().message()),
              HasSubstr("RandomCategorical: the logits have to be float32 or float64 [..., classes]"));
}

// The incoming gradient is infinite in these places, and its product with 0 would be NaN.
TEST(Gradients, AreZeroWhereAFunctionCutsThem) {
  const struct {
    const char* name;
    Value (*function)(const Value& x);  // A function of x [1].
    double x;
  } rows[] = {
      {"maximum", [](const Value& x) { return Sqrt(Maximum(x, 0)); }, -1},
      {"maximum of the second operand", [](const Value& x) { return Sqrt(Maximum(0, x)); }, -1},
      {"power of a maximum", [](const Value& x) { return Pow(Maximum(x, 0), 0.5); }, -1},
      {"quotient of a maximum", [](const Value& x) { return 1 / Maximum(x, 0); }, -1},
      {"minimum", [](const Value& x) { return Sqrt(0 - Minimum(x, 0)); }, 1},
      {"minimum of the second operand", [](const Value& x) { return Sqrt(0 - Minimum(0, x)); }, 1},
      {"clip below", [](const Value& x) { return Sqrt(Clip(x, 0, 10)); }, -1},
      {"clip above", [](const Value& x) { return Log(Clip(x, -10, 0)); }, 1},
      {"where", [](const Value& x) { return Sqrt(Where(x > 0, x, 0)); }, -1},
      {"relu", [](const Value& x) { return Sqrt(Relu(x)); }, -1},
      {"hard swish", [](const Value& x) { return Sqrt(HardSwish(x)); }, -4},
      {"hard sigmoid", [](const Value& x) { return Sqrt(HardSigmoid(x)); }, -4},
      {"absolute value", [](const Value& x) { return Sqrt(Abs(x)); }, 0},
      {"largest element",
       [](const Value& x) {
         return Sqrt(Max(Concat({x, ZerosLike(x)}, 0)));
       },
       -1},
      {"smallest element",
       [](const Value& x) {
         return Log(Min(Concat({x, ZerosLike(x)}, 0)));
       },
       1},
      {"largest of a window",
       [](const Value& x) {
         return Sqrt(MaxPool2D(Reshape(Concat({x, ZerosLike(x)}, 0), {1, 1, 1, 2}), {.window = {1, 2}}));
       },
       -1},
      {"norm",
       [](const Value& x) {
         return Norm(Concat({x, x}, 0));
       },
       0},
      {"root of a norm",
       [](const Value& x) {
         return Sqrt(Norm(Concat({x, x}, 0)));
       },
       0},
  };
  for (DType dtype : {kFloat32, kFloat64}) {
    for (const auto& row : rows) {
      Graph graph;
      Scope scope(graph);
      const Value x = scope.Input("x", dtype, {1});
      const std::vector<Feed> feeds = {{x, Tensor::Of<double>({1}, {row.x}).Cast(dtype)}};
      const Value gradient = Gradients({Sum(row.function(x))}, {x})[0];
      EXPECT_THAT(Results(graph, feeds, gradient), ElementsAre(0)) << row.name << " " << DTypeName(dtype);
    }
  }
}

// The sum of e^x over a row of -infinity is 0, and so is its derivative. A NaN would spread to all
// that uses x.
TEST(LogSumExp, HasNoGradientWhereAllElementsAreMinusInfinity) {
  Graph graph;
  Scope scope(graph);
  const double none = -std::numeric_limits<double>::infinity();
  const Value x = scope.Constant(Tensor::Of<double>({3, 2}, {none, none, none, 1, 0, std::log(3)}));
  const Value y = LogSumExp(x, {.axes = {1}});
  const Value gradient = Gradients({y}, {x})[0];
  EXPECT_THAT(Results(graph, {}, y), ElementsAre(none, 1, testing::DoubleNear(std::log(4), 1e-15)));
  const auto quarter = testing::DoubleNear(0.25, 1e-15), three = testing::DoubleNear(0.75, 1e-15);
  EXPECT_THAT(Results(graph, {}, gradient), ElementsAre(0, 0, 0, 1, quarter, three));
  const auto second = testing::DoubleNear(-0.1875, 1e-15), other = testing::DoubleNear(0.1875, 1e-15);
  EXPECT_THAT(Results(graph, {}, Gradients({SliceAxis(gradient, 1, 0, 1)}, {x})[0]),
              ElementsAre(0, 0, 0, 0, other, second));
}

// The elements of other rows are neighbours in memory.
TEST(TakeAlong, RefusesIndicesThatWouldReachAnotherRow) {
  Graph graph;
  Scope scope(graph);
  const Value x = scope.Input("x", kFloat32, {2, 3}), index = scope.Input("index", kInt32, {2, 1});
  const Value taken = TakeAlong(x, index, 1);
  for (const int32_t wrong : {3, -1, 100}) {
    const absl::StatusOr<std::vector<double>> results =
        RunOnce(graph, {{x, Tensor(kFloat32, {2, 3})}, {index, Tensor::Of<int32_t>({2, 1}, {0, wrong})}}, taken);
    EXPECT_EQ(results.status().code(), absl::StatusCode::kOutOfRange) << wrong;
    EXPECT_THAT(std::string(results.status().message()), HasSubstr("functions_test.cc")) << wrong;
  }
}

}  // namespace
}  // namespace gradweave
