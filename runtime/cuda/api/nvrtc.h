// NVRTC, NVIDIA's compiler as a library, which is opened when the first kernel is to be compiled.
#ifndef GRADWEAVE_RUNTIME_CUDA_API_NVRTC_H_
#define GRADWEAVE_RUNTIME_CUDA_API_NVRTC_H_

#include <string>
#include <vector>

#include "absl/types/span.h"
#include "gradweave/runtime/cuda/api/kernel_compiler.h"

namespace gradweave {

// Machine code (a cubin) for an architecture that the library knows, PTX of its newest one for those that are newer.
// Arithmetic is that of the build's kernels: IEEE, no fused multiply-adds.
KernelCompiler NvrtcCompiler();

// The same with the first of these libraries that opens, for tests.
KernelCompiler NvrtcCompilerOf(absl::Span<const std::string> libraries);

}  // namespace gradweave

#endif  // GRADWEAVE_RUNTIME_CUDA_API_NVRTC_H_
