// Shared memory of the emulated device. Kernels use it through SharedPointer, which tells the
// emulation of every load and store.
//
// An access ends the grid with an error if it is misaligned, if it lies outside of an array, or if
// it races with an earlier one: if another thread has accessed the same element, one of the two
// writes, and no barrier orders them. __syncthreads orders the accesses of a block, and __syncwarp
// those of a warp. Shuffles and votes exchange values but order nothing. Races are found by record:
// it does not matter in which order the threads happen to run.
#ifndef GRADWEAVE_RUNTIME_CUDA_EMULATION_SHARED_MEMORY_H_
#define GRADWEAVE_RUNTIME_CUDA_EMULATION_SHARED_MEMORY_H_

#include <cstddef>
#include <cstdint>
#include <type_traits>

namespace gradweave::emulation {

// Returns the block's shared memory for a key. All threads of the block get the same memory.
void* SharedMemory(const void* key, size_t bytes, size_t alignment);
void* DynamicSharedMemory();

// Records an access of the running thread to `bytes` bytes of shared memory. One instruction
// accesses `alignment` bytes, which are aligned to their number. The address of the caller's
// instruction tells the accesses of a thread apart, so callers are always inlined.
[[gnu::noinline]] void RecordSharedAccess(const void* address, size_t bytes, size_t alignment, bool writes);

// An element in shared memory. Reading and assigning it are accesses.
template <typename T>
class SharedReference {
 public:
  explicit SharedReference(T* element) : element_(element) {}
  SharedReference(const SharedReference&) = default;
  [[gnu::always_inline]] operator T() const {
    RecordSharedAccess(element_, sizeof(T), alignof(T), false);
    return *element_;
  }
  [[gnu::always_inline]] const SharedReference& operator=(T value) const {
    RecordSharedAccess(element_, sizeof(T), alignof(T), true);
    *element_ = value;
    return *this;
  }
  [[gnu::always_inline]] const SharedReference& operator=(const SharedReference& other) const {
    return *this = static_cast<T>(other);
  }

 private:
  T* element_;
};

// A pointer to an element, or to a row of a matrix, in shared memory.
template <typename T>
class SharedPointer {
 public:
  explicit SharedPointer(void* memory) : at_(static_cast<T*>(memory)) {}
  SharedPointer operator+(ptrdiff_t elements) const { return SharedPointer(at_ + elements); }
  SharedPointer& operator+=(ptrdiff_t elements) {
    at_ += elements;
    return *this;
  }
  // Returns an element, or a pointer to the first element of a row.
  [[gnu::always_inline]] auto operator[](ptrdiff_t i) const {
    if constexpr (std::is_array_v<T>) {
      return SharedPointer<std::remove_extent_t<T>>(at_[i]);
    } else {
      return SharedReference<T>(at_ + i);
    }
  }
  // Returns the same address as a pointer to another type.
  template <typename U>
  SharedPointer<U> As() const {
    return SharedPointer<U>(at_);
  }

 private:
  T* at_;
};

}  // namespace gradweave::emulation

#endif  // GRADWEAVE_RUNTIME_CUDA_EMULATION_SHARED_MEMORY_H_
