// Packs: vectors of elements that one instruction loads or stores.
//
// For .cu files and for the source of generated kernels, which NVRTC compiles without a standard
// library.
#ifndef GRADWEAVE_RUNTIME_CUDA_OPS_PACK_H_
#define GRADWEAVE_RUNTIME_CUDA_OPS_PACK_H_

#ifndef __CUDACC_RTC__
#include <cstdint>

#include "gradweave/runtime/cuda/ops/launch.h"
#endif

namespace gradweave::GRADWEAVE_CUDA_NAMESPACE {

// n elements that are loaded and stored as one. The address must be a multiple of their size.
template <typename T, int n>
struct alignas(sizeof(T) * n) Pack {
  T values[n];
};

// Loads or stores n elements. The emulation reports a misaligned address.
template <int n, typename T>
__device__ Pack<T, n> LoadPack(const T* from) {
#ifdef GRADWEAVE_EMULATE_CUDA
  if (reinterpret_cast<uintptr_t>(from) % sizeof(Pack<T, n>) != 0) emulation::Fail("a load from a misaligned address");
#endif
  return *reinterpret_cast<const Pack<T, n>*>(from);
}
template <int n, typename T>
__device__ void StorePack(T* to, const Pack<T, n>& pack) {
#ifdef GRADWEAVE_EMULATE_CUDA
  if (reinterpret_cast<uintptr_t>(to) % sizeof(Pack<T, n>) != 0) emulation::Fail("a store to a misaligned address");
#endif
  *reinterpret_cast<Pack<T, n>*>(to) = pack;
}

}  // namespace gradweave::GRADWEAVE_CUDA_NAMESPACE

#endif  // GRADWEAVE_RUNTIME_CUDA_OPS_PACK_H_
