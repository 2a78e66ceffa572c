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
  int64_t vocabulary = 0;  // The input has ids in [0, vocabulary), or numbers if this is 0.
  int64_t parameters = 0;  // The number of trained numbers.
};

// The names of all models. Each trains with the optimizer in the table of models.cc, and on the
// cross entropy of its classes except where noted.
// - "lenet": chapter 6.6 of Dive into Deep Learning.
// - "mlp": a perceptron 784-256-128-10.
// - "vgg": two 3x3 convolutions each of 16, 32 and 64 channels, with max pooling, on 3x32x32.
// - "resnet": three residual blocks of 16, 32 and 64 channels with batch normalization, on 3x32x32.
// - "transformer": an encoder block on 64 tokens of width 128 with 4 heads; mean of squares.
// - "resnet18", "resnet50": He et al., "Deep residual learning for image recognition", 2016, on
//   3x224x224, 1,000 classes.
// - "mobilenet", "mobilenet64": Sandler et al., "MobileNetV2", 2018, on 3x224x224 with 1,000
//   classes, and on 3x64x64 with 10.
// - "unet": Ronneberger et al., "U-Net", 2015, with 16 to 128 channels, padding and batch
//   normalization, on 1x64x64; a mask of the same size, sigmoid cross entropy.
// - "autoencoder": convolutions to a code of 32 numbers and back, on 1x28x28; mean squared error.
// - "lstm": 32 steps of 64 numbers, 128 hidden.
// - "gpt": a decoder of 4 blocks of width 128 with 4 heads on 128 tokens of 256 kinds.
// - "vit": Touvron et al., "Training data-efficient image transformers", 2021, the tiny model, on
//   3x224x224, 1,000 classes.
// - "embedding": the mean of 32 rows of a table 50,000 x 64, and a perceptron 64-64-10.
// - "tabular": a perceptron 32-128-64-10.
// - "deep_mlp": 64 dense layers of width 512.
// - "audio": Dai et al., "Very deep convolutional neural networks for raw waveforms", 2017, the net
//   M5 with 32 and 64 channels, on 16,000 samples.
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
  double prepare_seconds = 0;  // The time that Session::Prepare took.
  void Step();
};
// Prepares a training step, or inference, of a model.
ModelRun Training(const std::string& name, int64_t batch_size, const gw::SessionOptions& options);
ModelRun Inference(const std::string& name, int64_t batch_size, const gw::SessionOptions& options);

}  // namespace benchmarks

#endif  // GRADWEAVE_BENCHMARKS_MODELS_H_
