// Recurrent layers and attention: states, lengths and masks, initial values, and a task that needs
// a memory. tests/models/layers_test.cc holds their values against PyTorch.
#include <algorithm>
#include <cmath>
#include <limits>
#include <optional>
#include <string>
#include <vector>

#include "gmock/gmock.h"
#include "gradweave/frontend/key_value_cache.h"
#include "gradweave/frontend/layers.h"
#include "gradweave/frontend/losses.h"
#include "gradweave/frontend/optimizers.h"
#include "gradweave/graph/passes/autodiff.h"
#include "gradweave/ops/elementwise.h"
#include "gradweave/ops/random.h"
#include "gradweave/ops/reduction.h"
#include "gradweave/ops/scope.h"
#include "gradweave/ops/shape_ops.h"
#include "gradweave/runtime/session/session.h"
#include "gtest/gtest.h"

namespace gradweave {
namespace {

using ::testing::Each;
using ::testing::ElementsAre;
using ::testing::HasSubstr;

std::vector<Tensor> RunOnce(const Graph& graph, const std::vector<Feed>& feeds, const std::vector<Fetch>& fetches) {
  EXPECT_TRUE(graph.status().ok()) << graph.status();
  absl::StatusOr<Session> session = Session::Create(graph, {.threads = 1});
  EXPECT_TRUE(session.ok()) << session.status();
  if (!session.ok()) return std::vector<Tensor>(fetches.size());
  absl::StatusOr<std::vector<Tensor>> results = session->Run(feeds, fetches);
  EXPECT_TRUE(results.ok()) << results.status();
  return results.ok() ? *results : std::vector<Tensor>(fetches.size());
}

double LargestDifference(const Tensor& a, const Tensor& b) {
  if (a.num_elements() != b.num_elements()) return std::numeric_limits<double>::infinity();
  const std::vector<double> x = a.ToDoubles(), y = b.ToDoubles();
  double largest = 0;
  for (size_t i = 0; i < x.size(); ++i) largest = std::max(largest, std::abs(x[i] - y[i]));
  return largest;
}

// A sequence in two parts, where the second starts with the state after the first, gives what it
// gives in one.
TEST(Standalone, CarriesTheStateOfARecurrentLayerFromCallToCall) {
  Graph graph;
  Scope scope(graph);
  const Value x = RandomNormal(scope, {3, 6, 2}, 0, 1, {.dtype = kFloat64});
  const nn::Standalone lstm("lstm", nn::Lstm{.features = 4});
  const std::vector<Value> parts = Split(x, {4, 2}, 1);
  const nn::RecurrentResult whole = lstm(scope, x), first = lstm(scope, parts[0]),
                            second = lstm(scope, parts[1], {.state = first.state});
  const nn::RecurrentResult restarted = lstm(scope, parts[1]);
  EXPECT_EQ(lstm.variables().size(), 3u) << "the calls share their variables";
  const std::vector<Tensor> results = RunOnce(graph, {},
                                              {whole.sequence, Concat({first.sequence, second.sequence}, 1),
                                               whole.state.cell, second.state.cell, restarted.state.cell});
  EXPECT_LT(LargestDifference(results[0], results[1]), 1e-14);
  EXPECT_LT(LargestDifference(results[2], results[3]), 1e-14);
  EXPECT_GT(LargestDifference(results[2], results[4]), 1e-3) << "the state matters";
}

TEST(Standalone, TellsWrongStatesAndLengthsAtTheLineOfTheCall) {
  struct Row {
    Shape hidden, cell;
    DType lengths;
    Shape lengths_shape;
    std::string message;
  };
  const Row rows[] = {
      {{Dim("n"), 3}, {Dim("n"), 4}, kInt64, {Dim("n")}, "Lstm: the first hidden state has to be float32[n,4]"},
      {{Dim("n"), 4}, {Dim("m"), 4}, kInt64, {Dim("n")}, "Lstm: the first cell state has to be float32[n,4]"},
      {{Dim("n"), 4}, {Dim("n"), 4}, kFloat32, {Dim("n")}, "Lstm: the lengths have to be int32 or int64 [n]"},
      {{Dim("n"), 4}, {Dim("n"), 4}, kInt32, {Dim("n"), 5}, "Lstm: the lengths have to be int32 or int64 [n]"},
  };
  for (const Row& row : rows) {
    SCOPED_TRACE(row.message);
    Graph graph;
    Scope scope(graph);
    const Value x = scope.Input("x", kFloat32, {Dim("n"), 5, 2});
    const nn::RecurrentState state = {scope.Input("hidden", kFloat32, row.hidden),
                                      scope.Input("cell", kFloat32, row.cell)};
    const Value lengths = scope.Input("lengths", row.lengths, row.lengths_shape);
    const nn::Standalone lstm("lstm", nn::Lstm{.features = 4});
    const int line = __LINE__ + 1;
    EXPECT_FALSE(lstm(scope, x, {.state = state}, {.lengths = lengths}).sequence.valid());
    EXPECT_THAT(std::string(graph.status().message()), HasSubstr(row.message));
    EXPECT_THAT(std::string(graph.status().message()), HasSubstr("sequence_layers_test.cc:" + std::to_string(line)));
  }
  Graph graph;
  Scope scope(graph);
  const Value x = scope.Input("x", kFloat32, {Dim("n"), 5, 2});
  const Value cell = scope.Input("cell", kFloat32, {Dim("n"), 4});
  const nn::Standalone gru("gru", nn::Gru{.features = 4});
  EXPECT_FALSE(gru(scope, x, {.state = {.cell = cell}}).sequence.valid());
  EXPECT_THAT(std::string(graph.status().message()), HasSubstr("Gru: a cell state is given, and the layer has none"));
}

// Elements behind the end of a sample change nothing, through a stack with both directions, not
// even as NaN.
TEST(RecurrentLayers, IgnoreWhatLiesBehindTheLengths) {
  Graph graph;
  Scope scope(graph);
  const Value x = scope.Input("x", kFloat64, {Dim("batch"), 4, 1});
  const Value lengths = scope.Input("lengths", kInt32, {Dim("batch")});
  const nn::Sequential model{nn::Bidirectional{nn::Lstm{.features = 3}}, nn::Gru{.features = 2},
                             nn::Rnn{.features = 2, .backwards = true}};
  const Value y = model(scope, x, {.lengths = lengths});
  const Value dx = Gradients({Sum(y)}, {x})[0];
  const double nan = std::numeric_limits<double>::quiet_NaN();
  const Tensor length = Tensor::Of<int32_t>({3}, {2, 0, 9});  // A length above the time is the time.
  const std::vector<Tensor> a = RunOnce(
      graph, {{x, Tensor::Of<double>({3, 4, 1}, {1, 2, 7, 8, 1, 1, 1, 1, 1, 2, 3, 4})}, {lengths, length}}, {y, dx});
  const std::vector<Tensor> b = RunOnce(
      graph, {{x, Tensor::Of<double>({3, 4, 1}, {1, 2, nan, nan, nan, 0, 0, 0, 1, 2, 3, 4})}, {lengths, length}},
      {y, dx});
  EXPECT_TRUE(SameBits(a[0], b[0]));
  const std::vector<double> values = a[0].ToDoubles(), gradients = a[1].ToDoubles();
  EXPECT_NE(values[2], 0) << "step 1 of sample 0 counts";
  EXPECT_THAT(std::vector<double>(values.begin() + 4, values.begin() + 16), Each(0.0));
  EXPECT_NE(values[22], 0) << "the last step of sample 2 counts";
  EXPECT_NE(gradients[1], 0);
  EXPECT_THAT(std::vector<double>(gradients.begin() + 2, gradients.begin() + 8), Each(0.0));
}

// A length that is a symbol makes a loop of the layers. Their values and gradients are those of
// steps with nodes of their own, also behind the ends of samples.
TEST(RecurrentLayers, GiveTheSameInALoop) {
  const std::vector<nn::Sequential> models = {
      {nn::Lstm{.features = 3}},
      {nn::Lstm{.features = 3, .whole_sequence = false, .backwards = true, .bias = false}},
      {nn::Lstm{.features = 3, .peepholes = true, .projection = 2}},
      {nn::RecurrentStack{.layers = {nn::Bidirectional{nn::Lstm{.features = 2, .projection = 1}},
                                     nn::Gru{.features = 3, .whole_sequence = false}}}},
      {nn::Gru{.features = 3}},
      {nn::Gru{.features = 3, .whole_sequence = false, .reset_after = false}},
      {nn::Rnn{.features = 3, .activation = nn::Rnn::kRelu}},
      {nn::Bidirectional{nn::Lstm{.features = 2}}, nn::Rnn{.features = 2, .backwards = true}}};
  const Tensor lengths = Tensor::Of<int32_t>({3}, {5, 2, 4});
  Tensor data(kFloat64, {3, 5, 2});
  for (int i = 0; i < 30; ++i) data.mutable_data<double>()[i] = std::sin(i + 1);
  for (size_t m = 0; m < models.size(); ++m) {
    for (bool with_lengths : {false, true}) {
      SCOPED_TRACE(testing::Message() << "model " << m << (with_lengths ? ", lengths" : ""));
      std::vector<Tensor> results[2];
      int loops[2] = {0, 0};
      for (int symbolic = 0; symbolic < 2; ++symbolic) {
        Graph graph;
        Scope scope(graph);
        const Value x = scope.Input("x", kFloat64, {Dim("batch"), symbolic == 1 ? Dim("time") : Dim(5), 2});
        const Value given = scope.Input("lengths", kInt32, {Dim("batch")});
        const Value y = models[m](scope, x, {.lengths = with_lengths ? given : Value()});
        std::vector<Value> wrt = {x};
        for (NodeId id = 0; id < graph.num_nodes(); ++id) {
          if (graph.node(id).op->kind == OpKind::kVariable) wrt.push_back(graph.value(id));
        }
        std::vector<Fetch> fetches = {y};
        for (const Value& gradient : Gradients({Sum(y * Sin(y))}, wrt)) fetches.emplace_back(gradient);
        std::vector<Feed> feeds = {{x, data}};
        if (with_lengths) feeds.emplace_back(given, lengths);
        for (const Node& node : graph.nodes()) loops[symbolic] += node.op->name == "Scan";
        results[symbolic] = RunOnce(graph, feeds, fetches);
      }
      EXPECT_EQ(loops[0], 0);
      EXPECT_GE(loops[1], 3);  // The layer, the same that stores states, and the gradient.
      ASSERT_EQ(results[0].size(), results[1].size());
      for (size_t i = 0; i < results[0].size(); ++i) {
        EXPECT_LT(LargestDifference(results[0][i], results[1][i]), 1e-13) << "result " << i;
      }
    }
  }
}

// Dropout is between the layers, in training only. Where it is, each element of a sequence is 0 or
// twice what it is without.
TEST(RecurrentStack, DropsBetweenItsLayersInTraining) {
  const nn::Rnn rnn{.features = 3, .activation = nn::Rnn::kRelu};
  // The second layer passes on what it is given.
  const nn::Rnn passes{.features = 3,
                       .activation = nn::Rnn::kRelu,
                       .bias = false,
                       .input_initializer = nn::Identity{},
                       .recurrent_initializer = nn::Constant{0}};
  Graph graph;
  Scope scope(graph);
  const Value x = RandomNormal(scope, {8, 6, 4}, 0, 1, {.dtype = kFloat64});
  const nn::Sequential model{nn::RecurrentStack{.layers = {rnn, passes}, .dropout = 0.5}};
  const Value trained = model(scope, x), used = model(scope, x, {.training = false});
  const std::vector<Tensor> results = RunOnce(graph, {}, {trained, used});
  const std::vector<double> dropped = results[0].ToDoubles(), kept = results[1].ToDoubles();
  int zeros = 0, doubled = 0;
  for (size_t i = 0; i < kept.size(); ++i) {
    if (kept[i] == 0) continue;
    zeros += dropped[i] == 0;
    doubled += dropped[i] == 2 * kept[i];
  }
  EXPECT_GT(zeros, 10);
  EXPECT_GT(doubled, 10);
  EXPECT_EQ(zeros + doubled, std::count_if(kept.begin(), kept.end(), [](double value) { return value != 0; }));
}

TEST(RecurrentStack, TellsWrongSettings) {
  struct Row {
    nn::RecurrentStack stack;
    size_t states;
    std::string message;
  };
  const nn::Lstm lstm{.features = 4};
  const Row rows[] = {
      {{}, 0, "RecurrentStack: there are no layers"},
      {{.layers = {lstm, nn::Bidirectional{lstm}}},
       2,
       "RecurrentStack: there are 2 first states, and the layers have 3"},
      {{.layers = {lstm, lstm}, .dropout = 1}, 0, "RecurrentStack: dropout"},
      {{.layers = {nn::Lstm{.features = 4, .projection = -1}}}, 0, "Lstm: projection"},
  };
  for (const Row& row : rows) {
    SCOPED_TRACE(row.message);
    Graph graph;
    Scope scope(graph);
    const Value x = scope.Input("x", kFloat32, {Dim("n"), 5, 2});
    const nn::Standalone stack("stack", row.stack);
    const int line = __LINE__ + 1;
    EXPECT_FALSE(stack(scope, x, {.states = std::vector<nn::RecurrentState>(row.states)}).sequence.valid());
    EXPECT_THAT(std::string(graph.status().message()), HasSubstr(row.message));
    EXPECT_THAT(std::string(graph.status().message()), HasSubstr("sequence_layers_test.cc:" + std::to_string(line)));
  }
}

TEST(Lstm, BeginsWithOpenForgetGates) {
  Graph graph;
  Scope scope(graph);
  const Value x = scope.Input("x", kFloat32, {Dim("batch"), 2, 3});
  nn::Sequential{nn::Lstm{.features = 2}}(scope, x);
  absl::StatusOr<Session> session = Session::Create(graph, {.threads = 1});
  ASSERT_TRUE(session.ok()) << session.status();
  EXPECT_THAT(session->GetVariable("lstm_1/bias")->ToDoubles(), ElementsAre(0, 0, 1, 1, 0, 0, 0, 0));
  // Each block of the weights has the bound of a matrix [3, 2], sqrt(6/5), and not that of [3, 8].
  double largest = 0;
  for (double weight : session->GetVariable("lstm_1/input_weight")->ToDoubles())
    largest = std::max(largest, std::abs(weight));
  EXPECT_GT(largest, std::sqrt(6.0 / 11));
  EXPECT_LE(largest, std::sqrt(6.0 / 5));
}

// The label is the first of ten numbers; the others are noise. Without a memory no model beats the
// loss of a guess, 1.
TEST(Lstm, LearnsToRemember) {
  Graph graph;
  Scope scope(graph);
  const Value x = RandomNormal(scope, {32, 10, 1});
  const Value label = Squeeze(SliceAxis(x, 1, 0, 1), {2});
  const nn::Sequential model{nn::Lstm{.features = 16, .whole_sequence = false}, nn::Dense{1}};
  const Value loss = nn::MeanSquaredError(model(scope, x), label);
  const Update step = optim::Adam{.learning_rate = 0.01, .clip_norm = 1}.Minimize(loss);
  ASSERT_TRUE(graph.status().ok()) << graph.status();
  absl::StatusOr<Session> session = Session::Create(graph, {.threads = 1});
  ASSERT_TRUE(session.ok()) << session.status();
  double sum = 0;
  for (int i = 0; i < 400; ++i) {
    absl::StatusOr<std::vector<Tensor>> results = session->Run({}, {loss, step});
    ASSERT_TRUE(results.ok()) << results.status();
    if (i >= 380) sum += (*results)[0].ToDouble() / 20;
  }
  EXPECT_LT(sum, 0.1);
}

// Query 1 of sample 0 may attend to no key: its weights and its gradient are 0, and the output is
// the bias.
TEST(MultiHeadAttention, GivesZerosWhereAMaskLeavesNoKey) {
  const double low = -std::numeric_limits<double>::infinity();
  struct Row {
    std::string name;
    Tensor mask;
  };
  const Row rows[] = {
      {"bool",
       Tensor::Of<bool>({2, 2, 3}, {true, true, false, false, false, false, true, true, true, true, true, true})},
      {"added", Tensor::Of<double>({2, 2, 3}, {0, 0, low, low, low, low, 0, 0, 0, 0, 0, 0})},
  };
  for (const Row& row : rows) {
    SCOPED_TRACE(row.name);
    Graph graph;
    Scope scope(graph);
    const Value x = scope.Input("x", kFloat64, {2, 2, 4}), key = scope.Input("key", kFloat64, {2, 3, 4});
    const nn::Standalone attend("attend", nn::MultiHeadAttention{.heads = 2});
    const auto [y, weights] = attend(scope, x, {.key = key, .mask = scope.Constant(row.mask)});
    const std::vector<Value> gradients = Gradients({Sum(Square(y + 1))}, {x, key});
    Tensor queries(kFloat64, {2, 2, 4}), keys(kFloat64, {2, 3, 4});
    for (int64_t i = 0; i < 16; ++i) queries.mutable_data<double>()[i] = std::sin(static_cast<double>(i));
    for (int64_t i = 0; i < 24; ++i) keys.mutable_data<double>()[i] = std::cos(static_cast<double>(i));
    const std::vector<Tensor> results =
        RunOnce(graph, {{x, queries}, {key, keys}}, {y, weights, gradients[0], gradients[1]});
    for (const Tensor& tensor : results) {
      for (double value : tensor.ToDoubles()) EXPECT_TRUE(std::isfinite(value));
    }
    const std::vector<double> of_y = results[0].ToDoubles(), of_weights = results[1].ToDoubles(),
                              dx = results[2].ToDoubles();
    EXPECT_THAT(std::vector<double>(of_y.begin() + 4, of_y.begin() + 8), Each(0.0));
    for (int64_t head = 0; head < 2; ++head) {
      for (int64_t k = 0; k < 3; ++k) EXPECT_EQ(of_weights[head * 6 + 3 + k], 0);
      EXPECT_EQ(of_weights[head * 6 + 2], 0) << "the key that is excluded for query 0";
      EXPECT_NEAR(of_weights[head * 6] + of_weights[head * 6 + 1], 1, 1e-14);
    }
    EXPECT_THAT(std::vector<double>(dx.begin() + 4, dx.begin() + 8), Each(0.0));
    EXPECT_NE(dx[0], 0);
  }
}

// The same exclusions, written with masks of every rank, give the same bits.
TEST(MultiHeadAttention, TakesMasksOfEveryRank) {
  Graph graph;
  Scope scope(graph);
  const Value x = RandomNormal(scope, {2, 3, 4}, 0, 1, {.dtype = kFloat64});
  const nn::Standalone attend("attend", nn::MultiHeadAttention{.heads = 2});
  const Tensor keep = Tensor::Of<bool>({3}, {true, false, true});
  auto with = [&](std::vector<int64_t> sizes, bool whole) {
    Value mask = scope.Constant(keep);
    Shape shape;
    for (int64_t size : sizes) shape.Append(Dim(size));
    Shape ones = shape;
    if (!whole) {
      for (int axis = 0; axis + 1 < ones.rank(); ++axis) ones[axis] = Dim(1);
      mask = Reshape(mask, ones);
    } else {
      mask = BroadcastTo(mask, shape);
    }
    return attend(scope, x, {.mask = mask}).weights;
  };
  const std::vector<Tensor> results =
      RunOnce(graph, {},
              {with({3}, true), with({3, 3}, true), with({3, 3}, false), with({2, 3, 3}, true), with({2, 3, 3}, false),
               with({2, 2, 3, 3}, true), with({2, 2, 3, 3}, false)});
  for (const Tensor& weights : results) {
    EXPECT_TRUE(SameBits(weights, results[0]));
    EXPECT_EQ(weights.ToDoubles()[1], 0);
  }
  for (const Shape& shape : {Shape{2}, Shape{2, 3}, Shape{3, 3, 3}, Shape{2, 3, 3, 3}, Shape{1, 1, 1, 1, 3}, Shape{}}) {
    SCOPED_TRACE(shape.ToString());
    Graph other;
    Scope other_scope(other);
    const Value input = other_scope.Input("x", kFloat64, {2, 3, 4});
    const Value mask = other_scope.Input("mask", kBool, shape);
    const nn::Standalone attend("attend", nn::MultiHeadAttention{.heads = 2});
    EXPECT_FALSE(attend(other_scope, input, {.mask = mask}).y.valid());
    EXPECT_THAT(std::string(other.status().message()), HasSubstr("MultiHeadAttention: the mask has to be bool"));
  }
}

// A layer whose heads share keys is a layer of as many heads of keys, several of which are equal.
TEST(MultiHeadAttention, SharesKeysBetweenHeads) {
  Graph graph;
  Scope scope(graph);
  const Value x = scope.Input("x", kFloat64, {2, 5, 8});
  const nn::MultiHeadAttention shared{.heads = 4, .causal = true, .key_heads = 2};
  const nn::MultiHeadAttention all{.heads = 4, .causal = true};
  const Value of_shared = nn::Standalone("shared", shared)(scope, x, {}).y;
  const Value of_all = nn::Standalone("all", all)(scope, x, {}).y;
  ASSERT_TRUE(graph.status().ok()) << graph.status();
  absl::StatusOr<Session> session = Session::Create(graph);
  ASSERT_TRUE(session.ok()) << session.status();
  for (const std::string part : {"query", "key", "value", "output"}) {
    for (const std::string kind : {"_weight", "_bias"}) {
      const Tensor given = *session->GetVariable("shared/" + part + kind);
      if (part == "query" || part == "output") {
        ASSERT_TRUE(session->SetVariable("all/" + part + kind, given).ok());
        continue;
      }
      ASSERT_EQ(given.size(given.rank() - 1), 4);
      Tensor repeated(kFloat64, kind == "_bias" ? std::vector<int64_t>{8} : std::vector<int64_t>{8, 8});
      for (int64_t i = 0; i < repeated.num_elements(); ++i) {
        const int64_t column = i % 8, head = column / 2 / 2;
        repeated.mutable_data<double>()[i] = given.data<double>()[i / 8 * 4 + head * 2 + column % 2];
      }
      ASSERT_TRUE(session->SetVariable("all/" + part + kind, repeated).ok());
    }
  }
  Tensor data(kFloat64, {2, 5, 8});
  for (int64_t i = 0; i < 80; ++i) data.mutable_data<double>()[i] = std::sin(static_cast<double>(i));
  const auto results = session->Run({{x, data}}, {of_shared, of_all});
  ASSERT_TRUE(results.ok()) << results.status();
  for (int64_t i = 0; i < 80; ++i) EXPECT_NEAR((*results)[0].data<double>()[i], (*results)[1].data<double>()[i], 1e-12);
}

// Rotated queries and keys tell the distances of positions, and not the positions.
TEST(MultiHeadAttention, RotatesByDistances) {
  Graph graph;
  Scope scope(graph);
  const Value x = scope.Input("x", kFloat64, {1, 5, 8});
  const Value positions = scope.Input("positions", kInt64, {5});
  const nn::MultiHeadAttention layer{.heads = 2, .rotary = RotaryOptions{.positions = positions}};
  const Value y = nn::Standalone("attend", layer)(scope, x, {}).y;
  ASSERT_TRUE(graph.status().ok()) << graph.status();
  absl::StatusOr<Session> session = Session::Create(graph);
  ASSERT_TRUE(session.ok()) << session.status();
  Tensor data(kFloat64, {1, 5, 8});
  for (int64_t i = 0; i < 40; ++i) data.mutable_data<double>()[i] = std::sin(static_cast<double>(i));
  auto at = [&](std::vector<int64_t> numbers) {
    const auto results = session->Run({{x, data}, {positions, Tensor::Of<int64_t>({5}, numbers)}}, {y});
    EXPECT_TRUE(results.ok()) << results.status();
    return results.ok() ? (*results)[0].ToDoubles() : std::vector<double>(40);
  };
  const std::vector<double> first = at({0, 1, 2, 3, 4}), later = at({70, 71, 72, 73, 74}), spread = at({0, 2, 4, 6, 8});
  double moved = 0;
  for (size_t i = 0; i < first.size(); ++i) {
    EXPECT_NEAR(first[i], later[i], 1e-12);
    moved = std::max(moved, std::abs(first[i] - spread[i]));
  }
  EXPECT_GT(moved, 1e-3);
}

// A decoder that gets a sequence in parts gives what it gives for the whole, with one graph.
TEST(KeyValueCache, GoesOnWhereTheLastRunEnded) {
  struct Row {
    std::string name;
    nn::Layer positions;
    std::optional<RotaryOptions> rotary;
  };
  const Row rows[] = {{"learned", nn::PositionalEmbedding{.length = 7}, {}},
                      {"sinusoidal", nn::SinusoidalPositions{.length = 7}, {}},
                      {"rotary", [](Value x) { return x; }, RotaryOptions{}}};
  for (const Row& row : rows) {
    SCOPED_TRACE(row.name);
    Graph graph;
    Scope scope(graph);
    const nn::TransformerBlock block{.heads = 4, .causal = true, .key_heads = 2, .rotary = row.rotary};
    const nn::Sequential model{row.positions, block, block};
    const Value x = scope.Input("x", kFloat64, {2, Dim("time"), 8});
    const Value whole = model(scope, x, {.training = false});
    nn::KeyValueCache cache(scope, 7);
    const Value part = model(scope, x, {.training = false, .cache = &cache});
    ASSERT_TRUE(graph.status().ok()) << graph.status();
    absl::StatusOr<Session> session = Session::Create(graph);
    ASSERT_TRUE(session.ok()) << session.status();
    Tensor data(kFloat64, {2, 7, 8});
    for (int64_t i = 0; i < data.num_elements(); ++i) data.mutable_data<double>()[i] = std::sin(static_cast<double>(i));
    auto steps = [&](int64_t begin, int64_t end) {
      Tensor some(kFloat64, {2, end - begin, 8});
      for (int64_t b = 0; b < 2; ++b) {
        for (int64_t i = 0; i < (end - begin) * 8; ++i)
          some.mutable_data<double>()[b * (end - begin) * 8 + i] = data.data<double>()[(b * 7 + begin) * 8 + i];
      }
      return some;
    };
    const auto expected = session->Run({{x, data}}, {whole});
    ASSERT_TRUE(expected.ok()) << expected.status();
    auto expect_parts = [&](const std::vector<int64_t>& ends) {
      int64_t begin = 0;
      for (int64_t end : ends) {
        const auto results = session->Run({{x, steps(begin, end)}}, {part, cache.updates()});
        ASSERT_TRUE(results.ok()) << results.status();
        for (int64_t b = 0; b < 2; ++b) {
          for (int64_t i = 0; i < (end - begin) * 8; ++i) {
            EXPECT_NEAR((*results)[0].data<double>()[b * (end - begin) * 8 + i],
                        (*expected)[0].data<double>()[(b * 7 + begin) * 8 + i], 1e-12);
          }
        }
        begin = end;
      }
    };
    expect_parts({4, 5, 6});
    // Two more steps are too many; the cache stays as it is.
    const auto refused = session->Run({{x, steps(5, 7)}}, {part, cache.updates()});
    EXPECT_EQ(refused.status().code(), absl::StatusCode::kOutOfRange) << refused.status();
    EXPECT_EQ(session->GetVariable("position")->ToDouble(), 6);
    // A new sequence sees nothing of the old one.
    ASSERT_TRUE(session->SetVariable("position", Tensor::Scalar(int64_t{0})).ok());
    expect_parts({1, 2, 7});
  }
}

// The plan has no room for a copy of the cache.
TEST(KeyValueCache, IsWrittenInPlace) {
  constexpr int64_t kLength = 10'000;
  Graph graph;
  Scope scope(graph);
  const nn::TransformerBlock block{.heads = 2, .causal = true};
  const nn::Sequential model{block, block};
  const Value x = scope.Input("x", kFloat32, {1, 1, 16});
  nn::KeyValueCache cache(scope, kLength);
  const Value y = model(scope, x, {.training = false, .cache = &cache});
  absl::StatusOr<Session> session = Session::Create(graph, {.threads = 1});
  ASSERT_TRUE(session.ok()) << session.status();
  const absl::StatusOr<std::string> plan =
      session->DescribePlan({{x, Tensor(kFloat32, {1, 1, 16})}}, {y, cache.updates()});
  ASSERT_TRUE(plan.ok()) << plan.status();
  const std::string peak = "planned peak ";
  ASSERT_NE(plan->find(peak), std::string::npos) << *plan;
  EXPECT_LT(std::stoll(plan->substr(plan->find(peak) + peak.size())), kLength * 16 * int64_t{sizeof(float)}) << *plan;
}

TEST(KeyValueCache, RefusesWhatIsNotCausal) {
  auto error_of = [](const nn::MultiHeadAttention& layer, const Shape& shape, int64_t length, bool with_mask) {
    Graph graph;
    Scope scope(graph);
    const Value x = scope.Input("x", kFloat32, shape);
    nn::KeyValueCache cache(scope, length);
    nn::MultiHeadAttention::Inputs inputs;
    if (with_mask) inputs.mask = scope.Input("mask", kBool, {3});
    nn::Standalone("attend", layer)(scope, x, inputs, {.cache = &cache});
    return std::string(graph.status().message());
  };
  EXPECT_THAT(error_of({.heads = 2}, {1, 3, 4}, 8, false), HasSubstr("with a cache, attention has to be causal"));
  EXPECT_THAT(error_of({.heads = 2, .causal = true}, {1, 3, 4}, 8, true), HasSubstr("takes neither a mask"));
  EXPECT_THAT(error_of({.heads = 2, .causal = true}, {Dim("batch"), 3, 4}, 8, false),
              HasSubstr("KeyValueCache: axis 0 is batch and has to be known"));
  EXPECT_THAT(error_of({.heads = 2, .causal = true}, {1, 3, 4}, 0, false),
              HasSubstr("KeyValueCache: the length is 0 and has to be at least 1"));
}

TEST(MultiHeadAttention, TakesATimeThatTheRunTells) {
  Graph graph;
  Scope scope(graph);
  const Value known = scope.Input("known", kFloat64, {Dim("batch"), 3, 4});
  const Value x = scope.Input("x", kFloat64, {Dim("batch"), Dim("time"), 4});
  const Value lengths = scope.Input("lengths", kInt32, {Dim("batch")});
  const nn::Sequential model{nn::MultiHeadAttention{.heads = 2, .causal = true}, nn::TransformerBlock{.heads = 2}};
  const Value expected = model(scope, known, {.lengths = lengths}), y = model(scope, x, {.lengths = lengths});
  Tensor values(kFloat64, {2, 3, 4});
  for (int64_t i = 0; i < 24; ++i) values.mutable_data<double>()[i] = std::sin(static_cast<double>(i));
  const std::vector<Tensor> results =
      RunOnce(graph, {{known, values}, {x, values}, {lengths, Tensor::Of<int32_t>({2}, {2, 3})}}, {expected, y});
  EXPECT_LT(LargestDifference(results[0], results[1]), 1e-14);
}

TEST(MultiHeadAttention, DropsWeightsInTrainingOnly) {
  Graph graph;
  Scope scope(graph);
  const Value x = RandomNormal(scope, {4, 8, 4});
  const nn::Sequential dropping{nn::MultiHeadAttention{.heads = 2, .dropout = 0.5}};
  const Value training = dropping(scope, x), inference = dropping(scope, x, {.training = false});
  const std::vector<Tensor> results =
      RunOnce(graph, {}, {training, inference, dropping(scope, x, {.training = false})});
  EXPECT_GT(LargestDifference(results[0], results[1]), 1e-3);
  EXPECT_TRUE(SameBits(results[1], results[2]));
}

TEST(Positions, RefuseATableThatFitsInNoMemory) {
  Graph graph;
  Scope scope(graph);
  const Value x = scope.Input("x", kFloat32, {Dim("batch"), int64_t{1} << 40, 2});
  EXPECT_FALSE(nn::Sequential{nn::SinusoidalPositions{}}(scope, x).valid());
  EXPECT_THAT(std::string(graph.status().message()), HasSubstr("a table for 1099511627776 steps has more than 2^28"));
}

TEST(Positions, TakeATimeThatTheRunTells) {
  Graph graph;
  Scope scope(graph);
  const Value x = scope.Input("x", kFloat64, {Dim("batch"), Dim("time"), 2});
  const Value sines = nn::Sequential{nn::SinusoidalPositions{.length = 4}}(scope, x);
  const Value learned = nn::Sequential{nn::PositionalEmbedding{.length = 4}}(scope, x);
  ASSERT_TRUE(graph.status().ok()) << graph.status();
  absl::StatusOr<Session> session = Session::Create(graph, {.threads = 1});
  ASSERT_TRUE(session.ok()) << session.status();
  absl::StatusOr<std::vector<Tensor>> results = session->Run({{x, Tensor(kFloat64, {1, 2, 2})}}, {sines, learned});
  ASSERT_TRUE(results.ok()) << results.status();
  EXPECT_THAT((*results)[0].ToDoubles(), ElementsAre(0, 1, std::sin(1.0), std::cos(1.0)));
  EXPECT_EQ((*results)[1].num_elements(), 4);
  EXPECT_FALSE(session->Run({{x, Tensor(kFloat64, {1, 5, 2})}}, {learned}).ok()) << "5 steps, and length is 4";
  EXPECT_FALSE(session->Run({{x, Tensor(kFloat64, {1, 5, 2})}}, {sines}).ok());
}

}  // namespace
}  // namespace gradweave
