#include "gradweave/runtime/kernel.h"

namespace gradweave {

void RegisterShapeKernels(KernelRegistry& registry) {}

}  // namespace gradweave
