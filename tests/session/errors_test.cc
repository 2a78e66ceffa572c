// User errors: each mistake returns the right status code and one clear line, and changes nothing
// else.
#include <functional>
#include <limits>
#include <string>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "gmock/gmock.h"
#include "gradweave/gradweave.h"
#include "gtest/gtest.h"

namespace gradweave {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::Not;

// Expects a message of one line that contains all parts.
void ExpectError(const absl::Status& status, absl::StatusCode code, const std::vector<std::string>& parts) {
  EXPECT_EQ(status.code(), code) << status;
  const std::string message(status.message());
  for (const std::string& part : parts) EXPECT_THAT(message, HasSubstr(part));
  EXPECT_THAT(message, Not(HasSubstr("\n")));
}

constexpr int64_t kMost = std::numeric_limits<int64_t>::max();

// ---- Builder calls ----

struct BuilderRow {
  // Makes the mistake and returns its line number.
  std::function<int(Scope& s)> build;
  std::vector<std::string> message_parts;  // The op, the operands and the expectation.
};

// Adds an input named by its number.
Value In(Scope& s, DType dtype, Shape shape) {
  return s.Input(absl::StrCat("in_", s.graph().num_nodes()), dtype, shape);
}
Value F(Scope& s, Shape shape) { return In(s, kFloat32, shape); }
Value I(Scope& s, Shape shape) { return In(s, kInt32, shape); }

TEST(BuilderMistakes, NameTheOpTheOperandsAndTheLine) {
  // The mistake and __LINE__ must be on the same line.
  // clang-format off
  const BuilderRow rows[] = {
      {[](Scope& s) { F(s, {2, 3}) + F(s, {2, 4}); return __LINE__; },
       {"Add", "do not broadcast", "float32[2,3]", "float32[2,4]"}},
      {[](Scope& s) { Mul(F(s, {2}), In(s, kFloat64, {2})); return __LINE__; },
       {"Mul", "float32[2]", "float64[2]"}},
      {[](Scope& s) { Sigmoid(I(s, {2})); return __LINE__; },
       {"Sigmoid", "int32", "float32 or float64"}},
      {[](Scope& s) { I(s, {2}) * 0.5; return __LINE__; },
       {"0.5", "int32"}},
      {[](Scope& s) { MatMul(F(s, {Dim("n"), 3}), F(s, {4, 5})); return __LINE__; },
       {"MatMul", "3 columns", "4 rows", "float32[n,3]", "float32[4,5]"}},
      {[](Scope& s) { Conv2D(F(s, {1, 3, 8, 8}), F(s, {4, 2, 3, 3})); return __LINE__; },
       {"Conv2D", "float32[1,3,8,8]", "float32[4,2,3,3]"}},
      {[](Scope& s) { Conv2D(F(s, {1, 3, 2, 2}), F(s, {4, 3, 5, 5})); return __LINE__; },
       {"Conv2D", "float32[1,3,2,2]"}},
      {[](Scope& s) { Conv2D(F(s, {1, 3, 8, 8}), F(s, {4, 3, 3, 3}), {.stride = {0, 1}}); return __LINE__; },
       {"Conv2D", "stride"}},
      {[](Scope& s) { Conv2D(F(s, {1, 3, 8, 8}), F(s, {4, 3, 3, 3}), {.padding = {kMost, kMost}}); return __LINE__; },
       {"Conv2D", "padding", "below 2^31"}},
      {[](Scope& s) { MaxPool2D(F(s, {1, 3, 8, 8}), {.window = {3}}); return __LINE__; },
       {"MaxPool2D", "window"}},
      {[](Scope& s) { AvgPool2D(F(s, {1, 3, 8, 8}), {.stride = {kMost, kMost}}); return __LINE__; },
       {"AvgPool2D", "stride", "below 2^31"}},
      {[](Scope& s) { Reshape(F(s, {2, 3}), {4, 2}); return __LINE__; },
       {"Reshape", "float32[2,3]", "[4,2]"}},
      {[](Scope& s) { Reshape(F(s, {6}), {Dim("2n"), 2}); return __LINE__; },
       {"Reshape", "the symbol '2n'", "letters, digits and _"}},
      {[](Scope& s) { Concat({F(s, {2, 3}), F(s, {3, 3})}, 1); return __LINE__; },
       {"Concat", "float32[2,3]", "float32[3,3]"}},
      {[](Scope& s) { Sum(F(s, {2, 3}), {.axes = {2}}); return __LINE__; },
       {"Sum", "float32[2,3]", "2"}},
      {[](Scope& s) { SparseSoftmaxCrossEntropy(F(s, {4, 10}), I(s, {5})); return __LINE__; },
       {"SparseSoftmaxCrossEntropy", "labels have to have shape [4]", "float32[4,10]", "int32[5]"}},
      {[](Scope& s) { Where(F(s, {2}), F(s, {2}), 0); return __LINE__; },
       {"Where", "bool"}},
      {[](Scope& s) { Gather(F(s, {2}), F(s, {2})); return __LINE__; },
       {"Gather", "int32 or int64"}},
      {[](Scope& s) { Dropout(F(s, {2}), std::numeric_limits<double>::quiet_NaN()); return __LINE__; },
       {"Dropout", "rate"}},
      {[](Scope& s) { LayerNorm(F(s, {2, 3}), 1, 0); return __LINE__; },
       {"LayerNorm", "and not numbers", "(float32[2,3], 1, 0)"}},
      {[](Scope& s) { Assign(F(s, {2}), 1.0); return __LINE__; },
       {"Assign: operand 0 has to be the value of a Variable node", "float32[2]"}},
      {[](Scope& s) { s.Variable("v", F(s, {Dim("n")})); return __LINE__; },
       {"Variable", "shape"}},
      {[](Scope& s) { s.Input("twice", kInt32, {2}); s.Input("twice", kInt32, {2}); return __LINE__; },
       {"Input", "the name is taken", "'twice'"}},
      {[](Scope& s) { s.Input("two\nlines", kInt32, {2}); return __LINE__; },
       {"Input", "'two\\nlines' has a control character"}},
      {[](Scope& s) { Gradients({ArgMax(F(s, {2}))}, {F(s, {2})}); return __LINE__; },
       {"int64"}},
      {[](Scope& s) { optim::Sgd{}.Minimize(s.Variable("w", s.Constant(Tensor(kFloat32, {3})))); return __LINE__; },
       {"Minimize", "scalar", "float32[3]"}},
      {[](Scope& s) { optim::Adam{}.Minimize(Sum(F(s, {3}))); return __LINE__; },
       {"Minimize", "no trainable variable"}},
      {[](Scope& s) { nn::Sequential{nn::Dense{3}}(s, F(s, {2, Dim("width")})); return __LINE__; },
       {"Dense", "width", "known"}},
      {[](Scope& s) { nn::Sequential{nn::Conv2D{.channels = 4, .kernel = 3}}(s, F(s, {2, 28, 28})); return __LINE__; },
       {"Conv2D", "4 axes", "float32[2,28,28]"}},
      {[](Scope& s) { nn::MeanSquaredError(F(s, {2, 1}), F(s, {2})); return __LINE__; },
       {"MeanSquaredError", "the same shape", "float32[2,1]", "float32[2]"}},
  };
  // clang-format on
  for (const BuilderRow& row : rows) {
    Graph graph;
    Scope scope(graph);
    const int line = row.build(scope);
    SCOPED_TRACE(line);
    ExpectError(scope.status(), absl::StatusCode::kInvalidArgument, row.message_parts);
    EXPECT_THAT(std::string(scope.status().message()), HasSubstr(absl::StrCat("errors_test.cc:", line)));
    EXPECT_EQ(Session::Create(graph).status(), graph.status());
  }
}

TEST(BuilderMistakes, TheFirstIsKeptAndItsConsequencesAreSilent) {
  Graph graph;
  Scope scope(graph);
  const Value wrong = MatMul(F(scope, {2, 3}), F(scope, {2, 3}));
  const absl::Status first = scope.status();
  EXPECT_FALSE(wrong.valid());
  const Value later = Softmax(Relu(wrong) + 1);
  EXPECT_FALSE(later.valid());
  EXPECT_FALSE(nn::SoftmaxCrossEntropy(later, I(scope, {2})).valid());
  EXPECT_TRUE(optim::Sgd{}.Minimize(Sum(later)).assignments.empty());
  Reshape(F(scope, {2}), {3});
  EXPECT_EQ(scope.status(), first);
}

// A default-constructed value belongs to no graph, so no graph records an error.
TEST(BuilderMistakes, ValuesOfNoGraphAreHarmless) {
  const Value none;
  EXPECT_FALSE((none + none).valid());
  EXPECT_FALSE((none * 2).valid());
  EXPECT_FALSE(Mean(none).valid());
  EXPECT_FALSE(Conv2D(none, none, none).valid());
  EXPECT_FALSE(Reshape(none, {-1}).valid());
  EXPECT_FALSE(Concat({none, none}, 0).valid());
  EXPECT_FALSE(Concat({}, 0).valid());
  EXPECT_FALSE(MatMul(none, none).valid());
  EXPECT_FALSE(Softmax(none).valid());
  EXPECT_FALSE(BatchNormTraining(none, none, none).y.valid());
  EXPECT_FALSE(BatchNormInference(none, none, none, none, none).valid());
  EXPECT_FALSE(LayerNorm(none, none, none).valid());
  EXPECT_FALSE(Dropout(none, 0.5).valid());
  EXPECT_FALSE(SparseSoftmaxCrossEntropy(none, none).valid());
  EXPECT_FALSE(Flatten(none).valid());
  EXPECT_FALSE(Transpose(none).valid());
  EXPECT_FALSE(GlobalAvgPool(none).valid());
  EXPECT_FALSE(OneHot(none, 3).valid());
  EXPECT_FALSE(Assign(none, 1.0).valid());
  EXPECT_FALSE(nn::Huber(none, none).valid());
  EXPECT_FALSE(nn::Accuracy(none, none).valid());
  EXPECT_TRUE(optim::Sgd{}.Minimize(none).assignments.empty());
  EXPECT_FALSE(Gradients({none}, {none})[0].valid());
  EXPECT_FALSE(Add(1, 2).valid());
}

TEST(BuilderMistakes, ValuesOfTwoGraphsDoNotMix) {
  Graph one, other;
  Scope scope(one), other_scope(other);
  EXPECT_FALSE(Add(F(scope, {2}), F(other_scope, {2})).valid());
  ExpectError(scope.status(), absl::StatusCode::kInvalidArgument, {"Add", "different graphs"});
}

// Layers get new variables in each graph, whether or not an earlier graph still exists.
TEST(Layers, ServeOneGraphAfterTheOther) {
  const nn::Sequential layers{nn::Dense{3}};
  for (int64_t width : {4, 5}) {
    Graph graph;
    Scope scope(graph);
    const Value y = layers(scope, F(scope, {2, width}));
    ASSERT_TRUE(y.valid()) << scope.status();
    EXPECT_EQ(graph.value(graph.FindNamed("dense_1/weight")).shape(), (Shape{width, 3}));
  }
}

// ---- Runs ----

// A model with each kind of variable that a step changes: weights, moving averages and optimizer
// state.
struct Model {
  Graph graph;
  Value x, label, loss, logits;
  Update step, reset;

