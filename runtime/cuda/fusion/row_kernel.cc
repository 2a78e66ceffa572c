#include "gradweave/runtime/cuda/fusion/row_kernel.h"

#include <utility>

#include "gradweave/graph/check.h"
#include "gradweave/runtime/cuda/api/api.h"
#include "gradweave/runtime/cuda/api/loaded_kernel.h"
#include "gradweave/runtime/cuda/fusion/fusion.h"
#include "gradweave/runtime/cuda/fusion/row_program.h"
#include "gradweave/runtime/kernel/kernel.h"

namespace gradweave {
namespace {

static_assert(sizeof(RowParameters<double>) <= 4096, "a kernel has 4 KiB of parameters");

template <typename T>
absl::Status Run(const RowProgram& program, const LoadedKernel& generated, const KernelArguments& arguments) {
  RowParameters<T> parameters = {.rows = program.rows, .columns = program.columns};
  int count = 0;
  for (const void* operand : arguments.operands) parameters.tensors[count++] = const_cast<void*>(operand);
  for (void* output : arguments.outputs) parameters.tensors[count++] = output;
  for (size_t i = 0; i < program.numbers.size(); ++i) parameters.numbers[i] = static_cast<T>(program.numbers[i]);
  const uint32_t rows_of_block = kRowBlock / program.threads;
  void* addresses[] = {&parameters};
  return arguments.device<CudaContext>().api->Launch({.name = "generated_rows",
                                                      .kernel = generated.function(),
                                                      .grid = {(program.rows + rows_of_block - 1) / rows_of_block},
                                                      .block = {kRowBlock},
                                                      .arguments = addresses},
                                                     arguments.device<CudaContext>().stream);
}

}  // namespace

Kernel MakeRowKernel(const FusedGroup& group, const std::shared_ptr<const LoadedKernel>& generated) {
  GW_CHECK(generated != nullptr, "rows have no generated kernel");
  Kernel kernel{.name = "generated_rows"};
  kernel.overwrites.assign(group.rows->overwrites.begin(), group.rows->overwrites.end());
  kernel.run = [program = group.rows, generated](const KernelArguments& arguments) {
    return program->dtype == kFloat32 ? Run<float>(*program, *generated, arguments)
                                      : Run<double>(*program, *generated, arguments);
  };
  return kernel;
}

}  // namespace gradweave
