// The CUDA C++ of elementwise chains: straight-line code for an element, in the place of a program that is interpreted.
#ifndef GRADWEAVE_RUNTIME_CUDA_FUSED_SOURCE_H_
#define GRADWEAVE_RUNTIME_CUDA_FUSED_SOURCE_H_

#include <string>

#include "gradweave/graph/dtype.h"
#include "gradweave/runtime/cuda/fusion.h"

namespace gradweave {

// The kernel's name in FusedKernelSource; it takes FusedParameters<T> of fused_kernel.h.
inline constexpr char kGeneratedKernel[] = "GeneratedElements";

// The struct Chain that RunFused of fused_kernel.h needs, for a program that computes in float32 or float64. Numbers of
// the program are the kernel's parameters, so programs that differ in nothing else give the same text.
std::string FusedChainSource(DType dtype, const FusedProgram& program);

// All of a translation unit for NVRTC: the text of formulas.h and of the frame, the chain, and the kernel.
std::string FusedKernelSource(DType dtype, const FusedProgram& program);

}  // namespace gradweave

#endif  // GRADWEAVE_RUNTIME_CUDA_FUSED_SOURCE_H_
