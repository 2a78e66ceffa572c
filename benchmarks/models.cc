#include "benchmarks/models.h"

#include <chrono>
#include <cstdlib>
#include <iostream>
#include <random>
#include <utility>

#include "benchmarks/model_layers.h"
#include "examples/lenet_layers.h"

namespace benchmarks {
namespace {

using gw::nn::Sequential;
using gw::optim::Adam;
using gw::optim::AdamW;
using gw::optim::Sgd;

void ExitOnError(const absl::Status& status) {
  if (status.ok()) return;
  std::cerr << status << std::endl;
  std::exit(1);
}

enum class Loss {
  kClasses,  // Cross entropy with an integer for each row of the output.
  kSquares,  // The mean of the output's squares.
  kMask,     // Sigmoid cross entropy with a 0 or 1 for each element of the output.
  kInput,    // Mean squared error between output and input.
};

struct Row {
  const char* name;
  Sequential (*layers)();
  std::vector<int64_t> sample;
  gw::optim::Optimizer optimizer;
  Loss loss = Loss::kClasses;
  int64_t vocabulary = 0;  // The input is int32 in [0, vocabulary), or float32 if this is 0.
};

const std::vector<Row>& Rows() {
  static const auto* const rows = new std::vector<Row>{
      {"lenet", examples::LeNet, {1, 28, 28}, Sgd{.learning_rate = 0.9}},
      {"mlp", Mlp, {784}, Sgd{.learning_rate = 0.1}},
      {"vgg", Vgg, {3, 32, 32}, Sgd{.learning_rate = 0.05}},
      {"resnet", ResNet, {3, 32, 32}, Sgd{.learning_rate = 0.1}},
      {"transformer", Transformer, {64, 128}, Sgd{.learning_rate = 0.01}, Loss::kSquares},
      {"resnet18", ResNet18, {3, 224, 224}, Sgd{.learning_rate = 0.01, .momentum = 0.9}},
      {"resnet50", ResNet50, {3, 224, 224}, Sgd{.learning_rate = 0.01, .momentum = 0.9}},
      {"mobilenet", MobileNet, {3, 224, 224}, Sgd{.learning_rate = 0.01, .momentum = 0.9}},
      {"mobilenet64", SmallMobileNet, {3, 64, 64}, Sgd{.learning_rate = 0.01, .momentum = 0.9}},
      {"unet", UNet, {1, 64, 64}, Adam{.learning_rate = 0.001}, Loss::kMask},
      {"autoencoder", Autoencoder, {1, 28, 28}, Adam{.learning_rate = 0.001}, Loss::kInput},
      {"lstm", Lstm, {32, 64}, Adam{.learning_rate = 0.001}},
      {"gpt", Gpt, {128}, AdamW{.learning_rate = 0.001}, Loss::kClasses, kGptVocabulary},
      {"vit", VisionTransformer, {3, 224, 224}, AdamW{.learning_rate = 0.001}},
      {"embedding", EmbeddingClassifier, {32}, Adam{.learning_rate = 0.001}, Loss::kClasses, kEmbeddingVocabulary},
      {"tabular", Tabular, {32}, Adam{.learning_rate = 0.001}},
      {"deep_mlp", DeepMlp, {512}, Sgd{.learning_rate = 0.01}},
      {"audio", Audio, {1, 16'000}, Adam{.learning_rate = 0.001}}};
  return *rows;
}

// Adds the loss, and the label if it needs one.
gw::Value AddLoss(gw::Scope& scope, Loss loss, const gw::Value& output, Model& model) {
  gw::Shape shape;
  switch (loss) {
    case Loss::kClasses:
      for (int axis = 0; axis + 1 < output.rank(); ++axis) shape.Append(output.shape()[axis]);
      model.label = scope.Input("label", gw::kInt32, shape);
      return gw::nn::SoftmaxCrossEntropy(output, model.label);
    case Loss::kMask:
      model.label = scope.Input("label", gw::kFloat32, output.shape());
      return gw::nn::BinaryCrossEntropyWithLogits(output, model.label);
    case Loss::kInput:
      return gw::nn::MeanSquaredError(output, model.input);
    case Loss::kSquares:
      break;
  }
  return gw::Mean(gw::Square(output));
}

// A tensor for an input: integers in [0, limit), or floats k / (limit - 1) for such integers.
gw::Tensor RandomTensor(const gw::Value& input, int64_t batch_size, int64_t limit, std::mt19937& random) {
  std::vector<int64_t> sizes = {batch_size};
  for (int axis = 1; axis < input.rank(); ++axis) sizes.push_back(input.shape()[axis].size());
  gw::Tensor tensor(input.dtype(), sizes);
  if (input.dtype() == gw::kInt32) {
    for (int32_t& value : tensor.mutable_values<int32_t>()) value = static_cast<int32_t>(random() % limit);
  } else {
    const auto largest = static_cast<float>(limit - 1);
    for (float& value : tensor.mutable_values<float>()) value = static_cast<float>(random() % limit) / largest;
  }
  return tensor;
}

ModelRun Prepare(const std::string& name, int64_t batch_size, const gw::SessionOptions& options, bool training) {
  ModelRun result{BuildModel(name)};
  Model& model = result.model;
  absl::StatusOr<gw::Session> session = gw::Session::Create(*model.graph, options);
  ExitOnError(session.status());
  result.session = std::make_unique<gw::Session>(*std::move(session));
  std::mt19937 random(1);
  const int64_t values = model.vocabulary == 0 ? 256 : model.vocabulary;
  result.feeds = {{model.input, RandomTensor(model.input, batch_size, values, random)}};
  if (training && model.label.valid()) {
    const bool classes = model.label.dtype() == gw::kInt32;
    const int64_t labels = classes ? model.output.shape()[model.output.rank() - 1].size() : 2;
    result.feeds.emplace_back(model.label, RandomTensor(model.label, batch_size, labels, random));
  }
  result.fetches = training ? std::vector<gw::Fetch>{model.loss, model.step} : std::vector<gw::Fetch>{model.output};
  const auto start = std::chrono::steady_clock::now();
  auto run = result.session->Prepare(result.feeds, result.fetches);
  ExitOnError(run.status());
  result.prepare_seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
  result.run = *std::move(run);
  return result;
}

}  // namespace

std::vector<std::string> ModelNames() {
  std::vector<std::string> names;
  for (const Row& row : Rows()) names.push_back(row.name);
  return names;
}

Model BuildModel(const std::string& name) {
  for (const Row& row : Rows()) {
    if (row.name != name) continue;
    Model model{std::make_unique<gw::Graph>()};
    model.vocabulary = row.vocabulary;
    gw::Scope scope(*model.graph);
    gw::Shape shape = {gw::Dim("batch")};
    for (int64_t size : row.sample) shape.Append(size);
    model.input = scope.Input("input", row.vocabulary == 0 ? gw::kFloat32 : gw::kInt32, shape);
    const Sequential layers = row.layers();
    const gw::Value output = layers(scope, model.input);
    ExitOnError(model.graph->status());
    model.loss = AddLoss(scope, row.loss, output, model);
    model.step = row.optimizer.Minimize(model.loss);
    model.output = layers(scope, model.input, {.training = false});
    ExitOnError(model.graph->status());
    for (const gw::Value& variable : gw::optim::TrainableVariables(*model.graph, model.loss)) {
      int64_t size = 1;
      for (int axis = 0; axis < variable.rank(); ++axis) size *= variable.shape()[axis].size();
      model.parameters += size;
    }
    return model;
  }
  std::cerr << "there is no model '" << name << "'; models are";
  for (const Row& row : Rows()) std::cerr << " " << row.name;
  std::cerr << std::endl;
  std::exit(1);
}

void ModelRun::Step() { ExitOnError(run->Run()); }

ModelRun Training(const std::string& name, int64_t batch_size, const gw::SessionOptions& options) {
  return Prepare(name, batch_size, options, true);
}
ModelRun Inference(const std::string& name, int64_t batch_size, const gw::SessionOptions& options) {
  return Prepare(name, batch_size, options, false);
}

}  // namespace benchmarks
