#include "gradweave/runtime/cpu/ops/kernels.h"
#include "gradweave/runtime/cpu/rows/row_program.h"
#include "gradweave/runtime/cpu/tile/tile_program.h"
#include "gradweave/runtime/kernel/kernel.h"

namespace gradweave {

const KernelRegistry& CpuKernels() {
  static const KernelRegistry* const kernels = [] {
    auto* registry = new KernelRegistry();
    RegisterNodeKernels(*registry);
    registry->SetRegionCompiler(TileCompiler());
    registry->SetRowRegionCompiler(RowCompiler());
    return registry;
  }();
  return *kernels;
}

}  // namespace gradweave
