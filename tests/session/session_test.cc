// Sessions: the results of runs, rejected arguments, and the state after a run.
#include "gradweave/runtime/session/session.h"

#include <cmath>

#include "gmock/gmock.h"
#include "gradweave/graph/passes/autodiff.h"
#include "gradweave/ops/conv.h"
#include "gradweave/ops/elementwise.h"
#include "gradweave/ops/indexing.h"
#include "gradweave/ops/matmul.h"
#include "gradweave/ops/pool.h"
#include "gradweave/ops/random.h"
#include "gradweave/ops/reduction.h"
#include "gradweave/ops/scope.h"
#include "gradweave/ops/shape_ops.h"
#include "gradweave/ops/softmax.h"
#include "gradweave/ops/state.h"
#include "gtest/gtest.h"

namespace gradweave {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

Tensor Vector(std::initializer_list<float> values) {
  return Tensor::Of<float>({static_cast<int64_t>(values.size())}, values);
}

std::vector<double> RunOne(Session& session, const std::vector<Feed>& feeds, Fetch fetch) {
  absl::StatusOr<std::vector<Tensor>> results = session.Run(feeds, {fetch});
  EXPECT_TRUE(results.ok()) << results.status();
  return results.ok() && !results->empty() ? (*results)[0].ToDoubles() : std::vector<double>();
}

TEST(Session, ComputesForTheSizesThatItIsFed) {
  Graph graph;
  Scope scope(graph);
  const Value x = scope.Input("x", kFloat32, {Dim("n")});
  const Value mean = Mean(x * 2);
  absl::StatusOr<Session> session = Session::Create(graph);
  ASSERT_TRUE(session.ok()) << session.status();
  EXPECT_THAT(RunOne(*session, {{x, Vector({1, 2, 3})}}, mean), ElementsAre(4));
  EXPECT_THAT(RunOne(*session, {{x, Vector({1, 2})}}, mean), ElementsAre(3));
}

TEST(Session, GradientOfAMeanOverASymbolicBatch) {
  Graph graph;
  Scope scope(graph);
  const Value x = scope.Input("x", kFloat32, {Dim("n")});
  const Value gradient = Gradients({Mean(Square(x))}, {x})[0];
  absl::StatusOr<Session> session = Session::Create(graph);
  ASSERT_TRUE(session.ok()) << session.status();
  EXPECT_THAT(RunOne(*session, {{x, Vector({1, 2, 3, 4})}}, gradient), ElementsAre(0.5, 1, 1.5, 2));
}

// Every read in a run returns the value before the run. A fetched Assign returns the new value.
TEST(Session, AssignmentsTakeEffectAtTheEndOfTheRun) {
  Graph graph;
  Scope scope(graph);
  const Value a = scope.Variable("a", scope.Constant(Vector({1})));
  const Value b = scope.Variable("b", scope.Constant(Vector({10})));
  const Value new_a = Assign(a, b);
  const Value new_b = Assign(b, a + b);
  const Value read = a * 1;
  absl::StatusOr<Session> session = Session::Create(graph);
  ASSERT_TRUE(session.ok()) << session.status();
  absl::StatusOr<std::vector<Tensor>> results = session->Run({}, {a, b, new_a, new_b, read});
  ASSERT_TRUE(results.ok()) << results.status();
  EXPECT_EQ((*results)[0].ToDouble(), 1);
  EXPECT_EQ((*results)[1].ToDouble(), 10);
  EXPECT_EQ((*results)[2].ToDouble(), 10);
  EXPECT_EQ((*results)[3].ToDouble(), 11);
  EXPECT_EQ((*results)[4].ToDouble(), 1);
  EXPECT_EQ(session->GetVariable("a")->ToDouble(), 10);
  EXPECT_EQ(session->GetVariable("b")->ToDouble(), 11);
}

TEST(Session, ExchangesTwoVariables) {
  Graph graph;
  Scope scope(graph);
  const Value a = scope.Variable("a", scope.Constant(Vector({1})));
  const Value b = scope.Variable("b", scope.Constant(Vector({2})));
  const Update exchange{{Assign(a, b), Assign(b, a)}};
  absl::StatusOr<Session> session = Session::Create(graph);
  ASSERT_TRUE(session->Run({}, {exchange}).ok());
  EXPECT_EQ(session->GetVariable("a")->ToDouble(), 2);
  EXPECT_EQ(session->GetVariable("b")->ToDouble(), 1);
}

TEST(Session, AFailedRunLeavesVariablesAsTheyWere) {
  Graph graph;
  Scope scope(graph);
  const Value label = scope.Input("label", kInt32, {1});
  const Value w = scope.Variable("w", scope.Constant(Tensor(kFloat32, {1, 3})));
  const Value counter = scope.Variable("counter", scope.Constant(Vector({0})));
  const Update step{
      {Assign(counter, counter + 1), Assign(w, w - Gradients({Sum(SparseSoftmaxCrossEntropy(w, label))}, {w})[0])}};
  absl::StatusOr<Session> session = Session::Create(graph);
  ASSERT_TRUE(session.ok()) << session.status();
  absl::StatusOr<std::vector<Tensor>> failed = session->Run({{label, Tensor::Of<int32_t>({1}, {3})}}, {step});
  EXPECT_EQ(failed.status().code(), absl::StatusCode::kOutOfRange);
  EXPECT_THAT(failed.status().message(), HasSubstr("label 3 at position 0 is outside [0, 3)"));
  EXPECT_EQ(session->GetVariable("counter")->ToDouble(), 0);
  EXPECT_THAT(session->GetVariable("w")->ToDoubles(), ElementsAre(0, 0, 0));
  EXPECT_TRUE(session->Run({{label, Tensor::Of<int32_t>({1}, {2})}}, {step}).ok());
  EXPECT_EQ(session->GetVariable("counter")->ToDouble(), 1);
}

TEST(Session, TellsWhatIsWrongWithFeeds) {
  Graph graph;
  Scope scope(graph);
  const Value x = scope.Input("x", kFloat32, {Dim("n"), 3});
  const Value y = scope.Input("y", kFloat32, {Dim("n")});
  const Value z = Sum(x) + Sum(y);
  absl::StatusOr<Session> session = Session::Create(graph);
  const Tensor good_x(kFloat32, {2, 3}), good_y(kFloat32, {2});
  auto error = [&](const std::vector<Feed>& feeds) { return std::string(session->Run(feeds, {z}).status().message()); };
  EXPECT_THAT(error({{x, good_x}}), HasSubstr("need input 'y', float32[n], and it is not fed"));
  EXPECT_THAT(error({{x, good_x}, {y, Tensor(kFloat32, {3})}}), HasSubstr("another input has size 2 for n"));
  EXPECT_THAT(error({{x, Tensor(kFloat32, {2, 4})}, {y, good_y}}), HasSubstr("axis 1 has to have size 3"));
  EXPECT_THAT(error({{x, Tensor(kFloat64, {2, 3})}, {y, good_y}}), HasSubstr("the dtype has to be float32"));
  EXPECT_THAT(error({{x, good_x}, {x, good_x}, {y, good_y}}), HasSubstr("'x' is fed twice"));
  EXPECT_THAT(error({{x, good_x}, {y, good_y}, {z, good_y}}), HasSubstr("only inputs are fed"));
  EXPECT_EQ(error({{x, good_x}, {y, good_y}}), "");
}

TEST(Session, RefusesTwoAssignmentsOfOneVariable) {
  Graph graph;
  Scope scope(graph);
  const Value a = scope.Variable("a", scope.Constant(Vector({1})));
  const Update both{{Assign(a, a + 1), Assign(a, a + 2)}};
  absl::StatusOr<Session> session = Session::Create(graph);
  EXPECT_THAT(std::string(session->Run({}, {both}).status().message()), HasSubstr("'a' is assigned twice"));
}

TEST(Session, NamesTheUsersLineOfABuilderMistake) {
  Graph graph;
  Scope scope(graph);
  const Value x = scope.Input("x", kFloat32, {2, 3});
  const Value w = scope.Input("w", kFloat32, {4, 5});
  const int line = __LINE__ + 1;
  const Value y = Relu(MatMul(x, w));
  EXPECT_FALSE(y.valid());
  const absl::Status status = Session::Create(graph).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(std::string(status.message()), HasSubstr("MatMul: a has 3 columns and b has 4 rows"));
  EXPECT_THAT(std::string(status.message()), HasSubstr("a: float32[2,3], b: float32[4,5]"));
  EXPECT_THAT(std::string(status.message()), HasSubstr("session_test.cc:" + std::to_string(line)));
}

// A chain of hidden layers. The gradient needs all their values.
struct DeepNetwork {
  Graph graph;
  Value x, loss, gradient;
  DeepNetwork() {
    Scope scope(graph);
    x = scope.Input("x", kFloat32, {Dim("n"), 64});
    Value y = x;
    for (int i = 0; i < 24; ++i) y = Sigmoid(y * 1.5 - 0.25);
    loss = Mean(Square(y));
    gradient = Gradients({loss}, {x})[0];
  }
};

int64_t PlannedPeak(const std::string& plan) {
  const size_t at = plan.find("planned peak ");
  return at == std::string::npos ? -1 : std::stoll(plan.substr(at + 13));
}

TEST(Session, StaysWithinAMemoryBudgetWithTheSameResults) {
  const DeepNetwork network;
  Tensor x(kFloat32, {32, 64});
  float value = -1;
  for (float& element : x.mutable_values<float>()) element = value += 0.001f;
  const std::vector<Feed> feeds = {{network.x, x}};
  // With tiles or fused rows, the values between the first and the last op need no memory of the
  // plan.
  const SessionOptions free = {.batch_tiles = BatchTiles::kNever, .row_fusion = RowFusion::kNever};
  SessionOptions tight = free;
  absl::StatusOr<Session> kept = Session::Create(network.graph, free);
  ASSERT_TRUE(kept.ok()) << kept.status();
  const int64_t peak = PlannedPeak(*kept->DescribePlan(feeds, {network.loss, network.gradient}));
  tight.memory_budget = peak / 2;
  absl::StatusOr<Session> computed_again = Session::Create(network.graph, tight);
  ASSERT_TRUE(computed_again.ok()) << computed_again.status();
  const absl::StatusOr<std::string> plan = computed_again->DescribePlan(feeds, {network.loss, network.gradient});
  ASSERT_TRUE(plan.ok()) << plan.status();
  EXPECT_LE(PlannedPeak(*plan), tight.memory_budget);
  EXPECT_EQ(RunOne(*kept, feeds, network.gradient), RunOne(*computed_again, feeds, network.gradient));
}

TEST(Session, SaysWhatAPlanTakesWhereTheBudgetIsTooSmall) {
  const DeepNetwork network;
  absl::StatusOr<Session> session =
      Session::Create(network.graph, {.batch_tiles = BatchTiles::kNever, .memory_budget = 100});
  ASSERT_TRUE(session.ok()) << session.status();
  const absl::Status status = session->Run({{network.x, Tensor(kFloat32, {32, 64})}}, {network.gradient}).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kResourceExhausted);
  EXPECT_THAT(status.message(), HasSubstr("memory_budget is 100"));
  EXPECT_EQ(Session::Create(network.graph, {.memory_budget = -1}).status().code(), absl::StatusCode::kInvalidArgument);
}

