// Alignment of memory, and rounding up.
#ifndef GRADWEAVE_GRAPH_ALIGNMENT_H_
#define GRADWEAVE_GRAPH_ALIGNMENT_H_

#include <cstddef>
#include <memory>
#include <type_traits>

namespace gradweave {

// The alignment of tensors and arenas in bytes: a cache line, and the widest vector register.
inline constexpr size_t kAlignment = 64;

// The quotient, rounded up. Neither number is negative, and the divisor is not 0.
template <typename T>
constexpr T DivideUp(T value, std::type_identity_t<T> divisor) {
  return (value + divisor - 1) / divisor;
}

// The smallest multiple that is at least `value`.
template <typename T>
constexpr T RoundUp(T value, std::type_identity_t<T> multiple) {
  return DivideUp(value, multiple) * multiple;
}

// Host memory of at least that many bytes, with unspecified contents, at a multiple of `alignment`, which is a power of
// two. Memory of 0 bytes has an address of its own. Null where the machine has no such memory.
std::shared_ptr<void> AllocateAligned(size_t bytes, size_t alignment = kAlignment);

}  // namespace gradweave

#endif  // GRADWEAVE_GRAPH_ALIGNMENT_H_
