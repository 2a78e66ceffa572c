// The common part of the three programs of the book's chapters: training, pictures and printed
// results.
#ifndef GRADWEAVE_EXAMPLES_EXPERIMENT_H_
#define GRADWEAVE_EXAMPLES_EXPERIMENT_H_

#include "absl/status/status.h"
#include "examples/example.h"
#include "gradweave/gradweave.h"

namespace examples {

// The inputs for images and labels, which all three models share: image float32 [batch, 1, 28, 28],
// label int32 [batch].
struct Inputs {
  gw::Value image, label;
};
// Adds the inputs "image" and "label".
Inputs AddInputs(gw::Scope& scope);

// Trains the model as the book does. Prints the table of layers, a line for each epoch, the time
// until the first steps, the median time of an epoch, and the book's two result lines. Draws the
// first images to <program>_samples.png and the curves to <program>_training.svg. Saves the graph
// with its values and the outputs "logits", "probabilities", "loss", "correct" and "train_step".
// The first metric is the accuracy. Carries out `between_epochs` before each epoch but the first.
// Returns the first error.
absl::Status Train(const Flags& flags, const gw::nn::Sequential& model, const Inputs& inputs,
                   const gw::Training& training, const gw::Value& logits, const gw::Update& between_epochs = {});

}  // namespace examples

#endif  // GRADWEAVE_EXAMPLES_EXPERIMENT_H_
