// The random number generator.
#ifndef GRADWEAVE_RUNTIME_CPU_RANDOM_H_
#define GRADWEAVE_RUNTIME_CPU_RANDOM_H_

#include <array>
#include <cstdint>

namespace gradweave {

// Philox 4x32-10 (Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", SC 2011, section 3): four random words
// for each counter and key.
std::array<uint32_t, 4> Philox(std::array<uint32_t, 4> counter, std::array<uint32_t, 2> key);

}  // namespace gradweave

#endif  // GRADWEAVE_RUNTIME_CPU_RANDOM_H_
