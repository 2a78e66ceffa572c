// Ops on float16 and bfloat16: they compute in float32 and round their results once.
#include <algorithm>
#include <cmath>
#include <limits>
#include <set>
#include <string>
#include <vector>

#include "gmock/gmock.h"
#include "gradweave/graph/body.h"
#include "gradweave/graph/passes/autodiff.h"
#include "gradweave/graph/passes/widen_halves.h"
#include "gradweave/graph/status_macros.h"
#include "gradweave/ops/conv.h"
#include "gradweave/ops/elementwise.h"
#include "gradweave/ops/matmul.h"
#include "gradweave/ops/reduction.h"
#include "gradweave/ops/shape_ops.h"
#include "gradweave/ops/softmax.h"
#include "gradweave/runtime/session/session.h"
#include "gtest/gtest.h"
#include "tests/ops/op_case.h"

namespace gradweave {
namespace {

using ::testing::IsSupersetOf;

// A row's op on inputs of a type.
struct Applied {
  Graph graph;
  std::vector<Value> inputs, results;

  Applied(const OpCase& row, const std::vector<Tensor>& operands) {
    Scope scope(graph);
    for (size_t i = 0; i < operands.size(); ++i)
      inputs.push_back(scope.Input(absl::StrCat("operand_", i), operands[i].dtype(), operands[i].shape()));
    results = row.build(inputs);
  }

  // The only node beside inputs; null if there are more.
  const Node* only_node() const {
    const Node* only = nullptr;
    for (const Node& node : graph.nodes()) {
      if (node.op->kind == OpKind::kInput) continue;
      if (only != nullptr) return nullptr;
      only = &node;
    }
    return only;
  }

