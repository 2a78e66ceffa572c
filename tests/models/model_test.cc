// Compares whole models with results of PyTorch (see tests/models/make_reference.py), and checks
// second derivatives of LeNet.
#include <cmath>
#include <functional>
#include <string>
#include <utility>
#include <vector>

#include "examples/lenet_layers.h"
#include "gradweave/gradweave.h"
#include "gtest/gtest.h"
#include "tests/models/reference.h"
#include "tests/test_device.h"

namespace gradweave {
namespace {

using Variables = std::vector<std::pair<std::string, Tensor>>;

// Errors of a few ulps in each step add up through a model.
constexpr double kTolerance64 = 1e-11;

double ToleranceOf(DType dtype) { return dtype == kFloat64 ? kTolerance64 : 2e-4; }

Session MakeSession(const Graph& graph, const Variables& variables = {}) {
  absl::StatusOr<Session> session = Session::Create(graph, {.device = TestDevice(), .variables = variables});
  EXPECT_TRUE(session.ok()) << session.status();
  return *std::move(session);
}

std::vector<Tensor> RunAll(Session& session, const std::vector<Feed>& feeds, const std::vector<Fetch>& fetches) {
  absl::StatusOr<std::vector<Tensor>> results = session.Run(feeds, fetches);
  EXPECT_TRUE(results.ok()) << results.status();
  return results.ok() ? *std::move(results) : std::vector<Tensor>();
}

// Runs and fetches named values once.
std::map<std::string, Tensor> RunNamed(Session& session, const std::vector<Feed>& feeds,
                                       const std::vector<std::pair<std::string, Value>>& values) {
  std::vector<Fetch> fetches;
  for (const auto& [name, value] : values) fetches.push_back(value);
  const std::vector<Tensor> tensors = RunAll(session, feeds, fetches);
  std::map<std::string, Tensor> results;
  for (size_t i = 0; i < tensors.size(); ++i) results[values[i].first] = tensors[i];
  return results;
}

// Runs training steps and returns their losses.
Tensor Train(Session& session, const std::vector<Feed>& feeds, const Value& loss, const Update& step, int steps) {
  Tensor losses(kFloat64, {steps});
  for (int i = 0; i < steps; ++i) {
    const std::vector<Tensor> results = RunAll(session, feeds, {loss, step});
    losses.mutable_data<double>()[i] = results.empty() ? NAN : results[0].ToDouble();
  }
  return losses;
}

Tensor GetVariable(const Session& session, const std::string& name) {
  absl::StatusOr<Tensor> value = session.GetVariable(name);
  EXPECT_TRUE(value.ok()) << value.status();
  return value.ok() ? *value : Tensor();
}

// ---- LeNet ----

struct Parameter {
  std::string name;
  std::vector<int64_t> sizes;
  double bound;
};

// The same as in make_reference.py. Parameter i has the seed i + 1.
const Parameter kLeNetParameters[] = {{"conv2d_1/filter", {6, 1, 5, 5}, 0.3},  {"conv2d_1/bias", {6}, 0.1},
                                      {"conv2d_2/filter", {16, 6, 5, 5}, 0.2}, {"conv2d_2/bias", {16}, 0.1},
                                      {"dense_1/weight", {400, 120}, 0.15},    {"dense_1/bias", {120}, 0.1},
                                      {"dense_2/weight", {120, 84}, 0.2},      {"dense_2/bias", {84}, 0.1},
                                      {"dense_3/weight", {84, 10}, 0.3},       {"dense_3/bias", {10}, 0.1}};

struct LeNet {
  static constexpr int64_t kSamples = 6;

  Graph graph;
  Value image, label, logits, loss, square_norm;
  std::vector<Value> parameters, gradients, second;
  Variables initial;
  std::vector<Feed> feeds;

