// What kernels share: dynamic shared memory, fast division, and what multiply_add.h, pack.h and warp.h have. For .cu
// files, after launch.h.
#ifndef GRADWEAVE_RUNTIME_CUDA_OPS_DEVICE_H_
#define GRADWEAVE_RUNTIME_CUDA_OPS_DEVICE_H_

#include <algorithm>
#include <cstdint>
#include <cstring>

#include "gradweave/runtime/cuda/ops/launch.h"
#include "gradweave/runtime/cuda/ops/multiply_add.h"
#include "gradweave/runtime/cuda/ops/pack.h"
#include "gradweave/runtime/cuda/ops/warp.h"

namespace gradweave::GRADWEAVE_CUDA_NAMESPACE {

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

// Division of numbers below 2^31 by one divisor, as a product (Granlund and Montgomery, "Division by invariant integers
// using multiplication", PLDI 1994, figure 4.1). A divisor above 2^31, as an axis beside one of no elements may be, has
// the quotients of 2^31, which are 0.
struct Divider {
  uint32_t divisor = 1, multiplier = 1, shift = 0;

  Divider() = default;
  explicit Divider(int64_t by) : divisor(static_cast<uint32_t>(std::min(by, int64_t{1} << 31))) {
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

// Tells the executable that this run met bad data; the first report stays.
__device__ inline void ReportError(int32_t* error, int32_t code) { atomicCAS(error, 0, code); }

}  // namespace gradweave::GRADWEAVE_CUDA_NAMESPACE

#endif  // GRADWEAVE_RUNTIME_CUDA_OPS_DEVICE_H_
