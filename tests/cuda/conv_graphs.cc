// Graphs with convolutions that cover every form of a generated convolution.
#include <functional>
#include <random>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "gradweave/graph/check.h"
#include "gradweave/ops/builder.h"
#include "tests/cuda/fused_graphs.h"

namespace gradweave {
namespace {

// A convolution of an image with a filter, and the ops behind it.
struct Case {
  const char* name;
  Shape x, filter;
  Conv2DOptions options;
  std::function<std::vector<Value>(Scope& scope, const Value& x, const Value& y)> behind;
  bool has_bias = true;
};

Graph GraphOf(const Case& c, DType dtype) {
  Graph graph;
  Scope scope(graph);
  const Value x = scope.Input("x", dtype, c.x), filter = scope.Input("filter", dtype, c.filter);
  const Value y = c.has_bias ? Conv2D(x, filter, scope.Input("bias", dtype, {c.filter[0]}), c.options)
                             : Conv2D(x, filter, c.options);
  graph.SetOutput("results", c.behind(scope, x, y));
  GW_CHECK(graph.status().ok(), graph.status().ToString());
  return AfterPasses(graph);
}

std::vector<Value> Alone(Scope&, const Value&, const Value& y) { return {y}; }

// Returns the gradients of a sum of the results, weighted by fed values.
std::vector<Value> WithGradients(Scope& scope, const std::vector<Value>& results, const std::vector<Value>& of) {
  std::vector<Value> weighted;
  for (const Value& value : results) {
    weighted.push_back(
        Sum(value * scope.Input(absl::StrCat("weight_of_", value.port().node), value.dtype(), value.shape())));
  }
  std::vector<Value> all = Gradients(weighted, of);
  all.insert(all.end(), results.begin(), results.end());
  return all;
}

std::vector<Case> Cases() {
  const Conv2DOptions same = {.padding = {2, 2}};
  std::vector<Case> cases;
  // LeNet's layers. In training, activations are stored for the gradient beside the pool; in
  // inference only the pool is.
  cases.push_back({"sigmoid_and_mean", {3, 1, 12, 12}, {6, 1, 5, 5}, same, [](Scope&, const Value&, const Value& y) {
                     const Value active = Sigmoid(y);
                     return std::vector<Value>{active, AvgPool2D(active, {.window = {2, 2}})};
                   }});
  cases.push_back({"mean_alone", {5, 6, 10, 10}, {16, 6, 5, 5}, {}, [](Scope&, const Value&, const Value& y) {
                     return std::vector<Value>{AvgPool2D(Sigmoid(y), {.window = {2, 2}})};
                   }});
  // With odd sizes, the last row and column belong to no window.
  cases.push_back(
      {"largest_of_odd", {2, 3, 9, 11}, {10, 3, 3, 3}, {.padding = {1, 1}}, [](Scope&, const Value&, const Value& y) {
         const Value active = Relu(y), pool = MaxPool2D(active, {.window = {2, 2}});
         return std::vector<Value>{pool, Output(pool, 1), active};
       }});
  cases.push_back({"largest_of_sums",
                   {2, 2, 8, 8},
                   {3, 2, 3, 3},
                   {.padding = {1, 1}},
                   [](Scope&, const Value&, const Value& y) {
                     return std::vector<Value>{MaxPool2D(y, {.window = {1, 4}})};
                   },
                   false});
  cases.push_back({"mean_of_columns", {2, 2, 8, 6}, {3, 2, 3, 3}, {}, [](Scope&, const Value&, const Value& y) {
                     return std::vector<Value>{AvgPool2D(Tanh(y), {.window = {3, 1}, .stride = {3, 1}}), y};
                   }});
  // Overlapping windows cannot be cells.
  cases.push_back({"overlapping_windows", {2, 2, 8, 8}, {4, 2, 3, 3}, {}, [](Scope&, const Value&, const Value& y) {
                     return std::vector<Value>{AvgPool2D(Relu(y), {.window = {2, 2}, .stride = {1, 1}})};
                   }});
  // Operands of every extent, bools, several results, and a result that another op waits for.
  cases.push_back(
      {"operands", {2, 4, 7, 9}, {4, 4, 3, 3}, {.padding = {1, 1}}, [](Scope& scope, const Value& x, const Value& y) {
         const DType dtype = x.dtype();
         const Value scale = scope.Input("scale", dtype, {4, 1, 1});
         const Value row = scope.Input("row", dtype, {9}), number = scope.Input("number", dtype, {});
         const Value truth = scope.Input("truth", kBool, {2, 4, 7, 9});
         const Value residual = Relu(y * scale + x), masked = Where(truth, residual, row * number);
         return std::vector<Value>{masked, Greater(residual, number), Sum(residual, {.axes = {2}}) + row};
       }});
  cases.push_back({"strides_and_dilation",
                   {2, 3, 17, 14},
                   {5, 3, 3, 2},
                   {.stride = {2, 3}, .padding = {1, 2, 0, 1}, .dilation = {2, 1}},
                   [](Scope&, const Value&, const Value& y) {
                     return std::vector<Value>{LeakyRelu(y, 0.1), y};
                   }});
  cases.push_back({"even_strides", {3, 2, 16, 16}, {7, 2, 3, 3}, {.stride = {2, 2}, .padding = {1, 1}}, Alone, false});
  cases.push_back({"depthwise",
                   {2, 5, 8, 8},
                   {5, 1, 3, 3},
                   {.padding = {1, 1}, .groups = 5},
                   [](Scope&, const Value&, const Value& y) { return std::vector<Value>{Clip(y, 0, 6)}; }});
  cases.push_back({"groups", {2, 6, 6, 6}, {18, 2, 3, 3}, {.groups = 3}, Alone});
  cases.push_back({"one_row", {3, 2, 1, 40}, {3, 2, 1, 7}, {}, Alone});
  cases.push_back({"one_pixel", {70, 3, 3, 3}, {9, 3, 3, 3}, {}, Alone, false});
  // An operand that is a view of the result.
  cases.push_back({"another_shape", {1, 3, 3, 3}, {4, 3, 3, 3}, {}, [](Scope&, const Value&, const Value& y) {
                     return std::vector<Value>{Relu(y) * Reshape(y, {4, 1, 1})};
                   }});
  // Several tiles per image, and several blocks of channels and outputs.
  cases.push_back({"wide", {1, 2, 45, 70}, {2, 2, 3, 3}, {.padding = {1, 1}}, [](Scope&, const Value&, const Value& y) {
                     return std::vector<Value>{AvgPool2D(Gelu(y), {.window = {2, 2}})};
                   }});
  cases.push_back(
      {"many_channels", {2, 32, 12, 12}, {32, 32, 3, 3}, {.padding = {1, 1}}, [](Scope&, const Value&, const Value& y) {
         return std::vector<Value>{Relu(y)};
       }});
  // Tiles that reach beyond the right edge of an even width, where stores of pairs would write to
  // the next row.
  cases.push_back({"over_the_edge", {1, 3, 1, 34}, {16, 3, 3, 3}, {.padding = {1, 1}}, Alone});
  cases.push_back({"pool_over_the_edge",
                   {1, 3, 6, 66},
                   {16, 3, 3, 3},
                   {.padding = {1, 1}},
                   [](Scope&, const Value& x, const Value& y) {
                     return std::vector<Value>{Relu(y), MaxPool2D(Relu(y), {.window = {2, 2}})};
                   }});
  cases.push_back({"columns_of_tiles", {1, 1, 3, 602}, {2, 1, 3, 3}, {}, Alone});
  // Blocks of several samples.
  cases.push_back({"many_samples", {300, 4, 10, 10}, {11, 4, 5, 5}, {}, Alone});
  cases.push_back({"many_taps", {140, 24, 4, 4}, {8, 24, 7, 7}, {.padding = {3, 3}}, Alone, false});
  // Gradients for the input are convolutions with flipped filters.
  cases.push_back(
      {"gradients", {2, 3, 8, 8}, {6, 3, 3, 3}, {.padding = {1, 0}}, [](Scope& scope, const Value& x, const Value& y) {
         const Value second = scope.Input("second", x.dtype(), {4, 6, 3, 3});
         return WithGradients(scope, {Conv2D(Relu(y), second, {.dilation = {2, 1}})}, {x, y, second});
       }});
  cases.push_back({"gradients_of_groups",
                   {2, 4, 9, 7},
                   {8, 2, 5, 3},
                   {.groups = 2},
                   [](Scope& scope, const Value& x, const Value& y) {
                     return WithGradients(scope, {MaxPool2D(Tanh(y), {.window = {2, 2}})}, {x});
                   }});
  return cases;
}

// Convolutions in sequence and in parallel, connected by elementwise ops. No kernel's group may
// depend on itself.
Graph RandomConvolutions(int seed, DType dtype) {
  std::mt19937 random(300 + seed);
  Graph graph;
  Scope scope(graph);
  const Shape shape = {2, 3, 6, 8};
  std::vector<Value> values = {scope.Input("a", dtype, shape), scope.Input("b", dtype, shape)};
  auto any = [&] { return values[random() % values.size()]; };
  std::vector<Value> results;
  for (int i = 0; i < 14; ++i) {
    switch (i == 0 ? 0 : random() % 6) {
      case 0:
      case 1:
        values.push_back(
            Conv2D(any(), scope.Input(absl::StrCat("filter", i), dtype, {3, 3, 3, 3}), {.padding = {1, 1}}));
        break;
      case 2:
        values.push_back(Tanh(any()));
        break;
      case 3:
        values.push_back(any() - Mean(any(), {.axes = {3}, .keep_dims = true}));
        break;
      case 4:
        results.push_back(AvgPool2D(any(), {.window = {2, 2}}));
        break;
      default:
        values.push_back(any() * 0.5 + any());
    }
    if (random() % 5 == 0) results.push_back(values.back());
  }
  results.push_back(values.back());
  graph.SetOutput("results", results);
  GW_CHECK(graph.status().ok(), graph.status().ToString());
  return AfterPasses(graph);
}

}  // namespace

std::vector<FusedGraph> ConvGraphs() {
  std::vector<FusedGraph> graphs;
  for (DType dtype : {kFloat32, kFloat64}) {
    for (const Case& c : Cases()) {
      graphs.push_back({absl::StrCat("convolution_", c.name, "_", DTypeName(dtype)), GraphOf(c, dtype)});
    }
    for (int seed = 0; seed < 12; ++seed) {
      graphs.push_back({absl::StrCat("convolutions_", DTypeName(dtype), "_", seed), RandomConvolutions(seed, dtype)});
    }
  }
  return graphs;
}

}  // namespace gradweave
