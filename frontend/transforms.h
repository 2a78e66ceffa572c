// Changes of samples on their way into a batch.
#ifndef GRADWEAVE_FRONTEND_TRANSFORMS_H_
#define GRADWEAVE_FRONTEND_TRANSFORMS_H_

#include <cstdint>
#include <functional>
#include <vector>

#include "absl/types/span.h"

namespace gradweave::data {

// The random numbers of one sample in one epoch: the same on every machine and for every order of
// the samples. The generator is SplitMix64 (Steele et al., "Fast splittable pseudorandom number
// generators", 2014).
class SampleRandom {
 public:
  SampleRandom(uint64_t seed, int64_t epoch, int64_t sample)
      : state_(Mixed(Mixed(seed) + static_cast<uint64_t>(epoch)) + static_cast<uint64_t>(sample)) {}

  // Uniform in [0, 2^64).
  uint64_t operator()() { return Mixed(state_ += kStep); }
  // Uniform in [0, n); n is at least 1.
  int64_t Below(int64_t n) {
    return static_cast<int64_t>((static_cast<unsigned __int128>((*this)()) * static_cast<uint64_t>(n)) >> 64);
  }
  // Uniform in [0, 1).
  double Uniform() { return static_cast<double>((*this)() >> 11) * 0x1p-53; }

 private:
  static constexpr uint64_t kStep = 0x9E3779B97F4A7C15;
  static uint64_t Mixed(uint64_t x) {
    x = (x ^ (x >> 30)) * 0xBF58476D1CE4E5B9;
    x = (x ^ (x >> 27)) * 0x94D049BB133111EB;
    return x ^ (x >> 31);
  }

  uint64_t state_;
};

// Writes the changed sample to `to`. `from` and `to` have the same number of elements and do not
// overlap; `sizes` are the axes of one sample: {channels, height, width} for an image. Bytes come
// scaled to [0, 1], before standardization. A loader calls it from its own thread; an exception
// ends the training.
using SampleTransform = std::function<void(absl::Span<const float> from, absl::Span<float> to,
                                           absl::Span<const int64_t> sizes, SampleRandom& random)>;

// (x - mean)/deviation, each with one number for all elements, or one for each index of the axis
// behind the samples: for each channel of an image, or each feature. Bytes are scaled to [0, 1]
// first.
struct Standardization {
  std::vector<double> mean, deviation;  // Finite; the deviations are above 0.
};

}  // namespace gradweave::data

#endif  // GRADWEAVE_FRONTEND_TRANSFORMS_H_
