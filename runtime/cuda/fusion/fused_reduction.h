// Parameters and frame of generated kernels of chains that end in reductions.
//
// For .cu files and for the source of generated kernels, which NVRTC compiles without a standard
// library.
#ifndef GRADWEAVE_RUNTIME_CUDA_FUSION_FUSED_REDUCTION_H_
#define GRADWEAVE_RUNTIME_CUDA_FUSION_FUSED_REDUCTION_H_

#ifndef __CUDACC_RTC__
#include <memory>

#include "gradweave/runtime/cuda/fusion/fused_kernel.h"
#include "gradweave/runtime/cuda/fusion/fusion.h"
#include "gradweave/runtime/cuda/ops/reduce.h"
#include "gradweave/runtime/cuda/ops/reduction_pass.h"
#endif

namespace gradweave {

// Parameters of a generated kernel that computes in T.
template <typename T>
struct FusedReductionParameters {
  ReductionPass pass;                   // The first pass, which all reductions of the chain share.
  void* results[kMostFusedReductions];  // Targets of each reduction, for StoreResult of reduce.h.
  FusedInstance chain;
  T numbers[kMostFusedNumbers];
};

}  // namespace gradweave

namespace gradweave::GRADWEAVE_CUDA_NAMESPACE {

// Computes the states of a chain's elements for the passes of reduce.h.
template <typename Chain>
struct FusedLoad {
  const FusedReductionParameters<typename Chain::Type>& parameters;
  template <int n>
  __device__ void operator()(const ElementRun& run, typename Chain::State (&states)[n]) const {
    Chain::template Run<n>(parameters.chain, parameters.numbers, static_cast<uint32_t>(run.at),
                           static_cast<uint32_t>(run.step), states);
  }
};

// Code of one thread of a generated kernel. The chain is an operation in the sense of reduce.h,
// whose state holds the states of all its reductions. Chain::Run<n>(chain, numbers, i, step,
// states) computes the n elements i, i + step, ... and their states; all loads come before all
// stores that other steps read. Chain::Store(results, pass, place, state) stores results.
// Chain::kForm is the form of the pass.
template <typename Chain>
__device__ void RunFusedReduction(const FusedReductionParameters<typename Chain::Type>& parameters) {
  const FusedLoad<Chain> load{parameters};
  const auto store = [&](ResultPlace place, const typename Chain::State& state) {
    Chain::Store(parameters.results, parameters.pass, place, state);
  };
  if constexpr (Chain::kForm == PassForm::kShortRows) {
    ReduceRows<Chain, kWarp>(parameters.pass, load, store);
  } else if constexpr (Chain::kForm == PassForm::kLongRows) {
    ReduceRows<Chain, kBlock>(parameters.pass, load, store);
  } else {
    ReduceColumns<Chain>(parameters.pass, load, store);
  }
}

#ifndef __CUDACC_RTC__

// Makes the kernel that runs a group with reductions with its generated kernel. For
// MakeFusedKernel.
Kernel MakeFusedReduction(const FusedGroup& group, const std::shared_ptr<const LoadedKernel>& generated);

#endif

}  // namespace gradweave::GRADWEAVE_CUDA_NAMESPACE

#endif  // GRADWEAVE_RUNTIME_CUDA_FUSION_FUSED_REDUCTION_H_
