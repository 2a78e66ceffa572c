// Kernels of the CUDA device. nvcc compiles them for GPUs, and the C++ compiler for the emulated
// device of tests.
#ifndef GRADWEAVE_RUNTIME_CUDA_OPS_KERNELS_H_
#define GRADWEAVE_RUNTIME_CUDA_OPS_KERNELS_H_

#include "absl/strings/string_view.h"
#include "gradweave/runtime/kernel/kernel.h"

namespace gradweave {

// Kernels for GPUs. The library that defines them exists only in builds with a CUDA toolkit.
namespace cuda {
const KernelRegistry& CudaKernels();

// Adds the CUDA kernel of an op, or replaces it, for all sessions of the program. Call it before
// the first session is created, because sessions read the kernels without a lock. AddCpuKernel of
// runtime/cpu/add_kernel.h adds the CPU kernel.
void AddCudaKernel(absl::string_view op, KernelFactory factory);
}  // namespace cuda

// The same kernels compiled for EmulatedCudaApi.
namespace cuda_emulated {
const KernelRegistry& CudaKernels();
void AddCudaKernel(absl::string_view op, KernelFactory factory);
}  // namespace cuda_emulated

}  // namespace gradweave

#endif  // GRADWEAVE_RUNTIME_CUDA_OPS_KERNELS_H_
