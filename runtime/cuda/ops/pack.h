// Packs: vectors of elements that one instruction loads or stores.
//
// For .cu files and for the source of generated kernels, which NVRTC compiles without a standard
// library.
#ifndef GRADWEAVE_RUNTIME_CUDA_OPS_PACK_H_
#define GRADWEAVE_RUNTIME_CUDA_OPS_PACK_H_

#ifndef __CUDACC_RTC__
#include <cstdint>
#include <cstring>

#include "gradweave/runtime/cuda/ops/launch.h"
#endif

namespace gradweave::GRADWEAVE_CUDA_NAMESPACE {

// n elements that are loaded and stored as one. The address must be a multiple of their size. The
// emulation reports each load from and store to a misaligned address.
template <typename T, int n>
struct alignas(sizeof(T) * n) Pack {
  T values[n];

#ifdef GRADWEAVE_EMULATE_CUDA
  Pack() = default;
  Pack(const Pack& from) {
    emulation::CheckAligned(&from, sizeof(Pack), "a load from");
    std::memcpy(values, from.values, sizeof values);
  }
  Pack& operator=(const Pack& from) {
    emulation::CheckAligned(&from, sizeof(Pack), "a load from");
    emulation::CheckAligned(this, sizeof(Pack), "a store to");
    std::memmove(values, from.values, sizeof values);
    return *this;
  }
#endif
};

// Loads or stores n elements.
template <int n, typename T>
__device__ Pack<T, n> LoadPack(const T* from) {
  return *reinterpret_cast<const Pack<T, n>*>(from);
}
template <int n, typename T>
__device__ void StorePack(T* to, const Pack<T, n>& pack) {
  *reinterpret_cast<Pack<T, n>*>(to) = pack;
}
#ifdef GRADWEAVE_EMULATE_CUDA
// Loads from shared memory.
template <int n, typename T>
Pack<T, n> LoadPack(emulation::SharedPointer<T> from) {
  return from.template As<Pack<T, n>>()[0];
}
#endif

}  // namespace gradweave::GRADWEAVE_CUDA_NAMESPACE

#endif  // GRADWEAVE_RUNTIME_CUDA_OPS_PACK_H_
