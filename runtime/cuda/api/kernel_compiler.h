// Compiling kernels at run time.
#ifndef GRADWEAVE_RUNTIME_CUDA_API_KERNEL_COMPILER_H_
#define GRADWEAVE_RUNTIME_CUDA_API_KERNEL_COMPILER_H_

#include <functional>
#include <string>

#include "absl/status/statusor.h"

namespace gradweave {

// Whether a CUDA device runs chains of elementwise ops, and convolutions with what stands behind them, as kernels that are
// generated for them: where such a kernel can be compiled, nowhere, or always, with an error where one cannot be compiled
// (to compare). Chains that have none are interpreted by one kernel for all of them. Results are the same bits, but for
// convolutions of more than 32 channels, which are products of matrices where no kernel is generated.
enum class GeneratedKernels { kAuto, kNever, kAlways };

// A compiler of CUDA C++: NVRTC, or what stands for it on the emulated device. Architectures are compute capabilities
// times ten, 90 for 9.0. Both functions may be called from several threads.
struct KernelCompiler {
  // Everything that an image depends on beside its source: the compiler with its version, and its options for the
  // architecture. Unavailable, with what to install, where there is no compiler.
  std::function<absl::StatusOr<std::string>(int architecture)> describe;
  // What CudaApi::LoadKernel takes. Internal, with the compiler's messages, where the source is not compiled.
  std::function<absl::StatusOr<std::string>(const std::string& source, int architecture)> compile;
};

}  // namespace gradweave

#endif  // GRADWEAVE_RUNTIME_CUDA_API_KERNEL_COMPILER_H_
