// The kernels that a CUDA device runs for parts of a graph: fused groups of nodes, and nodes one by
// one.
#ifndef GRADWEAVE_RUNTIME_CUDA_PLAN_CUDA_STEPS_H_
#define GRADWEAVE_RUNTIME_CUDA_PLAN_CUDA_STEPS_H_

#include <vector>

#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "gradweave/runtime/cuda/plan/cuda_device.h"

namespace gradweave {

// The same as BackendDevice::MakeSteps. The generated kernels of all parts are compiled in
// parallel.
absl::StatusOr<std::vector<PartSteps>> MakeCudaSteps(CudaDevice& device, const Graph& graph,
                                                     absl::Span<const DevicePart* const> parts,
                                                     const CompileOptions& options);

}  // namespace gradweave

#endif  // GRADWEAVE_RUNTIME_CUDA_PLAN_CUDA_STEPS_H_
