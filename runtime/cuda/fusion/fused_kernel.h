// Parameters of kernels of elementwise chains, generated or interpreted, and the frame of generated
// ones.
//
// For .cu files and for the source of generated kernels, which NVRTC compiles without a standard
// library.
#ifndef GRADWEAVE_RUNTIME_CUDA_FUSION_FUSED_KERNEL_H_
#define GRADWEAVE_RUNTIME_CUDA_FUSION_FUSED_KERNEL_H_

#ifndef __CUDACC_RTC__
#include <cstdint>
#endif
#ifdef GRADWEAVE_EMULATE_CUDA
#include "gradweave/runtime/cuda/ops/pack.h"
#include "gradweave/runtime/cuda/ops/warp.h"
#endif

namespace gradweave {

// Limits of one generated kernel.
constexpr int kMostFusedTensors = 12, kMostFusedNumbers = 16, kMostFusedReductions = 4;

// Threads of a block, and elements that a block computes. Blocks are small enough that short
// tensors fill a GPU.
constexpr int kFusedThreads = 256, kFusedPerBlock = kFusedThreads * 8;

// The tensors of one chain, operands before outputs. It runs in the blocks from first_block up to
// the next chain's first_block.
struct FusedInstance {
  void* tensors[kMostFusedTensors];
  uint32_t total, first_block;
};

// Chains of one program. Their number is limited by the size of a kernel's parameters, 4 KiB.
constexpr int kMostFusedInstances = 29;
struct FusedInstances {
  int32_t count;
  int32_t aligned;  // Nonzero if all tensors are aligned to 16 bytes.
  FusedInstance chains[kMostFusedInstances];
};

// Parameters of a generated kernel that computes in T. Numbers are parameters rather than part of
// the source: one kernel serves every learning rate, and the compiler cannot fold them with
// arithmetic that differs from the device's.
template <typename T>
struct FusedParameters {
  FusedInstances instances;
  T numbers[kMostFusedNumbers];
};

}  // namespace gradweave

#if defined(__CUDACC_RTC__) || defined(GRADWEAVE_EMULATE_CUDA)

namespace gradweave::GRADWEAVE_CUDA_NAMESPACE {

// Code of one thread of a generated kernel. Chain::Run<n>(chain, numbers, i) computes the elements
// [i, i + n), with all loads before all stores. If n is more than 1, tensors and i are aligned for
// packs.
template <typename Chain>
__device__ void RunFused(const FusedParameters<typename Chain::Type>& parameters) {
  constexpr uint32_t kPack = 16 / sizeof(typename Chain::Type);
  const FusedInstances& instances = parameters.instances;
  int index = 0;
  while (index + 1 < instances.count && instances.chains[index + 1].first_block <= blockIdx.x) ++index;
  const FusedInstance& chain = instances.chains[index];
  const uint32_t begin = (blockIdx.x - chain.first_block) * kFusedPerBlock;
  for (uint32_t start = begin; start < begin + kFusedPerBlock; start += kFusedThreads * kPack) {
    const uint32_t at = start + threadIdx.x * kPack;
    if (at >= chain.total) return;
    if (instances.aligned != 0 && at + kPack <= chain.total) {
      Chain::template Run<kPack>(chain, parameters.numbers, at);
    } else {
      for (uint32_t i = at; i < at + kPack && i < chain.total; ++i) {
        Chain::template Run<1>(chain, parameters.numbers, i);
      }
    }
  }
}

}  // namespace gradweave::GRADWEAVE_CUDA_NAMESPACE

#endif

#endif  // GRADWEAVE_RUNTIME_CUDA_FUSION_FUSED_KERNEL_H_
