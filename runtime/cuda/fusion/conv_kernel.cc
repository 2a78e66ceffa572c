#include "gradweave/runtime/cuda/fusion/conv_kernel.h"

#include <utility>

#include "gradweave/graph/check.h"
#include "gradweave/runtime/cuda/api/api.h"
#include "gradweave/runtime/cuda/api/loaded_kernel.h"
#include "gradweave/runtime/cuda/fusion/conv_program.h"
#include "gradweave/runtime/cuda/fusion/fusion.h"
#include "gradweave/runtime/kernel/kernel.h"

namespace gradweave {
namespace {

static_assert(sizeof(ConvParameters<double>) <= 4096, "a kernel has 4 KiB of parameters");

template <typename T>
absl::Status Run(const ConvProgram& program, const LoadedKernel& generated, const KernelArguments& arguments) {
  ConvParameters<T> parameters = {.x = arguments.operand<T>(0),
                                  .filter = arguments.operand<T>(1),
                                  .bias = program.has_bias ? arguments.operand<T>(2) : nullptr,
                                  .samples = static_cast<uint32_t>(program.shape.samples)};
  int count = 0;
  for (int i : program.operands) parameters.chain.tensors[count++] = const_cast<void*>(arguments.operands[i]);
  for (int i : program.outputs) parameters.chain.tensors[count++] = arguments.outputs[i];
  for (int i = 0; i < count; ++i) {
    GW_CHECK(reinterpret_cast<uintptr_t>(parameters.chain.tensors[i]) % (2 * sizeof(T)) == 0,
             "a tensor of the device is not aligned");
  }
  if (program.pool.has_value()) {
    const size_t pooled = program.outputs.size();
    parameters.pooled = static_cast<T*>(arguments.outputs[pooled]);
    if (program.pool->largest) parameters.indices = static_cast<int32_t*>(arguments.outputs[pooled + 1]);
  }
  for (int i = 0; i < program.program.num_numbers; ++i) {
    parameters.numbers[i] = static_cast<T>(program.program.numbers[i]);
  }
  void* addresses[] = {&parameters};
  return arguments.device<CudaContext>().api->Launch(
      {.name = "generated_convolution",
       .kernel = generated.function(),
       .grid = {static_cast<unsigned>(program.tiling.TileBlocks(program.shape)),
                static_cast<unsigned>(program.tiling.OutputBlocks(program.shape))},
       .block = {static_cast<unsigned>(program.tiling.threads())},
       .arguments = addresses},
      arguments.device<CudaContext>().stream);
}

}  // namespace

Kernel MakeConvKernel(const Graph& graph, const FusedGroup& group,
                      const std::shared_ptr<const LoadedKernel>& generated) {
  GW_CHECK(generated != nullptr, "a convolution has no generated kernel");
  Kernel kernel{.name = "generated_convolution"};
  kernel.run = [program = group.convolution, generated](const KernelArguments& arguments) {
    return program->dtype == kFloat32 ? Run<float>(*program, *generated, arguments)
                                      : Run<double>(*program, *generated, arguments);
  };
  const int own = group.convolution->has_bias ? 3 : 2;
  for (int output : group.convolution->outputs) {
    for (int operand : group.convolution->operands) {
      if (operand >= own && graph.type(group.operands[operand]) == graph.type(group.outputs[output]))
        kernel.overwrites.push_back({operand, output});
    }
  }
  return kernel;
}

}  // namespace gradweave
