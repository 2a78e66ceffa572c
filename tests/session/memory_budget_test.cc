// Memory budgets: the plans that sessions choose, against a search over all combinations of a
// plan's choices.
#include <algorithm>
#include <limits>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "gradweave/gradweave.h"
#include "gradweave/graph/passes/passes.h"
#include "gradweave/runtime/cpu/kernels.h"
#include "gradweave/runtime/plan/lower.h"
#include "gradweave/runtime/session/backends.h"
#include "gtest/gtest.h"

namespace gradweave {
namespace {

struct Network {
  Graph graph;
  Value x, loss;
  Update step;
  std::vector<Feed> feeds;
};

void AddTraining(Network& network, const Value& y) {
  network.loss = Mean(Square(y));
  network.step = optim::Sgd{.learning_rate = 1e-3}.Minimize(network.loss);
  Tensor x(kFloat32, network.x.shape().sizes());
  int i = 0;
  for (float& value : x.mutable_values<float>()) value = static_cast<float>(i++ % 17) / 16 - 0.5f;
  network.feeds = {{network.x, x}};
}

Value Weights(Scope& scope, int number, const Shape& shape) {
  return scope.Variable("w" + std::to_string(number), RandomUniform(scope, shape, -0.1, 0.1));
}

// Dense layers. The gradients of all weights together take far more memory than a step needs.
std::unique_ptr<Network> DeepMlp() {
  auto network = std::make_unique<Network>();
  Scope scope(network->graph);
  network->x = scope.Input("x", kFloat32, {64, 128});
  Value y = network->x;
  for (int layer = 0; layer < 24; ++layer) y = Relu(MatMul(y, Weights(scope, layer, {128, 128})));
  AddTraining(*network, y);
  return network;
}

// Two batch regions, which the cost model runs in tiles: the sum over samples ends the first one.
std::unique_ptr<Network> TwoRegions() {
  auto network = std::make_unique<Network>();
  Scope scope(network->graph);
  network->x = scope.Input("x", kFloat32, {32, 8, 16, 16});
  const Conv2DOptions same = {.padding = {1, 1}};
  Value y = network->x;
  for (int layer = 0; layer < 3; ++layer) y = Relu(Conv2D(y, Weights(scope, layer, {8, 8, 3, 3}), same));
  y = y - Mean(y, {.axes = {0}, .keep_dims = true});
  for (int layer = 3; layer < 6; ++layer) y = Relu(Conv2D(y, Weights(scope, layer, {8, 8, 3, 3}), same));
  AddTraining(*network, y);
  return network;
}

struct Planned {
  int64_t bytes = 0;
  std::vector<bool> tiled;
};

absl::StatusOr<Planned> PlanOf(const Network& network, const StepOptions& options, double share_of_values) {
  static const auto* const kCpu = new std::shared_ptr<BackendDevice>(*FindBackend("cpu")->backend.open(0, {}));
  Graph wanted = network.graph;
  wanted.ClearOutputs();
  std::vector<Value> updates;
  for (const Value& value : network.step.assignments) updates.push_back(wanted.value(value.port()));
  wanted.SetOutput(kFetches, {wanted.value(network.loss.port())});
  wanted.SetOutput(kUpdates, updates);
  const PipelineOptions pipeline = {
      .evaluate = [](const Node& node, auto operands) { return EvaluateNode(CpuKernels(), node, operands); }};
  GW_ASSIGN_OR_RETURN(Graph graph, RunPipeline(wanted, pipeline));
  if (share_of_values < 1) {
    int64_t bytes = 0;
    for (const Node& node : graph.nodes()) {
      for (const TensorType& type : node.outputs) bytes += type.byte_size();
    }
    GW_ASSIGN_OR_RETURN(graph,
                        Rematerialize(graph, static_cast<int64_t>(share_of_values * static_cast<double>(bytes))));
  }
  auto variables = std::make_shared<Variables>();
  for (const Node& node : graph.nodes()) {
    if (node.op->kind == OpKind::kVariable) variables->Add(node.name, Tensor(kFloat32, node.outputs[0].shape.sizes()));
  }
  // The pipeline has run already. Once more, it would merge nodes that are computed twice on
  // purpose.
  GW_ASSIGN_OR_RETURN(const std::unique_ptr<CompiledGraph> plan,
                      Lower(graph, {.pipeline = pipeline,
                                    .compile = options,
                                    .devices = {*kCpu},
                                    .device = "cpu:0",
                                    .variables = variables,
                                    .left_out = "eliminate_common_subexpressions"}));
  return Planned{plan->arena_bytes(), plan->plan().tiled};
}

// Returns the least bytes of a plan over all combinations of the choices.
int64_t LeastBytes(const Network& network) {
  const absl::StatusOr<Planned> first = PlanOf(network, {{.threads = 1}}, 1);
  EXPECT_TRUE(first.ok()) << first.status();
  int64_t least = std::numeric_limits<int64_t>::max();
  for (size_t bits = 0; bits >> first->tiled.size() == 0; ++bits) {
    for (RowFusion rows : {RowFusion::kAuto, RowFusion::kNever}) {
      for (double share : {1.0, 0.5, 0.2, 0.1, 0.05, 0.0}) {
        StepOptions options{{.threads = 1, .row_fusion = rows, .keep_weights = false}};
        for (size_t i = 0; i < first->tiled.size(); ++i) options.tiled.push_back((bits >> i & 1) != 0);
        const absl::StatusOr<Planned> plan = PlanOf(network, options, share);
        EXPECT_TRUE(plan.ok()) << plan.status();
        if (plan.ok()) least = std::min(least, plan->bytes);
      }
    }
  }
  return least;
}

int64_t PlannedPeak(const std::string& plan) {
  const size_t at = plan.find("planned peak ");
  return at == std::string::npos ? -1 : std::stoll(plan.substr(at + 13));
}

// Returns the losses of a few steps within the budget, or none if the session refuses the budget.
// Expects that the plan keeps to the budget.
std::vector<double> Train(const Network& network, int64_t budget, int64_t* peak = nullptr) {
  absl::StatusOr<Session> session = Session::Create(network.graph, {.threads = 1, .memory_budget = budget});
  EXPECT_TRUE(session.ok()) << session.status();
  const std::vector<Fetch> fetches = {network.loss, network.step};
  const absl::StatusOr<std::string> plan = session->DescribePlan(network.feeds, fetches);
  if (!plan.ok()) {
    EXPECT_EQ(plan.status().code(), absl::StatusCode::kResourceExhausted) << plan.status();
    return {};
  }
  EXPECT_TRUE(budget == 0 || PlannedPeak(*plan) <= budget) << *plan;
  if (peak != nullptr) *peak = PlannedPeak(*plan);
  std::vector<double> losses;
  for (int i = 0; i < 3; ++i) {
    const absl::StatusOr<std::vector<Tensor>> results = session->Run(network.feeds, fetches);
    EXPECT_TRUE(results.ok()) << results.status();
    if (results.ok()) losses.push_back((*results)[0].ToDoubles()[0]);
  }
  return losses;
}

// Expects that a session refuses no budget that some combination meets.
void ExpectMeetsWhatAnyChoiceMeets(const Network& network) {
  ASSERT_TRUE(network.graph.status().ok()) << network.graph.status();
  int64_t peak = 0;
  const std::vector<double> losses = Train(network, 0, &peak);
  const int64_t least = LeastBytes(network);
  ASSERT_LT(least, peak);
  for (int64_t budget : {peak - 1, (peak + least) / 2, least}) {
    const std::vector<double> within = Train(network, budget);
    ASSERT_EQ(within.size(), losses.size()) << "refuses " << budget << " bytes; a plan takes " << least;
    for (size_t i = 0; i < losses.size(); ++i) EXPECT_NEAR(within[i], losses[i], 1e-5 * losses[i]);
  }
  EXPECT_TRUE(Train(network, least / 4).empty());
}

TEST(MemoryBudget, OfADeepMlp) { ExpectMeetsWhatAnyChoiceMeets(*DeepMlp()); }

TEST(MemoryBudget, OfSeveralBatchRegions) {
  const std::unique_ptr<Network> network = TwoRegions();
  const absl::StatusOr<Planned> plan = PlanOf(*network, {{.threads = 1}}, 1);
  ASSERT_TRUE(plan.ok()) << plan.status();
  // Otherwise this test would leave tiles out.
  EXPECT_GE(std::count(plan->tiled.begin(), plan->tiled.end(), true), 2);
  ExpectMeetsWhatAnyChoiceMeets(*network);
}

// Tiles that are forced, or forbidden, stay so.
TEST(MemoryBudget, LeavesChoicesOfTheUserAlone) {
  const std::unique_ptr<Network> network = TwoRegions();
  for (BatchTiles tiles : {BatchTiles::kNever, BatchTiles::kAlways}) {
    absl::StatusOr<Session> free = Session::Create(network->graph, {.threads = 1, .batch_tiles = tiles});
    ASSERT_TRUE(free.ok()) << free.status();
    const std::vector<Fetch> fetches = {network->loss, network->step};
    const int64_t peak = PlannedPeak(*free->DescribePlan(network->feeds, fetches));
    absl::StatusOr<Session> tight =
        Session::Create(network->graph, {.threads = 1, .batch_tiles = tiles, .memory_budget = peak - 1});
    ASSERT_TRUE(tight.ok()) << tight.status();
    const absl::StatusOr<std::string> plan = tight->DescribePlan(network->feeds, fetches);
    if (!plan.ok()) continue;
    EXPECT_EQ(plan->find("tiles of") != std::string::npos, tiles == BatchTiles::kAlways) << *plan;
  }
}

}  // namespace
}  // namespace gradweave
