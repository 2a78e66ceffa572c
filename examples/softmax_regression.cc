// Softmax regression on Fashion-MNIST: chapter 3 of "Dive into Deep Learning" (Zhang et al.).
#include "examples/experiment.h"
#include "gradweave/gradweave.h"

const examples::Program kProgram{"softmax_regression", "Trains softmax_regression on Fashion-MNIST.", 10, 256, 0.1};

int main(int argc, char** argv) {
  return examples::Main(argc, argv, [](const examples::Flags& flags) {
    gw::Graph graph;
    gw::Scope scope(graph);
    const examples::Inputs inputs = examples::AddInputs(scope);

    const gw::nn::Sequential model{gw::nn::Flatten{},
                                   gw::nn::Dense{.features = 10, .weight_initializer = gw::nn::Normal{0, 0.01}}};
    const gw::Value logits = model(scope, inputs.image);
    const gw::Value loss = gw::nn::SoftmaxCrossEntropy(logits, inputs.label);
    const gw::Update step = examples::Minimize(flags, gw::optim::Sgd{.learning_rate = flags.learning_rate}, loss);

    return examples::Train(flags, model, inputs, {loss, step, {gw::metrics::Accuracy(logits, inputs.label)}}, logits);
  });
}
