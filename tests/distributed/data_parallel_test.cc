// The pass DataParallel: the graph of a shard, and runs of all shards beside a run of the whole
// batch.
#include "gradweave/graph/passes/data_parallel.h"

#include <cmath>
#include <cstring>
#include <numeric>

#include "gmock/gmock.h"
#include "gradweave/gradweave.h"
#include "gradweave/graph/passes/autodiff.h"
#include "gradweave/ops/collectives.h"
#include "gradweave/runtime/distributed/group.h"
#include "gtest/gtest.h"
#include "tests/distributed/thread_group.h"

namespace gradweave {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

constexpr int64_t kBatch = 7;

int CountOps(const Graph& graph, absl::string_view op) {
  int count = 0;
  for (const Node& node : graph.nodes()) count += node.op->name == op;
  return count;
}

// A graph whose input x is float64 [batch, 3].
struct Fixture {
  Graph graph;
  Scope scope{graph};
  Value x = scope.Input("x", kFloat64, {Dim("batch"), 3});
  Value w = scope.Variable("w", scope.Constant(Tensor::Of<double>({3}, {0.5, -1, 2})));

  absl::StatusOr<Graph> Shard(std::vector<Value> fetches, int64_t shards = 4) {
    EXPECT_TRUE(graph.status().ok()) << graph.status();
    graph.SetOutput("fetches", fetches);
    return DataParallel(graph, shards);
  }
};

Tensor Samples() {
  Tensor samples(kFloat64, {kBatch, 3});
  for (int64_t i = 0; i < samples.num_elements(); ++i) {
    samples.mutable_data<double>()[i] = std::sin(static_cast<double>(i * i + 1));
  }
  return samples;
}

// Runs the fetches with the whole batch, and in groups, whose shards get from 0 to all of the
// samples. Values of samples are put together again.
void CheckShards(Fixture& f, const std::vector<Value>& fetches, int runs = 2) {
  ASSERT_TRUE(f.graph.status().ok()) << f.graph.status();
  const std::vector<Fetch> wanted(fetches.begin(), fetches.end());
  absl::StatusOr<Session> whole = Session::Create(f.graph, {.threads = 1, .seed = 5});
  ASSERT_TRUE(whole.ok()) << whole.status();
  for (int run = 0; run < runs; ++run) {
    whole->SetRunNumber(1 + run);
    const absl::StatusOr<std::vector<Tensor>> expected = whole->Run({{f.x, Samples()}}, wanted);
    ASSERT_TRUE(expected.ok()) << expected.status();
    for (const std::vector<int64_t>& sizes :
         std::vector<std::vector<int64_t>>{{7}, {4, 3}, {2, 2, 2, 1}, {0, 5, 0, 2}, {1, 1, 1, 1, 1, 1, 1, 0}}) {
      const int shards = static_cast<int>(sizes.size());
      SCOPED_TRACE(testing::Message() << shards << " shards, run " << run);
      const std::shared_ptr<distributed::Group> group = (*distributed::ThreadGroups(1, {.shards = shards}))[0];
      std::vector<absl::StatusOr<std::vector<Tensor>>> results(shards);
      distributed::ForEachShard(*group, [&](int shard, const std::shared_ptr<distributed::Communicator>&) {
        absl::StatusOr<Session> session =
            Session::Create(f.graph, {.threads = 1, .seed = 5, .group = group, .local_shard = shard});
        if (!session.ok()) {
          results[shard] = session.status();
          return;
        }
        session->SetRunNumber(1 + run);
        const int64_t first = std::accumulate(sizes.begin(), sizes.begin() + shard, int64_t{0});
        results[shard] = session->Run({{f.x, Samples().Rows(first, first + sizes[shard])}}, wanted);
      });
      for (const absl::StatusOr<std::vector<Tensor>>& result : results) ASSERT_TRUE(result.ok()) << result.status();
      for (size_t i = 0; i < fetches.size(); ++i) {
        SCOPED_TRACE(testing::Message() << "fetch " << i << ", " << fetches[i].node().op->name);
        const std::vector<double> of_whole = (*expected)[i].ToDoubles();
        std::vector<double> numbers;
        const bool of_samples = fetches[i].rank() > 0 && !fetches[i].shape()[0].is_known();
        for (const absl::StatusOr<std::vector<Tensor>>& result : results) {
          const std::vector<double> of_shard = (*result)[i].ToDoubles();
          // Each shard has the same result, to the bit.
          if (!of_samples && !numbers.empty()) {
            EXPECT_EQ(std::memcmp(of_shard.data(), numbers.data(), of_shard.size() * sizeof(double)), 0);
          }
          if (!of_samples) numbers.clear();
          numbers.insert(numbers.end(), of_shard.begin(), of_shard.end());
        }
        ASSERT_EQ(numbers.size(), of_whole.size());
        for (size_t k = 0; k < numbers.size(); ++k) {
          EXPECT_NEAR(numbers[k], of_whole[k], 1e-12 * std::max(1.0, std::abs(of_whole[k]))) << k;
        }
      }
    }
  }
}

TEST(DataParallel, KeepsSamplesInTheirShards) {
  Fixture f;
  const absl::StatusOr<Graph> shard = f.Shard({Exp(f.x * f.w), Transpose(f.x, {1, 0})});
  ASSERT_TRUE(shard.ok()) << shard.status();
  EXPECT_EQ(CountOps(*shard, "AllReduce"), 0);
}

TEST(DataParallel, SumsOverSamplesAreThoseOfAllShards) {
  Fixture f;
  const Value loss = Mean(Square(f.x * f.w - 1));
  CheckShards(f, {loss, Gradients({loss}, {f.w})[0], Sum(f.x, {.axes = {0}}), NumElements(f.x, {}, kFloat64),
                  DimSize(f.x, 0, kInt32), MatMul(f.x, f.x, {.transpose_a = true}), Gradients({loss}, {f.x})[0]});
}

// One AllReduce serves several terms of a sum.
TEST(DataParallel, AddsTermsBeforeTheyAreSent) {
  Fixture f;
  const Value terms = Sum(f.x) + Sum(Square(f.x)) - Sum(Exp(f.x));
  const absl::StatusOr<Graph> shard = f.Shard({terms * 2, terms * 3});
  ASSERT_TRUE(shard.ok()) << shard.status();
  EXPECT_EQ(CountOps(*shard, "AllReduce"), 1);
  CheckShards(f, {terms * 2, terms * 3});
}

TEST(DataParallel, CollectiveOpsFormOneChain) {
  Fixture f;
  const Value mean = Mean(f.x, {.axes = {0}}), variance = Mean(Square(f.x - mean), {.axes = {0}});
  const absl::StatusOr<Graph> shard = f.Shard({variance, Max(f.x)});
  ASSERT_TRUE(shard.ok()) << shard.status();
  NodeId last = -1;
  int count = 0;
  for (const Node& node : shard->nodes()) {
    if (node.op->name != "AllReduce" && node.op->name != "AllGather") continue;
    EXPECT_EQ(node.inputs.size(), last < 0 ? 1u : 2u);
    if (last >= 0) {
      EXPECT_EQ(node.inputs[1].node, last);
    }
    last = node.id;
    ++count;
  }
  EXPECT_EQ(count, 4);  // The sizes, two sums and the maximum.
}

TEST(DataParallel, StatisticsOfTheBatchAreThoseOfAllShards) {
  Fixture f;
  const Value scale = f.scope.Constant(Tensor::Of<double>({3}, {1, 2, 3}));
  const BatchNormResult norm = BatchNormTraining(f.x, scale, scale * 0.5, 1e-3);
  const Value loss = Sum(Square(norm.y * f.w));
  CheckShards(f, {norm.mean, norm.variance, norm.y, loss, Gradients({loss}, {f.w})[0], Gradients({loss}, {f.x})[0]});
}

// Such as Max: exact, as the largest of the shards' largest elements is the largest.
TEST(DataParallel, OtherReductionsAreThoseOfTheShardsResults) {
  Fixture f;
  const Value largest = Max(f.x, {.axes = {0}});
  CheckShards(f, {largest, Min(f.x), Prod(f.x, {.axes = {0}, .keep_dims = true}), LogSumExp(f.x),
                  Gradients({Sum(largest * f.w)}, {f.x})[0]});
}

// A contrastive loss normalizes over the samples of a batch.
TEST(DataParallel, SoftmaxOverSamplesIsThatOfAllShards) {
  Fixture f;
  const Value soft = Softmax(f.x * 3.0, 0), logarithm = LogSoftmax(f.x * 3.0, 0);
  const Value loss = Sum(soft * f.w) + Sum(logarithm * f.x);
  CheckShards(f, {soft, logarithm, Gradients({loss}, {f.x})[0], Gradients({loss}, {f.w})[0]});
}

TEST(DataParallel, RandomNumbersAreThoseOfTheSamplesPlaces) {
  Fixture f;
  const Value uniform = RandomUniformLike(f.x, -1, 1);
  const Value normal = RandomNormal(f.scope, {Dim("batch"), 5}, 0, 1, {.dtype = kFloat32});
  const Value rows = RandomUniform(f.scope, {Dim("batch") * 3, 2});
  const Value of_all = RandomNormal(f.scope, {4});
  CheckShards(f, {uniform, normal, rows, of_all, Sum(uniform * f.x)});
}

TEST(DataParallel, RowsOfSamplesMayBeMergedAndSplit) {
  Fixture f;
  const Value rows = Reshape(f.x, {Dim("batch") * 3, 1});
  const Value normalized = Softmax(Reshape(rows * 2.0, {Dim("batch"), 3}), -1);
  CheckShards(f, {rows, normalized, Mean(rows), DimSize(rows, 0, kFloat64)});
}

TEST(DataParallel, GathersAndScattersByIndicesOfSamples) {
  Fixture f;
  const Value index = Cast(Abs(Sum(f.x * 3.0, {.axes = {1}})), kInt32);
  const Value table = f.scope.Variable("table", f.scope.Full(1, {12, 2}, kFloat64));
  const Value read = Gather(table, index);
  const Value loss = Sum(Square(read) * Sum(f.x, {.axes = {1}, .keep_dims = true}));
  CheckShards(f, {read, loss, Gradients({loss}, {table})[0], ScatterAdd(table, index, read)});
}

TEST(DataParallel, LeavesGraphsWithCollectiveOpsAlone) {
  Fixture f;
  const absl::StatusOr<Graph> shard = f.Shard({AllReduce(Sum(f.x), {.shards = 4}) + Sum(f.x)});
  ASSERT_TRUE(shard.ok()) << shard.status();
  EXPECT_EQ(CountOps(*shard, "AllReduce"), 1);
}

TEST(DataParallel, RefusesOtherMixturesOfSamples) {
  auto error = [](const std::function<Value(Fixture&)>& make) {
    Fixture f;
    const absl::StatusOr<Graph> shard = f.Shard({make(f)});
    EXPECT_EQ(shard.status().code(), absl::StatusCode::kInvalidArgument);
    return std::string(shard.status().message());
  };
  EXPECT_THAT(error([](Fixture& f) { return MatMul(f.x, f.x, {.transpose_b = true}); }),
              testing::AllOf(HasSubstr("MatMul("), HasSubstr("data_parallel_test.cc"),
                             HasSubstr("mixes the samples of a batch"), HasSubstr("run it without a group")));
  EXPECT_THAT(error([](Fixture& f) { return Reverse(f.x, {0}); }), HasSubstr("mixes the samples"));
  EXPECT_THAT(error([](Fixture& f) { return ArgMax(f.x, {.axis = 0}); }), HasSubstr("ArgMax("));
  EXPECT_THAT(error([](Fixture& f) { return Concat({f.x, f.x}, 0); }), HasSubstr("Concat("));
  EXPECT_THAT(error([](Fixture& f) {
                return f.x + Transpose(RandomUniform(f.scope, {3, Dim("batch")}, 0, 1, {.dtype = kFloat64}));
              }),
              HasSubstr("random numbers of samples along axis 1"));
  EXPECT_THAT(error([](Fixture& f) { return Sum(f.x) + Sum(f.scope.Input("other", kFloat64, {Dim("rows")})); }),
              HasSubstr("has the first axis rows, and another input has batch"));
}

// The gradient of the sum of all shards' losses, against central differences.
TEST(CollectiveOps, HaveTheGradientsOfTheSumOfAllLosses) {
  constexpr int kShards = 3;
  Graph graph;
  Scope scope(graph);
  const Value x = scope.Input("x", kFloat64, {kShards, 2});
  const CollectiveOptions options{.shards = kShards};
  const Value factor = Cast(ShardIndex(scope, kShards) + 1, kFloat64);
  const Value reduced = AllReduce(Square(x), options);
  const Value gathered = AllGather(x * factor, {kShards, reduced});
  const Value scattered = ReduceScatter(x * x * factor, {kShards, gathered});
  const Value broadcast = Broadcast(Sin(x), 1, {kShards, scattered});
  const Value loss = Sum(reduced * factor * 0.1) + Sum(Square(gathered) * factor) + Sum(Exp(scattered * 0.1) * factor) +
                     Sum(broadcast * x * factor);
  const Value gradient = Gradients({loss}, {x})[0];
  ASSERT_TRUE(graph.status().ok()) << graph.status();

  auto input_of = [](int shard) {
    Tensor tensor(kFloat64, {kShards, 2});
    for (int i = 0; i < 2 * kShards; ++i) tensor.mutable_data<double>()[i] = std::cos(7.0 * shard + i);
    return tensor;
  };
  // The losses of all shards, if `element` of the input of shard `changed` is larger by `by`; and
  // their gradients.
  auto run = [&](int changed, int element, double by, std::vector<std::vector<double>>* gradients) {
    const std::shared_ptr<distributed::Group> group = (*distributed::ThreadGroups(1, {.shards = kShards}))[0];
    std::vector<double> losses(kShards);
    distributed::ForEachShard(*group, [&](int shard, const std::shared_ptr<distributed::Communicator>&) {
      absl::StatusOr<Session> session = Session::Create(graph, {.threads = 1, .group = group, .local_shard = shard});
      ASSERT_TRUE(session.ok()) << session.status();
      Tensor input = input_of(shard);
      if (shard == changed) input.mutable_data<double>()[element] += by;
      std::vector<Fetch> fetches = {loss};
      if (gradients != nullptr) fetches.push_back(gradient);
      const absl::StatusOr<std::vector<Tensor>> results = session->Run({{x, input}}, fetches);
      ASSERT_TRUE(results.ok()) << results.status();
      losses[shard] = (*results)[0].ToDouble();
      if (gradients != nullptr) (*gradients)[shard] = (*results)[1].ToDoubles();
    });
    return std::accumulate(losses.begin(), losses.end(), 0.0);
  };
  std::vector<std::vector<double>> gradients(kShards);
  run(0, 0, 0, &gradients);
  constexpr double kStep = 1e-5;
  for (int shard = 0; shard < kShards; ++shard) {
    ASSERT_EQ(gradients[shard].size(), 2u * kShards);
    for (int element = 0; element < 2 * kShards; ++element) {
      const double difference =
          (run(shard, element, kStep, nullptr) - run(shard, element, -kStep, nullptr)) / (2 * kStep);
      EXPECT_NEAR(gradients[shard][element], difference, 1e-6) << "shard " << shard << ", element " << element;
    }
  }
}

TEST(CollectiveOps, NeedTheGroupThatTheyNameInTheirShards) {
  Graph graph;
  Scope scope(graph);
  const Value y = AllReduce(scope.Full(1, {2}), {.shards = 3});
  absl::StatusOr<Session> session = Session::Create(graph);
  ASSERT_TRUE(session.ok()) << session.status();
  const absl::Status status = session->Run({}, {y}).status();
  EXPECT_THAT(std::string(status.message()), HasSubstr("it is for 3 shards, and the session's group has 1"));
}

TEST(Plan, ShowsTheCollectiveOps) {
  Fixture f;
  const Value sum = Sum(Square(f.x));
  const std::shared_ptr<distributed::Group> group = (*distributed::ThreadGroups(1, {.shards = 2}))[0];
  absl::StatusOr<Session> session = Session::Create(f.graph, {.group = group});
  ASSERT_TRUE(session.ok()) << session.status();
  const absl::StatusOr<std::string> plan = session->DescribePlan({{f.x, Samples()}}, {sum});
  ASSERT_TRUE(plan.ok()) << plan.status();
  EXPECT_THAT(*plan, HasSubstr("over 2 shards"));
}

}  // namespace
}  // namespace gradweave
