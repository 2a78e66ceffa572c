// Sums over shards in buckets that run beside other steps: the pass JoinAllReduces, the stage
// "overlap_collectives", and what they leave as it is.
#include <chrono>
#include <cmath>
#include <cstring>

#include "gmock/gmock.h"
#include "gradweave/gradweave.h"
#include "gradweave/graph/passes/autodiff.h"
#include "gradweave/graph/passes/data_parallel.h"
#include "gradweave/graph/passes/join_all_reduces.h"
#include "gradweave/ops/collectives.h"
#include "gradweave/runtime/cpu/kernels.h"
#include "gradweave/runtime/distributed/group.h"
#include "gradweave/runtime/plan/lower.h"
#include "gradweave/runtime/session/backends.h"
#include "gtest/gtest.h"
#include "tests/distributed/thread_group.h"

namespace gradweave {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::Not;

constexpr int64_t kBatch = 6, kWidth = 5;

Tensor Waves(std::vector<int64_t> sizes, double step) {
  Tensor tensor(kFloat32, sizes);
  int64_t i = 0;
  for (float& number : tensor.mutable_values<float>()) number = static_cast<float>(std::sin(step * ++i));
  return tensor;
}

// The numbers of elements of a graph's AllReduces, in the order of their chain.
std::vector<int64_t> SumsOf(const Graph& graph) {
  std::vector<int64_t> sums;
  for (const Node& node : graph.nodes()) {
    if (node.op->name == "AllReduce") sums.push_back(node.outputs[0].shape.num_elements().size());
  }
  return sums;
}

// The graph of a shard of four, with the values as fetches.
Graph ShardOf(Graph& graph, const std::vector<Value>& fetches) {
  EXPECT_TRUE(graph.status().ok()) << graph.status();
  graph.SetOutput(kFetches, fetches);
  absl::StatusOr<Graph> shard = DataParallel(graph, 4);
  EXPECT_TRUE(shard.ok()) << shard.status();
  return *std::move(shard);
}

Graph Joined(const Graph& shard, int64_t bytes) {
  absl::StatusOr<Graph> joined = JoinAllReduces(shard, bytes);
  EXPECT_TRUE(joined.ok()) << joined.status();
  return *std::move(joined);
}

struct Input {
  Graph graph;
  Scope scope{graph};
  Value x = scope.Input("x", kFloat32, {Dim("batch"), 3});
};

TEST(JoinAllReduces, FillsBuckets) {
  Input in;
  const Value a = Sum(in.x, {.axes = {0}}), b = Sum(Square(in.x)), c = Sum(Exp(in.x), {.axes = {0}});
  const Graph shard = ShardOf(in.graph, {a * 2, b * 2, c * 2});
  EXPECT_THAT(SumsOf(shard), ElementsAre(3, 1, 3));
  EXPECT_THAT(SumsOf(Joined(shard, 28)), ElementsAre(7));
  // 3 and 1 elements fill a bucket of 16 bytes.
  EXPECT_THAT(SumsOf(Joined(shard, 16)), ElementsAre(4, 3));
  EXPECT_THAT(SumsOf(Joined(shard, 1)), ElementsAre(3, 1, 3));
}

TEST(JoinAllReduces, SumsOfOtherDTypesHaveBucketsOfTheirOwn) {
  Input in;
  const Value a = Sum(in.x), b = Sum(Cast(in.x, kInt32)), c = Sum(Exp(in.x));
  EXPECT_THAT(SumsOf(Joined(ShardOf(in.graph, {a * 2, b * 2, c * 2}), 1000)), testing::UnorderedElementsAre(2, 1));
}

// A sum of samples around their mean needs the mean first.
TEST(JoinAllReduces, ValuesThatOtherSumsWaitForAreSentFirst) {
  Input in;
  const Value early = Sum(Exp(in.x), {.axes = {0}});
  const Value mean = Sum(in.x, {.axes = {0}}), deviation = Sum(Square(in.x - mean), {.axes = {0}});
  EXPECT_THAT(SumsOf(Joined(ShardOf(in.graph, {early * 2, deviation * 2}), 1000)), ElementsAre(3, 6));
}

TEST(JoinAllReduces, CollectiveOpsFormOneChain) {
  Input in;
  const Value exponentials = Sum(Exp(in.x));
  const Value mean = Mean(in.x, {.axes = {0}}), spread = Mean(Square(in.x - mean), {.axes = {0}});
  const Graph joined = Joined(ShardOf(in.graph, {spread * 2, Max(in.x), exponentials * 2}), 1000);
  NodeId last = -1;
  int chained = 0;
  for (const Node& node : joined.nodes()) {
    if (node.op->name != "AllReduce" && node.op->name != "AllGather") continue;
    ASSERT_EQ(node.inputs.size(), last < 0 ? 1u : 2u);
    if (last >= 0) {
      EXPECT_EQ(node.inputs[1].node, last);
    }
    last = node.id;
    ++chained;
  }
  EXPECT_EQ(chained, 4);  // The sizes, the mean, the maximum, and the other two sums together.
}

TEST(BucketBytes, LetMessagesTakeATenthOfTheTime) {
  const distributed::LinkCost slow{.seconds_per_message = 1e-3, .seconds_per_byte = 8e-9};
  const int64_t bytes = distributed::BucketBytes(slow, 4);
  const double messages = 2 * slow.seconds_per_message;
  EXPECT_NEAR(messages / distributed::AllReduceSeconds(slow, 4, bytes), 0.1, 1e-6);
  EXPECT_GT(bytes, distributed::BucketBytes({.seconds_per_message = 1e-4, .seconds_per_byte = 8e-9}, 4));
  EXPECT_GT(bytes, distributed::BucketBytes({.seconds_per_message = 1e-3, .seconds_per_byte = 8e-8}, 4));
  EXPECT_EQ(distributed::AllReduceSeconds(slow, 1, 1000), 0);
}

TEST(CommunicationThread, RunsJobsInTheirOrder) {
  distributed::CommunicationThread thread;
  std::vector<int> ran;
  std::vector<distributed::CommunicationThread::Job> jobs(5);
  for (int i = 0; i < 5; ++i) {
    jobs[i].run = [&ran, i] {
      ran.push_back(i);
      return i == 2 ? absl::DataLossError("lost") : absl::OkStatus();
    };
  }
  for (auto& job : jobs) thread.Start(job);
  EXPECT_TRUE(thread.Wait(jobs[4]).ok());
  EXPECT_THAT(ran, ElementsAre(0, 1, 2, 3, 4));
  EXPECT_EQ(thread.Wait(jobs[2]), absl::DataLossError("lost"));
  thread.Start(jobs[0]);
  thread.WaitForAll();
  EXPECT_THAT(ran, ElementsAre(0, 1, 2, 3, 4, 0));
}

// A net of three products, with statistics of the batch between them, and its update.
struct Net {
  Graph graph;
  Scope scope{graph};
  Value x = scope.Input("x", kFloat32, {Dim("batch"), kWidth});
  Value loss;
  std::vector<Value> weights;
  Update update;

