// Alignment of memory, and division and rounding that round up.
#ifndef GRADWEAVE_GRAPH_ALIGNMENT_H_
#define GRADWEAVE_GRAPH_ALIGNMENT_H_

#include <cstddef>
#include <memory>
#include <type_traits>

namespace gradweave {

// The alignment of tensors and arenas in bytes: the size of a cache line and of the widest vector
// register.
inline constexpr size_t kAlignment = 64;

// Returns the quotient, rounded up. The value is not negative, and the divisor is positive.
template <typename T>
constexpr T DivideUp(T value, std::type_identity_t<T> divisor) {
  return (value + divisor - 1) / divisor;
}

// Returns the smallest multiple of `multiple` that is at least `value`.
template <typename T>
constexpr T RoundUp(T value, std::type_identity_t<T> multiple) {
  return DivideUp(value, multiple) * multiple;
}

// Allocates at least `bytes` bytes of host memory with unspecified contents. The address is a
// multiple of `alignment`, a power of two. 0 bytes get an address of their own. Returns null if
// memory runs out.
std::shared_ptr<void> AllocateAligned(size_t bytes, size_t alignment = kAlignment);

}  // namespace gradweave

#endif  // GRADWEAVE_GRAPH_ALIGNMENT_H_
