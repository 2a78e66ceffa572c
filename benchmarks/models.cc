#include "benchmarks/models.h"

#include <cstdlib>
#include <iostream>
#include <random>
#include <vector>

namespace benchmarks {
namespace {

void ExitOnError(const absl::Status& status) {
  if (status.ok()) return;
  std::cerr << status << std::endl;
  std::exit(1);
}

TrainingRun Prepare(int64_t batch_size, int threads, bool training) {
  TrainingRun result{BuildLeNet()};
  absl::StatusOr<gw::Session> session = gw::Session::Create(*result.model.graph, {.threads = threads});
  ExitOnError(session.status());
  result.session = std::make_unique<gw::Session>(*std::move(session));
  gw::Tensor images(gw::kFloat32, {batch_size, 1, 28, 28}), labels(gw::kInt32, {batch_size});
  std::mt19937 random(1);
  for (float& pixel : images.mutable_values<float>()) pixel = static_cast<float>(random() % 256) / 255.0f;
  for (int32_t& label : labels.mutable_values<int32_t>()) label = static_cast<int32_t>(random() % 10);
  const std::vector<gw::Feed> image = {{result.model.image, images}};
  const std::vector<gw::Feed> both = {{result.model.image, images}, {result.model.label, labels}};
  auto run = training ? result.session->Prepare(both, {result.model.loss, result.model.step})
                      : result.session->Prepare(image, {result.model.logits});
  ExitOnError(run.status());
  result.run = *std::move(run);
  return result;
}

}  // namespace

LeNetGraph BuildLeNet() {
  LeNetGraph lenet{std::make_unique<gw::Graph>()};
  gw::Scope scope(*lenet.graph);
  lenet.image = scope.Input("image", gw::kFloat32, {gw::Dim("batch"), 1, 28, 28});
  lenet.label = scope.Input("label", gw::kInt32, {gw::Dim("batch")});
  const gw::nn::Sequential layers{gw::nn::Conv2D{.channels = 6, .kernel = 5, .padding = 2},
                                  gw::nn::Sigmoid{},
                                  gw::nn::AvgPool2D{.pool = 2},
                                  gw::nn::Conv2D{.channels = 16, .kernel = 5},
                                  gw::nn::Sigmoid{},
                                  gw::nn::AvgPool2D{.pool = 2},
                                  gw::nn::Flatten{},
                                  gw::nn::Dense{120},
                                  gw::nn::Sigmoid{},
                                  gw::nn::Dense{84},
                                  gw::nn::Sigmoid{},
                                  gw::nn::Dense{10}};
  lenet.logits = layers(scope, lenet.image);
  lenet.loss = gw::nn::SoftmaxCrossEntropy(lenet.logits, lenet.label);
  lenet.step = gw::optim::Sgd{.learning_rate = 0.9}.Minimize(lenet.loss);
  return lenet;
}

void TrainingRun::Step() { ExitOnError(run->Run()); }

TrainingRun LeNetTraining(int64_t batch_size, int threads) { return Prepare(batch_size, threads, true); }
TrainingRun LeNetInference(int64_t batch_size, int threads) { return Prepare(batch_size, threads, false); }

}  // namespace benchmarks
