// SessionOptions::mixed_precision: which nodes have halves, and that models train as in float32.
#include "gradweave/graph/passes/mixed_precision.h"

#include <cmath>
#include <functional>
#include <iostream>
#include <optional>
#include <random>
#include <set>
#include <string>
#include <vector>

#include "examples/lenet_layers.h"
#include "gmock/gmock.h"
#include "gradweave/frontend/layers.h"
#include "gradweave/frontend/loss_scaling.h"
#include "gradweave/frontend/losses.h"
#include "gradweave/frontend/optimizers.h"
#include "gradweave/ops/elementwise.h"
#include "gradweave/ops/matmul.h"
#include "gradweave/runtime/session/session.h"
#include "gtest/gtest.h"

namespace gradweave {
namespace {

using ::testing::HasSubstr;

// ---- The pass ----

const Node* FindOp(const Graph& graph, absl::string_view op, int number = 0) {
  for (const Node& node : graph.nodes()) {
    if (node.op->name == op && number-- == 0) return &node;
  }
  return nullptr;
}

// A net of two layers, its loss and its training step, as outputs.
Graph TwoLayers() {
  Graph graph;
  Scope scope(graph);
  const Value x = scope.Input("x", kFloat32, {32, 8}), label = scope.Input("label", kInt32, {32});
  const Value logits = nn::Sequential{nn::Dense{16}, nn::Relu{}, nn::Dense{4}}(scope, x);
  const Value loss = nn::SoftmaxCrossEntropy(logits, label);
  graph.SetOutput("step", optim::Sgd{.learning_rate = 0.1}.Minimize(loss).assignments);
  graph.SetOutput("loss", {loss});
  return graph;
}

TEST(MakeMixedPrecision, GivesProductsHalvesAndLeavesTheRestInFloat32) {
  const Graph graph = TwoLayers();
  MixedPrecisionReport report;
  const absl::StatusOr<Graph> mixed = MakeMixedPrecision(graph, kBFloat16, &report);
  ASSERT_TRUE(mixed.ok()) << mixed.status();
  std::set<std::string> halves;
  for (const Node& node : mixed->nodes()) {
    const bool half = node.outputs[0].dtype == kBFloat16;
    if (half) halves.insert(node.op->name);
    if (node.op->name == "MatMul") {
      EXPECT_TRUE(half);
      for (Port input : node.inputs) EXPECT_EQ(mixed->type(input).dtype, kBFloat16);
    }
    const std::set<std::string> wide = {"Variable", "Assign", "Sum", "SparseSoftmaxCrossEntropy"};
    EXPECT_FALSE(half && wide.count(node.op->name) > 0) << node.op->name;
    if (node.op->kind == OpKind::kAssign) {
      EXPECT_EQ(mixed->node(node.inputs[1].node).outputs[0].dtype, kFloat32) << "the update is float32";
    }
  }
  // The bias is added and the activation taken in bfloat16, which the next product takes anyway.
  EXPECT_EQ(halves.count("Relu"), 1);
  EXPECT_EQ(halves.count("Add"), 1);
  EXPECT_EQ(report.products, 5) << "two forwards, two of weights, one of an operand";
  EXPECT_GT(report.bytes, 0);
  EXPECT_THAT(report.ToString(), HasSubstr("mixed precision: 5 products"));
  for (const char* name : {"step", "loss"}) {
    for (Port port : mixed->outputs().at(name)) EXPECT_EQ(mixed->type(port).dtype, kFloat32);
  }
}

TEST(MakeMixedPrecision, CastsEachValueOnce) {
  Graph graph;
  Scope scope(graph);
  const Value x = scope.Input("x", kFloat32, {4, 4});
  graph.SetOutput("y", {MatMul(x, x), MatMul(x, x, {.transpose_a = true})});
  MixedPrecisionReport report;
  const absl::StatusOr<Graph> mixed = MakeMixedPrecision(graph, kFloat16, &report);
  ASSERT_TRUE(mixed.ok()) << mixed.status();
  EXPECT_EQ(report.casts, 3) << "one of x, and one of each output";
}

TEST(MakeMixedPrecision, LeavesNumbersThatFloat16LacksInFloat32) {
  for (const double number : {1e-12, 1e9, 0.5}) {
    Graph graph;
    Scope scope(graph);
    const Value x = scope.Input("x", kFloat32, {4, 4});
    graph.SetOutput("y", {MatMul(MatMul(x, x) * number, x)});
    const absl::StatusOr<Graph> mixed = MakeMixedPrecision(graph, kFloat16);
    ASSERT_TRUE(mixed.ok()) << mixed.status();
    EXPECT_EQ(FindOp(*mixed, "Mul")->outputs[0].dtype, number == 0.5 ? kFloat16 : kFloat32) << number;
  }
}

TEST(MixedPrecision, SumsProductsOfHalvesInFloat32) {
  // 1 + 2^-9 rounds to 1 in bfloat16, and 256 * 2^-9 is lost if sums are bfloat16.
  Graph graph;
  Scope scope(graph);
  const Value x = scope.Input("x", kFloat32, {1, 257}), w = scope.Input("w", kFloat32, {257, 1}), y = MatMul(x, w);
  absl::StatusOr<Session> session = Session::Create(graph, {.mixed_precision = kBFloat16});
  ASSERT_TRUE(session.ok()) << session.status();
  std::vector<float> row(257, 0x1p-9f), ones(257, 1.001953125f);
  row[0] = 1;
  const auto results =
      session->Run({{x, Tensor::Of<float>({1, 257}, row)}, {w, Tensor::Of<float>({257, 1}, ones)}}, {y});
  ASSERT_TRUE(results.ok()) << results.status();
  EXPECT_EQ((*results)[0].ToDouble(), 1.5);
  const absl::StatusOr<std::string> plan =
      session->DescribePlan({{x, Tensor::Of<float>({1, 257}, row)}, {w, Tensor::Of<float>({257, 1}, ones)}}, {y});
  ASSERT_TRUE(plan.ok()) << plan.status();
  EXPECT_THAT(*plan, HasSubstr("mixed precision: 1 products and 0 other nodes in bfloat16, 3 casts"));
}

// What is packed of a rounded weight is not what is packed of the weight itself, and not that of an
// older value.
TEST(MixedPrecision, PacksRoundedWeights) {
  Graph graph;
  Scope scope(graph);
  const Value x = scope.Input("x", kFloat32, {64, 256});
  const Value w = scope.Variable("w", scope.Full(1.001953125, {256, 256}));
  const Value rounded = MatMul(x, w), exact = Cast(MatMul(Cast(x, kFloat64), Cast(w, kFloat64)), kFloat32);
  absl::StatusOr<Session> session = Session::Create(graph, {.mixed_precision = kBFloat16});
  ASSERT_TRUE(session.ok()) << session.status();
  const Tensor ones = Tensor::Of<float>({64, 256}, std::vector<float>(64 * 256, 1));
  for (int i = 0; i < 3; ++i) {
    const auto results = session->Run({{x, ones}}, {rounded, exact});
    ASSERT_TRUE(results.ok()) << results.status();
    EXPECT_EQ((*results)[0].ToDoubles()[77], i < 2 ? 256 : 512);
    EXPECT_EQ((*results)[1].ToDoubles()[77], i < 2 ? 256.5 : 513);
    if (i == 1) {
      ASSERT_TRUE(
          session->SetVariable("w", Tensor::Of<float>({256, 256}, std::vector<float>(65536, 2.00390625f))).ok());
    }
  }
}

TEST(MixedPrecision, NeedsAHalfType) {
  Graph graph;
  const absl::StatusOr<Session> session = Session::Create(graph, {.mixed_precision = kFloat64});
  EXPECT_THAT(std::string(session.status().message()),
              HasSubstr("mixed_precision is float64 and has to be float16 or bfloat16"));
}

// ---- Training ----

struct Model {
  Graph graph;
  Value x, label, loss;
  std::vector<int64_t> sizes;  // Of a batch of x.
};

constexpr int64_t kBatch = 32, kClasses = 4;

void Build(Model& model, std::vector<int64_t> sizes, const nn::Sequential& layers) {
  Scope scope(model.graph);
  model.sizes = std::move(sizes);
  model.x = scope.Input("x", kFloat32, Shape(model.sizes));
  model.label = scope.Input("label", kInt32, {kBatch});
  model.loss = nn::SoftmaxCrossEntropy(layers(scope, model.x), model.label);
}

struct Net {
  const char* name;
  double rate;   // Of Adam.
  double below;  // The loss that it has to get below. LeNet has ten classes, and learns that four occur.
  void (*build)(Model& model);
};

const Net kNets[] = {
    {"lenet", 0.01, 1.4,
     [](Model& model) {
       Build(model, {kBatch, 1, 28, 28}, examples::LeNet());
     }},
    {"residual", 0.003, 1.2,
     [](Model& model) {
       const nn::Sequential body{nn::Conv2D{.channels = 8, .kernel = 3, .padding = 1}, nn::BatchNorm{}, nn::Relu{},
                                 nn::Conv2D{.channels = 8, .kernel = 3, .padding = 1}, nn::BatchNorm{}};
       Build(model, {kBatch, 3, 8, 8},
             {nn::Conv2D{.channels = 8, .kernel = 3, .padding = 1}, nn::Residual{body}, nn::Relu{}, nn::GlobalAvgPool{},
              nn::Dense{kClasses}});
     }},
    {"transformer", 0.003, 0.5,
     [](Model& model) {
       Build(model, {kBatch, 6, 16},
             {nn::PositionalEmbedding{.length = 6}, nn::TransformerBlock{.heads = 2}, nn::LayerNorm{}, nn::Flatten{},
              nn::Dense{kClasses}});
     }},
    {"lstm", 0.003, 1,
     [](Model& model) {
       Build(model, {kBatch, 6, 16}, {nn::Lstm{.features = 24, .whole_sequence = false}, nn::Dense{kClasses}});
     }},
};

struct Trained {
  double loss = 0;
  std::vector<Tensor> variables;
};

// Trains on samples that are a pattern of their class and noise, and returns the mean loss of the
// last steps.
Trained Train(const Net& net, std::optional<DType> precision, int seed, int threads) {
  Model model;
  net.build(model);
  const optim::Adam adam{.learning_rate = net.rate};
  const Update step = precision == kFloat16 ? optim::MinimizeScaled(adam, model.loss) : adam.Minimize(model.loss);
  absl::StatusOr<Session> session = Session::Create(
      model.graph, {.threads = threads, .seed = static_cast<uint64_t>(seed), .mixed_precision = precision});
  EXPECT_TRUE(session.ok()) << session.status();
  Trained result;
  if (!session.ok()) return result;
  std::mt19937 random(seed);
  std::normal_distribution<float> noise;
  const Tensor x(kFloat32, model.sizes), labels(kInt32, {kBatch});
  const int64_t of_sample = x.num_elements() / kBatch;
  std::vector<float> patterns(kClasses * of_sample);
  for (float& number : patterns) number = 0.5f * noise(random);
  constexpr int kSteps = 60, kLast = 10;
  for (int i = 0; i < kSteps; ++i) {
    Tensor images(kFloat32, model.sizes), classes(kInt32, {kBatch});
    for (int64_t sample = 0; sample < kBatch; ++sample) {
      const int64_t label = sample % kClasses;
      classes.mutable_values<int32_t>()[sample] = static_cast<int32_t>(label);
      for (int64_t k = 0; k < of_sample; ++k)
        images.mutable_values<float>()[sample * of_sample + k] = patterns[label * of_sample + k] + noise(random);
    }
    const auto results = session->Run({{model.x, images}, {model.label, classes}}, {model.loss, step});
    EXPECT_TRUE(results.ok()) << results.status();
    if (!results.ok()) return result;
    if (i >= kSteps - kLast) result.loss += (*results)[0].ToDouble() / kLast;
  }
  for (const std::string& name : session->VariableNames()) result.variables.push_back(*session->GetVariable(name));
  if (precision == kFloat16) {
    EXPECT_EQ(session->GetVariable("loss_scaling/skipped_steps")->ToDouble(), 0) << net.name;
  }
  return result;
}

class Training : public ::testing::TestWithParam<Net> {};

TEST_P(Training, EndsWithTheLossOfFloat32) {
  for (const int seed : {1, 2, 3}) {
    const double exact = Train(GetParam(), std::nullopt, seed, 1).loss;
    EXPECT_LT(exact, GetParam().below) << "the net learns";
    for (const DType half : {kBFloat16, kFloat16}) {
      const double loss = Train(GetParam(), half, seed, 1).loss;
      EXPECT_NEAR(loss, exact, 0.01 * exact) << DTypeName(half) << ", seed " << seed;
      EXPECT_NE(loss, exact) << "the products are rounded";
      std::cout << GetParam().name << ", " << DTypeName(half) << ", seed " << seed << ": loss " << loss
                << ", in float32 " << exact << std::endl;
    }
  }
}

TEST_P(Training, HasTheSameBitsForAnyNumberOfThreads) {
  for (const DType half : {kBFloat16, kFloat16}) {
    const Trained one = Train(GetParam(), half, 1, 1), two = Train(GetParam(), half, 1, 2);
    ASSERT_EQ(one.variables.size(), two.variables.size());
    for (size_t i = 0; i < one.variables.size(); ++i) EXPECT_TRUE(SameBits(one.variables[i], two.variables[i]));
  }
}

std::string NameOf(const ::testing::TestParamInfo<Net>& info) { return info.param.name; }
INSTANTIATE_TEST_SUITE_P(Nets, Training, ::testing::ValuesIn(kNets), NameOf);

}  // namespace
}  // namespace gradweave
