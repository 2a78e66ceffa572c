// Lowering: its stages can be watched, what they make is verified, and parts of the CPU are planned
// as whole graphs of the CPU are.
#include "gradweave/runtime/plan/lower.h"

#include <cmath>
#include <cstdlib>
#include <fstream>
#include <memory>
#include <sstream>
#include <string>
#include <utility>
#include <vector>

#include "gmock/gmock.h"
#include "gradweave/ops/elementwise.h"
#include "gradweave/ops/matmul.h"
#include "gradweave/ops/scope.h"
#include "gradweave/ops/state.h"
#include "gradweave/runtime/cpu/cpu_device.h"
#include "gradweave/runtime/cpu/kernels.h"
#include "gradweave/runtime/session/backends.h"
#include "gradweave/runtime/session/session.h"
#include "gtest/gtest.h"
#include "tests/session/counting_backend.h"

namespace gradweave {
namespace {

using ::testing::HasSubstr;

Tensor Waves(std::vector<int64_t> sizes, double frequency) {
  Tensor tensor(kFloat32, std::move(sizes));
  for (int64_t i = 0; i < tensor.num_elements(); ++i)
    tensor.mutable_data<float>()[i] = static_cast<float>(std::sin(frequency * static_cast<double>(i)));
  return tensor;
}

// A product on the CPU, whose weights a second plan changes on the other device.
struct TwoDevices {
  Graph graph;
  Value x, y;
  Update on_device;
  explicit TwoDevices(const std::string& other = "counting:0") {
    Scope scope(graph);
    x = scope.Input("x", kFloat32, {64, 160});
    const Value w = scope.Variable("w", scope.Constant(Waves({160, 192}, 0.3)));
    scope.SetDevice("cpu:0");
    const Value product = MatMul(x, w);
    scope.SetDevice(other);
    y = Tanh(product);
    on_device.assignments = {Assign(w, w * 0.5)};
    EXPECT_TRUE(graph.status().ok()) << graph.status();
  }
};

std::unique_ptr<CompiledGraph> LowerOn(const std::vector<std::string>& backends, const TwoDevices& model) {
  LoweringOptions options;
  for (const std::string& name : backends) {
    absl::StatusOr<std::shared_ptr<BackendDevice>> device = FindBackend(name)->backend.open(0, {});
    EXPECT_TRUE(device.ok()) << device.status();
    options.devices.push_back(*device);
  }
  options.device = options.devices.back()->name();
  options.variables = std::make_shared<Variables>(options.devices.size() > 1 ? options.devices.back() : nullptr);
  options.variables->Add("w", Waves({160, 192}, 0.3));
  Graph wanted = model.graph;
  wanted.ClearOutputs();
  wanted.SetOutput(kFetches, {wanted.value(model.y.port())});
  wanted.SetOutput(kUpdates, std::vector<Value>());
  absl::StatusOr<std::unique_ptr<CompiledGraph>> compiled = Lower(wanted, options);
  EXPECT_TRUE(compiled.ok()) << compiled.status();
  return *std::move(compiled);
}

TEST(Lowering, PartsOfTheCpuKeepWeightsAsWholePlansDo) {
  RegisterCountingBackend();
  const std::unique_ptr<CompiledGraph> whole = LowerOn({"cpu"}, TwoDevices("cpu:0"));
  const std::unique_ptr<CompiledGraph> part = LowerOn({"cpu", "counting"}, TwoDevices());
  ASSERT_EQ(whole->plan().kept.size(), 1);
  ASSERT_EQ(part->plan().kept.size(), 1);
  EXPECT_EQ(part->plan().kept[0].variables.size(), 1);
  EXPECT_EQ(part->plan().arenas[0].kept_bytes, whole->plan().arenas[0].kept_bytes);
}

TEST(Lowering, PlansOfASessionShareKeptWeights) {
  absl::StatusOr<std::shared_ptr<BackendDevice>> cpu = FindBackend("cpu")->backend.open(0, {});
  ASSERT_TRUE(cpu.ok()) << cpu.status();
  LoweringOptions options;
  options.devices = {*cpu};
  options.device = "cpu:0";
  options.variables = std::make_shared<Variables>();
  options.variables->Add("w", Waves({160, 192}, 0.3));
  options.memory = std::make_shared<SessionMemory>(options.devices);
  auto lower = [&](int64_t rows, bool transpose) {
    Graph graph;
    Scope scope(graph);
    const Value w = scope.Variable("w", scope.Constant(Waves({160, 192}, 0.3)));
    const Value x = scope.Input("x", kFloat32, {rows, transpose ? 192 : 160});
    graph.SetOutput(kFetches, {MatMul(x, w, {.transpose_b = transpose})});
    graph.SetOutput(kUpdates, std::vector<Value>());
    absl::StatusOr<std::unique_ptr<CompiledGraph>> compiled = Lower(graph, options);
    EXPECT_TRUE(compiled.ok()) << compiled.status();
    return *std::move(compiled);
  };
  const std::unique_ptr<CompiledGraph> plan = lower(64, false), other_size = lower(48, false),
                                       other_product = lower(64, true);
  for (const auto* compiled : {&plan, &other_size, &other_product}) ASSERT_EQ((*compiled)->plan().kept.size(), 1);
  EXPECT_EQ(plan->plan().kept[0].block, other_size->plan().kept[0].block);
  EXPECT_NE(plan->plan().kept[0].block, other_product->plan().kept[0].block);
}

// Kept weights are made anew when a variable changes, be it by the host or by another plan on the
// other device.
TEST(Lowering, KeptWeightsFollowTheirVariables) {
  RegisterCountingBackend();
  const TwoDevices model, plain("cpu:0");
  absl::StatusOr<Session> mixed = Session::Create(model.graph, {.device = {"counting", 0}, .threads = 1});
  absl::StatusOr<Session> cpu = Session::Create(plain.graph, {.threads = 1});
  ASSERT_TRUE(mixed.ok() && cpu.ok()) << mixed.status() << cpu.status();
  auto run = [](Session& session, const TwoDevices& of) {
    const absl::StatusOr<std::vector<Tensor>> results = session.Run({{of.x, Waves({64, 160}, 0.01)}}, {of.y});
    EXPECT_TRUE(results.ok()) << results.status();
    return (*results)[0].ToDoubles();
  };
  const std::vector<double> first = run(*mixed, model);
  EXPECT_EQ(first, run(*cpu, plain));
  ASSERT_TRUE(mixed->Run({}, {model.on_device}).ok());
  ASSERT_TRUE(cpu->Run({}, {plain.on_device}).ok());
  EXPECT_NE(run(*mixed, model), first);
  EXPECT_EQ(run(*mixed, model), run(*cpu, plain));
  for (Session* session : {&*mixed, &*cpu}) ASSERT_TRUE(session->SetVariable("w", Waves({160, 192}, 0.7)).ok());
  EXPECT_EQ(run(*mixed, model), run(*cpu, plain));
}

TEST(Lowering, StagesThatMayBeLeftOutChangeNoBits) {
  LoweringOptions options;
  options.devices = {*FindBackend("cpu")->backend.open(0, {})};
  options.device = "cpu:0";
  options.variables = std::make_shared<Variables>();
  Graph graph;
  Scope scope(graph);
  const Value x = scope.Input("x", kFloat32, {5, 3});
  const Value two = scope.Constant(Tensor::Scalar<float>(2)), four = two * two;
  graph.SetOutput(kFetches, {Tanh(x) * 1 + Tanh(x) / four});
  graph.SetOutput(kUpdates, std::vector<Value>());
  const Tensor fed = Waves({5, 3}, 0.7);
  auto run = [&](const std::string& left_out, int& nodes) {
    options.left_out = left_out;
    const absl::StatusOr<std::unique_ptr<CompiledGraph>> plan = Lower(graph, options);
    EXPECT_TRUE(plan.ok()) << plan.status();
    nodes = (*plan)->graph().num_nodes();
    ThreadPool pool(1);
    std::vector<Tensor> results = {Tensor(kFloat32, {5, 3})};
    EXPECT_TRUE((*plan)->Run({fed.raw_data()}, absl::MakeSpan(results), pool, 0, 1).ok());
    return results[0];
  };
  options.pipeline.evaluate = [](const Node& node, absl::Span<const Tensor> operands) {
    return EvaluateNode(CpuKernels(), node, operands);
  };
  int whole = 0;
  const Tensor expected = run("", whole);
  EXPECT_THAT(StagesThatMayBeLeftOut(), ::testing::Contains("simplify"));
  for (const std::string& stage : StagesThatMayBeLeftOut()) {
    int nodes = 0;
    EXPECT_TRUE(SameBits(run(stage, nodes), expected)) << stage;
    // The second Tanh stays, and the product of constants.
    if (stage == "eliminate_common_subexpressions" || stage == "fold_constants") {
      EXPECT_GT(nodes, whole) << stage;
    }
  }
  options.left_out = "fuse";
  EXPECT_THAT(Lower(graph, options).status().message(),
              HasSubstr("'fuse' is not a stage that may be left out; those are"));
}

TEST(Lowering, DumpsEachStageWithItsTime) {
  RegisterCountingBackend();
  const std::string folder = ::testing::TempDir();
  setenv("GRADWEAVE_DUMP", folder.c_str(), 1);
  LowerOn({"cpu", "counting"}, TwoDevices());
  unsetenv("GRADWEAVE_DUMP");
  auto read = [&](const std::string& name) {
    std::ostringstream text;
    text << std::ifstream(folder + "/" + name).rdbuf();
    return text.str();
  };
  EXPECT_THAT(read("02_specialize.txt"), HasSubstr("MatMul"));
  EXPECT_THAT(read("17_place.txt"), HasSubstr("Copy"));
  EXPECT_THAT(read("17_place.dot"), HasSubstr("digraph"));
  EXPECT_THAT(read("18_partition_0.txt") + read("18_partition_1.txt"), HasSubstr("Tanh"));
  EXPECT_THAT(read("20_order_steps.txt"), HasSubstr("counting:0 counted Tanh("));
  EXPECT_THAT(read("26_plan_memory.txt"), HasSubstr("arena of counting:0"));
  const std::string times = read("times.txt");
  size_t at = 0;
  for (const char* stage :
       {"data_parallel", "specialize", "simplify", "fold_constants", "eliminate_dead_nodes", "place", "partition",
        "fuse", "order_steps", "find_lifetimes", "assign_buffers", "plan_memory", "compile", "rematerialize", "bind"}) {
    const size_t next = times.find(std::string("\n") + stage + " ", at == 0 ? 0 : at);
    EXPECT_TRUE(at == 0 || next != std::string::npos) << stage << " in\n" << times;
    at = next == std::string::npos ? 1 : next;
  }
}

TEST(VerifyPlan, FindsWhatIsWrong) {
  RegisterCountingBackend();
  const std::unique_ptr<CompiledGraph> compiled = LowerOn({"cpu", "counting"}, TwoDevices());
  const Plan& plan = compiled->plan();
  EXPECT_TRUE(VerifyPlan(plan).ok()) << VerifyPlan(plan);

  Plan late = plan;
  std::swap(late.steps.front(), late.steps.back());
  for (size_t i = 0; i < late.steps.size(); ++i) late.step_of[late.steps[i].node] = static_cast<int>(i);
  EXPECT_THAT(std::string(VerifyPlan(late).message()), HasSubstr("reads a value before it is made"));

  Plan lost = plan;
  lost.PlaceOf(lost.steps[0].outputs[0]).kind = ValuePlace::kUnset;
  EXPECT_THAT(std::string(VerifyPlan(lost).message()), HasSubstr("makes a value that has no place"));

  Plan moved = plan;
  moved.PlaceOf(moved.steps.back().operands[0]).device = 0;
  EXPECT_FALSE(VerifyPlan(moved).ok());

  Plan overlapping = plan;
  Arena& arena = overlapping.arenas[0];
  arena.buffers.push_back(arena.buffers[0]);
  arena.memory.offsets.push_back(arena.memory.offsets[0]);
  EXPECT_THAT(std::string(VerifyPlan(overlapping).message()), HasSubstr("buffers overlap in the arena of cpu:0"));
}

}  // namespace
}  // namespace gradweave
