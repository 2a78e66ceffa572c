#include "gradweave/graph/alignment.h"

#include <algorithm>
#include <cstdlib>

namespace gradweave {

std::shared_ptr<void> AllocateAligned(size_t bytes, size_t alignment) {
  // aligned_alloc takes multiples of the alignment.
  void* memory = std::aligned_alloc(alignment, RoundUp(std::max<size_t>(bytes, 1), alignment));
  return memory == nullptr ? nullptr : std::shared_ptr<void>(memory, std::free);
}

}  // namespace gradweave
