// Kernels of the CUDA device. nvcc compiles them for GPUs, and the C++ compiler for the emulated
// device of tests.
#ifndef GRADWEAVE_RUNTIME_CUDA_OPS_KERNELS_H_
#define GRADWEAVE_RUNTIME_CUDA_OPS_KERNELS_H_

#include "gradweave/runtime/kernel/kernel.h"

namespace gradweave {

// Kernels for GPUs. The library that defines them exists only in builds with a CUDA toolkit.
namespace cuda {
const KernelRegistry& CudaKernels();
}

// The same kernels compiled for EmulatedCudaApi.
namespace cuda_emulated {
const KernelRegistry& CudaKernels();
}

}  // namespace gradweave

#endif  // GRADWEAVE_RUNTIME_CUDA_OPS_KERNELS_H_
