// Fine-tuning of an ONNX file: a classifier that PyTorch exported is imported, trained on
// Fashion-MNIST with its own head or with a new one, and exported.
#include <unistd.h>

#include <algorithm>
#include <iostream>

#include "absl/flags/flag.h"
#include "examples/example.h"
#include "examples/fashion_mnist.h"
#include "examples/fit_flags.h"
#include "gradweave/frontend/onnx/export.h"
#include "gradweave/frontend/onnx/import.h"

ABSL_FLAG(std::string, model, "",
          "ONNX file of a classifier of images [batch, 1, 28, 28]; the default is an untrained LeNet from PyTorch.");
ABSL_FLAG(std::string, save, "finetune.onnx", "File for the trained model.");
ABSL_FLAG(bool, new_head, false, "Replaces all from the last matrix product on by a new layer for ten classes.");
ABSL_FLAG(bool, head_only, false, "Leaves the other layers as they are; with --new_head.");

const examples::Program kProgram{"finetune", "Trains an ONNX model on Fashion-MNIST.", 10, 256, 0.005};

// Returns the first operand of the last matrix product: the features that the head classifies.
// Returns an invalid value if there is no product.
gw::Value FeaturesOf(gw::Value value) {
  while (value.valid() && value.node().op->kind != gw::OpKind::kMatMul) {
    value = value.node().inputs.empty() ? gw::Value() : value.graph()->value(value.node().inputs[0]);
  }
  return value.valid() ? value.graph()->value(value.node().inputs[0]) : value;
}

absl::Status Run(const examples::Flags& flags) {
  GW_ASSIGN_OR_RETURN(gw::FitOptions options, examples::FitFlags(flags));  // Epochs, batch size and others.
  const std::string flag = absl::GetFlag(FLAGS_model), path = flag.empty() ? examples::DataFile("lenet.onnx") : flag;
  const bool new_head = absl::GetFlag(FLAGS_new_head), head_only = absl::GetFlag(FLAGS_head_only);
  if (head_only && !new_head) return absl::InvalidArgumentError("--head_only needs --new_head");
  GW_ASSIGN_OR_RETURN(gw::onnx::ImportedModel net, gw::onnx::Import(path));
  gw::Graph& graph = net.model.graph;
  gw::Scope scope(graph);
  const gw::Value image = net.Input(net.inputs.empty() ? "" : net.inputs[0]);
  gw::Value logits = net.Output(net.outputs[0]);
  if (!image.valid() || image.rank() == 0)
    return absl::InvalidArgumentError(path + ": the model has no input of images");
  const std::vector<gw::Value> old = gw::optim::TrainableVariables(graph);
  if (new_head) {
    const gw::Value features = FeaturesOf(logits);
    if (!features.valid()) return absl::InvalidArgumentError(path + ": the model has no matrix product");
    logits = gw::nn::Sequential{gw::nn::Dense{10}}(scope, features);
  }
  const gw::Value label = scope.Input("label", gw::kInt32, {image.shape()[0]});
  const gw::Value loss = gw::nn::SoftmaxCrossEntropy(logits, label);
  std::vector<gw::Value> variables = gw::optim::TrainableVariables(graph, loss);
  const auto is_old = [&](const gw::Value& v) { return std::find(old.begin(), old.end(), v) != old.end(); };
  if (head_only) variables.erase(std::remove_if(variables.begin(), variables.end(), is_old), variables.end());
  const gw::Update step =
      examples::Minimize(flags, gw::optim::Adam{.learning_rate = flags.learning_rate}, loss, variables);
  const gw::Training training{loss, step, {gw::metrics::Accuracy(logits, label)}};

  GW_ASSIGN_OR_RETURN(gw::Session session, gw::CreateSession(net.model, flags.session));
  gw::data::Dataset parts[2];
  for (const gw::data::Split split : {gw::data::Split::kTrain, gw::data::Split::kTest}) {
    GW_ASSIGN_OR_RETURN(const gw::data::Dataset data, examples::FashionMnist(split));
    GW_ASSIGN_OR_RETURN(const gw::Tensor images, data.Find("image"));
    GW_ASSIGN_OR_RETURN(const gw::Tensor labels, data.Find("label"));
    parts[split == gw::data::Split::kTest] = {{image, images}, {label, labels}};
  }
  options.validation = parts[1];
  options.callbacks = {gw::PrintProgress(std::cout, isatty(STDOUT_FILENO) != 0)};
  GW_RETURN_IF_ERROR(
      examples::AddWatchers(session, training, {.samples = parts[1], .logits = logits, .label = label}, options));
  GW_RETURN_IF_ERROR(gw::Fit(session, training, parts[0], options).status());
  GW_ASSIGN_OR_RETURN(const gw::Model trained, gw::ModelOf(session));
  GW_RETURN_IF_ERROR(gw::onnx::Export(trained, {{net.outputs[0], logits}}, absl::GetFlag(FLAGS_save)));
  std::cout << absl::GetFlag(FLAGS_save) << " has the trained model" << std::endl;
  return absl::OkStatus();
}

int main(int argc, char** argv) { return examples::Main(argc, argv, Run); }
