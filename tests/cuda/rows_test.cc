// Row kernels on the emulated CUDA device, compiled for it by the build. They give the same bits as
// single ops for rows of any length, and reduce the steps of a plan.
#include <algorithm>
#include <cstdlib>
#include <memory>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "gmock/gmock.h"
#include "gradweave/gradweave.h"
#include "gradweave/runtime/cuda/fusion/fusion.h"
#include "gradweave/runtime/cuda/fusion/kernel_store.h"
#include "gradweave/runtime/cuda/fusion/row_program.h"
#include "gradweave/runtime/cuda/plan/platform.h"
#include "gtest/gtest.h"
#include "tests/cuda/fused_graphs.h"
#include "tests/cuda/fused_groups.h"
#include "tests/cuda/fused_kernels.h"
#include "tests/cuda/generated_groups.h"
#include "tests/cuda/test_device.h"

namespace gradweave {
namespace {

using ::testing::Contains;
using ::testing::HasSubstr;
using ::testing::IsSupersetOf;
using ::testing::Not;

constexpr FusionOptions kWithRows{.reductions = true, .rows = true};

// Returns the features of row programs that this program uses.
std::set<std::string> FormsOf(const RowProgram& program) {
  std::set<std::string> forms = {absl::StrCat(program.threads, " threads", program.parts > 1 ? " in parts" : "")};
  if (program.elements > 1) forms.insert("several elements");
  if (program.columns % program.threads != 0) forms.insert("a rest");
  if (program.num_phases > 3) forms.insert("many phases");
  if (!program.overwrites.empty()) forms.insert("overwrites");
  int reductions = 0;
  for (const RowInstruction& instruction : program.instructions) {
    if (instruction.op == FusedOp::kReduce) {
      ++reductions;
      forms.insert(absl::StrCat("reduction ", static_cast<int>(instruction.reduction)));
    }
    if (instruction.op == FusedOp::kStoreBool) forms.insert("truth stored");
    if (instruction.op == FusedOp::kLoadBool) forms.insert("truth loaded");
  }
  for (size_t i = 0; i < program.extents.size(); ++i) {
    const char* const kind = i < program.operands.size() ? "operand " : "output ";
    forms.insert(absl::StrCat(kind, static_cast<int>(program.extents[i])));
  }
  return forms;
}

// Every group, with and without special values, and with every operand that an output may
// overwrite.
TEST(RowKernels, GiveTheBitsOfSingleOps) {
  GeneratedGroups generated;
  std::set<std::string> forms;
  for (const FusedGraph& fused : RowGraphs()) {
    SCOPED_TRACE(fused.name);
    int rows_of_graph = 0;
    for (const FusedGroup& group : FindFusedGroups(fused.graph, kWithRows).groups) {
      if (group.rows == nullptr) continue;
      ++rows_of_graph;
      forms.merge(FormsOf(*group.rows));
      // The emulated device is slow, and large tensors overwrite the same operands as small ones.
      generated.ExpectBitsOfSingleOps(fused, group, "generated_rows", group.rows->rows * group.rows->columns <= 20000);
    }
    // Rows of one element form no region.
    EXPECT_EQ(rows_of_graph > 0, !absl::EndsWith(fused.name, "_of_1"));
  }
  EXPECT_GT(generated.runs(), 100);
  EXPECT_THAT(forms, IsSupersetOf({"32 threads",       "256 threads",  "256 threads in parts",
                                   "several elements", "a rest",       "many phases",
                                   "overwrites",       "reduction 0",  "reduction 1",
                                   "reduction 2",      "reduction 3",  "reduction 4",
                                   "truth stored",     "truth loaded", "operand 0",
                                   "operand 1",        "operand 2",    "operand 3",
                                   "output 0",         "output 1"}));
}

// Returns the row groups of a graph with these outputs.
std::vector<FusedGroup> RowGroups(Graph& graph, const std::vector<Value>& outputs) {
  graph.SetOutput("results", outputs);
  const Graph ready = AfterPasses(graph);
  std::vector<FusedGroup> groups;
  for (const FusedGroup& group : FindFusedGroups(ready, kWithRows).groups) {
    if (group.rows != nullptr) groups.push_back(group);
  }
  return groups;
}

TEST(RowGroups, TakeTheNormalizationOfRowsTogether) {
  Graph graph;
  Scope scope(graph);
  const Value x = scope.Input("x", kFloat32, {20, 600}), scale = scope.Input("scale", kFloat32, {600});
  const Value y = Relu(LayerNorm(x + scale, scale, scale));
  const std::vector<FusedGroup> groups = RowGroups(graph, {y});
  ASSERT_EQ(groups.size(), 1);
  EXPECT_EQ(groups[0].operands.size(), 2);
  EXPECT_EQ(groups[0].outputs.size(), 1);
  // Sum over the row, sum of squares, result.
  EXPECT_EQ(groups[0].rows->num_phases, 3);
}

TEST(RowGroups, LookThroughShapesThatKeepRows) {
  Graph graph;
  Scope scope(graph);
  const Value x = scope.Input("x", kFloat32, {12, 33});
  const Value y = Softmax(Reshape(Exp(x), {3, 4, 33})), z = Reshape(y, {12, 33}) - x;
  const std::vector<FusedGroup> groups = RowGroups(graph, {z});
  ASSERT_EQ(groups.size(), 1);
  EXPECT_EQ(groups[0].nodes.size(), 3);
  EXPECT_EQ(groups[0].operands.size(), 1);
}

TEST(RowGroups, LeaveWhatOneReductionEnds) {
  Graph graph;
  Scope scope(graph);
  const Value x = scope.Input("x", kFloat32, {40, 300});
  EXPECT_TRUE(RowGroups(graph, {Sum(Exp(x), {.axes = {1}}), Max(x, {.axes = {1}})}).empty());
  EXPECT_TRUE(RowGroups(graph, {Softmax(x)}).empty());
  EXPECT_EQ(RowGroups(graph, {Sqrt(Sum(Square(x), {.axes = {1}}))}).size(), 1);
}

TEST(RowGroups, LeaveRowsThatDoNotFitInRegisters) {
  auto groups_of = [](DType dtype, int64_t columns, int operands) {
    Graph graph;
    Scope scope(graph);
    std::vector<Value> values;
    for (int i = 0; i < operands; ++i) {
      values.push_back(scope.Input(absl::StrCat("x", i), dtype, {200, columns}));
    }
    Value sum = values[0];
    for (const Value& value : values) sum = sum + Max(value, {.axes = {1}, .keep_dims = true});
    for (const Value& value : values) sum = Tanh(sum * value);
    return RowGroups(graph, {sum}).size();
  };
  // Five values of 25 elements per thread fit, and six do not. In float64, two fit.
  EXPECT_EQ(groups_of(kFloat32, 6400, 5), 1);
  EXPECT_EQ(groups_of(kFloat32, 6400, 6), 0);
  EXPECT_EQ(groups_of(kFloat64, 6400, 2), 1);
  EXPECT_EQ(groups_of(kFloat64, 6400, 3), 0);
  EXPECT_EQ(groups_of(kFloat32, 8192, 1), 1);
  EXPECT_EQ(groups_of(kFloat32, 8193, 1), 0);
}

// A value that only sums over rows read is computed in the kernels of the sums.
TEST(RowGroups, LeaveWhatIsSummedOverRowsAlone) {
  Graph graph;
  Scope scope(graph);
  const Value x = scope.Input("x", kFloat32, {40, 64}), dy = scope.Input("dy", kFloat32, {40, 64});
  const Value y = Softmax(x * 0.5);
  const std::vector<FusedGroup> groups = RowGroups(graph, {y, Sum(dy * y, {.axes = {0}})});
  ASSERT_EQ(groups.size(), 1);
  EXPECT_EQ(groups[0].nodes.size(), 2);
  EXPECT_EQ(groups[0].outputs.size(), 1);
}

// Softmax adds up a row as its own kernel does, which never splits a row.
TEST(RowGroups, LeaveSoftmaxOfRowsThatAreSplit) {
  for (int64_t rows : {100, 200}) {
    Graph graph;
    Scope scope(graph);
    const Value x = scope.Input("x", kFloat32, {rows, 5000});
    EXPECT_EQ(RowGroups(graph, {Softmax(Exp(x))}).size(), rows == 100 ? 0 : 1);
  }
}

// Returns the number of steps of a plan that launch a kernel.
int StepsOf(const Graph& graph, const FusionOptions& options) {
  const std::set<std::string> held = {"Input", "Variable", "Constant", "Assign"};
  const FusionPlan plan = FindFusedGroups(graph, options);
  return static_cast<int>(std::count_if(plan.order.begin(), plan.order.end(), [&](OrderItem item) {
    if (!item.is_node()) return true;
    const OpDefinition& op = *graph.node(item.node()).op;
    return held.count(op.name) == 0 && !op.alias;
  }));
}

TEST(RowGroups, MakeThePlansOfAnEncoderShorter) {
  for (const FusedGraph& fused : RowGraphs()) {
    if (!absl::StartsWith(fused.name, "encoder")) continue;
    const int with = StepsOf(fused.graph, kWithRows), without = StepsOf(fused.graph, {.reductions = true});
    EXPECT_LT(with, without) << fused.name;
  }
}

// Sessions on the emulated device.
class RowsInSession : public ::testing::Test {
 protected:
  void SetUp() override { Emulate(EmulatedKernelCompiler(FusedKernels())); }
  void TearDown() override { SetCudaPlatformForTest(std::nullopt); }

