#include "gradweave/runtime/kernel.h"

namespace gradweave {

void RegisterStateKernels(KernelRegistry& registry) {}

}  // namespace gradweave
