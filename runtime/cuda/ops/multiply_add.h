// Fused multiply-add a*b + c with one rounding, for long sums of products. All other code is
// compiled without contraction.
//
// For .cu files and for the source of generated kernels, which NVRTC compiles without a standard
// library.
#ifndef GRADWEAVE_RUNTIME_CUDA_OPS_MULTIPLY_ADD_H_
#define GRADWEAVE_RUNTIME_CUDA_OPS_MULTIPLY_ADD_H_

#ifndef __CUDACC_RTC__
#include <cmath>

#include "gradweave/runtime/cuda/ops/launch.h"
#endif

namespace gradweave::GRADWEAVE_CUDA_NAMESPACE {

// Returns a*b + c, rounded once.
__device__ inline float MultiplyAdd(float a, float b, float c) {
#ifdef GRADWEAVE_EMULATE_CUDA
  return std::fma(a, b, c);
#else
  return __fmaf_rn(a, b, c);
#endif
}
__device__ inline double MultiplyAdd(double a, double b, double c) {
#ifdef GRADWEAVE_EMULATE_CUDA
  return std::fma(a, b, c);
#else
  return __fma_rn(a, b, c);
#endif
}

}  // namespace gradweave::GRADWEAVE_CUDA_NAMESPACE

#endif  // GRADWEAVE_RUNTIME_CUDA_OPS_MULTIPLY_ADD_H_
