#include "gradweave/runtime/cpu/random.h"

#include <cmath>
#include <cstring>

#include "gradweave/runtime/kernel.h"

namespace gradweave {

// Philox 4x32 with ten rounds; the constants are those of the paper's table 2.
std::array<uint32_t, 4> Philox(std::array<uint32_t, 4> counter, std::array<uint32_t, 2> key) {
  for (int round = 0; round < 10; ++round) {
    const uint64_t product0 = uint64_t{0xD2511F53} * counter[0];
    const uint64_t product1 = uint64_t{0xCD9E8D57} * counter[2];
    counter = {static_cast<uint32_t>(product1 >> 32) ^ counter[1] ^ key[0], static_cast<uint32_t>(product1),
               static_cast<uint32_t>(product0 >> 32) ^ counter[3] ^ key[1], static_cast<uint32_t>(product0)};
    key = {key[0] + 0x9E3779B9, key[1] + 0xBB67AE85};
  }
  return counter;
}

namespace {

constexpr int64_t kGrain = 4096;

// Mixes the session's and the node's seeds into one key (the finaliser of SplitMix64; Steele et al., "Fast splittable
// pseudorandom number generators", OOPSLA 2014), so that neighbouring seeds have nothing in common.
uint64_t Mix(uint64_t x) {
  x += 0x9E3779B97F4A7C15;
  x = (x ^ (x >> 30)) * 0xBF58476D1CE4E5B9;
  x = (x ^ (x >> 27)) * 0x94D049BB133111EB;
  return x ^ (x >> 31);
}

// The four random words of an element. Its index and the run's number are the counter.
struct Source {
  std::array<uint32_t, 2> key;
  uint64_t run;

  Source(const KernelArguments& arguments, uint64_t node_seed) : run(arguments.run_number) {
    const uint64_t mixed = Mix(Mix(arguments.seed) ^ node_seed);
    key = {static_cast<uint32_t>(mixed), static_cast<uint32_t>(mixed >> 32)};
  }
  std::array<uint32_t, 4> Words(uint64_t block) const {
    return Philox({static_cast<uint32_t>(block), static_cast<uint32_t>(block >> 32), static_cast<uint32_t>(run),
                   static_cast<uint32_t>(run >> 32)},
                  key);
  }
};

// In [0, 1): as many bits as the mantissa holds.
float Unit(const uint32_t* words, float) { return static_cast<float>(words[0] >> 8) * 0x1p-24f; }
double Unit(const uint32_t* words, double) {
  return static_cast<double>((uint64_t{words[0]} << 32 | words[1]) >> 11) * 0x1p-53;
}

// Numbers that one block of four words gives: a float needs one word, a double two.
template <typename T>
constexpr int kPerBlock = sizeof(T) == 4 ? 4 : 2;

// Calls make(words, numbers) for each block; numbers are copied out as far as they are wanted.
template <typename T, typename Make>
Kernel RandomKernel(const KernelRequest& request, Make make) {
  const int64_t total = request.output().shape.num_elements().size();
  const uint64_t seed = static_cast<uint64_t>(request.attribute<int64_t>("seed"));
  return {.name = "philox", .run = [=](const KernelArguments& arguments) {
            const Source source(arguments, seed);
            T* y = arguments.output<T>();
            constexpr int kCount = kPerBlock<T>;
            ParallelForRange(*arguments.pool, total, kGrain, [&](int64_t begin, int64_t end) {
              // Chunks begin at multiples of the grain, so at a block.
              for (int64_t i = begin; i < end; i += kCount) {
                const std::array<uint32_t, 4> words = source.Words(static_cast<uint64_t>(i / kCount));
                T numbers[kCount];
                make(words, numbers);
                std::memcpy(y + i, numbers, std::min<int64_t>(kCount, end - i) * sizeof(T));
              }
            });
            return absl::OkStatus();
          }};
}

template <typename T>
Kernel UniformKernel(const KernelRequest& request) {
  const double low = request.attribute<double>("low"), high = request.attribute<double>("high");
  const T first = static_cast<T>(low), width = static_cast<T>(high - low),
          last = std::nextafter(static_cast<T>(high), first);
  return RandomKernel<T>(request, [=](const std::array<uint32_t, 4>& words, T* numbers) {
    constexpr int kWords = 4 / kPerBlock<T>;
    for (int i = 0; i < kPerBlock<T>; ++i) {
      // Rounding can reach the upper bound, which does not belong to the range.
      numbers[i] = std::min(first + width * Unit(&words[i * kWords], T()), last);
    }
  });
}

template <typename T>
Kernel NormalKernel(const KernelRequest& request) {
  const T mean = static_cast<T>(request.attribute<double>("mean"));
  const T deviation = static_cast<T>(request.attribute<double>("standard_deviation"));
  return RandomKernel<T>(request, [=](const std::array<uint32_t, 4>& words, T* numbers) {
    constexpr int kWords = 4 / kPerBlock<T>;
    for (int i = 0; i < kPerBlock<T>; i += 2) {
      // 1 - u is in (0, 1], where the logarithm is finite.
      const T radius = std::sqrt(T(-2) * std::log(1 - Unit(&words[i * kWords], T())));
      const T angle = static_cast<T>(2 * M_PI) * Unit(&words[(i + 1) * kWords], T());
      numbers[i] = mean + deviation * radius * std::cos(angle);
      numbers[i + 1] = mean + deviation * radius * std::sin(angle);
    }
  });
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
