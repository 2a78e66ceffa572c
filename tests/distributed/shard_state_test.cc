// The state of optimizers, divided among the shards: which variables, what a shard's graph looks
// like, and what a session gives and takes.
#include "gradweave/graph/passes/shard_state.h"

#include <cmath>
#include <cstring>
#include <thread>

#include "gmock/gmock.h"
#include "gradweave/gradweave.h"
#include "gradweave/runtime/distributed/group.h"
#include "gtest/gtest.h"
#include "tests/distributed/thread_group.h"

namespace gradweave {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::UnorderedElementsAre;

constexpr int64_t kBatch = 5, kIn = 19, kOut = 17;  // No multiples of the shards.

Tensor Waves(std::vector<int64_t> sizes, double step) {
  Tensor tensor(kFloat32, sizes);
  int64_t i = 0;
  for (float& number : tensor.mutable_values<float>()) number = static_cast<float>(std::sin(step * ++i));
  return tensor;
}

struct Model {
  Graph graph;
  Scope scope{graph};
  Value x = scope.Input("x", kFloat32, {Dim("batch"), kIn});
  Value w = scope.Variable("w", scope.Constant(Waves({kIn, kOut}, 0.3)));
  Value b = scope.Variable("b", scope.Full(0, {kOut}, kFloat32));
  Value loss = Mean(Square(Tanh(MatMul(x, w) + b)));
  Update step;

