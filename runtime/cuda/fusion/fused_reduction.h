// What generated kernels of chains that end in reductions share: their parameters and their frame.
//
// For .cu files, and for the text of generated kernels, which NVRTC compiles without a standard library.
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

// Of a generated kernel that computes in T.
template <typename T>
struct FusedReductionParameters {
  ReductionPass pass;                   // The first of all of the chain's reductions.
  void* results[kMostFusedReductions];  // Of each, as StoreResult of reduce.h stores them.
  FusedInstance chain;
  T numbers[kMostFusedNumbers];
};

}  // namespace gradweave

namespace gradweave::GRADWEAVE_CUDA_NAMESPACE {

// The states of a chain's elements, for the passes of reduce.h.
template <typename Chain>
struct FusedLoad {
  const FusedReductionParameters<typename Chain::Type>& parameters;
  template <int n>
  __device__ void operator()(const ElementRun& run, typename Chain::State (&states)[n]) const {
    Chain::template Run<n>(parameters.chain, parameters.numbers, static_cast<uint32_t>(run.at),
                           static_cast<uint32_t>(run.step), states);
  }
};

// What a thread of a generated kernel does. The chain is an operation as those of reduce.h, whose state has those of
// all of its reductions. Chain::Run<n>(chain, numbers, i, step, states) computes the n elements i, i + step, ..., all
// loads before all stores of what others read, and makes their states. Chain::Store(results, pass, place, state) stores
// results. Chain::kForm is the pass's form.
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

// The run of a group with reductions by its generated kernel; for MakeFusedKernel.
Kernel MakeFusedReduction(const FusedGroup& group, const std::shared_ptr<const LoadedKernel>& generated);

#endif

}  // namespace gradweave::GRADWEAVE_CUDA_NAMESPACE

#endif  // GRADWEAVE_RUNTIME_CUDA_FUSION_FUSED_REDUCTION_H_
