// Plans on several streams of the emulated CUDA device, which randomizes every order that streams
// and events leave open.
#include <algorithm>
#include <cmath>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "gmock/gmock.h"
#include "gradweave/gradweave.h"
#include "gtest/gtest.h"
#include "tests/cuda/session.h"

namespace gradweave {
namespace {

using ::testing::HasSubstr;
using ::testing::Not;

using CudaStreams = CudaSession;

// A training step and its feeds.
struct Training {
  std::string name;
  Graph graph;
  std::vector<Feed> feeds;
  Value loss;
  Update step;
};

Tensor Waves(const std::vector<int64_t>& sizes, double frequency) {
  Tensor tensor(kFloat32, sizes);
  for (int64_t i = 0; i < tensor.num_elements(); ++i)
    tensor.mutable_data<float>()[i] = static_cast<float>(std::sin(frequency * static_cast<double>(i)));
  return tensor;
}

Training LeNetTraining() {
  const LeNet lenet;
  return {"LeNet", lenet.graph, lenet.Feeds(0), lenet.loss, lenet.step};
}

Training ResidualNet() {
  Training training{.name = "a residual net"};
  Scope scope(training.graph);
  const Value image = scope.Input("image", kFloat32, {2, 2, 6, 6});
  const Value label = scope.Input("label", kInt32, {2});
  auto block = [] {
    return nn::Residual{
        nn::Sequential{nn::Conv2D{.channels = 3, .kernel = 3, .padding = 1, .bias = false}, nn::BatchNorm{}, nn::Relu{},
                       nn::Conv2D{.channels = 3, .kernel = 3, .padding = 1, .bias = false}, nn::BatchNorm{}}};
  };
  const nn::Sequential net{nn::Conv2D{.channels = 3, .kernel = 3, .padding = 1},
                           block(),
                           nn::Relu{},
                           block(),
                           nn::GlobalAvgPool{},
                           nn::Dense{3}};
  training.loss = nn::SoftmaxCrossEntropy(net(scope, image), label);
  training.step = optim::Sgd{.learning_rate = 0.1, .momentum = 0.9}.Minimize(training.loss);
  training.feeds = {{image, Waves({2, 2, 6, 6}, 0.7)}, {label, Tensor::Of<int32_t>({2}, {0, 2})}};
  EXPECT_TRUE(training.graph.status().ok()) << training.graph.status();
  return training;
}

// Pre-norm blocks with an embedding, whose row indices may be bad.
Training Transformer() {
  Training training{.name = "a transformer"};
  Scope scope(training.graph);
  const Value token = scope.Input("token", kInt32, {2, 5});
  const Value label = scope.Input("label", kInt32, {2});
  int made = 0;
  auto weight = [&](int64_t rows, int64_t columns) {
    ++made;
    return scope.Variable(absl::StrCat("weight_", made), scope.Constant(Waves({rows, columns}, 0.3 + 0.1 * made)));
  };
  Value h = Gather(weight(7, 8), token);
  const nn::Sequential norm{nn::LayerNorm{}};
  for (int block = 0; block < 2; ++block) {
    const Value normal = norm(scope, h);
    const Value query = MatMul(normal, weight(8, 8)), key = MatMul(normal, weight(8, 8));
    const Value value = Tanh(MatMul(normal, weight(8, 8)));
    const Value attention = Softmax(MatMul(query, key, {.transpose_b = true}) / std::sqrt(8.0));
    h = h + MatMul(MatMul(attention, value), weight(8, 8));
    h = h + MatMul(Gelu(MatMul(norm(scope, h), weight(8, 16))), weight(16, 8));
  }
  training.loss = Mean(SparseSoftmaxCrossEntropy(MatMul(Mean(h, {.axes = {1}}), weight(8, 3)), label));
  training.step = optim::Adam{.learning_rate = 0.01}.Minimize(training.loss);
  training.feeds = {{token, Tensor::Of<int32_t>({2, 5}, {0, 1, 2, 3, 6, 5, 4, 3, 2, 2})},
                    {label, Tensor::Of<int32_t>({2}, {0, 2})}};
  EXPECT_TRUE(training.graph.status().ok()) << training.graph.status();
  return training;
}

// Two independent branches of several products each.
Training TwoBranches() {
  Training training{.name = "two branches"};
  Scope scope(training.graph);
  const Value x = scope.Input("x", kFloat32, {4, 4});
  const Value w = scope.Variable("w", scope.Constant(Waves({4, 4}, 0.4)) * 0.5);
  Value left = MatMul(x, w), right = MatMul(w, x);
  for (int i = 0; i < 3; ++i) {
    left = MatMul(left, w);
    right = MatMul(w, right);
  }
  training.loss = Sum(MatMul(left, right));
  training.step.assignments = {Assign(w, w - 0.001 * (left - right))};
  training.feeds = {{x, Waves({4, 4}, 0.9)}};
  EXPECT_TRUE(training.graph.status().ok()) << training.graph.status();
  return training;
}

Session Open(const Training& training, SessionOptions options) {
  options.device = kCuda0;
  options.threads = 1;
  return MakeSession(training.graph, std::move(options));
}

std::string PlanOf(const Training& training, Session& session) {
  const absl::StatusOr<std::string> plan = session.DescribePlan(training.feeds, {training.loss, training.step});
  EXPECT_TRUE(plan.ok()) << plan.status();
  return plan.ok() ? *plan : "";
}

// Returns a number in the plan's text, given the text before or behind it.
int64_t NumberBefore(const std::string& plan, const std::string& text) {
  size_t end = plan.find(text);
  EXPECT_NE(end, std::string::npos) << text;
  size_t begin = end;
  while (begin > 0 && plan[begin - 1] >= '0' && plan[begin - 1] <= '9') --begin;
  return std::stoll(plan.substr(begin, end - begin));
}
int64_t Peak(const std::string& plan) { return NumberBefore(plan, " bytes, lower bound"); }
int64_t LowerBound(const std::string& plan) {
  const std::string text = "lower bound ";
  return std::stoll(plan.substr(plan.find(text) + text.size()));
}

// Returns the losses of `steps` steps, then the variables. If a run fails, returns an empty list
// and the error.
std::pair<std::vector<std::vector<double>>, absl::Status> Train(const Training& training, Session& session, int steps) {
  std::vector<std::vector<double>> values;
  for (int i = 0; i < steps; ++i) {
    absl::StatusOr<std::vector<Tensor>> results = session.Run(training.feeds, {training.loss, training.step});
    if (!results.ok()) return {{}, results.status()};
    values.push_back((*results)[0].ToDoubles());
  }
  for (const std::string& name : session.VariableNames()) {
    absl::StatusOr<Tensor> value = session.GetVariable(name);
    if (!value.ok()) return {{}, value.status()};
    values.push_back(value->ToDoubles());
  }
  return {values, absl::OkStatus()};
}

TEST_F(CudaStreams, BranchesTakeTwoAndAChainOne) {
  const Training branches = TwoBranches();
  Session session = Open(branches, {});
  EXPECT_THAT(PlanOf(branches, session), HasSubstr("; 2 streams with "));
  Session one_by_one = Open(branches, {.cuda = {.streams = 1}});
  EXPECT_THAT(PlanOf(branches, one_by_one), HasSubstr("; 1 streams with 0 waits"));

  Training chain;
  Scope scope(chain.graph);
  const Value x = scope.Input("x", kFloat32, {4, 4});
  Value y = x;
  for (int i = 0; i < 5; ++i) y = MatMul(y, x);
  chain.loss = y;
  chain.step.may_be_empty = true;  // Inference.
  chain.feeds = {{x, Waves({4, 4}, 0.9)}};
  Session in_order = Open(chain, {});
  EXPECT_THAT(PlanOf(chain, in_order), HasSubstr("; 1 streams with 0 waits"));
}

// The first run is eager, the second captures, and later runs replay in other orders.
// A GPU has one order of its own.
TEST_F(CudaStreams, GiveTheBitsOfOneStreamInAnyOrder) {
  for (const Training& training : {LeNetTraining(), ResidualNet(), Transformer(), TwoBranches()}) {
    SCOPED_TRACE(training.name);
    Session one = Open(training, {.cuda = {.streams = 1}});
    const auto [want, error] = Train(training, one, 5);
    ASSERT_TRUE(error.ok()) << error;
    for (uint64_t seed : Seeds(3)) {
      if (api_ != nullptr) Emulate({.seed = seed});
      for (int streams : {2, 4}) {
        SCOPED_TRACE(absl::StrCat(streams, " streams, seed ", seed));
        Session several = Open(training, {.cuda = {.streams = streams}});
        EXPECT_GT(NumberBefore(PlanOf(training, several), " streams with"), 1);
        const auto [got, status] = Train(training, several, 5);
        ASSERT_TRUE(status.ok()) << status;
        EXPECT_EQ(got, want);
      }
      // With only the memory of a serial order, branches wait before they reuse it.
      Session tight = Open(training, {.memory_budget = Peak(PlanOf(training, one))});
      const auto [got, status] = Train(training, tight, 5);
      ASSERT_TRUE(status.ok()) << status;
      EXPECT_EQ(got, want);
    }
  }
}

// If any wait is missing from a graph, results are wrong or the capture fails. So the emulated
// orders are strict enough, and no wait is superfluous.
TEST_F(CudaStreams, AForgottenWaitShows) {
  GRADWEAVE_NEEDS_EMULATION();
  const Training training = TwoBranches();
  Session one = Open(training, {.cuda = {.streams = 1}});
  const auto [want, error] = Train(training, one, 20);
  ASSERT_TRUE(error.ok()) << error;
  for (double element : want.back()) ASSERT_TRUE(std::isfinite(element));
  const int64_t budget = Peak(PlanOf(training, one));
  for (int64_t memory_budget : {int64_t{0}, budget}) {
    Emulate({});
    Session several = Open(training, {.memory_budget = memory_budget});
    const int waits = static_cast<int>(NumberBefore(PlanOf(training, several), " waits between"));
    ASSERT_GE(waits, 2);
    for (int n = 1; n <= waits; ++n) {
      SCOPED_TRACE(absl::StrCat("wait ", n, " of ", waits, ", budget ", memory_budget));
      bool shows = false;
      for (uint64_t seed = 1; seed <= 10 && !shows; ++seed) {
        Emulate({.seed = seed});
        Session forgetful = Open(training, {.memory_budget = memory_budget});
        // The first run is eager; the second, which is captured, lacks the wait.
        ASSERT_TRUE(forgetful.Run(training.feeds, {training.loss, training.step}).ok());
        api_->DropWait(n);
        const auto [got, status] = Train(training, forgetful, 19);
        shows = !status.ok() || got.back() != want.back() || api_->CountCalls("LaunchGraph") == 0;
      }
      EXPECT_TRUE(shows);
    }
  }
}

// If both branches meet bad data, the error names the same node in every order.
TEST_F(CudaStreams, NameTheSameNodeOfSeveralThatMeetBadData) {
  Training training;
  Scope scope(training.graph);
  const Value row = scope.Input("row", kInt32, {2});
  const Value left = Gather(scope.Constant(Waves({3, 4}, 0.5)), row);
  const Value right = Gather(scope.Constant(Waves({3, 4}, 0.7)), row);
  training.loss = Sum(MatMul(left, right, {.transpose_b = true}));
  training.feeds = {{row, Tensor::Of<int32_t>({2}, {1, 3})}};
  Session one = Open(training, {.cuda = {.streams = 1}});
  const absl::Status want = one.Run(training.feeds, {training.loss}).status();
  EXPECT_EQ(want.code(), absl::StatusCode::kOutOfRange);
  for (uint64_t seed : Seeds(10)) {
    if (api_ != nullptr) Emulate({.seed = seed});
    Session several = Open(training, {});
    for (int run = 0; run < 3; ++run) EXPECT_EQ(several.Run(training.feeds, {training.loss}).status(), want);
  }
}

TEST_F(CudaStreams, KeepToTheMemoryThatThereIs) {
  for (const Training& training : {ResidualNet(), Transformer(), TwoBranches()}) {
    SCOPED_TRACE(training.name);
    Session one = Open(training, {.cuda = {.streams = 1}}), several = Open(training, {});
    const std::string in_order = PlanOf(training, one), beside = PlanOf(training, several);
    EXPECT_GT(Peak(beside), Peak(in_order));
    EXPECT_EQ(LowerBound(beside), LowerBound(in_order));
    for (int64_t budget : {Peak(in_order), (Peak(in_order) + Peak(beside)) / 2}) {
      Session limited = Open(training, {.memory_budget = budget});
      EXPECT_LE(Peak(PlanOf(training, limited)), budget);
    }
  }
}

TEST_F(CudaStreams, TellTheStreamOfEachStepAndItsTime) {
  const Training training = TwoBranches();
  Session session = Open(training, {});
  // An eager run, then a graph with timed events.
  for (int run = 0; run < 2; ++run) {
    const absl::StatusOr<Profile> profile = session.ProfileRun(training.feeds, {training.loss, training.step});
    ASSERT_TRUE(profile.ok()) << profile.status();
    EXPECT_THAT(profile->table, HasSubstr("cuda:0   0      gemm"));
    EXPECT_THAT(profile->table, HasSubstr("cuda:0   1      gemm"));
    EXPECT_THAT(profile->trace, HasSubstr("\"name\":\"cuda:0, stream 1\""));
    EXPECT_THAT(profile->trace, Not(HasSubstr("\"dur\":-")));
    if (api_ != nullptr) {
      EXPECT_EQ(CountCalls("BeginCapture"), run);
    }
  }
  EXPECT_EQ(session.Run(training.feeds, {training.loss, training.step}).status(), absl::OkStatus());
}

TEST_F(CudaStreams, SurviveTheFailureOfAnyCallBetweenThem) {
  GRADWEAVE_NEEDS_EMULATION();
  const Training training = TwoBranches();
  std::vector<std::vector<double>> want;  // The variable after that many steps.
  for (int steps = 0; steps < 5; ++steps) {
    Session one = Open(training, {.cuda = {.streams = 1}});
    want.push_back(Train(training, one, steps).first.back());
  }
  int failures = 0;
  for (const char* call : {"CreateStream", "CreateEvent", "RecordEvent", "WaitEvent", "EndCapture", "Synchronize"}) {
    for (int n = 1;; ++n) {
      SCOPED_TRACE(absl::StrCat(call, " number ", n));
      Emulate({.seed = static_cast<uint64_t>(n)});
      api_->FailCall(call, n, absl::InternalError("injected"));
      bool failed = false;
      absl::StatusOr<Session> session =
          Session::Create(training.graph, {.device = kCuda0, .threads = 1, .cuda = {.streams = 3}});
      failed = !session.ok();
      if (!session.ok()) {
        EXPECT_THAT(session.status().message(), HasSubstr("injected"));
      }
      for (int done = 0; session.ok() && done < 3; ++done) {
        absl::Status status = session->Run(training.feeds, {training.loss, training.step}).status();
        if (!status.ok()) {
          EXPECT_THAT(status.message(), HasSubstr("injected"));
          EXPECT_FALSE(failed);
          failed = true;
          // Variables are either all as before the run or all as after it.
          if (!absl::StrContains(status.message(), "variables have new values")) --done;
        }
        absl::StatusOr<Tensor> w = session->GetVariable("w");
        if (!w.ok()) {
          EXPECT_FALSE(failed);
          failed = true;
          w = session->GetVariable("w");
        }
        ASSERT_TRUE(w.ok()) << w.status();
        EXPECT_EQ(w->ToDoubles(), want[done + 1]);
      }
      if (api_->HasFailuresAhead()) break;
      // A failed capture falls back to an eager run.
      if (failed) ++failures;
    }
    EXPECT_EQ(api_->CountCalls("CreateEvent"), api_->CountCalls("DestroyEvent"));
  }
  EXPECT_GT(failures, 20);
}

TEST_F(CudaStreams, AreOneToEight) {
  GRADWEAVE_NEEDS_EMULATION();
  const Training training = TwoBranches();
  for (int streams : {0, -1, 9}) {
    const absl::Status status = Session::Create(training.graph, {.cuda = {.streams = streams}}).status();
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
    EXPECT_THAT(status.message(), HasSubstr("cuda.streams is "));
  }
  // All streams are created up front.
  Session session = Open(training, {.cuda = {.streams = 8}});
  EXPECT_EQ(api_->CountCalls("CreateStream"), 9);
  ASSERT_TRUE(Train(training, session, 3).second.ok());
  const int events = api_->CountCalls("CreateEvent");
  ASSERT_TRUE(Train(training, session, 3).second.ok());
  EXPECT_EQ(api_->CountCalls("CreateStream"), 9);
  EXPECT_EQ(api_->CountCalls("CreateEvent"), events);
}

}  // namespace
}  // namespace gradweave