  template <typename Optimizer>
  explicit Model(const Optimizer& optimizer) : step(optimizer.Minimize(loss)) {
    EXPECT_TRUE(graph.status().ok()) << graph.status();
  }
  Value Named(absl::string_view name) { return graph.value(graph.FindNamed(name)); }
};

std::shared_ptr<distributed::Group> GroupOf(int shards, bool shard_optimizer) {
  return (*distributed::ThreadGroups(1, {.shards = shards, .shard_optimizer = shard_optimizer}))[0];
}

TEST(VariablesToShard, AreThoseThatOptimizersUpdateElementByElement) {
  Model model(optim::Adam{});
  EXPECT_THAT(VariablesToShard(model.graph, 4), UnorderedElementsAre("adam/w/m", "adam/w/v"));
  EXPECT_THAT(VariablesToShard(model.graph, 1), testing::IsEmpty());
  // A product reads all elements of the momentum.
  Model other(optim::Sgd{.momentum = 0.9});
  EXPECT_THAT(VariablesToShard(other.graph, 4), ElementsAre("sgd/w/momentum"));
  MatMul(other.x, other.Named("sgd/w/momentum"));
  EXPECT_THAT(VariablesToShard(other.graph, 4), testing::IsEmpty());
}

// Runs steps in each shard, and returns the bytes of the fetched values and variables of all.
template <typename Optimizer>
std::vector<std::string> Train(const Optimizer& optimizer, int shards, bool shard_optimizer,
                               std::string* plan = nullptr) {
  const std::shared_ptr<distributed::Group> group = GroupOf(shards, shard_optimizer);
  std::vector<std::string> results(shards);
  distributed::ForEachShard(*group, [&](int shard, const std::shared_ptr<distributed::Communicator>&) {
    Model model(optimizer);
    absl::StatusOr<Session> session =
        Session::Create(model.graph, {.threads = 1, .group = group, .local_shard = shard});
    ASSERT_TRUE(session.ok()) << session.status();
    const std::vector<Feed> feeds = {{model.x, Waves({kBatch + shard, kIn}, 0.1 + shard)}};
    std::vector<Fetch> variables;
    for (const std::string& name : session->VariableNames()) variables.push_back(model.Named(name));
    for (int step = 0; step < 3; ++step) {
      const auto loss = session->Run(feeds, {model.loss, model.step});
      ASSERT_TRUE(loss.ok()) << loss.status();
      results[shard].append(static_cast<const char*>((*loss)[0].raw_data()), (*loss)[0].byte_size());
    }
    if (shard == 0 && plan != nullptr) *plan = *session->DescribePlan(feeds, {model.loss, model.step});
    const auto values = session->Run({}, variables);
    ASSERT_TRUE(values.ok()) << values.status();
    for (const Tensor& value : *values) {
      results[shard].append(static_cast<const char*>(value.raw_data()), value.byte_size());
    }
  });
  return results;
}

template <typename Optimizer>
void CheckSameBits(const Optimizer& optimizer) {
  for (int shards : {2, 3, 4}) {
    std::string plan;
    const std::vector<std::string> whole = Train(optimizer, shards, false);
    const std::vector<std::string> parts = Train(optimizer, shards, true, &plan);
    for (int shard = 0; shard < shards; ++shard) EXPECT_EQ(parts[shard], whole[0]) << shard << " of " << shards;
    EXPECT_THAT(plan, HasSubstr("state of optimizers: "));
    EXPECT_THAT(plan, HasSubstr("reducescatter"));
  }
}

TEST(ShardState, LeavesTheBitsOfMomentum) { CheckSameBits(optim::Sgd{.learning_rate = 0.1, .momentum = 0.9}); }
TEST(ShardState, LeavesTheBitsOfAdam) { CheckSameBits(optim::AdamW{.learning_rate = 0.01}); }
// The norm needs whole gradients.
TEST(ShardState, LeavesTheBitsOfClippedGradients) {
  for (int shards : {2, 3}) {
    const optim::Sgd optimizer{.learning_rate = 0.1, .momentum = 0.9, .clip_norm = 0.05};
    EXPECT_EQ(Train(optimizer, shards, true), Train(optimizer, shards, false));
  }
}

TEST(ShardState, TellsHowMuchAShardHas) {
  std::string plan;
  Train(optim::Adam{}, 4, true, &plan);
  const int64_t whole = 2 * kIn * kOut * 4, part = 2 * PartSize(kIn * kOut, 4) * 4;
  EXPECT_THAT(plan, HasSubstr(absl::StrCat("state of optimizers: ", whole, " bytes, of which this shard has ", part)));
}

TEST(Session, HasWholeValuesOfShardedVariablesUntilAStep) {
  const std::shared_ptr<distributed::Group> group = GroupOf(2, true);
  distributed::ForEachShard(*group, [&](int shard, const std::shared_ptr<distributed::Communicator>&) {
    Model model(optim::Sgd{.learning_rate = 0.1, .momentum = 0.9});
    absl::StatusOr<Session> session =
        Session::Create(model.graph, {.threads = 1, .group = group, .local_shard = shard});
    ASSERT_TRUE(session.ok()) << session.status();
    const std::string name = "sgd/w/momentum";
    const Tensor given = Waves({kIn, kOut}, 0.7);
    ASSERT_TRUE(session->SetVariable(name, given).ok());
    EXPECT_EQ(session->GetVariable(name)->ToDoubles(), given.ToDoubles());
    EXPECT_THAT(std::string(session->SetVariable(name, Tensor(kFloat32, {3})).message()),
                HasSubstr("is float32[19,17] and was given float32[3]"));
    const auto read = session->Run({}, {model.Named(name)});
    ASSERT_TRUE(read.ok()) << read.status();
    EXPECT_EQ((*read)[0].ToDoubles(), given.ToDoubles());
    ASSERT_TRUE(session->Run({{model.x, Waves({kBatch, kIn}, 0.1)}}, {model.loss, model.step}).ok());
    const absl::Status status = session->GetVariable(name).status();
    EXPECT_EQ(status.code(), absl::StatusCode::kFailedPrecondition);
    EXPECT_THAT(std::string(status.message()), HasSubstr("each shard of the group has a part of 'sgd/w/momentum'"));
    EXPECT_TRUE(session->GetVariable("w").ok());
  });
}

}  // namespace
}  // namespace gradweave
