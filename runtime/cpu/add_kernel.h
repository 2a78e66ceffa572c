// Kernels of ops that a program defines itself.
#ifndef GRADWEAVE_RUNTIME_CPU_ADD_KERNEL_H_
#define GRADWEAVE_RUNTIME_CPU_ADD_KERNEL_H_

#include "absl/strings/string_view.h"
#include "gradweave/runtime/kernel/kernel.h"

namespace gradweave {

// Adds the CPU kernel of an op, or replaces it, for all sessions of the program. Call it before the
// first session is created, because sessions read the kernels without a lock.
//
//   gw::AddCpuKernel("Cube", [](const gw::KernelRequest& request) -> absl::StatusOr<gw::Kernel> { ... });
void AddCpuKernel(absl::string_view op, KernelFactory factory);

}  // namespace gradweave

#endif  // GRADWEAVE_RUNTIME_CPU_ADD_KERNEL_H_
