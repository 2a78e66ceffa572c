// Plans of a session share memory: what many input sizes hold, and that no plan sees what another
// left.
#include <algorithm>
#include <cstdint>
#include <memory>
#include <thread>
#include <vector>

#include "gradweave/gradweave.h"
#include "gtest/gtest.h"

// Sanitizers replace malloc, and mallinfo2 is glibc's.
#if defined(__GLIBC__) && !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__)
#include <malloc.h>
#define GW_KNOWS_BYTES_IN_USE 1
#else
#define GW_KNOWS_BYTES_IN_USE 0
#endif

namespace gradweave {
namespace {

constexpr int64_t kMostRows = 1000, kInputs = 4, kWide = 1024;

// Bytes that the program has allocated and not freed.
[[maybe_unused]] int64_t BytesInUse() {
#if GW_KNOWS_BYTES_IN_USE
  const struct mallinfo2 info = mallinfo2();
  return static_cast<int64_t>(info.uordblks + info.hblkhd);
#else
  return 0;
#endif
}

// y = relu(x W) V for any number of rows. A row of relu(x W) has 4 KiB. All numbers are small
// integers, so results are exact for any order of sums.
struct Model {
  Graph graph;
  Value x, y;
  Tensor w{kFloat32, {kInputs, kWide}}, v{kFloat32, {kWide, 2}};

