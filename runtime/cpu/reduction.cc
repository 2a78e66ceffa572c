#include "gradweave/runtime/kernel.h"

namespace gradweave {

void RegisterReductionKernels(KernelRegistry& registry) {}

}  // namespace gradweave
