// Exported graphs: import gives the same bits, for any batch and for training steps, and ops that
// ONNX lacks are named.
#include "gradweave/frontend/onnx/export.h"

#include <set>
#include <string>
#include <vector>

#include "examples/lenet_layers.h"
#include "gradweave/frontend/onnx/import.h"
#include "gradweave/gradweave.h"
#include "gradweave/proto/onnx.pb.h"
#include "gtest/gtest.h"

namespace gradweave::onnx {
namespace {

Tensor Ramp(std::vector<int64_t> sizes) {
  Tensor tensor(kFloat32, sizes);
  for (int64_t i = 0; i < tensor.num_elements(); ++i)
    tensor.mutable_data<float>()[i] = static_cast<float>(i * 37 % 101) / 50 - 1;
  return tensor;
}

// Exports the output of a graph with one input x, imports the file and compares the outputs.
void ExpectSameBits(Graph& graph, Value x, Value y, const std::vector<int64_t>& sizes, ExportOptions options = {}) {
  ASSERT_TRUE(graph.status().ok()) << graph.status();
  absl::StatusOr<Session> session = Session::Create(graph);
  ASSERT_TRUE(session.ok()) << session.status();
  const absl::StatusOr<Model> model = ModelOf(*session);
  ASSERT_TRUE(model.ok()) << model.status();
  const std::string path = ::testing::TempDir() + "/exported.onnx";
  const absl::Status exported = Export(*model, {{"answer", y}}, path, options);
  ASSERT_TRUE(exported.ok()) << exported;
  absl::StatusOr<ImportedModel> imported = Import(path);
  ASSERT_TRUE(imported.ok()) << imported.status();
  EXPECT_EQ(imported->Output("answer").type(), y.type());
  absl::StatusOr<Session> again = CreateSession(imported->model);
  ASSERT_TRUE(again.ok()) << again.status();
  const Tensor data = Ramp(sizes);
  const auto expected = session->Run({{x, data}}, {y});
  const auto got = again->Run({{imported->Input("x"), data}}, {imported->Output("answer")});
  ASSERT_TRUE(expected.ok()) << expected.status();
  ASSERT_TRUE(got.ok()) << got.status();
  EXPECT_TRUE(SameBits((*got)[0], (*expected)[0])) << (*got)[0].ToString() << " " << (*expected)[0].ToString();
  // For another runtime (models/check_export.py).
  ASSERT_TRUE(data::WriteNpz(::testing::TempDir() + "/exported.npz", {{"x", data}, {"answer", (*expected)[0]}}).ok());
}

TEST(Export, LeNet) {
  Graph graph;
  Scope scope(graph);
  const Value x = scope.Input("x", kFloat32, {Dim("batch"), 1, 28, 28});
  const Value y = examples::LeNet()(scope, x);
  ExpectSameBits(graph, x, y, {5, 1, 28, 28});
}

TEST(Export, ShapesAndReductions) {
  for (const int64_t opset : {17, 20}) {
    Graph graph;
    Scope scope(graph);
    const Value x = scope.Input("x", kFloat32, {Dim("batch"), 4, Dim("time")});
    const Value spread = BroadcastTo(Max(x, {.axes = {2}, .keep_dims = true}), x.shape());
    Value y = Concat({Transpose(x, {0, 2, 1}), Transpose(Reverse(spread, {1}), {0, 2, 1})}, 2);
    y = Pad(y, {.low = {0, 1, 0}, .high = {0, 0, 2}, .value = 3});
    y = Slice(y, {.start = {0, 0, 5}, .limit = {Dim("batch"), Dim("time"), -1}, .steps = {1, 1, -2}});
    y = Where(Greater(y, 0.5), Clip(y, -1, 2), LeakyRelu(y, 0.3));
    y = Add(Sum(y, {.axes = {2}}), Cast(ArgMax(y, {.axis = 2, .dtype = kInt32}), kFloat32));
    y = Mul(Softmax(y, 1), Cast(DimSize(x, 0), kFloat32));
    ExpectSameBits(graph, x, y, {3, 4, 6}, {.opset = opset});
  }
}

TEST(Export, BatchedProducts) {
  Graph graph;
  Scope scope(graph);
  const Value x = scope.Input("x", kFloat32, {Dim("batch"), 3, 8});
  const Value w = scope.Variable("w", scope.Constant(Ramp({8, 8})));
  ExpectSameBits(graph, x, MatMul(Tanh(MatMul(x, w)), x, {.transpose_b = true}), {2, 3, 8});
}

// ONNX gets the ops that define attention, which differ from its kernel by rounding.
TEST(Export, Attention) {
  Graph graph;
  Scope scope(graph);
  const Value x = scope.Input("x", kFloat32, {Dim("batch"), 5, 8});
  const Value y = nn::Sequential{nn::TransformerBlock{.heads = 2, .causal = true}}(scope, x);
  ASSERT_TRUE(graph.status().ok()) << graph.status();
  absl::StatusOr<Session> session = Session::Create(graph);
  ASSERT_TRUE(session.ok()) << session.status();
  const absl::StatusOr<std::string> bytes = ExportBytes(*ModelOf(*session), {{"answer", y}});
  ASSERT_TRUE(bytes.ok()) << bytes.status();
  absl::StatusOr<ImportedModel> imported = ImportBytes(*bytes);
  ASSERT_TRUE(imported.ok()) << imported.status();
  absl::StatusOr<Session> again = CreateSession(imported->model);
  ASSERT_TRUE(again.ok()) << again.status();
  const Tensor data = Ramp({3, 5, 8});
  const auto expected = session->Run({{x, data}}, {y});
  const auto got = again->Run({{imported->Input("x"), data}}, {imported->Output("answer")});
  ASSERT_TRUE(expected.ok()) << expected.status();
  ASSERT_TRUE(got.ok()) << got.status();
  for (int64_t i = 0; i < data.num_elements(); ++i)
    EXPECT_NEAR((*got)[0].data<float>()[i], (*expected)[0].data<float>()[i], 1e-5);
}

TEST(Export, OpsThatOnnxLacksAreNamed) {
  Graph graph;
  Scope scope(graph);
  const Value x = scope.Input("x", kFloat32, {4}), bits = scope.Input("bits", kInt32, {4});
  auto error = [&](const Value& y) { return ExportBytes(Model{.graph = graph}, {{"y", y}}).status(); };
  EXPECT_EQ(error(AllReduce(x, {.shards = 2})).code(), absl::StatusCode::kUnimplemented);
  EXPECT_EQ(error(AllReduce(x, {.shards = 2})).message(),
            "node 'allreduce_3' (AllReduce) cannot be exported: ONNX has no groups of processes");
  EXPECT_EQ(error(BitAnd(bits, bits)).message(),
            "node 'bitand_4' (BitAnd) cannot be exported: ONNX has its form from opset 18 on");
}

// Sizes that are sums, products and quotients of symbols are computed in the file.
TEST(Export, ComputesSizes) {
  Graph graph;
  Scope scope(graph);
  const Value x = scope.Input("x", kFloat32, {Dim("batch"), Dim("time")});
  const Dim batch = x.shape()[0], time = x.shape()[1];
  const Value y = BroadcastTo(Sum(x), {batch * time * 2 - batch, FloorDivide(time + 1, 2), 1});
  ExpectSameBits(graph, x, y, {3, 4});
}

// A symbol may belong to an input that the outputs do not need otherwise.
TEST(Export, TakesSizesFromAnyInput) {
  Graph graph;
  Scope scope(graph);
  const Value x = scope.Input("x", kFloat32, {Dim("batch")});
  const Value y = BroadcastTo(scope.Constant(Ramp({1})), {x.shape()[0]});
  ExpectSameBits(graph, x, y, {3});
}

// The file of a training step has the new values of variables as outputs, and the variables as
// inputs with defaults.
TEST(Export, UpdatesAreOutputs) {
  Graph graph;
  Scope scope(graph);
  const Value x = scope.Input("x", kFloat32, {Dim("batch"), 3});
  const Value w = scope.Variable("w", scope.Constant(Ramp({3, 2})));
  const Value frozen = scope.Variable("frozen", scope.Constant(Ramp({2})), {.trainable = false});
  const Value loss = Mean(Square(Tanh(MatMul(x, w) + frozen)));
  const Update step = optim::Adam{.learning_rate = 0.1}.Minimize(loss);
  ASSERT_TRUE(graph.status().ok()) << graph.status();
  absl::StatusOr<Session> session = Session::Create(graph);
  ASSERT_TRUE(session.ok()) << session.status();
  NamedValues outputs = NewValues(step.assignments);
  outputs.emplace_back("loss", loss);
  const absl::StatusOr<std::string> bytes = ExportBytes(*ModelOf(*session), outputs);
  ASSERT_TRUE(bytes.ok()) << bytes.status();

  proto::Model file;
  ASSERT_TRUE(file.ParseFromString(*bytes));
  std::set<std::string> inputs, initializers;
  for (const auto& input : file.graph().input()) inputs.insert(input.name());
  for (const auto& initializer : file.graph().initializer()) initializers.insert(initializer.name());
  EXPECT_TRUE(inputs.contains("x") && inputs.contains("w")) << bytes->size();
  EXPECT_FALSE(inputs.contains("frozen"));
  EXPECT_TRUE(initializers.contains("w") && initializers.contains("frozen"));

  absl::StatusOr<ImportedModel> imported = ImportBytes(*bytes);
  ASSERT_TRUE(imported.ok()) << imported.status();
  absl::StatusOr<Session> again = CreateSession(imported->model);
  ASSERT_TRUE(again.ok()) << again.status();
  const Tensor data = Ramp({5, 3});
  const auto stepped = session->Run({{x, data}}, {loss, step});
  ASSERT_TRUE(stepped.ok()) << stepped.status();
  const auto got = again->Run({{imported->Input("x"), data}}, {imported->Output("loss"), imported->Output("new/w")});
  ASSERT_TRUE(got.ok()) << got.status();
  EXPECT_TRUE(SameBits((*got)[0], (*stepped)[0]));
  EXPECT_TRUE(SameBits((*got)[1], *session->GetVariable("w"))) << (*got)[1].ToString();
}

TEST(Export, RefusesWhatItCannotName) {
  Graph graph, other;
  Scope scope(graph), other_scope(other);
  const Value x = scope.Input("x", kFloat32, {4}), foreign = other_scope.Input("x", kFloat32, {4});
  const Model model{.graph = graph};
  auto code = [&](const NamedValues& outputs, ExportOptions options = {}) {
    return ExportBytes(model, outputs, options).status().code();
  };
  EXPECT_EQ(code({{"y", x}}), absl::StatusCode::kOk);
  EXPECT_EQ(code({{"y", foreign}}), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(code({{"y", Value()}}), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(code({{"y", x}, {"y", x}}), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(code({{"x", x}}), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(code({{"y", x}}, {.opset = 16}), absl::StatusCode::kInvalidArgument);
}

}  // namespace
}  // namespace gradweave::onnx
