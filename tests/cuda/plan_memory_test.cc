// Plans of a session share the memory of the CUDA device.
#include <cmath>
#include <memory>
#include <vector>

#include "gradweave/gradweave.h"
#include "gtest/gtest.h"
#include "tests/cuda/session.h"

namespace gradweave {
namespace {

using CudaPlanMemory = CudaSession;

// A step for any number of rows, with a large feed, a large constant and a variable.
struct Step {
  static constexpr int64_t kColumns = 500;
  Graph graph;
  Value x, y;
  Update step;

  Step() {
    Scope scope(graph);
    x = scope.Input("x", kFloat32, {Dim("n"), kColumns});
    Tensor large(kFloat32, {kColumns, 64});
    for (int64_t i = 0; i < large.num_elements(); ++i) large.mutable_data<float>()[i] = static_cast<float>(i % 3 - 1);
    const Value w = scope.Variable("w", scope.Constant(Tensor(kFloat32, {64})));
    y = Sum(Sigmoid(MatMul(Tanh(x), scope.Constant(large)) * 0.01 + w), {.axes = {0}});
    step.assignments = {Assign(w, w + y * 0.001)};
    EXPECT_TRUE(graph.status().ok()) << graph.status();
  }
  std::vector<Feed> Feeds(int64_t n, int seed = 0) const {
    Tensor rows(kFloat32, {n, kColumns});
    for (int64_t i = 0; i < rows.num_elements(); ++i)
      rows.mutable_data<float>()[i] = static_cast<float>(std::sin(0.37 * static_cast<double>(i) + seed));
    return {{x, rows}};
  }
};

TEST_F(CudaPlanMemory, ManySizesHoldLittleMoreThanTheLargest) {
  GRADWEAVE_NEEDS_EMULATION();
  constexpr int64_t kMost = 80;
  const Step step;
  size_t of_one = 0;
  {
    Session session = MakeSession(step.graph, {.device = kCuda0, .threads = 1});
    for (int i = 0; i < 3; ++i) RunAll(session, step.Feeds(kMost), {step.y, step.step});
    of_one = api_->allocated_bytes();
    EXPECT_GT(of_one, sizeof(float) * kMost * Step::kColumns * 3);
  }
  EXPECT_EQ(api_->allocated_bytes(), 0u);
  for (int64_t factor : {37, 1}) {
    Session session = MakeSession(step.graph, {.device = kCuda0, .threads = 1});
    Session cpu = MakeSession(step.graph, {.threads = 1});
    for (int64_t i = 1; i <= kMost; ++i) {
      const int64_t n = i * factor % kMost + 1;
      // Eager, captured and replayed.
      for (int run = 0; run < 3; ++run) {
        ExpectNear(RunAll(session, step.Feeds(n, run), {step.y, step.step})[0].ToDoubles(),
                   RunAll(cpu, step.Feeds(n, run), {step.y, step.step})[0].ToDoubles());
      }
    }
    // An eighth more for growth, and what each of 32 plans has of its own: the error flag, the run
    // state, small constants, and feeds of up to 64 KiB. Plans that share nothing would take six
    // times as much.
    constexpr size_t kOwn = 32 * (4096 + (64 << 10));
    EXPECT_LT(api_->allocated_bytes(), of_one * 9 / 8 + kOwn);
    EXPECT_LT(api_->peak_bytes(), of_one * 9 / 8 + kOwn);
    EXPECT_GT(32 * of_one, 6 * (of_one * 9 / 8 + kOwn));
  }
  EXPECT_EQ(api_->allocated_bytes(), 0u);
}

TEST_F(CudaPlanMemory, PlansThatTakeTurnsAllocateAndCaptureNothing) {
  GRADWEAVE_NEEDS_EMULATION();
  const Step step;
  Session session = MakeSession(step.graph, {.device = kCuda0, .threads = 1});
  for (int64_t n : {60, 20, 60, 20, 60, 20}) RunAll(session, step.Feeds(n), {step.y, step.step});
  const int allocations = api_->CountCalls("Allocate") + api_->CountCalls("AllocatePinned");
  const int captures = api_->CountCalls("BeginCapture"), waits = api_->CountCalls("Synchronize");
  for (int64_t n : {60, 20, 60, 20}) RunAll(session, step.Feeds(n), {step.y, step.step});
  EXPECT_EQ(api_->CountCalls("Allocate") + api_->CountCalls("AllocatePinned"), allocations);
  EXPECT_EQ(api_->CountCalls("BeginCapture"), captures);
  EXPECT_EQ(api_->CountCalls("Synchronize"), waits + 4);
}

// A plan that needs more than there is moves the memory, even while runs of another plan are under
// way.
TEST_F(CudaPlanMemory, StartedRunsStayRightWhenOthersMoveTheMemory) {
  const Step step;
  Session session = MakeSession(step.graph, {.device = kCuda0, .threads = 1});
  Session cpu = MakeSession(step.graph, {.threads = 1});
  absl::StatusOr<std::unique_ptr<PreparedRun>> run = session.Prepare(step.Feeds(10), {step.y, step.step});
  ASSERT_TRUE(run.ok()) << run.status();
  std::vector<double> want;
  auto start = [&](int times) {
    for (int i = 0; i < times; ++i) {
      const std::vector<Feed> feeds = step.Feeds(10, i);
      ASSERT_TRUE((*run)->SetFeed(0, feeds[0].second).ok());
      ASSERT_TRUE((*run)->Start().ok());
      want = RunAll(cpu, feeds, {step.y, step.step})[0].ToDoubles();
    }
  };
  auto finish = [&] {
    ASSERT_TRUE((*run)->Finish().ok());
    ExpectNear((*run)->results()[0].ToDoubles(), want);
  };
  start(5);
  absl::StatusOr<std::unique_ptr<PreparedRun>> larger = session.Prepare(step.Feeds(100), {step.y});
  ASSERT_TRUE(larger.ok()) << larger.status();
  finish();
  start(5);
  for (int i = 0; i < 3; ++i) {
    ASSERT_TRUE((*larger)->Run().ok());
    ExpectNear((*larger)->results()[0].ToDoubles(), RunAll(cpu, step.Feeds(100), {step.y})[0].ToDoubles());
  }
  finish();
  // The largest plans go while others are under way, and their memory with them.
  start(5);
  larger->reset();
  finish();
  const size_t with_largest = api_ == nullptr ? 0 : api_->allocated_bytes();
  // 36 plans of at most half the rows.
  for (int64_t n = 33; n < 45; ++n) {
    RunAll(session, step.Feeds(n), {step.y});
    for (Session* each : {&session, &cpu}) {
      RunAll(*each, step.Feeds(n), {step.y, step.step});
      RunAll(*each, step.Feeds(n), {step.step});
    }
  }
  start(5);
  finish();
  if (api_ != nullptr) {
    EXPECT_LT(api_->allocated_bytes(), with_largest);
  }
  ExpectNear(session.GetVariable("w")->ToDoubles(), cpu.GetVariable("w")->ToDoubles());
}

}  // namespace
}  // namespace gradweave
