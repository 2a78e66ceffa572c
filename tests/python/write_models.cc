// Writes the models of test_gradweave.py: write_models FOLDER.
#include <iostream>
#include <string>

#include "gradweave/gradweave.h"

namespace {

absl::Status Write(const std::string& folder) {
  gw::Graph graph;
  gw::Scope scope(graph);
  const gw::Value x = scope.Input("x", gw::kFloat32, {gw::Dim("batch"), 2});
  const gw::Value y = scope.Input("y", gw::kFloat32, {gw::Dim("batch"), 1});
  const gw::Value w = scope.Variable("w", scope.Constant(gw::Tensor::Of<float>({2, 1}, {2, 3})));
  const gw::Value b = scope.Variable("b", scope.Constant(gw::Tensor::Of<float>({1}, {1})));
  const gw::Value prediction = gw::MatMul(x, w) + b;
  const gw::Value loss = gw::nn::MeanSquaredError(prediction, y);
  const gw::Update step = gw::optim::Sgd{.learning_rate = 0.1}.Minimize(loss);
  graph.SetOutput("prediction", {prediction});
  graph.SetOutput("loss", {loss});
  graph.SetOutput("train_step", step.assignments);
  GW_ASSIGN_OR_RETURN(const gw::Session session, gw::Session::Create(graph));
  GW_RETURN_IF_ERROR(gw::SaveModel(session, folder + "/linear.gw"));

  // Names in Latin-1, which are no UTF-8.
  gw::Graph latin;
  const gw::Value n = gw::Scope(latin).Input("n\xe9", gw::kFloat32, {gw::Dim("batch")});
  latin.SetOutput("\xe9t\xe9", {n + 1.0});
  GW_ASSIGN_OR_RETURN(const gw::Session of_latin, gw::Session::Create(latin));
  return gw::SaveModel(of_latin, folder + "/latin.gw");
}

}  // namespace

int main(int argc, char** argv) {
  const absl::Status status = Write(argc > 1 ? argv[1] : ".");
  if (!status.ok()) std::cerr << status.message() << "\n";
  return status.ok() ? 0 : 1;
}
