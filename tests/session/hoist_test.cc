// Values that HoistFromLoops moves out of loops. The results stay the same.
#include <algorithm>
#include <cmath>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "gmock/gmock.h"
#include "gradweave/gradweave.h"
#include "gradweave/graph/body.h"
#include "gradweave/graph/passes/bodies.h"
#include "gradweave/graph/passes/passes.h"
#include "gtest/gtest.h"

namespace gradweave {
namespace {

using ::testing::Contains;
using ::testing::HasSubstr;
using ::testing::Not;
using Values = std::vector<Value>;

// The names of the ops of a graph, without sources.
std::vector<std::string> Ops(const Graph& graph) {
  std::vector<std::string> names;
  for (const Node& node : graph.nodes()) {
    if (!node.op->is_source()) names.push_back(node.op->name);
  }
  return names;
}
int64_t Count(const Graph& graph, const std::string& op) {
  const std::vector<std::string> ops = Ops(graph);
  return std::count(ops.begin(), ops.end(), op);
}

// The body of the graph's loop number `i`.
const Graph& LoopBody(const Graph& graph, int i = 0) {
  for (const Node& node : graph.nodes()) {
    if (node.op->name == "Scan" && i-- == 0) return *node.attribute<Body>("body");
  }
  static const Graph* const none = new Graph;
  ADD_FAILURE() << "there is no such loop";
  return *none;
}

Graph Hoisted(Graph& graph, const Values& outputs) {
  EXPECT_TRUE(graph.status().ok()) << graph.status();
  graph.SetOutput("y", outputs);
  // The same as in the pipeline: a gradient's forward loop merges with the other one, and reshapes
  // to the same shape are gone.
  const absl::StatusOr<Graph> merged = MergeScans(graph);
  EXPECT_TRUE(merged.ok()) << merged.status();
  const absl::StatusOr<Graph> simple = ApplyWithBodies(*merged, Simplify);
  EXPECT_TRUE(simple.ok()) << simple.status();
  absl::StatusOr<Graph> hoisted = HoistFromLoops(*simple);
  EXPECT_TRUE(hoisted.ok()) << hoisted.status();
  EXPECT_TRUE(VerifyGraph(*hoisted).ok()) << VerifyGraph(*hoisted);
  return *std::move(hoisted);
}

// Compares values with others of the graph that compute the same without loops. The session hoists.
void ExpectClose(const Graph& graph, const Values& values, const Values& expected) {
  absl::StatusOr<Session> session = Session::Create(graph, {.threads = 2});
  ASSERT_TRUE(session.ok()) << session.status();
  std::vector<Fetch> fetches(values.begin(), values.end());
  fetches.insert(fetches.end(), expected.begin(), expected.end());
  const absl::StatusOr<std::vector<Tensor>> results = session->Run({}, fetches);
  ASSERT_TRUE(results.ok()) << results.status();
  for (size_t i = 0; i < values.size(); ++i) {
    const std::vector<double> a = (*results)[i].ToDoubles(), b = (*results)[values.size() + i].ToDoubles();
    ASSERT_EQ(a.size(), b.size());
    double largest = 0;
    for (size_t k = 0; k < a.size(); ++k) {
      EXPECT_NEAR(a[k], b[k], 1e-13) << "result " << i << ", element " << k;
      largest = std::max(largest, std::abs(a[k]));
    }
    EXPECT_GT(largest, 0.01) << "result " << i;
  }
}

// The slices of x along the axis.
Values Slices(const Value& x, int64_t axis = 0) {
  Values slices;
  for (const Value& slice : Split(x, std::vector<Dim>(x.shape()[static_cast<int>(axis)].size(), Dim(1)), axis)) {
    slices.push_back(Squeeze(slice, {axis}));
  }
  return slices;
}

// A graph, and what the tests add to it.
struct Trial {
  Graph graph;
  Scope scope{graph};

