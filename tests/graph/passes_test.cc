// Passes give the same results with fewer nodes. Gradients work for graphs of every form.
#include "gradweave/graph/passes/passes.h"

#include <algorithm>
#include <chrono>
#include <cmath>
#include <limits>

#include "gmock/gmock.h"
#include "gradweave/gradweave.h"
#include "gradweave/graph/partition/batch_regions.h"
#include "gradweave/graph/print.h"
#include "gradweave/runtime/cpu/kernels.h"
#include "gradweave/runtime/plan/lower.h"
#include "gtest/gtest.h"

namespace gradweave {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

int CountOps(const Graph& graph, absl::string_view op) {
  int count = 0;
  for (const Node& node : graph.nodes()) count += node.op->name == op;
  return count;
}

absl::StatusOr<std::vector<Tensor>> Evaluate(const Node& node, absl::Span<const Tensor> operands) {
  return EvaluateNode(CpuKernels(), node, operands);
}

std::vector<double> RunOne(const Graph& graph, const std::vector<Feed>& feeds, const Value& fetch) {
  absl::StatusOr<Session> session = Session::Create(graph, {.threads = 1});
  EXPECT_TRUE(session.ok()) << session.status();
  absl::StatusOr<std::vector<Tensor>> results = session->Run(feeds, {fetch});
  EXPECT_TRUE(results.ok()) << results.status();
  return results.ok() ? (*results)[0].ToDoubles() : std::vector<double>();
}

struct Fixture {
  Graph graph;
  Scope scope{graph};
  Value x = scope.Input("x", kFloat32, {Dim("n"), 3});

