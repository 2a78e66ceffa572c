// Quantization of a classifier: a net is trained on Fashion-MNIST, or loaded, and gets a copy that
// computes with 8-bit integers.
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <iostream>

#include "absl/flags/flag.h"
#include "absl/strings/str_format.h"
#include "examples/example.h"
#include "examples/fashion_mnist.h"
#include "examples/fit_flags.h"

ABSL_FLAG(std::string, model, "",
          "Model file of a classifier with the input 'image' [batch, 1, 28, 28] and the output 'logits', such as "
          "lenet.gw of //examples:lenet; by default a small net is trained.");
ABSL_FLAG(std::string, save, "quantized.gw", "File for the quantized model.");
ABSL_FLAG(int32_t, samples, 512, "Training images from which the ranges come, in [1, 60000].");
ABSL_FLAG(bool, fine_tune, false, "Trains for --epochs with the numbers of integers before the quantization.");

const examples::Program kProgram{"quantize", "Makes a classifier of 8-bit integers.", 2, 256, 0.002};

namespace {

// A training of the graph's output "logits".
struct Classifier {
  gw::Value image, label, logits;
  gw::Training training;
};
Classifier AddTraining(const examples::Flags& flags, gw::Scope& scope, gw::Value image, gw::Value logits) {
  const gw::Value label = scope.Input("label", gw::kInt32, {image.shape()[0]});
  const gw::Value loss = gw::nn::SoftmaxCrossEntropy(logits, label);
  const gw::Update step = examples::Minimize(flags, gw::optim::Adam{.learning_rate = flags.learning_rate}, loss);
  return {image, label, logits, {loss, step, {gw::metrics::Accuracy(logits, label)}}};
}

absl::StatusOr<gw::Model> Train(const examples::Flags& flags, const gw::Graph& graph, const Classifier& net,
                                const gw::NamedTensors& start) {
  GW_ASSIGN_OR_RETURN(gw::FitOptions options, examples::FitFlags(flags));
  options.callbacks = {gw::PrintProgress(std::cout, isatty(STDOUT_FILENO) != 0)};
  GW_ASSIGN_OR_RETURN(gw::Session session, gw::Session::Create(graph, flags.session));
  for (const auto& [name, value] : start) {
    if (graph.FindNamed(name) >= 0) GW_RETURN_IF_ERROR(session.SetVariable(name, value));
  }
  GW_ASSIGN_OR_RETURN(const gw::data::Dataset data, examples::FashionMnist(gw::data::Split::kTrain));
  GW_ASSIGN_OR_RETURN(const gw::Tensor images, data.Find("image"));
  GW_ASSIGN_OR_RETURN(const gw::Tensor labels, data.Find("label"));
  const gw::data::Dataset bound = {{net.image, images}, {net.label, labels}};
  GW_RETURN_IF_ERROR(examples::AddWatchers(session, net.training,
                                           {.samples = bound, .logits = net.logits, .label = net.label}, options));
  GW_RETURN_IF_ERROR(gw::Fit(session, net.training, bound, options).status());
  return gw::ModelOf(session);
}

absl::StatusOr<gw::Model> TrainSmallNet(const examples::Flags& flags) {
  gw::Graph graph;
  gw::Scope scope(graph);
  const gw::Value image = scope.Input("image", gw::kFloat32, {gw::Dim("batch"), 1, 28, 28});
  const gw::nn::Sequential layers{gw::nn::Conv2D{.channels = 32, .kernel = 3, .padding = 1},
                                  gw::nn::BatchNorm{},
                                  gw::nn::Relu{},
                                  gw::nn::MaxPool2D{.pool = 2},
                                  gw::nn::Conv2D{.channels = 64, .kernel = 3, .padding = 1},
                                  gw::nn::BatchNorm{},
                                  gw::nn::Relu{},
                                  gw::nn::MaxPool2D{.pool = 2},
                                  gw::nn::Flatten{},
                                  gw::nn::Dense{128},
                                  gw::nn::Relu{},
                                  gw::nn::Dense{10}};
  const Classifier net = AddTraining(flags, scope, image, layers(scope, image));
  graph.SetOutput("logits", {layers(scope, image, {.training = false})});
  return Train(flags, graph, net, {});
}

absl::StatusOr<gw::Model> FineTune(const examples::Flags& flags, const gw::Model& model,
                                   const std::vector<gw::NamedTensors>& samples) {
  GW_ASSIGN_OR_RETURN(gw::Graph graph, gw::FakeQuantized(model, samples, {.outputs = {"logits"}}));
  gw::Scope scope(graph);
  const Classifier net = AddTraining(flags, scope, graph.value(graph.FindNamed("image")), graph.Output("logits")[0]);
  GW_ASSIGN_OR_RETURN(const gw::Model trained, Train(flags, graph, net, model.variables));
  gw::Model result = model;
  for (auto& [name, value] : result.variables) {
    for (const auto& [other, tuned] : trained.variables) {
      if (name == other) value = tuned;
    }
  }
  return result;
}

// The numbers that the model gets during its training: bytes are divided by 255.
gw::Tensor Floats(const gw::Tensor& bytes) {
  gw::Tensor floats = bytes.Cast(gw::kFloat32);
  for (float& number : floats.mutable_values<float>()) number /= 255;
  return floats;
}

// Prints the accuracy over the test images, and how many of them the model classifies in a second.
absl::Status Measure(const examples::Flags& flags, const char* name, gw::Model model, const gw::data::Dataset& test) {
  GW_ASSIGN_OR_RETURN(gw::Session session, gw::CreateSession(model, flags.session));
  GW_ASSIGN_OR_RETURN(const gw::Tensor bytes, test.Find("image"));
  GW_ASSIGN_OR_RETURN(const gw::Tensor labels, test.Find("label"));
  const gw::Tensor images = Floats(bytes);
  const gw::Value image = model.graph.value(model.graph.FindNamed("image")), logits = model.graph.Output("logits")[0];
  const int64_t count = images.size(0), batch = std::min<int64_t>(count, 200);
  // The first run makes a plan.
  GW_RETURN_IF_ERROR(session.Run({{image, images.Rows(0, batch)}}, {logits}).status());
  int64_t right = 0;
  double seconds = 0;
  for (int64_t begin = 0; begin < count; begin += batch) {
    const int64_t end = std::min(begin + batch, count);
    const auto start = std::chrono::steady_clock::now();
    GW_ASSIGN_OR_RETURN(const std::vector<gw::Tensor> results,
                        session.Run({{image, images.Rows(begin, end)}}, {logits}));
    seconds += std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
    const int64_t classes = results[0].size(1);
    for (int64_t i = 0; i < end - begin; ++i) {
      const float* const scores = results[0].data<float>() + i * classes;
      right += std::max_element(scores, scores + classes) - scores == labels.data<int32_t>()[begin + i] ? 1 : 0;
    }
  }
  std::cout << absl::StrFormat("%-8s accuracy %.4f, %.0f images/sec", name,
                               static_cast<double>(right) / static_cast<double>(count),
                               static_cast<double>(count) / seconds)
            << std::endl;
  return absl::OkStatus();
}

absl::Status Run(const examples::Flags& flags) {
  const std::string path = absl::GetFlag(FLAGS_model);
  const int64_t count = absl::GetFlag(FLAGS_samples);
  GW_RETURN_IF_ERROR(examples::CheckRange("samples", count, int64_t{1}, int64_t{60000}, "[1, 60000]"));
  GW_ASSIGN_OR_RETURN(gw::Model model, path.empty() ? TrainSmallNet(flags) : gw::LoadModel(path));
  if (model.graph.FindNamed("image") < 0 || model.graph.Output("logits").size() != 1)
    return absl::InvalidArgumentError(path + ": the model has no input 'image' or no output 'logits'");

  GW_ASSIGN_OR_RETURN(const gw::data::Dataset train, examples::FashionMnist(gw::data::Split::kTrain));
  GW_ASSIGN_OR_RETURN(const gw::Tensor images, train.Find("image"));
  std::vector<gw::NamedTensors> samples;
  for (int64_t begin = 0; begin < std::min(count, images.size(0)); begin += 64)
    samples.push_back({{"image", Floats(images.Rows(begin, std::min({begin + 64, count, images.size(0)})))}});
  if (absl::GetFlag(FLAGS_fine_tune)) {
    GW_ASSIGN_OR_RETURN(model, FineTune(flags, model, samples));
  }
  std::vector<std::string> outputs = {"logits"};
  if (!model.graph.Output("probabilities").empty()) outputs.push_back("probabilities");
  GW_ASSIGN_OR_RETURN(const gw::QuantizedModel quantized, gw::Quantize(model, samples, {.outputs = outputs}));
  std::cout << quantized.ToString();
  GW_RETURN_IF_ERROR(gw::SaveModel(quantized.model, absl::GetFlag(FLAGS_save)));

  GW_ASSIGN_OR_RETURN(const gw::data::Dataset test, examples::FashionMnist(gw::data::Split::kTest));
  GW_RETURN_IF_ERROR(Measure(flags, "float32", model, test));
  GW_RETURN_IF_ERROR(Measure(flags, "int8", quantized.model, test));
  std::cout << absl::GetFlag(FLAGS_save) << " has the quantized model" << std::endl;
  return absl::OkStatus();
}

}  // namespace

int main(int argc, char** argv) { return examples::Main(argc, argv, Run); }
