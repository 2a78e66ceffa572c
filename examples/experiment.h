// The common part of the three chapter programs: flags, data, pictures and printed results.
#ifndef GRADWEAVE_EXAMPLES_EXPERIMENT_H_
#define GRADWEAVE_EXAMPLES_EXPERIMENT_H_

#include <functional>
#include <string>

#include "absl/status/status.h"
#include "gradweave/gradweave.h"

// The book's learning rate for this model; the default of --lr.
extern const double kLearningRate;

namespace examples {

// The checked flags.
struct Flags {
  int64_t epochs, batch_size, limit_train;
  double learning_rate;
  gw::SessionOptions session;
  std::string data_dir, save, plot_dir;
  // Takes the images in the order of the files, and loss and training accuracy over all epochs.
  bool as_in_the_book = false;
};

// Parses the flags, changes to the user's folder and calls `run`. Prints an error in one line and
// returns the exit code, which is 1 after an error.
int Main(int argc, char** argv, const std::string& name, const std::function<absl::Status(const Flags&)>& run);

// The inputs for images and labels, which all three models share: image float32 [batch, 1, 28, 28],
// label int32 [batch].
struct Inputs {
  gw::Value image, label;
};
// Adds the inputs "image" and "label".
Inputs AddInputs(gw::Scope& scope);

// Trains the model as the book does. Prints the table of layers, a line for each epoch, the time
// until the first steps, the median time of an epoch, and the book's two result lines. Draws the
// first images to <name>_samples.png and the curves to <name>_training.svg. Saves the graph with
// its values and the outputs "logits", "probabilities", "loss", "correct" and "train_step". The
// first metric is the accuracy. Carries out `between_epochs` before each epoch but the first.
// Returns the first error.
absl::Status Train(const Flags& flags, const std::string& name, const gw::nn::Sequential& model, const Inputs& inputs,
                   const gw::Training& training, const gw::Value& logits, const gw::Update& between_epochs = {});

}  // namespace examples

#endif  // GRADWEAVE_EXAMPLES_EXPERIMENT_H_
