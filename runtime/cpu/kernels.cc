#include "gradweave/runtime/cpu/rows/row_program.h"
#include "gradweave/runtime/cpu/tile/tile_program.h"
#include "gradweave/runtime/kernel/kernel.h"

namespace gradweave {

// One function for each family, beside its kernels.
void RegisterStateKernels(KernelRegistry& registry);
void RegisterElementwiseKernels(KernelRegistry& registry);
void RegisterRandomKernels(KernelRegistry& registry);
void RegisterReductionKernels(KernelRegistry& registry);
void RegisterShapeKernels(KernelRegistry& registry);
void RegisterIndexingKernels(KernelRegistry& registry);
void RegisterMatMulKernels(KernelRegistry& registry);
void RegisterConvKernels(KernelRegistry& registry);
void RegisterPoolKernels(KernelRegistry& registry);
void RegisterSoftmaxKernels(KernelRegistry& registry);

const KernelRegistry& CpuKernels() {
  static const KernelRegistry* const kernels = [] {
    auto* registry = new KernelRegistry();
    RegisterStateKernels(*registry);
    RegisterElementwiseKernels(*registry);
    RegisterRandomKernels(*registry);
    RegisterReductionKernels(*registry);
    RegisterShapeKernels(*registry);
    RegisterIndexingKernels(*registry);
    RegisterMatMulKernels(*registry);
    RegisterConvKernels(*registry);
    RegisterPoolKernels(*registry);
    RegisterSoftmaxKernels(*registry);
    registry->SetRegionCompiler(TileCompiler());
    registry->SetRowRegionCompiler(RowCompiler());
    return registry;
  }();
  return *kernels;
}

}  // namespace gradweave
