#include "tests/distributed/models.h"

#include <cstring>
#include <random>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "examples/lenet_layers.h"

namespace gradweave {
namespace {

Tensor RandomFloats(std::vector<int64_t> sizes, uint64_t seed) {
  Tensor tensor(kFloat32, sizes);
  std::mt19937 random(seed);
  for (float& number : tensor.mutable_values<float>()) number = static_cast<float>(random() % 2001) / 1000.0f - 1;
  return tensor;
}

Tensor RandomClasses(std::vector<int64_t> sizes, int classes, uint64_t seed) {
  Tensor tensor(kInt32, sizes);
  std::mt19937 random(seed);
  for (int32_t& number : tensor.mutable_values<int32_t>()) number = static_cast<int32_t>(random() % classes);
  return tensor;
}

// A classifier of images [channels, size, size].
template <typename Optimizer>
DistributedCase Classifier(std::string name, const nn::Sequential& layers, int64_t channels, int64_t size,
                           const Optimizer& optimizer) {
  DistributedCase result{.name = std::move(name), .graph = std::make_unique<Graph>()};
  Scope scope(*result.graph);
  const Value image = scope.Input("image", kFloat32, {Dim("batch"), channels, size, size});
  const Value label = scope.Input("label", kInt32, {Dim("batch")});
  const Value logits = layers(scope, image), tested = layers(scope, image, {.training = false});
  const Value loss = nn::SoftmaxCrossEntropy(logits, label);
  result.training = {.loss = loss,
                     .step = optimizer.Minimize(loss),
                     .metrics = {metrics::Accuracy(logits, label), metrics::ConfusionMatrix(logits, label)},
                     .validation_loss = nn::SoftmaxCrossEntropy(tested, label),
                     .validation_metrics = {metrics::Accuracy(tested, label)}};
  result.data = {{image, RandomFloats({kSamples, channels, size, size}, 1)}, {label, RandomClasses({kSamples}, 10, 2)}};
  result.validation = {{image, RandomFloats({kSamples, channels, size, size}, 3)},
                       {label, RandomClasses({kSamples}, 10, 4)}};
  return result;
}

DistributedCase ResidualNet() {
  const nn::Conv2D conv{.channels = 8, .kernel = 3, .padding = 1};
  const nn::Sequential block{conv, nn::BatchNorm{}, nn::Relu{}, conv, nn::BatchNorm{}};
  const nn::Sequential layers{conv,         nn::BatchNorm{},          nn::Relu{},          nn::Residual{block},
                              nn::Relu{},   nn::MaxPool2D{.pool = 2}, nn::GlobalAvgPool{}, nn::Dropout{0.2},
                              nn::Dense{10}};
  return Classifier("residual net", layers, 3, 8, optim::Sgd{.learning_rate = 0.1, .momentum = 0.9});
}

DistributedCase Transformer() {
  constexpr int64_t kTime = 6, kWords = 12, kFeatures = 16;
  DistributedCase result{.name = "transformer", .graph = std::make_unique<Graph>()};
  Scope scope(*result.graph);
  const Value words = scope.Input("words", kInt32, {Dim("batch"), kTime});
  const Value next = scope.Input("next", kInt32, {Dim("batch"), kTime});
  const nn::TransformerBlock block{.heads = 2, .causal = true, .dropout = 0.1};
  const nn::Sequential layers{nn::Embedding{.vocabulary = kWords, .features = kFeatures},
                              nn::PositionalEmbedding{.length = kTime},
                              block,
                              block,
                              nn::LayerNorm{},
                              nn::Dense{kWords}};
  const Value logits = layers(scope, words);
  const Value loss = nn::SoftmaxCrossEntropy(logits, next);
  result.training = {.loss = loss,
                     .step = optim::Sgd{.learning_rate = 0.2, .momentum = 0.9, .clip_norm = 0.5}.Minimize(loss),
                     .metrics = {metrics::Accuracy(logits, next)}};
  result.data = {{words, RandomClasses({kSamples, kTime}, kWords, 5)},
                 {next, RandomClasses({kSamples, kTime}, kWords, 6)}};
  return result;
}

DistributedCase Gan() {
  DistributedCase result{.name = "gan", .graph = std::make_unique<Graph>()};
  Scope scope(*result.graph);
  const Value image = scope.Input("image", kFloat32, {Dim("batch"), 20});
  const nn::Sequential generator{nn::Dense{16}, nn::BatchNorm{}, nn::Relu{}, nn::Dense{20}};
  const nn::Sequential discriminator{nn::Dense{16}, nn::LeakyRelu{}, nn::Dense{1}};
  const Value fake = generator(scope, RandomNormal(scope, {Dim("batch"), 5}));
  Scope judge(scope, "judge");
  const Value real_score = discriminator(judge, image), fake_score = discriminator(judge, fake);
  const Value judge_loss = Mean(Softplus(-real_score)) + Mean(Softplus(fake_score));
  const Value draw_loss = Mean(Softplus(-fake_score));
  // Gradients of biases before batch normalization are rounding errors, which Adam would make
  // large.
  const optim::Adam adam{.learning_rate = 0.01, .beta1 = 0.5};
  const optim::Sgd sgd{.learning_rate = 0.05};
  result.training = {
      .loss = judge_loss,
      .step = optim::Then(adam.Minimize(judge_loss, optim::TrainableVariables(*result.graph, real_score)),
                          sgd.Minimize(draw_loss, optim::TrainableVariables(*result.graph, fake))),
      .metrics = {metrics::Mean("generator loss", draw_loss)}};
  result.data = {{image, RandomFloats({kSamples, 20}, 7)}};
  return result;
}

}  // namespace

std::vector<DistributedCase> DistributedCases() {
  std::vector<DistributedCase> cases;
  cases.push_back(Classifier("lenet", examples::LeNet(), 1, 28, optim::Sgd{.learning_rate = 0.9}));
  cases.push_back(ResidualNet());
  cases.push_back(Transformer());
  cases.push_back(Gan());
  return cases;
}

absl::StatusOr<TrainingResult> Train(const DistributedCase& of, const SessionOptions& session_options,
                                     FitOptions fit_options) {
  GW_ASSIGN_OR_RETURN(Session session, Session::Create(*of.graph, session_options));
  TrainingResult result;
  fit_options.validation = of.validation;
  fit_options.batch_size = kBatchSize;
  fit_options.validation_batch_size = 13;
  fit_options.callbacks.push_back({.after_batch = [&](TrainingState& state) {
    result.losses.push_back(state.train["loss"]);
    return absl::OkStatus();
  }});
  GW_ASSIGN_OR_RETURN(const TrainingState end, Fit(session, of.training, of.data, fit_options));
  for (const auto& [name, value] : end.train.all()) {
    for (double number : value.ToDoubles()) result.losses.push_back(number);
  }
  for (const auto& [name, value] : end.validation.all()) result.losses.push_back(value.ToDouble());
  for (const std::string& name : session.VariableNames()) {
    GW_ASSIGN_OR_RETURN(Tensor value, session.GetVariable(name));
    result.variables.emplace_back(name, std::move(value));
  }
  return result;
}

std::string BitsOf(const TrainingResult& result) {
  std::string text = "losses";
  for (double loss : result.losses) absl::StrAppendFormat(&text, " %a", loss);
  for (const auto& [name, value] : result.variables) {
    uint64_t hash = 0xcbf29ce484222325;
    const auto* bytes = static_cast<const unsigned char*>(value.raw_data());
    for (size_t i = 0; i < value.byte_size(); ++i) hash = (hash ^ bytes[i]) * 0x100000001b3;
    absl::StrAppendFormat(&text, "; %s %016x", name, hash);
  }
  return text;
}

}  // namespace gradweave
