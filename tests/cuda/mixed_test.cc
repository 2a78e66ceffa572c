// Plans that are partly on the CPU and partly on the emulated CUDA device. Each part runs as it
// would alone, in fused groups on the device and in tiles and rows on the CPU, and the results
// equal those of the CPU alone.
#include <cmath>
#include <random>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "gmock/gmock.h"
#include "gradweave/gradweave.h"
#include "gtest/gtest.h"
#include "tests/cuda/session.h"

namespace gradweave {
namespace {

using ::testing::HasSubstr;

using CudaMixed = CudaSession;

Tensor Waves(const std::vector<int64_t>& sizes, double frequency) {
  Tensor tensor(kFloat32, sizes);
  for (int64_t i = 0; i < tensor.num_elements(); ++i)
    tensor.mutable_data<float>()[i] = static_cast<float>(std::sin(frequency * static_cast<double>(i)));
  return tensor;
}

// A network whose convolutions run in tiles of samples on the CPU, and whose dense layers have
// activations and updates that are fused on the device.
struct SmallConvNet {
  Graph graph;
  Value image, label, loss;
  Update step;

  SmallConvNet(const std::string& convolutions, const std::string& dense) {
    Scope scope(graph);
    image = scope.Input("image", kFloat32, {Dim("batch"), 1, 12, 12});
    label = scope.Input("label", kInt32, {Dim("batch")});
    scope.SetDevice(convolutions);
    const nn::Sequential features{nn::Conv2D{.channels = 4, .kernel = 3}, nn::Relu{}, nn::AvgPool2D{.pool = 2},
                                  nn::Flatten{}};
    const Value hidden = features(scope, image);
    scope.SetDevice(dense);
    const nn::Sequential classifier{nn::Dense{16}, nn::Sigmoid{}, nn::Dense{10}};
    loss = nn::SoftmaxCrossEntropy(classifier(scope, hidden), label);
    scope.SetDevice("");
    step = optim::Sgd{.learning_rate = 0.5, .momentum = 0.9}.Minimize(loss);
    EXPECT_TRUE(graph.status().ok()) << graph.status();
  }
  std::vector<Feed> Feeds() const {
    Tensor labels(kInt32, {40});
    for (int i = 0; i < 40; ++i) labels.mutable_data<int32_t>()[i] = i % 10;
    return {{image, Waves({40, 1, 12, 12}, 0.37)}, {label, labels}};
  }
};

TEST_F(CudaMixed, EachPartRunsAsItWouldAlone) {
  const SmallConvNet plain("", ""), placed("cpu:0", "cuda:0");
  for (BatchTiles tiles : {BatchTiles::kAlways, BatchTiles::kNever}) {
    Session cpu = MakeSession(plain.graph, {.threads = 1, .seed = 3, .batch_tiles = BatchTiles::kNever});
    Session mixed = MakeSession(placed.graph, {.device = kCuda0, .threads = 1, .seed = 3, .batch_tiles = tiles});
    const std::string plan = *mixed.DescribePlan(placed.Feeds(), {placed.loss, placed.step});
    EXPECT_THAT(plan, HasSubstr("fused_elements"));
    EXPECT_EQ(absl::StrContains(plan, "batch region of"), tiles == BatchTiles::kAlways) << plan;
    EXPECT_EQ(absl::StrContains(plan, "tiles"), tiles == BatchTiles::kAlways) << plan;
    for (int i = 0; i < 4; ++i) {
      EXPECT_NEAR(RunAll(mixed, placed.Feeds(), {placed.loss, placed.step})[0].ToDouble(),
                  RunAll(cpu, plain.Feeds(), {plain.loss, plain.step})[0].ToDouble(), kTolerance);
    }
    for (const std::string& name : cpu.VariableNames()) {
      SCOPED_TRACE(name);
      ExpectNear(mixed.GetVariable(name)->ToDoubles(), cpu.GetVariable(name)->ToDoubles());
    }
  }
}

TEST_F(CudaMixed, RowsOfTheCpuAreFused) {
  Graph graphs[2];
  Value x[2], y[2];
  for (int i : {0, 1}) {
    Scope scope(graphs[i]);
    x[i] = scope.Input("x", kFloat32, {64, 48});
    const Value product = MatMul(x[i], scope.Constant(Waves({48, 48}, 0.11)));
    if (i == 0) scope.SetDevice("cpu:0");
    const Value centered = product - Mean(product, {.axes = {1}, .keep_dims = true});
    const Value scaled = centered * Rsqrt(Mean(Square(centered), {.axes = {1}, .keep_dims = true}) + 1e-5);
    scope.SetDevice("");
    y[i] = Sum(Exp(scaled) * scaled, {.axes = {0}});
    ASSERT_TRUE(graphs[i].status().ok()) << graphs[i].status();
  }
  const Tensor feed = Waves({64, 48}, 0.07);
  Session mixed = MakeSession(graphs[0], {.device = kCuda0, .threads = 1, .row_fusion = RowFusion::kAlways});
  Session cpu = MakeSession(graphs[1], {.threads = 1, .row_fusion = RowFusion::kNever});
  EXPECT_THAT(*mixed.DescribePlan({{x[0], feed}}, {y[0]}), HasSubstr(" rows "));
  for (int i = 0; i < 3; ++i) {
    ExpectNear(RunAll(mixed, {{x[0], feed}}, {y[0]})[0].ToDoubles(),
               RunAll(cpu, {{x[1], feed}}, {y[1]})[0].ToDoubles());
  }
}

// Nodes that need no device run as in a session without one, with the same bits.
TEST_F(CudaMixed, WhatIsOnTheCpuAloneRunsAsThere) {
  Graph graphs[2];
  Value x[2], on_cpu[2];
  for (int i : {0, 1}) {
    Scope scope(graphs[i]);
    x[i] = scope.Input("x", kFloat32, {32, 1, 8, 8});
    on_cpu[i] = Relu(Conv2D(x[i], scope.Constant(Waves({4, 1, 3, 3}, 0.3)))) * 2;
    if (i == 0) {
      scope.SetDevice("cuda:0");
      Exp(on_cpu[i]);
    }
    ASSERT_TRUE(graphs[i].status().ok()) << graphs[i].status();
  }
  const Tensor feed = Waves({32, 1, 8, 8}, 0.07);
  Session mixed = MakeSession(graphs[0], {.threads = 1, .batch_tiles = BatchTiles::kAlways});
  Session cpu = MakeSession(graphs[1], {.threads = 1, .batch_tiles = BatchTiles::kAlways});
  EXPECT_THAT(*mixed.DescribePlan({{x[0], feed}}, {on_cpu[0]}), HasSubstr("batch region of"));
  for (int i = 0; i < 2; ++i) {
    EXPECT_EQ(RunAll(mixed, {{x[0], feed}}, {on_cpu[0]})[0].ToDoubles(),
              RunAll(cpu, {{x[1], feed}}, {on_cpu[1]})[0].ToDoubles());
  }
  EXPECT_EQ(CountCalls("CopyAsync"), 0);
}

// Random graphs with each node on some device. No fused group may depend on itself.
TEST_F(CudaMixed, AnyGraphGivesWhatTheCpuGives) {
  for (int seed = 0; seed < 60; ++seed) {
    SCOPED_TRACE(absl::StrCat("seed ", seed));
    std::mt19937 random(seed);
    Graph placed, plain;
    Value x[2];
    std::vector<Value> fetches[2];
    Update update[2];
    // Build the same graph with and without devices.
    for (int i : {0, 1}) {
      random.seed(seed);
      Scope scope(i == 0 ? placed : plain);
      x[i] = scope.Input("x", kFloat32, {20, 6});
      const Value v = scope.Variable("v", scope.Constant(Waves({20, 6}, 0.3)));
      const Value w = scope.Variable("w", scope.Constant(Waves({6, 6}, 0.2)));
      std::vector<Value> values = {x[i], v};
      auto any = [&] { return values[random() % values.size()]; };
      for (int k = 0; k < 30; ++k) {
        // Place runs of nodes on one device, as users would, or one node at a time.
        if (seed % 2 == 0 || k % 5 == 0) {
          const bool on_device = random() % 2 == 0;
          if (i == 0) scope.SetDevice(on_device ? "cuda:0" : "cpu:0");
        }
        switch (random() % 8) {
          case 0:
            values.push_back(MatMul(any(), w) * 0.3);
            break;
          case 1:
            values.push_back(any() - Mean(any(), {.axes = {1}, .keep_dims = true}));
            break;
          case 2:
            values.push_back(any() + Sum(any(), {.axes = {0}}) * 0.05);
            break;
          case 3:
            values.push_back(Reshape(Tanh(Reshape(any(), {6, 20})), {20, 6}));
            break;
          case 4:
            values.push_back(Softmax(any()));
            break;
          case 5:
            values.push_back(any() * Sigmoid(any()));
            break;
          default:
            values.push_back(Tanh(any() - any()));
        }
      }
      scope.SetDevice("");
      const Value loss = Mean(Square(values.back() + any()));
      const std::vector<Value> gradients = Gradients({loss}, {v, w});
      fetches[i] = {loss, values.back(), any()};
      update[i].assignments = {Assign(v, v - 0.1 * gradients[0]), Assign(w, w - 0.1 * gradients[1])};
    }
    ASSERT_TRUE(placed.status().ok()) << placed.status();
    const Tensor feed = Waves({20, 6}, 0.07);
    const SessionOptions options = {.device = seed % 3 == 0 ? Device::Cpu() : kCuda0,
                                    .threads = 2,
                                    .batch_tiles = seed % 4 < 2 ? BatchTiles::kAlways : BatchTiles::kNever,
                                    .row_fusion = seed % 5 < 3 ? RowFusion::kAlways : RowFusion::kNever};
    Session mixed = MakeSession(placed, options);
    Session cpu =
        MakeSession(plain, {.threads = 1, .batch_tiles = BatchTiles::kNever, .row_fusion = RowFusion::kNever});
    auto run = [&](Session& session, int i) {
      return RunAll(session, {{x[i], feed}}, {fetches[i][0], fetches[i][1], fetches[i][2], update[i]});
    };
    for (int k = 0; k < 4; ++k) {
      const std::vector<Tensor> got = run(mixed, 0), want = run(cpu, 1);
      ASSERT_EQ(got.size(), want.size());
      for (size_t j = 0; j < got.size(); ++j) ExpectNear(got[j].ToDoubles(), want[j].ToDoubles(), 1e-3);
    }
    for (const char* name : {"v", "w"}) {
      ExpectNear(mixed.GetVariable(name)->ToDoubles(), cpu.GetVariable(name)->ToDoubles(), 1e-3);
    }
  }
  if (api_ != nullptr) {
    EXPECT_GT(CountCalls("WaitEvent"), 0);
  }
}

}  // namespace
}  // namespace gradweave
