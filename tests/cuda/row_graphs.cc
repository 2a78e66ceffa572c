// Graphs with row regions that cover every form of a row kernel and every op that it may contain.
#include <cmath>
#include <iterator>
#include <random>
#include <string>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "gradweave/graph/check.h"
#include "gradweave/ops/builder.h"
#include "tests/cuda/fused_graphs.h"

namespace gradweave {
namespace {

// A normalization behind a bias and a residual, with its gradients.
Graph Normalization(DType dtype, const Shape& shape) {
  Graph graph;
  Scope scope(graph);
  const Shape width = {shape[shape.rank() - 1]};
  const Value x = scope.Input("x", dtype, shape), residual = scope.Input("residual", dtype, shape);
  const Value bias = scope.Input("bias", dtype, width), dy = scope.Input("dy", dtype, shape);
  const Value scale = scope.Input("scale", dtype, width), offset = scope.Input("offset", dtype, width);
  const Value y = LayerNorm(x + bias + residual, scale, offset);
  std::vector<Value> results = Gradients({Sum(y * dy)}, {x, bias, scale, offset});
  results.push_back(y);
  graph.SetOutput("results", results);
  return AfterPasses(graph);
}

// Softmax and log-softmax as in attention, of scores that are a view of their rows, with gradients.
Graph Softmaxes(DType dtype, const Shape& shape) {
  Graph graph;
  Scope scope(graph);
  const Dim columns = shape[shape.rank() - 1];
  Dim rows = 1;
  for (int axis = 0; axis + 1 < shape.rank(); ++axis) rows = rows * shape[axis];
  const Value x = scope.Input("x", dtype, {rows, columns}), dy = scope.Input("dy", dtype, shape);
  const Value masked = Where(scope.Input("mask", kBool, {columns}), Reshape(x * 0.7, shape), -1e9);
  const Value y = Softmax(masked), z = LogSoftmax(masked);
  std::vector<Value> results = Gradients({Sum(y * dy), Sum(z * dy)}, {x});
  results.push_back(y);
  results.push_back(z);
  graph.SetOutput("results", results);
  return AfterPasses(graph);
}

// One value is stored early and another read late. Neither may alias the other.
Graph EarlyAndLate(DType dtype, const Shape& shape) {
  Graph graph;
  Scope scope(graph);
  const Value early = Tanh(scope.Input("x", dtype, shape)), late = scope.Input("late", dtype, shape);
  graph.SetOutput("results", {early, late * Sum(early, {.axes = {1}, .keep_dims = true})});
  return AfterPasses(graph);
}

// Random ops of every kind over [a, b, columns]. Elements and numbers of rows read reductions of
// rows.
Graph RandomRows(int seed, DType dtype, const Shape& shape) {
  std::mt19937 random(200 + seed);
  Graph graph;
  Scope scope(graph);
  const Dim columns = shape[2];
  const Shape per_row = {shape[0], shape[1], 1};
  std::vector<Value> whole = {scope.Input("a", dtype, shape), scope.Input("b", dtype, shape)};
  std::vector<Value> rows = {scope.Input("of_rows", dtype, per_row)};
  const std::vector<Value> others = {scope.Input("column", dtype, {columns}), scope.Input("number", dtype, {}),
                                     scope.Input("c", dtype, shape), scope.Input("of_others", dtype, per_row)};
  const Value truth = scope.Input("truth", kBool, shape), truth_of_columns = scope.Input("truths", kBool, {columns});
  std::vector<Value> results;
  auto any_of = [&](const std::vector<Value>& values) { return values[random() % values.size()]; };
  // Prefers the latest values, which makes chains long.
  auto latest = [&](const std::vector<Value>& values) { return random() % 3 == 0 ? any_of(values) : values.back(); };
  auto any = [&] {
    const int kind = static_cast<int>(random() % 4);
    return kind == 0 ? any_of(others) : kind == 1 ? latest(rows) : latest(whole);
  };
  auto reduced = [&](Value x) {
    const ReductionOptions last = {.axes = {2}, .keep_dims = true};
    switch (random() % 6) {
      case 0:
        return Sum(x, last);
      case 1:
        return Mean(x, last);
      case 2:
        return Max(x, last);
      case 3:
        return Min(x, last);
      case 4:
        return LogSumExp(x, last);
      default:
        return Prod(x * 0.01 + 1, last);
    }
  };
  for (int i = 0; i < 14; ++i) {
    switch (random() % 9) {
      case 0:
      case 1:
        rows.push_back(Tanh(reduced(latest(whole))));
        break;
      case 2:
        whole.push_back(random() % 2 == 0 ? Softmax(latest(whole)) : LogSoftmax(latest(whole)));
        break;
      case 3:
        whole.push_back(Tanh(AddOp(kFusedUnary[random() % std::size(kFusedUnary)], {Abs(latest(whole)) + 0.1})));
        break;
      case 4:
        whole.push_back(Where(random() % 2 == 0 ? truth : truth_of_columns, latest(whole), any()));
        break;
      case 5:
        rows.push_back(Sigmoid(latest(rows) - any_of(rows) * 0.5));
        break;
      case 6:
        whole.push_back(Reshape(Clip(Reshape(latest(whole), {shape[0] * shape[1], columns}), -0.8, 0.9), shape));
        break;
      default: {
        const char* op = kFusedBinary[random() % std::size(kFusedBinary)];
        // Gradient ops need operands of one shape.
        const Value second = absl::EndsWith(op, "Grad") ? latest(whole) : any();
        const Value y = AddOp(op, {Abs(latest(whole)) + 0.1, second});
        whole.push_back(Tanh(y.dtype() == kBool ? Cast(y, dtype) : y));
      }
    }
  }
  // Outputs: whole rows, numbers of rows, bools, and sums over rows, which end chains of their own.
  const Value last = whole.back() + reduced(whole.back());
  results = {last, rows.back(), Less(last, any_of(whole)), Sum(last * others[2], {.axes = {0, 1}})};
  if (random() % 2 == 0) results.push_back(whole[whole.size() / 2]);
  graph.SetOutput("results", results);
  return AfterPasses(graph);
}

}  // namespace

std::vector<FusedGraph> RowGraphs() {
  std::vector<FusedGraph> graphs;
  for (DType dtype : {kFloat32, kFloat64}) {
    // Rows for a lane, a warp and a block, with and without remainders. Some are so long that
    // blocks share a row's sum, and some have too many for that. Rows of one element form no
    // region.
    for (int64_t columns : {1, 2, 31, 32, 33, 127, 1000, 4097}) {
      const Shape shape = {2, columns > 1000 ? 2 : 7, columns};
      const std::string name = absl::StrCat(DTypeName(dtype), "_of_", columns);
      graphs.push_back({absl::StrCat("normalization_", name), Normalization(dtype, shape)});
      graphs.push_back({absl::StrCat("softmax_", name), Softmaxes(dtype, shape)});
    }
    graphs.push_back({absl::StrCat("normalization_of_many_", DTypeName(dtype)), Normalization(dtype, {133, 4097})});
    graphs.push_back({absl::StrCat("softmax_of_many_", DTypeName(dtype)), Softmaxes(dtype, {3, 200, 40})});
    graphs.push_back({absl::StrCat("early_and_late_", DTypeName(dtype)), EarlyAndLate(dtype, {9, 45})});
    int seed = 0;
    for (int64_t columns : {2, 5, 31, 32, 33, 64, 127, 200, 512, 513, 1000, 1024, 2500, 4097}) {
      const Shape shape = {3, columns > 1000 ? 1 : 5, columns};
      graphs.push_back({absl::StrCat("rows_", DTypeName(dtype), "_", seed), RandomRows(seed, dtype, shape)});
      ++seed;
    }
  }
  const SmallEncoder encoder;
  graphs.push_back({"encoder", PlanOf(encoder.graph, {encoder.output}, {})});
  graphs.push_back({"encoder_training", PlanOf(encoder.graph, {encoder.loss}, encoder.step.assignments)});
  return graphs;
}

SmallEncoder::SmallEncoder() {
  constexpr int64_t kSamples = 2, kTokens = 5, kHeads = 2, kWidth = 12;
  Scope scope(graph);
  x = scope.Input("x", kFloat32, {kSamples, kTokens, kWidth});
  auto heads = [&](Value y) {
    return Transpose(Reshape(y, {kSamples, kTokens, kHeads, kWidth / kHeads}), {0, 2, 1, 3});
  };
  auto layer = [&](const char* name, const nn::Sequential& layers, Value y) {
    Scope own(scope, name);
    return layers(own, y);
  };
  auto dense = [] { return nn::Sequential{nn::Dense{kWidth}}; };
  const Value normalized = layer("normalized", nn::Sequential{nn::LayerNorm{}}, x);
  const Value q = heads(layer("query", dense(), normalized)), k = heads(layer("key", dense(), normalized));
  const Value weights = Softmax(MatMul(q, k, {.transpose_b = true}) * 0.4);
  const Value attended = Transpose(MatMul(weights, heads(layer("value", dense(), normalized))), {0, 2, 1, 3});
  const Value h = x + layer("output", dense(), Reshape(attended, {kSamples, kTokens, kWidth}));
  output = h + layer("after", {nn::LayerNorm{}, nn::Dense{20}, nn::Gelu{}, nn::Dense{kWidth}}, h);
  loss = Mean(Square(output));
  step = optim::Sgd{.learning_rate = 0.1}.Minimize(loss);
  GW_CHECK(graph.status().ok(), graph.status().ToString());
}

std::vector<Feed> SmallEncoder::Feeds(int step_number) const {
  Tensor values(kFloat32, x.shape().sizes());
  for (int64_t i = 0; i < values.num_elements(); ++i) {
    values.mutable_data<float>()[i] = static_cast<float>(std::sin(0.9 * static_cast<double>(i) + step_number));
  }
  return {{x, values}};
}

}  // namespace gradweave