  Model() {
    for (int64_t i = 0; i < w.num_elements(); ++i) w.mutable_data<float>()[i] = static_cast<float>(i % 5 - 2);
    for (int64_t i = 0; i < v.num_elements(); ++i) v.mutable_data<float>()[i] = static_cast<float>(i % 7 - 3);
    Scope scope(graph);
    x = scope.Input("x", kFloat32, {Dim("n"), kInputs});
    y = MatMul(Relu(MatMul(x, scope.Variable("w", scope.Constant(w)))), scope.Variable("v", scope.Constant(v)));
  }
  // Nodes run one by one, so that every value is in memory as a whole.
  Session MakeSession() const {
    return *Session::Create(graph, {.threads = 1, .batch_tiles = BatchTiles::kNever, .row_fusion = RowFusion::kNever});
  }
  Tensor Rows(int64_t n, int seed = 0) const {
    Tensor rows(kFloat32, {n, kInputs});
    for (int64_t i = 0; i < n * kInputs; ++i) {
      rows.mutable_data<float>()[i] = static_cast<float>((i / kInputs + i % kInputs * 2 + seed) % 6);
    }
    return rows;
  }
  // Rows repeat after 6.
  std::vector<double> Expected(int64_t n, int seed = 0, double factor = 1) const {
    std::vector<double> results;
    const Tensor rows = Rows(6, seed);
    for (int64_t i = 0; i < n; ++i) {
      if (i >= 6) {
        results.push_back(results[results.size() - 12]);
        results.push_back(results[results.size() - 12]);
        continue;
      }
      double sums[2] = {0, 0};
      for (int64_t k = 0; k < kWide; ++k) {
        double hidden = 0;
        for (int64_t j = 0; j < kInputs; ++j)
          hidden += rows.data<float>()[i * kInputs + j] * w.data<float>()[j * kWide + k];
        for (int c : {0, 1}) sums[c] += std::max(hidden, 0.0) * v.data<float>()[k * 2 + c] * factor;
      }
      results.insert(results.end(), {sums[0], sums[1]});
    }
    return results;
  }
  std::vector<double> Run(Session& session, int64_t n, int seed = 0) const {
    const absl::StatusOr<std::vector<Tensor>> results = session.Run({{x, Rows(n, seed)}}, {y});
    EXPECT_TRUE(results.ok()) << results.status();
    return results.ok() ? (*results)[0].ToDoubles() : std::vector<double>();
  }
};

TEST(PlanMemory, AThousandSizesHoldLittleMoreThanTheLargest) {
  const Model model;
  const int64_t before_one = BytesInUse();
  int64_t of_one = 0;
  {
    Session session = model.MakeSession();
    model.Run(session, kMostRows);
    of_one = BytesInUse() - before_one;
    if (GW_KNOWS_BYTES_IN_USE != 0) {
      EXPECT_GT(of_one, kMostRows * kWide * 4);
    }
  }
  // 379 and 1000 have no common factor, so each size comes once; the second session meets ever
  // larger ones.
  for (int64_t step : {379, 1}) {
    const int64_t before = BytesInUse();
    Session session = model.MakeSession();
    for (int64_t i = 1; i <= kMostRows; ++i) {
      const int64_t n = i * step % kMostRows + 1;
      ASSERT_EQ(model.Run(session, n, static_cast<int>(i)), model.Expected(n, static_cast<int>(i))) << n << " rows";
    }
    // An eighth more for growth, and what 32 plans know of their graphs.
    if (GW_KNOWS_BYTES_IN_USE != 0) {
      EXPECT_LT(BytesInUse() - before, of_one * 9 / 8 + (4 << 20)) << "step " << step;
    }
  }
}

TEST(PlanMemory, PreparedRunsStayRightWhenOthersMoveTheMemory) {
  const Model model;
  Session session = model.MakeSession();
  std::vector<std::unique_ptr<PreparedRun>> runs;
  std::vector<int64_t> sizes;
  auto check = [&] {
    for (size_t i = 0; i < runs.size(); ++i) {
      if (runs[i] == nullptr) continue;
      ASSERT_TRUE(runs[i]->Run().ok());
      EXPECT_EQ(runs[i]->results()[0].ToDoubles(), model.Expected(sizes[i]));
    }
  };
  for (int64_t n : {3, 40, 7, 400, 1000, 1}) {
    absl::StatusOr<std::unique_ptr<PreparedRun>> run = session.Prepare({{model.x, model.Rows(n)}}, {model.y});
    ASSERT_TRUE(run.ok()) << run.status();
    runs.push_back(*std::move(run));
    sizes.push_back(n);
    check();
  }
  // The largest goes first, and then its plan: many others take its place.
  const int64_t with_largest = BytesInUse();
  runs[4] = nullptr;
  for (int64_t n = 10; n < 50; ++n) EXPECT_EQ(model.Run(session, n), model.Expected(n));
  check();
  if (GW_KNOWS_BYTES_IN_USE != 0) {
    EXPECT_LT(BytesInUse(), with_largest - 1'500'000);
  }
}

TEST(PlanMemory, ThreadsOfOneSessionTakeTurns) {
  const Model model;
  Session session = model.MakeSession();
  std::vector<std::thread> threads;
  std::vector<int> wrong(4, 0);
  for (int t = 0; t < 4; ++t) {
    threads.emplace_back([&, t] {
      for (int i = 0; i < 40; ++i) {
        const int64_t n = 1 + (t * 97 + i * 31) % 150;
        wrong[t] += model.Run(session, n, t) != model.Expected(n, t) ? 1 : 0;
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(wrong, std::vector<int>(4, 0));
}

// Plans of two sizes share the packed weights, which either may pack anew.
TEST(PlanMemory, SharedPackedWeightsFollowTheirVariable) {
  const Model model;
  Session session = model.MakeSession();
  for (int factor : {1, 2, 3}) {
    Tensor v = model.v.Clone();
    for (float& element : v.mutable_values<float>()) element *= static_cast<float>(factor);
    ASSERT_TRUE(session.SetVariable("v", v).ok());
    for (int64_t n : factor == 2 ? std::vector<int64_t>{64, 48, 64} : std::vector<int64_t>{48, 64, 48}) {
      EXPECT_EQ(model.Run(session, n), model.Expected(n, 0, factor));
    }
  }
}

}  // namespace
}  // namespace gradweave
