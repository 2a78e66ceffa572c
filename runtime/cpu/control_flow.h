// The kernels of loops and branches, which run the kernels of their bodies.
#ifndef GRADWEAVE_RUNTIME_CPU_CONTROL_FLOW_H_
#define GRADWEAVE_RUNTIME_CPU_CONTROL_FLOW_H_

#include "gradweave/runtime/kernel/kernel.h"
#include "gradweave/runtime/plan/steps.h"

namespace gradweave {

// Adds the kernels of Scan, If and While. Bodies get steps with these options, except that the
// request of a kernel gives the number of threads and toom_cook.
void RegisterControlFlowKernels(KernelRegistry& registry, const StepOptions& options);

}  // namespace gradweave

#endif  // GRADWEAVE_RUNTIME_CPU_CONTROL_FLOW_H_
