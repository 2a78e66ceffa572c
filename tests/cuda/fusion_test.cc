// Fused elementwise nodes on the emulated CUDA device: the order respects every operand, and
// results equal those of the same nodes one by one on the CPU.
#include <algorithm>
#include <random>
#include <set>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "gmock/gmock.h"
#include "gradweave/frontend/optimizers.h"
#include "gradweave/graph/passes/autodiff.h"
#include "gradweave/graph/passes/passes.h"
#include "gradweave/ops/elementwise.h"
#include "gradweave/ops/matmul.h"
#include "gradweave/ops/normalization.h"
#include "gradweave/ops/reduction.h"
#include "gradweave/ops/registry.h"
#include "gradweave/ops/shape_ops.h"
#include "gradweave/ops/softmax.h"
#include "gradweave/runtime/cuda/fusion/fusion.h"
#include "gtest/gtest.h"
#include "tests/cuda/fused_groups.h"
#include "tests/cuda/test_device.h"
#include "tests/ops/op_case.h"

namespace gradweave {
namespace {

Tensor RandomTensor(const TensorType& type, std::mt19937& random) {
  Tensor tensor(kFloat64, type.shape.sizes());
  for (double& value : tensor.mutable_values<double>()) value = static_cast<double>(random() % 2001) / 1000 - 1;
  return tensor.Cast(type.dtype);
}

// Runs all nodes one by one on the CPU. Inputs and variables have random values.
using PortTensors = std::vector<std::vector<Tensor>>;
PortTensors RunAllOnCpu(const Graph& graph) {
  std::mt19937 random(7);
  PortTensors values(graph.num_nodes());
  for (const Node& node : graph.nodes()) {
    std::vector<Tensor> operands;
    for (Port input : node.inputs) operands.push_back(values[input.node][input.output]);
    if (node.op->name == "Input" || node.op->name == "Variable") {
      values[node.id] = {RandomTensor(node.outputs[0], random)};
    } else if (node.op->name == "Constant") {
      values[node.id] = {node.attribute<Tensor>("value")};
    } else if (node.op->name == "Assign") {
      values[node.id] = {operands[1]};
    } else {
      absl::StatusOr<std::vector<Tensor>> results = RunOnCpu(node, operands);
      EXPECT_TRUE(results.ok()) << results.status();
      if (results.ok()) values[node.id] = *results;
    }
  }
  return values;
}

// Runs the plan and returns a failure as text: groups run on the device; other nodes, and groups
// that would need generated kernels, run on the CPU. The results of a group are compared and used.
std::string CheckPlan(const Graph& graph, double tolerance, FusionPlan* plan_out = nullptr,
                      const FusionOptions& options = {}) {
  const FusionPlan plan = FindFusedGroups(graph, options);
  if (plan_out != nullptr) *plan_out = plan;
  const PortTensors expected = RunAllOnCpu(graph);
  PortTensors values(graph.num_nodes());
  TestDevice device;
  size_t done = 0;
  auto operands_of = [&](absl::Span<const Port> ports, std::vector<Tensor>& operands) {
    for (Port port : ports) {
      if (values[port.node].empty()) return absl::StrCat("node ", port.node, " is read before it is computed");
      operands.push_back(values[port.node][port.output]);
    }
    return std::string();
  };
  for (OrderItem item : plan.order) {
    std::vector<Tensor> operands;
    if (item.is_node()) {
      const Node& node = graph.node(item.node());
      ++done;
      // A group may keep elements in registers. Then no other node may read a view of them.
      if (node.op->alias && values[node.inputs[0].node].empty()) continue;
      if (std::string failure = operands_of(node.inputs, operands); !failure.empty()) return failure;
      const std::set<std::string> held = {"Input", "Variable", "Constant", "Assign"};
      if (held.count(node.op->name) > 0) {
        values[node.id] = expected[node.id];
        continue;
      }
      const absl::StatusOr<std::vector<Tensor>> results = RunOnCpu(node, operands);
      if (!results.ok()) return std::string(results.status().message());
      values[node.id] = *results;
      continue;
    }
    const FusedGroup& group = plan.groups[item.index];
    if (std::string failure = operands_of(group.operands, operands); !failure.empty()) return failure;
    done += group.nodes.size();
    std::vector<TensorType> types;
    for (Port port : group.outputs) types.push_back(graph.type(port));
    const bool generated = group.needs_generated_kernel();
    const Kernel kernel = generated ? Kernel() : cuda_emulated::MakeFusedKernel(graph, group, {});
    const absl::StatusOr<std::vector<Tensor>> results =
        generated
            ? RunOneByOne(graph, group, operands,
                          [](const Node& node, const std::vector<Tensor>& inputs) { return RunOnCpu(node, inputs); })
            : device.Run(kernel, types, operands);
    if (!results.ok()) return std::string(results.status().message());
    for (size_t k = 0; k < group.outputs.size(); ++k) {
      const Port port = group.outputs[k];
      const Tensor& want = expected[port.node][port.output];
      const Array array{{want.sizes().begin(), want.sizes().end()}, want.ToDoubles()};
      const std::string difference = Compare({array}, {(*results)[k]}, tolerance);
      if (!difference.empty())
        return absl::StrCat("group with ", DescribeNode(graph, graph.node(port.node)), ": ", difference);
      values[port.node].resize(1);
      values[port.node][port.output] = (*results)[k];
    }
    for (int in_place = 0; in_place < static_cast<int>(kernel.overwrites.size()); ++in_place) {
      const absl::StatusOr<std::vector<Tensor>> again = device.Run(kernel, types, operands, in_place);
      if (!again.ok()) return std::string(again.status().message());
      if (!std::equal(results->begin(), results->end(), again->begin(), SameBits))
        return absl::StrCat("overwriting, choice ", in_place, ", gives other bits");
    }
  }
  return done == static_cast<size_t>(graph.num_nodes()) ? "" : "a node is missing, or there twice";
}

TEST(CudaFusion, AChainKeepsItsValuesInRegisters) {
  Graph graph;
  Scope scope(graph, CoreOps());
  const Value x = scope.Input("x", kFloat32, {3, 700}), y = scope.Input("y", kFloat32, {3, 700});
  const Value rate = scope.Input("rate", kFloat32, {});
  const Value z = Where(Greater(x, y), LeakyRelu(x - y * rate, 0.2), Elu(Clip(y, -0.5, 0.5), 1.5));
  graph.SetOutput("results", {Square(z), Greater(z, y)});
  FusionPlan plan;
  EXPECT_EQ(CheckPlan(graph, 1e-6, &plan), "");
  ASSERT_EQ(plan.groups.size(), 1);
  EXPECT_EQ(plan.groups[0].chains.size(), 1);
  EXPECT_EQ(plan.groups[0].outputs.size(), 2);
}

TEST(CudaFusion, OperandsBroadcast) {
  for (DType dtype : {kFloat32, kFloat64}) {
    Graph graph;
    Scope scope(graph, CoreOps());
    const Value x = scope.Input("x", dtype, {3, 4, 5, 6});
    const Value channel = scope.Input("channel", dtype, {4, 1, 1}), row = scope.Input("row", dtype, {6});
    const Value sample = scope.Input("sample", dtype, {3, 1, 1, 1}), plane = scope.Input("plane", dtype, {1, 5, 6});
    const Value truth = scope.Input("truth", kBool, {4, 1, 6}), any = scope.Input("any", kBool, {});
    const Value scaled = Relu((x - channel) * row + sample * plane);
    graph.SetOutput("results", {Where(truth, scaled, BroadcastTo(row, {3, 4, 5, 6})), Where(any, x, channel)});
    FusionPlan plan;
    EXPECT_EQ(CheckPlan(graph, 1e-6, &plan), "");
    // The product of small operands comes first, with the selection.
    ASSERT_EQ(plan.groups.size(), 2);
    EXPECT_EQ(plan.groups[0].nodes.size(), 2);
    ASSERT_EQ(plan.groups[1].chains.size(), 1);
    EXPECT_EQ(plan.groups[1].nodes.size(), 6);
    EXPECT_EQ(plan.groups[1].operands.size(), 5);
    EXPECT_EQ(plan.groups[1].chains[0].program.num_axes, 4);
  }
}

// Neighbouring axes along which every operand is contiguous or repeats are joined. If more axes
// remain than a program allows, ops stay alone.
TEST(CudaFusion, AxesAreJoined) {
  for (const auto& [every, axes] : {std::pair<int, int>{6, 3}, {3, 5}, {2, 7}, {1, 0}}) {
    Graph graph;
    Scope scope(graph, CoreOps());
    const Shape shape = {2, 1, 2, 3, 1, 2, 2, 2, 2, 2, 2, 2, 2, 2};
    std::vector<Dim> sizes;
    for (int axis = 0; axis < shape.rank(); ++axis) sizes.push_back(axis / every % 2 == 0 ? shape[axis] : Dim(1));
    const Value x = scope.Input("x", kFloat64, shape), y = scope.Input("y", kFloat64, Shape(sizes));
    graph.SetOutput("results", {Neg(x + y)});
    FusionPlan plan;
    EXPECT_EQ(CheckPlan(graph, 1e-12, &plan), "");
    if (axes == 0) {
      EXPECT_THAT(plan.groups, ::testing::IsEmpty());
    } else {
      ASSERT_EQ(plan.groups.size(), 1);
      EXPECT_EQ(plan.groups[0].chains[0].program.num_axes, axes);
    }
  }
}

TEST(CudaFusion, ChainsThatDifferRunApart) {
  Graph graph;
  Scope scope(graph, CoreOps());
  std::vector<Value> results;
  auto add = [&](const char* name, double number, const Shape& bias) {
    const Value x = scope.Input(name, kFloat32, {4, 4});
    const Value b = scope.Input(absl::StrCat("bias of ", name), kFloat32, bias);
    results.push_back(Where(Equal(x, x), x + b, x * scope.Constant(Tensor::ScalarOf(kFloat32, number))));
  };
  // Programs differ by the axis along which an operand repeats, and by the sign of zero.
  add("a", 0.0, {4});
  add("b", 0.0, {4, 1});
  add("c", -0.0, {4});
  add("d", 0.0, {4});
  graph.SetOutput("results", results);
  FusionPlan plan;
  EXPECT_EQ(CheckPlan(graph, 0, &plan), "");
  ASSERT_EQ(plan.groups.size(), 1);
  ASSERT_EQ(plan.groups[0].batches.size(), 3);
  EXPECT_EQ(plan.groups[0].batches[0].members.size(), 2);
}

// Updates of the parameters of some layers, with gradients that are ready late and early.
Graph UpdateGraph(const optim::Adam& optimizer, DType dtype) {
  Graph graph;
  Scope scope(graph, CoreOps());
  Value h = scope.Input("x", dtype, {5, 6});
  std::vector<Value> variables;
  for (int layer = 0; layer < 3; ++layer) {
    const Value w =
        scope.Variable(absl::StrCat("w", layer), BroadcastTo(scope.Constant(Tensor::ScalarOf(dtype, 0.5)), {6, 6}));
    const Value b =
        scope.Variable(absl::StrCat("b", layer), BroadcastTo(scope.Constant(Tensor::ScalarOf(dtype, 0.1)), {6}));
    variables.push_back(w);
    variables.push_back(b);
    h = Sigmoid(MatMul(h, w) + b);
  }
  const Update update = optimizer.Minimize(Mean(h), variables);
  EXPECT_TRUE(graph.status().ok()) << graph.status();
  graph.SetOutput("updates", update.assignments);
  const absl::StatusOr<Graph> specialized = EliminateDeadNodes(*Specialize(graph, {}));
  return *EliminateCommonSubexpressions(*specialized);
}

TEST(CudaFusion, UpdatesOfAllParametersAreOneLaunch) {
  const Graph graph = UpdateGraph(optim::Adam{.learning_rate = 0.1}, kFloat64);
  FusionPlan plan;
  EXPECT_EQ(CheckPlan(graph, 1e-11, &plan), "");
  // Six parameters with two slots each: one group has eighteen results, and its chains share one
  // program.
  const auto last = std::max_element(plan.groups.begin(), plan.groups.end(),
                                     [](const auto& a, const auto& b) { return a.outputs.size() < b.outputs.size(); });
  EXPECT_EQ(last->chains.size(), 6);
  EXPECT_EQ(last->outputs.size(), 18);
  TestDevice device;
  std::mt19937 random(1);
  std::vector<Tensor> operands;
  std::vector<TensorType> types;
  for (Port port : last->operands) operands.push_back(RandomTensor(graph.type(port), random));
  for (Port port : last->outputs) types.push_back(graph.type(port));
  EXPECT_TRUE(device.Run(cuda_emulated::MakeFusedKernel(graph, *last, {}), types, operands).ok());
  EXPECT_EQ(device.api().TakeKernelNames(), std::vector<std::string>{"fused_elements"});
}

TEST(CudaFusion, ManyParametersAndLongChainsAreSplit) {
  Graph graph;
  Scope scope(graph, CoreOps());
  std::vector<Value> results;
  const Value rate = scope.Input("rate", kFloat64, {});
  // More tensors than the parameters of one launch hold.
  for (int i = 0; i < 70; ++i) {
    const Value w = scope.Input(absl::StrCat("w", i), kFloat64, {i + 1}),
                g = scope.Input(absl::StrCat("g", i), kFloat64, {i + 1});
    results.push_back(w - g * rate);
  }
  // More instructions than a program holds.
  Value x = scope.Input("x", kFloat64, {3, 3});
  for (int i = 0; i < 200; ++i) x = Sin(x);
  results.push_back(x);
  // More operands than registers or tensors.
  Value sum = scope.Input("y0", kFloat64, {2, 9});
  for (int i = 1; i < 30; ++i) sum = sum + scope.Input(absl::StrCat("y", i), kFloat64, {2, 9});
  results.push_back(sum);
  graph.SetOutput("results", results);
  FusionPlan plan;
  EXPECT_EQ(CheckPlan(graph, 1e-12, &plan), "");
  ASSERT_EQ(plan.groups.size(), 1);
  EXPECT_EQ(plan.groups[0].chains.size(), 70);
}

TEST(CudaFusion, OneOpOnALargeTensorStaysAlone) {
  Graph graph;
  Scope scope(graph, CoreOps());
  const Value large = scope.Input("large", kFloat32, {300, 300}), small = scope.Input("small", kFloat32, {3});
  const Value of_large = Neg(large), of_small = Neg(small);
  graph.SetOutput("results", {of_large, of_small});
  EXPECT_TRUE(FindFusedGroups(graph).groups.empty());
  graph.SetOutput("results", {of_large, of_small, Exp(small)});
  const FusionPlan plan = FindFusedGroups(graph);
  ASSERT_EQ(plan.groups.size(), 1);
  EXPECT_EQ(plan.groups[0].nodes.size(), 2);
}

// Returns the number of launches of a plan: its computing nodes and its groups.
int Steps(const Graph& graph, const FusionPlan& plan) {
  const std::set<std::string> held = {"Input", "Variable", "Constant", "Assign"};
  return static_cast<int>(std::count_if(plan.order.begin(), plan.order.end(), [&](OrderItem item) {
    if (!item.is_node()) return true;
    const OpDefinition& op = *graph.node(item.node()).op;
    return held.count(op.name) == 0 && !op.alias;
  }));
}

struct StepCounts {
  int apart, together;  // Steps with reductions as separate nodes, and with reductions that end chains.
  FusionPlan plan;      // The plan with reductions.
};
StepCounts CountSteps(const std::vector<Value>& results, Graph& graph) {
  graph.SetOutput("results", results);
  EXPECT_TRUE(graph.status().ok()) << graph.status();
  const absl::StatusOr<Graph> specialized = EliminateDeadNodes(*Specialize(graph, {}, true));
  StepCounts counts;
  EXPECT_EQ(CheckPlan(*specialized, 1e-4, &counts.plan), "");
  counts.apart = Steps(*specialized, counts.plan);
  EXPECT_EQ(CheckPlan(*specialized, 1e-4, &counts.plan, {.reductions = true}), "");
  counts.together = Steps(*specialized, counts.plan);
  return counts;
}

TEST(CudaFusion, TheMeanOfALossIsAPartOfItsChain) {
  Graph graph;
  Scope scope(graph, CoreOps());
  const Value x = scope.Input("x", kFloat32, {40, 300}), y = scope.Input("y", kFloat32, {40, 300});
  const StepCounts counts = CountSteps({Mean(Square(x - y))}, graph);
  EXPECT_EQ(counts.apart, 3);     // Squares, sum and quotient.
  EXPECT_EQ(counts.together, 2);  // Sum of squares, and quotient.
  ASSERT_EQ(counts.plan.groups.size(), 1);
  // The squares are not stored.
  EXPECT_EQ(counts.plan.groups[0].outputs.size(), 1);
  EXPECT_TRUE(counts.plan.groups[0].chains[0].outputs.empty());
}

TEST(CudaFusion, ABiasGradientIsAPartOfTheActivationsGradient) {
  Graph graph;
  Scope scope(graph, CoreOps());
  const Value y = scope.Input("y", kFloat32, {64, 100}), dy = scope.Input("dy", kFloat32, {64, 100});
  const Value dz = AddOp("SigmoidGrad", {dy, y}), w = scope.Input("w", kFloat32, {100, 3});
  const StepCounts counts = CountSteps({MatMul(dz, w), Sum(dz, {.axes = {0}})}, graph);
  EXPECT_EQ(counts.apart, 3);
  EXPECT_EQ(counts.together, 2);
  ASSERT_EQ(counts.plan.groups.size(), 1);
  // The product reads the gradient, so the group stores it too.
  EXPECT_EQ(counts.plan.groups[0].outputs.size(), 2);
}

TEST(CudaFusion, LayerNormHasItsSecondSumInAChain) {
  Graph graph;
  Scope scope(graph, CoreOps());
  const Value x = scope.Input("x", kFloat32, {20, 600});
  const Value scale = scope.Input("scale", kFloat32, {600}), offset = scope.Input("offset", kFloat32, {600});
  const StepCounts counts = CountSteps({LayerNorm(x, scale, offset)}, graph);
  // Sum, mean, squares, [sum,] factors of rows, result.
  EXPECT_EQ(counts.apart, 6);
  EXPECT_EQ(counts.together, 5);
}

TEST(CudaFusion, ReductionsOfOneChainShareAPass) {
  Graph graph;
  Scope scope(graph, CoreOps());
  const Value x = Exp(scope.Input("x", kFloat32, {30, 40}));
  // The two reductions over columns run with the chain; the one over rows does not.
  const StepCounts counts = CountSteps({Sum(x, {.axes = {1}}), Sum(x, {.axes = {0}}), Max(x, {.axes = {0}})}, graph);
  EXPECT_EQ(counts.apart, 4);
  EXPECT_EQ(counts.together, 2);
  ASSERT_EQ(counts.plan.groups.size(), 1);
  EXPECT_EQ(counts.plan.groups[0].chains[0].reductions.size(), 2);
}

TEST(CudaFusion, ASumOverAxesOfSizeOneIsNone) {
  Graph graph;
  Scope scope(graph, CoreOps());
  const Value x = scope.Input("x", kFloat32, {1, 5});
  EXPECT_TRUE(CountSteps({Sum(Exp(x), {.axes = {0}})}, graph).plan.groups.empty());
}

TEST(CudaFusion, SumsOfAFewLongColumnsStayAlone) {
  for (int columns : {3, 16}) {
    Graph graph;
    Scope scope(graph, CoreOps());
    const Value x = scope.Input("x", kFloat32, {30000, columns});
    const StepCounts counts = CountSteps({Sum(Exp(x * 0.1), {.axes = {0}})}, graph);
    EXPECT_EQ(counts.together, columns == 3 ? 2 : 1);
  }
}

// Random graphs: chains that branch and join, around nodes that cannot be fused and numbers that
// broadcast.
TEST(CudaFusion, AnyGraphKeepsItsOrder) {
  for (int seed = 0; seed < 60; ++seed) {
    std::mt19937 random(seed);
    Graph graph;
    Scope scope(graph, CoreOps());
    std::vector<Value> values = {scope.Input("a", kFloat64, {4, 4}), scope.Input("b", kFloat64, {4, 4}),
                                 scope.Input("c", kFloat64, {}), scope.Input("d", kFloat64, {4})};
    for (int i = 0; i < 40; ++i) {
      const Value x = values[random() % values.size()], y = values[random() % values.size()];
      switch (random() % 12) {
        case 0:
          values.push_back(Tanh(x));
          break;
        case 1:
          values.push_back(Neg(x));
          break;
        case 2:
          values.push_back(Minimum(x, y));
          break;
        case 3:
          values.push_back(Tanh(x * y));
          break;
        case 4:
          values.push_back(Where(Greater(x, y), x, y));
          break;
        case 5:
          values.push_back(Mean(x));
          break;
        case 6:
          if (x.rank() == 2) values.push_back(Transpose(x));
          break;
        case 7:
          if (x.rank() == 2) values.push_back(x - Sum(x, {.axes = {1}, .keep_dims = true}));
          break;
        case 8:
          if (x.rank() == 2) values.push_back(Softmax(y.rank() == 2 ? x + y : x));
          break;
        case 9:
          if (x.rank() == 2) values.push_back(Reshape(Sum(Reshape(Tanh(x), {2, 2, 4}), {.axes = {0, 1}}), {4}));
          break;
        case 10:
          if (x.rank() == 2) values.push_back(Reshape(Tanh(Reshape(x, {2, 2, 4})), {4, 4}));
          break;
        default:
          if (x.rank() == 2) values.push_back(Tanh(Sum(x, {.axes = {0}})));
      }
    }
    ASSERT_TRUE(graph.status().ok()) << graph.status();
    graph.SetOutput("results", {values.back(), values[values.size() / 2]});
    const absl::StatusOr<Graph> needed = EliminateDeadNodes(graph);
    ASSERT_TRUE(needed.ok());
    EXPECT_EQ(CheckPlan(*needed, 1e-11), "") << "seed " << seed;
    EXPECT_EQ(CheckPlan(*needed, 1e-11, nullptr, {.reductions = true}), "") << "seed " << seed << " with reductions";
    EXPECT_EQ(CheckPlan(*needed, 1e-11, nullptr, {.reductions = true, .rows = true}), "")
        << "seed " << seed << " with rows";
  }
}

// Fuses the derivatives of every op.
TEST(CudaFusion, DerivativesOfEveryRow) {
  for (const OpCase& row : AllOpCases().cases) {
    if (row.derivatives == 0) continue;
    const std::vector<Tensor> operands = MakeOperands(row, kFloat64);
    Graph graph;
    Scope scope(graph, CoreOps());
    std::vector<Value> inputs, wrt;
    for (size_t i = 0; i < operands.size(); ++i) {
      // Operands come from the row, so only fused values differ.
      inputs.push_back(scope.Constant(operands[i]));
      if (IsFloating(operands[i].dtype()) && row.operands[i].differentiate) wrt.push_back(inputs.back());
    }
    graph.SetOutput("results", Gradients({WeightedSum(scope, row.build(inputs), 100)}, wrt));
    ASSERT_TRUE(graph.status().ok()) << graph.status();
    const absl::StatusOr<Graph> specialized = Specialize(graph, {}, true);
    ASSERT_TRUE(specialized.ok()) << specialized.status();
    EXPECT_EQ(CheckPlan(*specialized, 1e-10), "") << row.op << "_" << row.name;
    EXPECT_EQ(CheckPlan(*specialized, 1e-10, nullptr, {.reductions = true}), "") << row.op << "_" << row.name;
    EXPECT_EQ(CheckPlan(*specialized, 1e-10, nullptr, {.reductions = true, .rows = true}), "")
        << row.op << "_" << row.name;
  }
}

}  // namespace
}  // namespace gradweave
