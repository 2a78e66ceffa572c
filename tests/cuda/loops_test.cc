// Loops and branches in a session with a CUDA device: the CPU runs them, with copies, and what is
// around them stays on the device.
#include <vector>

#include "absl/strings/str_cat.h"
#include "gmock/gmock.h"
#include "gradweave/gradweave.h"
#include "gtest/gtest.h"
#include "tests/cuda/session.h"

namespace gradweave {
namespace {

using ::testing::HasSubstr;
using Values = std::vector<Value>;

// A training step with a loop and a branch between products.
struct Model {
  Graph graph;
  Value x, loss;
  Update step;

  Model() {
    Scope scope(graph);
    x = scope.Input("x", kFloat32, {Dim("time"), Dim("batch"), 3});
    const Value in = scope.Variable("in", RandomUniform(scope, {3, 4}, -1, 1));
    const Value recurrent = scope.Variable("recurrent", RandomUniform(scope, {4, 4}, -1, 1));
    const ScanResult result =
        Scan({scope.Full(0, {Dim("batch"), 4})}, {MatMul(x, in)}, [&](const Values& h, const Values& v) {
          const Value next = Tanh(MatMul(h[0], recurrent) + v[0]);
          return ScanStep{.states = {next}, .outputs = {next}};
        });
    const Value last = MatMul(result.states[0], recurrent);
    const Value chosen = If(
        Greater(Sum(last), 0), {last}, [](const Values& v) { return Values{Square(v[0])}; },
        [](const Values& v) { return Values{Exp(v[0])}; })[0];
    loss = Sum(chosen) + Sum(Sigmoid(result.outputs[0]));
    step = optim::Sgd{.learning_rate = 0.05}.Minimize(loss);
    EXPECT_TRUE(graph.status().ok()) << graph.status();
  }

  std::vector<double> Losses(Session& session) const {
    std::vector<double> losses;
    for (int i = 0; i < 4; ++i) {
      Tensor data(kFloat32, {5, 2, 3});
      for (int64_t k = 0; k < data.num_elements(); ++k)
        data.mutable_data<float>()[k] = static_cast<float>((k + i) % 7) / 7;
      losses.push_back(RunAll(session, {{x, data}}, {loss, step})[0].ToDouble());
    }
    return losses;
  }
};

TEST_F(CudaSession, RunsLoopsOnTheCpu) {
  const Model model;
  Session cpu = MakeSession(model.graph, {.threads = 1, .seed = 3});
  Session session = MakeSession(model.graph, {.device = kCuda0, .threads = 1, .seed = 3});
  ExpectNear(model.Losses(session), model.Losses(cpu));
  const std::string plan = *session.DescribePlan({{model.x, Tensor(kFloat32, {5, 2, 3})}}, {model.loss, model.step});
  for (const char* op : {"Scan", "If"}) {
    EXPECT_THAT(plan, HasSubstr(absl::StrCat(op, " runs on the CPU and not on cuda:0")));
  }
  EXPECT_THAT(plan, HasSubstr("loop of 5 steps"));
}

}  // namespace
}  // namespace gradweave
