// Models whose sizes are open where their nodes fit for some sizes only, and models whose graph
// differs with the sizes or values of inputs.
#include "gradweave/frontend/onnx/open_sizes.h"

#include <fstream>
#include <map>
#include <string>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "gmock/gmock.h"
#include "gradweave/frontend/onnx/import.h"
#include "gradweave/frontend/onnx/runner.h"
#include "gradweave/runtime/session/session.h"
#include "gtest/gtest.h"
#include "tests/onnx/model_parts.h"

namespace gradweave::onnx {
namespace {

using ::testing::HasSubstr;

Tensor Filled(absl::Span<const int64_t> sizes, float first = 0, float step = 1) {
  Tensor tensor(kFloat32, sizes);
  float next = first;
  for (float& element : tensor.mutable_values<float>()) {
    element = next;
    next += step;
  }
  return tensor;
}

absl::StatusOr<Tensor> RunOnce(ImportedModel& net, const std::map<std::string, Tensor>& inputs,
                               const std::string& output) {
  absl::StatusOr<Session> session = CreateSession(net.model, {.threads = 1});
  if (!session.ok()) return session.status();
  std::vector<Feed> feeds;
  for (const auto& [name, value] : inputs) feeds.emplace_back(net.Input(name), value);
  const absl::StatusOr<std::vector<Tensor>> results = session->Run(feeds, {net.Output(output)});
  if (!results.ok()) return results.status();
  return (*results)[0];
}

// Two inputs whose batches have two names are concatenated.
TEST(OpenSizes, TwoNamesOfOneSizeBecomeOneSymbol) {
  proto::Model m = EmptyModel();
  AddInput(m, "a", {"rows", "2"});
  AddInput(m, "b", {"lines", "3"});
  AddInt(AddNode(m, "Concat", {"a", "b"}, {"y"}), "axis", 1);
  AddOutput(m, "y");
  absl::StatusOr<ImportedModel> net = ImportBytes(m.SerializeAsString());
  ASSERT_TRUE(net.ok()) << net.status();
  EXPECT_EQ(net->Input("a").shape()[0], net->Input("b").shape()[0]);
  for (const int64_t batch : {1, 4}) {
    const auto y = RunOnce(*net, {{"a", Filled({batch, 2})}, {"b", Filled({batch, 3}, 100)}}, "y");
    ASSERT_TRUE(y.ok()) << y.status();
    EXPECT_EQ(y->shape(), (Shape{batch, 5}));
    EXPECT_EQ(y->data<float>()[2], 100);
  }
  const auto y = RunOnce(*net, {{"a", Filled({1, 2})}, {"b", Filled({2, 3})}}, "y");
  EXPECT_THAT(y.status().message(), HasSubstr("another input has size"));
}

// A net that halves an image twice, enlarges it again and adds the image: as U-nets and detectors
// do.
proto::Model HalvesAndDoubles() {
  proto::Model m = EmptyModel();
  AddInput(m, "x", {"batch", "1", "height", "6"});
  AddFloats(m, "scales", {4}, {1, 1, 4, 1});
  for (int i = 0; i < 2; ++i) {
    proto::Node& pool = AddNode(m, "MaxPool", {i == 0 ? "x" : "half0"}, {absl::StrCat("half", i)});
    AddInts(pool, "kernel_shape", {3, 1});
    AddInts(pool, "pads", {1, 0, 1, 0});
    AddInts(pool, "strides", {2, 1});
  }
  AddText(AddNode(m, "Resize", {"half1", "", "scales"}, {"large"}), "mode", "nearest");
  AddNode(m, "Add", {"x", "large"}, {"y"});
  AddOutput(m, "y");
  return m;
}

TEST(OpenSizes, AHeightThatHasToBeAMultipleBecomesOne) {
  absl::StatusOr<ImportedModel> net = ImportBytes(HalvesAndDoubles().SerializeAsString());
  ASSERT_TRUE(net.ok()) << net.status();
  EXPECT_EQ(net->Input("x").shape(), (Shape{Dim("batch"), 1, 4 * Dim("height_4"), 6}));
  for (const int64_t height : {4, 12}) {
    const Tensor x = Filled({2, 1, height, 6});
    const auto y = RunOnce(*net, {{"x", x}}, "y");
    ASSERT_TRUE(y.ok()) << y.status();
    EXPECT_EQ(y->shape(), x.shape());
    // The largest element of rows 0 to 3 is in row 3, since windows reach one row further each
    // time.
    EXPECT_EQ(y->data<float>()[0], 3 * 6);
  }
  const auto y = RunOnce(*net, {{"x", Filled({1, 1, 6, 6})}}, "y");
  EXPECT_THAT(y.status().message(), HasSubstr("axis 2 has to have a size 4*height_4 with a whole number height_4"));
}

// A node that fits for no size stays an error, with the advice to give sizes.
TEST(OpenSizes, AMisfitNamesTheNodeAndTheInput) {
  proto::Model m = EmptyModel();
  AddInput(m, "x", {"n", "3"});
  AddTensor(m, "shape", {2}, {5, 7});
  AddNode(m, "Reshape", {"x", "shape"}, {"y"});
  AddOutput(m, "y");
  const absl::StatusOr<ImportedModel> net = ImportBytes(m.SerializeAsString());
  EXPECT_EQ(net.status().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(net.status().message(), HasSubstr("node 'the Reshape' (Reshape)"));
  EXPECT_THAT(net.status().message(), HasSubstr("ImportOptions::shapes can give sizes of 'x'"));
  EXPECT_EQ(net.status().GetPayload(kNeededShapes), absl::Cord("x"));
}

TEST(OpenSizes, GivenShapesHoldForTheOtherInputsWithTheSameNames) {
  proto::Model m = EmptyModel();
  AddInput(m, "a", {"n", "2"});
  AddInput(m, "b", {"n", "2"});
  AddNode(m, "Add", {"a", "b"}, {"y"});
  AddOutput(m, "y");
  absl::StatusOr<ImportedModel> net = ImportBytes(m.SerializeAsString(), {.shapes = {{"a", {3, 2}}}});
  ASSERT_TRUE(net.ok()) << net.status();
  EXPECT_EQ(net->Input("b").shape(), (Shape{3, 2}));
}

TEST(OpenSizes, GuessesPreferOneSymbolForAnother) {
  const Dim a("a"), b("b"), h("h");
  const auto same = GuessSizes({{a, 3}, {b, 3}}, {});
  ASSERT_FALSE(same.empty());
  EXPECT_EQ(same[0], (SizeGuess{{"b", a}}));
  const auto multiple = GuessSizes({{FloorDivide(h + 1, 2)}, {2 * FloorDivide(h + 3, 4)}}, {});
  ASSERT_FALSE(multiple.empty());
  EXPECT_EQ(multiple[0], (SizeGuess{{"h", 4 * Dim("h_4")}}));
  EXPECT_TRUE(GuessSizes({{h, 2}, {h, 3}}, {}).empty());
  EXPECT_TRUE(GuessSizes({{h}, {h + 1}}, {}).empty());
}

TEST(OpenSizes, FollowSymbolsThatStandForOthers) {
  OpenSizes sizes;
  EXPECT_TRUE(sizes.Set("h", 2 * Dim("h_2")));
  EXPECT_TRUE(sizes.Set("h_2", 3 * Dim("k")));
  EXPECT_TRUE(sizes.Set("k", 5));
  EXPECT_EQ(sizes.Of("h"), Dim(30));
  EXPECT_EQ(sizes.Of("other"), Dim("other"));
  EXPECT_FALSE(sizes.Set("h", 4)) << "it is known already";
  EXPECT_FALSE(sizes.Set("m", Dim("m") + 1)) << "it would contain itself";
}

std::string Written(const proto::Model& m, const std::string& name) {
  const std::string path = absl::StrCat(::testing::TempDir(), "/", name);
  std::ofstream(path, std::ios::binary) << m.SerializeAsString();
  return path;
}

// y is x [n, 1 or more] without its last axis if that has size 1, and else x itself: as exporters
// write squeeze(-1).
proto::Model SqueezesIfOne() {
  proto::Model m = EmptyModel();
  AddInput(m, "x", {"n", "width"});
  AddTensor(m, "last", {}, {1});
  AddTensor(m, "one", {}, {1});
  AddTensor(m, "axes", {1}, {-1});
  AddNode(m, "Shape", {"x"}, {"shape"});
  AddNode(m, "Gather", {"shape", "last"}, {"size"});
  AddNode(m, "Equal", {"size", "one"}, {"is_one"});
  proto::Node& branch = AddNode(m, "If", {"is_one"}, {"squeezed"});
  for (const char* name : {"then_branch", "else_branch"}) {
    proto::Attribute& attribute = *branch.add_attribute();
    attribute.set_name(name);
    proto::Node& node = *attribute.mutable_g()->add_node();
    const bool squeezes = attribute.name() == "then_branch";
    node.set_op_type(squeezes ? "Squeeze" : "Identity");
    node.add_input("x");
    if (squeezes) node.add_input("axes");
    node.add_output(absl::StrCat(name, "_y"));
    attribute.mutable_g()->add_output()->set_name(absl::StrCat(name, "_y"));
  }
  AddNode(m, "Neg", {"squeezed"}, {"y"});
  AddOutput(m, "y");
  return m;
}

TEST(Runner, ImportsAgainWhereSizesDecideAboutTheGraph) {
  Runner runner(Written(SqueezesIfOne(), "squeezes.onnx"));
  for (int round = 0; round < 2; ++round) {
    const auto one = runner.Run({{"x", Filled({3, 1})}}), two = runner.Run({{"x", Filled({3, 2})}});
    ASSERT_TRUE(one.ok()) << one.status();
    ASSERT_TRUE(two.ok()) << two.status();
    EXPECT_EQ(one->at("y").shape(), (Shape{3}));
    EXPECT_EQ(two->at("y").shape(), (Shape{3, 2}));
    EXPECT_EQ(two->at("y").data<float>()[5], -5);
    EXPECT_EQ(runner.num_graphs(), 2u);
  }
}

TEST(Runner, KeepsTheLatestGraphs) {
  Runner runner(Written(SqueezesIfOne(), "squeezes.onnx"), {.most_graphs = 2});
  for (const int64_t width : {1, 2, 3, 4}) ASSERT_TRUE(runner.Run({{"x", Filled({1, width})}}).ok());
  EXPECT_EQ(runner.num_graphs(), 2u);
}

TEST(Runner, MakesOneGraphForAllSizesWhereItCan) {
  Runner runner(Written(HalvesAndDoubles(), "halves.onnx"));
  for (const int64_t height : {4, 8}) {
    const auto outputs = runner.Run({{"x", Filled({1, 1, height, 6})}});
    ASSERT_TRUE(outputs.ok()) << outputs.status();
    EXPECT_EQ(outputs->at("y").size(2), height);
  }
  EXPECT_EQ(runner.num_graphs(), 1u);
}

// The value of an input is a shape: the graph is made for this value.
TEST(Runner, ValuesThatDecideAboutTheGraphArePartOfItsKey) {
  proto::Model m = EmptyModel();
  AddInput(m, "x", {"6"});
  AddInput(m, "shape", {"2"}, 7);
  AddNode(m, "Reshape", {"x", "shape"}, {"y"});
  AddOutput(m, "y");
  Runner runner(Written(m, "reshapes.onnx"));
  for (const Integers& sizes : {Integers{2, 3}, Integers{3, 2}, Integers{2, 3}}) {
    const auto outputs =
        runner.Run({{"x", Filled({6})}, {"shape", Tensor::Of<int64_t>({2}, absl::Span<const int64_t>(sizes))}});
    ASSERT_TRUE(outputs.ok()) << outputs.status();
    EXPECT_EQ(outputs->at("y").shape(), Shape(absl::Span<const int64_t>(sizes)));
  }
  EXPECT_EQ(runner.num_graphs(), 2u);
}

TEST(Runner, NamesAMissingInput) {
  Runner runner(Written(HalvesAndDoubles(), "halves.onnx"));
  const auto outputs = runner.Run({});
  EXPECT_EQ(outputs.status().code(), absl::StatusCode::kNotFound);
  EXPECT_THAT(outputs.status().message(), HasSubstr("the run has no input 'x'"));
}

}  // namespace
}  // namespace gradweave::onnx
