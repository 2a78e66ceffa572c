// Trainings in groups of threads: the same bits for any number of processes, and the results of one
// process without a group.
#include <cmath>
#include <filesystem>
#include <functional>
#include <string>
#include <thread>

#include "gmock/gmock.h"
#include "gradweave/runtime/distributed/group.h"
#include "gtest/gtest.h"
#include "tests/distributed/models.h"

namespace gradweave {
namespace {

using ::testing::HasSubstr;

// Trains in this many "processes", each of which is a thread with a graph of its own, and returns
// the results in order.
std::vector<absl::StatusOr<TrainingResult>> TrainInGroup(size_t model, int processes, int shards,
                                                         std::function<void(int process, FitOptions&)> change = {},
                                                         bool shard_optimizer = false) {
  const std::vector<std::shared_ptr<distributed::Group>> groups = *distributed::ThreadGroups(
      processes, {.shards = shards, .timeout = std::chrono::seconds(20), .shard_optimizer = shard_optimizer});
  std::vector<absl::StatusOr<TrainingResult>> results(processes);
  std::vector<std::thread> threads;
  for (int process = 0; process < processes; ++process) {
    threads.emplace_back([&, process] {
      FitOptions options{.epochs = kEpochs};
      if (change) change(process, options);
      results[process] =
          Train(DistributedCases()[model], {.threads = 1 + process % 2, .group = groups[process]}, options);
    });
  }
  for (std::thread& thread : threads) thread.join();
  return results;
}

class Models : public testing::TestWithParam<size_t> {};

TEST_P(Models, TrainToTheSameBitsOnAnyNumberOfProcesses) {
  const std::vector<absl::StatusOr<TrainingResult>> alone = TrainInGroup(GetParam(), 1, 4);
  ASSERT_TRUE(alone[0].ok()) << alone[0].status();
  const std::string expected = BitsOf(*alone[0]);
  for (int processes : {2, 4}) {
    const std::vector<absl::StatusOr<TrainingResult>> results = TrainInGroup(GetParam(), processes, 4);
    for (int process = 0; process < processes; ++process) {
      ASSERT_TRUE(results[process].ok()) << results[process].status();
      TrainingResult result = *results[process];
      // Callbacks run in process 0 alone.
      EXPECT_EQ(result.losses.size() == alone[0]->losses.size(), process == 0);
      result.losses = alone[0]->losses;
      if (process == 0) result.losses = results[process]->losses;
      EXPECT_EQ(BitsOf(result), expected) << "process " << process << " of " << processes;
    }
  }
}

TEST_P(Models, TrainToTheSameBitsWithShardedOptimizers) {
  const std::vector<absl::StatusOr<TrainingResult>> whole = TrainInGroup(GetParam(), 1, 4);
  ASSERT_TRUE(whole[0].ok()) << whole[0].status();
  for (int processes : {1, 2, 4}) {
    const std::vector<absl::StatusOr<TrainingResult>> sharded = TrainInGroup(GetParam(), processes, 4, {}, true);
    for (int process = 0; process < processes; ++process) {
      ASSERT_TRUE(sharded[process].ok()) << sharded[process].status();
      TrainingResult result = *sharded[process];
      if (process > 0) result.losses = whole[0]->losses;
      EXPECT_EQ(BitsOf(result), BitsOf(*whole[0])) << "process " << process << " of " << processes;
    }
  }
}

// The checkpoint has whole variables, so any number of processes goes on with it, with sharded
// optimizers or without.
TEST(Fit, GoesOnFromACheckpointOfShardedOptimizers) {
  constexpr size_t kResidualNet = 1;
  const std::string dir = testing::TempDir() + "/sharded_checkpoints";
  std::filesystem::remove_all(dir);
  auto with_checkpoints = [&](int64_t steps, bool resume) {
    return [dir, steps, resume](int process, FitOptions& options) {
      if (process > 0) return;
      options.checkpoints = {.dir = dir, .every = {2, CheckpointInterval::kSteps}, .resume = resume};
      options.callbacks.push_back({.after_batch = [steps](TrainingState& state) {
        state.stop_now = state.batches_done == steps;
        return absl::OkStatus();
      }});
    };
  };
  const auto whole = TrainInGroup(kResidualNet, 1, 4);
  ASSERT_TRUE(whole[0].ok()) << whole[0].status();
  const auto first = TrainInGroup(kResidualNet, 2, 4, with_checkpoints(4, false), true);
  ASSERT_TRUE(first[0].ok() && first[1].ok()) << first[0].status() << first[1].status();
  const auto rest = TrainInGroup(kResidualNet, 4, 4, with_checkpoints(-1, true), true);
  ASSERT_TRUE(rest[0].ok()) << rest[0].status();
  for (size_t i = 0; i < whole[0]->variables.size(); ++i) {
    EXPECT_EQ(rest[0]->variables[i].second.ToDoubles(), whole[0]->variables[i].second.ToDoubles())
        << whole[0]->variables[i].first;
  }
}

TEST_P(Models, TrainAsWithoutAGroup) {
  const absl::StatusOr<TrainingResult> plain = Train(DistributedCases()[GetParam()], {.threads = 1});
  ASSERT_TRUE(plain.ok()) << plain.status();
  for (int shards : {1, 2, 4}) {
    SCOPED_TRACE(testing::Message() << shards << " shards");
    const std::vector<absl::StatusOr<TrainingResult>> results = TrainInGroup(GetParam(), 1, shards);
    ASSERT_TRUE(results[0].ok()) << results[0].status();
    ASSERT_EQ(results[0]->losses.size(), plain->losses.size());
    for (size_t i = 0; i < plain->losses.size(); ++i) {
      EXPECT_NEAR(results[0]->losses[i], plain->losses[i], 1e-5 * std::max(1.0, std::abs(plain->losses[i]))) << i;
    }
    for (size_t i = 0; i < plain->variables.size(); ++i) {
      const std::vector<double> a = results[0]->variables[i].second.ToDoubles(),
                                b = plain->variables[i].second.ToDoubles();
      double largest = 0;
      for (size_t k = 0; k < a.size(); ++k) largest = std::max(largest, std::abs(a[k] - b[k]));
      EXPECT_LE(largest, 1e-5) << plain->variables[i].first;
    }
  }
}

INSTANTIATE_TEST_SUITE_P(All, Models, testing::Range<size_t>(0, 4), [](const testing::TestParamInfo<size_t>& info) {
  std::string name = DistributedCases()[info.param].name;
  for (char& letter : name) letter = letter == ' ' ? '_' : letter;
  return name;
});

TEST(Fit, TellsProcessesWithOtherOptionsApart) {
  const auto results = TrainInGroup(0, 2, 2, [](int process, FitOptions& options) { options.seed = process; });
  for (const absl::StatusOr<TrainingResult>& result : results) {
    EXPECT_EQ(result.status().code(), absl::StatusCode::kFailedPrecondition) << result.status();
    EXPECT_THAT(std::string(result.status().message()),
                HasSubstr("shard 0 of 2, process 0 has 'seed 0', and shard 1 of 2, process 1 has 'seed 1'"));
  }
}

TEST(Fit, StopsAllProcessesWhenACallbackDoes) {
  const auto results = TrainInGroup(0, 2, 4, [](int process, FitOptions& options) {
    options.callbacks.push_back({.after_batch = [](TrainingState& state) {
      state.stop_now = state.batches_done == 4;
      return absl::OkStatus();
    }});
  });
  ASSERT_TRUE(results[0].ok()) << results[0].status();
  ASSERT_TRUE(results[1].ok()) << results[1].status();
  for (size_t i = 0; i < results[0]->variables.size(); ++i) {
    EXPECT_EQ(results[0]->variables[i].second.ToDoubles(), results[1]->variables[i].second.ToDoubles());
  }
}

// Such as a learning rate that follows a metric.
TEST(Fit, GivesVariablesThatACallbackChangesToAllProcesses) {
  const std::vector<std::shared_ptr<distributed::Group>> groups = *distributed::ThreadGroups(2, {.shards = 4});
  std::vector<Tensor> values(2);
  std::vector<std::thread> threads;
  for (int process = 0; process < 2; ++process) {
    threads.emplace_back([&, process] {
      const DistributedCase lenet = std::move(DistributedCases()[0]);
      absl::StatusOr<Session> session = Session::Create(*lenet.graph, {.threads = 1, .group = groups[process]});
      ASSERT_TRUE(session.ok()) << session.status();
      const std::string name = session->VariableNames()[0];
      Callback change{.after_epoch = [&](TrainingState&) {
        const absl::StatusOr<Tensor> value = session->GetVariable(name);
        return value.ok() ? session->SetVariable(name, Tensor(value->dtype(), value->sizes())) : value.status();
      }};
      const FitOptions options{.epochs = 2, .batch_size = kBatchSize, .callbacks = {change}};
      const absl::Status status = Fit(*session, lenet.training, lenet.data, options).status();
      EXPECT_TRUE(status.ok()) << status;
      values[process] = *session->GetVariable(name);
    });
  }
  for (std::thread& thread : threads) thread.join();
  for (double number : values[0].ToDoubles()) EXPECT_EQ(number, 0);
  EXPECT_EQ(values[1].ToDoubles(), values[0].ToDoubles());
}

TEST(Fit, EndsAllProcessesWhenACallbackFails) {
  const auto results = TrainInGroup(0, 2, 4, [](int process, FitOptions& options) {
    options.callbacks.push_back({.after_batch = [](TrainingState& state) {
      return state.batches_done == 4 ? absl::DataLossError("the disk is full") : absl::OkStatus();
    }});
  });
  EXPECT_EQ(results[0].status(), absl::DataLossError("the disk is full"));
  EXPECT_EQ(results[1].status().code(), absl::StatusCode::kAborted) << results[1].status();
  EXPECT_THAT(std::string(results[1].status().message()), HasSubstr("the disk is full"));
}

}  // namespace
}  // namespace gradweave
