// The kernels of single nodes.
#ifndef GRADWEAVE_RUNTIME_CPU_OPS_KERNELS_H_
#define GRADWEAVE_RUNTIME_CPU_OPS_KERNELS_H_

#include "absl/status/statusor.h"
#include "gradweave/runtime/kernel/kernel.h"

namespace gradweave {

// Adds the kernels of all core ops.
void RegisterNodeKernels(KernelRegistry& registry);

// Makes a kernel that copies operand 0 to the output, which has the same number of bytes.
absl::StatusOr<Kernel> MakeCopyOfOperand(const KernelRequest& request);

}  // namespace gradweave

#endif  // GRADWEAVE_RUNTIME_CPU_OPS_KERNELS_H_
