// Gradients of models that PyTorch has exported (models/make_models.py), as ONNX files again:
// imported, they give PyTorch's numbers, for any batch; gradients of gradients give those of the
// graph that they came from. The files stay in the temporary folder, for another runtime
// (models/check_export.py).
#include <cmath>
#include <map>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "gradweave/frontend/onnx/export.h"
#include "gradweave/frontend/onnx/import.h"
#include "gradweave/gradweave.h"
#include "gtest/gtest.h"
#include "tests/onnx/model_arrays.h"

namespace gradweave::onnx {
namespace {

class ExportGradientsTest : public ::testing::TestWithParam<const char*> {};

TEST_P(ExportGradientsTest, AreThoseOfPyTorch) {
  const std::string name = GetParam();
  const std::map<std::string, Tensor> arrays = Arrays(name);
  absl::StatusOr<ImportedModel> net = Import(absl::StrCat(kFolder, name, ".onnx"));
  ASSERT_TRUE(net.ok()) << net.status();
  Graph& graph = net->model.graph;
  const Value x = net->Input("x");
  Scope scope(graph);
  const Value labels = scope.Input("labels", kInt64, {x.shape()[0]});
  const Value loss = Mean(SparseSoftmaxCrossEntropy(net->Output("y"), labels));
  std::vector<Value> variables, squares;
  for (const auto& [variable, value] : net->model.variables) {
    if (arrays.contains("gradient0/" + variable)) variables.push_back(graph.value(graph.FindNamed(variable)));
  }
  NamedValues outputs = {{"loss", loss}};
  for (const Value& gradient : Gradients({loss}, variables)) {
    outputs.emplace_back("gradient/" + variables[squares.size()].node().name, gradient);
    squares.push_back(Sum(Square(gradient)));
  }
  const size_t first_second = outputs.size();
  for (const Value& gradient : Gradients(squares, variables)) {
    outputs.emplace_back("second/" + variables[outputs.size() - first_second].node().name, gradient);
  }
  ASSERT_TRUE(graph.status().ok()) << graph.status();
  const std::string path = absl::StrCat(::testing::TempDir(), "/", name);
  const absl::Status exported = Export(net->model, outputs, path + ".onnx");
  ASSERT_TRUE(exported.ok()) << exported;
  absl::StatusOr<ImportedModel> imported = Import(path + ".onnx");
  ASSERT_TRUE(imported.ok()) << imported.status();
  absl::StatusOr<Session> session = CreateSession(net->model), again = CreateSession(imported->model);
  ASSERT_TRUE(session.ok()) << session.status();
  ASSERT_TRUE(again.ok()) << again.status();
  std::vector<Fetch> fetches, fetches_again;
  for (const auto& [output, value] : outputs) {
    fetches.emplace_back(value);
    fetches_again.emplace_back(imported->Output(output));
  }
  // Two runs with different sizes.
  for (const std::string run : {"0", "1"}) {
    const Tensor &data = arrays.at("x" + run), &label = arrays.at("labels" + run);
    const auto expected = session->Run({{x, data}, {labels, label}}, fetches);
    const auto got = again->Run({{imported->Input("x"), data}, {imported->Input("labels"), label}}, fetches_again);
    ASSERT_TRUE(expected.ok()) << expected.status();
    ASSERT_TRUE(got.ok()) << got.status();
    std::vector<data::NamedArray> pair = {{"x", data}, {"labels", label}};
    for (size_t i = 0; i < outputs.size(); ++i) {
      const std::string& output = outputs[i].first;
      EXPECT_LT(Difference((*got)[i], (*expected)[i]), 1e-4) << output;
      if (i > 0 && i < first_second) {
        EXPECT_LT(Difference((*got)[i], arrays.at(absl::StrCat("gradient", run, output.substr(8)))), 1e-4) << output;
      }
      pair.emplace_back(output, (*expected)[i]);
    }
    ASSERT_TRUE(data::WriteNpz(path + ".npz", pair).ok());
  }
}

INSTANTIATE_TEST_SUITE_P(Models, ExportGradientsTest, ::testing::Values("conv_net", "transformer", "recurrent"));

}  // namespace
}  // namespace gradweave::onnx
