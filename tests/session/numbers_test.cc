// Calls of ops with numbers alone. They belong to no graph, but their error is reported later, and
// nothing crashes.
#include <functional>
#include <string>
#include <vector>

#include "gmock/gmock.h"
#include "gradweave/gradweave.h"
#include "gtest/gtest.h"

namespace gradweave {
namespace {

using ::testing::HasSubstr;

struct Row {
  const char* name;
  std::function<Value()> call;
};

std::vector<Row> Rows() {
  return {
      {"Add", [] { return Add(1, 2.0); }},
      {"Where", [] { return Where(1, 2, 3); }},
      {"Neg", [] { return Neg(1); }},
      {"Clip", [] { return Clip(1.0, 0, 1); }},
      {"Cast", [] { return Cast(1, kInt32); }},
      {"Swish", [] { return Swish(1.0); }},
      {"HardSigmoid", [] { return HardSigmoid(1.0); }},
      {"HardSwish", [] { return HardSwish(1.0); }},
      {"Mish", [] { return Mish(1.0); }},
      {"PRelu", [] { return PRelu(1.0, 0.1); }},
      {"GroupNorm", [] { return GroupNorm(1.0, 1); }},
      {"RmsNorm", [] { return RmsNorm(1.0, 1.0); }},
      {"Gather", [] { return Gather(1, 0); }},
      {"ScatterAdd", [] { return ScatterAdd(1, 0, 1); }},
      {"OneHot", [] { return OneHot(1, 3); }},
      {"MatMul", [] { return MatMul(1, 2); }},
      {"Conv2D", [] { return Conv2D(1, 2); }},
      {"ConvTranspose2D", [] { return ConvTranspose2D(1, 2); }},
      {"AvgPool2D",
       [] {
         return AvgPool2D(1, {.window = {2, 2}});
       }},
      {"MaxPool2D",
       [] {
         return MaxPool2D(1, {.window = {2, 2}});
       }},
      {"GlobalAvgPool", [] { return GlobalAvgPool(1); }},
      {"Sum", [] { return Sum(1.0); }},
      {"Mean", [] { return Mean(1.0); }},
      {"ArgMax", [] { return ArgMax(1.0); }},
      {"RandomCategorical", [] { return RandomCategorical(1.0); }},
      {"SumToShape", [] { return SumToShape(1.0, {}); }},
      {"Reshape", [] { return Reshape(1.0, {1}); }},
      {"Transpose", [] { return Transpose(1.0); }},
      {"BroadcastTo",
       [] {
         return BroadcastTo(0, {Dim("n"), 10});
       }},
      {"Squeeze", [] { return Squeeze(1.0); }},
      {"ExpandDims", [] { return ExpandDims(1.0, {0}); }},
      {"Flatten", [] { return Flatten(1.0, 0); }},
      {"Split",
       [] {
         return Split(1.0, {1, 1}, 0)[0];
       }},
      {"Slice", [] { return Slice(1.0, {}); }},
      {"SliceAxis", [] { return SliceAxis(1.0, 0, 0, 1); }},
      {"Reverse", [] { return Reverse(1.0, {0}); }},
      {"Pad", [] { return Pad(1.0, {}); }},
      {"Tile", [] { return Tile(1.0, {}); }},
      {"Softmax", [] { return Softmax(1.0); }},
      {"LogSoftmax", [] { return LogSoftmax(1.0); }},
      {"SparseSoftmaxCrossEntropy", [] { return SparseSoftmaxCrossEntropy(1.0, 1); }},
      {"BatchNorm", [] { return BatchNormTraining(1, 1, 1).y; }},
      {"BatchNorm", [] { return BatchNormInference(1, 1, 1, 0, 1); }},
      {"LayerNorm", [] { return LayerNorm(1, 1, 1); }},
      {"Dropout", [] { return Dropout(1.0, 0.5); }},
      {"RandomUniformLike", [] { return RandomUniformLike(1.0); }},
      {"Assign", [] { return Assign(1, 2); }},
      {"DimSize", [] { return DimSize(1.0, 0); }},
      {"NumElements", [] { return NumElements(1.0, {}, kInt64); }},
      {"FullLike", [] { return FullLike(1.0, 2); }},
      {"WeightedMeanOf", [] { return WeightedMeanOf(1, 2).mean; }},
      {"MeanSquaredError", [] { return nn::MeanSquaredError(1, 2); }},
  };
}

TEST(CallsWithNumbersAlone, TellTheirErrorToTheGraphThatUsesThem) {
  for (const Row& row : Rows()) {
    const Value number = row.call();
    EXPECT_FALSE(number.valid()) << row.name;
    Graph graph;
    Scope scope(graph);
    const Value x = scope.Input("x", kFloat32, {2});
    EXPECT_FALSE(Add(x, number).valid());
    const std::string message(graph.status().message());
    EXPECT_THAT(message, HasSubstr(std::string(row.name) + ": "));
    EXPECT_THAT(message, HasSubstr("number"));
    EXPECT_THAT(message, HasSubstr("numbers_test.cc:"));
  }
}

// A call that takes the value of a failed one beside a valid value, such as an LSTM that takes its
// first state: it refuses it, and the graph has the failed call's error, with its line.
struct Taker {
  const char* name;
  // Calls a function with x, float32 [n, 3, 4], labels, int32 [n], and a value that is no value.
  void (*call)(Scope& scope, const Value& x, const Value& labels, const Value& failed);
};

const Taker kTakers[] = {
    {"state of an Lstm",
     [](Scope& scope, const Value& x, const Value&, const Value& failed) {
       nn::Standalone("lstm", nn::Lstm{.features = 10})(scope, x, {.state = {.hidden = failed}});
     }},
    {"lengths of a Gru",
     [](Scope& scope, const Value& x, const Value&, const Value& failed) {
       nn::Sequential{nn::Gru{.features = 2}}(scope, x, {.lengths = failed});
     }},
    {"mask of MultiHeadAttention",
     [](Scope& scope, const Value& x, const Value&, const Value& failed) {
       nn::Standalone("attend", nn::MultiHeadAttention{})(scope, x, {.mask = failed});
     }},
    {"key of MultiHeadAttention",
     [](Scope& scope, const Value& x, const Value&, const Value& failed) {
       nn::Standalone("attend", nn::MultiHeadAttention{})(scope, x, {.key = failed});
     }},
    {"input of a Sequential",
     [](Scope& scope, const Value&, const Value&, const Value& failed) {
       nn::Sequential{nn::Dense{2}}(scope, failed);
     }},
    {"target", [](Scope&, const Value& x, const Value&, const Value& failed) { nn::MeanSquaredError(x, failed); }},
    {"labels",
     [](Scope&, const Value& x, const Value&, const Value& failed) {
       nn::SoftmaxCrossEntropy(SliceAxis(x, 1, 0, 1), failed);
     }},
    {"sample weights",
     [](Scope&, const Value& x, const Value&, const Value& failed) {
       nn::MeanSquaredError(x, x, {.sample_weights = failed});
     }},
    {"class weights",
     [](Scope&, const Value& x, const Value& labels, const Value& failed) {
       nn::SoftmaxCrossEntropy(Max(x, {.axes = {1}}), labels, {.class_weights = failed});
     }},
    {"scores of a hinge", [](Scope&, const Value& x, const Value&, const Value& failed) { nn::Hinge(failed, x); }},
    {"labels of MultiClassHinge",
     [](Scope&, const Value& x, const Value&, const Value& failed) {
       nn::MultiClassHinge(Max(x, {.axes = {1}}), failed);
     }},
    {"lengths of Ctc",
     [](Scope& scope, const Value& x, const Value&, const Value& failed) {
       nn::Ctc(x, scope.Input("text", kInt32, {Dim("n"), 2}), {.input_lengths = failed});
     }},
    {"WeightedMeanOf", [](Scope&, const Value& x, const Value&, const Value& failed) { WeightedMeanOf(x, failed); }},
    {"Accuracy", [](Scope&, const Value& x, const Value&, const Value& failed) { metrics::Accuracy(x, failed); }},
    {"BinaryAccuracy",
     [](Scope&, const Value& x, const Value&, const Value& failed) { metrics::BinaryAccuracy(x, failed); }},
    {"R2", [](Scope&, const Value& x, const Value&, const Value& failed) { metrics::R2(x, failed); }},
    {"gradient",
     [](Scope& scope, const Value&, const Value&, const Value& failed) {
       optim::Adam{}.Apply({failed}, {scope.Variable("w", 1.0)});
     }},
    {"learning rate",
     [](Scope& scope, const Value&, const Value&, const Value& failed) {
       optim::Sgd{.learning_rate = failed}.Minimize(Square(scope.Variable("w", 1.0)));
     }},
    {"weight of a batch",
     [](Scope& scope, const Value& x, const Value&, const Value& failed) {
       optim::Accumulate(optim::Sgd{}, Mean(x) * scope.Variable("w", 1.0), {.weight = failed});
     }},
    {"indices of TakeAlong",
     [](Scope&, const Value& x, const Value&, const Value& failed) { TakeAlong(x, failed, 1); }},
    {"indices of GatherElements",
     [](Scope&, const Value& x, const Value&, const Value& failed) { GatherElements(x, failed, 1); }},
    {"scale of LayerNorm", [](Scope&, const Value& x, const Value&, const Value& failed) { LayerNorm(x, failed, x); }},
    {"bias of ConvTranspose2D",
     [](Scope&, const Value& x, const Value&, const Value& failed) {
       const Value image = Reshape(x, {Dim("n"), 1, 3, 4});
       ConvTranspose2D(image, FullLike(SliceAxis(image, 0, 0, 1), 1), failed);
     }},
    {"bias of ConvND",
     [](Scope& scope, const Value& x, const Value&, const Value& failed) {
       ConvND(x, scope.Full(1, {2, 3, 2}), failed, {});
     }},
    {"Einsum", [](Scope&, const Value& x, const Value&, const Value& failed) { Einsum("nij,j->ni", {x, failed}); }},
    {"positions of RotaryEmbedding",
     [](Scope&, const Value& x, const Value&, const Value& failed) {
       RotaryEmbedding(ExpandDims(x, {2}), {.positions = failed});
     }},
    {"mask of attention",
     [](Scope&, const Value& x, const Value&, const Value& failed) {
       const Value heads = ExpandDims(x, {1});
       ScaledDotProductAttention(heads, heads, heads, {.mask = failed});
     }},
    {"values of attention",
     [](Scope&, const Value& x, const Value&, const Value& failed) {
       const Value heads = ExpandDims(x, {1});
       ScaledDotProductAttention(heads, heads, failed);
     }},
    {"sequence of Scan",
     [](Scope&, const Value& x, const Value&, const Value& failed) {
       Scan({x}, {failed}, [](const std::vector<Value>& states, const std::vector<Value>&) {
         return ScanStep{.states = states, .outputs = {}};
       });
     }},
};

TEST(CallsWithNumbersAlone, TellTheirErrorToTheGraphOfEveryCallThatTakesTheirValue) {
  for (const Taker& taker : kTakers) {
    SCOPED_TRACE(taker.name);
    Graph graph;
    Scope scope(graph);
    const Value x = scope.Input("x", kFloat32, {Dim("n"), 3, 4}), labels = scope.Input("labels", kInt32, {Dim("n")});
    const int line = __LINE__ + 1;
    const Value failed = BroadcastTo(0, {Dim("n"), 10});
    taker.call(scope, x, labels, failed);
    const std::string message(graph.status().message());
    EXPECT_THAT(message, HasSubstr("BroadcastTo: all operands are numbers"));
    EXPECT_THAT(message, HasSubstr("numbers_test.cc:" + std::to_string(line)));
  }
}

TEST(CallsWithNumbersAlone, TellTheirErrorToTheRunThatFetchesThem) {
  Graph graph;
  Scope scope(graph);
  const Value w = scope.Variable("w", 1.0);
  const Value loss = Mean(1.0);
  const Update step = optim::Sgd{}.Minimize(loss);
  absl::StatusOr<Session> session = Session::Create(graph, {.threads = 1});
  ASSERT_TRUE(session.ok()) << session.status();
  EXPECT_THAT(std::string(session->Run({}, {loss}).status().message()),
              HasSubstr("Run: a fetch is the value of a failed builder call, or none: Mean: the operand is a number"));
  EXPECT_THAT(std::string(session->Run({}, {w, step}).status().message()),
              HasSubstr("Run: an update has no assignments"));
  EXPECT_THAT(std::string(session->Run({}, {Update{{loss}}}).status().message()),
              HasSubstr("Run: an update is the value of a failed builder call"));
  EXPECT_TRUE(session->Run({}, {w, optim::LayerUpdates(w)}).ok()) << "a model without moving averages has none";
}

// Node ids are small numbers: a value of another graph has the id of some node.
TEST(ValuesOfAnotherGraph, AreNeitherFedNorFetched) {
  Graph graph, other;
  Scope scope(graph), other_scope(other);
  const Value x = scope.Input("x", kFloat32, {2}), y = x * 2;
  const Value other_x = other_scope.Input("x", kFloat32, {2}), other_y = other_x * 3;
  absl::StatusOr<Session> session = Session::Create(graph, {.threads = 1});
  ASSERT_TRUE(session.ok()) << session.status();
  const Tensor two(kFloat32, {2});
  EXPECT_TRUE(session->Run({{x, two}}, {y}).ok());
  EXPECT_THAT(std::string(session->Run({{other_x, two}}, {y}).status().message()),
              HasSubstr("Run: a feed, number 0 of its graph, is not a value of the session's graph"));
  EXPECT_THAT(std::string(session->Run({{x, two}}, {other_y}).status().message()),
              HasSubstr("Run: a fetch, number 2 of its graph, is not a value of the session's graph"));
  // Copies that go different ways have different nodes of one id.
  Graph copy = graph;
  const Value of_copy = Neg(copy.value(y.port()));
  const Value of_graph = Neg(y);
  absl::StatusOr<Session> second = Session::Create(graph, {.threads = 1});
  ASSERT_TRUE(second.ok()) << second.status();
  EXPECT_TRUE(second->Run({{copy.value(x.port()), two}}, {of_graph}).ok())
      << "a copy shares the nodes it was made with";
  EXPECT_FALSE(second->Run({{x, two}}, {of_copy}).ok());
}

TEST(ValuesAddedAfterCreate, AreNeitherFedNorFetched) {
  Graph graph;
  Scope scope(graph);
  const Value x = scope.Input("x", kFloat32, {2}), y = x * 2;
  absl::StatusOr<Session> session = Session::Create(graph, {.threads = 1});
  ASSERT_TRUE(session.ok()) << session.status();
  const Value later = scope.Input("later", kFloat32, {2}), z = x + later;
  const Tensor two(kFloat32, {2});
  EXPECT_THAT(std::string(session->Run({{x, two}}, {z}).status().message()),
              HasSubstr("Run: a fetch, number 4 of its graph, was added to the graph after Session::Create"));
  EXPECT_THAT(std::string(session->Run({{x, two}, {later, two}}, {y}).status().message()),
              HasSubstr("Run: a feed, number 3 of its graph, was added to the graph after Session::Create"));
}

TEST(FixedBatches, TellHowToTakeAnySize) {
  Graph graph;
  Scope scope(graph);
  const Value x = scope.Input("x", kFloat32, {8, 5});
  absl::StatusOr<Session> session = Session::Create(graph, {.threads = 1});
  ASSERT_TRUE(session.ok()) << session.status();
  EXPECT_THAT(
      std::string(session->Run({{x, Tensor(kFloat32, {4, 5})}}, {x}).status().message()),
      ::testing::EndsWith("axis 0 has to have size 8; a symbol such as Dim(\"batch\") in the shape of the Input "
                          "takes any size"));
  EXPECT_THAT(std::string(session->Run({{x, Tensor(kFloat32, {8, 4})}}, {x}).status().message()),
              ::testing::EndsWith("axis 1 has to have size 5"));
}

TEST(ValuesThatNothingMade, AreErrorsWhereTheyAreUsed) {
  Graph graph;
  Scope scope(graph);
  const Value x = scope.Input("x", kFloat32, {2});
  EXPECT_FALSE((x + Value()).valid());
  EXPECT_THAT(std::string(graph.status().message()),
              HasSubstr("Add: an operand is an empty Value, which belongs to no graph"));
  EXPECT_THAT(std::string(graph.status().message()), HasSubstr("numbers_test.cc:"));
}

TEST(ScopeFull, RefusesANumberThatTheDTypeHasNot) {
  Graph graph;
  Scope scope(graph);
  EXPECT_FALSE(scope.Full(2.5, {3}, kInt32).valid());
  EXPECT_THAT(std::string(graph.status().message()), HasSubstr("the number 2.5 is not a valid int32"));
  EXPECT_THAT(std::string(graph.status().message()), HasSubstr("numbers_test.cc:"));
}

TEST(ScopeFull, MakesAValueOfANumber) {
  Graph graph;
  Scope scope(graph);
  const Value x = scope.Input("x", kFloat64, {Dim("n"), 2});
  const Value y = x + scope.Full(0.25, {Dim("n"), 2}, kFloat64);
  absl::StatusOr<Session> session = Session::Create(graph, {.threads = 1});
  ASSERT_TRUE(session.ok()) << session.status();
  absl::StatusOr<std::vector<Tensor>> results = session->Run({{x, Tensor::Of<double>({1, 2}, {1, 2})}}, {y});
  ASSERT_TRUE(results.ok()) << results.status();
  EXPECT_THAT((*results)[0].ToDoubles(), ::testing::ElementsAre(1.25, 2.25));
}

}  // namespace
}  // namespace gradweave
