// A program outside Gradweave's repository with an op of its own: Swish(x) = x * Sigmoid(x).
#include <algorithm>
#include <cmath>
#include <iostream>

#include "gradweave/gradweave.h"
#include "gradweave/graph/gradient.h"
#include "gradweave/runtime/cpu/add_kernel.h"

int main() {
  gw::OpRegistry ops;
  gw::RegisterCoreOps(ops);
  ops.Add({.name = "Swish",
           .doc = "x * Sigmoid(x).",
           .operands = {{"x", "Any shape.", {gw::kFloat32}}},
           .infer = [](const gw::OpView& op) -> absl::StatusOr<gw::TensorTypes> { return {{op.operand(0)}}; },
           .gradient =
               [](gw::GradientContext& g) {
                 const gw::Value s = gw::Sigmoid(g.operand(0));
                 g.Set(0, gw::Mul(g.output_gradient(), gw::Add(s, gw::Mul(g.output(), gw::Sub(1, s)))));
               }});
  gw::AddCpuKernel("Swish", [](const gw::KernelRequest& request) -> absl::StatusOr<gw::Kernel> {
    const int64_t total = request.output().shape.num_elements().size();
    return gw::Kernel{.name = "scalar", .run = [total](const gw::KernelArguments& arguments) {
                        const float *x = arguments.operand<float>(0), *end = x + total;
                        std::transform(x, end, arguments.output<float>(),
                                       [](float v) { return v / (1 + std::exp(-v)); });
                        return absl::OkStatus();
                      }};
  });
  gw::Graph graph;
  const gw::Value x = gw::Scope(graph, ops).Input("x", gw::kFloat32, {gw::Dim("n")});
  const gw::Value y = gw::AddOp("Swish", {x});
  const gw::Value slope = gw::Gradients({y}, {x})[0];
  absl::StatusOr<gw::Session> session = gw::Session::Create(graph, {});
  if (!session.ok()) return std::cerr << session.status() << "\n", 1;
  const auto results = session->Run({{x, gw::Tensor::Of<float>({3}, {-1, 0, 2})}}, {y, slope});
  if (!results.ok()) return std::cerr << results.status() << "\n", 1;
  std::cout << (*results)[0].ToString() << "\n" << (*results)[1].ToString() << std::endl;
}
