#include "gradweave/runtime/kernel/run_options.h"

#include "gradweave/runtime/kernel/kernel.h"

namespace gradweave {

bool KernelArguments::stopped() const { return options != nullptr && options->stopped(); }

}  // namespace gradweave
