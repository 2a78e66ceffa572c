// What the chapter's three programs share: flags, data, pictures and printed results.
#ifndef GRADWEAVE_EXAMPLES_EXPERIMENT_H_
#define GRADWEAVE_EXAMPLES_EXPERIMENT_H_

#include <functional>
#include <string>

#include "absl/status/status.h"
#include "gradweave/gradweave.h"

// The learning rate that the book uses for this model: the default of --lr.
extern const double kLearningRate;

namespace examples {

// The flags, checked.
struct Flags {
  int64_t epochs, batch_size, limit_train;
  double learning_rate;
  gw::SessionOptions session;
  std::string data_dir, save, plot_dir;
};

// Parses the flags, goes to the user's folder and calls run. An error is printed in one line, and the exit code is
// then 1.
int Main(int argc, char** argv, const std::string& name, const std::function<absl::Status(const Flags&)>& run);

// The input for images and that for labels, as all three models have them.
struct Inputs {
  gw::Value image, label;
};
Inputs AddInputs(gw::Scope& scope);

// Trains the model as the book does: prints the table of layers, draws the first images to <name>_samples.png, trains
// with a line of progress for each epoch, draws the curves to <name>_training.svg, prints how long the first steps were
// waited for and an epoch (the median) took, and the book's two lines.
// Saves the graph with its values and the outputs "logits", "probabilities", "loss", "correct" and "train_step".
absl::Status Train(const Flags& flags, const std::string& name, const gw::nn::Sequential& model, const Inputs& inputs,
                   const gw::TrainingGraph& graph, const gw::Value& logits);

}  // namespace examples

#endif  // GRADWEAVE_EXAMPLES_EXPERIMENT_H_
