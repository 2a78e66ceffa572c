// CONTRIBUTING.md's examples, taken from the document. The rows of its elementwise op are in the
// files that it names. Its op with kernels of its own computes, differentiates and gives the same
// result on both devices, in sessions of a program that adds the op itself.
#include <fstream>
#include <memory>
#include <sstream>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/str_replace.h"
#include "gradweave/gradweave.h"
#include "gradweave/graph/passes/autodiff.h"
#include "gradweave/ops/registry.h"
#include "gradweave/runtime/cpu/add_kernel.h"
#include "gradweave/runtime/cpu/kernels.h"
#include "gtest/gtest.h"
#include "tests/cuda/session.h"
#include "tests/documents/contributing_example.h"

namespace gradweave {

namespace cuda_emulated {
void RegisterCubeKernel(KernelRegistry& registry);
}

namespace {

std::string ReadFile(const std::string& path) {
  std::ifstream in(path);
  std::stringstream contents;
  contents << in.rdbuf();
  EXPECT_TRUE(in.good()) << path;
  return contents.str();
}

// Removes spaces, line ends and the backslashes of macros: the document breaks lines elsewhere.
std::string Squeezed(const std::string& text) { return absl::StrReplaceAll(text, {{" ", ""}, {"\n", ""}, {"\\", ""}}); }

TEST(ContributingExample, RowsOfTheElementwiseOpAreInTheFilesThatItNames) {
  const std::string document = ReadFile("CONTRIBUTING.md"), fence = "\n```c++ ";
  int rows = 0;
  for (size_t at = document.find(fence); at != std::string::npos; at = document.find(fence, at + 1), ++rows) {
    const size_t path = at + fence.size(), row = document.find('\n', path) + 1, end = document.find("```", row);
    const std::string file = document.substr(path, row - 1 - path);
    EXPECT_TRUE(absl::StrContains(Squeezed(ReadFile(file)), Squeezed(document.substr(row, end - row))))
        << file << " lacks the document's row:\n"
        << document.substr(row, end - row);
  }
  EXPECT_GE(rows, 4);
}

class ContributingCube : public CudaSession {};

TEST_F(ContributingCube, ComputesTheSameOnBothDevices) {
  OpRegistry ops;
  RegisterCoreOps(ops);
  RegisterCube(ops);
  KernelRegistry of_cpu, of_cuda;
  RegisterCubeKernel(of_cpu);
  cuda_emulated::RegisterCubeKernel(of_cuda);
  AddCpuKernel("Cube", *of_cpu.Find("Cube"));
  cuda_emulated::AddCudaKernel("Cube", *of_cuda.Find("Cube"));

  Graph graph;
  Scope scope(graph, ops);
  const Value x = scope.Input("x", kFloat64, {3});
  const Value y = CubeCase().build({x})[0];
  const Value slope = Gradients({y}, {x})[0], curvature = Gradients({slope}, {x})[0];
  ASSERT_TRUE(graph.status().ok()) << graph.status();
  const Tensor operand = Tensor::Of<double>({3}, {-1, 2, 3});
  for (const Device& device : {Device::Cpu(), kCuda0}) {
    Session session = MakeSession(graph, {.device = device});
    const absl::StatusOr<std::vector<Tensor>> results = session.Run({{x, operand}}, {y, slope, curvature});
    ASSERT_TRUE(results.ok()) << results.status();
    EXPECT_EQ((*results)[0].ToDoubles(), CubeCase().reference({{{3}, {-1, 2, 3}}})[0].values);
    EXPECT_EQ((*results)[1].ToDoubles(), (std::vector<double>{3, 12, 27}));
    EXPECT_EQ((*results)[2].ToDoubles(), (std::vector<double>{-6, 12, 18}));
    const std::string plan = *session.DescribePlan({{x, operand}}, {y});
    EXPECT_TRUE(absl::StrContains(plan, device == kCuda0 ? "cube" : "scalar")) << plan;
  }
}

}  // namespace
}  // namespace gradweave
