// Sessions on an emulated CUDA device with bad data, device failures and too little memory.
#include <cmath>
#include <string>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "gmock/gmock.h"
#include "gradweave/gradweave.h"
#include "gtest/gtest.h"
#include "tests/cuda/session.h"

namespace gradweave {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

using CudaFailures = CudaSession;

// A small step that uses all features: pinned and pageable feeds, constants, variables, a fallible
// kernel, both devices.
struct SmallStep {
  Graph graph;
  Value x, label, loss;
  Update step;
  SmallStep() {
    Scope scope(graph);
    x = scope.Input("x", kFloat32, {2, 10000});
    label = scope.Input("label", kInt32, {2});
    const Value w = scope.Variable("w", scope.Constant(Tensor(kFloat32, {10000, 3})));
    Value logits = MatMul(x, w) + scope.Constant(Tensor::Of<float>({3}, {1, 2, 3}));
    scope.SetDevice("cpu");
    logits = Tanh(logits);
    scope.SetDevice("");
    loss = Mean(SparseSoftmaxCrossEntropy(logits, label));
    step.assignments = {Assign(w, w - 0.1 * Gradients({loss}, {w})[0])};
  }
  std::vector<Feed> Feeds() const {
    return {{x, Tensor::Of<float>({2, 10000}, std::vector<float>(20000, 0.01f))},
            {label, Tensor::Of<int32_t>({2}, {0, 2})}};
  }
  absl::StatusOr<std::vector<Tensor>> Run(Session& session) const { return session.Run(Feeds(), {loss, step}); }
};

TEST_F(CudaFailures, LeavesVariablesAsTheyWereWhenARunFails) {
  Graph graph;
  Scope scope(graph);
  const Value label = scope.Input("label", kInt32, {Dim("n")});
  const Value w = scope.Variable("w", scope.Constant(Tensor::Of<float>({1, 3}, {1, 2, 3})));
  const Value counter = scope.Variable("counter", 0);
  const Value loss = Mean(SparseSoftmaxCrossEntropy(BroadcastTo(w, {Dim("n"), 3}), label));
  const Update step{{Assign(w, w - Gradients({loss}, {w})[0]), Assign(counter, counter + 1)}};
  ASSERT_TRUE(graph.status().ok()) << graph.status();
  Session session = MakeSession(graph, {.device = kCuda0});
  const Tensor good = Tensor::Of<int32_t>({2}, {0, 2}), bad = Tensor::Of<int32_t>({2}, {0, 3});
  // The first round is eager, later ones replay a captured graph.
  for (int round = 0; round < 3; ++round) {
    const std::vector<double> before = session.GetVariable("w")->ToDoubles();
    const absl::Status failed = session.Run({{label, bad}}, {loss, step}).status();
    EXPECT_EQ(failed.code(), absl::StatusCode::kOutOfRange);
    EXPECT_THAT(failed.message(), HasSubstr("SparseSoftmaxCrossEntropy"));
    EXPECT_EQ(session.GetVariable("w")->ToDoubles(), before);
    EXPECT_EQ(session.GetVariable("counter")->ToDouble(), round);
    RunAll(session, {{label, good}}, {loss, step});
    EXPECT_NE(session.GetVariable("w")->ToDoubles(), before);
    EXPECT_EQ(session.GetVariable("counter")->ToDouble(), round + 1);
  }
}

// Every call fails once, at each place where it is made.
TEST_F(CudaFailures, SurvivesTheFailureOfAnyCall) {
  GRADWEAVE_NEEDS_EMULATION();
  const SmallStep small;
  Session cpu = MakeSession(small.graph, {});
  // Losses of the first runs.
  std::vector<double> losses;
  for (int i = 0; i < 5; ++i) losses.push_back((*small.Run(cpu))[0].ToDouble());
  int failures = 0;
  for (const char* call :
       {"DeviceCount", "SetDevice", "CreateStream", "Allocate", "AllocatePinned", "CreateEvent", "CopyAsync", "Launch",
        "Gemm", "RecordEvent", "WaitEvent", "Synchronize", "BeginCapture", "EndCapture", "LaunchGraph"}) {
    for (int n = 1;; ++n) {
      SCOPED_TRACE(absl::StrCat(call, " number ", n));
      Emulate({});
      bool failed = false;
      {
        api_->FailCall(call, n, absl::InternalError("injected"));
        absl::StatusOr<Session> session = Session::Create(small.graph, {.device = kCuda0, .threads = 1});
        if (!session.ok()) {
          EXPECT_THAT(session.status().message(), HasSubstr("injected"));
          failed = true;
        } else {
          for (size_t run = 0, done = 0; run < 4 && !failed; ++run) {
            absl::StatusOr<std::vector<Tensor>> results = small.Run(*session);
            if (!results.ok()) {
              EXPECT_THAT(results.status().message(), HasSubstr("injected"));
              failed = true;
              // The step has a fallible kernel, so new values are committed all together or not at
              // all.
              results = small.Run(*session);
              ASSERT_TRUE(results.ok()) << results.status();
            }
            const double loss = (*results)[0].ToDouble();
            // A failure of the last wait, after the commit, leaves the new values.
            const bool as_before = std::abs(loss - losses[done]) < kTolerance;
            EXPECT_TRUE(as_before || (failed && std::abs(loss - losses[done + 1]) < kTolerance)) << loss;
            ++done;
          }
        }
      }
      EXPECT_EQ(api_->allocated_bytes(), 0u);
      if (api_->HasFailuresAhead()) break;
      // A failed capture falls back to an eager run.
      if (failed) ++failures;
    }
  }
  EXPECT_GT(failures, 50);
}

// A tool that watches the program, or a library call that cannot be recorded, can prevent captures.
TEST_F(CudaFailures, RunsWithoutGraphsWhereNoneCanBeCaptured) {
  GRADWEAVE_NEEDS_EMULATION();
  const SmallStep small;
  Session cpu = MakeSession(small.graph, {}), session = MakeSession(small.graph, {.device = kCuda0, .threads = 1});
  api_->FailCall("EndCapture", 1, absl::InternalError("no such luck"));
  ::testing::internal::CaptureStderr();
  for (int run = 0; run < 5; ++run) {
    const absl::StatusOr<std::vector<Tensor>> results = small.Run(session);
    ASSERT_TRUE(results.ok()) << results.status();
    EXPECT_NEAR((*results)[0].ToDouble(), (*small.Run(cpu))[0].ToDouble(), kTolerance);
  }
  EXPECT_EQ(::testing::internal::GetCapturedStderr(),
            "gradweave: a plan is launched kernel by kernel, which may be slower, for it could not be captured into a "
            "CUDA graph: no such luck\n");
  EXPECT_EQ(api_->CountCalls("BeginCapture"), 1);
  EXPECT_EQ(api_->CountCalls("LaunchGraph"), 0);
  EXPECT_TRUE(session.ProfileRun(small.Feeds(), {small.loss, small.step}).ok());
}

// A device that fails both during and after a capture does not cause a message about captures.
TEST_F(CudaFailures, TellOfACaptureOnlyWhereRunsGoOnWithout) {
  GRADWEAVE_NEEDS_EMULATION();
  const SmallStep small;
  Session session = MakeSession(small.graph, {.device = kCuda0, .threads = 1});
  ASSERT_TRUE(small.Run(session).ok());
  api_->FailCall("EndCapture", 1, absl::InternalError("refused"));
  api_->FailCall("Synchronize", 1, absl::InternalError("injected"));
  ::testing::internal::CaptureStderr();
  EXPECT_FALSE(small.Run(session).ok());
  EXPECT_EQ(::testing::internal::GetCapturedStderr(), "");
  ::testing::internal::CaptureStderr();
  EXPECT_TRUE(small.Run(session).ok());
  EXPECT_THAT(::testing::internal::GetCapturedStderr(), HasSubstr("could not be captured into a CUDA graph: refused"));
}

// After a fault in a kernel every call of the process fails. Sessions report it, and end.
TEST_F(CudaFailures, OutliveAFaultThatStaysWithTheProcess) {
  GRADWEAVE_NEEDS_EMULATION();
  const SmallStep small;
  for (int runs_before : {0, 1, 3}) {
    Emulate({});
    Session session = MakeSession(small.graph, {.device = kCuda0, .threads = 1});
    for (int i = 0; i < runs_before; ++i) ASSERT_TRUE(small.Run(session).ok());
    api_->Break(absl::InternalError("an illegal memory access was encountered"));
    for (int i = 0; i < 2; ++i) {
      const absl::Status status = small.Run(session).status();
      EXPECT_EQ(status.code(), absl::StatusCode::kInternal);
      EXPECT_THAT(status.message(), HasSubstr("illegal memory access"));
    }
    const absl::Status created = Session::Create(small.graph, {.device = kCuda0}).status();
    EXPECT_THAT(created.message(), HasSubstr("illegal memory access"));
  }
}

TEST_F(CudaFailures, TellsWhichMemoryRanOut) {
  GRADWEAVE_NEEDS_EMULATION();
  const SmallStep small;
  Session session = MakeSession(small.graph, {.device = kCuda0, .threads = 1});
  for (int n = 1; n <= 8; ++n) api_->FailCall("AllocatePinned", n, absl::ResourceExhaustedError("no more pages"));
  const absl::Status status = small.Run(session).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kResourceExhausted);
  EXPECT_THAT(status.message(), HasSubstr("the host has too little memory that it can pin"));
  EXPECT_THAT(status.message(), HasSubstr("no more pages"));
  EXPECT_THAT(status.message(), ::testing::Not(HasSubstr("at the peak")));
  api_->ForgetFailures();
  EXPECT_TRUE(small.Run(session).ok());
}

