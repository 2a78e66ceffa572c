// Chunks of limited size that differ little.
#ifndef GRADWEAVE_RUNTIME_CPU_CONV_EVEN_CHUNKS_H_
#define GRADWEAVE_RUNTIME_CPU_CONV_EVEN_CHUNKS_H_

#include <algorithm>
#include <cstdint>

#include "gradweave/graph/alignment.h"
#include "gradweave/runtime/kernel/thread_pool.h"

namespace gradweave {

// Divides `count` into as few chunks as a size of at most `most` allows, and then makes their sizes
// as equal as possible. Sizes are multiples of `grain` except for the last one, so `most` should be
// a multiple of it.
inline Chunks EvenChunks(int64_t count, int64_t most, int64_t grain = 1) {
  const int64_t number = std::max<int64_t>(DivideUp(count, std::max<int64_t>(most, 1)), 1);
  return Chunks(count, RoundUp(DivideUp(count, number), grain), number);
}

}  // namespace gradweave

#endif  // GRADWEAVE_RUNTIME_CPU_CONV_EVEN_CHUNKS_H_