  void Emulate(const KernelCompiler& compiler) {
    api_ = std::make_unique<EmulatedCudaApi>(EmulatedCudaOptions{.kernels = FusedKernels()});
    SetCudaPlatformForTest(CudaPlatform{.api = api_.get(),
                                        .kernels = &cuda_emulated::CudaKernels(),
                                        .commit = cuda_emulated::Commit,
                                        .make_fused = cuda_emulated::MakeFusedKernel,
                                        .compiler = compiler});
  }

  struct Outcome {
    std::vector<Tensor> losses;
    std::vector<std::string> kernels;
    std::string plan;
  };
  // Trains the encoder for a few steps. From the third step on, CUDA graphs are replayed.
  Outcome Train(GeneratedKernels generated, RowFusion rows, int64_t memory_budget = 0) {
    Outcome outcome;
    (void)api_->TakeKernelNames();
    const absl::Status status = [&]() -> absl::Status {
      const SmallEncoder encoder;
      GW_ASSIGN_OR_RETURN(
          Session session,
          Session::Create(encoder.graph, {.device = {"cuda", 0},
                                          .threads = 1,
                                          .row_fusion = rows,
                                          .memory_budget = memory_budget,
                                          .cuda = {.generated_kernels = generated, .kernel_cache = "/dev/null"}}));
      for (int i = 0; i < 4; ++i) {
        GW_ASSIGN_OR_RETURN(const std::vector<Tensor> results,
                            session.Run(encoder.Feeds(i), {encoder.loss, encoder.step}));
        outcome.losses.push_back(results[0]);
      }
      GW_ASSIGN_OR_RETURN(outcome.plan, session.DescribePlan(encoder.Feeds(0), {encoder.loss, encoder.step}));
      return absl::OkStatus();
    }();
    EXPECT_TRUE(status.ok()) << status;
    outcome.kernels = api_->TakeKernelNames();
    return outcome;
  }

