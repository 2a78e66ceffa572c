// RunOptions: where a run stops, and that the session is then as before.
#include <time.h>

#include <atomic>
#include <chrono>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "gmock/gmock.h"
#include "gradweave/graph/passes/autodiff.h"
#include "gradweave/ops/conv.h"
#include "gradweave/ops/elementwise.h"
#include "gradweave/ops/matmul.h"
#include "gradweave/ops/random.h"
#include "gradweave/ops/reduction.h"
#include "gradweave/ops/scope.h"
#include "gradweave/ops/state.h"
#include "gradweave/runtime/session/session.h"
#include "gtest/gtest.h"
#include "tests/session/watched_kernels.h"

namespace gradweave {
namespace {

using ::testing::HasSubstr;
using Clock = RunOptions::Clock;

// Watches the ops of this test's model.
void WatchModel() { WatchKernels({"Add", "Sub", "Mul", "Square", "MatMul", "Sum", "Mean", "RandomUniform"}); }

constexpr int64_t kRows = 6, kInputs = 5, kOutputs = 3;

// A training step whose first update, a moving average, is written long before the last gradient is
// known.
struct Model {
  Graph graph;
  Value x, loss;
  Update step;

  Model() {
    WatchModel();
    Scope scope(graph);
    x = scope.Input("x", kFloat32, {kRows, kInputs});
    const Value w = scope.Variable("w", RandomUniform(scope, {kInputs, kOutputs}));
    const Value average = scope.Variable("average", scope.Full(0.5, {1, kInputs}));
    const Value speed = scope.Variable("speed", scope.Full(0.25, {kInputs, kOutputs}));
    const Value new_average = average * 0.875 + Mean(x, {.axes = {0}, .keep_dims = true}) * 0.125;
    const Value noise = RandomUniform(scope, {kRows, kOutputs});
    loss = Sum(Square(MatMul(x - new_average, w) + noise));
    const Value new_speed = speed * 0.5 + Gradients({loss}, {w})[0];
    step.assignments = {Assign(average, new_average), Assign(speed, new_speed), Assign(w, w - new_speed * 0.125)};
  }
  // Every node is a step.
  Session MakeSession() const {
    absl::StatusOr<Session> session =
        Session::Create(graph, {.threads = 2, .batch_tiles = BatchTiles::kNever, .row_fusion = RowFusion::kNever});
    EXPECT_TRUE(session.ok()) << session.status();
    return *std::move(session);
  }
  Tensor Rows() const {
    Tensor rows(kFloat32, {kRows, kInputs});
    for (int i = 0; i < kRows * kInputs; ++i) rows.mutable_data<float>()[i] = static_cast<float>(i % 7) / 4;
    return rows;
  }
};

std::vector<Tensor> Variables(const Session& session) {
  std::vector<Tensor> values;
  for (const std::string& name : session.VariableNames()) values.push_back(*session.GetVariable(name));
  return values;
}

void ExpectSame(const std::vector<Tensor>& a, const std::vector<Tensor>& b) {
  ASSERT_EQ(a.size(), b.size());
  for (size_t i = 0; i < a.size(); ++i) EXPECT_TRUE(SameBits(a[i], b[i])) << a[i].ToString() << b[i].ToString();
}

TEST(Cancellation, ARunThatIsStoppedBehindAnyKernelLeavesTheSessionAsItWas) {
  const Model model;
  const std::vector<Feed> feeds = {{model.x, model.Rows()}};
  Session whole = model.MakeSession(), stopped = model.MakeSession();
  const std::vector<Tensor> before = Variables(stopped);

  Calls().count = 0;
  const absl::StatusOr<std::vector<Tensor>> expected = whole.Run(feeds, {model.loss, model.step});
  ASSERT_TRUE(expected.ok()) << expected.status();
  const int kernels = Calls().count;
  ASSERT_GT(kernels, 10);
  const absl::StatusOr<std::string> plan = whole.DescribePlan(feeds, {model.loss, model.step});

  for (int last = 1; last <= kernels; ++last) {
    CancellationToken token;
    Calls().count = 0;
    Calls().after = [&](int call) {
      if (call == last) token.Cancel();
    };
    const absl::Status status = stopped.Run(feeds, {model.loss, model.step}, {.cancellation = &token}).status();
    Calls().after = [](int) {};
    EXPECT_EQ(status.code(), absl::StatusCode::kCancelled) << last << ": " << status;
    EXPECT_EQ(Calls().count, last) << "a kernel ran after the token was cancelled";
    ExpectSame(Variables(stopped), before);
    EXPECT_EQ(stopped.run_number(), 1u);
  }
  // The next run has the random numbers of the first.
  const absl::StatusOr<std::vector<Tensor>> results = stopped.Run(feeds, {model.loss, model.step});
  ASSERT_TRUE(results.ok()) << results.status();
  ExpectSame(*results, *expected);
  ExpectSame(Variables(stopped), Variables(whole));
  EXPECT_EQ(stopped.run_number(), 2u);
}

TEST(Cancellation, TheErrorNamesTheStep) {
  const Model model;
  Session session = model.MakeSession();
  CancellationToken token;
  Calls().count = 0;
  Calls().after = [&](int call) {
    if (call == 2) token.Cancel();
  };
  const absl::Status status = session.Run({{model.x, model.Rows()}}, {model.step}, {.cancellation = &token}).status();
  Calls().after = [](int) {};
  EXPECT_THAT(std::string(status.message()),
              ::testing::ContainsRegex("^Run: the run was cancelled before step [0-9]+ of [0-9]+, "));
  EXPECT_THAT(status.message(), HasSubstr("cancellation_test.cc"));
  EXPECT_THAT(status.message(), HasSubstr("it changed no variable"));
}

TEST(Cancellation, ALimitThatIsPastStopsARunBeforeItsFirstStep) {
  const Model model;
  Session session = model.MakeSession();
  const std::vector<Feed> feeds = {{model.x, model.Rows()}};
  const std::vector<Tensor> before = Variables(session);
  CancellationToken token;
  token.Cancel();
  const RunOptions cancelled = {.cancellation = &token}, late = {.deadline = Clock::now()};
  Calls().count = 0;
  EXPECT_EQ(session.Run(feeds, {model.step}, cancelled).status().code(), absl::StatusCode::kCancelled);
  EXPECT_EQ(session.Run(feeds, {model.step}, late).status().code(), absl::StatusCode::kDeadlineExceeded);
  EXPECT_EQ(session.ProfileRun(feeds, {model.step}, late).status().code(), absl::StatusCode::kDeadlineExceeded);
  const absl::StatusOr<std::unique_ptr<PreparedRun>> run = session.Prepare(feeds, {model.loss, model.step});
  ASSERT_TRUE(run.ok()) << run.status();
  EXPECT_EQ((*run)->Run(cancelled).code(), absl::StatusCode::kCancelled);
  EXPECT_EQ((*run)->Start(late).code(), absl::StatusCode::kDeadlineExceeded);
  EXPECT_EQ((*run)->Finish(), absl::OkStatus());
  EXPECT_EQ(Calls().count, 0);
  ExpectSame(Variables(session), before);
  // A limit that is not reached changes nothing.
  EXPECT_EQ((*run)->Run({.deadline = Clock::now() + std::chrono::hours(1)}), absl::OkStatus());
  EXPECT_EQ((*run)->Run({.deadline = Clock::now(), .cancellation = &token}).code(), absl::StatusCode::kCancelled);
  Session other = model.MakeSession();
  const absl::StatusOr<std::vector<Tensor>> expected = other.Run(feeds, {model.loss, model.step});
  ASSERT_TRUE(expected.ok()) << expected.status();
  ExpectSame((*run)->results(), *expected);
}

// A run would need too much memory for a copy of the old value, so it goes to its end.
TEST(Cancellation, ARunThatHasOverwrittenALargeVariableGoesToItsEnd) {
  WatchModel();
  constexpr int64_t kElements = 1 << 19;  // 2 MiB.
  Graph graph;
  Scope scope(graph);
  const Value small = scope.Variable("small", scope.Full(1, {4}));
  const Value large = scope.Variable("large", scope.Full(1, {kElements}));
  const Value new_small = small + 1, new_large = large + 1, sum = Sum(Square(new_large));
  const Update step{{Assign(small, new_small), Assign(large, new_large)}};
  absl::StatusOr<Session> session =
      Session::Create(graph, {.batch_tiles = BatchTiles::kNever, .row_fusion = RowFusion::kNever});
  ASSERT_TRUE(session.ok()) << session.status();
  auto run = [&](int last) {
    CancellationToken token;
    Calls().count = 0;
    Calls().after = [&](int call) {
      if (call == last) token.Cancel();
    };
    const absl::Status status = session->Run({}, {sum, step}, {.cancellation = &token}).status();
    Calls().after = [](int) {};
    return status;
  };
  auto first = [&](const char* name) { return session->GetVariable(name)->values<float>()[0]; };
  EXPECT_EQ(run(1).code(), absl::StatusCode::kCancelled);
  EXPECT_EQ(first("small"), 1);
  EXPECT_EQ(first("large"), 1);
  EXPECT_EQ(run(2), absl::OkStatus());
  EXPECT_EQ(Calls().count, 4);
  EXPECT_EQ(first("small"), 2);
  EXPECT_EQ(first("large"), 2);
}

// The CPU time of this thread.
std::chrono::nanoseconds ThreadTime() {
  timespec time;
  EXPECT_EQ(clock_gettime(CLOCK_THREAD_CPUTIME_ID, &time), 0);
  return std::chrono::seconds(time.tv_sec) + std::chrono::nanoseconds(time.tv_nsec);
}

// The plan is one step of one thread. A run that may take a twentieth of the time of a whole one
// ends early. The shortest of several runs counts: other programs make some of them longer.
void ExpectToStopInItsMiddle(Session& session, const std::vector<Feed>& feeds, const Value& fetch,
                             const std::string& kernel) {
  EXPECT_THAT(*session.DescribePlan(feeds, {fetch}), HasSubstr(kernel));
  auto shortest = [&](int runs, std::chrono::nanoseconds limit, absl::StatusCode code) {
    std::chrono::nanoseconds time = std::chrono::hours(1);
    for (int run = 0; run < runs; ++run) {
      const std::chrono::nanoseconds begin = ThreadTime();
      EXPECT_EQ(session.Run(feeds, {fetch}, {.deadline = Clock::now() + limit}).status().code(), code);
      time = std::min(time, ThreadTime() - begin);
    }
    return time;
  };
  const std::chrono::nanoseconds whole = shortest(3, std::chrono::hours(1), absl::StatusCode::kOk);
  const std::chrono::nanoseconds part = shortest(5, whole / 20, absl::StatusCode::kDeadlineExceeded);
  EXPECT_LT(part, whole / 2);
}

TEST(Cancellation, ALongProductStopsInItsMiddle) {
  constexpr int64_t kSize = 2048;
  Graph graph;
  Scope scope(graph);
  const Value x = scope.Input("x", kFloat32, {kSize, kSize});
  const Value y = MatMul(x, x);
  absl::StatusOr<Session> session = Session::Create(graph, {.threads = 1});
  ASSERT_TRUE(session.ok()) << session.status();
  ExpectToStopInItsMiddle(*session, {{x, Tensor(kFloat32, {kSize, kSize})}}, y, "product");
}

TEST(Cancellation, ATiledRegionStopsInItsMiddle) {
  constexpr int64_t kSamples = 4096, kSize = 28;
  Graph graph;
  Scope scope(graph);
  const Value x = scope.Input("x", kFloat32, {kSamples, 1, kSize, kSize});
  const Value filter = scope.Constant(Tensor(kFloat32, {8, 1, 5, 5}));
  const Value y = Sum(Square(Conv2D(x, filter)));
  absl::StatusOr<Session> session = Session::Create(graph, {.threads = 1, .batch_tiles = BatchTiles::kAlways});
  ASSERT_TRUE(session.ok()) << session.status();
  ExpectToStopInItsMiddle(*session, {{x, Tensor(kFloat32, {kSamples, 1, kSize, kSize})}}, y, "tiles of");
}

TEST(Cancellation, AnotherThreadCancels) {
  const Model model;
  Session session = model.MakeSession();
  const absl::StatusOr<std::unique_ptr<PreparedRun>> run = session.Prepare({{model.x, model.Rows()}}, {model.step});
  ASSERT_TRUE(run.ok()) << run.status();
  CancellationToken token;
  std::atomic<bool> is_running{false};
  std::thread other([&] {
    while (!is_running) std::this_thread::yield();
    token.Cancel();
  });
  absl::Status status;
  while (status.ok()) {
    status = (*run)->Run({.cancellation = &token});
    is_running = true;
  }
  other.join();
  EXPECT_EQ(status.code(), absl::StatusCode::kCancelled);
}

}  // namespace
}  // namespace gradweave
