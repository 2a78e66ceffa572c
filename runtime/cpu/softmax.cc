#include "gradweave/runtime/kernel.h"

namespace gradweave {

void RegisterSoftmaxKernels(KernelRegistry& registry) {}

}  // namespace gradweave
