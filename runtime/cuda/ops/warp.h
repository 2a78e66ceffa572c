// Cooperation of the threads of a warp or a block: shared memory, loads into it, and combination of
// values.
//
// For .cu files and for the source of generated kernels, which NVRTC compiles without a standard
// library.
#ifndef GRADWEAVE_RUNTIME_CUDA_OPS_WARP_H_
#define GRADWEAVE_RUNTIME_CUDA_OPS_WARP_H_

#ifndef __CUDACC_RTC__
#include <cstdint>
#include <cstring>
#include <type_traits>

#include "gradweave/runtime/cuda/ops/launch.h"
#endif

// Unrolls a loop that indexes an array, so that the array stays in registers.
#ifdef GRADWEAVE_EMULATE_CUDA
#define GRADWEAVE_UNROLL
#else
#define GRADWEAVE_UNROLL _Pragma("unroll")
#endif

// Declares an array in the block's shared memory, aligned to 16 bytes:
// GRADWEAVE_SHARED(float, tile, [32][33]). The name serves as a SharedPointer to the first element.
#ifdef GRADWEAVE_EMULATE_CUDA
#define GRADWEAVE_SHARED(type, name, sizes)                                             \
  using name##_array = type sizes;                                                      \
  static const char name##_key = 0;                                                     \
  const ::gradweave::emulation::SharedPointer<std::remove_extent_t<name##_array>> name( \
      ::gradweave::emulation::SharedMemory(&name##_key, sizeof(name##_array), 16))
#else
#define GRADWEAVE_SHARED(type, name, sizes) __shared__ alignas(16) type name sizes
#endif

namespace gradweave::GRADWEAVE_CUDA_NAMESPACE {

// A pointer to shared memory. The emulation checks each access.
#ifdef GRADWEAVE_EMULATE_CUDA
using emulation::SharedPointer;
#else
template <typename T>
using SharedPointer = T*;
#endif

// Lanes of a warp, and the mask of all of them.
constexpr int kWarp = 32;
constexpr unsigned kAllLanes = 0xffffffffu;
constexpr int kBlock = 256;  // Default number of threads of a block.

// Returns the element at `at`, or 0 if it is not inside. The load is unconditional, from index 0 if
// need be, because a branch would keep loads from overlapping.
template <typename T>
__device__ T LoadOrZero(const T* from, uint32_t at, bool inside) {
  const T value = from[inside ? at : 0];
  return inside ? value : T(0);
}

// Calls to(i, from(i)) for each i < count on the threads of a block; neighbouring threads take
// neighbouring i. Each thread keeps several loads in flight to hide their latency, since compilers
// do not move loads over stores.
template <typename From, typename To>
__device__ void CopyAhead(uint32_t count, From from, To to) {
  constexpr uint32_t kAhead = 4;
  const uint32_t step = blockDim.x;
  for (uint32_t start = threadIdx.x; start < count; start += step * kAhead) {
    decltype(from(start)) values[kAhead];
    GRADWEAVE_UNROLL
    for (uint32_t k = 0; k < kAhead; ++k) {
      const uint32_t i = start + k * step;
      values[k] = from(i < count ? i : start);
    }
    GRADWEAVE_UNROLL
    for (uint32_t k = 0; k < kAhead; ++k) {
      if (start + k * step < count) to(start + k * step, values[k]);
    }
  }
}

// Returns the value of the lane whose index differs in the given bits. T may be any trivially
// copyable type.
template <typename T>
__device__ T ShuffleXor(const T& value, int bits) {
  constexpr int kWords = (sizeof(T) + 3) / 4;
  uint32_t words[kWords] = {};
  memcpy(words, &value, sizeof(T));
  for (int i = 0; i < kWords; ++i) words[i] = __shfl_xor_sync(kAllLanes, words[i], bits);
  T result;
  memcpy(&result, words, sizeof(T));
  return result;
}

// Combines the values of a full warp as a tree in a fixed order and returns the result in every
// lane. The lower lane is always the left operand.
template <typename T, typename Combine>
__device__ T CombineWarp(T value, Combine combine) {
  const int lane = threadIdx.x % kWarp;
  for (int bits = 1; bits < kWarp; bits *= 2) {
    const T other = ShuffleXor(value, bits);
    value = (lane & bits) != 0 ? combine(other, value) : combine(value, other);
  }
  return value;
}

// Combines the values of all threads of a block and returns the result in every thread. The block
// consists of whole warps along x. `shared` has an element for each warp and may be reused after
// the next barrier.
template <typename T, typename Combine>
__device__ T CombineBlock(T value, SharedPointer<T> shared, Combine combine) {
  value = CombineWarp(value, combine);
  const int warps = blockDim.x / kWarp;
  if (threadIdx.x % kWarp == 0) shared[threadIdx.x / kWarp] = value;
  __syncthreads();
  T result = shared[0];
  for (int i = 1; i < warps; ++i) result = combine(result, shared[i]);
  return result;
}

}  // namespace gradweave::GRADWEAVE_CUDA_NAMESPACE

#endif  // GRADWEAVE_RUNTIME_CUDA_OPS_WARP_H_