  Value Random(const Shape& shape) { return RandomNormal(scope, shape, 0, 1, {.dtype = kFloat64}); }
  // A Scan along axis 0 of x with one state. The body gets a state, a slice and a captured value.
  // Bodies of the builder have nothing that depends on captured values alone, but gradients and
  // files may.
  Value ScanOf(const Value& state, const Value& x, const Value& captured,
               const std::function<Value(const Values& operands)>& step) {
    Graph body;
    Scope inside(body);
    Values operands;
    operands.push_back(inside.Input("state", state.dtype(), state.shape()));
    Shape slice = x.shape();
    slice.Erase(0);
    operands.push_back(inside.Input("slice", x.dtype(), slice));
    operands.push_back(inside.Input("captured", captured.dtype(), captured.shape()));
    const Value next = step(operands);
    body.SetOutput(kBodyOperands, operands);
    body.SetOutput(kBodyResults, {next});
    EXPECT_TRUE(body.status().ok()) << body.status();
    return AddOp("Scan", {state, x, captured},
                 {{"body", Body(std::make_shared<Graph>(body))},
                  {"states", int64_t{1}},
                  {"input_axes", Integers{0}},
                  {"output_axes", Integers{}},
                  {"length", Shape{x.shape()[0]}}});
  }
};

// A product of a column and a row stays, because a step reads less without it.
TEST(HoistFromLoops, MovesWhatDoesNotChange) {
  Trial trial;
  const Value x = trial.Random({4, 3, 3}), w = trial.Random({3}), h = trial.Random({3, 3});
  auto step = [](const Values& v) {
    const Value row = Cos(v[2]);
    return v[0] * Sin(v[2]) + ExpandDims(row, {1}) * row + v[1];
  };
  const Value y = trial.ScanOf(h, x, w, step);
  const Graph hoisted = Hoisted(trial.graph, {y});
  EXPECT_EQ(Count(hoisted, "Sin") + Count(hoisted, "Cos"), 2);
  EXPECT_THAT(Ops(LoopBody(hoisted)), Not(Contains("Sin")));
  EXPECT_THAT(Ops(LoopBody(hoisted)), Not(Contains("Cos")));
  EXPECT_EQ(Count(LoopBody(hoisted), "Mul"), 2);
  Value expected = h;
  for (const Value& slice : Slices(x)) expected = step({expected, slice, w});
  ExpectClose(trial.graph, {y}, {expected});
}

// Values of an inner loop that come from the outer one's captured values move out of both.
TEST(HoistFromLoops, MovesOutOfAllLoops) {
  Trial trial;
  const Value x = trial.Random({4, 3, 2}), w = trial.Random({2}), h = trial.Random({3, 2});
  const Value y = trial.ScanOf(h, x, w, [&](const Values& v) {
    const ScanResult inner =
        Scan({v[0]}, {v[1]}, [&](const Values& s, const Values& u) { return ScanStep{{s[0] * Sin(v[2]) + u[0]}}; });
    return inner.states[0];
  });
  const Graph hoisted = Hoisted(trial.graph, {y});
  EXPECT_THAT(Ops(hoisted), Contains("Sin"));
  EXPECT_THAT(Ops(LoopBody(hoisted)), Not(Contains("Sin")));
  Value expected = h;
  for (const Value& slice : Slices(x)) {
    for (const Value& row : Slices(slice)) expected = expected * Sin(w) + row;
  }
  ExpectClose(trial.graph, {y}, {expected});
}

// The products of an input along any axis but the last one are one product.
TEST(HoistFromLoops, MakesOneProductOfInputs) {
  for (int64_t axis : {0, 1, 2}) {
    SCOPED_TRACE(axis);
    Trial trial;
    std::vector<int64_t> sizes = {3, 2};
    sizes.insert(sizes.begin() + axis, 4);
    const Value x = trial.Random(Shape(std::vector<Dim>(sizes.begin(), sizes.end()))), w = trial.Random({5, 2}),
                h = trial.Random({3, 5});
    auto step = [&](const Value& state, const Value& slice) {
      return Tanh(state + MatMul(slice, w, {.transpose_b = true}));
    };
    const ScanResult result = Scan({h}, {x},
                                   [&](const Values& s, const Values& v) {
                                     const Value next = step(s[0], v[0]);
                                     return ScanStep{{next}, {next}};
                                   },
                                   {.input_axes = {axis}, .reverse = true});
    const Graph hoisted = Hoisted(trial.graph, {result.states[0], result.outputs[0]});
    EXPECT_EQ(Count(LoopBody(hoisted), "MatMul"), axis == 2 ? 1 : 0);
    EXPECT_EQ(Count(hoisted, "MatMul"), axis == 2 ? 0 : 1);
    Value expected = h;
    Values outputs, slices = Slices(x, axis);
    for (int t = 3; t >= 0; --t) {
      expected = step(expected, slices[t]);
      outputs.insert(outputs.begin(), ExpandDims(expected, {0}));
    }
    ExpectClose(trial.graph, {result.states[0], result.outputs[0]}, {expected, Concat(outputs, 0)});
  }
}

// An output that is a product with a matrix is taken from the outputs of its first operand. The
// state that is read stays.
TEST(HoistFromLoops, MakesOneProductOfOutputs) {
  Trial trial;
  const Value x = trial.Random({4, 3, 2}), w = trial.Random({2, 5}), h = trial.Random({3, 2});
  const ScanResult result = Scan({h}, {x},
                                 [&](const Values& s, const Values& v) {
                                   const Value next = Tanh(s[0] + v[0]);
                                   return ScanStep{{next}, {MatMul(next, w), v[0]}};
                                 },
                                 {.output_axes = {1, 0}});
  const Graph hoisted = Hoisted(trial.graph, {result.outputs[0], result.outputs[1]});
  EXPECT_EQ(Count(LoopBody(hoisted), "MatMul"), 0);
  EXPECT_EQ(Count(hoisted, "MatMul"), 1);
  // The output that is the input is no output of the loop any more.
  EXPECT_EQ(BodyPorts(LoopBody(hoisted), kBodyResults).size(), 2);
  Value state = h;
  Values outputs;
  for (const Value& slice : Slices(x)) {
    state = Tanh(state + slice);
    outputs.push_back(ExpandDims(MatMul(state, w), {1}));
  }
  ExpectClose(trial.graph, {result.outputs[0], result.outputs[1]}, {Concat(outputs, 1), x});
}

// The gradients of weights and biases are sums over steps. They become one product and one sum.
TEST(HoistFromLoops, MakesOneProductOfTheGradientsOfWeights) {
  Trial trial;
  const Value x = trial.Random({6, 3, 2}), w = trial.Random({2, 4}), r = trial.Random({4, 4}), b = trial.Random({4}),
              h = trial.Random({3, 4});
  auto step = [&](const Value& state, const Value& slice) { return Tanh(MatMul(slice, w) + MatMul(state, r) + b); };
  const Value y =
      Scan({h}, {x}, [&](const Values& s, const Values& v) { return ScanStep{{step(s[0], v[0])}}; }).states[0];
  const Values wrt = {w, r, b, x, h}, gradients = Gradients({Sum(Square(y))}, wrt);
  const Graph hoisted = Hoisted(trial.graph, gradients);
  // The product h r of the one loop and the product dh = dy r^T of the other one stay. The other
  // one gives dh and dy.
  EXPECT_EQ(Count(LoopBody(hoisted), "MatMul"), 1);
  const Graph& backward = LoopBody(hoisted, 1);
  EXPECT_EQ(Count(backward, "MatMul"), 1);
  EXPECT_EQ(Count(backward, "Sum"), 0);
  EXPECT_EQ(BodyPorts(backward, kBodyResults).size(), 2);
  Value expected = h;
  for (const Value& slice : Slices(x)) expected = step(expected, slice);
  ExpectClose(trial.graph, gradients, Gradients({Sum(Square(expected))}, wrt));
}

// A loop without steps computes nothing, so nothing of it may fail.
TEST(HoistFromLoops, LeavesLoopsWithoutStepsAlone) {
  Trial trial;
  const Value x = trial.scope.Input("x", kFloat32, {Dim("n"), 2}), index = trial.scope.Input("index", kInt32, {1});
  const Value y = trial.ScanOf(trial.scope.Full(0, {2}), x, index, [](const Values& v) {
    return v[0] + v[1] + Cast(Gather(v[2], Squeeze(v[2], {0})), kFloat32);
  });
  absl::StatusOr<Session> session = Session::Create(trial.graph);
  ASSERT_TRUE(session.ok()) << session.status();
  const Tensor outside = Tensor::Of<int32_t>({1}, {7});
  EXPECT_TRUE(session->Run({{x, Tensor(kFloat32, {0, 2})}, {index, outside}}, {y}).ok());
  EXPECT_THAT(session->Run({{x, Tensor(kFloat32, {3, 2})}, {index, outside}}, {y}).status().message(),
              HasSubstr("in Gather("));
}

}  // namespace
}  // namespace gradweave
