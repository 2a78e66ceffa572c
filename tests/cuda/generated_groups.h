// Groups that need generated kernels, on the emulated CUDA device. The build has compiled the
// kernels for it.
#ifndef GRADWEAVE_TESTS_CUDA_GENERATED_GROUPS_H_
#define GRADWEAVE_TESTS_CUDA_GENERATED_GROUPS_H_

#include <random>
#include <string>
#include <vector>

#include "gradweave/runtime/cuda/fusion/fusion.h"
#include "gradweave/runtime/cuda/fusion/kernel_store.h"
#include "gtest/gtest.h"
#include "tests/cuda/fused_graphs.h"
#include "tests/cuda/fused_groups.h"
#include "tests/cuda/fused_kernels.h"
#include "tests/cuda/test_device.h"

namespace gradweave {

// Runs such groups and compares their results with those of single nodes.
class GeneratedGroups {
 public:
  // Runs a group of the graph, which must be one launch with that name, with and without special
  // values among its operands. If `in_place`, also runs it over every operand that an output may
  // overwrite. Expects the same bits as from the group's nodes one by one.
  void ExpectBitsOfSingleOps(const FusedGraph& fused, const FusedGroup& group, const std::string& launch,
                             bool in_place) {
    const Graph& graph = fused.graph;
    const auto kernels = KernelsOf(store_, group);
    ASSERT_TRUE(kernels.ok()) << kernels.status();
    const Kernel kernel = cuda_emulated::MakeFusedKernel(graph, group, *kernels);
    std::vector<TensorType> types;
    for (Port port : group.outputs) types.push_back(graph.type(port));
    for (bool special : {false, true}) {
      std::vector<Tensor> operands;
      for (Port port : group.operands) {
        operands.push_back(RandomTensor(graph.type(port), fused.low, fused.high, random_));
        if (special) AddSpecialValues(operands.back(), random_);
      }
      const auto want = RunOneByOne(graph, group, operands, [&](const Node& node, const std::vector<Tensor>& inputs) {
        return device_.Run(node, inputs);
      });
      ASSERT_TRUE(want.ok()) << want.status();
      (void)device_.api().TakeKernelNames();
      const auto got = device_.Run(kernel, types, operands);
      ASSERT_TRUE(got.ok()) << got.status();
      EXPECT_EQ(device_.api().TakeKernelNames(), std::vector<std::string>{launch});
      EXPECT_EQ(Difference(*got, *want), "") << (special ? "with special values" : "");
      ++runs_;
      if (special || !in_place) continue;
      for (int choice = 0; choice < static_cast<int>(kernel.overwrites.size()); ++choice) {
        const auto again = device_.Run(kernel, types, operands, choice);
        ASSERT_TRUE(again.ok()) << again.status();
        EXPECT_EQ(Difference(*again, *want), "") << "overwriting, choice " << choice;
        ++runs_in_place_;
      }
    }
  }

  // Number of comparisons, and of those in place.
  int runs() const { return runs_; }
  int runs_in_place() const { return runs_in_place_; }

 private:
  TestDevice device_{{.kernels = FusedKernels()}};
  KernelStore store_{
      device_.api(), 0, EmulatedKernelCompiler(FusedKernels()), {.generated = GeneratedKernels::kAlways}};
  std::mt19937 random_{5};
  int runs_ = 0, runs_in_place_ = 0;
};

}  // namespace gradweave

#endif  // GRADWEAVE_TESTS_CUDA_GENERATED_GROUPS_H_
