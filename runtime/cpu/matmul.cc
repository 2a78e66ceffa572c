#include "gradweave/runtime/kernel.h"

namespace gradweave {

void RegisterMatMulKernels(KernelRegistry& registry) {}

}  // namespace gradweave
