// Effects of a session on its process, and of the process on the session: fork(), moves, and
// settings of the whole process.
#include <cblas.h>
#include <sys/wait.h>
#include <unistd.h>
#if defined(__SSE__)
#include <xmmintrin.h>
#endif

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cmath>
#include <cstdint>
#include <memory>
#include <optional>
#include <thread>
#include <utility>
#include <vector>

#include "absl/functional/function_ref.h"
#include "absl/types/span.h"
#include "gmock/gmock.h"
#include "gradweave/graph/tensor.h"
#include "gradweave/ops/elementwise.h"
#include "gradweave/ops/matmul.h"
#include "gradweave/ops/reduction.h"
#include "gradweave/ops/scope.h"
#include "gradweave/ops/shape_ops.h"
#include "gradweave/ops/state.h"
#include "gradweave/runtime/session/session.h"
#include "gtest/gtest.h"

namespace gradweave {
namespace {

using ::testing::HasSubstr;

constexpr int64_t kSize = 64;

#if defined(__SANITIZE_THREAD__)
constexpr bool kMayFork = false;  // The thread sanitizer stops a child of a program with threads.
#else
constexpr bool kMayFork = true;
#endif

// y = x w, with the sum of all elements in `total`, which the update adds up.
struct Model {
  Graph graph;
  Value x, y;
  Update step;

  explicit Model(DType dtype = kFloat32) {
    Scope scope(graph);
    x = scope.Input("x", dtype, {kSize, kSize});
    y = MatMul(x, scope.Variable("w", scope.Full(1, {kSize, kSize}, dtype)));
    const Value total = scope.Variable("total", scope.Full(0, {}, dtype));
    step.assignments = {Assign(total, total + Sum(y))};
  }
  absl::StatusOr<Session> MakeSession(int threads = 3) const { return Session::Create(graph, {.threads = threads}); }
  Tensor Ones() const { return ones_; }

