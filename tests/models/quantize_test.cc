#include "gradweave/frontend/quantization/quantize.h"

#include <algorithm>
#include <cmath>
#include <functional>
#include <limits>
#include <random>
#include <string>
#include <vector>

#include "gmock/gmock.h"
#include "gradweave/frontend/layers.h"
#include "gradweave/frontend/losses.h"
#include "gradweave/frontend/optimizers.h"
#include "gradweave/frontend/quantization/calibration.h"
#include "gradweave/ops/elementwise.h"
#include "gradweave/ops/matmul.h"
#include "gradweave/ops/pool.h"
#include "gradweave/ops/scope.h"
#include "gradweave/ops/shape_ops.h"
#include "gradweave/ops/state.h"
#include "gtest/gtest.h"

namespace gradweave {
namespace {

using ::testing::AllOf;
using ::testing::ElementsAre;
using ::testing::HasSubstr;

Tensor RandomTensor(const std::vector<int64_t>& sizes, unsigned seed, double low = -1, double high = 1) {
  Tensor result(kFloat32, sizes);
  std::mt19937 random(seed);
  for (float& x : result.mutable_values<float>())
    x = static_cast<float>(low + (high - low) * (static_cast<double>(random()) / 4294967296.0));
  return result;
}

// A model of `build`, which returns the output "y" for the input "x". Its variables named
// "variance" and "scale" are positive.
Model MakeModel(Shape input, const std::function<Value(Scope&, Value)>& build) {
  Graph graph;
  {
    Scope scope(graph);
    const Value y = build(scope, scope.Input("x", kFloat32, std::move(input)));
    graph.SetOutput("y", {y});
    EXPECT_TRUE(graph.status().ok()) << graph.status();
  }
  absl::StatusOr<Session> session = Session::Create(graph, {.threads = 1, .seed = 3});
  EXPECT_TRUE(session.ok()) << session.status();
  unsigned seed = 1;
  for (const std::string& name : session->VariableNames()) {
    const Tensor value = *session->GetVariable(name);
    const bool positive = name.ends_with("variance") || name.ends_with("scale");
    EXPECT_TRUE(session
                    ->SetVariable(name, RandomTensor({value.sizes().begin(), value.sizes().end()}, ++seed,
                                                     positive ? 0.5 : -0.5, positive ? 1.5 : 0.5))
                    .ok());
  }
  absl::StatusOr<Model> model = ModelOf(*session);
  EXPECT_TRUE(model.ok()) << model.status();
  return *std::move(model);
}

std::vector<double> ResultOf(const Model& model, const Tensor& x, int threads = 1) {
  Model copy = model;
  absl::StatusOr<Session> session = CreateSession(copy, {.threads = threads});
  EXPECT_TRUE(session.ok()) << session.status();
  if (!session.ok()) return {};
  absl::StatusOr<std::vector<Tensor>> result =
      session->Run({{copy.graph.value(copy.graph.FindNamed("x")), x}}, {copy.graph.Output("y")[0]});
  EXPECT_TRUE(result.ok()) << result.status();
  return result.ok() ? (*result)[0].ToDoubles() : std::vector<double>();
}

// The root mean square of the differences, divided by that of `expected`.
double RelativeError(const std::vector<double>& expected, const std::vector<double>& actual) {
  double wrong = 0, all = 0;
  EXPECT_EQ(expected.size(), actual.size());
  for (size_t i = 0; i < std::min(expected.size(), actual.size()); ++i) {
    wrong += std::pow(expected[i] - actual[i], 2);
    all += std::pow(expected[i], 2);
  }
  return std::sqrt(wrong / all);
}

int64_t CountOps(const Graph& graph, absl::string_view op) {
  return std::count_if(graph.nodes().begin(), graph.nodes().end(),
                       [&](const Node& node) { return node.op->name == op; });
}

std::vector<NamedTensors> Samples(const std::vector<int64_t>& sizes, int count = 4) {
  std::vector<NamedTensors> samples;
  for (int i = 0; i < count; ++i) samples.push_back({{"x", RandomTensor(sizes, 100 + i)}});
  return samples;
}

QuantizedModel MustQuantize(const Model& model, const std::vector<NamedTensors>& samples,
                            const QuantizeOptions& options = {}) {
  absl::StatusOr<QuantizedModel> quantized = Quantize(model, samples, options);
  EXPECT_TRUE(quantized.ok()) << quantized.status();
  return quantized.ok() ? *std::move(quantized) : QuantizedModel();
}

Model ConvolutionalNet() {
  nn::Sequential net{nn::Conv2D{.channels = 8, .kernel = 3, .padding = 1},
                     nn::BatchNorm{},
                     nn::Relu{},
                     nn::MaxPool2D{.pool = 2, .stride = 1},
                     nn::Conv2D{.channels = 12, .kernel = 3, .stride = 2},
                     nn::BatchNorm{},
                     nn::Relu{},
                     nn::Flatten{},
                     nn::Dense{20},
                     nn::Relu{},
                     nn::Dense{10}};
  return MakeModel({Dim("batch"), 3, 9, 9}, [&](Scope& scope, Value x) { return net(scope, x, {.training = false}); });
}

TEST(Quantize, FoldsNormalizationAndKeepsIntegersBetweenLayers) {
  const Model model = ConvolutionalNet();
  for (const bool symmetric : {false, true}) {
    const QuantizedModel result = MustQuantize(model, Samples({5, 3, 9, 9}), {.symmetric = symmetric});
    ASSERT_EQ(result.layers.size(), 4);
    for (const QuantizedLayer& layer : result.layers) {
      EXPECT_TRUE(layer.quantized) << result.ToString();
      EXPECT_GT(layer.error, 0);
      EXPECT_LT(layer.error, 0.02) << result.ToString();
    }
    const Graph& graph = result.model.graph;
    EXPECT_EQ(CountOps(graph, "QuantizedConv2D"), 2);
    EXPECT_EQ(CountOps(graph, "QuantizedMatMul"), 2);
    // The input alone becomes integers, and nothing of the normalization is left.
    EXPECT_EQ(CountOps(graph, "Quantize"), 1);
    EXPECT_EQ(CountOps(graph, "QuantizedMaxPool2D"), 1);
    EXPECT_EQ(CountOps(graph, "Mul") + CountOps(graph, "Rsqrt") + CountOps(graph, "Relu"), 0);
    EXPECT_EQ(CountOps(graph, "Variable"), 0);
    EXPECT_THAT(result.model.variables, ::testing::IsEmpty());
    const Tensor x = RandomTensor({7, 3, 9, 9}, 55);
    EXPECT_LT(RelativeError(ResultOf(model, x), ResultOf(result.model, x)), 0.06);
    EXPECT_EQ(ResultOf(result.model, x, 1), ResultOf(result.model, x, 3));
  }
}

TEST(Quantize, SavesAndLoads) {
  const QuantizedModel result = MustQuantize(ConvolutionalNet(), Samples({5, 3, 9, 9}));
  const std::string path = testing::TempDir() + "/quantized.gw";
  ASSERT_TRUE(SaveModel(result.model, path).ok());
  const absl::StatusOr<Model> loaded = LoadModel(path);
  ASSERT_TRUE(loaded.ok()) << loaded.status();
  const Tensor x = RandomTensor({2, 3, 9, 9}, 5);
  EXPECT_EQ(ResultOf(*loaded, x), ResultOf(result.model, x));
}

TEST(Quantize, LayersThatOthersNeedMakeFloats) {
  // A residual block: the first result is added to the second, and is an operand of a product.
  const Model model = MakeModel({Dim("batch"), 6}, [](Scope& scope, Value x) {
    const Value w = scope.Variable("w", scope.Constant(RandomTensor({6, 6}, 1)));
    const Value v = scope.Variable("v", scope.Constant(RandomTensor({6, 6}, 2)));
    const Value a = Relu(MatMul(x, w, {.transpose_b = true}) - scope.Constant(RandomTensor({6}, 3)));
    return a + MatMul(a, v) / 2 + Tanh(x);
  });
  const QuantizedModel result = MustQuantize(model, Samples({20, 6}));
  EXPECT_EQ(CountOps(result.model.graph, "QuantizedMatMul"), 2);
  EXPECT_EQ(CountOps(result.model.graph, "Quantize"), 2);
  const Tensor x = RandomTensor({9, 6}, 5);
  EXPECT_LT(RelativeError(ResultOf(model, x), ResultOf(result.model, x)), 0.02);
}

TEST(Quantize, SubtractionFromAConstantIsFolded) {
  const Model model = MakeModel({Dim("batch"), 6}, [](Scope& scope, Value x) {
    const Value w = scope.Variable("w", scope.Constant(RandomTensor({6, 4}, 1)));
    return Relu(scope.Constant(RandomTensor({4}, 3)) - MatMul(x, w) * scope.Constant(RandomTensor({4}, 4)));
  });
  const QuantizedModel result = MustQuantize(model, Samples({20, 6}));
  EXPECT_EQ(CountOps(result.model.graph, "Sub"), 0);
  const Tensor x = RandomTensor({9, 6}, 5);
  EXPECT_LT(RelativeError(ResultOf(model, x), ResultOf(result.model, x)), 0.02);
}

TEST(Quantize, TellsWhyLayersStayInFloat32) {
  const Model model = MakeModel({Dim("batch"), 6}, [](Scope& scope, Value x) {
    const Value kept = scope.Variable("kept", scope.Constant(RandomTensor({6, 4}, 1)));
    const Value zero = scope.Variable("after_zero", scope.Constant(RandomTensor({6, 4}, 2)));
    const Value other = scope.Variable("other", scope.Constant(RandomTensor({6, 4}, 3)));
    const Value first = MatMul(x, kept), second = MatMul(Maximum(x, 1e9) - 1e9, zero);
    return first + second + MatMul(x, other);
  });
  std::vector<NamedTensors> samples = Samples({20, 6});
  const QuantizedModel result = MustQuantize(model, samples, {.keep = {"kept"}});
  ASSERT_EQ(result.layers.size(), 3);
  EXPECT_THAT(result.layers[0].reason, HasSubstr("the options keep it"));
  EXPECT_EQ(result.layers[0].name, "kept");
  EXPECT_THAT(result.layers[1].reason, HasSubstr("its input is 0 in all samples"));
  EXPECT_TRUE(result.layers[2].quantized) << result.ToString();
  EXPECT_THAT(result.ToString(), AllOf(HasSubstr("after_zero"), HasSubstr("int8"), HasSubstr("float32: ")));
  const QuantizedModel strict = MustQuantize(model, samples, {.greatest_error = 1e-6});
  EXPECT_THAT(strict.layers[2].reason, HasSubstr("its error is above 1e-06"));
  const Tensor x = RandomTensor({9, 6}, 5);
  EXPECT_EQ(ResultOf(strict.model, x), ResultOf(model, x));
}

TEST(Quantize, RefusesBadSamplesAndOptions) {
  const Model model = ConvolutionalNet();
  const auto error = [&](const std::vector<NamedTensors>& samples, const QuantizeOptions& options = {}) {
    return std::string(Quantize(model, samples, options).status().message());
  };
  EXPECT_THAT(error({}), HasSubstr("there are no samples"));
  EXPECT_THAT(error({{}}), HasSubstr("'x'"));
  EXPECT_THAT(error({{{"image", RandomTensor({1, 3, 9, 9}, 1)}}}), HasSubstr("the model has no input 'image'"));
  Tensor bad = RandomTensor({1, 3, 9, 9}, 1);
  bad.mutable_data<float>()[7] = std::numeric_limits<float>::quiet_NaN();
  EXPECT_THAT(error({{{"x", bad}}}), AllOf(HasSubstr("nan"), HasSubstr("'x'")));
  EXPECT_THAT(error(Samples({1, 3, 9, 9}), {.percentile = 0}), HasSubstr("percentile is 0"));
  EXPECT_THAT(error(Samples({1, 3, 9, 9}), {.greatest_error = -1}), HasSubstr("greatest_error is -1"));
  EXPECT_THAT(error(Samples({1, 3, 9, 9}), {.outputs = {"z"}}), HasSubstr("the model has no output 'z'"));
}

TEST(Quantize, LeavesOutTrainingSteps) {
  Model model = MakeModel({Dim("batch"), 6}, [](Scope& scope, Value x) {
    const Value w = scope.Variable("w", scope.Constant(RandomTensor({6, 4}, 1)));
    const Value y = MatMul(x, w);
    scope.graph().SetOutput("step", {Assign(w, w * 0.5)});
    return y;
  });
  const QuantizedModel result = MustQuantize(model, Samples({20, 6}));
  EXPECT_EQ(result.model.graph.outputs().size(), 1);
  EXPECT_TRUE(result.layers[0].quantized);
  model.graph.SetOutput("y", model.graph.Output("step"));
  EXPECT_THAT(Quantize(model, Samples({20, 6})).status().message(),
              HasSubstr("no output but such as assign variables"));
}

TEST(Quantize, ScalesOfTheirOwnServeChannelsOfDifferentSize) {
  const Model model = MakeModel({Dim("batch"), 6}, [](Scope& scope, Value x) {
    const Value w = scope.Variable("w", scope.Constant(RandomTensor({6, 2}, 1)));
    return MatMul(x, w) * scope.Constant(Tensor::Of<float>({2}, {1, 1000}));
  });
  const auto small_error = [&](bool per_channel) {
    const QuantizedModel result = MustQuantize(model, Samples({20, 6}), {.per_channel = per_channel});
    const Tensor x = RandomTensor({30, 6}, 9);
    std::vector<double> expected = ResultOf(model, x), actual = ResultOf(result.model, x), small[2];
    for (size_t i = 0; i < expected.size(); i += 2) small[0].push_back(expected[i]), small[1].push_back(actual[i]);
    return RelativeError(small[0], small[1]);
  };
  EXPECT_LT(small_error(true), 0.02);
  EXPECT_GT(small_error(false), 0.1);
}

TEST(Calibration, RangesContainZero) {
  EXPECT_EQ(QuantizerFor(2, 10, false).zero, 0);
  EXPECT_FLOAT_EQ(QuantizerFor(2, 10.2, false).scale, 0.04f);
  EXPECT_EQ(QuantizerFor(-1, 1, false).zero, 128);
  EXPECT_EQ(QuantizerFor(-5, -1, false).zero, 255);
  EXPECT_EQ(QuantizerFor(-5, 2.54, true).zero, 0);
  EXPECT_FLOAT_EQ(QuantizerFor(-5, 2.54, true).scale, 5 / 127.0f);
  EXPECT_EQ(QuantizerFor(0, 0, false).scale, 0);
}

TEST(Calibration, ThresholdsLeaveOutOutliers) {
  // A thousand numbers in each of the first 200 bins, and one in the last.
  std::vector<int64_t> bins(2048, 0);
  std::fill_n(bins.begin(), 200, 1000);
  bins.back() = 1;
  EXPECT_DOUBLE_EQ(PercentileThreshold(bins, 20.48, 100), 20.48);
  EXPECT_DOUBLE_EQ(PercentileThreshold(bins, 20.48, 99.99), 2);
  EXPECT_DOUBLE_EQ(PercentileThreshold(bins, 20.48, 49.99), 1);
  // Absolute values of a normal distribution with standard deviation 1: few numbers are above 4.
  for (size_t i = 0; i < bins.size(); ++i)
    bins[i] = std::llround(1e5 * std::exp(-std::pow(0.01 * static_cast<double>(i), 2) / 2));
  bins.back() = 1;
  EXPECT_GT(EntropyThreshold(bins, 20.48), 2.5);
  EXPECT_LT(EntropyThreshold(bins, 20.48), 5);
}

TEST(Calibration, OutliersOfSamplesDoNotSpoilRanges) {
  const Model model = MakeModel({Dim("batch"), 6}, [](Scope& scope, Value x) {
    return MatMul(x, scope.Variable("w", scope.Constant(RandomTensor({6, 4}, 1))));
  });
  // Many numbers are small, and one is 20.
  std::vector<NamedTensors> samples = Samples({4000, 6}, 1);
  for (float& number : samples[0][0].second.mutable_values<float>()) number = number * number * number;
  samples[0][0].second.mutable_data<float>()[0] = 20;
  const Tensor x = RandomTensor({30, 6}, 9);
  const auto error = [&](Calibration calibration) {
    return RelativeError(
        ResultOf(model, x),
        ResultOf(MustQuantize(model, samples, {.calibration = calibration, .greatest_error = 100}).model, x));
  };
  EXPECT_LT(error(Calibration::kPercentile), error(Calibration::kMinMax) / 5);
  EXPECT_LT(error(Calibration::kEntropy), error(Calibration::kMinMax) / 2);
}

TEST(FakeQuantized, GivesTheNumbersOfIntegersAndLearns) {
  const Model model = MakeModel({Dim("batch"), 6}, [](Scope& scope, Value x) {
    nn::Sequential net{nn::Dense{12}, nn::Relu{}, nn::Dense{3}};
    return net(scope, x);
  });
  const std::vector<NamedTensors> samples = Samples({50, 6});
  absl::StatusOr<Graph> graph = FakeQuantized(model, samples);
  ASSERT_TRUE(graph.ok()) << graph.status();
  Model fake = model;
  fake.graph = *graph;
  const Tensor x = RandomTensor({30, 6}, 9);
  const QuantizedModel quantized = MustQuantize(model, samples);
  EXPECT_LT(RelativeError(ResultOf(quantized.model, x), ResultOf(fake, x)), 0.01);
  EXPECT_GT(RelativeError(ResultOf(model, x), ResultOf(fake, x)), 1e-4);

  // Training changes all variables and halves the loss.
  const Value y = graph->Output("y")[0];
  Scope scope(*graph);
  const Value target = scope.Input("target", kFloat32, y.shape());
  const Value loss = nn::MeanSquaredError(y, target);
  const Update step = optim::Sgd{.learning_rate = 0.1}.Minimize(loss);
  absl::StatusOr<Session> session = Session::Create(*graph, {.threads = 1});
  ASSERT_TRUE(session.ok()) << session.status();
  const std::vector<Feed> feeds = {{graph->value(graph->FindNamed("x")), x}, {target, RandomTensor({30, 3}, 8)}};
  std::vector<double> losses;
  for (int i = 0; i < 200; ++i) {
    absl::StatusOr<std::vector<Tensor>> result = session->Run(feeds, {loss, step});
    ASSERT_TRUE(result.ok()) << result.status();
    losses.push_back((*result)[0].ToDouble());
  }
  EXPECT_LT(losses.back(), losses.front() / 2);
}

}  // namespace
}  // namespace gradweave
