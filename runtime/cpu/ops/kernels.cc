#include "gradweave/runtime/cpu/ops/kernels.h"

#include <cstring>

namespace gradweave {

// One function for each family, beside its kernels.
using RegisterFamily = void(KernelRegistry& registry);
RegisterFamily RegisterStateKernels, RegisterElementwiseKernels, RegisterRandomKernels, RegisterReductionKernels,
    RegisterShapeKernels, RegisterIndexingKernels, RegisterMatMulKernels, RegisterConvKernels, RegisterPoolKernels,
    RegisterSoftmaxKernels, RegisterSortingKernels, RegisterAttentionKernels, RegisterQuantizedKernels;

void RegisterNodeKernels(KernelRegistry& registry) {
  for (RegisterFamily* family :
       {RegisterStateKernels, RegisterElementwiseKernels, RegisterRandomKernels, RegisterReductionKernels,
        RegisterShapeKernels, RegisterIndexingKernels, RegisterMatMulKernels, RegisterConvKernels, RegisterPoolKernels,
        RegisterSoftmaxKernels, RegisterSortingKernels, RegisterAttentionKernels, RegisterQuantizedKernels}) {
    family(registry);
  }
}

absl::StatusOr<Kernel> MakeCopyOfOperand(const KernelRequest& request) {
  const size_t bytes = request.output().byte_size();
  return Kernel{.name = "copy",
                .run =
                    [bytes](const KernelArguments& arguments) {
                      std::memmove(arguments.outputs[0], arguments.operands[0], bytes);
                      return absl::OkStatus();
                    },
                .overwrites = {{0, 0}}};
}

}  // namespace gradweave
