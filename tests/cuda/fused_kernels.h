// The generated kernels that the build compiled for the emulated device.
#ifndef GRADWEAVE_TESTS_CUDA_FUSED_KERNELS_H_
#define GRADWEAVE_TESTS_CUDA_FUSED_KERNELS_H_

#include "absl/types/span.h"
#include "gradweave/runtime/cuda/emulation/emulated_api.h"

namespace gradweave {

// Returns the kernels of all chains of AllFusedGraphs, printed by print_fused_kernels.
absl::Span<const EmulatedKernel> FusedKernels();

}  // namespace gradweave

#endif  // GRADWEAVE_TESTS_CUDA_FUSED_KERNELS_H_
