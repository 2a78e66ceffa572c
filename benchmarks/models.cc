#include "benchmarks/models.h"

#include <cmath>
#include <cstdlib>
#include <iostream>
#include <random>
#include <utility>

#include "examples/lenet_layers.h"

namespace benchmarks {
namespace {

using gw::nn::Sequential;

void ExitOnError(const absl::Status& status) {
  if (status.ok()) return;
  std::cerr << status << std::endl;
  std::exit(1);
}

Sequential Mlp() { return {gw::nn::Dense{256}, gw::nn::Relu{}, gw::nn::Dense{128}, gw::nn::Relu{}, gw::nn::Dense{10}}; }

Sequential Vgg() {
  auto pair = [](int64_t channels) {
    return Sequential{gw::nn::Conv2D{.channels = channels, .kernel = 3, .padding = 1}, gw::nn::Relu{},
                      gw::nn::Conv2D{.channels = channels, .kernel = 3, .padding = 1}, gw::nn::Relu{},
                      gw::nn::MaxPool2D{.pool = 2}};
  };
  return {pair(16), pair(32), pair(64), gw::nn::Flatten{}, gw::nn::Dense{10}};
}

// Two convolutions with a shortcut around them. The shortcut is a convolution if the shape changes,
// else the identity.
struct Block {
  static constexpr const char* kKind = "block";
  Sequential layers, shortcut;

  Block(int64_t channels, int64_t stride, bool changes)
      : layers{gw::nn::Conv2D{.channels = channels, .kernel = 3, .stride = stride, .padding = 1, .bias = false},
               gw::nn::BatchNorm{}, gw::nn::Relu{},
               gw::nn::Conv2D{.channels = channels, .kernel = 3, .padding = 1, .bias = false}, gw::nn::BatchNorm{}},
        shortcut(changes
                     ? Sequential{gw::nn::Conv2D{.channels = channels, .kernel = 1, .stride = stride, .bias = false},
                                  gw::nn::BatchNorm{}}
                     : Sequential{}) {}

  gw::Value Apply(const gw::nn::Context& context, gw::Value x) const {
    const gw::Value y = layers.Apply(context, x);
    const gw::Scope prefix(context.scope(), "shortcut");
    return gw::Relu(y + shortcut.Apply(context, x));
  }
};

Sequential ResNet() {
  return {gw::nn::Conv2D{.channels = 16, .kernel = 3, .padding = 1, .bias = false},
          gw::nn::BatchNorm{},
          gw::nn::Relu{},
          Block(16, 1, false),
          Block(32, 2, true),
          Block(64, 2, true),
          gw::nn::GlobalAvgPool{},
          gw::nn::Dense{10}};
}

// Multi-head attention (Vaswani et al., "Attention is all you need", 2017, section 3.2.2) on
// [batch, tokens, width].
struct Attention {
  static constexpr const char* kKind = "attention";
  int64_t heads;
  Sequential query, key, value, output;

  Attention(int64_t heads, int64_t width)
      : heads(heads),
        query{gw::nn::Dense{width}},
        key{gw::nn::Dense{width}},
        value{gw::nn::Dense{width}},
        output{gw::nn::Dense{width}} {}

  gw::Value Apply(const gw::nn::Context& context, gw::Value x) const {
    const gw::Dim batch = x.shape()[0], tokens = x.shape()[1];
    const int64_t width = x.shape()[2].size();
    auto split = [&](const char* name, const Sequential& layer) {
      const gw::Scope prefix(context.scope(), name);
      return gw::Transpose(gw::Reshape(layer.Apply(context, x), {batch, tokens, heads, width / heads}), {0, 2, 1, 3});
    };
    const gw::Value q = split("query", query), k = split("key", key), v = split("value", value);
    const int64_t head_width = width / heads;
    const double scale = 1 / std::sqrt(static_cast<double>(head_width));
    const gw::Value weights = gw::Softmax(gw::MatMul(q, k, {.transpose_b = true}) * scale);
    const gw::Value joined = gw::Reshape(gw::Transpose(gw::MatMul(weights, v), {0, 2, 1, 3}), {batch, tokens, width});
    const gw::Scope prefix(context.scope(), "output");
    return output.Apply(context, joined);
  }
};

Sequential Transformer() {
  return {gw::nn::Residual{{gw::nn::LayerNorm{}, Attention(4, 128)}},
          gw::nn::Residual{{gw::nn::LayerNorm{}, gw::nn::Dense{512}, gw::nn::Gelu{}, gw::nn::Dense{128}}}};
}

struct Row {
  const char* name;
  Sequential (*layers)();
  std::vector<int64_t> sample;
  double learning_rate;
};

const std::vector<Row>& Rows() {
  static const auto* const rows = new std::vector<Row>{{"lenet", examples::LeNet, {1, 28, 28}, 0.9},
                                                       {"mlp", Mlp, {784}, 0.1},
                                                       {"vgg", Vgg, {3, 32, 32}, 0.05},
                                                       {"resnet", ResNet, {3, 32, 32}, 0.1},
                                                       {"transformer", Transformer, {64, 128}, 0.01}};
  return *rows;
}

ModelRun Prepare(const std::string& name, int64_t batch_size, const gw::SessionOptions& options, bool training) {
  ModelRun result{BuildModel(name)};
  Model& model = result.model;
  absl::StatusOr<gw::Session> session = gw::Session::Create(*model.graph, options);
  ExitOnError(session.status());
  result.session = std::make_unique<gw::Session>(*std::move(session));
  std::vector<int64_t> sizes = {batch_size};
  for (int axis = 1; axis < model.input.rank(); ++axis) sizes.push_back(model.input.shape()[axis].size());
  gw::Tensor inputs(gw::kFloat32, sizes), labels(gw::kInt32, {batch_size});
  std::mt19937 random(1);
  for (float& pixel : inputs.mutable_values<float>()) pixel = static_cast<float>(random() % 256) / 255.0f;
  for (int32_t& label : labels.mutable_values<int32_t>()) label = static_cast<int32_t>(random() % 10);
  result.feeds = {{model.input, inputs}};
  if (training && model.label.valid()) result.feeds.emplace_back(model.label, labels);
  result.fetches = training ? std::vector<gw::Fetch>{model.loss, model.step} : std::vector<gw::Fetch>{model.output};
  auto run = result.session->Prepare(result.feeds, result.fetches);
  ExitOnError(run.status());
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
    gw::Scope scope(*model.graph);
    gw::Shape shape = {gw::Dim("batch")};
    for (int64_t size : row.sample) shape.Append(size);
    model.input = scope.Input("input", gw::kFloat32, shape);
    const Sequential layers = row.layers();
    const gw::Value output = layers(scope, model.input);
    if (name == "transformer") {
      model.loss = gw::Mean(gw::Square(output));
    } else {
      model.label = scope.Input("label", gw::kInt32, {gw::Dim("batch")});
      model.loss = gw::nn::SoftmaxCrossEntropy(output, model.label);
    }
    model.step = gw::optim::Sgd{.learning_rate = row.learning_rate}.Minimize(model.loss);
    model.output = layers(scope, model.input, {.training = false});
    ExitOnError(model.graph->status());
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
