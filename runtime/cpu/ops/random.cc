#include <algorithm>
#include <cmath>
#include <cstring>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"
#include "absl/types/span.h"
#include "gradweave/runtime/kernel/kernel.h"
#include "gradweave/runtime/kernel/philox.h"

namespace gradweave {
namespace {

constexpr int64_t kRandomGrain = 4096;

// The number of the result's first element. That of a shard is behind the elements of the shards
// before it; `samples` are the number of samples of each.
absl::StatusOr<uint64_t> FirstElement(absl::Span<const int64_t> samples, int64_t shard, int64_t elements) {
  if (shard < 0 || shard >= static_cast<int64_t>(samples.size())) {
    return absl::OutOfRangeError(absl::StrCat("shard is ", shard, " and has to be in [0, ", samples.size(), ")"));
  }
  if (samples[shard] == 0) return 0;
  uint64_t before = 0;
  for (int64_t i = 0; i < shard; ++i) before += static_cast<uint64_t>(samples[i]);
  return before * static_cast<uint64_t>(elements / samples[shard]);
}

// Calls make(words, numbers) for each block. The first and the last block may be used in part.
template <typename T, typename Make>
Kernel RandomKernel(const KernelRequest& request, Make make) {
  const int64_t total = request.output().shape.num_elements().size();
  const uint64_t seed = static_cast<uint64_t>(request.attribute<int64_t>("seed"));
  const int64_t shards = request.operands.empty() ? 0 : request.operand(0).shape.num_elements().size();
  const bool is_part = !request.operands.empty();
  return {.name = "philox",
          .run = [=](const KernelArguments& arguments) -> absl::Status {
            const philox::Key key = philox::KeyOf(arguments.seed, seed);
            const uint64_t run = arguments.run_number;
            T* y = arguments.output<T>();
            constexpr uint64_t kCount = philox::kPerBlock<T>;
            uint64_t first = 0;
            if (is_part) {
              const absl::Span<const int64_t> samples(arguments.operand<int64_t>(0), shards);
              const absl::StatusOr<uint64_t> of_shard = FirstElement(samples, *arguments.operand<int64_t>(1), total);
              if (!of_shard.ok()) return of_shard.status();
              first = *of_shard;
            }
            ParallelForRange(*arguments.pool, total, kRandomGrain, [&](int64_t begin, int64_t end) {
              for (int64_t i = begin; i < end;) {
                const uint64_t element = first + static_cast<uint64_t>(i), skipped = element % kCount;
                T numbers[kCount];
                make(philox::WordsOf(key, run, element / kCount), numbers);
                const int64_t used = std::min<int64_t>(static_cast<int64_t>(kCount - skipped), end - i);
                std::memcpy(y + i, numbers + skipped, used * sizeof(T));
                i += used;
              }
            });
            return absl::OkStatus();
          },
          .fallible = is_part};
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
