// What kernels share: shared memory, vectors of elements, fast division, sums over warps. For .cu files, after
// launch.h.
#ifndef GRADWEAVE_RUNTIME_CUDA_DEVICE_H_
#define GRADWEAVE_RUNTIME_CUDA_DEVICE_H_

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>

#include "gradweave/runtime/cuda/launch.h"
#include "gradweave/runtime/cuda/pack.h"

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

// The launch's dynamic shared memory, aligned to 16.
template <typename T>
__device__ T* DynamicShared() {
#ifdef GRADWEAVE_EMULATE_CUDA
  return static_cast<T*>(emulation::DynamicSharedMemory());
#else
  extern __shared__ __align__(16) unsigned char dynamic_shared[];
  return reinterpret_cast<T*>(dynamic_shared);
#endif
}

// Blocks for a thread for each of `count` pieces of work, at most as many as fill a large GPU several times: kernels
// stride over the rest.
inline unsigned BlocksFor(int64_t count, int threads = kBlock) {
  constexpr int64_t kMost = 132 * 32;
  return static_cast<unsigned>(std::min<int64_t>((count + threads - 1) / threads, kMost));
}

__device__ inline uint32_t GlobalThread() { return blockIdx.x * blockDim.x + threadIdx.x; }
__device__ inline uint32_t GlobalThreads() { return gridDim.x * blockDim.x; }

// Sixteen bytes that are moved.
struct alignas(16) Wide {
  uint64_t halves[2];
};

inline bool IsAligned(const void* address, size_t bytes) { return reinterpret_cast<uintptr_t>(address) % bytes == 0; }

// a*b + c with one rounding, for the long sums of products: the only contraction there is.
__device__ inline float MultiplyAdd(float a, float b, float c) {
#ifdef GRADWEAVE_EMULATE_CUDA
  return std::fma(a, b, c);
#else
  return __fmaf_rn(a, b, c);
#endif
}
__device__ inline double MultiplyAdd(double a, double b, double c) {
#ifdef GRADWEAVE_EMULATE_CUDA
  return std::fma(a, b, c);
#else
  return __fma_rn(a, b, c);
#endif
}

// Division of numbers below 2^31 by one divisor, as a product (Granlund and Montgomery, "Division by invariant integers
// using multiplication", PLDI 1994, figure 4.1).
struct Divider {
  uint32_t divisor = 1, multiplier = 1, shift = 0;

  Divider() = default;
  explicit Divider(int64_t by) : divisor(static_cast<uint32_t>(by)) {
    while ((uint64_t{1} << shift) < divisor) ++shift;
    multiplier = static_cast<uint32_t>((((uint64_t{1} << 32) * ((uint64_t{1} << shift) - divisor)) / divisor) + 1);
  }
  __device__ uint32_t Quotient(uint32_t n) const { return (__umulhi(n, multiplier) + n) >> shift; }
  // The quotient; n becomes the remainder.
  __device__ uint32_t Split(uint32_t& n) const {
    const uint32_t quotient = Quotient(n);
    n -= quotient * divisor;
    return quotient;
  }
};

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

// Tells the executable that this run met bad data; the first report stays.
__device__ inline void ReportError(int32_t* error, int32_t code) { atomicCAS(error, 0, code); }

}  // namespace gradweave::GRADWEAVE_CUDA_NAMESPACE

#endif  // GRADWEAVE_RUNTIME_CUDA_DEVICE_H_