TEST(Session, ProfilesARun) {
  const DeepNetwork network;
  for (BatchTiles tiles : {BatchTiles::kNever, BatchTiles::kAlways}) {
    absl::StatusOr<Session> session = Session::Create(network.graph, {.threads = 2, .batch_tiles = tiles});
    ASSERT_TRUE(session.ok()) << session.status();
    absl::StatusOr<Profile> profile =
        session->ProfileRun({{network.x, Tensor(kFloat32, {64, 64})}}, {network.gradient});
    ASSERT_TRUE(profile.ok()) << profile.status();
    EXPECT_THAT(profile->table, HasSubstr(tiles == BatchTiles::kAlways ? "Sigmoid" : "sigmoid_"));
    EXPECT_THAT(profile->table, HasSubstr("planned peak"));
    // Chrome's trace event format has complete events with start and duration, by thread.
    EXPECT_THAT(profile->trace, HasSubstr("\"traceEvents\""));
    EXPECT_THAT(profile->trace, HasSubstr("\"ph\":\"X\""));
    const std::string path = testing::TempDir() + "/trace.json";
    ASSERT_TRUE(profile->WriteTrace(path).ok());
    EXPECT_EQ(profile->WriteTrace("/no/such/folder/trace.json").code(), absl::StatusCode::kUnavailable);
  }
}

