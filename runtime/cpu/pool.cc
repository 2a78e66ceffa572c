#include "gradweave/runtime/kernel.h"

namespace gradweave {

void RegisterPoolKernels(KernelRegistry& registry) {}

}  // namespace gradweave