  explicit LeNet(DType dtype) {
    Scope scope(graph);
    image = scope.Input("image", dtype, {Dim("batch"), 1, 28, 28});
    label = scope.Input("label", kInt32, {Dim("batch")});
    logits = examples::LeNet()(scope, image);
    loss = Mean(SparseSoftmaxCrossEntropy(logits, label));
    for (const Parameter& parameter : kLeNetParameters) {
      initial.emplace_back(parameter.name,
                           Numbers(dtype, initial.size() + 1, parameter.sizes, -parameter.bound, parameter.bound));
      parameters.push_back(graph.value(graph.FindNamed(parameter.name)));
    }
    // Computes the gradient of the squared norm of the gradient.
    gradients = Gradients({loss}, parameters);
    for (const Value& gradient : gradients)
      square_norm = square_norm.valid() ? square_norm + Sum(Square(gradient)) : Sum(Square(gradient));
    second = Gradients({square_norm}, parameters);
    feeds = {{image, Numbers(dtype, 100, {kSamples, 1, 28, 28}, 0, 1)},
             {label, IntegerNumbers(kInt32, 101, {kSamples}, 10)}};
  }
};

class LeNetTest : public testing::TestWithParam<DType> {};
INSTANTIATE_TEST_SUITE_P(Floating, LeNetTest, testing::Values(kFloat64, kFloat32),
                         [](const auto& info) { return std::string(DTypeName(info.param)); });

TEST_P(LeNetTest, GivesPyTorchsNumbersToSecondOrderAndInTraining) {
  LeNet lenet(GetParam());
  std::vector<std::pair<std::string, Value>> values = {
      {"logits", lenet.logits}, {"loss", lenet.loss}, {"square_norm", lenet.square_norm}};
  for (size_t i = 0; i < lenet.parameters.size(); ++i) {
    values.emplace_back("gradient/" + lenet.initial[i].first, lenet.gradients[i]);
    values.emplace_back("second/" + lenet.initial[i].first, lenet.second[i]);
  }
  const Update step = optim::Sgd{.learning_rate = 0.1}.Minimize(lenet.loss);
  Session session = MakeSession(lenet.graph, lenet.initial);
  std::map<std::string, Tensor> results = RunNamed(session, lenet.feeds, values);
  results["losses"] = Train(session, lenet.feeds, lenet.loss, step, 5);
  const std::string prefix = "lenet/" + std::string(DTypeName(GetParam())) + "/";
  EXPECT_EQ(DifferenceFromReference(prefix, results, ToleranceOf(GetParam())), "");
}

// For any direction d, the derivative of the squared norm of the gradient is <second, d>. The model
// has integer labels and convolutions, for which TensorFlow's C++ gradients and MXNet fail.
TEST(LeNetSecondOrder, IsTheDerivativeOfTheSquaredNormOfTheGradient) {
  LeNet lenet(kFloat64);
  Session session = MakeSession(lenet.graph, lenet.initial);
  std::vector<Fetch> fetches(lenet.second.begin(), lenet.second.end());
  const std::vector<Tensor> second = RunAll(session, lenet.feeds, fetches);
  ASSERT_EQ(second.size(), lenet.parameters.size());
  constexpr double kStep = 1e-4;
  for (uint64_t direction = 0; direction < 3; ++direction) {
    double inner_product = 0, ends[2] = {};
    for (int end = 0; end < 2; ++end) {
      for (size_t i = 0; i < second.size(); ++i) {
        const auto& [name, at] = lenet.initial[i];
        const Tensor along = Numbers(kFloat64, 2000 + 100 * direction + i, kLeNetParameters[i].sizes);
        Tensor moved = at.Clone();
        for (int64_t k = 0; k < moved.num_elements(); ++k) {
          moved.mutable_data<double>()[k] += (end == 0 ? -kStep : kStep) * along.data<double>()[k];
          if (end == 0) inner_product += second[i].data<double>()[k] * along.data<double>()[k];
        }
        ASSERT_TRUE(session.SetVariable(name, moved).ok());
      }
      ends[end] = RunAll(session, lenet.feeds, {lenet.square_norm})[0].ToDouble();
    }
    const double difference = (ends[1] - ends[0]) / (2 * kStep);
    EXPECT_NEAR(inner_product, difference, 1e-4 * std::abs(difference)) << "direction " << direction;
  }
}

// ---- Batch normalization and optimizers ----

TEST(BatchNorm, TrainsAndInfersAsPyTorch) {
  Graph graph;
  Scope scope(graph);
  const Value x = scope.Input("x", kFloat64, {Dim("batch"), 12});
  const Value label = scope.Input("label", kInt64, {Dim("batch")});
  const nn::Sequential model{nn::Dense{16}, nn::BatchNorm{}, nn::Relu{}, nn::Dropout{.rate = 0}, nn::Dense{5}};
  const Value loss = Mean(SparseSoftmaxCrossEntropy(model(scope, x), label));
  const Value inference = model(scope, x, {.training = false});
  const Update step = optim::Sgd{.learning_rate = 0.2}.Minimize(loss);
  Session session = MakeSession(graph, {{"dense_1/weight", Numbers(kFloat64, 202, {12, 16}, -0.5, 0.5)},
                                        {"dense_1/bias", Numbers(kFloat64, 203, {16}, -0.2, 0.2)},
                                        {"batch_norm_1/scale", Numbers(kFloat64, 204, {16}, 0.5, 1.5)},
                                        {"batch_norm_1/offset", Numbers(kFloat64, 205, {16}, -0.3, 0.3)},
                                        {"dense_2/weight", Numbers(kFloat64, 206, {16, 5}, -0.5, 0.5)},
                                        {"dense_2/bias", Numbers(kFloat64, 207, {5}, -0.2, 0.2)}});
  const std::vector<Feed> feeds = {{x, Numbers(kFloat64, 200, {8, 12}, -2, 3)},
                                   {label, IntegerNumbers(kInt64, 201, {8}, 5)}};
  std::map<std::string, Tensor> results = {{"losses", Train(session, feeds, loss, step, 4)}};
  const std::pair<const char*, const char*> names[] = {{"weight", "dense_1/weight"},
                                                       {"bias", "dense_1/bias"},
                                                       {"scale", "batch_norm_1/scale"},
                                                       {"offset", "batch_norm_1/offset"},
                                                       {"weight_2", "dense_2/weight"},
                                                       {"bias_2", "dense_2/bias"},
                                                       {"moving_mean", "batch_norm_1/moving_mean"},
                                                       {"moving_variance", "batch_norm_1/moving_variance"}};
  for (const auto& [reference, variable] : names) results[reference] = GetVariable(session, variable);
  results["inference"] = RunAll(session, {feeds[0]}, {inference})[0];
  EXPECT_EQ(DifferenceFromReference("batch_norm/model/", results, kTolerance64), "");
}

TEST(BatchNorm, NormalizesTheChannelsOfImagesAsPyTorch) {
  Graph graph;
  Scope scope(graph);
  const std::vector<int64_t> sizes = {3, 4, 5, 6};
  const Shape shape = {Dim("batch"), 4, Dim("height"), Dim("width")};
  const Value x = scope.Input("x", kFloat64, shape), dy = scope.Input("dy", kFloat64, shape);
  const Value y = BatchNormTraining(x, scope.Constant(Numbers(kFloat64, 211, {4}, 0.5, 2)),
                                    scope.Constant(Numbers(kFloat64, 212, {4})), 1e-3)
                      .y;
  const Value dx = Gradients({y}, {x}, {dy})[0];
  Session session = MakeSession(graph);
  const std::vector<Feed> feeds = {{x, Numbers(kFloat64, 210, sizes, -1, 2)}, {dy, Numbers(kFloat64, 213, sizes)}};
  EXPECT_EQ(
      DifferenceFromReference("batch_norm/image/", RunNamed(session, feeds, {{"y", y}, {"dx", dx}}), kTolerance64), "");
}

// The perceptron that make_reference.py trains.
struct Perceptron {
  static constexpr const char* kNames[] = {"dense_1/weight", "dense_1/bias", "dense_2/weight", "dense_2/bias"};

