// Device code that kernels share: dynamic shared memory, fast division and the contents of
// multiply_add.h, pack.h and warp.h. For .cu files, after launch.h.
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

// Returns the launch's dynamic shared memory, aligned to 16 bytes.
template <typename T>
__device__ SharedPointer<T> DynamicShared() {
#ifdef GRADWEAVE_EMULATE_CUDA
  return SharedPointer<T>(emulation::DynamicSharedMemory());
#else
  extern __shared__ __align__(16) unsigned char dynamic_shared[];
  return reinterpret_cast<T*>(dynamic_shared);
#endif
}

// Returns the number of blocks that gives each of `count` work items a thread. The number is
// limited to what fills a large GPU several times; kernels stride over the rest.
inline unsigned BlocksFor(int64_t count, int threads = kBlock) {
  constexpr int64_t kMost = 132 * 32;
  return static_cast<unsigned>(std::min<int64_t>((count + threads - 1) / threads, kMost));
}

// Index of this thread in the grid, and the number of threads in the grid.
__device__ inline uint32_t GlobalThread() { return blockIdx.x * blockDim.x + threadIdx.x; }
__device__ inline uint32_t GlobalThreads() { return gridDim.x * blockDim.x; }

// A vector of 16 bytes for copies.
using Wide = Pack<uint64_t, 2>;

// Returns true if the address is a multiple of `bytes`.
inline bool IsAligned(const void* address, size_t bytes) { return reinterpret_cast<uintptr_t>(address) % bytes == 0; }

// Division of numbers below 2^31 by one divisor, computed as a product (Granlund and Montgomery,
// "Division by invariant integers using multiplication", PLDI 1994, figure 4.1). An axis beside an
// empty one may give a divisor above 2^31. It is clamped to 2^31, since the quotients are 0 either
// way.
struct Divider {
  uint32_t divisor = 1, multiplier = 1, shift = 0;

  Divider() = default;
  explicit Divider(int64_t by) : divisor(static_cast<uint32_t>(std::min(by, int64_t{1} << 31))) {
    while ((uint64_t{1} << shift) < divisor) ++shift;
    multiplier = static_cast<uint32_t>((((uint64_t{1} << 32) * ((uint64_t{1} << shift) - divisor)) / divisor) + 1);
  }
  __device__ uint32_t Quotient(uint32_t n) const { return (__umulhi(n, multiplier) + n) >> shift; }
  // Returns the quotient and replaces n by the remainder.
  __device__ uint32_t Split(uint32_t& n) const {
    const uint32_t quotient = Quotient(n);
    n -= quotient * divisor;
    return quotient;
  }
};

// Reports bad data of this run to the executable. The first report wins.
__device__ inline void ReportError(int32_t* error, int32_t code) { atomicCAS(error, 0, code); }

}  // namespace gradweave::GRADWEAVE_CUDA_NAMESPACE

#endif  // GRADWEAVE_RUNTIME_CUDA_OPS_DEVICE_H_
