// PrepareRows: how long a session keeps the tables.
#include <cstdint>
#include <memory>
#include <utility>
#include <vector>

#include "gmock/gmock.h"
#include "gradweave/ops/elementwise.h"
#include "gradweave/ops/scope.h"
#include "gradweave/runtime/session/session.h"
#include "gtest/gtest.h"

namespace gradweave {
namespace {

using ::testing::ElementsAre;

constexpr int64_t kRows = 10, kColumns = 2;

// A table whose storage tells when its last user is gone.
struct Table {
  std::shared_ptr<std::vector<float>> storage = std::make_shared<std::vector<float>>(kRows * kColumns);
  Tensor tensor = Tensor::View(kFloat32, {kRows, kColumns}, storage->data(), storage);

  Table() {
    for (int i = 0; i < kRows * kColumns; ++i) (*storage)[i] = static_cast<float>(i);
  }
  // Gives up this copy.
  std::weak_ptr<std::vector<float>> Release() {
    tensor = Tensor();
    return std::exchange(storage, nullptr);
  }
};

class Tables : public ::testing::Test {
 protected:
  Tables() {
    Scope scope(graph_);
    x_ = scope.Input("x", kFloat32, {Dim("n"), kColumns});
    other_ = scope.Input("other", kFloat32, {Dim("n"), kColumns});
    y_ = x_ * 2;
    sum_ = x_ + other_;
    session_ = std::make_unique<Session>(*Session::Create(graph_));
  }
  std::unique_ptr<PreparedRun> Prepare(const Table& table) {
    absl::StatusOr<std::unique_ptr<PreparedRun>> run = session_->PrepareRows({{x_, table.tensor}}, 1, {y_});
    EXPECT_TRUE(run.ok()) << run.status();
    return run.ok() ? *std::move(run) : nullptr;
  }
  static std::vector<double> Row(PreparedRun& run, int64_t row) {
    EXPECT_TRUE(run.SetRows({row}).ok());
    EXPECT_TRUE(run.Run().ok());
    return run.results()[0].ToDoubles();
  }

  Graph graph_;
  Value x_, other_, y_, sum_;
  std::unique_ptr<Session> session_;
};

TEST_F(Tables, AreGoneWithTheirLastRun) {
  Table table;
  std::unique_ptr<PreparedRun> one = Prepare(table), two = Prepare(table);
  const std::weak_ptr<std::vector<float>> storage = table.Release();
  EXPECT_THAT(Row(*one, 3), ElementsAre(12, 14));
  one.reset();
  EXPECT_FALSE(storage.expired());
  EXPECT_THAT(Row(*two, 4), ElementsAre(16, 18));
  two.reset();
  EXPECT_TRUE(storage.expired());
}

TEST_F(Tables, AreGoneWithTheirLastRunWhichOutlivesTheSession) {
  Table table;
  std::unique_ptr<PreparedRun> run = Prepare(table);
  const std::weak_ptr<std::vector<float>> storage = table.Release();
  session_.reset();
  EXPECT_THAT(Row(*run, 3), ElementsAre(12, 14));
  run.reset();
  EXPECT_TRUE(storage.expired());
}

TEST_F(Tables, OfTwoInputsMayBeOne) {
  Table table;
  absl::StatusOr<std::unique_ptr<PreparedRun>> run =
      session_->PrepareRows({{x_, table.tensor}, {other_, table.tensor}}, 1, {sum_});
  ASSERT_TRUE(run.ok()) << run.status();
  const std::weak_ptr<std::vector<float>> storage = table.Release();
  EXPECT_THAT(Row(**run, 3), ElementsAre(12, 14));
  run->reset();
  EXPECT_TRUE(storage.expired());
}

TEST_F(Tables, AreNotKeptByAFailedCall) {
  Table table;
  EXPECT_FALSE(session_->PrepareRows({{x_, table.tensor}, {other_, Tensor(kInt32, {kRows})}}, 1, {sum_}).ok());
  const std::weak_ptr<std::vector<float>> storage = table.Release();
  EXPECT_TRUE(storage.expired());
}

// A later table finds the name of an earlier one free.
TEST_F(Tables, MayFollowOneAnother) {
  for (int i = 0; i < 20; ++i) {
    Table table;
    (*table.storage)[0] = static_cast<float>(i);
    std::unique_ptr<PreparedRun> run = Prepare(table);
    EXPECT_THAT(Row(*run, 0), ElementsAre(2 * i, 2));
  }
}

}  // namespace
}  // namespace gradweave