// LeNet, built by hand, on synthetic data. The loss falls, and the results are equal for every
// number of threads and in every run.
struct LeNet {
  Graph graph;
  Value image, label, loss;
  Update step;

  LeNet() {
    Scope scope(graph);
    image = scope.Input("image", kFloat32, {Dim("batch"), 1, 28, 28});
    label = scope.Input("label", kInt32, {Dim("batch")});
    std::vector<Value> parameters;
    auto parameter = [&](const char* name, Shape shape, double bound) {
      const Value initial = bound == 0 ? BroadcastTo(scope.Constant(Tensor::Scalar(0.0f)), shape)
                                       : RandomUniform(scope, shape, -bound, bound);
      parameters.push_back(scope.Variable(name, initial));
      return parameters.back();
    };
    Value h = Conv2D(image, parameter("conv1", {6, 1, 5, 5}, 0.18), parameter("bias1", {6}, 0), {.padding = {2, 2}});
    h = AvgPool2D(Sigmoid(h));
    h = Conv2D(h, parameter("conv2", {16, 6, 5, 5}, 0.1), parameter("bias2", {16}, 0));
    h = Flatten(AvgPool2D(Sigmoid(h)));
    h = Sigmoid(MatMul(h, parameter("dense1", {400, 120}, 0.1)) + parameter("bias3", {120}, 0));
    h = Sigmoid(MatMul(h, parameter("dense2", {120, 84}, 0.17)) + parameter("bias4", {84}, 0));
    h = MatMul(h, parameter("dense3", {84, 10}, 0.25)) + parameter("bias5", {10}, 0);
    loss = Mean(SparseSoftmaxCrossEntropy(h, label));
    const std::vector<Value> gradients = Gradients({loss}, parameters);
    for (size_t i = 0; i < parameters.size(); ++i)
      step.assignments.push_back(Assign(parameters[i], parameters[i] - 0.9 * gradients[i]));
  }

