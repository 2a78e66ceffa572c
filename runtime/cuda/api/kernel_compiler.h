// Compilation of kernels at run time.
#ifndef GRADWEAVE_RUNTIME_CUDA_API_KERNEL_COMPILER_H_
#define GRADWEAVE_RUNTIME_CUDA_API_KERNEL_COMPILER_H_

#include <functional>
#include <string>

#include "absl/status/statusor.h"

namespace gradweave {

// A compiler of CUDA C++: NVRTC, or a stand-in on the emulated device. An architecture is the
// compute capability times ten, for example 90 for 9.0. Any thread may call both functions.
struct KernelCompiler {
  // Returns everything besides the source that an image depends on: the compiler, its version and
  // its options for the architecture. Returns Unavailable, with what to install, if there is no
  // compiler.
  std::function<absl::StatusOr<std::string>(int architecture)> describe;
  // Compiles a source to an image for CudaApi::LoadKernel. Returns Internal, with the compiler's
  // messages, if compilation fails.
  std::function<absl::StatusOr<std::string>(const std::string& source, int architecture)> compile;
};

}  // namespace gradweave

#endif  // GRADWEAVE_RUNTIME_CUDA_API_KERNEL_COMPILER_H_