  absl::StatusOr<std::vector<Tensor>> Run(const std::vector<Tensor>& operands, SessionOptions options) const {
    GW_ASSIGN_OR_RETURN(Session session, Session::Create(graph, options));
    std::vector<Feed> feeds;
    for (size_t i = 0; i < inputs.size(); ++i) feeds.emplace_back(inputs[i], operands[i]);
    return session.Run(feeds, std::vector<Fetch>(results.begin(), results.end()));
  }
};

// One kernel for each node, so that nothing depends on what stands around a node.
SessionOptions Alone(int threads) {
  return {.threads = threads, .seed = 5, .batch_tiles = BatchTiles::kNever, .row_fusion = RowFusion::kNever};
}

class Halves : public ::testing::TestWithParam<DType> {};

// True if no element differs by more than one step of bfloat16, which has 8 bits.
bool DifferByOneStep(const Tensor& x, const Tensor& y) {
  const std::vector<double> a = x.ToDoubles(), b = y.ToDoubles();
  for (size_t i = 0; i < a.size(); ++i) {
    if (!(std::abs(a[i] - b[i]) <= std::abs(b[i]) / 128 + 1e-5)) return false;
  }
  return x.dtype() == y.dtype() && a.size() == b.size();
}

// Every row of the op harness that is one node: the result is that of float32, rounded, bit for bit.
// Products of bfloat16 numbers have a kernel of their own, whose sums have another order.
TEST_P(Halves, AreComputedInFloat32AndRoundedOnce) {
  const DType half = GetParam();
  std::set<std::string> compared;
  // Random numbers, and the reductions of Scatter.
  const std::set<std::string> refused = {"RandomUniform", "RandomNormal", "Scatter"};
  for (const OpCase& row : AllOpCases().cases) {
    std::vector<Tensor> halves = MakeOperands(row, half), floats;
    for (Tensor& operand : halves) floats.push_back(IsHalf(operand.dtype()) ? operand.Cast(kFloat32) : operand);
    if (std::none_of(halves.begin(), halves.end(), [](const Tensor& x) { return IsHalf(x.dtype()); })) continue;
    const Applied in_halves(row, halves), in_floats(row, floats);
    if (!in_floats.graph.status().ok() || in_floats.only_node() == nullptr) continue;
    if (!in_halves.graph.status().ok()) {
      EXPECT_EQ(refused.count(row.op), 1) << row.op << "_" << row.name << in_halves.graph.status();
      continue;
    }
    // It casts around several ops, or has a body of several.
    if (in_halves.only_node() == nullptr || HasBody(*in_halves.only_node())) continue;
    const auto expected = in_floats.Run(floats, Alone(1)), actual = in_halves.Run(halves, Alone(2));
    ASSERT_EQ(expected.ok(), actual.ok()) << row.op << "_" << row.name << ": " << actual.status();
    if (!expected.ok()) continue;
    for (size_t k = 0; k < expected->size(); ++k) {
      const bool rounds = (*expected)[k].dtype() == kFloat32;
      const DType dtype = in_halves.results[k].dtype();
      EXPECT_TRUE(!rounds || in_halves.only_node()->op->kind == OpKind::kCast || IsHalf(dtype)) << row.op;
      const Tensor rounded = rounds ? (*expected)[k].Cast(dtype) : (*expected)[k];
      const bool is_product = in_halves.only_node()->op->mixed_precision == MixedPrecision::kHalf;
      EXPECT_TRUE(SameBits(rounded, (*actual)[k]) ||
                  (half == kBFloat16 && is_product && DifferByOneStep(rounded, (*actual)[k])))
          << row.op << "_" << row.name << " in " << DTypeName(half);
    }
    compared.insert(row.op);
  }
  EXPECT_THAT(compared,
              IsSupersetOf({"MatMul", "Conv2D", "Conv2DInputGrad", "Conv2DFilterGrad", "Add", "Exp", "Sum", "Max",
                            "LogSumExp", "Softmax", "AvgPool2D", "MaxPool2D", "Gather", "Where", "Transpose",
                            "ScaledDotProductAttention", "SparseSoftmaxCrossEntropy", "ArgMax"}));
}

TEST_P(Halves, HaveTheSameBitsInRowsAndTilesAndForAnyNumberOfThreads) {
  const DType half = GetParam();
  Graph graph;
  Scope scope(graph);
  const Value x = scope.Input("x", half, {Dim("n"), 3, 8, 8});
  const Value filter = scope.Input("filter", half, {4, 3, 3, 3});
  const Value y = Tanh(Conv2D(x, filter)) * 3 + 0.1;
  const Value sum = Sum(Softmax(Reshape(y, {x.shape()[0], 144})) * 2, {.axes = {0}});
  ASSERT_TRUE(graph.status().ok()) << graph.status();
  EXPECT_EQ(sum.dtype(), half);
  OpCase row{.operands = {{{33, 3, 8, 8}}, {{4, 3, 3, 3}}}};
  const std::vector<Tensor> operands = MakeOperands(row, half);
  std::vector<std::vector<Tensor>> all;
  for (const RowFusion rows : {RowFusion::kNever, RowFusion::kAlways}) {
    for (const int threads : {1, 2, 3}) {
      absl::StatusOr<Session> session =
          Session::Create(graph, {.threads = threads, .batch_tiles = BatchTiles::kNever, .row_fusion = rows});
      ASSERT_TRUE(session.ok()) << session.status();
      const auto results = session->Run({{x, operands[0]}, {filter, operands[1]}}, {y, sum});
      ASSERT_TRUE(results.ok()) << results.status();
      all.push_back(*results);
      EXPECT_TRUE(SameBits(all.back()[0], all[0][0]));
      EXPECT_TRUE(SameBits(all.back()[1], all[0][1]));
    }
  }
}

// Each op of the graph rounds its result, even if several ops run as one kernel.
TEST_P(Halves, RoundBetweenOpsOfAChain) {
  const DType half = GetParam();
  Graph graph;
  Scope scope(graph);
  const Value x = scope.Input("x", half, {4});
  const Value chain = (x + 1) - 1, there_and_back = Cast(Cast(Cast(x, kFloat32) * 1.0009765625, half), kFloat32);
  absl::StatusOr<Session> session = Session::Create(graph, {.row_fusion = RowFusion::kAlways});
  ASSERT_TRUE(session.ok()) << session.status();
  const Tensor numbers = Tensor::Of<float>({4}, {1e-3f, 0.5f, 3, 1e-6f}).Cast(half);
  const auto results = session->Run({{x, numbers}}, {chain, there_and_back});
  ASSERT_TRUE(results.ok()) << results.status();
  const auto rounded = [&](double number) { return Tensor::ScalarOf(kFloat32, number).Cast(half).ToDouble(); };
  for (int i = 0; i < 4; ++i) {
    const double number = numbers.ToDoubles()[i];
    EXPECT_EQ((*results)[0].ToDoubles()[i], rounded(rounded(number + 1) - 1));
    EXPECT_EQ((*results)[1].ToDoubles()[i], rounded(static_cast<float>(number) * 1.0009765625f));
  }
}

// A chain of halves is one step over float32: no value between its ops is stored as halves.
TEST_P(Halves, JoinChains) {
  Graph graph;
  Scope scope(graph);
  const Value x = scope.Input("x", GetParam(), {256, 64});
  graph.SetOutput("y", {Tanh(x * 2) + x});
  ASSERT_TRUE(graph.status().ok()) << graph.status();
  const absl::StatusOr<Graph> wide = WidenHalves(graph);
  ASSERT_TRUE(wide.ok()) << wide.status();
  int casts_of_matrices = 0;
  for (const Node& node : wide->nodes()) {
    if (node.op->kind == OpKind::kCast && node.outputs[0].shape.rank() == 2) ++casts_of_matrices;
    EXPECT_TRUE(!node.op->elementwise || node.op->kind == OpKind::kCast || node.outputs[0].dtype == kFloat32);
  }
  EXPECT_EQ(casts_of_matrices, 2) << "one of x, and one of the result";
  EXPECT_EQ(wide->type(wide->outputs().at("y")[0]).dtype, GetParam());
}

TEST_P(Halves, HaveGradientsOfTheirType) {
  const DType half = GetParam();
  std::vector<std::vector<double>> gradients;
  for (const DType dtype : {kFloat32, half}) {
    Graph graph;
    Scope scope(graph);
    const Value x = scope.Input("x", dtype, {16, 8}), w = scope.Input("w", dtype, {8, 4});
    const Value loss = Mean(Square(Sigmoid(MatMul(x, w)) - 0.25));
    const Value gradient = Gradients({loss}, {w})[0];
    ASSERT_TRUE(graph.status().ok()) << graph.status();
    EXPECT_EQ(gradient.dtype(), dtype);
    absl::StatusOr<Session> session = Session::Create(graph);
    ASSERT_TRUE(session.ok()) << session.status();
    const std::vector<Tensor> operands = MakeOperands({.operands = {{{16, 8}}, {{8, 4}}}}, dtype);
    const auto results = session->Run({{x, operands[0]}, {w, operands[1]}}, {gradient});
    ASSERT_TRUE(results.ok()) << results.status();
    gradients.push_back((*results)[0].ToDoubles());
  }
  double largest = 0;
  for (double g : gradients[0]) largest = std::max(largest, std::abs(g));
  for (size_t i = 0; i < gradients[0].size(); ++i)
    EXPECT_NEAR(gradients[1][i], gradients[0][i], largest * (half == kFloat16 ? 0.005 : 0.04));
}

// 70,000 ones and more have no sum in float16, but they have a mean.
TEST(HalfMeans, AreTakenInFloat32) {
  Graph graph;
  Scope scope(graph);
  const Value x = scope.Input("x", kFloat16, {140000}), mean = Mean(x), sum = Sum(x);
  absl::StatusOr<Session> session = Session::Create(graph);
  ASSERT_TRUE(session.ok()) << session.status();
  const Tensor ones = Tensor::Of<float>({140000}, std::vector<float>(140000, 1)).Cast(kFloat16);
  const auto results = session->Run({{x, ones}}, {mean, sum});
  ASSERT_TRUE(results.ok()) << results.status();
  EXPECT_EQ((*results)[0].ToDouble(), 1);
  EXPECT_EQ((*results)[1].ToDouble(), std::numeric_limits<double>::infinity());
}

std::string NameOf(const ::testing::TestParamInfo<DType>& info) { return std::string(DTypeName(info.param)); }
INSTANTIATE_TEST_SUITE_P(Types, Halves, ::testing::Values(kFloat16, kBFloat16), NameOf);

}  // namespace
}  // namespace gradweave
