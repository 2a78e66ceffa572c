// What kernels of elementwise chains share, generated or not: their parameters, and the frame of a generated one.
//
// For .cu files, and for the text of generated kernels, which NVRTC compiles without a standard library.
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

constexpr int kMostFusedTensors = 12, kMostFusedNumbers = 16, kMostFusedReductions = 4;

// Threads of a block and the elements that they compute: enough that short tensors fill a GPU.
constexpr int kFusedThreads = 256, kFusedPerBlock = kFusedThreads * 8;

// One chain's tensors, operands before outputs; its blocks are [first_block, next's first_block).
struct FusedInstance {
  void* tensors[kMostFusedTensors];
  uint32_t total, first_block;
};

// The chains of one program, as many as fit into a kernel's parameters, which are 4 KiB.
constexpr int kMostFusedInstances = 29;
struct FusedInstances {
  int32_t count;
  int32_t aligned;  // Whether all tensors are, to 16 bytes.
  FusedInstance chains[kMostFusedInstances];
};

// Of a generated kernel that computes in T. Numbers are none of its source: one kernel does for every learning rate,
// and no compiler computes with them in place of the device.
template <typename T>
struct FusedParameters {
  FusedInstances instances;
  T numbers[kMostFusedNumbers];
};

}  // namespace gradweave

#if defined(__CUDACC_RTC__) || defined(GRADWEAVE_EMULATE_CUDA)

namespace gradweave::GRADWEAVE_CUDA_NAMESPACE {

// What a thread of a generated kernel does. Chain::Run<n>(chain, numbers, i) computes the elements [i, i + n), all
// loads before all stores; where n is not 1, its tensors and i are aligned for packs.
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
