#include <algorithm>
#include <cmath>
#include <cstring>

#include "gradweave/runtime/kernel/kernel.h"
#include "gradweave/runtime/kernel/philox.h"

namespace gradweave {
namespace {

constexpr int64_t kGrain = 4096;

// Calls make(words, numbers) for each block. The last block may be used in part.
template <typename T, typename Make>
Kernel RandomKernel(const KernelRequest& request, Make make) {
  const int64_t total = request.output().shape.num_elements().size();
  const uint64_t seed = static_cast<uint64_t>(request.attribute<int64_t>("seed"));
  return {.name = "philox", .run = [=](const KernelArguments& arguments) {
            const philox::Key key = philox::KeyOf(arguments.seed, seed);
            const uint64_t run = arguments.run_number;
            T* y = arguments.output<T>();
            constexpr int kCount = philox::kPerBlock<T>;
            ParallelForRange(*arguments.pool, total, kGrain, [&](int64_t begin, int64_t end) {
              // Chunks begin at multiples of the grain, and thus at the start of a block.
              for (int64_t i = begin; i < end; i += kCount) {
                T numbers[kCount];
                make(philox::WordsOf(key, run, static_cast<uint64_t>(i / kCount)), numbers);
                std::memcpy(y + i, numbers, std::min<int64_t>(kCount, end - i) * sizeof(T));
              }
            });
            return absl::OkStatus();
          }};
}

template <typename T>
Kernel UniformKernel(const KernelRequest& request) {
  return RandomKernel<T>(
      request, philox::UniformBetween<T>(request.attribute<double>("low"), request.attribute<double>("high")));
}

template <typename T>
Kernel NormalKernel(const KernelRequest& request) {
  return RandomKernel<T>(request, philox::Normal<T>{static_cast<T>(request.attribute<double>("mean")),
                                                    static_cast<T>(request.attribute<double>("standard_deviation"))});
}

}  // namespace

void RegisterRandomKernels(KernelRegistry& registry) {
  registry.Add("RandomUniform", [](const KernelRequest& request) -> absl::StatusOr<Kernel> {
    return request.output().dtype == kFloat32 ? UniformKernel<float>(request) : UniformKernel<double>(request);
  });
  registry.Add("RandomNormal", [](const KernelRequest& request) -> absl::StatusOr<Kernel> {
    return request.output().dtype == kFloat32 ? NormalKernel<float>(request) : NormalKernel<double>(request);
  });
}

}  // namespace gradweave
