// Compares single layers and their gradients with results of PyTorch (see
// tests/models/make_layer_reference.py).
#include <cstdint>
#include <map>
#include <string>
#include <utility>
#include <vector>

#include "gradweave/gradweave.h"
#include "gtest/gtest.h"
#include "tests/models/reference.h"
#include "tests/test_device.h"

namespace gradweave {
namespace {

constexpr double kTolerance64 = 1e-11;
constexpr uint64_t kX = 900, kDy = 901, kParameters = 910;  // Seeds, as in make_layer_reference.py.

struct Parameter {
  std::string name;
  std::vector<int64_t> sizes;

  // The gradient of a bias of keys is 0 except for rounding, and the reference leaves it out.
  bool is_recorded() const { return name.find("key_bias") == std::string::npos; }
};

// A graph with feeds, and the parameters of the layers in it.
struct Trial {
  Graph graph;
  Scope scope{graph};
  std::vector<Feed> feeds;
  std::vector<std::pair<std::string, Tensor>> variables;
  std::vector<std::pair<std::string, Value>> operands;  // Those whose gradients are compared.

  // An input with a symbolic first axis. Each run gets this tensor.
  Value Input(const std::string& name, const Tensor& tensor) {
    Shape shape = {Dim("batch")};
    for (int axis = 1; axis < tensor.rank(); ++axis) shape.Append(Dim(tensor.sizes()[axis]));
    const Value input = scope.Input(name, tensor.dtype(), shape);
    feeds.push_back({input, tensor});
    return input;
  }

  // The same for an operand.
  Value Operand(const std::string& name, const Tensor& tensor) {
    operands.emplace_back(name, Input(name, tensor));
    return operands.back().second;
  }

  // Sets the variables, whose names begin with the prefix, to numbers.
  void Set(const std::string& prefix, const std::vector<Parameter>& parameters) {
    for (size_t i = 0; i < parameters.size(); ++i) {
      const Parameter& parameter = parameters[i];
      variables.emplace_back(prefix + parameter.name, Numbers(kFloat64, kParameters + i, parameter.sizes));
      if (parameter.is_recorded())
        operands.emplace_back(parameter.name, graph.value(graph.FindNamed(prefix + parameter.name)));
    }
  }

  struct Output {
    std::string name;
    Value value;
    uint64_t factors;  // Seed of the numbers that it is multiplied by in the sum that has the gradients.
  };

