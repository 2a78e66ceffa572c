// Layers one by one: refused settings, gradients, shapes. tests/models/layers_test.cc holds their
// values against PyTorch.
#include <cmath>
#include <limits>
#include <string>
#include <utility>
#include <vector>

#include "absl/types/span.h"
#include "gmock/gmock.h"
#include "gradweave/frontend/layers.h"
#include "gradweave/graph/passes/autodiff.h"
#include "gradweave/ops/elementwise.h"
#include "gradweave/ops/reduction.h"
#include "gradweave/ops/scope.h"
#include "gradweave/runtime/session/session.h"
#include "gtest/gtest.h"

namespace gradweave {
namespace {

using ::testing::HasSubstr;

const double kNan = std::numeric_limits<double>::quiet_NaN();
const double kInfinity = std::numeric_limits<double>::infinity();

struct Refused {
  nn::Layer layer;
  Shape x;
  std::string message;
};

std::vector<Refused> RefusedLayers() {
  const Shape image = {Dim("n"), 4, 8, 8}, sequence = {Dim("n"), 4, 8}, row = {Dim("n"), 4}, steps = {Dim("n"), 5, 4};
  return {
      {nn::Conv2D{.channels = 0}, image, "Conv2D: channels is 0 and has to be at least 1"},
      {nn::Conv2D{.channels = int64_t{1} << 31}, image, "Conv2D: channels is 2147483648 and has to be at most"},
      {nn::Conv2D{.channels = 2, .kernel = 0}, image, "Conv2D: kernel is 0"},
      {nn::Conv2D{.channels = 2, .kernel = {3, -1}}, image, "Conv2D: kernel is -1"},
      {nn::Conv2D{.channels = 2, .stride = 0}, image, "Conv2D: stride is 0"},
      {nn::Conv2D{.channels = 2, .padding = -1}, image, "Conv2D: padding is -1 and has to be at least 0"},
      {nn::Conv2D{.channels = 2, .dilation = 0}, image, "Conv2D: dilation is 0"},
      {nn::Conv2D{.channels = 2, .groups = 0}, image, "Conv2D: groups is 0"},
      {nn::Conv2D{.channels = 6, .groups = 3}, image, "Conv2D: groups is 3 and has to divide the 4 input channels"},
      {nn::Conv2D{.channels = 3, .groups = 2}, image, "Conv2D: groups is 2 and has to divide the 3 output channels"},
      {nn::Conv2D{.channels = 3}, row, "Conv2D: the input has to have at least 4 axes"},
      {nn::Conv1D{.channels = 0}, sequence, "Conv1D: channels is 0"},
      {nn::Conv1D{.channels = 2, .kernel = 0}, sequence, "Conv1D: kernel is 0"},
      {nn::Conv1D{.channels = 2, .stride = 0}, sequence, "Conv1D: stride is 0"},
      {nn::Conv1D{.channels = 2, .padding = -2}, sequence, "Conv1D: padding is -2"},
      {nn::Conv1D{.channels = 2, .dilation = 0}, sequence, "Conv1D: dilation is 0"},
      {nn::Conv1D{.channels = 2, .groups = 3}, sequence, "Conv1D: groups is 3 and has to divide the 4 input channels"},
      {nn::Conv1D{.channels = 2}, image, "Conv1D: the input has to be [batch, channels, length]"},
      {nn::ConvTranspose2D{.channels = 0}, image, "ConvTranspose2D: channels is 0"},
      {nn::ConvTranspose2D{.channels = 2, .kernel = 0}, image, "ConvTranspose2D: kernel is 0"},
      {nn::ConvTranspose2D{.channels = 2, .stride = -1}, image, "ConvTranspose2D: stride is -1"},
      {nn::ConvTranspose2D{.channels = 2, .padding = -1}, image, "ConvTranspose2D: padding is -1"},
      {nn::ConvTranspose2D{.channels = 2, .output_padding = -1}, image, "ConvTranspose2D: output_padding is -1"},
      {nn::Dense{}, row, "Dense: features is 0 and has to be at least 1"},
      {nn::Dense{3}, {Dim("n"), Dim("m")}, "Dense: axis -1 of the input is m and has to be known"},
      {nn::AvgPool2D{.pool = 0}, image, "AvgPool2D: pool is 0"},
      {nn::AvgPool2D{.stride = {0, 2}}, image, "AvgPool2D: stride is 0"},
      {nn::AvgPool2D{.padding = -1}, image, "AvgPool2D: padding is -1"},
      {nn::MaxPool2D{.pool = {2, 0}}, image, "MaxPool2D: pool is 0"},
      {nn::MaxPool2D{.stride = -1}, image, "MaxPool2D: stride is -1"},
      {nn::MaxPool2D{.padding = 2}, image, "MaxPool2D: the padding 2 of the height has to be in [0, 2)"},
      {nn::AvgPool1D{.pool = 0}, sequence, "AvgPool1D: pool is 0"},
      {nn::AvgPool1D{.stride = -1}, sequence, "AvgPool1D: stride is -1"},
      {nn::MaxPool1D{.pool = -3}, sequence, "MaxPool1D: pool is -3"},
      {nn::MaxPool1D{.padding = -1}, sequence, "MaxPool1D: padding is -1"},
      {nn::MaxPool1D{}, row, "MaxPool1D: the input has to be [batch, channels, length]"},
      {nn::Reshape{{3, -1}}, row, "Reshape: the 4*n elements are not a multiple"},
      {nn::Dropout{1}, row, "Dropout: rate is 1 and must be in [0, 1)"},
      {nn::Dropout{-0.1}, row, "Dropout: rate is -0.1"},
      {nn::Dropout{kNan}, row, "Dropout: rate is nan"},
      {nn::BatchNorm{.momentum = 1.5}, row, "BatchNorm: momentum is 1.5 and must be in [0, 1]"},
      {nn::BatchNorm{.momentum = kNan}, row, "BatchNorm: momentum is nan"},
      {nn::BatchNorm{.epsilon = -1}, row, "BatchNorm: epsilon is -1 and must be finite and at least 0"},
      {nn::LayerNorm{.axes = 0}, row, "LayerNorm: axes is 0 and has to be in [1, 2]"},
      {nn::LayerNorm{.axes = 3}, row, "LayerNorm: axes is 3"},
      {nn::LayerNorm{.epsilon = kNan}, row, "LayerNorm: epsilon is nan"},
      {nn::GroupNorm{}, image, "GroupNorm: groups is 0 and has to be at least 1"},
      {nn::GroupNorm{.groups = 3}, image, "GroupNorm: groups is 3 and has to divide the 4 channels"},
      {nn::GroupNorm{.groups = 4}, row, "GroupNorm: each group has one value in each sample"},
      {nn::GroupNorm{.groups = 2, .epsilon = -1}, row, "GroupNorm: epsilon is -1"},
      {nn::InstanceNorm{.epsilon = kInfinity}, image, "InstanceNorm: epsilon is inf"},
      {nn::InstanceNorm{}, row, "InstanceNorm: the input has to have at least 3 axes"},
      {nn::InstanceNorm{}, {Dim("n"), 4, 1}, "InstanceNorm: each channel has one value in each sample"},
      {nn::RmsNorm{.axes = -1}, row, "RmsNorm: axes is -1"},
      {nn::RmsNorm{.epsilon = -1}, row, "RmsNorm: epsilon is -1"},
      {nn::Embedding{.vocabulary = 0, .features = 2}, row, "Embedding: vocabulary is 0"},
      {nn::Embedding{.vocabulary = 5, .features = -2}, row, "Embedding: features is -2"},
      {nn::Embedding{.vocabulary = 5, .features = 2, .dtype = kInt32}, row,
       "Embedding: the dtype of the table is int32"},
      {nn::LeakyRelu{.slope = kNan}, row, "LeakyRelu: slope is nan and must be finite"},
      {nn::Elu{.alpha = kInfinity}, row, "Elu: alpha is inf and must be finite"},
      {nn::Softmax{.axis = 2}, row, "Softmax: axis 2 is outside [0, 2)"},
      {nn::PRelu{.initial_slope = kNan}, row, "PRelu: initial_slope is nan"},
      {nn::PRelu{}, {Dim("n")}, "PRelu: the input has to have at least 2 axes"},
      {nn::Lstm{}, steps, "Lstm: features is 0"},
      {nn::Lstm{.features = 2, .forget_bias = kNan}, steps, "Lstm: forget_bias is nan"},
      {nn::Lstm{.features = 2}, row, "Lstm: the input has to be [batch, time, features]"},
      {nn::Lstm{.features = 2}, {Dim("n"), 0, 3}, "Lstm: the time, axis 1 of the input, is 0 and has to be at least 1"},
      {nn::Lstm{.features = 2}, {Dim("n"), 5, Dim("m")}, "Lstm: axis 2 of the input is m and has to be known"},
      {nn::Gru{.features = -1}, steps, "Gru: features is -1"},
      {nn::Rnn{.features = 0}, steps, "Rnn: features is 0"},
      {nn::Bidirectional{nn::Gru{.features = 0}}, steps, "Gru: features is 0"},
      {nn::Bidirectional{nn::Rnn{.features = 2, .backwards = true}}, steps,
       "Bidirectional: backwards of the layer has to be false"},
      {nn::MultiHeadAttention{.heads = 0}, steps, "MultiHeadAttention: heads is 0"},
      {nn::MultiHeadAttention{.heads = 3}, steps, "MultiHeadAttention: heads is 3 and has to divide the 4 features"},
      {nn::MultiHeadAttention{.heads = 2, .key_heads = 3}, steps,
       "MultiHeadAttention: key_heads is 3 and has to divide the 2 heads"},
      {nn::MultiHeadAttention{.heads = 4, .rotary = RotaryOptions{}}, steps, "RotaryEmbedding: features is 1"},
      {nn::MultiHeadAttention{.features = -2}, steps, "MultiHeadAttention: features is -2"},
      {nn::MultiHeadAttention{.dropout = 1}, steps, "MultiHeadAttention: dropout is 1 and must be in [0, 1)"},
      {nn::MultiHeadAttention{}, row, "MultiHeadAttention: the input has to be [batch, time, features]"},
      {nn::TransformerBlock{.heads = 3}, steps, "MultiHeadAttention: heads is 3"},
      {nn::TransformerBlock{.hidden = -1}, steps, "TransformerBlock: hidden is -1"},
      {nn::TransformerBlock{.dropout = kNan}, steps, "dropout is nan"},
      {nn::PositionalEmbedding{}, steps, "PositionalEmbedding: length is 0"},
      {nn::PositionalEmbedding{.length = 4}, steps, "PositionalEmbedding: length is 4, and the input has 5 steps"},
      {nn::SinusoidalPositions{.length = -1}, steps, "SinusoidalPositions: length is -1"},
      {nn::SinusoidalPositions{}, {Dim("n"), Dim("time"), 4}, "`length` has to be given where its time"},
      {nn::Residual{{nn::Dense{1}}}, row, "Residual: the output of the layers has to have the input's shape"},
  };
}

TEST(Layers, RefuseNumbersOutOfRangeAtTheLineOfTheCall) {
  for (const Refused& row : RefusedLayers()) {
    SCOPED_TRACE(row.message);
    for (bool training : {true, false}) {
      Graph graph;
      Scope scope(graph);
      const Value x = scope.Input("x", kFloat32, row.x);
      const int line = __LINE__ + 1;
      const Value y = nn::Sequential{row.layer}(scope, x, {.training = training});
      EXPECT_FALSE(y.valid());
      EXPECT_EQ(graph.status().code(), absl::StatusCode::kInvalidArgument);
      EXPECT_THAT(std::string(graph.status().message()), HasSubstr(row.message));
      EXPECT_THAT(std::string(graph.status().message()), HasSubstr("layers_test.cc:" + std::to_string(line)));
    }
  }
}

struct Accepted {
  nn::Layer layer;
  std::vector<int64_t> x;
  std::string y;  // The shape of the result with a symbolic batch.
};

std::vector<Accepted> AcceptedLayers() {
  return {
      {nn::Conv1D{.channels = 3, .kernel = 2}, {2, 2, 5}, "[batch,3,4]"},
      {nn::AvgPool1D{.pool = 3}, {2, 2, 7}, "[batch,2,2]"},
      {nn::MaxPool1D{.pool = 3, .stride = 1}, {2, 2, 7}, "[batch,2,5]"},
      {nn::Reshape{{3, -1}}, {2, 6}, "[batch,3,2]"},
      {nn::GroupNorm{.groups = 2}, {2, 4, 3}, "[batch,4,3]"},
      {nn::InstanceNorm{}, {2, 3, 4}, "[batch,3,4]"},
      {nn::RmsNorm{}, {3, 4}, "[batch,4]"},
      {nn::PRelu{}, {3, 4}, "[batch,4]"},
      {nn::PRelu{.per_channel = false}, {3, 4}, "[batch,4]"},
      {nn::Swish{}, {3, 4}, "[batch,4]"},
      {nn::HardSigmoid{}, {3, 4}, "[batch,4]"},
      {nn::HardSwish{}, {3, 4}, "[batch,4]"},
      {nn::Mish{}, {3, 4}, "[batch,4]"},
      {nn::Lstm{.features = 3}, {2, 4, 2}, "[batch,4,3]"},
      {nn::Lstm{.features = 3, .whole_sequence = false}, {2, 4, 2}, "[batch,3]"},
      {nn::Gru{.features = 3}, {2, 4, 2}, "[batch,4,3]"},
      {nn::Gru{.features = 3, .backwards = true, .reset_after = false}, {2, 4, 2}, "[batch,4,3]"},
      {nn::Gru{.features = 3, .bias = false}, {2, 3, 2}, "[batch,3,3]"},
      {nn::Rnn{.features = 3, .whole_sequence = false, .bias = false}, {2, 4, 2}, "[batch,3]"},
      {nn::Bidirectional{nn::Gru{.features = 3}}, {2, 4, 2}, "[batch,4,6]"},
      {nn::Bidirectional{nn::Rnn{.features = 3, .whole_sequence = false}, nn::Bidirectional::kSum},
       {2, 4, 2},
       "[batch,3]"},
      {nn::MultiHeadAttention{.heads = 2, .features = 6, .bias = false}, {2, 3, 4}, "[batch,3,4]"},
      {nn::MultiHeadAttention{.heads = 2, .causal = true}, {2, 3, 4}, "[batch,3,4]"},
      {nn::TransformerBlock{.heads = 2}, {2, 3, 4}, "[batch,3,4]"},
      {nn::PositionalEmbedding{.length = 3}, {2, 3, 4}, "[batch,3,4]"},
      {nn::SinusoidalPositions{}, {2, 3, 4}, "[batch,3,4]"},
  };
}

Tensor Random(absl::Span<const int64_t> sizes, uint64_t& state) {
  Tensor tensor(kFloat64, sizes);
  for (double& value : tensor.mutable_values<double>()) {
    state = state * 6364136223846793005u + 1442695040888963407u;
    value = static_cast<double>(state >> 33) * 0x1p-30 - 1;
  }
  return tensor;
}

std::vector<int64_t> SizesOf(const Value& value, int64_t batch) {
  return value.shape().Substitute({{"batch", batch}}).sizes();
}

// Along a random direction in all variables and x together, the derivative of sum(y * c) is the
// product of the gradients with the direction. It agrees with central differences.
TEST(Layers, HaveTheGradientsOfCentralDifferences) {
  uint64_t state = 1;
  for (const Accepted& row : AcceptedLayers()) {
    SCOPED_TRACE(row.layer.kind());
    Graph graph;
    Scope scope(graph);
    Shape shape = {Dim("batch")};
    for (size_t axis = 1; axis < row.x.size(); ++axis) shape.Append(Dim(row.x[axis]));
    const Value x = scope.Input("x", kFloat64, shape);
    const nn::Sequential model{row.layer};
    const Value y = model(scope, x);
    ASSERT_TRUE(graph.status().ok()) << graph.status();
    EXPECT_EQ(y.shape().ToString(), row.y);
    const Value factors = scope.Input("factors", kFloat64, y.shape());
    const Tensor fed_factors = Random(SizesOf(y, row.x[0]), state);
    const Value loss = Sum(y * factors);
    std::vector<std::string> names;
    std::vector<Value> xs = {x};
    for (const auto& [name, variable] : model.variables()) {
      names.push_back(name);
      xs.push_back(variable);
    }
    const std::vector<Value> gradients = Gradients({loss}, xs);
    absl::StatusOr<Session> session = Session::Create(graph, {.threads = 1});
    ASSERT_TRUE(session.ok()) << session.status();
    std::vector<Tensor> points = {Random(row.x, state)};
    for (size_t i = 0; i < names.size(); ++i) points.push_back(Random(SizesOf(xs[i + 1], row.x[0]), state));
    // Sets all values to those at this distance along the direction.
    std::vector<Tensor> direction;
    for (const Tensor& point : points) direction.push_back(Random(point.sizes(), state));
    auto run = [&](double distance, const std::vector<Fetch>& fetches) {
      std::vector<Tensor> moved;
      for (size_t i = 0; i < points.size(); ++i) {
        moved.push_back(points[i].Clone());
        for (int64_t k = 0; k < points[i].num_elements(); ++k)
          moved[i].mutable_data<double>()[k] += distance * direction[i].data<double>()[k];
        if (i == 0) continue;
        EXPECT_TRUE(session->SetVariable(names[i - 1], moved[i]).ok());
      }
      absl::StatusOr<std::vector<Tensor>> results = session->Run({{x, moved[0]}, {factors, fed_factors}}, fetches);
      EXPECT_TRUE(results.ok()) << results.status();
      return results.ok() ? *results : std::vector<Tensor>(fetches.size());
    };
    constexpr double kStep = 1e-6;
    const double difference = (run(kStep, {loss})[0].ToDouble() - run(-kStep, {loss})[0].ToDouble()) / (2 * kStep);
    const std::vector<Tensor> values = run(0, std::vector<Fetch>(gradients.begin(), gradients.end()));
    double product = 0;
    for (size_t i = 0; i < values.size(); ++i) {
      double magnitude = 0;
      for (int64_t k = 0; k < values[i].num_elements(); ++k) {
        product += values[i].data<double>()[k] * direction[i].data<double>()[k];
        magnitude += std::abs(values[i].data<double>()[k]);
      }
      EXPECT_GT(magnitude, 0) << "operand " << i;
    }
    EXPECT_NEAR(product, difference, 1e-7 * (1 + std::abs(difference)));
  }
}

}  // namespace
}  // namespace gradweave
