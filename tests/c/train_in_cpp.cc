// Trains LeNet in C++, as train_lenet_test.sh compares it with examples/c/train_lenet.c.
//
//   train_in_cpp FOLDER EPOCHS BATCH STEP TRAINED
//
// Saves the training graph with its initial values to STEP and the trained one to TRAINED, and
// prints the rate.
#include <cstdlib>
#include <iostream>
#include <string>

#include "examples/lenet_layers.h"
#include "gradweave/gradweave.h"

namespace {

absl::Status Run(char** arguments) {
  gw::Graph graph;
  gw::Scope scope(graph);
  const gw::Value image = scope.Input("image", gw::kFloat32, {gw::Dim("batch"), 1, 28, 28});
  const gw::Value label = scope.Input("label", gw::kInt32, {gw::Dim("batch")});
  const gw::Value logits = examples::LeNet()(scope, image);
  const gw::Value loss = gw::nn::SoftmaxCrossEntropy(logits, label);
  const gw::Update step = gw::optim::Sgd{.learning_rate = 0.9}.Minimize(loss);
  const gw::Metric accuracy = gw::metrics::Accuracy(logits, label);
  graph.SetOutput("loss", {loss});
  graph.SetOutput("correct", {accuracy.sums[0].value});
  graph.SetOutput("probabilities", {gw::Softmax(logits)});
  graph.SetOutput("train_step", step.assignments);
  GW_ASSIGN_OR_RETURN(gw::Session session, gw::Session::Create(graph, {.threads = 2, .seed = 3}));
  GW_RETURN_IF_ERROR(gw::SaveModel(session, arguments[4]));
  GW_ASSIGN_OR_RETURN(const gw::data::Dataset train, gw::data::LoadFashionMnist(arguments[1], gw::data::Split::kTrain));
  const gw::FitOptions options{
      .epochs = std::atoi(arguments[2]), .batch_size = std::atoi(arguments[3]), .shuffle = false};
  GW_ASSIGN_OR_RETURN(const gw::TrainingState end, gw::Fit(session, {loss, step, {accuracy}}, train, options));
  std::cout << "loss " << end.train["loss"] << ", " << end.examples_per_second() << " examples/sec" << std::endl;
  return gw::SaveModel(session, arguments[5]);
}

}  // namespace

int main(int argc, char** argv) {
  if (argc != 6) return 2;
  const absl::Status status = Run(argv);
  if (status.ok()) return 0;
  std::cerr << "train_in_cpp: " << status.message() << std::endl;
  return 1;
}
