// What generated kernels of chains that end in reductions share: their parameters and their frame.
//
// For .cu files, and for the text of generated kernels, which NVRTC compiles without a standard library.
#ifndef GRADWEAVE_RUNTIME_CUDA_FUSED_REDUCTION_H_
#define GRADWEAVE_RUNTIME_CUDA_FUSED_REDUCTION_H_

#ifndef __CUDACC_RTC__
#include <memory>

#include "gradweave/runtime/cuda/fused_kernel.h"
#include "gradweave/runtime/cuda/fusion.h"
#include "gradweave/runtime/cuda/reduce.h"
#include "gradweave/runtime/cuda/reduction_pass.h"
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

// What a thread of a generated kernel does. The chain is an operation as those of reduce.h, whose state has those of
// all of its reductions: Chain::Run<1>(chain, numbers, i, state) computes element i, stores what others read of it, and
// makes its state; Chain::Store(results, pass, place, state) stores results. Chain::kForm is the pass's form.
template <typename Chain>
__device__ void RunFusedReduction(const FusedReductionParameters<typename Chain::Type>& parameters) {
  using State = typename Chain::State;
  const auto load = [&](size_t i, uint32_t) {
    State state;
    Chain::template Run<1>(parameters.chain, parameters.numbers, static_cast<uint32_t>(i), state);
    return state;
  };
  const auto store = [&](ResultPlace place, const State& state) {
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

#endif  // GRADWEAVE_RUNTIME_CUDA_FUSED_REDUCTION_H_
