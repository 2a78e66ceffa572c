// Loops and branches as sessions run them: what bodies may read, which part runs, what gradients
// store, and where runs stop.
#include <chrono>
#include <cmath>
#include <functional>
#include <string>
#include <vector>

#include "gmock/gmock.h"
#include "gradweave/gradweave.h"
#include "gradweave/graph/body.h"
#include "gradweave/graph/passes/bodies.h"
#include "gradweave/runtime/plan/lower.h"
#include "gtest/gtest.h"

namespace gradweave {
namespace {

using ::testing::ContainsRegex;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using Values = std::vector<Value>;

absl::StatusOr<std::vector<Tensor>> RunGraph(const Graph& graph, const std::vector<Feed>& feeds,
                                             const std::vector<Fetch>& fetches, const RunOptions& options = {}) {
  GW_ASSIGN_OR_RETURN(Session session, Session::Create(graph, {.threads = 2}));
  return session.Run(feeds, fetches, options);
}

std::vector<double> RunOne(const Graph& graph, const std::vector<Feed>& feeds, const Value& fetch) {
  const absl::StatusOr<std::vector<Tensor>> results = RunGraph(graph, feeds, {fetch});
  EXPECT_TRUE(results.ok()) << results.status();
  return results.ok() ? (*results)[0].ToDoubles() : std::vector<double>();
}

std::vector<const Node*> Scans(const Graph& graph) {
  std::vector<const Node*> scans;
  for (const Node& node : graph.nodes()) {
    if (node.op->name == "Scan") scans.push_back(&node);
  }
  return scans;
}

// The sum of the products of x, [time, 2], with a value.
Value SumOfProducts(const Value& x, const Value& factor) {
  Scope scope(*x.graph());
  return Scan({scope.Full(0, {2})}, {x},
              [&](const Values& h, const Values& v) { return ScanStep{{h[0] + v[0] * factor}}; })
      .states[0];
}

TEST(Loops, ReadValuesOfAllGraphsAroundThem) {
  Graph graph;
  Scope scope(graph);
  const Value x = scope.Input("x", kFloat32, {Dim("n"), 2});
  const Value w = scope.Variable("w", scope.Constant(Tensor::Of<float>({2}, {2, 3})));
  // The inner loop reads a slice of the outer one, and a value outside of both. Its own input
  // belongs to the outermost graph.
  const ScanResult outer = Scan({scope.Full(0, {2})}, {x}, [&](const Values& h, const Values& v) {
    const ScanResult inner =
        Scan({h[0]}, {x}, [&](const Values& g, const Values& u) { return ScanStep{{g[0] + u[0] * v[0] * w}}; });
    return ScanStep{.states = inner.states, .outputs = {w}};
  });
  ASSERT_TRUE(graph.status().ok()) << graph.status();
  const Tensor data = Tensor::Of<float>({3, 2}, {1, 2, 3, 4, 5, 6});
  // (1 + 3 + 5)^2 * 2 and (2 + 4 + 6)^2 * 3.
  EXPECT_THAT(RunOne(graph, {{x, data}}, outer.states[0]), ElementsAre(162, 432));
  EXPECT_THAT(RunOne(graph, {{x, data}}, outer.outputs[0]), ElementsAre(2, 3, 2, 3, 2, 3));
}

TEST(Loops, HaveTheLengthOfTheFeed) {
  Graph graph;
  Scope scope(graph);
  const Value x = scope.Input("x", kFloat32, {Dim("n"), 2});
  const Value sum = SumOfProducts(x, scope.Full(2, {}));
  const Value gradient = Gradients({Sum(Square(sum))}, {x})[0];
  ASSERT_TRUE(graph.status().ok()) << graph.status();
  absl::StatusOr<Session> session = Session::Create(graph);
  ASSERT_TRUE(session.ok()) << session.status();
  for (int64_t n : {3, 1, 0, 3}) {
    Tensor data(kFloat32, {n, 2});
    for (float& element : data.mutable_values<float>()) element = 1;
    const absl::StatusOr<std::vector<Tensor>> results = session->Run({{x, data}}, {sum, gradient});
    ASSERT_TRUE(results.ok()) << results.status();
    EXPECT_THAT((*results)[0].ToDoubles(), ElementsAre(2.0 * n, 2.0 * n));
    EXPECT_EQ((*results)[1].ToDoubles(), std::vector<double>(2 * n, 2 * 2.0 * n * 2));
  }
}

TEST(Loops, AreNamedByTheErrorsOfTheirBodies) {
  Graph graph;
  Scope scope(graph);
  const Value x = scope.Input("x", kFloat32, {4});
  const Value index = scope.Input("index", kInt32, {3});
  const ScanResult picked = Scan({}, {index}, [&](const Values&, const Values& i) {
    return ScanStep{{}, {Gather(x, i[0])}};
  });
  const absl::Status status =
      RunGraph(graph, {{x, Tensor(kFloat32, {4})}, {index, Tensor::Of<int32_t>({3}, {0, 4, 1})}}, {picked.outputs[0]})
          .status();
  EXPECT_EQ(status.code(), absl::StatusCode::kOutOfRange);
  EXPECT_THAT(status.message(), HasSubstr("in Gather("));
  EXPECT_THAT(status.message(), HasSubstr("in Scan("));
}

// The kernels of a body are lines below the loop, with the operations and the time of all steps.
TEST(Loops, AreProfiledByTheKernelsOfTheirBodies) {
  Graph graph;
  Scope scope(graph);
  const Value x = scope.Input("x", kFloat32, {5, 64, 64});
  const Value h = Scan({scope.Full(0, {64, 64})}, {x}, [&](const Values& s, const Values& v) {
                    return ScanStep{{MatMul(s[0], v[0])}};
                  }).states[0];
  const Value y = If(
      Greater(Sum(h), -1), {h}, [](const Values& v) { return Values{Sin(v[0])}; },
      [](const Values& v) { return Values{v[0]}; })[0];
  ASSERT_TRUE(graph.status().ok()) << graph.status();
  absl::StatusOr<Session> session = Session::Create(graph, {.threads = 1});
  ASSERT_TRUE(session.ok()) << session.status();
  const absl::StatusOr<Profile> profile = session->ProfileRun({{x, Tensor(kFloat32, {5, 64, 64})}}, {y});
  ASSERT_TRUE(profile.ok()) << profile.status();
  // 5 * 2 * 64^3 operations, then microseconds and the rate.
  EXPECT_THAT(profile->table, ContainsRegex("\n      matmul_[0-9]+: [a-z]+ +2621440 +[0-9.]+ +[0-9.]+\n"));
  EXPECT_THAT(profile->table, ContainsRegex("\n      sin_[0-9]+: [a-z]+ +0 +[0-9.]+ +0.0\n"));
}

TEST(If, RunsOneBranch) {
  Graph graph;
  Scope scope(graph);
  const Value x = scope.Input("x", kFloat32, {4}), index = scope.Input("index", kInt32, {});
  // The index is outside of x where the branch that reads it does not run.
  const Value y = If(
      Less(index, 4), {x}, [&](const Values& v) { return Values{Gather(v[0], index)}; },
      [](const Values& v) { return Values{Sum(v[0])}; })[0];
  const Tensor data = Tensor::Of<float>({4}, {1, 2, 3, 4});
  EXPECT_THAT(RunOne(graph, {{x, data}, {index, Tensor::Scalar<int32_t>(2)}}, y), ElementsAre(3));
  EXPECT_THAT(RunOne(graph, {{x, data}, {index, Tensor::Scalar<int32_t>(4)}}, y), ElementsAre(10));
}

TEST(While, EndsWithAnErrorAfterItsGreatestNumberOfSteps) {
  Graph graph;
  Scope scope(graph);
  const Value x = scope.Input("x", kFloat32, {});
  const Value y = While(
      {x}, [](const Values& h) { return Less(h[0], 10); }, [](const Values& h) { return Values{h[0] + 1}; },
      {.most_steps = 5})[0];
  EXPECT_THAT(RunOne(graph, {{x, Tensor::Scalar<float>(5)}}, y), ElementsAre(10));
  EXPECT_THAT(RunOne(graph, {{x, Tensor::Scalar<float>(11)}}, y), ElementsAre(11));
  const absl::Status status = RunGraph(graph, {{x, Tensor::Scalar<float>(4)}}, {y}).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kOutOfRange);
  EXPECT_THAT(status.message(), HasSubstr("still holds after 5 steps"));
  EXPECT_THAT(status.message(), HasSubstr("loops_test.cc"));
}

TEST(Loops, StopWithTheRun) {
  Graph graph;
  Scope scope(graph);
  const Value x = scope.Input("x", kFloat32, {});
  const Value y = While(
      {x}, [](const Values& h) { return Less(h[0], 10); }, [](const Values& h) { return Values{Sin(h[0])}; },
      {.most_steps = int64_t{1} << 60})[0];
  const auto start = RunOptions::Clock::now();
  const absl::Status status =
      RunGraph(graph, {{x, Tensor::Scalar<float>(1)}}, {y}, {.deadline = start + std::chrono::milliseconds(200)})
          .status();
  EXPECT_EQ(status.code(), absl::StatusCode::kDeadlineExceeded) << status;
}

// After the passes, the gradient has two loops: the forward one, which stores for the other, and
// that.
TEST(LoopGradients, AddOneLoop) {
  Graph graph;
  Scope scope(graph);
  const Value x = scope.Input("x", kFloat32, {5, 2}), w = scope.Input("w", kFloat32, {2, 2});
  const ScanResult result = Scan({scope.Full(0, {1, 2})}, {x}, [&](const Values& h, const Values& v) {
    const Value next = Tanh(MatMul(h[0], w) + v[0]);
    return ScanStep{{next}, {next}};
  });
  const Value loss = Sum(Square(result.outputs[0]));
  graph.SetOutput("loss", {loss});
  graph.SetOutput("gradient", Gradients({loss}, {w}));
  ASSERT_TRUE(graph.status().ok()) << graph.status();
  EXPECT_EQ(Scans(graph).size(), 3);
  const absl::StatusOr<Graph> passed =
      RunPipeline(graph, {.evaluate = [](const Node&, auto) { return absl::UnimplementedError(""); }});
  ASSERT_TRUE(passed.ok()) << passed.status();
  const std::vector<const Node*> scans = Scans(*passed);
  ASSERT_EQ(scans.size(), 2);
  // The outputs h' and h; the last state is not read. The gradient's loop takes the state's
  // gradient, that of h', h' and w. The gradient of w is a product after the loop, of h and what
  // the loop gives.
  EXPECT_EQ(scans[0]->outputs.size(), 3);
  EXPECT_EQ(scans[1]->inputs.size(), 1 + 2 + 1);
}

TEST(LoopGradients, StoreNothingThatTheyDoNotRead) {
  Graph graph;
  Scope scope(graph);
  const Value x = scope.Input("x", kFloat32, {5, 2});
  const ScanResult result =
      Scan({scope.Full(0, {2})}, {x}, [&](const Values& h, const Values& v) { return ScanStep{{h[0] * 0.5 + v[0]}}; });
  graph.SetOutput("gradient", Gradients({Sum(result.states[0])}, {x}));
  ASSERT_TRUE(graph.status().ok()) << graph.status();
  ASSERT_EQ(Scans(graph).size(), 2);
  EXPECT_EQ(Scans(graph)[1]->inputs.size(), 1);
  EXPECT_EQ(Scans(graph)[1]->outputs.size(), 2);
}

TEST(LoopGradients, NameTheOpThatHasNone) {
  Graph graph;
  Scope scope(graph);
  const Value x = scope.Input("x", kFloat32, {5, 2});
  const ScanResult result =
      Scan({scope.Full(0, {2})}, {x}, [&](const Values& h, const Values& v) { return ScanStep{{h[0] + v[0]}}; });
  const Value assigned = scope.Variable("v", scope.Constant(Tensor(kFloat32, {2})));
  Gradients({Sum(Assign(assigned, result.states[0]))}, {x});
  EXPECT_THAT(graph.status().message(), HasSubstr("Assign is not differentiable"));
}

// Loops whose steps differ do not merge, and neither do loops of other operands.
TEST(MergeScans, KeepsLoopsThatDiffer) {
  Graph graph;
  Scope scope(graph);
  const Value x = scope.Input("x", kFloat32, {5, 2}), zero = scope.Full(0, {2});
  auto scan = [&](double factor, bool reverse) {
    return Scan({zero}, {x},
                [&](const Values& h, const Values& v) {
                  return ScanStep{{h[0] * factor + v[0]}, {v[0]}};
                },
                {.reverse = reverse});
  };
  const ScanResult a = scan(0.5, false), b = scan(0.25, false), c = scan(0.5, true), same = scan(0.5, false);
  graph.SetOutput("y", {a.states[0], b.states[0], c.states[0], same.states[0], a.outputs[0], same.outputs[0]});
  const absl::StatusOr<Graph> merged = MergeScans(graph);
  ASSERT_TRUE(merged.ok()) << merged.status();
  EXPECT_EQ(Scans(*merged).size(), 3);
  const std::vector<Port>& y = merged->outputs().at("y");
  EXPECT_TRUE(y[0] == y[3]);
  EXPECT_TRUE(y[4] == y[5]);
}

TEST(PruneScans, DropsWhatNothingReads) {
  Graph graph;
  Scope scope(graph);
  const Value x = scope.Input("x", kFloat32, {5, 2}), y = scope.Input("y", kFloat32, {5, 2});
  const Value zero = scope.Full(0, {2}), one = scope.Full(1, {2});
  const ScanResult result = Scan({zero, one, one}, {x, y}, [&](const Values& h, const Values& v) {
    return ScanStep{{h[0] + v[0], h[1] + v[1], h[1] * 2}, {v[1], h[2]}};
  });
  graph.SetOutput("y", {result.outputs[1]});
  const absl::StatusOr<Graph> pruned = PruneScans(graph);
  ASSERT_TRUE(pruned.ok()) << pruned.status();
  // State 0, input x and output 0 are gone.
  ASSERT_EQ(Scans(*pruned).size(), 1);
  EXPECT_EQ(Scans(*pruned)[0]->inputs.size(), 3);
  EXPECT_EQ(Scans(*pruned)[0]->outputs.size(), 3);
}

TEST(Bodies, ArePrintedAndVerified) {
  Graph graph;
  Scope scope(graph);
  const Value x = scope.Input("x", kFloat32, {5, 2});
  const Value sum = SumOfProducts(x, scope.Full(2, {}));
  ASSERT_TRUE(sum.valid()) << graph.status();
  EXPECT_TRUE(VerifyGraph(graph).ok()) << VerifyGraph(graph);
  EXPECT_THAT(GraphToText(graph), HasSubstr("  body:\n    %0 \"state_0\" = Input()"));
  EXPECT_THAT(GraphToText(graph), HasSubstr("    output \"results\" = %"));
  EXPECT_THAT(GraphToDot(graph), HasSubstr("subgraph cluster_n"));
}

// Values of a body that the program keeps are no values of the graph around it.
TEST(Bodies, KeepTheirValuesToThemselves) {
  Graph graph;
  Scope scope(graph);
  const Value x = scope.Input("x", kFloat32, {5, 2});
  Value leaked;
  Scan({scope.Full(0, {2})}, {x}, [&](const Values& h, const Values& v) {
    leaked = v[0];
    return ScanStep{{h[0] + v[0]}};
  });
  EXPECT_TRUE(graph.status().ok());
  Exp(leaked);
  EXPECT_FALSE((x + leaked).valid());
  EXPECT_THAT(graph.status().message(), HasSubstr("the operands belong to different graphs"));
}

TEST(Bodies, MayBeNestedEightDeep) {
  for (int depth : {8, 9}) {
    Graph graph;
    Scope scope(graph);
    std::function<Value(const Value&, int)> nest = [&](const Value& h, int left) {
      if (left == 0) return Sin(h);
      return Scan({h}, {}, [&](const Values& g, const Values&) { return ScanStep{{nest(g[0], left - 1)}}; },
                  {.length = 1})
          .states[0];
    };
    const Value x = scope.Input("x", kFloat32, {});
    const Value y = nest(x, depth);
    EXPECT_EQ(y.valid(), depth == 8) << graph.status();
    if (depth == 8) {
      EXPECT_NEAR(RunOne(graph, {{x, Tensor::Scalar<float>(1)}}, y)[0], std::sin(1.0), 1e-6);
    } else {
      EXPECT_THAT(graph.status().message(), HasSubstr("nested more than"));
    }
  }
}

}  // namespace
}  // namespace gradweave