 private:
  static Tensor MakeOnes() {
    Tensor ones(kFloat32, {kSize, kSize});
    for (float& element : ones.mutable_values<float>()) element = 1;
    return ones;
  }
  Tensor ones_ = MakeOnes();
};

// Returns the exit status of a child that calls the function; -1 if it was killed, as one that
// hangs is.
int ExitStatusOfChild(absl::FunctionRef<int()> body) {
  const pid_t child = fork();
  if (child == 0) {
    alarm(20);
    _exit(body());
  }
  int status = 0;
  EXPECT_EQ(waitpid(child, &status, 0), child);
  return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

TEST(Fork, AChildDestroysItsCopiesAndMakesSessionsOfItsOwn) {
  if (!kMayFork) GTEST_SKIP();
  const Model model;
  absl::StatusOr<Session> created = model.MakeSession();
  ASSERT_TRUE(created.ok()) << created.status();
  std::optional<Session> session = *std::move(created);
  const std::vector<Feed> feeds = {{model.x, model.Ones()}};
  absl::StatusOr<std::unique_ptr<PreparedRun>> run = session->Prepare(feeds, {model.y, model.step});
  ASSERT_TRUE(run.ok()) << run.status();
  ASSERT_TRUE((*run)->Run().ok());
  // The threads of the pool have gone to sleep by now.
  std::this_thread::sleep_for(std::chrono::milliseconds(50));

  const int status = ExitStatusOfChild([&] {
    const auto fails = [](const absl::Status& call) { return call.code() == absl::StatusCode::kFailedPrecondition; };
    if (!fails(session->Run(feeds, {model.y}).status()) || !fails((*run)->Run()) || !fails((*run)->Start())) return 1;
    if (!fails((*run)->Finish()) || !fails((*run)->ClearSums()) || !fails((*run)->SetSums({}))) return 2;
    if (!fails((*run)->SetFeed(0, model.Ones())) || !fails((*run)->SetRows({0}))) return 11;
    if (!fails(session->GetVariable("total").status()) || !fails(session->SetVariable("total", Tensor()))) return 3;
    if (!fails(session->Prepare(feeds, {model.y}).status())) return 4;
    if (!fails(session->PrepareRows({{model.x, model.Ones()}}, 1, {model.y}).status())) return 5;
    if (!fails(session->DescribePlan(feeds, {model.y}).status())) return 6;
    if (!fails(session->ProfileRun(feeds, {model.y}).status())) return 7;
    if (session->run_number() != 2 || session->VariableNames().size() != 2) return 8;
    run->reset();
    session.reset();
    absl::StatusOr<Session> own = model.MakeSession();
    if (!own.ok()) return 9;
    const absl::StatusOr<std::vector<Tensor>> results = own->Run(feeds, {model.y});
    return results.ok() && (*results)[0].values<float>()[0] == kSize ? 0 : 10;
  });
  EXPECT_EQ(status, 0);

  // Nothing has changed for the parent.
  ASSERT_TRUE((*run)->Run().ok());
  EXPECT_EQ(session->GetVariable("total")->ToDouble(), 2.0 * kSize * kSize * kSize);
  EXPECT_EQ(session->run_number(), 3u);
}

// The mutex of the session is locked in the child, by a thread that the child does not have.
TEST(Fork, AChildThatIsMadeDuringARunDestroysItsCopies) {
  if (!kMayFork) GTEST_SKIP();
  const Model model;
  absl::StatusOr<Session> created = model.MakeSession();
  ASSERT_TRUE(created.ok()) << created.status();
  std::optional<Session> session = *std::move(created);
  absl::StatusOr<std::unique_ptr<PreparedRun>> run = session->Prepare({{model.x, model.Ones()}}, {model.y, model.step});
  ASSERT_TRUE(run.ok()) << run.status();
  std::atomic<bool> stop{false};
  std::thread runs([&] {
    while (!stop) EXPECT_TRUE((*run)->Run().ok());
  });
  for (int i = 0; i < 20; ++i) {
    const int status = ExitStatusOfChild([&] {
      if ((*run)->Run().code() != absl::StatusCode::kFailedPrecondition) return 1;
      (void)session->run_number();
      session->SetRunNumber(1);
      run->reset();
      session.reset();
      return 0;
    });
    EXPECT_EQ(status, 0);
  }
  stop = true;
  runs.join();
}

TEST(Moves, ASessionThatWasMovedFromSaysSo) {
  const Model model;
  absl::StatusOr<Session> session = model.MakeSession();
  ASSERT_TRUE(session.ok()) << session.status();
  const std::vector<Feed> feeds = {{model.x, model.Ones()}};
  Session target = *std::move(session);
  const auto expect_failure = [](const absl::Status& status) {
    EXPECT_EQ(status.code(), absl::StatusCode::kFailedPrecondition) << status;
    EXPECT_THAT(status.message(), HasSubstr("the session was moved from"));
  };
  expect_failure(session->Run(feeds, {model.y}).status());
  expect_failure(session->Prepare(feeds, {model.y}).status());
  expect_failure(session->PrepareRows({{model.x, model.Ones()}}, 1, {model.y}).status());
  expect_failure(session->GetVariable("w").status());
  expect_failure(session->SetVariable("w", Tensor()));
  expect_failure(session->DescribePlan(feeds, {model.y}).status());
  expect_failure(session->ProfileRun(feeds, {model.y}).status());
  EXPECT_DEATH((void)session->graph(), "graph of a session that was moved from");
  EXPECT_DEATH((void)session->VariableNames(), "of a session that was moved from");
  EXPECT_DEATH((void)session->threads(), "of a session that was moved from");
  EXPECT_DEATH((void)session->run_number(), "of a session that was moved from");
  EXPECT_DEATH(session->SetRunNumber(1), "of a session that was moved from");

  // It may be assigned to, and destroyed.
  *session = std::move(target);
  EXPECT_TRUE(session->Run(feeds, {model.y}).ok());
  Session& same = *session;
  *session = std::move(same);
  EXPECT_TRUE(session->Run(feeds, {model.y}).ok());
}

TEST(Moves, ATensorThatWasMovedFromIsEmpty) {
  for (Tensor tensor : {Tensor::Scalar(3.0f), Tensor::Of<int32_t>({2}, {1, 2}), Tensor(kUint8, {1, 1, 1, 1, 1, 2})}) {
    const Tensor kept = tensor;
    Tensor target = std::move(tensor);
    EXPECT_TRUE(SameBits(target, kept));
    EXPECT_EQ(tensor.ToString(), "float32[0] {}");
    EXPECT_TRUE(std::isnan(tensor.ToDouble()));
    EXPECT_TRUE(tensor.Clone().ToDoubles().empty());
    tensor = std::move(target);
    EXPECT_EQ(target.ToString(), "float32[0] {}");
    EXPECT_TRUE(SameBits(tensor, kept));
    Tensor& same = tensor;
    tensor = std::move(same);
    EXPECT_TRUE(SameBits(tensor, kept));
  }
  // A scalar's feed, once moved from, is no scalar.
  Graph graph;
  Scope scope(graph);
  const Value x = scope.Input("x", kFloat32, {});
  const Value y = x + 1;
  absl::StatusOr<Session> session = Session::Create(graph);
  ASSERT_TRUE(session.ok()) << session.status();
  Tensor feed = Tensor::Scalar(3.0f);
  const Tensor moved = std::move(feed);
  EXPECT_EQ(session->Run({{x, feed}}, {y}).status().code(), absl::StatusCode::kInvalidArgument);
}

TEST(OpenBlas, KeepsTheNumberOfThreadsThatTheProgramHasSet) {
  const int at_first = openblas_get_num_threads();
  const Model model(kFloat64);
  std::vector<Session> sessions;
  for (int i = 0; i < 2; ++i) {
    absl::StatusOr<Session> session = model.MakeSession(2);
    ASSERT_TRUE(session.ok()) << session.status();
    sessions.push_back(*std::move(session));
  }
  const std::vector<Feed> feeds = {{model.x, model.Ones().Cast(kFloat64)}};
  ASSERT_THAT(*sessions[0].DescribePlan(feeds, {model.y}), HasSubstr("gemm"));
  EXPECT_EQ(openblas_get_num_threads(), at_first);
  for (int threads : {2, 1}) {
    openblas_set_num_threads(threads);
    std::vector<std::thread> others;
    for (Session& session : sessions) {
      others.emplace_back([&] {
        for (int i = 0; i < 50; ++i) EXPECT_TRUE(session.Run(feeds, {model.y}).ok());
      });
    }
    for (std::thread& other : others) other.join();
    EXPECT_EQ(openblas_get_num_threads(), threads);
    std::thread([&] { EXPECT_EQ(openblas_get_num_threads(), threads); }).join();
  }
  openblas_set_num_threads(at_first);
}

#if defined(__SSE__)

// The program's own state: it rounds up, and has met a division by zero.
constexpr unsigned kOddState = 0x1f80 | 0x4000 | 0x0004;

TEST(FloatState, ARunRestoresTheCallersAndDoesNotUseIt) {
  const Model model;
  Graph graph;
  Scope scope(graph);
  const Value x = scope.Input("x", kFloat32, {3});
  const Value third = x / 3;
  absl::StatusOr<Session> session = Session::Create(graph, {.threads = 2});
  ASSERT_TRUE(session.ok()) << session.status();
  const std::vector<Feed> feeds = {{x, Tensor::Of<float>({3}, {1, 2, 4})}};
  const absl::StatusOr<std::vector<Tensor>> expected = session->Run(feeds, {third});
  ASSERT_TRUE(expected.ok()) << expected.status();

  const unsigned at_first = _mm_getcsr();
  _mm_setcsr(kOddState);
  const absl::StatusOr<std::vector<Tensor>> results = session->Run(feeds, {third});
  const unsigned after_run = _mm_getcsr();
  _mm_setcsr(kOddState);
  const absl::Status error = session->Run({}, {third}).status();
  const unsigned after_error = _mm_getcsr();
  _mm_setcsr(kOddState);
  const absl::StatusOr<Session> created = model.MakeSession();
  const unsigned after_creation = _mm_getcsr();
  _mm_setcsr(at_first);
  EXPECT_EQ(after_run, kOddState);
  EXPECT_EQ(after_error, kOddState);
  EXPECT_EQ(after_creation, kOddState);
  ASSERT_TRUE(results.ok()) << results.status();
  EXPECT_TRUE(SameBits((*results)[0], (*expected)[0]));
  EXPECT_FALSE(error.ok());
}

// On every thread, and where the engine computes constants.
TEST(FloatState, DenormalsAreZeros) {
  constexpr int64_t kElements = 1 << 20;
  Graph graph;
  Scope scope(graph);
  const Value x = scope.Input("x", kFloat32, {kElements});
  const Value doubled = x + x;  // 2e-40 is no zero.
  const Value constant = scope.Constant(Tensor::Scalar(1e-20f)) * scope.Constant(Tensor::Scalar(1e-20f));
  const Value product = MatMul(Reshape(x, {1, kElements}), Reshape(x * 0 + 1, {kElements, 1}));
  Tensor tiny(kFloat32, {kElements});
  for (float& element : tiny.mutable_values<float>()) element = 1e-40f;
  for (int threads : {1, 3}) {
    absl::StatusOr<Session> session = Session::Create(graph, {.threads = threads});
    ASSERT_TRUE(session.ok()) << session.status();
    const absl::StatusOr<std::vector<Tensor>> results = session->Run({{x, tiny}}, {doubled, constant, product});
    ASSERT_TRUE(results.ok()) << results.status();
    for (const Tensor& result : *results) {
      const absl::Span<const float> elements = result.values<float>();
      EXPECT_EQ(std::count(elements.begin(), elements.end(), 0.0f), result.num_elements()) << threads;
    }
  }
}

#endif

}  // namespace
}  // namespace gradweave
