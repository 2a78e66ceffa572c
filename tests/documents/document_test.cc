// The example of CONTRIBUTING.md, extracted from the document. Its op computes, differentiates and
// repeats as the harness requires of a core op.
#include "gradweave/graph/passes/autodiff.h"
#include "gradweave/ops/registry.h"
#include "gradweave/runtime/cpu/kernels.h"
#include "gtest/gtest.h"
#include "tests/documents/contributing_example.h"

namespace gradweave {
namespace {

TEST(ContributingExample, Cubes) {
  OpRegistry registry;
  RegisterCoreOps(registry);
  RegisterCube(registry);
  KernelRegistry kernels;
  RegisterCubeKernel(kernels);

  Graph graph;
  Scope scope(graph, registry);
  const Value x = scope.Input("x", kFloat64, {3});
  const Value y = CubeCase().build({x})[0];
  const Tensor operand = Tensor::Of<double>({3}, {-1, 2, 3});
  const absl::StatusOr<std::vector<Tensor>> result = EvaluateNode(kernels, y.node(), {operand});
  ASSERT_TRUE(result.ok()) << result.status();
  EXPECT_EQ((*result)[0].ToDoubles(), CubeCase().reference({{{3}, {-1, 2, 3}}})[0].values);
  EXPECT_TRUE(Gradients(Gradients({y}, {x}), {x})[0].valid()) << graph.status();
}

}  // namespace
}  // namespace gradweave
