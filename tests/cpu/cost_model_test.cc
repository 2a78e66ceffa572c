// The cost model of the CPU beside measured times: which kernel is chosen for known shapes, and
// what the model expects of each. The times are those of benchmarks/calibrate on one thread of a
// Sapphire Rapids. One binary tests the class of machines with AVX-512; the other one turns AVX-512
// off (GRADWEAVE_TEST_AVX2).
#include <cmath>
#include <string>
#include <vector>

#include "absl/strings/match.h"
#include "gradweave/gradweave.h"
#include "gradweave/graph/partition/batch_regions.h"
#include "gradweave/runtime/cpu/cost/cost_model.h"
#include "gradweave/runtime/cpu/kernels.h"
#include "gradweave/runtime/cpu/ops/choices.h"
#include "gradweave/runtime/cpu/region_cost.h"
#include "gradweave/runtime/cpu/region_steps.h"
#include "gradweave/runtime/cpu/tile/tile_cost.h"
#include "gradweave/runtime/cpu/tile/tile_kernels.h"
#include "gradweave/runtime/cpu/tile/tile_program.h"
#include "gradweave/runtime/plan/lower.h"
#include "gtest/gtest.h"
#include "hwy/targets.h"

namespace gradweave {
namespace {

#ifdef GRADWEAVE_TEST_AVX2
constexpr int kLanes = 8;
const bool disabled = [] {
  hwy::DisableTargets(HWY_AVX3 | HWY_AVX3_DL);
  return true;
}();
#else
constexpr int kLanes = 16;
#endif
// Index of a class in the tables below.
constexpr int kClass = kLanes == 16 ? 0 : 1;

class CostModelTest : public testing::Test {
 protected:
  void SetUp() override {
    if (ThisMachine().lanes != kLanes) GTEST_SKIP() << "this machine is of the class " << ThisMachine().name;
  }
};

// A factor of a grossly wrong constant; the model is right within less.
constexpr double kTolerance = 2.2;

void ExpectNear(double nanoseconds, double microseconds, const std::string& what) {
  EXPECT_LT(std::abs(std::log(nanoseconds / 1e3 / microseconds)), std::log(kTolerance))
      << what << " takes " << microseconds << " us; the model expects " << nanoseconds / 1e3;
}

// A way to run a node and its times in microseconds, by class; 0: the way is not compared.
struct Way {
  std::string name;
  double microseconds[2];
};

// Expects that each of `ways` costs about as much as measured, and that the fastest one is chosen.
void ExpectChoice(const std::string& what, const std::vector<KernelChoice>& choices, const std::vector<Way>& ways) {
  const Way* best = nullptr;
  for (const Way& way : ways) {
    const double measured = way.microseconds[kClass];
    for (const KernelChoice& choice : choices) {
      if (choice.name == way.name && measured > 0)
        ExpectNear(choice.estimate.nanoseconds(), measured, what + " " + way.name);
    }
    if (measured > 0 && (best == nullptr || measured < best->microseconds[kClass])) best = &way;
  }
  EXPECT_EQ(Cheapest(choices).name, best->name) << what;
}

TEST_F(CostModelTest, Convolutions) {
  struct Case {
    int64_t samples, channels, size, outputs, kernel, stride, padding, groups;
    std::vector<Way> ways;
  };
  const Case cases[] = {
      {4, 1, 28, 6, 5, 1, 2, 1, {{"direct", {8.6, 12.5}}, {"product", {19.6, 32.3}}}},
      // Neighbouring columns of short rows leave lanes empty.
      {4, 6, 14, 16, 5, 1, 0, 1, {{"direct by channels", {12.5, 19.4}}, {"direct", {15.8, 25.6}}}},
      {4, 16, 32, 32, 3, 2, 1, 1, {{"direct by channels", {71.4, 116}}, {"product", {159, 176}}}},
      {4,
       32,
       16,
       32,
       3,
       1,
       1,
       32,
       {{"direct", {23.9, 24.9}},
        {"direct by channels", {151, 106}},
        {"product", {91.2, 93.1}},
        {"depthwise by rows", {14.5, 19.4}},
        {"depthwise by channels", {24.4, 42.5}}}},
      // Small images leave lanes empty by rows.
      {1, 384, 4, 384, 3, 1, 1, 384, {{"depthwise by channels", {3.9, 6.9}}, {"depthwise by rows", {18.6, 19.9}}}},
      {1, 96, 32, 96, 3, 2, 1, 96, {{"depthwise by rows", {19.9, 21.4}}, {"product", {140.9, 141.4}}}},
      {1,
       3,
       64,
       32,
       7,
       2,
       3,
       1,
       {{"implicit product", {68.8, 117}}, {"direct by channels", {87.3, 98.9}}, {"product", {133, 170}}}},
      // Too large for the others.
      {1, 512, 7, 512, 3, 1, 1, 1, {{"implicit product", {2066, 3680}}, {"product", {2820, 4200}}}},
      {1,
       64,
       56,
       64,
       3,
       1,
       1,
       1,
       {{"Winograd 4x4", {600, 776}}, {"Winograd 2x2", {793, 1361}}, {"product", {2673, 0}}}},
  };
  for (const Case& c : cases) {
    Graph graph;
    Scope scope(graph);
    const Value x = scope.Input("x", kFloat32, {c.samples, c.channels, c.size, c.size});
    const Value filter = scope.Input("filter", kFloat32, {c.outputs, c.channels / c.groups, c.kernel, c.kernel});
    const Value y =
        Conv2D(x, filter, {.stride = {c.stride, c.stride}, .padding = {c.padding, c.padding}, .groups = c.groups});
    const Node& node = graph.node(y.port().node);
    const std::string what = "convolution of " + std::to_string(c.channels) + " to " + std::to_string(c.outputs);
    ExpectChoice(what, Conv2DChoices({node, graph.OperandTypes(node)}), c.ways);
    // Results would depend on threads otherwise.
    EXPECT_EQ(Cheapest(Conv2DChoices({node, graph.OperandTypes(node), 64})).name,
              Cheapest(Conv2DChoices({node, graph.OperandTypes(node), 1})).name);
  }
}

TEST_F(CostModelTest, Products) {
  struct Case {
    int64_t rows, columns, terms;
    std::vector<Way> ways;
  };
  const Case cases[] = {
      {1, 512, 512, {{"sum of rows", {10.4, 15.3}}, {"gemm", {15.3, 16.5}}}},
      {256, 120, 400, {{"product", {145, 234}}, {"gemm", {251, 339}}}},
      {256, 512, 512, {{"product", {826, 1279}}, {"gemm", {1153, 1389}}}},
      {64, 512, 512, {{"product", {223, 311}}, {"gemm", {367, 366}}}},
      // Few rows do not pay for a copy of the matrix. Few columns leave most lanes empty. OpenBLAS
      // copies small matrices for AVX2, but not for AVX-512.
      {2, 64, 64, {{"gemm", {0.14, 0}}, {"product", {0.4, 0.6}}}},
      {2, 512, 512, {{"gemm", {14.1, 65.2}}, {"product", {36.3, 39.6}}}},
      {64, 7, 64, {{"gemm", {0.7, 1.8}}, {"product", {1.2, 1.2}}}},
      {64, 1, 64, {{"gemm", {0.2, 0.8}}, {"product", {1.0, 1.0}}}},
  };
  for (const Case& c : cases) {
    Graph graph;
    Scope scope(graph);
    const Value y =
        MatMul(scope.Input("a", kFloat32, {c.rows, c.terms}), scope.Input("b", kFloat32, {c.terms, c.columns}));
    const Node& node = graph.node(y.port().node);
    const std::string what =
        "product of " + std::to_string(c.rows) + " rows, " + std::to_string(c.columns) + " columns";
    ExpectChoice(what, MatMulChoices({node, graph.OperandTypes(node)}), c.ways);
  }
}

// Layers of equal sizes: convolutions of `channels` channels, dense layers where `kernel` is 0, or
// elementwise ops where `channels` is 0.
struct Network {
  int64_t batch, channels, size, kernel;
  int depth;
  bool pool, training;
  double tiled[2], one_by_one[2];  // Microseconds, by class.
};

absl::StatusOr<Graph> Simplified(const Graph& graph) {
  return RunPipeline(
      graph, {.evaluate = [](const Node& node, auto operands) { return EvaluateNode(CpuKernels(), node, operands); }});
}

void ExpectCosts(const Network& n) {
  Graph graph;
  Scope scope(graph);
  const Shape sample = n.kernel > 0 ? Shape{n.batch, n.channels, n.size, n.size} : Shape{n.batch, n.size};
  const Value x = scope.Input("x", kFloat32, sample);
  Value y = x;
  for (int layer = 0; layer < n.depth; ++layer) {
    const Shape shape = n.kernel > 0 ? Shape{n.channels, n.channels, n.kernel, n.kernel} : Shape{n.size, n.size};
    if (n.channels == 0) {
      y = Relu(y * x);
      continue;
    }
    const Value weights = scope.Variable("w" + std::to_string(layer), RandomUniform(scope, shape, -0.05, 0.05));
    y = Relu(n.kernel > 0 ? Conv2D(y, weights, {.padding = {n.kernel / 2, n.kernel / 2}}) : MatMul(y, weights));
    if (n.pool) y = MaxPool2D(y);
  }
  std::vector<int64_t> axes;
  for (int axis = 1; axis < y.rank(); ++axis) axes.push_back(axis);
  graph.SetOutput("values", n.training ? optim::Sgd{.learning_rate = 1e-6}.Minimize(Mean(Square(y))).assignments
                                       : std::vector<Value>{Sum(y, {.axes = Integers(axes.begin(), axes.end())})});
  ASSERT_TRUE(graph.status().ok()) << graph.status();
  const absl::StatusOr<Graph> lowered = Simplified(graph);
  ASSERT_TRUE(lowered.ok()) << lowered.status();
  const BatchPartition partition = FindBatchRegions(*lowered, 1, TileCompiler().supports);
  Estimate tiled, one_by_one;
  for (const OrderItem& item : partition.order) {
    if (item.is_node()) {
      const Estimate node = NodeEstimate(*lowered, lowered->node(item.node()), true);
      tiled.Add(node);
      one_by_one.Add(node);
    } else {
      const BatchRegion& region = partition.regions[item.index];
      tiled.Add(TileEstimate(*lowered, region, true));
      one_by_one.Add(OneByOneEstimate(*lowered, region, true));
      EXPECT_EQ(TilesSaving(*lowered, region, true) > 0, n.tiled[kClass] < n.one_by_one[kClass]);
    }
  }
  const std::string what = std::to_string(n.channels) + " channels, training " + std::to_string(n.training);
  ExpectNear(tiled.nanoseconds(), n.tiled[kClass], what + " in tiles");
  ExpectNear(one_by_one.nanoseconds(), n.one_by_one[kClass], what + " one by one");
}

TEST_F(CostModelTest, Tiles) {
  ExpectCosts({64, 8, 16, 3, 3, true, false, {196, 266}, {522, 517}});
  ExpectCosts({64, 8, 16, 3, 3, true, true, {476, 685}, {1564, 1156}});
  ExpectCosts({32, 64, 8, 3, 3, false, false, {1531, 2260}, {1272, 1739}});
  ExpectCosts({32, 64, 8, 3, 3, false, true, {8234, 11996}, {4123, 6868}});
  // Dense layers and elementwise ops gain nothing from tiles.
  ExpectCosts({64, 1, 256, 0, 4, false, true, {1091, 1953}, {811, 1353}});
  ExpectCosts({64, 0, 1024, 0, 8, false, false, {87.9, 76.8}, {34.5, 59.8}});
  // Each tile reads all weights, which leave the second-level cache, and each run packs them.
  ExpectCosts({64, 1, 512, 0, 64, false, true, {152300, 195400}, {84800, 101500}});
}

// The search for a plan within a memory budget compares these estimates.
TEST_F(CostModelTest, AnEstimateOfAPlanHasNoWinogradIfItIsTurnedOff) {
  Graph graph;
  Scope scope(graph);
  const Value x = scope.Input("x", kFloat32, {8, 128, 28, 28});
  const Value filter = scope.Variable("filter", RandomUniform(scope, {128, 128, 3, 3}, -0.05, 0.05));
  graph.SetOutput("y", {Conv2D(x, filter, {.padding = {1, 1}})});
  const absl::StatusOr<Graph> lowered = Simplified(graph);
  ASSERT_TRUE(lowered.ok()) << lowered.status();
  double nanoseconds[2];
  for (bool toom_cook : {false, true}) {
    StepOptions options;
    options.batch_tiles = BatchTiles::kNever;
    options.toom_cook = toom_cook;
    options.wants_estimate = true;
    const absl::StatusOr<PartSteps> steps = FindRegionSteps(*lowered, options);
    ASSERT_TRUE(steps.ok()) << steps.status();
    nanoseconds[toom_cook] = steps->nanoseconds;
  }
  EXPECT_GT(nanoseconds[false], 1.3 * nanoseconds[true]);
}

// 32 steps take 27.6 ms one by one and 35.7 ms in tiles with AVX-512. Each step and its gradient
// are regions of their own, since a step's weights are read as a whole, so each would pack the
// weights.
TEST_F(CostModelTest, RecurrentLayersRunOneByOne) {
  Graph graph;
  Scope scope(graph);
  const Value x = scope.Input("x", kFloat32, {64, 8, 128});
  const nn::Sequential net{nn::Lstm{.features = 128, .whole_sequence = false}, nn::Dense{10}};
  const Value y = net(scope, x, {.training = true});
  graph.SetOutput("values", optim::Sgd{.learning_rate = 1e-6}.Minimize(Mean(Square(y))).assignments);
  ASSERT_TRUE(graph.status().ok()) << graph.status();
  const absl::StatusOr<Graph> lowered = Simplified(graph);
  ASSERT_TRUE(lowered.ok()) << lowered.status();
  const BatchPartition partition = FindBatchRegions(*lowered, 1, TileCompiler().supports);
  EXPECT_GE(partition.regions.size(), 8u);
  for (const BatchRegion& region : partition.regions) EXPECT_LT(TilesSaving(*lowered, region, true), 0);
}

TEST_F(CostModelTest, ChangedWeightsArePackedInEachRun) {
  auto tiles_of = [](bool training) {
    Graph graph;
    Scope scope(graph);
    const Value x = scope.Input("x", kFloat32, {16, 256, 4, 4});
    const Value filter = scope.Variable("f", RandomUniform(scope, {256, 256, 3, 3}, -0.05, 0.05));
    const Value y = Conv2D(x, filter, {.padding = {1, 1}});
    std::vector<Value> wanted = {y};
    if (training) wanted.push_back(Assign(filter, filter * 0.5));
    graph.SetOutput("values", wanted);
    const absl::StatusOr<Graph> lowered = Simplified(graph);
    EXPECT_TRUE(lowered.ok()) << lowered.status();
    const BatchPartition partition = FindBatchRegions(*lowered, 1, TileCompiler().supports);
    EXPECT_EQ(partition.regions.size(), 1u);
    return TileEstimate(*lowered, partition.regions[0], true).nanoseconds();
  };
  EXPECT_GT(tiles_of(true), 1.02 * tiles_of(false));
}

// Nobody has measured SSE4 and NEON. They are no copies of AVX2: a vector has half as many lanes.
TEST_F(CostModelTest, ClassesOfFourLanes) {
  EXPECT_EQ(MachineOfLanes(4).lanes, 4);
  EXPECT_EQ(MachineOfLanes(8).lanes, 8);
  for (int loop = 0; loop < kNumLoops; ++loop) {
    const Work &half = MachineOfLanes(4).nanoseconds[loop], &whole = MachineOfLanes(8).nanoseconds[loop];
    EXPECT_EQ(half.far, whole.far);
    EXPECT_EQ(half.moved, 2 * whole.moved);
    EXPECT_GE(half.products, whole.products);
  }
}

TEST_F(CostModelTest, LanesOfTiles) {
  // Two threads share a batch of 16.
  EXPECT_EQ(LanesOfTiles(16), 8);
  EXPECT_EQ(LanesOfTiles(17), kLanes);
}

TEST_F(CostModelTest, RowRegionsOfFewColumns) {
  for (const int64_t columns : {2, 4, 12, 32}) {
    Graph graph;
    Scope scope(graph);
    const Value x = scope.Input("x", kFloat32, {4096, columns});
    const Value y = Softmax(Relu(x * 2.0));
    absl::StatusOr<Session> session = Session::Create(graph, {.threads = 1, .batch_tiles = BatchTiles::kNever});
    ASSERT_TRUE(session.ok());
    const absl::StatusOr<std::string> plan = session->DescribePlan({{x, Tensor(kFloat32, {4096, columns})}}, {y});
    ASSERT_TRUE(plan.ok()) << plan.status();
    EXPECT_EQ(absl::StrContains(*plan, "3 nodes"), columns >= 4) << *plan;
  }
}

}  // namespace
}  // namespace gradweave