  Model() {
    Scope scope(graph);
    x = scope.Input("x", kFloat32, {Dim("batch"), 4});
    label = scope.Input("label", kInt32, {Dim("batch")});
    logits = nn::Sequential{nn::Dense{5}, nn::BatchNorm{}, nn::Relu{}, nn::Dense{3}}(scope, x);
    loss = nn::SoftmaxCrossEntropy(logits, label);
    step = optim::Adam{}.Minimize(loss);
    const Value bias = graph.value(graph.FindNamed("dense_1/bias"));
    reset.assignments = {Assign(bias, ZerosLike(bias))};
  }
};

Session MakeSession(const Graph& graph) {
  absl::StatusOr<Session> session = Session::Create(graph, {.seed = 5});
  EXPECT_TRUE(session.ok()) << session.status();
  return *std::move(session);
}

std::vector<Tensor> AllVariables(const Session& session) {
  std::vector<Tensor> values;
  for (const std::string& name : session.VariableNames()) values.push_back(*session.GetVariable(name));
  return values;
}

TEST(RunMistakes, GiveOneClearLineAndChangeNothing) {
  Model m;
  Session session = MakeSession(m.graph);
  const Tensor x(kFloat32, {2, 4}), label(kInt32, {2});
  Graph later_graph = m.graph;
  const Value later = Relu(later_graph.value(m.logits.port()));

  struct Row {
    std::vector<Feed> feeds;
    std::vector<Fetch> fetches;
    absl::StatusCode code;
    std::vector<std::string> message_parts;
  };
  constexpr absl::StatusCode kInvalid = absl::StatusCode::kInvalidArgument;
  constexpr absl::StatusCode kOutOfRange = absl::StatusCode::kOutOfRange;
  const Row rows[] = {
      {{{m.x, x}}, {m.loss, m.step}, kInvalid, {"'label'", "int32[batch]", "not fed"}},
      {{{m.x, Tensor(kFloat64, {2, 4})}, {m.label, label}},
       {m.step},
       kInvalid,
       {"'x'", "float64[2,4]", "float32[batch,4]", "dtype"}},
      {{{m.x, Tensor(kFloat32, {2, 5})}, {m.label, label}},
       {m.step},
       kInvalid,
       {"'x'", "float32[2,5]", "axis 1 has to have size 4"}},
      {{{m.x, Tensor(kFloat32, {8})}, {m.label, label}}, {m.step}, kInvalid, {"'x'", "float32[8]", "2 dimensions"}},
      {{{m.x, x}, {m.label, Tensor(kInt32, {3})}}, {m.step}, kInvalid, {"'label'", "int32[3]", "size 2 for batch"}},
      {{{m.x, x}, {m.label, label}, {m.x, x}}, {m.step}, kInvalid, {"'x' is fed twice"}},
      {{{m.x, x}, {m.label, label}, {m.logits, x}}, {m.step}, kInvalid, {"only inputs are fed", "Add"}},
      {{{m.x, x}, {m.label, label}, {Value(), x}}, {m.step}, kInvalid, {"feed"}},
      {{{m.x, x}, {m.label, label}}, {Value(), m.step}, kInvalid, {"fetch"}},
      {{{m.x, x}, {m.label, label}}, {later, m.step}, kInvalid, {"not a value of the session's graph"}},
      {{{m.x, x}, {m.label, label}}, {m.step, m.reset}, kInvalid, {"'dense_1/bias' is assigned twice"}},
      {{{m.x, x}, {m.label, Tensor::Of<int32_t>({2}, {0, 3})}},
       {m.loss, m.step},
       kOutOfRange,
       {"label 3 at position 1 is outside [0, 3)"}},
      {{{m.x, x}, {m.label, Tensor::Of<int32_t>({2}, {-1, 0})}},
       {m.step},
       kOutOfRange,
       {"label -1 at position 0 is outside [0, 3)"}},
  };
  const std::vector<Tensor> before = AllVariables(session);
  for (size_t i = 0; i < std::size(rows); ++i) {
    SCOPED_TRACE(i);
    ExpectError(session.Run(rows[i].feeds, rows[i].fetches).status(), rows[i].code, rows[i].message_parts);
  }
  const std::vector<Tensor> after = AllVariables(session);
  for (size_t i = 0; i < before.size(); ++i) EXPECT_TRUE(SameBits(before[i], after[i])) << session.VariableNames()[i];
  // The session remains usable.
  const Tensor good = Tensor::Of<float>({2, 4}, {1, 2, 3, 4, 4, 3, 2, 1});
  EXPECT_TRUE(session.Run({{m.x, good}, {m.label, label}}, {m.loss, m.step}).ok());
  for (size_t i = 0; i < before.size(); ++i) {
    const std::string name = session.VariableNames()[i];
    // A normalization cancels this bias, so its gradient is 0 apart from rounding on some
    // processors.
    if (absl::StrContains(name, "dense_1/bias")) continue;
    EXPECT_EQ(SameBits(before[i], *session.GetVariable(name)), name == "adam/learning_rate") << name;
  }
}

// A run may feed inputs that its fetches do not need, so one set of feeds serves training and
// prediction. The session checks these inputs too.
TEST(RunMistakes, SurplusInputsAreAllowedButChecked) {
  Model m;
  Session session = MakeSession(m.graph);
  const Tensor x(kFloat32, {2, 4});
  EXPECT_TRUE(session.Run({{m.x, x}, {m.label, Tensor(kInt32, {2})}}, {m.logits}).ok());
  ExpectError(session.Run({{m.x, x}, {m.label, Tensor(kInt64, {2})}}, {m.logits}).status(),
              absl::StatusCode::kInvalidArgument, {"'label'", "int64[2]"});
  ExpectError(session.Run({{m.x, x}, {m.label, Tensor(kInt32, {7})}}, {m.logits}).status(),
              absl::StatusCode::kInvalidArgument, {"'label'", "int32[7]"});
}

TEST(RunMistakes, APreparedRunIsBoundToItsTypes) {
  Model m;
  Session session = MakeSession(m.graph);
  absl::StatusOr<std::unique_ptr<PreparedRun>> run =
      session.Prepare({{m.x, Tensor(kFloat32, {2, 4})}, {m.label, Tensor(kInt32, {2})}}, {m.loss, m.step});
  ASSERT_TRUE(run.ok()) << run.status();
  ExpectError((*run)->SetFeed(0, Tensor(kFloat32, {3, 4})), absl::StatusCode::kInvalidArgument,
              {"feed 0", "float32[2,4]", "float32[3,4]"});
  ExpectError((*run)->SetFeed(1, Tensor(kUint8, {2})), absl::StatusCode::kInvalidArgument,
              {"feed 1", "int32[2]", "uint8[2]"});
  ExpectError((*run)->SetFeed(2, Tensor(kInt32, {2})), absl::StatusCode::kInvalidArgument, {"no feed 2"});
  const std::vector<Tensor> before = AllVariables(session);
  ASSERT_TRUE((*run)->SetFeed(1, Tensor::Of<int32_t>({2}, {1, 99})).ok());
  ExpectError((*run)->Run(), absl::StatusCode::kOutOfRange, {"label 99 at position 1"});
  const std::vector<Tensor> after = AllVariables(session);
  for (size_t i = 0; i < before.size(); ++i) EXPECT_TRUE(SameBits(before[i], after[i])) << session.VariableNames()[i];
}

TEST(RunMistakes, IndicesOutOfRange) {
  Graph graph;
  Scope scope(graph);
  const Value table = scope.Variable("table", scope.Constant(Tensor(kFloat32, {3, 2})));
  const Value index = scope.Input("index", kInt64, {1});
  const Value gathered = Gather(table, index), one_hot = OneHot(index, 3);
  const Value scattered = ScatterAdd(table, index, gathered);
  Session session = MakeSession(graph);
  for (int64_t wrong :
       {int64_t{-1}, int64_t{3}, std::numeric_limits<int64_t>::max(), std::numeric_limits<int64_t>::min()}) {
    for (const Value& value : {gathered, one_hot, scattered}) {
      ExpectError(session.Run({{index, Tensor::Of<int64_t>({1}, {wrong})}}, {value}).status(),
                  absl::StatusCode::kOutOfRange, {absl::StrCat(wrong)});
    }
  }
}

TEST(RunMistakes, AnEmptyBatchIsNone) {
  Model m;
  Session session = MakeSession(m.graph);
  absl::StatusOr<std::vector<Tensor>> results =
      session.Run({{m.x, Tensor(kFloat32, {0, 4})}, {m.label, Tensor(kInt32, {0})}}, {m.logits});
  ASSERT_TRUE(results.ok()) << results.status();
  EXPECT_THAT((*results)[0].sizes(), ElementsAre(0, 3));
}

// ---- Sessions and devices ----

TEST(SessionMistakes, GiveOneClearLine) {
  Model m;
  auto create = [&](SessionOptions options) { return Session::Create(m.graph, std::move(options)).status(); };
  ExpectError(create({.device = {"cpu", 1}}), absl::StatusCode::kUnavailable, {"cpu(1)", "cpu:0"});
  ExpectError(create({.threads = -1}), absl::StatusCode::kInvalidArgument, {"threads is -1", "[0, 1024]"});
  ExpectError(create({.threads = 1025}), absl::StatusCode::kInvalidArgument, {"threads is 1025"});
  ExpectError(create({.variables = {{"dense_9/weight", Tensor(kFloat32, {2})}}}), absl::StatusCode::kNotFound,
              {"'dense_9/weight'"});
  ExpectError(create({.variables = {{"dense_1/weight", Tensor(kFloat64, {4, 5})}}}), absl::StatusCode::kInvalidArgument,
              {"'dense_1/weight'", "float32[4,5]", "float64[4,5]"});

  Session session = MakeSession(m.graph);
  ExpectError(session.GetVariable("x").status(), absl::StatusCode::kNotFound, {"'x'"});
  ExpectError(session.SetVariable("nothing", Tensor(kFloat32, {1})), absl::StatusCode::kNotFound, {"'nothing'"});
  ExpectError(session.SetVariable("dense_1/bias", Tensor(kFloat32, {6})), absl::StatusCode::kInvalidArgument,
              {"'dense_1/bias'", "float32[5]", "float32[6]"});

  Graph needs_input;
  Scope scope(needs_input);
  scope.Variable("v", scope.Input("x", kFloat32, {2}) * 2);
  ExpectError(Session::Create(needs_input).status(), absl::StatusCode::kInvalidArgument, {"initial value", "'x'"});
}

TEST(Devices, ACudaDeviceThatIsNotThereIsUnavailable) {
  Model m;
  const Device far{"cuda", 99};  // No machine has 100 GPUs.
  ExpectError(Session::Create(m.graph, {.device = far}).status(), absl::StatusCode::kUnavailable,
              {"cuda(99)", "not available"});
  EXPECT_TRUE(Device::Best().CheckAvailable().ok());
}

TEST(Devices, AreReadFromText) {
  EXPECT_EQ(*Device::Parse("cpu"), Device::Cpu());
  EXPECT_EQ(*Device::Parse("cuda:3"), (Device{"cuda", 3}));
  for (const char* text : {"", "gpu", "cuda:", "cuda:-1", "cuda:x", "cpu:0x", "cuda 0", "cuda:99999999999", "CPU"}) {
    ExpectError(Device::Parse(text).status(), absl::StatusCode::kInvalidArgument,
                {absl::StrCat("'", text, "' is not a device")});
  }
}

TEST(Tensors, OfImpossibleSizesAreErrors) {
  ExpectError(Tensor::Create(kFloat32, {-1}).status(), absl::StatusCode::kInvalidArgument, {"-1"});
  ExpectError(Tensor::Create(kFloat64, {int64_t{1} << 40, int64_t{1} << 40}).status(),
              absl::StatusCode::kInvalidArgument, {});
  ExpectError(Tensor::Create(kFloat64, {int64_t{1} << 55}).status(), absl::StatusCode::kResourceExhausted, {});
}

}  // namespace
}  // namespace gradweave
