// The models that benchmarks run.
#ifndef GRADWEAVE_BENCHMARKS_MODELS_H_
#define GRADWEAVE_BENCHMARKS_MODELS_H_

#include <cstdint>
#include <memory>

#include "gradweave/gradweave.h"

namespace benchmarks {

// LeNet with loss and gradient step, on inputs "image" and "label" with a symbolic batch.
struct LeNetGraph {
  std::unique_ptr<gw::Graph> graph;
  gw::Value image, label, logits, loss;
  gw::Update step;
};
LeNetGraph BuildLeNet();

// A session on random images, and a prepared run in it. Ends the program where something fails: a benchmark of nothing
// would be worse.
struct TrainingRun {
  LeNetGraph model;
  std::unique_ptr<gw::Session> session;
  std::unique_ptr<gw::PreparedRun> run;
  void Step();
};
TrainingRun LeNetTraining(int64_t batch_size, int threads);
TrainingRun LeNetInference(int64_t batch_size, int threads);

}  // namespace benchmarks

#endif  // GRADWEAVE_BENCHMARKS_MODELS_H_
