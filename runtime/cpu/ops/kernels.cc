#include "gradweave/runtime/cpu/ops/kernels.h"

namespace gradweave {

// One function for each family, beside its kernels.
using RegisterFamily = void(KernelRegistry& registry);
RegisterFamily RegisterStateKernels, RegisterElementwiseKernels, RegisterRandomKernels, RegisterReductionKernels,
    RegisterShapeKernels, RegisterIndexingKernels, RegisterMatMulKernels, RegisterConvKernels, RegisterPoolKernels,
    RegisterSoftmaxKernels;

void RegisterNodeKernels(KernelRegistry& registry) {
  for (RegisterFamily* family :
       {RegisterStateKernels, RegisterElementwiseKernels, RegisterRandomKernels, RegisterReductionKernels,
        RegisterShapeKernels, RegisterIndexingKernels, RegisterMatMulKernels, RegisterConvKernels, RegisterPoolKernels,
        RegisterSoftmaxKernels}) {
    family(registry);
  }
}

}  // namespace gradweave
