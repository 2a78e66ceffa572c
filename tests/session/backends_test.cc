// Backends: sessions run graphs on a backend that the engine doesn't know, alone and mixed with the
// CPU.
#include "gradweave/runtime/session/backends.h"

#include <cmath>
#include <string>
#include <utility>
#include <vector>

#include "gmock/gmock.h"
#include "gradweave/graph/passes/autodiff.h"
#include "gradweave/ops/elementwise.h"
#include "gradweave/ops/matmul.h"
#include "gradweave/ops/reduction.h"
#include "gradweave/ops/scope.h"
#include "gradweave/ops/softmax.h"
#include "gradweave/ops/state.h"
#include "gradweave/runtime/session/session.h"
#include "gtest/gtest.h"
#include "tests/session/counting_backend.h"

namespace gradweave {
namespace {

using ::testing::Contains;
using ::testing::HasSubstr;
using ::testing::Key;
using ::testing::Not;
using ::testing::Pair;

const Device kCounting{"counting", 0};

Tensor Waves(std::vector<int64_t> sizes, double frequency) {
  Tensor tensor(kFloat32, std::move(sizes));
  for (int64_t i = 0; i < tensor.num_elements(); ++i)
    tensor.mutable_data<float>()[i] = static_cast<float>(std::sin(frequency * static_cast<double>(i)));
  return tensor;
}

// tanh(x w + b), and with a loss the counting device has no kernels for, a training step.
struct Layer {
  Graph graph;
  Value x, y, loss;
  Update step;
  Layer() {
    Scope scope(graph);
    x = scope.Input("x", kFloat32, {8, 6});
    const Value w = scope.Variable("w", scope.Constant(Waves({6, 5}, 0.3)));
    const Value b = scope.Variable("b", scope.Constant(Waves({5}, 0.7)));
    y = Tanh(MatMul(x, w) + b);
    loss = Mean(Square(Softmax(y)));
    const std::vector<Value> gradients = Gradients({loss}, {w, b});
    step.assignments = {Assign(w, w - 0.5 * gradients[0]), Assign(b, b - 0.5 * gradients[1])};
    EXPECT_TRUE(graph.status().ok()) << graph.status();
  }
  std::vector<Feed> Feeds(int i) const { return {{x, Waves({8, 6}, 0.11 + 0.01 * i)}}; }
};

class CountingBackend : public ::testing::Test {
 protected:
  void SetUp() override {
    RegisterCountingBackend();
    CountedCalls() = {};
  }
};

Session Open(const Graph& graph, Device device) {
  // Nodes one by one, so that all devices give the same bits.
  absl::StatusOr<Session> session = Session::Create(
      graph,
      {.device = std::move(device), .threads = 1, .batch_tiles = BatchTiles::kNever, .row_fusion = RowFusion::kNever});
  EXPECT_TRUE(session.ok()) << session.status();
  return *std::move(session);
}

std::vector<double> RunOne(Session& session, const std::vector<Feed>& feeds, const std::vector<Fetch>& fetches) {
  const absl::StatusOr<std::vector<Tensor>> results = session.Run(feeds, fetches);
  EXPECT_TRUE(results.ok()) << results.status();
  return results.ok() ? (*results)[0].ToDoubles() : std::vector<double>();
}

TEST_F(CountingBackend, RunsAGraphInMemoryOfItsOwn) {
  const Layer layer;
  {
    Session session = Open(layer.graph, kCounting), cpu = Open(layer.graph, Device::Cpu());
    EXPECT_EQ(session.device(), kCounting);
    for (int i = 0; i < 2; ++i) {
      EXPECT_EQ(RunOne(session, layer.Feeds(i), {layer.y}), RunOne(cpu, layer.Feeds(i), {layer.y}));
    }
    EXPECT_THAT(CountedCalls().kernels, Contains(Pair("MatMul", 2)));
    EXPECT_THAT(CountedCalls().kernels, Contains(Pair("Tanh", 2)));
    EXPECT_EQ(CountedCalls().copies_to_device, 2 + 2);  // Both variables once, and two feeds.
    EXPECT_EQ(CountedCalls().copies_to_host, 2);        // Results.
    EXPECT_THAT(*session.DescribePlan(layer.Feeds(0), {layer.y}), HasSubstr("counted MatMul"));
    EXPECT_GT(CountedCalls().bytes_in_use, 0);
  }
  EXPECT_EQ(CountedCalls().opened, 1);
  EXPECT_EQ(CountedCalls().stray_pointers, 0);
  EXPECT_EQ(CountedCalls().bytes_in_use, 0);
}

TEST_F(CountingBackend, TrainsTogetherWithTheCpu) {
  const Layer layer;
  Session mixed = Open(layer.graph, kCounting), cpu = Open(layer.graph, Device::Cpu());
  for (int i = 0; i < 5; ++i) {
    EXPECT_EQ(RunOne(mixed, layer.Feeds(i), {layer.loss, layer.step}),
              RunOne(cpu, layer.Feeds(i), {layer.loss, layer.step}));
  }
  for (const char* name : {"w", "b"}) {
    EXPECT_EQ(mixed.GetVariable(name)->ToDoubles(), cpu.GetVariable(name)->ToDoubles()) << name;
  }
  const std::string plan = *mixed.DescribePlan(layer.Feeds(0), {layer.loss, layer.step});
  for (const char* part : {"counting:0", "cpu:0", "copy to the CPU", "copy to the device", "Softmax runs on the CPU"}) {
    EXPECT_THAT(plan, HasSubstr(part));
  }
  EXPECT_THAT(CountedCalls().kernels, Not(Contains(Key("Softmax"))));
  EXPECT_EQ(CountedCalls().stray_pointers, 0);

  // A value that the host sets is the one that the device goes on with.
  for (Session* session : {&mixed, &cpu}) ASSERT_TRUE(session->SetVariable("b", Waves({5}, 0.9)).ok());
  EXPECT_EQ(RunOne(mixed, layer.Feeds(9), {layer.y}), RunOne(cpu, layer.Feeds(9), {layer.y}));
}

TEST_F(CountingBackend, SwapsVariablesAndSumsOverRuns) {
  Graph graph;
  Scope scope(graph);
  const Value a = scope.Variable("a", scope.Constant(Waves({4}, 0.3)));
  const Value b = scope.Variable("b", scope.Constant(Waves({4}, 0.5)));
  const Update swap{{Assign(a, b), Assign(b, a)}};
  Session session = Open(graph, kCounting);
  const std::vector<double> first = session.GetVariable("a")->ToDoubles();
  ASSERT_TRUE(session.Run({}, {swap}).ok());
  EXPECT_EQ(session.GetVariable("b")->ToDoubles(), first);
  ASSERT_TRUE(session.Run({}, {swap}).ok());
  EXPECT_EQ(session.GetVariable("a")->ToDoubles(), first);

  const Layer layer;
  Session sums = Open(layer.graph, kCounting);
  absl::StatusOr<std::unique_ptr<PreparedRun>> run =
      sums.Prepare(layer.Feeds(0), {Fetch::RunningSum(layer.loss), layer.loss, layer.step});
  ASSERT_TRUE(run.ok()) << run.status();
  double sum = 0;
  for (int i = 0; i < 3; ++i) {
    ASSERT_TRUE((*run)->Start().ok());
    ASSERT_TRUE((*run)->Finish().ok());
    sum += (*run)->results()[1].ToDouble();
  }
  EXPECT_EQ((*run)->results()[0].ToDouble(), sum);
}

TEST_F(CountingBackend, AFailureOfItsKernelChangesNoVariable) {
  const Layer layer;
  CountedCalls().failing_op = "Sub";
  Session session = Open(layer.graph, kCounting);
  const std::vector<double> before = session.GetVariable("w")->ToDoubles();
  CountedCalls().failure = absl::OutOfRangeError("the counting device refuses this");
  const absl::Status status = session.Run(layer.Feeds(0), {layer.loss, layer.step}).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kOutOfRange);
  EXPECT_THAT(status.message(), HasSubstr("refuses this; in Sub"));
  EXPECT_EQ(session.GetVariable("w")->ToDoubles(), before);
}

TEST_F(CountingBackend, IsADeviceLikeOthersByName) {
  const Layer layer;
  EXPECT_EQ(*Device::Parse("counting:1"), (Device{"counting", 1}));
  EXPECT_EQ(Device::Parse("counting:1")->ToString(), "counting(1)");
  EXPECT_THAT(Device::Parse("nothing").status().message(), HasSubstr("cuda and cuda:<index>, cpu and"));
  EXPECT_NE(Device::Best().backend, "counting");  // It comes behind the CPU.
  EXPECT_EQ(Session::Create(layer.graph, {.device = {"counting", 2}}).status().message(),
            "there are two counting devices");
  EXPECT_EQ(Session::Create(layer.graph, {.device = {"nothing", 0}}).status().code(), absl::StatusCode::kUnavailable);

  Graph both;
  Scope scope(both);
  const Value x = scope.Input("x", kFloat32, {2});
  scope.SetDevice("counting:1");
  Tanh(x);
  EXPECT_THAT(Session::Create(both, {.device = kCounting}).status().message(),
              HasSubstr("one device beside the CPU, counting(0) here, and a node asks for counting(1)"));
  EXPECT_EQ(CountedCalls().opened, 0);
  EXPECT_TRUE(Session::Create(both).ok());
  EXPECT_EQ(CountedCalls().opened, 1);
}

}  // namespace
}  // namespace gradweave