TEST_F(CudaFailures, TellsWhatDoesNotFitInItsMemory) {
  const LeNet lenet;
  Session limited = MakeSession(lenet.graph, {.device = kCuda0, .cuda = {.device_memory_limit = 600'000}});
  absl::Status status = limited.Run(lenet.Feeds(0), {lenet.loss, lenet.step}).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kResourceExhausted);
  for (const char* part : {"the memory of cuda:", "at the peak", "the largest values are", "float32[400,120]",
                           "device_memory_limit, 600000 bytes", "a smaller batch"}) {
    EXPECT_THAT(status.message(), HasSubstr(part));
  }
  EXPECT_EQ(Session::Create(lenet.graph, {.cuda = {.device_memory_limit = -1}}).status().code(),
            absl::StatusCode::kInvalidArgument);
  // Values that fit are still usable.
  EXPECT_TRUE(limited.GetVariable("dense_3/bias").ok());
  if (api_ == nullptr) return;

  Emulate({.memory_bytes = 600'000});
  Session small = MakeSession(lenet.graph, {.device = kCuda0});
  status = small.Run(lenet.Feeds(0), {lenet.loss, lenet.step}).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kResourceExhausted);
  EXPECT_THAT(status.message(), HasSubstr("of 600000 are free"));
  EXPECT_TRUE(small.GetVariable("dense_3/bias").ok());
}

// Workspaces of products count as memory, and the plan uses fewer streams if there is no room for
// them.
TEST_F(CudaFailures, WorkspacesOfProductsAreMemoryToo) {
  GRADWEAVE_NEEDS_EMULATION();
  Graph graph;
  Scope scope(graph);
  const Value x = scope.Input("x", kFloat32, {16, 16});
  const Value y = Sum(MatMul(Exp(x), x) + MatMul(Sin(x), x) + MatMul(Cos(x), x));
  Tensor feed(kFloat32, {16, 16});
  for (int64_t i = 0; i < feed.num_elements(); ++i) feed.mutable_data<float>()[i] = 0.01f * static_cast<float>(i % 19);
  auto streams = [&](Session& session) {
    const std::string plan = *session.DescribePlan({{x, feed}}, {y});
    return std::stoi(plan.substr(plan.find("captured yet; ") + 14));
  };
  std::vector<double> want;
  int64_t bytes = 0;
  {
    Session one = MakeSession(graph, {.device = kCuda0, .cuda = {.streams = 1}});
    want = RunAll(one, {{x, feed}}, {y})[0].ToDoubles();
    bytes = static_cast<int64_t>(api_->allocated_bytes());
    EXPECT_GT(bytes, static_cast<int64_t>(kWorkspaceBytes));
  }
  const int64_t workspace = kWorkspaceBytes;
  for (int expected : {1, 2, 3}) {
    // One more stream does not fit.
    const int64_t limit = bytes + expected * workspace - 1;
    Session session = MakeSession(graph, {.device = kCuda0, .cuda = {.device_memory_limit = limit}});
    EXPECT_EQ(streams(session), expected);
    EXPECT_EQ(RunAll(session, {{x, feed}}, {y})[0].ToDoubles(), want);
    EXPECT_LE(static_cast<int64_t>(api_->allocated_bytes()), limit);
    EXPECT_GE(static_cast<int64_t>(api_->allocated_bytes()), bytes + (expected - 1) * workspace);
  }
  EXPECT_EQ(api_->allocated_bytes(), 0u);
  Session tight = MakeSession(graph, {.device = kCuda0, .cuda = {.device_memory_limit = bytes - workspace / 2}});
  const absl::Status status = tight.Run({{x, feed}}, {y}).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kResourceExhausted);
  for (const char* part : {"the workspaces of matrix products 4096", "device_memory_limit"}) {
    EXPECT_THAT(status.message(), HasSubstr(part));
  }
  EXPECT_EQ(api_->allocated_bytes(), 0u);
}

TEST_F(CudaFailures, KeepsToItsMemoryBudget) {
  Graph graph;
  Scope scope(graph);
  const Value x = scope.Input("x", kFloat32, {32, 64});
  Value y = x;
  for (int i = 0; i < 12; ++i) y = Sigmoid(MatMul(y, Transpose(y, {1, 0})) * 0.01) - 0.25;
  const Value gradient = Gradients({Mean(Square(y))}, {x})[0];
  ASSERT_TRUE(graph.status().ok()) << graph.status();
  Tensor feed(kFloat32, {32, 64});
  for (int64_t i = 0; i < feed.num_elements(); ++i) feed.mutable_data<float>()[i] = 0.01f * static_cast<float>(i % 97);
  Session free = MakeSession(graph, {.device = kCuda0});
  auto peak = [&](Session& session) {
    const std::string plan = *session.DescribePlan({{x, feed}}, {gradient});
    return std::stoll(plan.substr(plan.find("planned peak ") + 13));
  };
  const int64_t budget = peak(free) * 3 / 4;
  Session tight = MakeSession(graph, {.device = kCuda0, .memory_budget = budget});
  EXPECT_LE(peak(tight), budget);
  const std::vector<double> want = RunAll(free, {{x, feed}}, {gradient})[0].ToDoubles();
  EXPECT_EQ(RunAll(tight, {{x, feed}}, {gradient})[0].ToDoubles(), want);
  if (api_ == nullptr) return;

  // The result is the same if the device, or the session's limit, is small.
  const int64_t rest = static_cast<int64_t>(api_->allocated_bytes()) - peak(free) - peak(tight);
  const int64_t room = budget + rest / 2;
  Session limited = MakeSession(graph, {.device = kCuda0, .cuda = {.device_memory_limit = room}});
  EXPECT_EQ(RunAll(limited, {{x, feed}}, {gradient})[0].ToDoubles(), want);
  EXPECT_LE(peak(limited), budget);
  Emulate({.memory_bytes = static_cast<size_t>(room)});
  Session small = MakeSession(graph, {.device = kCuda0});
  EXPECT_EQ(RunAll(small, {{x, feed}}, {gradient})[0].ToDoubles(), want);
  EXPECT_LE(peak(small), budget);
  // The result is the same if memory is sufficient but fragmented.
  Emulate({});
  for (int n : {1, 2}) api_->FailCall("Allocate", n, absl::ResourceExhaustedError("in pieces"));
  Session pieces = MakeSession(graph, {.device = kCuda0});
  EXPECT_EQ(RunAll(pieces, {{x, feed}}, {gradient})[0].ToDoubles(), want);
  EXPECT_LE(peak(pieces), budget);
}

// The driver takes memory when a kernel first runs, and rounds allocations up. A plan leaves room
// for both: it is computed in less memory instead of dying at its first launch.
TEST_F(CudaFailures, PlansLeaveRoomForTheDriver) {
  GRADWEAVE_NEEDS_EMULATION();
  Graph graph;
  Scope scope(graph);
  const Value x = scope.Input("x", kFloat32, {256, 256});
  Value y = x;
  for (int i = 0; i < 12; ++i) y = Sigmoid(MatMul(y, Transpose(y, {1, 0})) * 0.01) - 0.25;
  const Value gradient = Gradients({Mean(Square(y))}, {x})[0];
  ASSERT_TRUE(graph.status().ok()) << graph.status();
  Tensor feed(kFloat32, {256, 256});
  for (int64_t i = 0; i < feed.num_elements(); ++i) feed.mutable_data<float>()[i] = 0.01f * static_cast<float>(i % 97);
  size_t all = 0;
  std::vector<double> want;
  {
    Session session = MakeSession(graph, {.device = kCuda0});
    want = RunAll(session, {{x, feed}}, {gradient})[0].ToDoubles();
    all = api_->allocated_bytes();
  }
  constexpr size_t kUnit = 1 << 16, kCode = 1 << 20;
  // From a device that the plan fills to one that has room for it and the driver.
  std::vector<size_t> memories = {all, all + kUnit};
  for (size_t halves = 0; halves <= 16; ++halves) memories.push_back(all + kCode + halves * kUnit / 2);
  for (const size_t memory : memories) {
    SCOPED_TRACE(absl::StrCat(memory, " bytes, of which the plan takes ", all));
    Emulate({.memory_bytes = memory, .allocation_unit = kUnit, .first_launch_bytes = kCode});
    CudaPlatform platform = EmulatedPlatform(*api_, kWorkspaceBytes);
    platform.allocation_unit = kUnit;
    platform.reserved_bytes = kCode;
    SetCudaPlatformForTest(platform);
    Session session = MakeSession(graph, {.device = kCuda0});
    EXPECT_EQ(RunAll(session, {{x, feed}}, {gradient})[0].ToDoubles(), want);
  }
}

// Variables that a plan updates in place, copies at the end, and holds on the CPU, with or without
// a fallible kernel on the device.
struct ManyVariables {
  Graph graph;
  Value x, row;
  Update step;

  ManyVariables(bool on_both_devices, bool fallible) {
    Scope scope(graph);
    x = scope.Input("x", kFloat32, {4});
    row = scope.Input("row", kInt32, {4});
    auto variable = [&](const char* name, float value) {
      return scope.Variable(name, scope.Constant(Tensor::Of<float>({4}, std::vector<float>(4, value))));
    };
    const Value in_place = variable("in_place", 1), other = variable("other", 2);
    const Value left = variable("left", 3), right = variable("right", 4);
    step.assignments = {Assign(in_place, in_place + (fallible ? Gather(x, row) : x)), Assign(other, other * 2),
                        Assign(left, right), Assign(right, left + x)};
    if (on_both_devices) {
      scope.SetDevice("cpu");
      const Value on_cpu = variable("on_cpu", 5), copied = variable("copied", 6);
      step.assignments.push_back(Assign(on_cpu, on_cpu + x * 2));
      step.assignments.push_back(Assign(copied, on_cpu));
    }
    EXPECT_TRUE(graph.status().ok()) << graph.status();
  }

  absl::Status Run(Session& session) const {
    std::vector<Feed> feeds = {{x, Tensor::Of<float>({4}, {1, 2, 3, 4})},
                               {row, Tensor::Of<int32_t>({4}, {3, 2, 1, 0})}};
    return session.Run(feeds, {step}).status();
  }
};

// Reads the variables of a session and retries failures. An empty value means that the variable is
// lost.
std::vector<std::vector<double>> ReadVariables(const Session& session) {
  std::vector<std::vector<double>> values;
  for (const std::string& name : session.VariableNames()) {
    absl::StatusOr<Tensor> value = session.GetVariable(name);
    for (int i = 0; i < 10 && !value.ok() && value.status().code() != absl::StatusCode::kDataLoss; ++i) {
      value = session.GetVariable(name);
    }
    EXPECT_TRUE(value.ok() || value.status().code() == absl::StatusCode::kDataLoss) << value.status();
    values.push_back(value.ok() ? value->ToDoubles() : std::vector<double>());
  }
  return values;
}

// Every call of each of the first runs fails, once or several times in a row. Wherever variables
// were before, all of them must end up as before the run, or all as after it.
void CheckVariablesStayTogether(const ManyVariables& many, bool read_one, int times) {
  Session cpu = MakeSession(many.graph, {.threads = 1});
  std::vector<std::vector<std::vector<double>>> expected = {ReadVariables(cpu)};
  for (int i = 0; i < 4; ++i) {
    ASSERT_TRUE(many.Run(cpu).ok());
    expected.push_back(ReadVariables(cpu));
  }
  int failures = 0, after = 0, lost = 0;
  for (const char* call : {"SetDevice", "CopyAsync", "Launch", "RecordEvent", "WaitEvent", "Synchronize",
                           "BeginCapture", "EndCapture", "LaunchGraph"}) {
    for (int run = 0; run < 3; ++run) {
      for (int n = 1;; ++n) {
        SCOPED_TRACE(absl::StrCat(call, " number ", n, " of run ", run));
        EmulatedCudaApi api;
        SetCudaPlatformForTest(EmulatedPlatform(api, 0));
        Session session = MakeSession(many.graph, {.device = kCuda0, .threads = 1});
        for (int i = 0; i < run; ++i) ASSERT_TRUE(many.Run(session).ok());
        if (read_one) {
          ASSERT_TRUE(session.GetVariable("other").ok());
        }
        for (int i = 0; i < times; ++i) api.FailCall(call, n + i, absl::InternalError("injected"));
        const absl::Status status = many.Run(session);
        if (status.ok()) {
          EXPECT_EQ(ReadVariables(session), expected[run + 1]);
          if (api.HasFailuresAhead()) break;
          continue;  // The failure was in a capture, and the run went on without it.
        }
        EXPECT_THAT(status.message(), HasSubstr("injected"));
        ++failures;
        const std::vector<std::vector<double>> values = ReadVariables(session);
        bool is_before = true, is_after = true;
        for (size_t i = 0; i < values.size(); ++i) {
          if (values[i].empty()) {
            ++lost;
            EXPECT_THAT(status.message(), HasSubstr("are lost"));
            const std::vector<float> value(expected[run][i].begin(), expected[run][i].end());
            ASSERT_TRUE(session.SetVariable(session.VariableNames()[i], Tensor::Of<float>({4}, value)).ok());
            continue;
          }
          is_before = is_before && values[i] == expected[run][i];
          is_after = is_after && values[i] == expected[run + 1][i];
        }
        EXPECT_TRUE(is_before || is_after);
        // If all variables are lost, both are true, and the test has restored the old values.
        is_after = is_after && !is_before;
        EXPECT_EQ(is_after, absl::StrContains(status.message(), "variables have new values"));
        after += is_after ? 1 : 0;
        // The failure leaves no trace.
        api.ForgetFailures();
        ASSERT_TRUE(many.Run(session).ok());
        EXPECT_EQ(ReadVariables(session), expected[run + (is_after ? 2 : 1)]);
      }
    }
  }
  EXPECT_GT(failures, 15);
  // If the wait behind the last graph fails once, the outcome can still be determined; if it fails
  // twice, it cannot.
  EXPECT_EQ(after > 0, times == 1);
  EXPECT_EQ(lost > 0, times > 1);
  SetCudaPlatformForTest(std::nullopt);
}

TEST_F(CudaFailures, LeaveVariablesTogether) {
  GRADWEAVE_NEEDS_EMULATION();
  for (bool on_both_devices : {false, true}) {
    for (bool fallible : {false, true}) {
      for (bool read_one : {false, true}) {
        for (int times : {1, 3}) {
          SCOPED_TRACE(absl::StrCat(on_both_devices ? "both devices, " : "", fallible ? "fallible, " : "",
                                    read_one ? "one on the host, " : "", times, " times"));
          CheckVariablesStayTogether(ManyVariables(on_both_devices, fallible), read_one, times);
        }
      }
    }
  }
}

TEST_F(CudaFailures, AreToldOfTheOpThatMetTheBadData) {
  Graph graph;
  Scope scope(graph);
  const Value row = scope.Input("row", kInt32, {2});
  const Value table = scope.Constant(Tensor::Of<int32_t>({3}, {0, 1, 0}));
  const Value label = Gather(table, row);
  scope.SetDevice("cpu");
  const Value loss = SparseSoftmaxCrossEntropy(scope.Constant(Tensor(kFloat32, {2, 2})), label);
  ASSERT_TRUE(graph.status().ok()) << graph.status();
  Session session = MakeSession(graph, {.device = kCuda0, .threads = 1});
  for (int i = 0; i < 3; ++i) {
    // The CPU receives a label that no kernel has written.
    const absl::Status status = session.Run({{row, Tensor::Of<int32_t>({2}, {1, 3})}}, {loss}).status();
    EXPECT_EQ(status.code(), absl::StatusCode::kOutOfRange);
    EXPECT_THAT(status.message(), HasSubstr("in Gather"));
    EXPECT_TRUE(session.Run({{row, Tensor::Of<int32_t>({2}, {1, 2})}}, {loss}).ok());
  }
}

// A batch of any size, and two products with constants of 4 and 2.8 MB.
struct Batches {
  Graph graph;
  Value x, sum, other;
  Batches() {
    Scope scope(graph);
    x = scope.Input("x", kFloat32, {Dim("n"), 1000});
    sum = Sum(MatMul(x, scope.Constant(Tensor(kFloat32, {1000, 1000}))));
    other = Sum(MatMul(x, scope.Constant(Tensor(kFloat32, {1000, 700}))));
  }
  std::vector<Feed> Feeds(int64_t n) const { return {{x, Tensor(kFloat32, {n, 1000})}}; }
};

TEST_F(CudaFailures, PlansThatWaitGiveTheirMemoryUp) {
  GRADWEAVE_NEEDS_EMULATION();
  const Batches batches;
  int64_t limit = 1'000'000;
  {
    Session free = MakeSession(batches.graph, {.device = kCuda0});
    RunAll(free, batches.Feeds(100), {batches.sum});
    limit += static_cast<int64_t>(api_->allocated_bytes());
  }
  Session session = MakeSession(batches.graph, {.device = kCuda0, .cuda = {.device_memory_limit = limit}});
  for (int64_t n : {100, 99, 100, 98}) EXPECT_EQ(RunAll(session, batches.Feeds(n), {batches.sum})[0].ToDouble(), 0);
  // The constants of both products don't fit side by side.
  for (const Value& value : {batches.other, batches.sum, batches.other}) {
    EXPECT_EQ(RunAll(session, batches.Feeds(100), {value})[0].ToDouble(), 0);
  }
  EXPECT_LE(static_cast<int64_t>(api_->peak_bytes()), limit);
  // A prepared run keeps its memory.
  absl::StatusOr<std::unique_ptr<PreparedRun>> prepared = session.Prepare(batches.Feeds(100), {batches.sum});
  ASSERT_TRUE(prepared.ok()) << prepared.status();
  const absl::Status status = session.Run(batches.Feeds(97), {batches.other}).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kResourceExhausted);
  for (const char* part : {"at the peak", "the largest values are ", "float32[97,700]", "device_memory_limit"}) {
    EXPECT_THAT(status.message(), HasSubstr(part));
  }
  EXPECT_TRUE((*prepared)->Run().ok());
  prepared->reset();
  RunAll(session, batches.Feeds(97), {batches.other});
}

TEST_F(CudaFailures, VariablesThatWaitGiveTheirMemoryUp) {
  Graph graph;
  Scope scope(graph);
  const Value a = scope.Variable("a", scope.Constant(Tensor(kFloat32, {100'000})));
  const Value b = scope.Variable("b", scope.Constant(Tensor(kFloat32, {100'000})));
  const Update add_to_a{{Assign(a, a + 1)}}, add_to_b{{Assign(b, b + 2)}};
  Session session = MakeSession(graph, {.device = kCuda0, .cuda = {.device_memory_limit = 600'000}});
  for (int i = 1; i <= 3; ++i) {
    RunAll(session, {}, {add_to_a});
    RunAll(session, {}, {add_to_b});
    EXPECT_EQ(session.GetVariable("a")->ToDoubles()[99'999], i);
    EXPECT_EQ(session.GetVariable("b")->ToDoubles()[99'999], 2 * i);
  }
  // A table that leaves no room for the run is evicted.
  Graph tables;
  Scope scope_of_tables(tables);
  const Value x = scope_of_tables.Input("x", kFloat32, {Dim("n"), 1000});
  const Value y = Exp(x);
  Session reads = MakeSession(tables, {.device = kCuda0, .cuda = {.device_memory_limit = 450'000}});
  const size_t before = api_ == nullptr ? 0 : api_->allocated_bytes();
  EXPECT_EQ(reads.PrepareRows({{x, Tensor(kFloat32, {100, 1000})}}, 20, {y}).status().code(),
            absl::StatusCode::kResourceExhausted);
  if (api_ != nullptr) {
    EXPECT_EQ(api_->allocated_bytes(), before);
  }
}

}  // namespace
}  // namespace gradweave
