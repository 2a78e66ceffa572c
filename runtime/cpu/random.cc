#include "gradweave/runtime/kernel.h"

namespace gradweave {

void RegisterRandomKernels(KernelRegistry& registry) {}

}  // namespace gradweave
