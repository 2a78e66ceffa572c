// RunOptions on the emulated CUDA device: a run stops where the host has a part in it, and
// variables of both sides are then as before.
#include <functional>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "gmock/gmock.h"
#include "gradweave/gradweave.h"
#include "gtest/gtest.h"
#include "tests/cuda/session.h"
#include "tests/session/watched_kernels.h"

namespace gradweave {
namespace {

using CudaCancellation = CudaSession;
using Clock = RunOptions::Clock;

// Watches the ops of this test's model.
void WatchModel() { WatchKernels({"Conv2D", "Conv2DFilterGrad", "Conv2DInputGrad", "Sigmoid", "AvgPool2D"}); }

Session MakeMixedSession(const LeNet& net) {
  return MakeSession(
      net.graph, {.device = kCuda0, .threads = 1, .batch_tiles = BatchTiles::kNever, .row_fusion = RowFusion::kNever});
}

std::vector<Tensor> Variables(const Session& session) {
  std::vector<Tensor> values;
  for (const std::string& name : session.VariableNames()) values.push_back(*session.GetVariable(name));
  return values;
}

void ExpectSame(const std::vector<Tensor>& a, const std::vector<Tensor>& b) {
  ASSERT_EQ(a.size(), b.size());
  for (size_t i = 0; i < a.size(); ++i) EXPECT_TRUE(SameBits(a[i], b[i])) << i;
}

TEST_F(CudaCancellation, StopsBehindAnyStepOfTheCpu) {
  WatchModel();
  const LeNet net("cpu:0", "");
  Session whole = MakeMixedSession(net), stopped = MakeMixedSession(net);
  // The first run enqueues kernels, and later ones replay CUDA graphs.
  for (int round = 0; round < 3; ++round) {
    SCOPED_TRACE(absl::StrCat("round ", round));
    Calls().count = 0;
    const std::vector<Tensor> expected = RunAll(whole, net.Feeds(round), {net.loss, net.step});
    const int kernels = Calls().count;
    ASSERT_GT(kernels, 3);
    const std::vector<Tensor> before = Variables(stopped);
    for (int last = 1; last <= kernels; ++last) {
      SCOPED_TRACE(absl::StrCat("kernel ", last));
      CancellationToken token;
      Calls().count = 0;
      Calls().after = [&](int call) {
        if (call == last) token.Cancel();
      };
      const absl::Status status =
          stopped.Run(net.Feeds(round), {net.loss, net.step}, {.cancellation = &token}).status();
      Calls().after = [](int) {};
      EXPECT_EQ(status.code(), absl::StatusCode::kCancelled) << status;
      EXPECT_EQ(Calls().count, last);
      ExpectSame(Variables(stopped), before);
    }
    ExpectSame(RunAll(stopped, net.Feeds(round), {net.loss, net.step}), expected);
    ExpectSame(Variables(stopped), Variables(whole));
  }
}

TEST_F(CudaCancellation, ALimitThatIsPastStopsARunBeforeItBegins) {
  const LeNet net;
  Session session = MakeSession(net.graph, {.device = kCuda0, .threads = 1});
  absl::StatusOr<std::unique_ptr<PreparedRun>> run = session.Prepare(net.Feeds(0), {net.loss, net.step});
  ASSERT_TRUE(run.ok()) << run.status();
  CancellationToken token;
  token.Cancel();
  for (int i = 0; i < 4; ++i) {
    SCOPED_TRACE(i);
    const std::vector<Tensor> before = Variables(session);
    EXPECT_EQ((*run)->Run({.cancellation = &token}).code(), absl::StatusCode::kCancelled);
    EXPECT_EQ((*run)->Start({.deadline = Clock::now()}).code(), absl::StatusCode::kDeadlineExceeded);
    EXPECT_EQ((*run)->Finish(), absl::OkStatus());
    ExpectSame(Variables(session), before);
    EXPECT_EQ((*run)->Run(), absl::OkStatus());
  }
  // Runs that were started before go on.
  Session other = MakeSession(net.graph, {.device = kCuda0, .threads = 1});
  for (int i = 0; i < 6; ++i) (void)RunAll(other, net.Feeds(0), {net.loss, net.step});
  EXPECT_EQ((*run)->Start(), absl::OkStatus());
  EXPECT_EQ((*run)->Start({.cancellation = &token}).code(), absl::StatusCode::kCancelled);
  EXPECT_EQ((*run)->Start(), absl::OkStatus());
  EXPECT_EQ((*run)->Finish(), absl::OkStatus());
  ExpectSame(Variables(session), Variables(other));
}

}  // namespace
}  // namespace gradweave
