// Kernels of the CUDA device on the emulated device, compared with the CPU's kernels node by node:
// each op's rows, and sizes that reach every path.
#include <algorithm>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "gmock/gmock.h"
#include "gradweave/graph/passes/autodiff.h"
#include "gradweave/graph/passes/passes.h"
#include "gradweave/ops/conv.h"
#include "gradweave/ops/elementwise.h"
#include "gradweave/ops/indexing.h"
#include "gradweave/ops/matmul.h"
#include "gradweave/ops/pool.h"
#include "gradweave/ops/random.h"
#include "gradweave/ops/reduction.h"
#include "gradweave/ops/registry.h"
#include "gradweave/ops/shape_ops.h"
#include "gradweave/ops/softmax.h"
#include "gradweave/runtime/cuda/emulation/emulation.h"
#include "gradweave/runtime/cuda/ops/kernels.h"
#include "gradweave/runtime/kernel/kernel.h"
#include "gtest/gtest.h"
#include "tests/cuda/test_device.h"
#include "tests/ops/op_case.h"

namespace gradweave {
namespace {

// The ops without kernels for CUDA. The CPU runs loops and branches and quantized layers, with
// copies, and shards exchange data of the host. Sessions with a CUDA device run the ops that define
// attention.
const std::set<std::string>& OpsOfTheCpu() {
  static const auto* const ops = new std::set<std::string>{"Scan",
                                                           "If",
                                                           "While",
                                                           "AllReduce",
                                                           "AllGather",
                                                           "ReduceScatter",
                                                           "Broadcast",
                                                           "ShardIndex",
                                                           "ScaledDotProductAttention",
                                                           "ScaledDotProductAttentionGrad",
                                                           "Quantize",
                                                           "QuantizedConv2D",
                                                           "QuantizedMatMul",
                                                           "QuantizedMaxPool2D"};
  return *ops;
}

using ::testing::HasSubstr;

// Results of the two devices may differ by the row's tolerance, as each may from the reference.
// Sums have another order, and functions of the C library differ in their last bits.

// Ops whose results are the same bits on every device, besides those on integers and bools.
bool GivesSameBits(const Node& node) {
  static const std::set<std::string> kOps = {"RandomUniform",
                                             "RandomNormal",
                                             "Reshape",
                                             "Transpose",
                                             "BroadcastTo",
                                             "Slice",
                                             "Concat",
                                             "Pad",
                                             "SliceAdd",
                                             "Reverse",
                                             "Gather",
                                             "OneHot",
                                             "Where",
                                             "MaxPool2D",
                                             "Max",
                                             "Min",
                                             "StopGradient",
                                             "Neg",
                                             "Abs",
                                             "Add",
                                             "Sub",
                                             "Mul",
                                             "Div",
                                             "ScatterAdd",
                                             "MaxPool2DGather",
                                             "Cast",
                                             "Clip",
                                             "Relu",
                                             "ReluGrad",
                                             "Sign",
                                             "Floor",
                                             "Ceil",
                                             "Round",
                                             "RoundToFloat16",
                                             "RoundToBFloat16"};
  return kOps.count(node.op->name) > 0;
}

// True for comparisons and casts of a dtype that only stores numbers. A session runs them on the
// CPU.
bool ComputesWithStorage(const Graph& graph, const Node& node) {
  if (node.op->kind != OpKind::kCast && node.outputs[0].dtype != kBool) return false;
  return !kComputed.Contains(graph.type(node.inputs[0]).dtype) || !kComputed.Contains(node.outputs[0].dtype);
}

std::string CompareOnDevices(const OpCase& row, const Node& node, const std::vector<Tensor>& expected,
                             const std::vector<Tensor>& actual) {
  for (size_t k = 0; k < expected.size(); ++k) {
    const DType dtype = expected[k].dtype();
    const bool exact = !IsFloating(dtype) || GivesSameBits(node);
    const Array array{{expected[k].sizes().begin(), expected[k].sizes().end()}, expected[k].ToDoubles()};
    const double tolerance = exact ? 0 : (dtype == kFloat32 ? row.float32_tolerance : row.float64_tolerance);
    const std::string difference = Compare({array}, {actual[k]}, tolerance);
    if (!difference.empty()) return difference;
  }
  return "";
}

// Runs a graph node by node on the CPU, and each node with the same operands on the device. Results
// must agree within the tolerance, and be the same bits with another order of threads and in place
// of operands where the kernel allows it. Stores the device's results of the ports in `results`.
std::string CheckGraph(TestDevice& device, const OpCase& row, const Graph& unspecialized,
                       const std::vector<Tensor>& operands, std::vector<Tensor>* results) {
  const absl::StatusOr<Graph> specialized = Specialize(unspecialized, {}, true);
  if (!specialized.ok()) return std::string(specialized.status().message());
  const Graph& graph = *specialized;
  std::vector<std::vector<Tensor>> on_cpu(graph.num_nodes()), on_device(graph.num_nodes());
  for (const Node& node : graph.nodes()) {
    std::vector<Tensor>& expected = on_cpu[node.id];
    std::vector<Tensor> inputs;
    for (Port input : node.inputs) inputs.push_back(on_cpu[input.node][input.output]);
    if (node.op->name == "Input") {
      const std::string number = node.name.substr(node.name.rfind('_') + 1);
      expected = {operands[std::stoi(number)]};
    } else if (node.op->name == "Constant") {
      expected = {node.attribute<Tensor>("value")};
    } else if (node.op->name == "Assign") {
      expected = {inputs[1]};
    } else if (node.op->name == "Copy") {
      expected = {inputs[0]};
    } else {
      const absl::StatusOr<std::vector<Tensor>> cpu = RunOnCpu(node, inputs);
      if (!cpu.ok()) return absl::StrCat(DescribeNode(graph, node), " on the CPU: ", cpu.status().message());
      expected = *cpu;
      if (OpsOfTheCpu().count(node.op->name) > 0) {
        on_device[node.id] = expected;
        continue;
      }
      emulation::SetSeed(1);
      const absl::StatusOr<std::vector<Tensor>> first = device.Run(node, inputs);
      if (ComputesWithStorage(graph, node)) {
        if (!absl::IsUnimplemented(first.status())) return absl::StrCat(DescribeNode(graph, node), " has a kernel");
        on_device[node.id] = expected;
        continue;
      }
      if (!first.ok()) return absl::StrCat(DescribeNode(graph, node), ": ", first.status().message());
      const std::string difference = CompareOnDevices(row, node, expected, *first);
      if (!difference.empty()) return absl::StrCat(DescribeNode(graph, node), ": ", difference);
      for (int in_place = -1; in_place < device.OverwritesOf(node, inputs); ++in_place) {
        emulation::SetSeed(in_place + 10);
        const absl::StatusOr<std::vector<Tensor>> again = device.Run(node, inputs, in_place);
        if (!again.ok()) return absl::StrCat(DescribeNode(graph, node), ": ", again.status().message());
        if (!std::equal(first->begin(), first->end(), again->begin(), SameBits)) {
          return absl::StrCat(DescribeNode(graph, node),
                              in_place < 0 ? ": another order of threads gives other bits"
                                           : absl::StrCat(": overwriting, choice ", in_place, ", gives other bits"));
        }
      }
      if (device.TakeError() != 0) return absl::StrCat(DescribeNode(graph, node), " reports bad data");
      on_device[node.id] = *first;
      continue;
    }
    on_device[node.id] = expected;
  }
  for (Port port : graph.outputs().at("results")) results->push_back(on_device[port.node][port.output]);
  return "";
}

// Checks the row in one precision, or with its first and second derivatives in float64.
std::string CheckRow(TestDevice& device, const OpCase& row, DType floating, bool derivatives) {
  const std::vector<Tensor> operands = MakeOperands(row, floating);
  Graph graph;
  Scope scope(graph);
  std::vector<Value> inputs, wrt;
  for (size_t i = 0; i < operands.size(); ++i) {
    inputs.push_back(scope.Input(absl::StrCat("operand_", i), operands[i].dtype(), operands[i].shape()));
    if (IsFloating(operands[i].dtype()) && row.operands[i].differentiate) wrt.push_back(inputs.back());
  }
  std::vector<Value> results = row.build(inputs);
  if (derivatives) {
    results = Gradients({WeightedSum(scope, results, 100)}, wrt);
    if (row.derivatives >= 2) results = Gradients({WeightedSum(scope, results, 200)}, wrt);
  }
  if (!graph.status().ok()) return std::string(graph.status().message());
  graph.SetOutput("results", results);
  std::vector<Tensor> actual;
  std::string difference = CheckGraph(device, row, graph, operands, &actual);
  if (!difference.empty() || row.reference == nullptr || derivatives) return difference;
  std::vector<Array> arrays;
  for (const Tensor& operand : operands)
    arrays.push_back({{operand.sizes().begin(), operand.sizes().end()}, operand.ToDoubles()});
  return Compare(row.reference(arrays), actual, floating == kFloat32 ? row.float32_tolerance : row.float64_tolerance);
}

std::string CheckOnDevice(const OpCase& row) {
  TestDevice device;
  const bool has_floating = std::any_of(row.operands.begin(), row.operands.end(),
                                        [](const OperandCase& operand) { return IsFloating(operand.dtype); });
  for (DType floating : {kFloat64, kFloat32}) {
    if (floating == kFloat32 && !has_floating) continue;
    if (std::string failure = CheckRow(device, row, floating, false); !failure.empty())
      return absl::StrCat(DTypeName(floating), ": ", failure);
  }
  if (row.derivatives == 0) return "";
  const std::string failure = CheckRow(device, row, kFloat64, true);
  return failure.empty() ? "" : absl::StrCat("derivatives: ", failure);
}

std::string NameOfCase(const ::testing::TestParamInfo<OpCase>& info) { return info.param.op + "_" + info.param.name; }

class CudaOps : public ::testing::TestWithParam<OpCase> {};

TEST_P(CudaOps, AgreeWithTheCpu) { EXPECT_EQ(CheckOnDevice(GetParam()), ""); }

INSTANTIATE_TEST_SUITE_P(Rows, CudaOps, ::testing::ValuesIn(AllOpCases().cases), NameOfCase);

using Values = std::vector<Value>;

// Sizes that the harness' small rows do not reach: several blocks, packs with remainders, long
// rows, rows in parts, tiles at the edge. The reference is the CPU.
std::vector<OpCase> LargeCases() {
  const OperandCase indices_64 = {{64}, kInt32, 0, 9.99};
  std::vector<OpCase> rows = {
      {"Exp", "packs", {{{1027}}}, [](const Values& x) { return Values{Exp(x[0])}; }, nullptr, 0},
      {"Cast", "packs", {{{1030}}}, [](const Values& x) { return Values{Cast(x[0], kUint8)}; }, nullptr, 0},
      {"Add", "packs", {{{3, 345}}, {{3, 345}}}, [](const Values& x) { return Values{x[0] + x[1]}; }, nullptr, 0},
      {"Mul", "number", {{{1031}}, {{}}}, [](const Values& x) { return Values{x[1] * x[0]}; }, nullptr, 0},
      {"Add", "bias", {{{3, 5, 67}}, {{5, 1}}}, [](const Values& x) { return Values{x[0] + x[1]}; }, nullptr, 0},
      {"Where",
       "packs",
       {{{515}, kBool, 0, 2}, {{515}}, {{515}}},
       [](const Values& x) { return Values{Where(x[0], x[1], x[2])}; },
       nullptr,
       0},
      {"RandomNormal",
       "odd_count",
       {{{7}}},
       [](const Values& x) {
         Scope scope(*x[0].graph());
         return Values{RandomNormal(scope, {1001}, 1, 2, {.dtype = x[0].dtype(), .seed = 7})};
       },
       nullptr,
       0},
      {"Sum", "long_row", {{{3, 1500}}}, [](const Values& x) { return Values{Sum(x[0], {.axes = {1}})}; }, nullptr, 0},
      {"Sum", "row_in_parts", {{{9000}}}, [](const Values& x) { return Values{Sum(x[0])}; }, nullptr, 0},
      {"Sum",
       "columns_in_parts",
       {{{300, 37}}},
       [](const Values& x) { return Values{Sum(x[0], {.axes = {0}})}; },
       nullptr,
       0},
      {"Sum",
       "channels",
       {{{9, 5, 70}}},
       [](const Values& x) {
         return Values{Sum(x[0], {.axes = {0, 2}})};
       },
       nullptr,
       0},
      {"Max", "row_in_parts", {{{9000}}}, [](const Values& x) { return Values{Max(x[0])}; }, nullptr, 0},
      {"LogSumExp",
       "long_row",
       {{{2, 5000}}},
       [](const Values& x) { return Values{LogSumExp(x[0], {.axes = {1}})}; },
       nullptr,
       0},
      {"ArgMax",
       "ties",
       {{{2, 5000}, kInt32, 0, 9}},
       [](const Values& x) {
         return Values{ArgMax(x[0], {.axis = 1}), ArgMin(x[0], {.axis = 1})};
       },
       nullptr,
       0},
      {"ArgMax",
       "columns",
       {{{200, 40}}},
       [](const Values& x) { return Values{ArgMax(x[0], {.axis = 0, .dtype = kInt32})}; },
       nullptr,
       0},
      {"Prod",
       "long_row",
       {{{2, 700}, kFloat64, 0.99, 1.01}},
       [](const Values& x) { return Values{Prod(x[0], {.axes = {1}})}; },
       nullptr,
       2},
      {"Transpose",
       "tiles",
       {{{2, 45, 70}}},
       [](const Values& x) {
         return Values{Transpose(x[0], {0, 2, 1})};
       },
       nullptr,
       0},
      {"Slice",
       "wide",
       {{{5, 32}}},
       [](const Values& x) {
         return Values{SliceAxis(x[0], 1, 8, 24), SliceAxis(x[0], 1, 1, 30, 3)};
       },
       nullptr,
       0},
      {"Concat",
       "wide",
       {{{5, 16}}, {{5, 8}}, {{5, 3}}},
       [](const Values& x) {
         return Values{Concat({x[0], x[1]}, 1), Concat({x[0], x[2]}, 1)};
       },
       nullptr,
       0},
      {"Gather",
       "wide_rows",
       {{{10, 36}}, indices_64},
       [](const Values& x) { return Values{Gather(x[0], x[1])}; },
       nullptr,
       1},
      {"ScatterAdd",
       "equal_indices",
       {{{600, 35}}, {{70}, kInt32, 0, 599.99}, {{70, 35}}, {{10, 2}}, indices_64, {{64, 2}}},
       [](const Values& x) {
         return Values{ScatterAdd(x[0], x[1], x[2]), ScatterAdd(x[3], x[4], x[5])};
       },
       nullptr,
       0},
      {"Softmax", "long_rows", {{{2, 1500}}}, [](const Values& x) { return Values{Softmax(x[0], 1)}; }, nullptr, 0},
      {"LogSoftmax",
       "columns",
       {{{2, 40, 70}}},
       [](const Values& x) { return Values{LogSoftmax(x[0], 1)}; },
       nullptr,
       0},
      {"SparseSoftmaxCrossEntropy",
       "long_rows",
       {{{3, 1200}}, {{3}, kInt64, 0, 1199.99}},
       [](const Values& x) { return Values{SparseSoftmaxCrossEntropy(x[0], x[1])}; },
       nullptr,
       1},
      {"MatMul",
       "batch_of_broadcast",
       {{{2, 1, 3, 4}}, {{3, 4, 5}}},
       [](const Values& x) { return Values{MatMul(x[0], x[1])}; },
       nullptr,
       0},
      {"MaxPool2D",
       "overlapping",
       {{{2, 3, 15, 14}, kFloat64, 0, 3}},
       [](const Values& x) {
         return Values{MaxPool2D(Floor(x[0]), {.window = {3, 3}, .stride = {1, 2}, .padding = {1, 1}}),
                       AvgPool2D(x[0], {.window = {3, 3}, .stride = {1, 2}, .padding = {1, 1}})};
       },
       nullptr,
       1},
  };
  struct ConvRow {
    const char* name;
    std::vector<int64_t> x, filter;
    Conv2DOptions options;
  };
  const ConvRow convolutions[] = {
      // Direct convolutions: several tiles and several blocks of channels, outputs and samples.
      {"direct_lenet", {3, 1, 28, 28}, {6, 1, 5, 5}, {.padding = {2, 2}}},
      {"direct_channels", {2, 20, 12, 40}, {12, 20, 3, 3}, {.padding = {1, 1}}},
      {"direct_stride", {2, 3, 21, 17}, {10, 3, 3, 5}, {.stride = {2, 1}, .padding = {1, 0}, .dilation = {1, 2}}},
      {"direct_depthwise", {2, 5, 9, 9}, {5, 1, 3, 3}, {.padding = {1, 1}, .groups = 5}},
      // Convolutions as products: more channels than the direct form takes.
      {"gemm", {2, 34, 5, 6}, {3, 34, 3, 2}, {.padding = {1, 0}}},
      {"gemm_stride_groups", {3, 6, 7, 6}, {80, 3, 3, 2}, {.stride = {2, 2}, .padding = {1, 1}, .groups = 2}},
  };
  for (const ConvRow& row : convolutions) {
    rows.push_back({"Conv2D",
                    row.name,
                    {{row.x}, {row.filter}, {{row.filter[0]}}},
                    [options = row.options](const Values& x) { return Values{Conv2D(x[0], x[1], x[2], options)}; },
                    nullptr,
                    1});
  }
  return rows;
}

INSTANTIATE_TEST_SUITE_P(Large, CudaOps, ::testing::ValuesIn(LargeCases()), NameOfCase);

TEST(CudaKernels, EveryOpThatCudaRunsHasAKernel) {
  // The session owns or moves the memory of these ops; there is nothing to run.
  const std::set<std::string> held = {"Input", "Constant", "Variable", "Assign", "Copy"};
  for (const auto& op : CoreOps().definitions()) {
    if (OpsOfTheCpu().count(op->name) > 0) continue;
    EXPECT_TRUE(held.count(op->name) || cuda_emulated::CudaKernels().Find(op->name) != nullptr) << op->name;
  }
}

// Expects that a node with bad data reports its id and accesses no memory outside its tensors.
void ExpectReport(const Value& value, const std::vector<Tensor>& operands) {
  ASSERT_TRUE(value.graph()->status().ok()) << value.graph()->status();
  TestDevice device;
  const absl::StatusOr<std::vector<Tensor>> results = device.Run(value.node(), operands);
  EXPECT_TRUE(results.ok()) << results.status();
  EXPECT_EQ(device.TakeError(), value.node().id + 1) << value.node().op->name;
}

TEST(CudaKernels, ReportBadData) {
  Graph graph;
  Scope scope(graph);
  const Tensor x(kFloat32, {2, 3}), labels = Tensor::Of<int32_t>({2}, {1, 3}), dy(kFloat32, {2});
  const Tensor rows = Tensor::Of<int64_t>({2}, {-1, 0}), updates(kFloat32, {2, 3});
  const Tensor image(kFloat32, {1, 1, 2, 2}), place = Tensor::Of<int32_t>({1, 1, 1, 1}, {4}),
                                              pixel(kFloat32, {1, 1, 1, 1});
  auto input = [&, n = 0](const Tensor& tensor) mutable {
    return scope.Input(absl::StrCat("x", n++), tensor.dtype(), tensor.shape());
  };
  ExpectReport(SparseSoftmaxCrossEntropy(input(x), input(labels)), {x, labels});
  ExpectReport(AddOp("SparseSoftmaxCrossEntropyGrad", {input(x), input(labels), input(dy)}), {x, labels, dy});
  ExpectReport(Gather(input(x), input(rows)), {x, rows});
  ExpectReport(ScatterAdd(input(x), input(rows), input(updates)), {x, rows, updates});
  ExpectReport(OneHot(input(labels), 3), {labels});
  ExpectReport(OneHot(input(labels), 0), {labels});
  ExpectReport(AddOp("MaxUnpool2D", {input(pixel), input(place)}, {{"input_shape", Shape({1, 1, 2, 2})}}),
               {pixel, place});
  ExpectReport(AddOp("MaxPool2DGather", {input(image), input(place)}), {image, place});
}

// An axis of an empty tensor may exceed 32 bits.
TEST(CudaKernels, TakeLongAxesOfEmptyTensors) {
  constexpr int64_t kLong = int64_t{1} << 32;
  Graph graph;
  Scope scope(graph);
  const Value x = scope.Input("x", kFloat32, {0, kLong}), indices = scope.Input("indices", kInt32, {0}),
              column = scope.Input("column", kFloat32, {0, 1});
  const Tensor x_value(kFloat32, {0, kLong}), no_indices(kInt32, {0}), no_column(kFloat32, {0, 1});
  const std::pair<Value, std::vector<Tensor>> rows[] = {
      {OneHot(indices, kLong), {no_indices}},
      {Gather(x, indices), {x_value, no_indices}},
      {ScatterAdd(x, indices, x), {x_value, no_indices, x_value}},
      {Softmax(x, 0), {x_value}},
      {Add(x, column), {x_value, no_column}},
  };
  ASSERT_TRUE(graph.status().ok()) << graph.status();
  for (const auto& [value, operands] : rows) {
    SCOPED_TRACE(value.node().op->name);
    TestDevice device;
    for (const auto& results : {device.Run(value.node(), operands), RunOnCpu(value.node(), operands)}) {
      ASSERT_TRUE(results.ok()) << results.status();
      EXPECT_EQ((*results)[0].num_elements(), 0);
    }
    EXPECT_EQ(device.TakeError(), 0);
  }
}

// More pieces of work than a launch has warps.
TEST(CudaKernels, ScattersInTurns) {
  constexpr int64_t kOuter = 150, kSize = 256;
  Graph graph;
  Scope scope(graph);
  const Value y = ScatterAdd(scope.Input("x", kFloat32, {kOuter, kSize}), scope.Input("rows", kInt32, {3}),
                             scope.Input("updates", kFloat32, {kOuter, 3}), 1);
  ASSERT_TRUE(graph.status().ok()) << graph.status();
  Tensor x(kFloat32, {kOuter, kSize}), updates(kFloat32, {kOuter, 3});
  for (int64_t i = 0; i < x.num_elements(); ++i) x.mutable_data<float>()[i] = static_cast<float>(i % 13);
  for (int64_t i = 0; i < updates.num_elements(); ++i) updates.mutable_data<float>()[i] = static_cast<float>(i % 17);
  const std::vector<Tensor> operands = {x, Tensor::Of<int32_t>({3}, {255, 0, 255}), updates};
  TestDevice device;
  const absl::StatusOr<std::vector<Tensor>> got = device.Run(y.node(), operands), want = RunOnCpu(y.node(), operands);
  ASSERT_TRUE(got.ok()) << got.status();
  EXPECT_EQ((*got)[0].ToDoubles(), (*want)[0].ToDoubles());
}

TEST(CudaKernels, ColumnsOfTwoBillionElementsAreRefused) {
  Graph graph;
  Scope scope(graph);
  const Value x = scope.Input("x", kFloat32, {1, 256, 1024, 1024}),
              filter = scope.Input("f", kFloat32, {64, 256, 3, 3});
  const Value y = Conv2D(x, filter);
  const std::vector<Value> gradients = Gradients({Sum(y)}, {x, filter});
  ASSERT_TRUE(graph.status().ok()) << graph.status();
  for (const Value& value : {y, gradients[0], gradients[1]}) {
    const Node& node = value.node();
    const absl::StatusOr<Kernel> kernel =
        (*cuda_emulated::CudaKernels().Find(node.op->name))({node, graph.OperandTypes(node), 1});
    EXPECT_EQ(kernel.status().code(), absl::StatusCode::kUnimplemented) << node.op->name;
    EXPECT_THAT(kernel.status().message(), HasSubstr("im2col matrices of less than 2^31 elements"));
  }
}

TEST(CudaKernels, TensorsOfTwoBillionElementsAreRefused) {
  Graph graph;
  Scope scope(graph);
  const Value y = Exp(scope.Input("x", kFloat32, {1 << 16, 1 << 15}));
  const absl::StatusOr<Kernel> kernel = (*cuda_emulated::CudaKernels().Find("Exp"))({y.node(), {y.type()}, 1});
  EXPECT_EQ(kernel.status().code(), absl::StatusCode::kUnimplemented);
  EXPECT_THAT(kernel.status().message(), HasSubstr("less than 2^31 elements"));
}

}  // namespace
}  // namespace gradweave
