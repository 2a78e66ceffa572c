// The ops for which the CPU has several kernels. The registry's kernel is the cheapest choice.
#ifndef GRADWEAVE_RUNTIME_CPU_OPS_CHOICES_H_
#define GRADWEAVE_RUNTIME_CPU_OPS_CHOICES_H_

#include <vector>

#include "gradweave/runtime/cpu/cost/cost_model.h"
#include "gradweave/runtime/kernel/kernel.h"

namespace gradweave {

// Return all ways to run a node by itself, at least one. The node has the op in the function's name
// and known shapes, and must outlive the choices.
std::vector<KernelChoice> Conv2DChoices(const KernelRequest& request);
std::vector<KernelChoice> Conv2DInputGradChoices(const KernelRequest& request);
std::vector<KernelChoice> Conv2DFilterGradChoices(const KernelRequest& request);
std::vector<KernelChoice> MatMulChoices(const KernelRequest& request);

}  // namespace gradweave

#endif  // GRADWEAVE_RUNTIME_CPU_OPS_CHOICES_H_
