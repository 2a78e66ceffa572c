#include "gradweave/runtime/kernel.h"

namespace gradweave {

void RegisterConvKernels(KernelRegistry& registry) {}

}  // namespace gradweave
