// The models that benchmarks run.
#ifndef GRADWEAVE_BENCHMARKS_MODELS_H_
#define GRADWEAVE_BENCHMARKS_MODELS_H_

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "gradweave/gradweave.h"

namespace benchmarks {

// A model with loss and gradient step, and the same variables for inference; the batch is symbolic.
struct Model {
  std::unique_ptr<gw::Graph> graph;
  gw::Value input, label;  // The label is invalid where the loss needs none.
  gw::Value output;        // As at inference.
  gw::Value loss;
  gw::Update step;
};

// "lenet": chapter 6.6 of Dive into Deep Learning. "mlp": 784-256-128-10. "vgg": two 3x3 convolutions of 16, 32 and 64
// channels each, with max pooling, on 3x32x32. "resnet": three residual blocks of 16, 32 and 64 channels with batch
// normalization, on 3x32x32. "transformer": an encoder block on 64 tokens of width 128 with 4 heads.
std::vector<std::string> ModelNames();
// Ends the program for another name.
Model BuildModel(const std::string& name);

// A session on random data, and a prepared run in it. Ends the program where something fails: a benchmark of nothing
// would be worse.
struct ModelRun {
  Model model;
  std::unique_ptr<gw::Session> session;
  std::vector<gw::Feed> feeds;
  std::vector<gw::Fetch> fetches;
  std::unique_ptr<gw::PreparedRun> run;
  void Step();
};
ModelRun Training(const std::string& name, int64_t batch_size, const gw::SessionOptions& options);
ModelRun Inference(const std::string& name, int64_t batch_size, const gw::SessionOptions& options);

}  // namespace benchmarks

#endif  // GRADWEAVE_BENCHMARKS_MODELS_H_