  std::vector<Feed> Feeds() const {
    Tensor images(kFloat32, {10, 1, 28, 28}), labels(kInt32, {10});
    for (int i = 0; i < images.num_elements(); ++i)
      images.mutable_data<float>()[i] =
          static_cast<float>(std::sin(i * 0.37) * 0.5 + 0.5) * static_cast<float>((i / 784) % 3);
    for (int i = 0; i < 10; ++i) labels.mutable_data<int32_t>()[i] = i % 3;
    return {{image, images}, {label, labels}};
  }

  std::vector<double> Train(int threads, int steps) {
    absl::StatusOr<Session> session = Session::Create(graph, {.threads = threads, .seed = 3});
    EXPECT_TRUE(session.ok()) << session.status();
    const std::vector<Feed> feeds = Feeds();
    std::vector<double> losses;
    for (int i = 0; i < steps; ++i) {
      absl::StatusOr<std::vector<Tensor>> results = session->Run(feeds, {loss, step});
      EXPECT_TRUE(results.ok()) << results.status();
      if (!results.ok()) return losses;
      losses.push_back((*results)[0].ToDouble());
    }
    return losses;
  }
};

TEST(Session, TrainsLeNetToTheSameBitsOnAnyNumberOfThreads) {
  LeNet lenet;
  ASSERT_TRUE(lenet.graph.status().ok()) << lenet.graph.status();
  const std::vector<double> one = lenet.Train(1, 20);
  ASSERT_EQ(one.size(), 20u);
  EXPECT_LT(one.back(), one.front());
  EXPECT_EQ(lenet.Train(1, 20), one);
  EXPECT_EQ(lenet.Train(3, 20), one);
}

