// Dtypes that store numbers in few bytes, in variables of sessions, in loops, and in model files.
#include <cmath>
#include <cstdint>
#include <cstdlib>
#include <fstream>
#include <sstream>
#include <string>
#include <utility>
#include <vector>

#include "gmock/gmock.h"
#include "gradweave/gradweave.h"
#include "gtest/gtest.h"

namespace gradweave {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

constexpr char kGolden[] = "tests/files/golden/storage_v3.gw";
constexpr size_t kVersionByte = 18;  // The format version follows the magic.

std::string ReadFile(const std::string& path) {
  std::ifstream in(path, std::ios::binary);
  std::stringstream contents;
  contents << in.rdbuf();
  return contents.str();
}

// The values of the variables in the golden file.
std::vector<std::pair<std::string, Tensor>> Values() {
  return {
      {"float16", Tensor::Of<Float16>({4}, {Float16(1.5), Float16(-65504), Float16::FromBits(1), Float16(INFINITY)})},
      {"bfloat16", Tensor::Of<BFloat16>({3}, {BFloat16(0.1), BFloat16(-1e38), BFloat16::FromBits(0x7FC1)})},
      {"int8", Tensor::Of<int8_t>({3}, {-128, 0, 127})},
      {"int16", Tensor::Of<int16_t>({2}, {-32768, 32767})},
      {"uint16", Tensor::Of<uint16_t>({2}, {0, 65535})},
      {"uint32", Tensor::Of<uint32_t>({2}, {0, 4294967295u})},
      {"uint64", Tensor::Of<uint64_t>({2}, {1, 18446744073709551615u})},
  };
}

// Variables of all dtypes that only store numbers, a bfloat16 table whose rows are gathered by an
// input and multiplied in float32, and an input of float16.
Graph StorageGraph() {
  Graph graph;
  Scope scope(graph);
  for (const auto& [name, value] : Values()) graph.SetOutput(name, {scope.Variable(name, scope.Constant(value))});
  const Value index = scope.Input("index", kInt32, {Dim("batch")});
  const Value table =
      scope.Variable("table", scope.Constant(Tensor::Of<float>({3, 2}, {1, 2, 3, 4, 5, 6.03125f}).Cast(kBFloat16)));
  graph.SetOutput("rows", {Cast(Gather(table, index), kFloat32) * 2});
  const Value half = scope.Input("half", kFloat16, {Dim("batch")});
  graph.SetOutput("quarters", {Cast(Cast(half, kFloat32) / 4, kFloat16)});
  return graph;
}

TEST(StorageDTypes, AFileKeepsThemBitForBit) {
  absl::StatusOr<Session> session = Session::Create(StorageGraph());
  ASSERT_TRUE(session.ok()) << session.status();
  const std::string path = testing::TempDir() + "/storage.gw";
  for (int64_t inline_limit : {int64_t{0}, int64_t{1} << 20}) {
    ASSERT_TRUE(SaveModel(*session, path, {.inline_limit = inline_limit}).ok());
    EXPECT_EQ(ReadFile(path)[kVersionByte], 3);
    const absl::StatusOr<Model> model = LoadModel(path);
    ASSERT_TRUE(model.ok()) << model.status();
    for (const auto& [name, value] : Values()) {
      bool found = false;
      for (const auto& [variable, loaded] : model->variables) {
        if (variable != name) continue;
        found = true;
        EXPECT_TRUE(SameBits(loaded, value)) << name << " " << loaded.ToString();
      }
      EXPECT_TRUE(found) << name;
    }
  }
}

TEST(StorageDTypes, OtherFilesKeepVersionTwo) {
  Graph graph;
  Scope scope(graph);
  scope.Variable("w", scope.Full(1, {2}));
  const std::string path = testing::TempDir() + "/computed.gw";
  ASSERT_TRUE(SaveModel(*Session::Create(graph), path).ok());
  EXPECT_EQ(ReadFile(path)[kVersionByte], 2);
  // Tensors beside the graph, and values in bodies of loops, count too.
  Model model = *LoadModel(path);
  model.extra.emplace_back("progress", Tensor(kUint64, {1}));
  ASSERT_TRUE(SaveModel(model, path).ok());
  EXPECT_EQ(ReadFile(path)[kVersionByte], 3);
  EXPECT_EQ(LoadModel(path)->extra[0].second.dtype(), kUint64);
  const Value x = scope.Input("x", kFloat32, {3});
  Scan({}, {x}, [](const std::vector<Value>&, const std::vector<Value>& slices) {
    return ScanStep{{}, {Cast(Cast(slices[0], kBFloat16), kFloat32)}};
  });
  ASSERT_TRUE(graph.status().ok()) << graph.status();
  ASSERT_TRUE(SaveModel(*Session::Create(graph), path).ok());
  EXPECT_EQ(ReadFile(path)[kVersionByte], 3);
}

TEST(StorageDTypes, ReadsTheGoldenFileOfVersionThree) {
  absl::StatusOr<Model> model = LoadModel(kGolden);
  ASSERT_TRUE(model.ok()) << model.status();
  absl::StatusOr<Session> session = CreateSession(*model);
  ASSERT_TRUE(session.ok()) << session.status();
  for (const auto& [name, value] : Values()) {
    EXPECT_TRUE(SameBits(*session->GetVariable(name), value)) << name;
  }
  const Value index = model->graph.value(model->graph.FindNamed("index"));
  const Value half = model->graph.value(model->graph.FindNamed("half"));
  const Tensor halves = Tensor::Of<float>({2}, {2, 0.1f}).Cast(kFloat16);
  const absl::StatusOr<std::vector<Tensor>> results =
      session->Run({{index, Tensor::Of<int32_t>({2}, {2, 0})}, {half, halves}},
                   {model->graph.Output("rows")[0], model->graph.Output("quarters")[0]});
  ASSERT_TRUE(results.ok()) << results.status();
  EXPECT_THAT((*results)[0].ToDoubles(), ElementsAre(10, 12.0625, 2, 4));
  EXPECT_EQ((*results)[1].ToString(), "float16[2] {0.5, 0.0249939}");
}

TEST(StorageDTypes, AssignAndLoopsCarryThem) {
  Graph graph;
  Scope scope(graph);
  const Value x = scope.Input("x", kFloat32, {3});
  const Value last = scope.Variable("last", scope.Constant(Tensor(kBFloat16, {})));
  // Each step keeps the sum in bfloat16, as a state.
  const ScanResult sums = Scan({last}, {x}, [](const std::vector<Value>& states, const std::vector<Value>& slices) {
    const Value sum = Cast(Cast(states[0], kFloat32) + slices[0], kBFloat16);
    return ScanStep{{sum}, {sum}};
  });
  const Value updated = Assign(last, sums.states[0]);
  ASSERT_TRUE(graph.status().ok()) << graph.status();
  absl::StatusOr<Session> session = Session::Create(graph);
  ASSERT_TRUE(session.ok()) << session.status();
  // 256 + 1 is a tie in bfloat16, and goes to the even 256; 256 + 3 goes to 260.
  const auto results = session->Run({{x, Tensor::Of<float>({3}, {256, 1, 3})}}, {sums.outputs[0], updated});
  ASSERT_TRUE(results.ok()) << results.status();
  EXPECT_THAT((*results)[0].ToDoubles(), ElementsAre(256, 256, 260));
  EXPECT_EQ(session->GetVariable("last")->ToString(), "bfloat16[] {260}");
  EXPECT_THAT(std::string(session->SetVariable("last", Tensor(kFloat16, {})).message()), HasSubstr("bfloat16[]"));
}

TEST(StorageDTypes, AFeedOfAnotherDTypeIsAnError) {
  Graph graph;
  Scope scope(graph);
  const Value x = scope.Input("x", kBFloat16, {2}), y = Cast(x, kFloat32);
  absl::StatusOr<Session> session = Session::Create(graph);
  ASSERT_TRUE(session.ok()) << session.status();
  const absl::Status status = session->Run({{x, Tensor(kUint16, {2})}}, {y}).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
}

// Writes the golden file to the path in GRADWEAVE_GOLDEN; run with --gtest_also_run_disabled_tests.
// Files of released versions must not change.
TEST(StorageDTypes, DISABLED_WriteGoldenFile) {
  ASSERT_NE(std::getenv("GRADWEAVE_GOLDEN"), nullptr);
  ASSERT_TRUE(SaveModel(*Session::Create(StorageGraph()), std::getenv("GRADWEAVE_GOLDEN")).ok());
}

}  // namespace
}  // namespace gradweave
