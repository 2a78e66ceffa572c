// The CUDA C++ of elementwise chains: straight-line code for an element, in the place of a program that is interpreted,
// and the states of the reductions that a chain ends in.
#ifndef GRADWEAVE_RUNTIME_CUDA_FUSED_SOURCE_H_
#define GRADWEAVE_RUNTIME_CUDA_FUSED_SOURCE_H_

#include <string>

#include "gradweave/runtime/cuda/fusion.h"

namespace gradweave {

// The kernel's name in FusedKernelSource; it takes FusedParameters<T> of fused_kernel.h, or, where the chain ends in
// reductions, FusedReductionParameters<T> of fused_reduction.h.
inline constexpr char kGeneratedKernel[] = "GeneratedElements";

// The struct Chain that RunFused of fused_kernel.h, or RunFusedReduction of fused_reduction.h, needs, for a program
// that computes in float32 or float64. Numbers of the program are the kernel's parameters, and so are the sizes of
// reductions: programs that differ in nothing else give the same text.
std::string FusedChainSource(const FusedBatch& batch);

// All of a translation unit for NVRTC: the text of formulas.h and of the frame, the chain, and the kernel.
std::string FusedKernelSource(const FusedBatch& batch);

}  // namespace gradweave

#endif  // GRADWEAVE_RUNTIME_CUDA_FUSED_SOURCE_H_