TEST(Session, GivesUpCopiesOfWeightsForAMemoryBudget) {
  LeNet lenet;
  const std::vector<Feed> feeds = lenet.Feeds();
  SessionOptions options = {.batch_tiles = BatchTiles::kNever, .row_fusion = RowFusion::kNever};
  absl::StatusOr<Session> keeps = Session::Create(lenet.graph, options);
  ASSERT_TRUE(keeps.ok()) << keeps.status();
  options.memory_budget = PlannedPeak(*keeps->DescribePlan(feeds, {lenet.loss})) - 1;
  absl::StatusOr<Session> tight = Session::Create(lenet.graph, options);
  ASSERT_TRUE(tight.ok()) << tight.status();
  EXPECT_EQ(RunOne(*tight, feeds, lenet.loss), RunOne(*keeps, feeds, lenet.loss));
  EXPECT_LE(PlannedPeak(*tight->DescribePlan(feeds, {lenet.loss})), options.memory_budget);
}

// A plan that assigns no variables keeps packed copies of them from run to run, in every execution
// mode, until a call or another plan sets them.
class KeptWeights : public testing::TestWithParam<SessionOptions> {};

TEST_P(KeptWeights, FollowTheVariables) {
  LeNet lenet;
  const std::vector<Feed> feeds = lenet.Feeds();
  absl::StatusOr<Session> session = Session::Create(lenet.graph, GetParam());
  ASSERT_TRUE(session.ok()) << session.status();
  // Computes the result in a new session that has the variables from the start.
  auto expected = [&] {
    SessionOptions options = GetParam();
    for (const std::string& name : session->VariableNames())
      options.variables.push_back({name, *session->GetVariable(name)});
    absl::StatusOr<Session> fresh = Session::Create(lenet.graph, options);
    EXPECT_TRUE(fresh.ok()) << fresh.status();
    return RunOne(*fresh, feeds, lenet.loss);
  };
  std::vector<double> before = RunOne(*session, feeds, lenet.loss);
  EXPECT_EQ(RunOne(*session, feeds, lenet.loss), before);
  EXPECT_EQ(expected(), before);
  for (const char* name : {"conv1", "conv2", "dense1", "dense2", "dense3"}) {
    Tensor value = *session->GetVariable(name);
    for (float& element : value.mutable_values<float>()) element *= 1.5f;
    ASSERT_TRUE(session->SetVariable(name, value).ok());
    const std::vector<double> after = RunOne(*session, feeds, lenet.loss);
    EXPECT_NE(after, before) << name;
    EXPECT_EQ(after, expected()) << name;
    before = after;
  }
  for (int i = 0; i < 2; ++i) {
    ASSERT_TRUE(session->Run(feeds, {lenet.step}).ok());
    const std::vector<double> after = RunOne(*session, feeds, lenet.loss);
    EXPECT_NE(after, before);
    EXPECT_EQ(after, expected());
    before = after;
  }
}

INSTANTIATE_TEST_SUITE_P(
    Ways, KeptWeights,
    testing::Values(SessionOptions{.threads = 2, .batch_tiles = BatchTiles::kAlways},
                    SessionOptions{.threads = 2, .batch_tiles = BatchTiles::kAlways, .toom_cook = false},
                    SessionOptions{.threads = 2, .batch_tiles = BatchTiles::kNever},
                    SessionOptions{.threads = 2, .batch_tiles = BatchTiles::kNever, .row_fusion = RowFusion::kNever}));

}  // namespace
}  // namespace gradweave
