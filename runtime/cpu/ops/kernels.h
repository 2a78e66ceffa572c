// The kernels of single nodes.
#ifndef GRADWEAVE_RUNTIME_CPU_OPS_KERNELS_H_
#define GRADWEAVE_RUNTIME_CPU_OPS_KERNELS_H_

#include "gradweave/runtime/kernel/kernel.h"

namespace gradweave {

// Adds the kernels of all core ops.
void RegisterNodeKernels(KernelRegistry& registry);

}  // namespace gradweave

#endif  // GRADWEAVE_RUNTIME_CPU_OPS_KERNELS_H_
