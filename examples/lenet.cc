// LeNet on Fashion-MNIST: chapter 6.6 of "Dive into Deep Learning" (Zhang et al.).
#include "absl/flags/flag.h"
#include "examples/experiment.h"
#include "examples/lenet_layers.h"
#include "gradweave/gradweave.h"

const examples::Program kProgram{"lenet", "Trains lenet on Fashion-MNIST.", 10, 256, 0.9};

ABSL_FLAG(bool, book, false,
          "Repeats the book's run: standardized images in the order of the files, the last step again between epochs, "
          "loss and train acc over all epochs.");

namespace {

// The book's loop begins each epoch, after the first, with a step that repeats the last one. Makes
// the training step keep its changes of the variables, and returns the update that repeats them.
gw::Update RepeatLastStep(gw::Scope& scope, gw::Update& step) {
  gw::Update repeat, keep;
  for (const gw::Value& assignment : step.assignments) {
    const gw::Value variable = scope.graph().value(assignment.node().inputs[0].node);
    const gw::Value change = scope.Variable("change/" + variable.node().name, gw::ZerosLike(variable), {false});
    keep.assignments.push_back(gw::Assign(change, assignment - variable));
    repeat.assignments.push_back(gw::Assign(variable, variable + change));
  }
  step.assignments.insert(step.assignments.end(), keep.assignments.begin(), keep.assignments.end());
  return repeat;
}

}  // namespace

int main(int argc, char** argv) {
  return examples::Main(argc, argv, [](examples::Flags flags) {
    gw::Graph graph;
    gw::Scope scope(graph);
    const examples::Inputs inputs = examples::AddInputs(scope);

    const gw::nn::Sequential lenet = examples::LeNet();
    const bool book = absl::GetFlag(FLAGS_book);
    flags.fit.shuffle = !book;
    flags.fit.metrics_over_all_epochs = book;
    // The mean and the standard deviation of the training images.
    const gw::Value image = book ? (inputs.image - 0.2860) / 0.3530 : inputs.image;
    const gw::Value logits = lenet(scope, image);
    const gw::Value loss = gw::nn::SoftmaxCrossEntropy(logits, inputs.label);
    gw::Update step = examples::Minimize(flags, gw::optim::Sgd{.learning_rate = flags.learning_rate}, loss),
               between_epochs;
    if (book) between_epochs = RepeatLastStep(scope, step);

    return examples::Train(flags, lenet, inputs, {loss, step, {gw::metrics::Accuracy(logits, inputs.label)}}, logits,
                           between_epochs);
  });
}
