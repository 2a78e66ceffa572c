// LeNet on Fashion-MNIST: chapter 6.6 of "Dive into Deep Learning" (Zhang et al.).
#include "examples/experiment.h"
#include "examples/lenet_layers.h"
#include "gradweave/gradweave.h"

const double kLearningRate = 0.9;

int main(int argc, char** argv) {
  return examples::Main(argc, argv, "lenet", [](const examples::Flags& flags) {
    gw::Graph graph;
    gw::Scope scope(graph);
    const examples::Inputs inputs = examples::AddInputs(scope);

    const gw::nn::Sequential lenet = examples::LeNet();
    const gw::Value logits = lenet(scope, inputs.image);
    const gw::Value loss = gw::nn::SoftmaxCrossEntropy(logits, inputs.label);
    const gw::Update step = gw::optim::Sgd{.learning_rate = flags.learning_rate}.Minimize(loss);

    return examples::Train(flags, "lenet", lenet, inputs, {loss, step, {gw::metrics::Accuracy(logits, inputs.label)}},
                           logits);
  });
}
