#include <utility>

#include "absl/strings/string_view.h"
#include "gradweave/runtime/cpu/add_kernel.h"
#include "gradweave/runtime/cpu/ops/kernels.h"
#include "gradweave/runtime/cpu/rows/row_program.h"
#include "gradweave/runtime/cpu/tile/tile_program.h"
#include "gradweave/runtime/kernel/kernel.h"

namespace gradweave {
namespace {

KernelRegistry& Kernels() {
  static KernelRegistry* const kernels = [] {
    auto* registry = new KernelRegistry();
    RegisterNodeKernels(*registry);
    registry->SetRegionCompiler(TileCompiler());
    registry->SetRowRegionCompiler(RowCompiler());
    return registry;
  }();
  return *kernels;
}

}  // namespace

const KernelRegistry& CpuKernels() { return Kernels(); }

void AddCpuKernel(absl::string_view op, KernelFactory factory) { Kernels().Add(op, std::move(factory)); }

}  // namespace gradweave