  Graph Apply(const std::function<absl::StatusOr<Graph>(const Graph&)>& pass, const Value& output) {
    graph.SetOutput("y", {output});
    absl::StatusOr<Graph> result = pass(graph);
    EXPECT_TRUE(result.ok()) << result.status();
    EXPECT_TRUE(VerifyGraph(*result).ok());
    return *std::move(result);
  }
};

TEST(EliminateDeadNodes, KeepsWhatOutputsNeed) {
  Fixture f;
  const Value needed = Exp(f.x);
  Sin(needed);
  const Graph result = f.Apply(EliminateDeadNodes, needed);
  EXPECT_EQ(result.num_nodes(), 2);
}

TEST(EliminateCommonSubexpressions, MergesEqualNodesInEitherOrder) {
  Fixture f;
  const Value a = Exp(f.x), b = Sin(f.x);
  const Graph result = f.Apply(EliminateCommonSubexpressions, Mul(Add(a, b), Add(Sin(f.x), Exp(f.x))));
  EXPECT_EQ(CountOps(result, "Exp"), 1);
  EXPECT_EQ(CountOps(result, "Sin"), 1);
  EXPECT_EQ(CountOps(result, "Add"), 1);
}

TEST(EliminateCommonSubexpressions, KeepsRandomNodesAndDifferentAttributesApart) {
  Fixture f;
  const Value random =
      Sub(RandomUniform(f.scope, {2}, 0, 1, {.seed = 1}), RandomUniform(f.scope, {2}, 0, 1, {.seed = 1}));
  const Graph result = f.Apply(EliminateCommonSubexpressions, random);
  EXPECT_EQ(CountOps(result, "RandomUniform"), 2);
  const Graph sums = f.Apply(EliminateCommonSubexpressions, Add(Sum(f.x), Reshape(Sum(f.x, {.keep_dims = true}), {})));
  EXPECT_EQ(CountOps(sums, "Sum"), 2);
}

TEST(FoldConstants, ComputesWhatDoesNotDependOnInputs) {
  Fixture f;
  const Value two = Exp(f.scope.Constant(Tensor::Scalar(0.0f))) + 1;
  const Graph result =
      EliminateDeadNodes(f.Apply([](const Graph& g) { return FoldConstants(g, Evaluate); }, f.x * two)).value();
  EXPECT_EQ(CountOps(result, "Exp"), 0);
  EXPECT_EQ(CountOps(result, "Constant"), 1);
}

TEST(FoldConstants, LeavesLargeResultsToTheRun) {
  Fixture f;
  const Graph result = f.Apply([](const Graph& g) { return FoldConstants(g, Evaluate); },
                               BroadcastTo(f.scope.Constant(Tensor::Scalar(1.0f)), {1000, 1000}));
  EXPECT_EQ(CountOps(result, "BroadcastTo"), 1);
}

TEST(Simplify, DropsWhatChangesNoBit) {
  Fixture f;
  EXPECT_EQ(f.Apply(Simplify, Neg(Neg(f.x * 1))).num_nodes(),
            // The input, its negation, and the earlier constant, which nothing uses any more.
            3);
  EXPECT_EQ(CountOps(f.Apply(Simplify, Transpose(Transpose(f.x))), "Transpose"), 1);
  EXPECT_EQ(CountOps(f.Apply(Simplify, Add(f.x, Neg(Exp(f.x)))), "Sub"), 1);
}

// x*0 and x - x are NaN for infinity, and x + 0 turns -0 into 0, so all of them must stay.
TEST(Simplify, KeepsWhatIeeeNumbersNeed) {
  Fixture f;
  EXPECT_EQ(CountOps(f.Apply(Simplify, f.x * 0), "Mul"), 1);
  EXPECT_EQ(CountOps(f.Apply(Simplify, f.x + 0), "Add"), 1);
  EXPECT_EQ(CountOps(f.Apply(Simplify, f.x - f.x), "Sub"), 1);
  const double infinity = std::numeric_limits<double>::infinity();
  const Value y = f.x * 0;
  EXPECT_TRUE(
      std::isnan(RunOne(f.graph, {{f.x, Tensor::Of<float>({1, 3}, {static_cast<float>(infinity), 0, 0})}}, y)[0]));
}

TEST(FlattenProducts, MakesOneProductOfABatchAndOfItsGradient) {
  Fixture f;
  const Value a = f.scope.Input("a", kFloat32, {Dim("n"), 4, 3});
  const Value w = f.scope.Constant(Tensor::Of<float>({3, 2}, {1, 2, 3, 4, 5, 6}));
  const Value y = MatMul(a, w);
  const Value dw = Gradients({Sum(Square(y))}, {w})[0];
  const Graph result = f.Apply([](const Graph& graph) { return EliminateDeadNodes(*FlattenProducts(graph)); }, dw);
  int products = 0;
  for (const Node& node : result.nodes()) {
    if (node.op->name != "MatMul") continue;
    ++products;
    EXPECT_EQ(node.outputs[0].shape.rank(), 2) << node.outputs[0].ToString();
  }
  EXPECT_EQ(products, 2);
  // d/dw of the sum of (a w)^2 is 2 a^T a w, summed over the batch.
  Tensor ones(kFloat32, {5, 4, 3});
  for (float& x : ones.mutable_values<float>()) x = 1;
  EXPECT_THAT(RunOne(f.graph, {{a, ones}}, dw), ElementsAre(360, 480, 360, 480, 360, 480));
}

// Both kinds of values are read before and after a peak: a function of the input, and random
// numbers.
TEST(Rematerialize, ComputesAgainWhatLivesOverThePeakButNoRandomNumbers) {
  Fixture f;
  const Value x = f.scope.Input("wide", kFloat32, {100});
  const Value computed = Exp(x), random = RandomUniform(f.scope, {100});
  Value y = Concat({computed, random, computed, random}, 0);  // The peak.
  y = Sum(Square(y));
  const Value result = y + Sum(computed * y * random);
  const auto pass = [](int64_t budget) {
    return [budget](const Graph& graph) { return Rematerialize(graph, budget); };
  };
  const Graph free = f.Apply(pass(1 << 20), result);
  EXPECT_EQ(CountOps(free, "Exp"), 1);
  // The memory at the square: 1,600 bytes of its own and of the concatenation, and 800 of the two
  // values.
  const Graph tight = f.Apply(pass(3600), result);
  EXPECT_EQ(CountOps(tight, "Exp"), 2);
  EXPECT_EQ(CountOps(tight, "RandomUniform"), 1);
  EXPECT_EQ(CountOps(tight, "Concat"), 1);
}

// The graph has all large values first, and then the nodes that make them small.
TEST(Rematerialize, FreesEarlyBeforeItComputesAgain) {
  Fixture f;
  const Value x = f.scope.Input("wide", kFloat32, {100});
  std::vector<Value> large;
  for (int i = 0; i < 8; ++i) large.push_back(Exp(x * (i + 1)));
  // A source behind them, such as a learning rate, delays no reader.
  const Value scale = f.scope.Input("scale", kFloat32, {});
  Value y = Sum(large[0] * scale);
  for (int i = 1; i < 8; ++i) y = y + Sum(large[i] * scale);
  const Graph tight = f.Apply([](const Graph& graph) { return Rematerialize(graph, 1000); }, y);
  EXPECT_EQ(CountOps(tight, "Exp"), 8);
  int live = 0, most = 0;
  for (const Node& node : tight.nodes()) {
    live += node.op->name == "Exp" ? 1 : node.op->name == "Sum" ? -1 : 0;
    most = std::max(most, live);
  }
  EXPECT_EQ(most, 1);
}

// An update that ran before the last read of its variable could not take the variable's place.
TEST(Rematerialize, UpdatesAVariableBehindItsReaders) {
  Fixture f;
  const Value x = f.scope.Input("wide", kFloat32, {100});
  const Value w = f.scope.Variable("weights", RandomUniform(f.scope, {100}));
  const Value gradient = Exp(x), rest = Exp(x * 2);
  const Value read = Tanh(w / rest);
  f.graph.SetOutput("step", {Assign(w, w - gradient)});
  f.graph.SetOutput("y", {Sum(read)});
  const absl::StatusOr<Graph> tight = Rematerialize(f.graph, 1100);
  ASSERT_TRUE(tight.ok()) << tight.status();
  // The first of each; others may be repeated.
  auto position_of = [&](absl::string_view op) {
    const auto is_op = [&](const Node& node) { return node.op->name == op; };
    return std::find_if(tight->nodes().begin(), tight->nodes().end(), is_op) - tight->nodes().begin();
  };
  EXPECT_LT(position_of("Div"), position_of("Sub")) << GraphToText(*tight);
}

// Returns the op names of a region's nodes.
std::vector<std::string> OpsOf(const Graph& graph, const BatchRegion& region) {
  std::vector<std::string> ops;
  for (const BatchRegion::Member& member : region.nodes) ops.push_back(graph.node(member.node).op->name);
  return ops;
}

TEST(FindBatchRegions, EndWhereSamplesMix) {
  Fixture f;
  // Softmax over the batch needs all samples, so its readers form another region.
  const Value mixed = Softmax(Exp(f.x), 0);
  const Value y = Sum(Sigmoid(mixed) * f.x, {.axes = {0}});
  f.graph.SetOutput("y", {y});
  const absl::StatusOr<Graph> graph = Specialize(f.graph, {{"n", 40}});
  ASSERT_TRUE(graph.ok());
  const BatchPartition partition = FindBatchRegions(*graph, 2, [](const BatchNode&) { return true; });
  ASSERT_EQ(partition.regions.size(), 2u);
  EXPECT_THAT(OpsOf(*graph, partition.regions[0]), ElementsAre("Exp"));
  EXPECT_THAT(OpsOf(*graph, partition.regions[1]), ElementsAre("Sigmoid", "Mul", "Sum"));
  EXPECT_EQ(partition.regions[1].batch, 40);
  ASSERT_EQ(partition.regions[1].outputs.size(), 1u);
  EXPECT_TRUE(partition.regions[1].outputs[0].summed);
  // The order has the first region, the softmax and the second region.
  const OrderItem first{OrderItem::Kind::kBatchRegion, 0}, second{OrderItem::Kind::kBatchRegion, 1};
  EXPECT_EQ(std::count(partition.order.begin(), partition.order.end(), first), 1);
  EXPECT_LT(std::find(partition.order.begin(), partition.order.end(), first),
            std::find(partition.order.begin(), partition.order.end(), second));
}

TEST(FindBatchRegions, NeedEnoughSamples) {
  Fixture f;
  f.graph.SetOutput("y", {Exp(f.x)});
  const absl::StatusOr<Graph> graph = Specialize(f.graph, {{"n", 4}});
  ASSERT_TRUE(graph.ok());
  EXPECT_TRUE(FindBatchRegions(*graph, 5, [](const BatchNode&) { return true; }).regions.empty());
  EXPECT_EQ(FindBatchRegions(*graph, 4, [](const BatchNode&) { return true; }).regions.size(), 1u);
}

TEST(Specialize, TellsWhereSizesDoNotFit) {
  Graph graph;
  Scope scope(graph);
  const Value x = scope.Input("x", kFloat32, {Dim("n")});
  const Value y = SliceAxis(x, 0, 2, Dim("n"));
  absl::StatusOr<Session> session = Session::Create(graph);
  EXPECT_THAT(std::string(session->Run({{x, Tensor(kFloat32, {1})}}, {y}).status().message()),
              HasSubstr("Slice: start 2 and limit 1"));
}

TEST(Gradients, OfSharedSubgraphsAreAddedUp) {
  Graph graph;
  Scope scope(graph);
  const Value x = scope.Input("x", kFloat64, {});
  const Value shared = Square(x);
  const Value gradient = Gradients({shared * shared + Sin(shared)}, {x})[0];
  const double at = 1.5;
  EXPECT_NEAR(RunOne(graph, {{x, Tensor::Scalar(at)}}, gradient)[0], 4 * at * at * at + std::cos(at * at) * 2 * at,
              1e-12);
}

TEST(Gradients, OfADoubledValueStayLinear) {
  Graph graph;
  Scope scope(graph);
  const Value x = scope.Input("x", kFloat64, {});
  Value y = x;
  for (int i = 0; i < 64; ++i) y = y + y;
  const int before = graph.num_nodes();
  const Value gradient = Gradients({y}, {x})[0];
  EXPECT_LE(graph.num_nodes() - before, 64 + 2);
  EXPECT_EQ(RunOne(graph, {{x, Tensor::Scalar(1.0)}}, gradient)[0], std::ldexp(1.0, 64));
}

TEST(Gradients, TakesSeveralYsWithTheirOwnGradients) {
  Graph graph;
  Scope scope(graph);
  const Value x = scope.Input("x", kFloat64, {2});
  const Value weights = scope.Constant(Tensor::Of<double>({2}, {10, 100}));
  const Value gradient = Gradients({Square(x), x * 3}, {x}, {weights, OnesLike(x)})[0];
  EXPECT_THAT(RunOne(graph, {{x, Tensor::Of<double>({2}, {1, 2})}}, gradient), ElementsAre(23, 403));
}

TEST(Gradients, OfUnreachableXsAreZerosOrAnError) {
  Graph graph;
  Scope scope(graph);
  const Value x = scope.Input("x", kFloat64, {2}), other = scope.Input("other", kFloat64, {2});
  const Value zeros = Gradients({Sum(x)}, {other})[0];
  EXPECT_THAT(RunOne(graph, {{other, Tensor(kFloat64, {2})}}, zeros), ElementsAre(0, 0));
  EXPECT_FALSE(Gradients({Sum(x)}, {other}, {}, {.unreachable = GradientOptions::kError})[0].valid());
  EXPECT_THAT(std::string(graph.status().message()),
              HasSubstr("no gradient reaches other, float64[2]: sum_6 does not depend on other"));
  EXPECT_THAT(std::string(graph.status().message()), HasSubstr("passes_test.cc"));
}

TEST(Gradients, NamesThePathThroughAnOpWithoutOne) {
  OpRegistry registry;
  RegisterCoreOps(registry);
  registry.Add({.name = "Opaque",
                .doc = "x.",
                .operands = {{"x", "Any shape."}},
                .infer = [](const OpView& op) -> absl::StatusOr<TensorTypes> { return TensorTypes{op.operand(0)}; }});
  Graph graph;
  Scope scope(graph, registry);
  const Value w = scope.Variable("w", scope.Constant(Tensor(kFloat32, {2})));
  const Value loss = Sum(AddOp("Opaque", {Operand(Exp(w))}));
  EXPECT_FALSE(Gradients({loss}, {w})[0].valid());
  const std::string message(graph.status().message());
  EXPECT_THAT(message, HasSubstr("Opaque is not differentiable"));
  EXPECT_THAT(message, HasSubstr("sum_4 <- opaque_3 <- exp_2 <- w"));
}

TEST(Gradients, OfAHundredThousandNodesTakeLessThanASecond) {
  Graph graph;
  Scope scope(graph);
  const Value x = scope.Input("x", kFloat32, {2});
  Value y = x;
  for (int i = 0; i < 100000; ++i) y = Sin(y);
  const auto start = std::chrono::steady_clock::now();
  EXPECT_TRUE(Gradients({y}, {x})[0].valid());
  // The limit allows for sanitizers and busy machines. Quadratic time would take minutes.
  EXPECT_LT(std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count(), 10);
  EXPECT_TRUE(VerifyGraph(graph).ok());
  EXPECT_FALSE(GraphToText(graph).empty());
}

TEST(Dim, ArithmeticHasOneForm) {
  const Dim n("n"), h("h");
  EXPECT_EQ((n * Dim(2) + n).ToString(), "3*n");
  EXPECT_EQ(n - n, Dim(0));
  EXPECT_EQ(FloorDivide(n * Dim(4) + Dim(3), 2).ToString(), "2*n + 1");
  EXPECT_EQ((FloorDivide(h - Dim(3), 2) + Dim(1)).ToString(), "floor((h + 1)/2) - 1");
  EXPECT_EQ((FloorDivide(h - Dim(3), 2) + Dim(1)).Substitute({{"h", 28}}), Dim(13));
  EXPECT_EQ(DivideExactly(n * h * Dim(6), n * Dim(3)), h * Dim(2));
  EXPECT_EQ(DivideExactly(n + Dim(1), n), std::nullopt);
  for (const Dim& dim : {n * h + Dim(7), FloorDivide(n * h - Dim(5), 3) * Dim(-2) + h})
    EXPECT_EQ(DimFromString(dim.ToString()), dim) << dim.ToString();
  for (const char* text : {"", "n+", "2**n", "floor((n)/0)", "n m", "9x"})
    EXPECT_EQ(DimFromString(text), std::nullopt) << text;
}

}  // namespace
}  // namespace gradweave