  std::unique_ptr<EmulatedCudaApi> api_;
};

constexpr char kRows[] = "generated_rows";

TEST_F(RowsInSession, TrainAnEncoderAsSingleOpsDo) {
  const Outcome apart = Train(GeneratedKernels::kNever, RowFusion::kAuto);
  const Outcome without = Train(GeneratedKernels::kAlways, RowFusion::kNever);
  const Outcome with = Train(GeneratedKernels::kAlways, RowFusion::kAuto);
  EXPECT_EQ(Difference(with.losses, apart.losses), "");
  EXPECT_EQ(Difference(without.losses, apart.losses), "");
  EXPECT_THAT(with.kernels, Contains(std::string(kRows)));
  EXPECT_THAT(without.kernels, Not(Contains(std::string(kRows))));
  EXPECT_THAT(apart.kernels, Not(Contains(std::string(kRows))));
  EXPECT_LT(with.kernels.size(), without.kernels.size());
}

TEST_F(RowsInSession, ThePlanTellsWhatAKernelHolds) {
  const Outcome with = Train(GeneratedKernels::kAlways, RowFusion::kAuto);
  EXPECT_THAT(with.plan, HasSubstr(kRows));
  EXPECT_THAT(with.plan, HasSubstr("holds Mul, Softmax\n"));
  EXPECT_THAT(with.plan, HasSubstr("holds Add"));
}

// Row regions need generated kernels. If one is not available, its ops run one by one.
TEST_F(RowsInSession, ThatCannotBeCompiledRunApart) {
  const Outcome apart = Train(GeneratedKernels::kNever, RowFusion::kAuto);
  KernelCompiler compiler = EmulatedKernelCompiler(FusedKernels());
  compiler.compile = [compile = compiler.compile](const std::string& source,
                                                  int architecture) -> absl::StatusOr<std::string> {
    if (absl::StrContains(source, "RunRows<gradweave::cuda::Rows>")) return absl::InternalError("error: no rows");
    return compile(source, architecture);
  };
  Emulate(compiler);
  ::testing::internal::CaptureStderr();
  const Outcome outcome = Train(GeneratedKernels::kAuto, RowFusion::kAuto);
  EXPECT_EQ(::testing::internal::GetCapturedStderr(), "gradweave: ops on rows run one by one: error: no rows\n");
  EXPECT_EQ(Difference(outcome.losses, apart.losses), "");
  EXPECT_THAT(outcome.kernels, Not(Contains(std::string(kRows))));
  EXPECT_THAT(outcome.kernels, Contains(std::string("generated_elements")));
}

}  // namespace
}  // namespace gradweave
