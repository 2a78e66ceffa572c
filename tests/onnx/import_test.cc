// Models that PyTorch has exported (models/make_models.py): outputs and gradients are those of
// PyTorch for any batch, and the models train.
#include "gradweave/frontend/onnx/import.h"

#include <cmath>
#include <map>
#include <string>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "gradweave/gradweave.h"
#include "gtest/gtest.h"
#include "tests/onnx/model_arrays.h"

namespace gradweave::onnx {
namespace {

class ImportTest : public ::testing::TestWithParam<const char*> {};

TEST_P(ImportTest, OutputsAndGradientsAreThoseOfPyTorch) {
  const std::map<std::string, Tensor> arrays = Arrays(GetParam());
  absl::StatusOr<ImportedModel> net = Import(absl::StrCat(kFolder, GetParam(), ".onnx"));
  ASSERT_TRUE(net.ok()) << net.status();
  const Value x = net->Input("x"), y = net->Output("y");
  EXPECT_FALSE(x.shape()[0].is_known());
  Scope scope(net->model.graph);
  const Value labels = scope.Input("labels", kInt64, {x.shape()[0]});
  const Value loss = Mean(SparseSoftmaxCrossEntropy(y, labels));
  std::vector<Value> variables;
  std::vector<Fetch> fetches = {y};
  for (const auto& [name, value] : net->model.variables) {
    if (arrays.contains("gradient0/" + name))
      variables.push_back(net->model.graph.value(net->model.graph.FindNamed(name)));
  }
  size_t parameters = 0;
  for (const auto& [name, value] : arrays) parameters += absl::StartsWith(name, "gradient0/");
  EXPECT_EQ(variables.size(), parameters);
  for (const Value& gradient : Gradients({loss}, variables)) fetches.push_back(gradient);
  ASSERT_TRUE(net->model.graph.status().ok()) << net->model.graph.status();
  absl::StatusOr<Session> session = CreateSession(net->model);
  ASSERT_TRUE(session.ok()) << session.status();
  // Two runs with different sizes.
  for (const std::string run : {"0", "1"}) {
    const auto results = session->Run({{x, arrays.at("x" + run)}, {labels, arrays.at("labels" + run)}}, fetches);
    ASSERT_TRUE(results.ok()) << results.status();
    EXPECT_LT(Difference((*results)[0], arrays.at("y" + run)), 1e-5);
    for (size_t i = 0; i < variables.size(); ++i) {
      const std::string& name = variables[i].node().name;
      EXPECT_LT(Difference((*results)[i + 1], arrays.at("gradient" + run + "/" + name)), 1e-4) << name;
    }
  }
}

TEST_P(ImportTest, TrainingReducesTheLoss) {
  const std::map<std::string, Tensor> arrays = Arrays(GetParam());
  absl::StatusOr<ImportedModel> net = Import(absl::StrCat(kFolder, GetParam(), ".onnx"));
  ASSERT_TRUE(net.ok()) << net.status();
  const Value x = net->Input("x");
  Scope scope(net->model.graph);
  const Value labels = scope.Input("labels", kInt64, {x.shape()[0]});
  const Value loss = Mean(SparseSoftmaxCrossEntropy(net->Output("y"), labels));
  const Update step = optim::Adam{.learning_rate = 0.02}.Minimize(loss);
  absl::StatusOr<Session> session = CreateSession(net->model);
  ASSERT_TRUE(session.ok()) << session.status();
  std::vector<double> losses;
  for (int i = 0; i < 60; ++i) {
    const auto results = session->Run({{x, arrays.at("x1")}, {labels, arrays.at("labels1")}}, {loss, step});
    ASSERT_TRUE(results.ok()) << results.status();
    losses.push_back((*results)[0].ToDouble());
  }
  EXPECT_LT(losses.back(), losses.front() / 4);
}

INSTANTIATE_TEST_SUITE_P(Models, ImportTest, ::testing::Values("conv_net", "transformer", "recurrent"));

// The statistics of a normalization and frozen models are not trained.
TEST(Import, SaysWhichVariablesAreTrainable) {
  auto trainable = [](bool option) {
    std::vector<std::string> names;
    absl::StatusOr<ImportedModel> net = Import(absl::StrCat(kFolder, "conv_net.onnx"), {.trainable = option});
    EXPECT_TRUE(net.ok()) << net.status();
    for (const Node& node : net->model.graph.nodes()) {
      if (node.op->kind == OpKind::kVariable && node.attribute<bool>("trainable")) names.push_back(node.name);
    }
    return names;
  };
  const std::vector<std::string> names = trainable(true);
  EXPECT_EQ(names.size(), 10u);
  for (const std::string& name : names) EXPECT_FALSE(absl::StrContains(name, "running")) << name;
  EXPECT_TRUE(trainable(false).empty());
}

// An imported model as a model file.
TEST(Import, IsSavedAndLoaded) {
  const std::map<std::string, Tensor> arrays = Arrays("conv_net");
  absl::StatusOr<ImportedModel> net = Import(absl::StrCat(kFolder, "conv_net.onnx"));
  ASSERT_TRUE(net.ok()) << net.status();
  const std::string path = ::testing::TempDir() + "/imported.gw";
  ASSERT_TRUE(SaveModel(net->model, path).ok());
  absl::StatusOr<Model> loaded = LoadModel(path);
  ASSERT_TRUE(loaded.ok()) << loaded.status();
  absl::StatusOr<Session> session = CreateSession(*loaded);
  ASSERT_TRUE(session.ok()) << session.status();
  const Value x = loaded->graph.value(loaded->graph.FindNamed("x"));
  const auto results = session->Run({{x, arrays.at("x0")}}, {loaded->graph.Output("y")[0]});
  ASSERT_TRUE(results.ok()) << results.status();
  EXPECT_LT(Difference((*results)[0], arrays.at("y0")), 1e-5);
}

}  // namespace
}  // namespace gradweave::onnx
