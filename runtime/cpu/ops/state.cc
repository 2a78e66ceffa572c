#include "gradweave/runtime/kernel/kernel.h"

namespace gradweave {

// Inputs, constants, variables and assignments need no kernels: the executable owns their memory.
void RegisterStateKernels(KernelRegistry& registry) {
  registry.Add("DimSize", [](const KernelRequest& request) -> absl::StatusOr<Kernel> {
    const int64_t size = request.operand(0).shape[request.attribute<int64_t>("axis")].size();
    const DType dtype = request.output().dtype;
    return Kernel{.name = "dim_size", .run = [size, dtype](const KernelArguments& arguments) {
                    VisitDType(dtype, [&](auto zero) {
                      *arguments.output<decltype(zero)>() = static_cast<decltype(zero)>(size);
                    });
                    return absl::OkStatus();
                  }};
  });
}

}  // namespace gradweave
