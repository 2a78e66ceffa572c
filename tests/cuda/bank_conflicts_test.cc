// Bank conflicts in shared memory of the kernels that take most of a model's time, counted on the
// emulated device.
#include <cstdio>
#include <map>
#include <random>
#include <string>
#include <vector>

#include "gradweave/gradweave.h"
#include "gradweave/runtime/cuda/emulation/emulation.h"
#include "gradweave/runtime/cuda/fusion/fusion.h"
#include "gtest/gtest.h"
#include "tests/cuda/fused_graphs.h"
#include "tests/cuda/generated_groups.h"
#include "tests/cuda/test_device.h"

namespace gradweave {
namespace {

using emulation::BankCounts;

// Runs the nodes of a graph one by one and returns the counts of their kernels.
std::map<std::string, BankCounts> CountsOfNodes(Graph& graph, const std::vector<Value>& outputs) {
  graph.SetOutput("results", outputs);
  const Graph ready = AfterPasses(graph);
  return emulation::CountBankConflicts([&] {
    TestDevice device;
    std::mt19937 random(1);
    std::vector<std::vector<Tensor>> values(ready.num_nodes());
    for (const Node& node : ready.nodes()) {
      if (node.op->name == "Input") {
        values[node.id] = {RandomTensor(node.outputs[0], -1, 1, random)};
      } else if (node.op->name == "Constant") {
        values[node.id] = {node.attribute<Tensor>("value")};
      } else {
        std::vector<Tensor> inputs;
        for (Port input : node.inputs) inputs.push_back(values[input.node][input.output]);
        const absl::StatusOr<std::vector<Tensor>> results = device.Run(node, inputs);
        ASSERT_TRUE(results.ok()) << results.status();
        values[node.id] = *results;
      }
    }
  });
}

// Expects that a kernel uses shared memory with at most this many conflicts for each access.
void ExpectAtMost(const std::map<std::string, BankCounts>& counts, const std::string& kernel, double most) {
  const auto found = counts.find(kernel);
  ASSERT_NE(found, counts.end()) << kernel << " did not run";
  const auto [accesses, conflicts] = found->second;
  ASSERT_GT(accesses, 0u) << kernel;
  const double of_access = static_cast<double>(conflicts) / static_cast<double>(accesses);
  std::printf("%-24s %9llu accesses, %.3f conflicts for each\n", kernel.c_str(),
              static_cast<unsigned long long>(accesses), of_access);
  EXPECT_LE(of_access, most) << kernel;
}

// A convolution, and the gradient of its filter.
std::map<std::string, BankCounts> CountsOfConvolution(const Shape& x_shape, const Shape& filter_shape, int64_t pad) {
  Graph graph;
  Scope scope(graph);
  const Value x = scope.Input("x", kFloat32, x_shape), filter = scope.Input("filter", kFloat32, filter_shape);
  const Value y = Conv2D(x, filter, {.padding = {pad, pad}});
  const Value weighted = Sum(y * scope.Input("weights", kFloat32, y.shape()));
  return CountsOfNodes(graph, {y, Gradients({weighted}, {filter})[0]});
}

// The limits are what the kernels had when this was written. Threads of a filter's gradient store
// each output of dy 8 words apart, so that other threads can load all 8 at once.
TEST(BankConflicts, OfDirectConvolutions) {
  const struct {
    Shape x, filter;
    int64_t pad;
    double convolution, gradient;  // Limits.
  } rows[] = {
      {{2, 1, 28, 28}, {6, 1, 5, 5}, 2, 0.17, 2.63},  // LeNet's layers.
      {{2, 6, 14, 14}, {16, 6, 5, 5}, 0, 0.15, 0.47},
      {{1, 16, 16, 16}, {16, 16, 3, 3}, 1, 0.2, 0.41},  // A layer of a residual network.
  };
  for (const auto& row : rows) {
    const auto counts = CountsOfConvolution(row.x, row.filter, row.pad);
    ExpectAtMost(counts, "convolve_tiles", row.convolution);
    ExpectAtMost(counts, "filter_grad_parts", row.gradient);
    ExpectAtMost(counts, "sum_parts", 0);
  }
}

TEST(BankConflicts, OfTranspositionsAndReductions) {
  for (const DType dtype : {kFloat32, kFloat64}) {
    Graph graph;
    Scope scope(graph);
    const Value x = scope.Input("x", dtype, {70, 90}), long_rows = scope.Input("rows", dtype, {3, 3000});
    const auto counts =
        CountsOfNodes(graph, {Transpose(x), Sum(x, {.axes = {0}}), Sum(long_rows, {.axes = {1}}), Softmax(long_rows)});
    for (const auto& [name, count] : counts) {
      if (count.accesses > 0) ExpectAtMost(counts, name, 0);
    }
  }
}

TEST(BankConflicts, OfGeneratedConvolutions) {
  // LeNet's layers, and others, with the most conflicts for each access.
  std::map<std::string, double> limits = {
      {"convolution_sigmoid_and_mean_float32", 0},  {"convolution_mean_alone_float32", 0},
      {"convolution_largest_of_odd_float32", 0},    {"convolution_mean_of_columns_float32", 0},
      {"convolution_largest_of_sums_float32", 0.3}, {"convolution_overlapping_windows_float32", 0.3},
      {"convolution_operands_float32", 0.28}};
  GeneratedGroups generated;
  for (const FusedGraph& fused : ConvGraphs()) {
    const auto limit = limits.find(fused.name);
    if (limit == limits.end()) continue;
    SCOPED_TRACE(fused.name);
    const auto counts = emulation::CountBankConflicts([&] {
      for (const FusedGroup& group : FindFusedGroups(fused.graph, kAllFusions).groups) {
        if (group.convolution == nullptr) continue;
        generated.ExpectBitsOfSingleOps(fused, group, "generated_convolution", false);
      }
    });
    ExpectAtMost(counts, "generated_convolution", limit->second);
    limits.erase(limit);
  }
  EXPECT_TRUE(limits.empty()) << limits.begin()->first;
}

}  // namespace
}  // namespace gradweave
