#include "gradweave/runtime/kernel.h"

namespace gradweave {

void RegisterElementwiseKernels(KernelRegistry& registry) {}

}  // namespace gradweave
