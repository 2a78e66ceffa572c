#include "gradweave/runtime/kernel.h"

namespace gradweave {

void RegisterIndexingKernels(KernelRegistry& registry) {}

}  // namespace gradweave
