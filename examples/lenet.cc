// LeNet on Fashion-MNIST: chapter 6.6 of "Dive into Deep Learning" (Zhang et al.).
#include "absl/flags/flag.h"
#include "examples/experiment.h"
#include "examples/lenet_layers.h"
#include "gradweave/gradweave.h"

const double kLearningRate = 0.9;

ABSL_FLAG(bool, book, false,
          "Repeats the book's run: standardized images in the order of the files, loss and train acc over all epochs.");

int main(int argc, char** argv) {
  return examples::Main(argc, argv, "lenet", [](examples::Flags flags) {
    gw::Graph graph;
    gw::Scope scope(graph);
    const examples::Inputs inputs = examples::AddInputs(scope);

    const gw::nn::Sequential lenet = examples::LeNet();
    flags.as_in_the_book = absl::GetFlag(FLAGS_book);
    // The mean and the standard deviation of the training images.
    const gw::Value image = flags.as_in_the_book ? (inputs.image - 0.2860) / 0.3530 : inputs.image;
    const gw::Value logits = lenet(scope, image);
    const gw::Value loss = gw::nn::SoftmaxCrossEntropy(logits, inputs.label);
    const gw::Update step = gw::optim::Sgd{.learning_rate = flags.learning_rate}.Minimize(loss);

    return examples::Train(flags, "lenet", lenet, inputs, {loss, step, {gw::metrics::Accuracy(logits, inputs.label)}},
                           logits);
  });
}
