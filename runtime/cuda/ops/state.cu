// Inputs, constants, variables and assignments need no kernels: the executable owns their memory.
#include "gradweave/runtime/cuda/ops/device.h"
#include "gradweave/runtime/cuda/ops/factories.h"

namespace gradweave::GRADWEAVE_CUDA_NAMESPACE {
namespace {

template <typename T>
__global__ void StoreNumber(T value, T* y) {
  *y = value;
}

}  // namespace

void RegisterStateKernels(KernelRegistry& registry) {
  Add(registry, "DimSize", [](const KernelRequest& request) -> absl::StatusOr<Kernel> {
    const int64_t size = request.operand(0).shape[request.attribute<int64_t>("axis")].size();
    return VisitDType(request.output().dtype, [&](auto zero) -> Kernel {
      using T = decltype(zero);
      return {.name = "dim_size", .run = [=](const KernelArguments& arguments) {
                return Launch(arguments.device<CudaContext>(), "store_number", StoreNumber<T>, {1}, {1}, 0,
                              static_cast<T>(size), arguments.output<T>());
              }};
    });
  });
}

}  // namespace gradweave::GRADWEAVE_CUDA_NAMESPACE
