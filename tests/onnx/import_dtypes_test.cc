// Imports of models with integers of all sizes and with halves, and of quantized layers.
#include <string>
#include <tuple>
#include <vector>

#include "gmock/gmock.h"
#include "gradweave/frontend/onnx/import.h"
#include "gradweave/runtime/session/session.h"
#include "gtest/gtest.h"
#include "tests/onnx/model_parts.h"

namespace gradweave::onnx {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

// ONNX's numbers of dtypes.
constexpr int kOnnxUint8 = 2, kOnnxInt8 = 3, kOnnxInt16 = 5, kOnnxInt32 = 6, kOnnxFloat16 = 10, kOnnxUint64 = 13,
              kOnnxBFloat16 = 16;

// An initializer whose elements are in the field of int32.
void AddInitializer(proto::Model& m, const std::string& name, int dtype, const Ints& sizes, const Ints& numbers) {
  proto::Tensor& tensor = *m.mutable_graph()->add_initializer();
  tensor.set_name(name);
  tensor.set_data_type(dtype);
  for (const int64_t size : sizes) tensor.add_dims(size);
  for (const int64_t number : numbers) tensor.add_int32_data(static_cast<int32_t>(number));
}

struct Outcome {
  Tensor y;
  std::vector<std::string> ops;  // The ops of the imported graph.
};

Outcome RunModel(proto::Model& m, const Tensor& x) {
  AddOutput(m, "y");
  absl::StatusOr<ImportedModel> net = ImportBytes(m.SerializeAsString());
  EXPECT_TRUE(net.ok()) << net.status();
  if (!net.ok()) return {};
  absl::StatusOr<Session> session = CreateSession(net->model, {.threads = 1});
  EXPECT_TRUE(session.ok()) << session.status();
  if (!session.ok()) return {};
  const absl::StatusOr<std::vector<Tensor>> results = session->Run({{net->Input("x"), x}}, {net->Output("y")});
  EXPECT_TRUE(results.ok()) << results.status();
  Outcome outcome;
  if (results.ok()) outcome.y = (*results)[0];
  for (const Node& node : net->model.graph.nodes()) outcome.ops.push_back(node.op->name);
  return outcome;
}

TEST(ImportDTypes, SmallIntegersWrapAround) {
  proto::Model m = EmptyModel();
  AddInput(m, "x", {"3"}, kOnnxInt8);
  AddInitializer(m, "w", kOnnxInt8, {3}, {100, -100, 5});
  AddNode(m, "Add", {"x", "w"}, {"y"});
  const Tensor y = RunModel(m, Tensor::Of<int8_t>({3}, {100, -100, -7})).y;
  EXPECT_EQ(y.dtype(), kInt8);
  EXPECT_THAT(y.values<int8_t>(), ElementsAre(-56, 56, -2));
}

TEST(ImportDTypes, IndicesStayInt64) {
  proto::Model m = EmptyModel();
  AddInput(m, "x", {"4"}, kOnnxUint64);
  AddNode(m, "ArgMax", {"x"}, {"y"});
  const Tensor y = RunModel(m, Tensor::Of<uint64_t>({4}, {1, 9, 3, 2})).y;
  EXPECT_EQ(y.dtype(), kInt64);
  EXPECT_THAT(y.ToDoubles(), ElementsAre(1));
}

TEST(ImportDTypes, EachDTypeHasItsField) {
  proto::Model m = EmptyModel();
  AddInput(m, "x", {"2"}, kOnnxInt16);
  AddInitializer(m, "w", kOnnxInt16, {2}, {-300, 300});
  AddNode(m, "Concat", {"x", "w"}, {"y"});
  AddInt(*m.mutable_graph()->mutable_node(0), "axis", 0);
  EXPECT_THAT(RunModel(m, Tensor::Of<int16_t>({2}, {7, -8})).y.ToDoubles(), ElementsAre(7, -8, -300, 300));

  proto::Model wide = EmptyModel();
  AddInput(wide, "x", {"1"}, kOnnxUint64);
  proto::Tensor& tensor = *wide.mutable_graph()->add_initializer();
  tensor.set_name("w");
  tensor.set_data_type(kOnnxUint64);
  tensor.add_dims(1);
  tensor.add_uint64_data(uint64_t{1} << 63);
  AddInt(AddNode(wide, "Concat", {"x", "w"}, {"y"}), "axis", 0);
  EXPECT_THAT(RunModel(wide, Tensor::Of<uint64_t>({1}, {5})).y.values<uint64_t>(), ElementsAre(5, uint64_t{1} << 63));
}

TEST(ImportDTypes, HalvesAreTheirBits) {
  // 1.5 and -2 in both types.
  for (const auto& [onnx_dtype, dtype, bits] : {std::tuple(kOnnxFloat16, kFloat16, Ints{0x3e00, 0xc000}),
                                                std::tuple(kOnnxBFloat16, kBFloat16, Ints{0x3fc0, 0xc000})}) {
    proto::Model m = EmptyModel();
    AddInput(m, "x", {"2"}, onnx_dtype);
    AddInitializer(m, "w", onnx_dtype, {2}, bits);
    AddNode(m, "Mul", {"x", "w"}, {"y"});
    const Tensor y = RunModel(m, Tensor::Of<float>({2}, {2, 0.25}).Cast(dtype)).y;
    EXPECT_EQ(y.dtype(), dtype);
    EXPECT_THAT(y.ToDoubles(), ElementsAre(3, -0.5));
  }
}

// x [1, 3] of uint8 with scale 0.5 and zero point 2, and weights [3, 2] of int8 with a scale for
// each column.
proto::Model QuantizedModel() {
  proto::Model m = EmptyModel();
  proto::OperatorSet& set = *m.add_opset_import();
  set.set_domain("com.microsoft");
  set.set_version(1);
  AddInput(m, "x", {"1", "3"}, kOnnxUint8);
  AddFloats(m, "x_scale", {}, {0.5f});
  AddInitializer(m, "x_zero", kOnnxUint8, {}, {2});
  AddInitializer(m, "w", kOnnxInt8, {3, 2}, {1, 2, 3, -4, 5, 6});
  AddFloats(m, "w_scale", {2}, {2, 4});
  AddInitializer(m, "w_zero", kOnnxInt8, {2}, {0, 0});
  AddFloats(m, "y_scale", {}, {1});
  AddInitializer(m, "y_zero", kOnnxUint8, {}, {10});
  AddInitializer(m, "bias", kOnnxInt32, {2}, {7, -7});
  return m;
}
const Tensor& QuantizedX() {
  static const auto* const x = new Tensor(Tensor::Of<uint8_t>({1, 3}, {3, 4, 5}));
  return *x;
}

TEST(ImportDTypes, QuantizedProductsRunOnIntegers) {
  // The sums are 1 + 6 + 15 and 2 - 8 + 18.
  proto::Model m = QuantizedModel();
  AddNode(m, "QLinearMatMul", {"x", "x_scale", "x_zero", "w", "w_scale", "w_zero", "y_scale", "y_zero"}, {"y"});
  const Outcome outcome = RunModel(m, QuantizedX());
  EXPECT_THAT(outcome.y.ToDoubles(), ElementsAre(32, 34));
  EXPECT_THAT(outcome.ops, ::testing::Contains("QuantizedMatMul"));
}

TEST(ImportDTypes, QGemmHasABiasAndMayGiveFloats) {
  const std::vector<std::string> inputs = {"x", "x_scale", "x_zero", "w", "w_scale", "w_zero", "bias"};
  proto::Model floats = QuantizedModel();
  AddNode(floats, "QGemm", inputs, {"y"}).set_domain("com.microsoft");
  const Outcome outcome = RunModel(floats, QuantizedX());
  EXPECT_EQ(outcome.y.dtype(), kFloat32);
  EXPECT_THAT(outcome.y.ToDoubles(), ElementsAre(29, 10));
  EXPECT_THAT(outcome.ops, ::testing::Contains("QuantizedMatMul"));

  // A factor makes it a computation in float64.
  proto::Model scaled = QuantizedModel();
  std::vector<std::string> all = inputs;
  all.insert(all.end(), {"y_scale", "y_zero"});
  proto::Node& node = AddNode(scaled, "QGemm", all, {"y"});
  node.set_domain("com.microsoft");
  proto::Attribute& alpha = *node.add_attribute();
  alpha.set_name("alpha");
  alpha.set_f(2);
  EXPECT_THAT(RunModel(scaled, QuantizedX()).y.ToDoubles(), ElementsAre(68, 30));
}

TEST(ImportDTypes, OtherDTypesAreNamed) {
  proto::Model m = EmptyModel();
  AddInput(m, "x", {"1"}, 22);
  AddNode(m, "Identity", {"x"}, {"y"});
  AddOutput(m, "y");
  EXPECT_THAT(ImportBytes(m.SerializeAsString()).status().message(), HasSubstr("the dtype int4 is not supported"));
}

}  // namespace
}  // namespace gradweave::onnx