  Graph graph;
  Value x, label, loss;

  Perceptron() {
    Scope scope(graph);
    x = scope.Input("x", kFloat64, {Dim("batch"), 12});
    label = scope.Input("label", kUint8, {Dim("batch")});
    const nn::Sequential model{nn::Dense{9}, nn::Tanh{}, nn::Dense{5}};
    loss = nn::SoftmaxCrossEntropy(model(scope, x), label);
  }

  Session Start() const {
    return MakeSession(graph, {{kNames[0], Numbers(kFloat64, 302, {12, 9}, -0.5, 0.5)},
                               {kNames[1], Numbers(kFloat64, 303, {9}, -0.2, 0.2)},
                               {kNames[2], Numbers(kFloat64, 304, {9, 5}, -0.5, 0.5)},
                               {kNames[3], Numbers(kFloat64, 305, {5}, -0.2, 0.2)}});
  }
  std::vector<Feed> Feeds() const {
    return {{x, Numbers(kFloat64, 300, {8, 12})}, {label, IntegerNumbers(kUint8, 301, {8}, 5)}};
  }
};

TEST(Optimizers, TakeTheStepsOfPyTorchAndOfThePapers) {
  const std::pair<std::string, optim::Optimizer> rows[] = {
      {"sgd_decay", optim::Sgd{.learning_rate = 0.1, .weight_decay = 0.02}},
      {"momentum", optim::Sgd{.learning_rate = 0.1, .momentum = 0.9, .weight_decay = 0.01}},
      {"nesterov", optim::Sgd{.learning_rate = 0.1, .momentum = 0.8, .nesterov = true}},
      {"adam", optim::Adam{.learning_rate = 0.01, .beta1 = 0.8, .beta2 = 0.99}},
      {"adam_decay", optim::Adam{.learning_rate = 0.02, .weight_decay = 0.1}},
      {"amsgrad", optim::Adam{.learning_rate = 0.02, .beta1 = 0.5, .beta2 = 0.6, .amsgrad = true}},
      {"adamw", optim::AdamW{.learning_rate = 0.02, .weight_decay = 0.1}},
      {"adamw_amsgrad",
       optim::AdamW{.learning_rate = 0.02, .beta1 = 0.5, .beta2 = 0.6, .weight_decay = 0.1, .amsgrad = true}},
      {"adamax", optim::Adamax{.learning_rate = 0.02, .beta1 = 0.8, .beta2 = 0.9, .weight_decay = 0.1}},
      {"nadam", optim::NAdam{.learning_rate = 0.02, .beta1 = 0.8, .beta2 = 0.99, .weight_decay = 0.1}},
      {"radam", optim::RAdam{.learning_rate = 0.02, .beta1 = 0.8, .beta2 = 0.99, .weight_decay = 0.1}},
      {"radam_unrectified", optim::RAdam{.learning_rate = 0.02, .beta1 = 0.8, .beta2 = 0.6}},
      {"rmsprop", optim::RmsProp{.learning_rate = 0.01, .alpha = 0.9, .weight_decay = 0.05}},
      {"rmsprop_momentum", optim::RmsProp{.learning_rate = 0.01, .alpha = 0.95, .momentum = 0.7}},
      {"adagrad", optim::Adagrad{.learning_rate = 0.1, .weight_decay = 0.01}},
      {"adadelta", optim::Adadelta{.learning_rate = 0.5, .rho = 0.8, .weight_decay = 0.01}},
      {"lion", optim::Lion{.learning_rate = 0.01, .beta1 = 0.8, .beta2 = 0.9, .weight_decay = 0.1}},
      {"lamb", optim::Lamb{.learning_rate = 0.02, .beta1 = 0.8, .beta2 = 0.99, .weight_decay = 0.1}},
      {"muon", optim::Muon{.learning_rate = 0.02, .momentum = 0.9, .weight_decay = 0.1}},
      {"muon_plain", optim::Muon{.learning_rate = 0.02, .momentum = 0.8, .nesterov = false}},
      {"lookahead",
       optim::Lookahead{.inner = optim::Sgd{.learning_rate = 0.1, .momentum = 0.9}, .alpha = 0.7, .every = 3}},
      {"clip", optim::Sgd{.learning_rate = 0.5, .clip_norm = 0.3}},
      {"clip_value", optim::Sgd{.learning_rate = 0.5, .clip_value = 0.05}},
      {"clip_value_and_norm", optim::Sgd{.learning_rate = 0.5, .clip_norm = 0.3, .clip_value = 0.05}},
      {"step_decay", optim::Sgd{.learning_rate = optim::StepDecay(0.4, 0.1, 2)}},
      {"cosine", optim::Sgd{.learning_rate = optim::CosineDecay(0.4, 10, 0.01)}},
      {"one_cycle", optim::Sgd{.learning_rate = optim::OneCycle(0.4, 11)}},
  };
  for (const auto& [name, optimizer] : rows) {
    Perceptron perceptron;
    const Update step = optimizer.Minimize(perceptron.loss);
    Session session = perceptron.Start();
    std::map<std::string, Tensor> results = {{"losses", Train(session, perceptron.Feeds(), perceptron.loss, step, 10)}};
    for (const char* variable : Perceptron::kNames) results[variable] = GetVariable(session, variable);
    EXPECT_EQ(DifferenceFromReference("optimizer/" + name + "/", results, kTolerance64), "");
  }
}

// The averages take the variables' place in a call of the model and in the session.
TEST(AverageWeights, AreMovingAveragesOfTheWeightsAfterEachStep) {
  for (bool corrected : {false, true}) {
    Perceptron perceptron;
    const optim::Adam adam{.learning_rate = 0.01, .beta1 = 0.8, .beta2 = 0.99};
    const optim::WeightAverages averages =
        optim::AverageWeights(adam.Minimize(perceptron.loss), {.decay = 0.8, .bias_correction = corrected});
    EXPECT_EQ(averages.values.size(), 4u);
    Session session = perceptron.Start();
    Train(session, perceptron.Feeds(), perceptron.loss, averages.step, 10);
    std::map<std::string, Tensor> trained, averaged;
    for (const char* name : Perceptron::kNames) trained[name] = GetVariable(session, name);
    RunAll(session, {}, {averages.swap});
    for (const char* name : Perceptron::kNames) averaged[name] = GetVariable(session, name);
    EXPECT_EQ(DifferenceFromReference(corrected ? "average/corrected/" : "average/plain/", averaged, kTolerance64), "");
    RunAll(session, {}, {averages.swap});
    for (const char* name : Perceptron::kNames) {
      EXPECT_TRUE(SameBits(trained[name], GetVariable(session, name))) << name;
      EXPECT_TRUE(SameBits(averaged[name], GetVariable(session, averages.values.at(name).node().name))) << name;
    }
  }
}

// ---- Convolutions and pooling ----

// Compares y and its gradients, contracted with numbers, with the lines of record_gradients().
void ExpectGradients(Scope& scope, const std::string& prefix, const Value& y,
                     const std::vector<std::pair<std::string, Value>>& operands) {
  ASSERT_TRUE(y.valid()) << prefix << ": " << scope.status();
  std::vector<Value> xs;
  for (const auto& [name, operand] : operands) xs.push_back(operand);
  const std::vector<Value> gradients = Gradients({y}, xs, {scope.Constant(Numbers(kFloat64, 420, y.shape().sizes()))});
  std::vector<std::pair<std::string, Value>> values = {{"y", y}};
  for (size_t i = 0; i < xs.size(); ++i) values.emplace_back(operands[i].first, gradients[i]);
  Session session = MakeSession(scope.graph());
  EXPECT_EQ(DifferenceFromReference(prefix, RunNamed(session, {}, values), kTolerance64), "");
}

struct ConvRow {
  std::string name;
  std::vector<int64_t> x, filter;
  Conv2DOptions options;
};

TEST(Conv2D, AsPyTorch) {
  const ConvRow rows[] = {
      {"plain", {2, 3, 9, 8}, {4, 3, 3, 3}, {}},
      {"stride", {2, 3, 10, 9}, {4, 3, 3, 2}, {.stride = {2, 3}, .padding = {1, 0}}},
      {"dilation", {2, 2, 11, 12}, {3, 2, 3, 3}, {.stride = {1, 2}, .padding = {2, 1}, .dilation = {2, 3}}},
      {"groups", {2, 4, 7, 7}, {6, 2, 3, 3}, {.padding = {1, 1}, .groups = 2}},
      {"depthwise", {3, 4, 8, 8}, {8, 1, 3, 3}, {.stride = {2, 2}, .padding = {1, 1}, .groups = 4}},
      {"pointwise", {2, 5, 4, 6}, {7, 5, 1, 1}, {}},
  };
  for (const ConvRow& row : rows) {
    Graph graph;
    Scope scope(graph);
    const Value x = scope.Variable("x", scope.Constant(Numbers(kFloat64, 400, row.x)));
    const Value filter = scope.Variable("filter", scope.Constant(Numbers(kFloat64, 401, row.filter)));
    const Value bias = scope.Variable("bias", scope.Constant(Numbers(kFloat64, 402, {row.filter[0]})));
    ExpectGradients(scope, "conv/" + row.name + "/", Conv2D(x, filter, bias, row.options),
                    {{"dx", x}, {"dfilter", filter}, {"dbias", bias}});
  }
}

struct ConvTransposeRow {
  std::string name;
  std::vector<int64_t> x, filter;
  ConvTranspose2DOptions options;
};

TEST(ConvTranspose2D, AsPyTorch) {
  const ConvTransposeRow rows[] = {
      {"plain", {2, 3, 5, 4}, {3, 4, 3, 3}, {}},
      {"stride", {2, 3, 5, 4}, {3, 2, 3, 4}, {.stride = {2, 3}, .padding = {1, 1}, .output_padding = {1, 2}}},
      {"groups_dilation",
       {2, 4, 5, 6},
       {4, 3, 3, 2},
       {.stride = {2, 1}, .padding = {1, 0}, .dilation = {2, 2}, .groups = 2}},
  };
  for (const ConvTransposeRow& row : rows) {
    Graph graph;
    Scope scope(graph);
    const Value x = scope.Variable("x", scope.Constant(Numbers(kFloat64, 410, row.x)));
    const Value filter = scope.Variable("filter", scope.Constant(Numbers(kFloat64, 411, row.filter)));
    const Value bias =
        scope.Variable("bias", scope.Constant(Numbers(kFloat64, 412, {row.filter[1] * row.options.groups})));
    ExpectGradients(scope, "conv_transpose/" + row.name + "/", ConvTranspose2D(x, filter, bias, row.options),
                    {{"dx", x}, {"dfilter", filter}, {"dbias", bias}});
  }
}

struct PoolRow {
  std::string name;
  std::vector<int64_t> x;
  Pool2DOptions options;
};

TEST(Pool2D, AsPyTorch) {
  const PoolRow rows[] = {
      {"plain", {2, 3, 8, 6}, {.window = {2, 2}}},
      {"overlap", {2, 2, 9, 8}, {.window = {3, 3}, .stride = {2, 2}, .padding = {1, 1}}},
      {"oblong", {1, 2, 9, 11}, {.window = {3, 2}, .stride = {1, 3}, .padding = {1, 0}}},
  };
  for (const PoolRow& row : rows) {
    Graph graph;
    Scope scope(graph);
    const Value x = scope.Variable("x", scope.Constant(Numbers(kFloat64, 500, row.x)));
    Pool2DOptions counted = row.options;
    counted.count_padding = true;
    ExpectGradients(scope, "max_pool/" + row.name + "/", MaxPool2D(x, row.options), {{"dx", x}});
    ExpectGradients(scope, "avg_pool/" + row.name + "/", AvgPool2D(x, row.options), {{"dx", x}});
    ExpectGradients(scope, "avg_pool/" + row.name + "_counted/", AvgPool2D(x, counted), {{"dx", x}});
  }
}

// ---- Attention ----

// The same as in make_reference.py. Parameter i has the seed 602 + i.
const Parameter kAttentionParameters[] = {
    {"embedding", {11, 8}, 1.0}, {"query", {8, 8}, 0.6}, {"key", {8, 8}, 0.6},       {"value", {8, 8}, 0.6},
    {"scale_1", {8}, 1.0},       {"offset_1", {8}, 0.5}, {"weight_1", {8, 16}, 0.5}, {"bias_1", {16}, 0.3},
    {"weight_2", {16, 8}, 0.5},  {"bias_2", {8}, 0.3},   {"scale_2", {8}, 1.0},      {"offset_2", {8}, 0.5},
    {"weight_3", {8, 3}, 0.8}};

TEST(Attention, AsPyTorch) {
  Graph graph;
  Scope scope(graph);
  const Value token = scope.Input("token", kInt64, {Dim("batch"), Dim("length")});
  const Value label = scope.Input("label", kInt32, {Dim("batch")});
  std::map<std::string, Value> p;
  uint64_t seed = 602;
  for (const Parameter& parameter : kAttentionParameters) {
    p[parameter.name] = scope.Variable(
        parameter.name, scope.Constant(Numbers(kFloat64, seed++, parameter.sizes, -parameter.bound, parameter.bound)));
  }
  Value h = Gather(p["embedding"], token);
  const Value scores = MatMul(MatMul(h, p["query"]), MatMul(h, p["key"]), {.transpose_b = true});
  const Value weights = Softmax(scores / std::sqrt(8.0));
  h = LayerNorm(h + MatMul(weights, MatMul(h, p["value"])), p["scale_1"], p["offset_1"]);
  const Value f = MatMul(Gelu(MatMul(h, p["weight_1"]) + p["bias_1"]), p["weight_2"]) + p["bias_2"];
  h = LayerNorm(h + f, p["scale_2"], p["offset_2"]);
  const Value loss = Mean(SparseSoftmaxCrossEntropy(MatMul(Mean(h, {.axes = {1}}), p["weight_3"]), label));
  std::vector<std::pair<std::string, Value>> values = {{"weights", weights}, {"loss", loss}};
  for (const auto& [name, parameter] : p) values.emplace_back(name, Gradients({loss}, {parameter})[0]);
  Session session = MakeSession(graph);
  const std::vector<Feed> feeds = {{token, IntegerNumbers(kInt64, 600, {2, 7}, 11)},
                                   {label, IntegerNumbers(kInt32, 601, {2}, 3)}};
  EXPECT_EQ(DifferenceFromReference("attention/", RunNamed(session, feeds, values), kTolerance64), "");
}

// ---- Losses and activations ----

TEST(Losses, AsPyTorch) {
  Graph graph;
  Scope scope(graph);
  const Value x = scope.Constant(Numbers(kFloat64, 700, {5, 4}, -3, 3)),
              wide = scope.Constant(Numbers(kFloat64, 701, {5, 4}, -80, 80));
  const Value target = scope.Constant(Numbers(kFloat64, 702, {5, 4})),
              share = scope.Constant(Numbers(kFloat64, 703, {5, 4}, 0, 1));
  const Value label = scope.Constant(IntegerNumbers(kInt32, 704, {5}, 4));
  struct Row {
    std::string name;
    Value loss, operand;
  };
  const Row rows[] = {{"mean_squared_error", nn::MeanSquaredError(x, target), x},
                      {"huber", nn::Huber(x, target), x},
                      {"huber_half", nn::Huber(x, target, 0.5), x},
                      {"binary_cross_entropy", nn::BinaryCrossEntropyWithLogits(x, share), x},
                      {"binary_cross_entropy_wide", nn::BinaryCrossEntropyWithLogits(wide, share), wide},
                      {"softmax_cross_entropy", nn::SoftmaxCrossEntropy(x, label), x},
                      {"softmax_cross_entropy_wide", nn::SoftmaxCrossEntropy(wide, label), wide}};
  std::vector<std::pair<std::string, Value>> values;
  for (const Row& row : rows) {
    values.emplace_back(row.name, row.loss);
    values.emplace_back(row.name + "/gradient", Gradients({row.loss}, {row.operand})[0]);
  }
  Session session = MakeSession(graph);
  EXPECT_EQ(DifferenceFromReference("loss/", RunNamed(session, {}, values), kTolerance64), "");
}

TEST(Activations, AsPyTorch) {
  Graph graph;
  Scope scope(graph);
  const Value x = scope.Constant(Numbers(kFloat64, 800, {60}, -6, 6));
  const std::pair<std::string, Value> rows[] = {
      {"sigmoid", Sigmoid(x)}, {"tanh", Tanh(x)}, {"relu", Relu(x)}, {"leaky_relu", LeakyRelu(x)},
      {"elu", Elu(x)},         {"selu", Selu(x)}, {"gelu", Gelu(x)}, {"softplus", Softplus(x)}};
  std::vector<std::pair<std::string, Value>> values;
  for (const auto& [name, y] : rows) {
    values.emplace_back(name + "/y", y);
    values.emplace_back(name + "/first", Gradients({y}, {x})[0]);
  }
  Session session = MakeSession(graph);
  EXPECT_EQ(DifferenceFromReference("activation/", RunNamed(session, {}, values), kTolerance64), "");
}

}  // namespace
}  // namespace gradweave
