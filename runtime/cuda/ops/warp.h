// What the threads of a warp or a block do together: shared memory, what they bring to it, and values combined over all
// of them.
//
// For .cu files, and for the text of generated kernels, which NVRTC compiles without a standard library.
#ifndef GRADWEAVE_RUNTIME_CUDA_OPS_WARP_H_
#define GRADWEAVE_RUNTIME_CUDA_OPS_WARP_H_

#ifndef __CUDACC_RTC__
#include <cstdint>
#include <cstring>

#include "gradweave/runtime/cuda/ops/launch.h"
#endif

// A loop whose variables are in registers only without the loop.
#ifdef GRADWEAVE_EMULATE_CUDA
#define GRADWEAVE_UNROLL
#else
#define GRADWEAVE_UNROLL _Pragma("unroll")
#endif

// An array in the block's shared memory: GRADWEAVE_SHARED(float, tile, [32][33]).
#ifdef GRADWEAVE_EMULATE_CUDA
#define GRADWEAVE_SHARED(type, name, sizes)         \
  using name##_array = type sizes;                  \
  static const char name##_key = 0;                 \
  name##_array& name = *static_cast<name##_array*>( \
      ::gradweave::emulation::SharedMemory(&name##_key, sizeof(name##_array), alignof(name##_array)))
#else
#define GRADWEAVE_SHARED(type, name, sizes) __shared__ type name sizes
#endif

namespace gradweave::GRADWEAVE_CUDA_NAMESPACE {

constexpr int kWarp = 32;
constexpr unsigned kAllLanes = 0xffffffffu;
constexpr int kBlock = 256;  // Threads of a block where nothing asks for another number.

// The element, or 0 where it is not inside; the first element is read then, for a branch would keep loads from being
// under way side by side.
template <typename T>
__device__ T LoadOrZero(const T* from, uint32_t at, bool inside) {
  const T value = from[inside ? at : 0];
  return inside ? value : T(0);
}

// Calls to(i, from(i)) for each i below the count, on the threads of a block, neighbouring ones for neighbouring i. A
// thread has several loads under way: a GPU has to wait long for each, and compilers don't move loads over stores.
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

// A value of any trivially copyable type from the lane whose number differs in the bits.
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

// The values of a full warp combined, in every lane: in a fixed order, as a tree. Lane and partner combine in the order
// of their numbers.
template <typename T, typename Combine>
__device__ T CombineWarp(T value, Combine combine) {
  const int lane = threadIdx.x % kWarp;
  for (int bits = 1; bits < kWarp; bits *= 2) {
    const T other = ShuffleXor(value, bits);
    value = (lane & bits) != 0 ? combine(other, value) : combine(value, other);
  }
  return value;
}

// The values of all threads of a block of whole warps along x combined, in every thread. `shared` has a place for each
// warp and is free again after the next barrier.
template <typename T, typename Combine>
__device__ T CombineBlock(T value, T* shared, Combine combine) {
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
