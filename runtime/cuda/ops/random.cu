// Random numbers. Each thread generates one block of four words. The numbers are the same bits as
// on the CPU.
#include "gradweave/runtime/cuda/ops/device.h"
#include "gradweave/runtime/cuda/ops/factories.h"
#include "gradweave/runtime/kernel/philox.h"

namespace gradweave::GRADWEAVE_CUDA_NAMESPACE {
namespace {

template <typename T, typename Make>
__global__ void __launch_bounds__(kBlock)
    RandomNumbers(Make make, const CudaRunState* state, uint64_t node_seed, T* y, uint32_t total) {
  constexpr int n = philox::kPerBlock<T>;
  const philox::Key key = philox::KeyOf(state->seed, node_seed);
  const uint64_t run = state->run_number;
  const uint32_t blocks = (total + n - 1) / n;
  for (uint32_t block = GlobalThread(); block < blocks; block += GlobalThreads()) {
    Pack<T, n> numbers;
    make(philox::WordsOf(key, run, block), numbers.values);
    const uint32_t i = block * n;
    for (int k = 0; k < n && i + k < total; ++k) y[i + k] = numbers.values[k];
  }
}

template <typename T, typename Make>
absl::StatusOr<Kernel> RandomKernel(const KernelRequest& request, Make make) {
  // The operands `samples` and `shard`. Their first number is known on the host alone.
  if (!request.operands.empty()) return absl::UnimplementedError("random numbers of a shard");
  const uint32_t total = static_cast<uint32_t>(NumElements(request.output()));
  const uint64_t seed = static_cast<uint64_t>(request.attribute<int64_t>("seed"));
  return Kernel{.name = "philox", .run = [=](const KernelArguments& arguments) {
                  constexpr int n = philox::kPerBlock<T>;
                  return Launch(arguments.device<CudaContext>(), "random_numbers", RandomNumbers<T, Make>,
                                {BlocksFor((total + n - 1) / n)}, {kBlock}, 0, make,
                                arguments.device<CudaContext>().run_state, seed, arguments.output<T>(), total);
                }};
}

}  // namespace

void RegisterRandomKernels(KernelRegistry& registry) {
  AddFloating(registry, "RandomUniform", [](const KernelRequest& request, auto zero) {
    using T = decltype(zero);
    return RandomKernel<T>(
        request, philox::UniformBetween<T>(request.attribute<double>("low"), request.attribute<double>("high")));
  });
  AddFloating(registry, "RandomNormal", [](const KernelRequest& request, auto zero) {
    using T = decltype(zero);
    return RandomKernel<T>(request, philox::Normal<T>{static_cast<T>(request.attribute<double>("mean")),
                                                      static_cast<T>(request.attribute<double>("standard_deviation"))});
  });
}

}  // namespace gradweave::GRADWEAVE_CUDA_NAMESPACE
