// Imports of single nodes that ONNX's own test cases lack: ops of ONNX Runtime, loops with an open
// number of steps, and attributes that no row reads. ONNX Runtime 1.32 computed the numbers, with
// its optimizer off; elements of the operands are 0.5 i - 1 except where noted.
#include <cmath>
#include <functional>
#include <map>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "gmock/gmock.h"
#include "gradweave/frontend/onnx/import.h"
#include "gradweave/runtime/session/session.h"
#include "gtest/gtest.h"
#include "tests/onnx/model_parts.h"

namespace gradweave::onnx {
namespace {

using ::testing::HasSubstr;

std::vector<float> Numbers(int count, float factor = 1, float offset = 0) {
  std::vector<float> numbers;
  for (int i = 0; i < count; ++i) numbers.push_back(factor * (0.5f * static_cast<float>(i) - 1) + offset);
  return numbers;
}

Tensor Floats(absl::Span<const int64_t> sizes, const std::vector<float>& numbers) {
  return Tensor::Of<float>(sizes, absl::Span<const float>(numbers));
}

void AddFloat(proto::Node& node, const std::string& name, float number) {
  proto::Attribute& attribute = *node.add_attribute();
  attribute.set_name(name);
  attribute.set_f(number);
}

// Runs the model's output y for x.
absl::StatusOr<Tensor> RunModel(const proto::Model& m, const Tensor& x, const ImportOptions& options = {}) {
  absl::StatusOr<ImportedModel> net = ImportBytes(m.SerializeAsString(), options);
  if (!net.ok()) return net.status();
  absl::StatusOr<Session> session = CreateSession(net->model, {.threads = 1});
  if (!session.ok()) return session.status();
  const absl::StatusOr<std::vector<Tensor>> results = session->Run({{net->Input("x"), x}}, {net->Output("y")});
  if (!results.ok()) return results.status();
  return (*results)[0];
}

void ExpectNumbers(const absl::StatusOr<Tensor>& y, const std::vector<double>& expected) {
  ASSERT_TRUE(y.ok()) << y.status();
  const std::vector<double> numbers = y->ToDoubles();
  ASSERT_EQ(numbers.size(), expected.size());
  for (size_t i = 0; i < expected.size(); ++i) EXPECT_NEAR(numbers[i], expected[i], 2e-6 * (1 + std::abs(expected[i])));
}

// A model with the input x and one node of com.microsoft, whose result is y.
struct MicrosoftRow {
  const char* op;
  std::vector<std::string> inputs;
  std::vector<int64_t> x;
  std::function<void(proto::Model& m, proto::Node& node)> more;
  std::vector<double> expected;
};

const std::vector<MicrosoftRow>& MicrosoftRows() {
  static const auto* const kRows = new std::vector<MicrosoftRow>{
      {"FusedMatMul",
       {"x", "w"},
       {2, 3},
       [](proto::Model& m, proto::Node& node) {
         AddFloats(m, "w", {2, 3}, Numbers(6));
         AddInt(node, "transB", 1);
         AddFloat(node, "alpha", 0.5);
       },
       {0.625, -0.5, -0.5, 1.75}},
      {"FastGelu",
       {"x", "w"},
       {2, 3},
       [](proto::Model& m, proto::Node&) { AddFloats(m, "w", {3}, Numbers(3)); },
       {-0.04540235, -0.158808, 0, -0.154286, 0.345714, 1.399572}},
      {"BiasGelu",
       {"x", "w"},
       {2, 3},
       [](proto::Model& m, proto::Node&) { AddFloats(m, "w", {3}, Numbers(3)); },
       {-0.04550028, -0.1586553, 0, -0.1542688, 0.3457312, 1.399789}},
      {"QuickGelu",
       {"x"},
       {2, 3},
       [](proto::Model&, proto::Node&) {},
       {-0.1542042, -0.1496116, 0, 0.3503884, 0.8457958, 1.391662}},
      {"SkipLayerNormalization",
       {"x", "s", "g", "b", "c"},
       {1, 2, 3},
       [](proto::Model& m, proto::Node& node) {
         AddFloats(m, "s", {1, 2, 3}, {1, 0.25, 0, 0.25, 1, 2.25});
         AddFloats(m, "g", {3}, Numbers(3, 1, 2));
         AddFloats(m, "b", {3}, Numbers(3));
         AddFloats(m, "c", {3}, Numbers(3, 3));
         AddFloat(node, "epsilon", 1e-5f);
       },
       {-2.151381, -0.7031851, 2.573676, -2.189347, -0.601944, 2.51462}},
      {"FusedGemm",
       {"x", "w", "b"},
       {2, 3},
       [](proto::Model& m, proto::Node& node) {
         AddFloats(m, "w", {3, 2}, Numbers(6));
         AddFloats(m, "b", {2}, Numbers(2));
         AddFloat(node, "alpha", 2);
         AddText(node, "activation", "LeakyRelu");
         AddFloat(node, "activation_alpha", 0.1f);
       },
       {1, 0, 1, 4.5}},
      {"FusedConv",
       {"x", "w"},
       {1, 1, 3, 3},
       [](proto::Model& m, proto::Node& node) {
         AddFloats(m, "w", {1, 1, 2, 2}, Numbers(4));
         AddText(node, "activation", "Relu");
         AddInts(node, "kernel_shape", {2, 2});
       },
       {1.75, 1.25, 0.25, 0}},
  };
  return *kRows;
}

TEST(ImportOps, OnnxRuntimesOpsGiveItsNumbers) {
  for (const MicrosoftRow& row : MicrosoftRows()) {
    SCOPED_TRACE(row.op);
    proto::Model m = EmptyModel();
    proto::OperatorSet& set = *m.add_opset_import();
    set.set_domain("com.microsoft");
    set.set_version(1);
    std::vector<std::string> sizes;
    int count = 1;
    for (const int64_t size : row.x) {
      sizes.push_back(absl::StrCat(size));
      count *= static_cast<int>(size);
    }
    AddInput(m, "x", sizes);
    proto::Node& node = AddNode(m, row.op, row.inputs, {"y"});
    node.set_domain("com.microsoft");
    row.more(m, node);
    AddOutput(m, "y");
    ExpectNumbers(RunModel(m, Floats(row.x, Numbers(count))), row.expected);
  }
}

TEST(ImportOps, AnAttributeThatNoRowReadsIsAnErrorThatNamesIt) {
  proto::Model m = EmptyModel();
  AddInput(m, "x", {"2"});
  AddInt(AddNode(m, "Relu", {"x"}, {"y"}), "flavour", 3);
  AddOutput(m, "y");
  const auto y = RunModel(m, Floats({2}, {1, 2}));
  EXPECT_EQ(y.status().code(), absl::StatusCode::kUnimplemented);
  EXPECT_THAT(y.status().message(), HasSubstr("node 'the Relu' (Relu): its attribute 'flavour' is not known"));
}

// An LSTM over x [time, batch, 2] in both directions, with 3 states.
proto::Model Recurrent(const std::string& steps) {
  proto::Model m = EmptyModel();
  AddInput(m, "x", {steps, "batch", "2"});
  AddFloats(m, "w", {2, 12, 2}, Numbers(48, 0.05f));
  AddFloats(m, "r", {2, 12, 3}, Numbers(72, -0.03f));
  AddFloats(m, "b", {2, 24}, Numbers(48, 0.02f));
  proto::Node& node = AddNode(m, "LSTM", {"x", "w", "r", "b"}, {"y"});
  AddInt(node, "hidden_size", 3);
  AddText(node, "direction", "bidirectional");
  AddOutput(m, "y");
  return m;
}

// Few steps are unrolled, and an open number is a loop: both give the same states, in both
// directions.
TEST(ImportOps, ALoopOverStepsGivesTheStatesOfUnrolledOnes) {
  const Tensor x = Floats({4, 2, 2}, Numbers(16, 0.3f));
  const auto unrolled = RunModel(Recurrent("4"), x), loop = RunModel(Recurrent("time"), x);
  ASSERT_TRUE(unrolled.ok()) << unrolled.status();
  ASSERT_TRUE(loop.ok()) << loop.status();
  EXPECT_EQ(loop->shape(), (Shape{4, 2, 2, 3}));
  const std::vector<double> a = unrolled->ToDoubles(), b = loop->ToDoubles();
  for (size_t i = 0; i < a.size(); ++i) EXPECT_NEAR(a[i], b[i], 1e-6);
}

// A Loop of as many rounds as x has rows: it adds x's mean to a state, and stacks the states.
TEST(ImportOps, ALoopMayHaveAnOpenNumberOfRounds) {
  proto::Model m = EmptyModel();
  AddInput(m, "x", {"rows", "2"});
  AddTensor(m, "first", {}, {0});
  proto::Tensor& goes_on = AddTensor(m, "goes_on", {}, {});
  goes_on.set_data_type(9);
  goes_on.add_int32_data(1);
  AddFloats(m, "zero", {}, {0});
  AddNode(m, "Shape", {"x"}, {"shape"});
  AddNode(m, "Gather", {"shape", "first"}, {"rounds"});
  AddInt(AddNode(m, "ReduceMean", {"x"}, {"mean"}), "keepdims", 0);
  proto::Node& loop = AddNode(m, "Loop", {"rounds", "goes_on", "zero"}, {"last", "y"});
  proto::Attribute& attribute = *loop.add_attribute();
  attribute.set_name("body");
  proto::Graph& body = *attribute.mutable_g();
  for (const char* name : {"round", "condition", "state"}) body.add_input()->set_name(name);
  const auto add = [&](const char* op, std::vector<std::string> inputs, const char* output) {
    proto::Node& node = *body.add_node();
    node.set_op_type(op);
    for (const std::string& input : inputs) node.add_input(input);
    node.add_output(output);
    body.add_output()->set_name(output);
  };
  add("Identity", {"condition"}, "still");
  add("Add", {"state", "mean"}, "next");
  add("Identity", {"next"}, "stacked");
  AddOutput(m, "y");
  for (const int64_t rows : {1, 3}) {
    const auto y = RunModel(m, Floats({rows, 2}, std::vector<float>(static_cast<size_t>(2 * rows), 1.5f)));
    std::vector<double> expected;
    for (int64_t i = 1; i <= rows; ++i) expected.push_back(1.5 * static_cast<double>(i));
    ExpectNumbers(y, expected);
  }
}

}  // namespace
}  // namespace gradweave::onnx
