// NVRTC, NVIDIA's compiler library. The first compilation opens it.
#ifndef GRADWEAVE_RUNTIME_CUDA_API_NVRTC_H_
#define GRADWEAVE_RUNTIME_CUDA_API_NVRTC_H_

#include <string>
#include <vector>

#include "absl/types/span.h"
#include "gradweave/runtime/cuda/api/kernel_compiler.h"

namespace gradweave {

// Returns a compiler that makes machine code (a cubin) for an architecture that the library knows,
// and PTX of its newest architecture for newer devices. Arithmetic matches the build's own kernels:
// IEEE, without fused multiply-adds.
KernelCompiler NvrtcCompiler();

// Uses the first of these libraries that opens. For tests.
KernelCompiler NvrtcCompilerOf(absl::Span<const std::string> libraries);

}  // namespace gradweave

#endif  // GRADWEAVE_RUNTIME_CUDA_API_NVRTC_H_
