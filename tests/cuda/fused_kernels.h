// The generated kernels that were compiled for the emulated device.
#ifndef GRADWEAVE_TESTS_CUDA_FUSED_KERNELS_H_
#define GRADWEAVE_TESTS_CUDA_FUSED_KERNELS_H_

#include "absl/types/span.h"
#include "gradweave/runtime/cuda/emulation/emulated_api.h"

namespace gradweave {

// Those of all chains of FusedGraphs, by print_fused_kernels.
absl::Span<const EmulatedKernel> FusedKernels();

}  // namespace gradweave

#endif  // GRADWEAVE_TESTS_CUDA_FUSED_KERNELS_H_