  Net() {
    Value y = x;
    for (int layer = 0; layer < 3; ++layer) {
      weights.push_back(scope.Variable(absl::StrCat("w", layer), scope.Constant(Waves({kWidth, kWidth}, 0.3 + layer))));
      y = MatMul(y, weights.back());
      y = Tanh(y - Mean(y, {.axes = {0}}));
    }
    loss = Mean(Square(y));
    update = optim::Sgd{.learning_rate = 0.1, .momentum = 0.9}.Minimize(loss);
  }
};

// Runs three steps in each shard with a stage left out. Returns the losses and the weights of each
// shard, as bytes.
std::vector<std::string> TrainWithout(const std::string& left_out, int shards, std::string* plan_of_first) {
  const std::shared_ptr<distributed::Group> group = (*distributed::ThreadGroups(1, {.shards = shards}))[0];
  std::vector<std::string> results(shards);
  distributed::ForEachShard(*group, [&](int shard, const std::shared_ptr<distributed::Communicator>& communicator) {
    Net net;
    Graph graph = net.graph;
    graph.SetOutput(kFetches, {graph.value(net.loss.port())});
    std::vector<Value> updates;
    for (const Value& assignment : net.update.assignments) updates.push_back(graph.value(assignment.port()));
    graph.SetOutput(kUpdates, updates);
    auto variables = std::make_shared<Variables>();
    for (const Node& node : graph.nodes()) {
      if (node.op->kind != OpKind::kVariable) continue;
      Tensor value = node.outputs[0].shape.rank() == 2 ? Waves({kWidth, kWidth}, 0.3)
                                                       : Tensor(node.outputs[0].dtype, node.outputs[0].shape.sizes());
      if (node.name.find("momentum") != std::string::npos) value = Tensor(kFloat32, {kWidth, kWidth});
      variables->Add(node.name, value);
    }
    LoweringOptions options;
    options.pipeline = {.bindings = {{"batch", kBatch}}, .shards = shards};
    options.pipeline.evaluate = [](const Node& node, absl::Span<const Tensor> operands) {
      return EvaluateNode(CpuKernels(), node, operands);
    };
    options.compile.communicator = communicator;
    options.devices = {*FindBackend("cpu")->backend.open(0, {})};
    options.device = "cpu:0";
    options.variables = variables;
    options.left_out = left_out;
    const absl::StatusOr<std::unique_ptr<CompiledGraph>> compiled = Lower(graph, options);
    ASSERT_TRUE(compiled.ok()) << compiled.status();
    if (shard == 0 && plan_of_first != nullptr) *plan_of_first = (*compiled)->Describe();
    const Tensor fed = Waves({kBatch, kWidth}, 0.1 + shard);
    ThreadPool pool(1);
    for (int step = 0; step < 3; ++step) {
      std::vector<Tensor> loss = {Tensor(kFloat32, {})};
      const absl::Status status = (*compiled)->Run({fed.raw_data()}, absl::MakeSpan(loss), pool, 0, 1 + step);
      ASSERT_TRUE(status.ok()) << status;
      results[shard].append(static_cast<const char*>(loss[0].raw_data()), loss[0].byte_size());
    }
    for (const Node& node : graph.nodes()) {
      if (node.op->kind != OpKind::kVariable) continue;
      const Tensor& value = variables->Find(node.name)->host;
      results[shard].append(static_cast<const char*>(value.raw_data()), value.byte_size());
    }
  });
  return results;
}

TEST(Overlap, HasTheBitsOfSumsOneByOne) {
  for (int shards : {2, 3, 4}) {
    std::string plan;
    const std::vector<std::string> expected = TrainWithout("", shards, &plan);
    // The gradients of the weights are one sum, which the backward pass does not wait for.
    EXPECT_THAT(plan, HasSubstr("shards, starts"));
    EXPECT_THAT(plan, HasSubstr("waits for the sum"));
    EXPECT_THAT(plan, HasSubstr("sums over shards: "));
    for (int shard = 1; shard < shards; ++shard) EXPECT_EQ(expected[shard], expected[0]) << shard;
    for (const char* stage : {"join_all_reduces", "overlap_collectives"}) {
      std::string other;
      EXPECT_EQ(TrainWithout(stage, shards, &other), expected) << stage << ", " << shards << " shards";
      EXPECT_NE(other, plan);
      if (std::string(stage) == "overlap_collectives") {
        EXPECT_THAT(other, Not(HasSubstr("waits for the sum")));
      }
    }
  }
}

TEST(Overlap, IsInTheTrace) {
  const std::shared_ptr<distributed::Group> group = (*distributed::ThreadGroups(1, {.shards = 2}))[0];
  std::vector<std::string> traces(2);
  distributed::ForEachShard(*group, [&](int shard, const std::shared_ptr<distributed::Communicator>&) {
    const Net net;
    absl::StatusOr<Session> session = Session::Create(net.graph, {.threads = 1, .group = group, .local_shard = shard});
    ASSERT_TRUE(session.ok()) << session.status();
    const std::vector<Feed> feeds = {{net.x, Waves({kBatch, kWidth}, 0.1)}};
    for (int run = 0; run < 2; ++run) {
      const absl::StatusOr<Profile> profile = session->ProfileRun(feeds, {net.loss, net.update});
      ASSERT_TRUE(profile.ok()) << profile.status();
      traces[shard] = profile->trace;
    }
  });
  for (const std::string& trace : traces) EXPECT_THAT(trace, HasSubstr("\"communication\""));
}

// A sum that has started must not go on in memory of the next run.
TEST(Overlap, EndsWithARunThatFails) {
  const std::shared_ptr<distributed::Group> group =
      (*distributed::ThreadGroups(1, {.shards = 2, .timeout = std::chrono::seconds(60)}))[0];
  Graph graph;
  Scope scope(graph);
  const Value x = scope.Input("x", kFloat32, {Dim("batch"), kWidth});
  const Value rows = scope.Input("rows", kInt32, {Dim("batch")});
  const Value sum = Sum(x, {.axes = {0}});
  const Value read = Gather(scope.Variable("table", scope.Constant(Waves({kWidth, kWidth}, 1))), rows);
  const Value read_later = sum * 2;
  absl::StatusOr<Session> session = Session::Create(graph, {.threads = 1, .group = group, .local_shard = 0});
  ASSERT_TRUE(session.ok()) << session.status();
  const auto start = std::chrono::steady_clock::now();
  // The sum waits for the other shard, which does not come, and the table has no row 7.
  const absl::Status status =
      session->Run({{x, Waves({2, kWidth}, 0.1)}, {rows, Tensor::Of<int32_t>({2}, {0, 7})}}, {read_later, read})
          .status();
  EXPECT_EQ(status.code(), absl::StatusCode::kOutOfRange) << status;
  EXPECT_LT(std::chrono::steady_clock::now() - start, std::chrono::seconds(30));
}

}  // namespace
}  // namespace gradweave
