// The kernels of the CUDA device: as nvcc compiled them for GPUs, and for the emulated device of tests.
#ifndef GRADWEAVE_RUNTIME_CUDA_OPS_KERNELS_H_
#define GRADWEAVE_RUNTIME_CUDA_OPS_KERNELS_H_

#include "gradweave/runtime/kernel/kernel.h"

namespace gradweave {

// By the library //runtime/cuda:kernels, which is there with a CUDA toolkit alone.
namespace cuda {
const KernelRegistry& CudaKernels();
}

// By the library //runtime/cuda:kernels_emulated; for EmulatedCudaApi.
namespace cuda_emulated {
const KernelRegistry& CudaKernels();
}

}  // namespace gradweave

#endif  // GRADWEAVE_RUNTIME_CUDA_OPS_KERNELS_H_
