// Convolutions that sessions run as minimal filtering, as the plan shows. Results are close to
// those of plain sums, have the same bits for any number of threads, and follow the variables.
#include <algorithm>
#include <cmath>
#include <random>
#include <string>
#include <vector>

#include "gradweave/gradweave.h"
#include "gtest/gtest.h"
#include "tests/cpu/measured_vectors.h"

namespace gradweave {
namespace {

Tensor RandomTensor(const std::vector<int64_t>& sizes, std::mt19937& generator) {
  Tensor tensor(kFloat32, sizes);
  std::uniform_real_distribution<float> uniform(-1, 1);
  for (float& value : tensor.mutable_values<float>()) value = uniform(generator);
  return tensor;
}

// A convolution with a bias and its gradients.
struct Model {
  Graph graph;
  Value x, dy, w;
  std::vector<Fetch> fetches;
  std::vector<Feed> feeds;

  explicit Model(int64_t padding) {
    std::mt19937 generator(1);
    Scope scope(graph);
    x = scope.Input("x", kFloat32, {2, 48, 30, 27});
    w = scope.Variable("w", scope.Constant(RandomTensor({40, 48, 3, 3}, generator)));
    const Value bias = scope.Variable("bias", scope.Constant(RandomTensor({40}, generator)));
    const Value y = Conv2D(x, w, bias, {.padding = {padding, padding}});
    dy = scope.Input("dy", kFloat32, y.shape());
    const std::vector<Value> gradients = Gradients({Sum(y * dy)}, {x, w});
    fetches = {y, gradients[0], gradients[1]};
    feeds = {{x, RandomTensor({2, 48, 30, 27}, generator)},
             {dy, RandomTensor({2, 40, 28 + 2 * padding, 25 + 2 * padding}, generator)}};
  }

  std::vector<Tensor> Run(Session& session) {
    absl::StatusOr<std::vector<Tensor>> results = session.Run(feeds, fetches);
    EXPECT_TRUE(results.ok()) << results.status();
    return *std::move(results);
  }
};

int CountOf(const std::string& text, const std::string& part) {
  int count = 0;
  for (size_t at = text.find(part); at != std::string::npos; at = text.find(part, at + 1)) ++count;
  return count;
}

TEST(WinogradInSessions, IsCloseToPlainSumsAndLeftOutOnRequest) {
  for (int64_t padding : {0, 1, 2}) {
    Model model(padding);
    ASSERT_TRUE(model.graph.status().ok()) << model.graph.status();
    SessionOptions options = {.threads = 1, .batch_tiles = BatchTiles::kNever};
    absl::StatusOr<Session> session = Session::Create(model.graph, options);
    options.toom_cook = false;
    absl::StatusOr<Session> plain = Session::Create(model.graph, options);
    ASSERT_TRUE(session.ok() && plain.ok());
    // The convolution and both gradients.
    const std::string plan = *session->DescribePlan(model.feeds, model.fetches);
    EXPECT_GE(CountOf(plan, "Winograd"), HasMeasuredVectors() ? 3 : 0) << plan;
    EXPECT_EQ(CountOf(*plain->DescribePlan(model.feeds, model.fetches), "Winograd"), 0);
    const std::vector<Tensor> got = model.Run(*session), want = model.Run(*plain);
    for (size_t i = 0; i < got.size(); ++i) {
      const std::vector<double> a = got[i].ToDoubles(), b = want[i].ToDoubles();
      double largest = 0;
      for (double value : b) largest = std::max(largest, std::abs(value));
      for (size_t k = 0; k < a.size(); ++k) ASSERT_NEAR(a[k], b[k], 1e-5 * largest) << "result " << i << ", " << k;
    }
  }
}

// A row region that begins with a convolution runs it with the kernel that the node would have
// alone.
TEST(WinogradInSessions, IsLeftOutOnRequestAtTheBeginningOfARowRegion) {
  Graph graph;
  Scope scope(graph);
  std::mt19937 generator(2);
  const Value x = scope.Input("x", kFloat32, {16, 64, 28, 28});
  const Value w = scope.Variable("w", scope.Constant(RandomTensor({64, 64, 3, 3}, generator)));
  const Value scale = scope.Variable("scale", scope.Constant(RandomTensor({64, 1, 1}, generator)));
  const Value y = Relu(Conv2D(x, w, {.padding = {1, 1}}) * scale);
  const std::vector<Feed> feeds = {{x, RandomTensor({16, 64, 28, 28}, generator)}};
  auto plan_with = [&](bool toom_cook) {
    absl::StatusOr<Session> session =
        Session::Create(graph, {.threads = 1, .batch_tiles = BatchTiles::kNever, .toom_cook = toom_cook});
    EXPECT_TRUE(session.ok()) << session.status();
    return *session->DescribePlan(feeds, {y});
  };
  const std::string plan = plan_with(true);
  EXPECT_TRUE(CountOf(plan, "convolution (Winograd") > 0 || !HasMeasuredVectors()) << plan;
  EXPECT_EQ(CountOf(plan_with(false), "Winograd"), 0);
}

TEST(WinogradInSessions, IsTheSameBitsForAnyNumberOfThreadsAndFollowsTheVariables) {
  Model model(1);
  std::vector<std::vector<double>> first, second;
  for (int threads : {1, 2, 3}) {
    absl::StatusOr<Session> session =
        Session::Create(model.graph, {.threads = threads, .batch_tiles = BatchTiles::kNever});
    ASSERT_TRUE(session.ok());
    auto run = [&] {
      std::vector<std::vector<double>> values;
      for (const Tensor& result : model.Run(*session)) values.push_back(result.ToDoubles());
      return values;
    };
    const std::vector<std::vector<double>> before = run();
    EXPECT_EQ(run(), before);  // This run uses the packed filters of the first one.
    Tensor w = *session->GetVariable("w");
    for (float& element : w.mutable_values<float>()) element *= 2;
    ASSERT_TRUE(session->SetVariable("w", w).ok());
    const std::vector<std::vector<double>> after = run();
    EXPECT_NE(after[0], before[0]);
    EXPECT_NE(after[1], before[1]);
    if (threads == 1) first = before, second = after;
    EXPECT_EQ(before, first);
    EXPECT_EQ(after, second);
  }
}

}  // namespace
}  // namespace gradweave
