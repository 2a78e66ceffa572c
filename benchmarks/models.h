// The models of the benchmarks.
#ifndef GRADWEAVE_BENCHMARKS_MODELS_H_
#define GRADWEAVE_BENCHMARKS_MODELS_H_

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "gradweave/gradweave.h"

namespace benchmarks {

// A model with its loss and gradient step, and the same variables for inference. The batch is
// symbolic.
struct Model {
  std::unique_ptr<gw::Graph> graph;
  gw::Value input, label;  // The label is invalid if the loss needs none.
  gw::Value output;        // Result of the inference call.
  gw::Value loss;
  gw::Update step;
};

// The names of all models:
// - "lenet": chapter 6.6 of Dive into Deep Learning.
// - "mlp": a perceptron 784-256-128-10.
// - "vgg": two 3x3 convolutions each of 16, 32 and 64 channels, with max pooling, on 3x32x32.
// - "resnet": three residual blocks of 16, 32 and 64 channels with batch normalization, on 3x32x32.
// - "transformer": an encoder block on 64 tokens of width 128 with 4 heads.
std::vector<std::string> ModelNames();
// Builds a model. Ends the program for an unknown name.
Model BuildModel(const std::string& name);

// A session on random data with a prepared run. Ends the program if anything fails, so that no
// benchmark measures a failed run.
struct ModelRun {
  Model model;
  std::unique_ptr<gw::Session> session;
  std::vector<gw::Feed> feeds;
  std::vector<gw::Fetch> fetches;
  std::unique_ptr<gw::PreparedRun> run;
  void Step();
};
// Prepares a training step, or inference, of a model.
ModelRun Training(const std::string& name, int64_t batch_size, const gw::SessionOptions& options);
ModelRun Inference(const std::string& name, int64_t batch_size, const gw::SessionOptions& options);

}  // namespace benchmarks

#endif  // GRADWEAVE_BENCHMARKS_MODELS_H_