  // Returns the outputs, and the gradients of the operands under "gradient/".
  std::map<std::string, Tensor> Run(const std::vector<Output>& outputs) {
    EXPECT_TRUE(graph.status().ok()) << graph.status();
    if (!graph.status().ok()) return {};
    std::vector<Value> ys, xs, dys;
    for (const Output& output : outputs) {
      const std::vector<int64_t> sizes =
          output.value.shape().Substitute({{"batch", feeds[0].second.sizes()[0]}}).sizes();
      ys.push_back(output.value);
      dys.push_back(Input("factors_of_" + output.name, Numbers(kFloat64, output.factors, sizes)));
    }
    for (const auto& [name, operand] : operands) xs.push_back(operand);
    const std::vector<Value> gradients = Gradients(ys, xs, dys);
    EXPECT_TRUE(graph.status().ok()) << graph.status();
    absl::StatusOr<Session> session = Session::Create(graph, {.device = TestDevice(), .variables = variables});
    EXPECT_TRUE(session.ok()) << session.status();
    if (!session.ok()) return {};
    std::vector<Fetch> fetches(ys.begin(), ys.end());
    fetches.insert(fetches.end(), gradients.begin(), gradients.end());
    absl::StatusOr<std::vector<Tensor>> tensors = session->Run(feeds, fetches);
    EXPECT_TRUE(tensors.ok()) << tensors.status();
    if (!tensors.ok()) return {};
    std::map<std::string, Tensor> results;
    for (size_t i = 0; i < outputs.size(); ++i) results[outputs[i].name] = (*tensors)[i];
    for (size_t i = 0; i < operands.size(); ++i)
      results["gradient/" + operands[i].first] = (*tensors)[outputs.size() + i];
    return results;
  }
};

const std::vector<int64_t> kLengths = {5, 2, 3};

// A row of the reference: a layer in a Sequential.
struct LayerRow {
  std::string name;
  nn::Layer layer;
  std::vector<int64_t> x;
  std::vector<Parameter> parameters = {};
  double bound = 1;                   // x is in [-bound, bound).
  std::vector<int64_t> lengths = {};  // CallOptions::lengths, if not empty.
};

void ExpectAsPyTorch(const std::vector<LayerRow>& rows) {
  for (const LayerRow& row : rows) {
    SCOPED_TRACE(row.name);
    Trial trial;
    const Value x = trial.Operand("x", Numbers(kFloat64, kX, row.x, -row.bound, row.bound));
    nn::CallOptions options;
    if (!row.lengths.empty()) {
      options.lengths =
          trial.Input("lengths", Tensor::Of<int64_t>({static_cast<int64_t>(row.lengths.size())}, row.lengths));
    }
    const Value y = nn::Sequential{row.layer}(trial.scope, x, options);
    trial.Set(row.layer.kind() + "_1/", row.parameters);
    EXPECT_EQ(DifferenceFromReference(row.name + "/", trial.Run({{"y", y, kDy}}), kTolerance64), "");
  }
}

TEST(ActivationLayers, AsPyTorch) {
  ExpectAsPyTorch({
      {"swish", nn::Swish{}, {60}, {}, 6},
      {"hard_sigmoid", nn::HardSigmoid{}, {60}, {}, 6},
      {"hard_swish", nn::HardSwish{}, {60}, {}, 6},
      {"mish", nn::Mish{}, {60}, {}, 6},
      {"prelu", nn::PRelu{}, {3, 4, 5}, {{"slope", {4}}}},
      {"prelu_shared", nn::PRelu{.per_channel = false}, {3, 4, 5}, {{"slope", {}}}},
  });
}

TEST(NormLayers, AsPyTorch) {
  const std::vector<Parameter> affine = {{"scale", {6}}, {"offset", {6}}};
  ExpectAsPyTorch({
      {"group_norm", nn::GroupNorm{.groups = 3, .epsilon = 1e-3}, {2, 6, 3, 4}, affine},
      {"group_norm_plain", nn::GroupNorm{.groups = 2, .affine = false}, {4, 6}},
      {"instance_norm", nn::InstanceNorm{}, {2, 6, 5}, affine},
      {"instance_norm_plain", nn::InstanceNorm{.affine = false}, {2, 3, 4, 5}},
      {"rms_norm", nn::RmsNorm{.axes = 2}, {3, 4, 6}, {{"scale", {4, 6}}}},
  });
}

TEST(LayersAlongOneAxis, AsPyTorch) {
  ExpectAsPyTorch({
      {"conv1d",
       nn::Conv1D{.channels = 6, .kernel = 3, .stride = 2, .padding = 3, .dilation = 2, .groups = 2},
       {2, 4, 11},
       {{"filter", {6, 2, 3}}, {"bias", {6}}}},
      {"max_pool1d", nn::MaxPool1D{.pool = 3, .stride = 2, .padding = 1}, {2, 3, 9}},
      {"avg_pool1d", nn::AvgPool1D{}, {2, 3, 9}},
      {"avg_pool1d_counted", nn::AvgPool1D{.pool = 3, .stride = 2, .padding = 1, .count_padding = true}, {2, 3, 9}},
  });
}

constexpr int64_t kTime = 5, kWidth = 4, kFeatures = 3, kProjection = 2;

std::vector<Parameter> RecurrentParameters(int64_t gates, const std::string& prefix = "", int64_t width = kWidth,
                                           int64_t hidden = kFeatures) {
  return {{prefix + "input_weight", {width, gates * kFeatures}},
          {prefix + "recurrent_weight", {hidden, gates * kFeatures}},
          {prefix + "bias", {gates * kFeatures}}};
}

std::vector<Parameter> ProjectedParameters(const std::string& prefix = "", int64_t width = kWidth) {
  std::vector<Parameter> parameters = RecurrentParameters(4, prefix, width, kProjection);
  parameters.push_back({prefix + "projection_weight", {kFeatures, kProjection}});
  return parameters;
}

// The sizes of a layer's states. Its names in the reference end with the suffix.
struct StateSizes {
  int64_t hidden = kFeatures, cell = 0;  // 0: there is no cell.
  std::string suffix = {};
};

// Compares sequence, last states, and the gradients for input, parameters and first states. `apply`
// takes the input, the first states and the options, and gives the sequence and the last states.
template <typename Apply>
void ExpectStates(const std::string& name, const std::vector<StateSizes>& sizes,
                  const std::vector<Parameter>& parameters, const std::vector<int64_t>& lengths, const Apply& apply) {
  SCOPED_TRACE(name);
  Trial trial;
  const Value x = trial.Operand("x", Numbers(kFloat64, kX, {3, kTime, kWidth}));
  std::vector<nn::RecurrentState> first;
  uint64_t seed = 950;
  for (const StateSizes& of_layer : sizes) {
    nn::RecurrentState& state = first.emplace_back();
    state.hidden = trial.Operand("hidden" + of_layer.suffix, Numbers(kFloat64, seed++, {3, of_layer.hidden}));
    if (of_layer.cell == 0) continue;
    state.cell = trial.Operand("cell" + of_layer.suffix, Numbers(kFloat64, seed++, {3, of_layer.cell}));
  }
  nn::CallOptions options;
  if (!lengths.empty()) options.lengths = trial.Input("lengths", Tensor::Of<int64_t>({3}, lengths));
  const nn::RecurrentStack::Result result = apply(trial.scope, x, first, options);
  trial.Set("net/", parameters);
  std::vector<Trial::Output> outputs = {{"sequence", result.sequence, kDy}};
  ASSERT_EQ(result.states.size(), sizes.size());
  uint64_t factors = 960;
  for (size_t i = 0; i < sizes.size(); ++i) {
    outputs.push_back({"last_hidden" + sizes[i].suffix, result.states[i].hidden, factors++});
    if (sizes[i].cell > 0) outputs.push_back({"last_cell" + sizes[i].suffix, result.states[i].cell, factors++});
  }
  EXPECT_EQ(DifferenceFromReference(name + "/", trial.Run(outputs), kTolerance64), "");
}

template <typename L>
void ExpectRecurrent(const std::string& name, const L& layer, const std::vector<Parameter>& parameters, bool has_cell,
                     const std::vector<int64_t>& lengths = {}, int64_t hidden = kFeatures) {
  const nn::Standalone<L> net("net", layer);
  ExpectStates(name, {{hidden, has_cell ? kFeatures : 0}}, parameters, lengths,
               [&](Scope& scope, const Value& x, const std::vector<nn::RecurrentState>& first,
                   const nn::CallOptions& options) -> nn::RecurrentStack::Result {
                 const nn::RecurrentResult result = net(scope, x, {.state = first[0]}, options);
                 return {result.sequence, {result.state}};
               });
}

void ExpectStack(const std::string& name, const nn::RecurrentStack& stack, const std::vector<StateSizes>& sizes,
                 const std::vector<Parameter>& parameters, const std::vector<int64_t>& lengths = {}) {
  const nn::Standalone net("net", stack);
  ExpectStates(name, sizes, parameters, lengths,
               [&](Scope& scope, const Value& x, const std::vector<nn::RecurrentState>& first,
                   const nn::CallOptions& options) { return net(scope, x, {.states = first}, options); });
}

TEST(RecurrentLayers, AsPyTorch) {
  std::vector<Parameter> gru = RecurrentParameters(3);
  gru.push_back({"recurrent_bias", {kFeatures}});
  for (bool backwards : {false, true}) {
    const std::string suffix = backwards ? "_backwards" : "";
    for (bool padded : {false, true}) {
      const std::string name = suffix + (padded ? "_lengths" : "");
      const std::vector<int64_t> lengths = padded ? kLengths : std::vector<int64_t>();
      ExpectRecurrent("lstm" + name, nn::Lstm{.features = kFeatures, .backwards = backwards}, RecurrentParameters(4),
                      true, lengths);
      ExpectRecurrent("gru" + name, nn::Gru{.features = kFeatures, .backwards = backwards}, gru, false, lengths);
    }
  }
  ExpectRecurrent("gru_reset_before", nn::Gru{.features = kFeatures, .reset_after = false}, RecurrentParameters(3),
                  false);
  ExpectRecurrent("rnn", nn::Rnn{.features = kFeatures}, RecurrentParameters(1), false);
  ExpectRecurrent("rnn_relu_lengths", nn::Rnn{.features = kFeatures, .activation = nn::Rnn::kRelu},
                  RecurrentParameters(1), false, kLengths);
}

TEST(Lstm, WithPeepholesAndProjectionsAsPyTorch) {
  std::vector<Parameter> with_peepholes = RecurrentParameters(4);
  with_peepholes.push_back({"peephole_weight", {3 * kFeatures}});
  for (bool variant : {false, true}) {
    const std::string suffix = variant ? "_backwards_lengths" : "";
    const std::vector<int64_t> lengths = variant ? kLengths : std::vector<int64_t>();
    ExpectRecurrent("lstm_projection" + suffix,
                    nn::Lstm{.features = kFeatures, .backwards = variant, .projection = kProjection},
                    ProjectedParameters(), true, lengths, kProjection);
    ExpectRecurrent("lstm_peepholes" + suffix, nn::Lstm{.features = kFeatures, .backwards = variant, .peepholes = true},
                    with_peepholes, true, lengths);
  }
  std::vector<Parameter> both = RecurrentParameters(4, "", kWidth, kProjection);
  both.push_back({"peephole_weight", {3 * kFeatures}});
  both.push_back({"projection_weight", {kFeatures, kProjection}});
  ExpectRecurrent("lstm_peepholes_projection_lengths",
                  nn::Lstm{.features = kFeatures, .peepholes = true, .projection = kProjection}, both, true, kLengths,
                  kProjection);
}

// PyTorch's layers with num_layers = 2.
TEST(RecurrentStack, AsPyTorch) {
  const nn::Bidirectional both_ways{nn::Lstm{.features = kFeatures, .projection = kProjection}};
  std::vector<Parameter> parameters;
  std::vector<StateSizes> sizes;
  for (int layer = 1; layer <= 2; ++layer) {
    for (const char* side : {"forward/", "backward/"}) {
      const std::vector<Parameter> of_layer =
          ProjectedParameters("layer_" + std::to_string(layer) + "/" + side, layer == 1 ? kWidth : 2 * kProjection);
      parameters.insert(parameters.end(), of_layer.begin(), of_layer.end());
      sizes.push_back({kProjection, kFeatures, "_" + std::to_string(sizes.size())});
    }
  }
  ExpectStack("stack_bidirectional", {.layers = {both_ways, both_ways}}, sizes, parameters, kLengths);
  std::vector<Parameter> gru;
  for (int layer = 1; layer <= 2; ++layer) {
    const std::string prefix = "layer_" + std::to_string(layer) + "/";
    const std::vector<Parameter> of_layer = RecurrentParameters(3, prefix, layer == 1 ? kWidth : kFeatures);
    gru.insert(gru.end(), of_layer.begin(), of_layer.end());
    gru.push_back({prefix + "recurrent_bias", {kFeatures}});
  }
  const nn::Gru layer{.features = kFeatures};
  ExpectStack("stack_gru", {.layers = {layer, layer}}, {{.suffix = "_0"}, {.suffix = "_1"}}, gru);
}

TEST(Bidirectional, AsPyTorch) {
  std::vector<Parameter> parameters = RecurrentParameters(4, "forward/");
  for (const Parameter& parameter : RecurrentParameters(4, "backward/")) parameters.push_back(parameter);
  const std::vector<int64_t> x = {3, kTime, kWidth};
  const nn::Lstm lstm{.features = kFeatures}, last{.features = kFeatures, .whole_sequence = false};
  ExpectAsPyTorch({
      {"bidirectional", nn::Bidirectional{lstm}, x, parameters},
      {"bidirectional_sum", nn::Bidirectional{lstm, nn::Bidirectional::kSum}, x, parameters, 1, kLengths},
      {"bidirectional_last", nn::Bidirectional{last}, x, parameters, 1, kLengths},
  });
}

// The parameters of attention on queries, keys and values of these widths.
std::vector<Parameter> AttentionParameters(int64_t width, int64_t key, int64_t value, int64_t features,
                                           const std::string& prefix = "") {
  return {{prefix + "query_weight", {width, features}}, {prefix + "key_weight", {key, features}},
          {prefix + "value_weight", {value, features}}, {prefix + "output_weight", {features, width}},
          {prefix + "query_bias", {features}},          {prefix + "key_bias", {features}},
          {prefix + "value_bias", {features}},          {prefix + "output_bias", {width}}};
}

// The masks of make_layer_reference.py for two samples, three heads, five queries and five keys.
// There True excludes.
Tensor PerHeadMask() {
  const Tensor numbers = Numbers(kFloat64, 971, {2, 3, 5, 5});
  Tensor mask(kBool, {2, 3, 5, 5});
  for (int64_t i = 0; i < mask.num_elements(); ++i)
    mask.mutable_data<bool>()[i] = numbers.data<double>()[i] <= 0.3 || i / 5 % 5 == i % 5;
  return mask;
}

TEST(MultiHeadAttention, AsPyTorch) {
  const std::vector<Parameter> parameters = AttentionParameters(6, 6, 6, 6);
  ExpectAsPyTorch({
      {"attention_layer_plain", nn::MultiHeadAttention{.heads = 3}, {2, 5, 6}, parameters},
      {"attention_layer_causal", nn::MultiHeadAttention{.heads = 3, .causal = true}, {2, 5, 6}, parameters},
      {"attention_layer_lengths", nn::MultiHeadAttention{.heads = 3}, {2, 5, 6}, parameters, 1, {3, 5}},
  });
  struct Row {
    std::string name;
    int64_t heads;
    std::vector<Parameter> parameters;
    Tensor mask = {}, key = {}, value = {};
  };
  const Row rows[] = {
      {"attention_layer_added", 3, parameters, Numbers(kFloat64, 970, {5, 5}, -2, 2)},
      {"attention_layer_per_head", 3, parameters, PerHeadMask()},
      {"attention_layer_cross",
       2,
       AttentionParameters(6, 5, 3, 6),
       {},
       Numbers(kFloat64, 972, {2, 4, 5}),
       Numbers(kFloat64, 973, {2, 4, 3})},
  };
  for (const Row& row : rows) {
    SCOPED_TRACE(row.name);
    Trial trial;
    const Value x = trial.Operand("x", Numbers(kFloat64, kX, {2, 5, 6}));
    nn::MultiHeadAttention::Inputs inputs;
    if (row.mask.rank() == 2) inputs.mask = trial.scope.Constant(row.mask);
    if (row.mask.rank() == 4) inputs.mask = trial.Input("mask", row.mask);
    if (row.key.rank() == 3) inputs.key = trial.Input("key", row.key);
    if (row.value.rank() == 3) inputs.value = trial.Input("value", row.value);
    const nn::Standalone attend("attend", nn::MultiHeadAttention{.heads = row.heads});
    const Value y = attend(trial.scope, x, inputs).y;
    trial.Set("attend/", row.parameters);
    EXPECT_EQ(DifferenceFromReference(row.name + "/", trial.Run({{"y", y, kDy}}), kTolerance64), "");
  }
}

TEST(MultiHeadAttention, GivesPyTorchsWeights) {
  Trial trial;
  const Value x = trial.Input("x", Numbers(kFloat64, kX, {2, 5, 6}));
  const nn::Standalone attend("attend", nn::MultiHeadAttention{.heads = 3});
  const Value weights = attend(trial.scope, x).weights;
  trial.Set("attend/", AttentionParameters(6, 6, 6, 6));
  trial.operands.clear();
  EXPECT_EQ(DifferenceFromReference("attention_weights/", trial.Run({{"weights", weights, kDy}}), kTolerance64), "");
}

TEST(TransformerBlock, AsPyTorch) {
  const std::string one = "residual_1/", two = "residual_2/";
  std::vector<Parameter> parameters = {{one + "layer_norm_1/scale", {4}}, {one + "layer_norm_1/offset", {4}}};
  for (const Parameter& parameter : AttentionParameters(4, 4, 4, 4, one + "multi_head_attention_1/"))
    parameters.push_back(parameter);
  for (const Parameter& parameter : std::vector<Parameter>{{two + "layer_norm_1/scale", {4}},
                                                           {two + "layer_norm_1/offset", {4}},
                                                           {two + "dense_1/weight", {4, 7}},
                                                           {two + "dense_1/bias", {7}},
                                                           {two + "dense_2/weight", {7, 4}},
                                                           {two + "dense_2/bias", {4}}}) {
    parameters.push_back(parameter);
  }
  ExpectAsPyTorch({{"transformer_block", nn::TransformerBlock{.heads = 2, .hidden = 7}, {2, 3, 4}, parameters}});
}

TEST(Positions, AsPyTorch) {
  ExpectAsPyTorch({
      {"positional_embedding", nn::PositionalEmbedding{.length = 5}, {2, 3, 4}, {{"table", {5, 4}}}},
      {"sinusoidal_positions", nn::SinusoidalPositions{}, {2, 50, 8}},
  });
}

}  // namespace
}  // namespace gradweave
