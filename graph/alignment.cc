#include "gradweave/graph/alignment.h"

#include <algorithm>
#include <cstdlib>
#include <limits>
#include <new>

namespace gradweave {

std::shared_ptr<void> AllocateAligned(size_t bytes, size_t alignment) {
  if (bytes > std::numeric_limits<size_t>::max() - alignment) return nullptr;
  // aligned_alloc takes multiples of the alignment.
  void* memory = std::aligned_alloc(alignment, RoundUp(std::max<size_t>(bytes, 1), alignment));
  // If a shared_ptr gets no memory for its count, it frees the pointer.
  try {
    return memory == nullptr ? nullptr : std::shared_ptr<void>(memory, std::free);
  } catch (const std::bad_alloc&) {
    return nullptr;
  }
}

}  // namespace gradweave
