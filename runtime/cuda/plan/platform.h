// The CUDA device as the rest of the runtime sees it: the machine, and the kernels for it.
#ifndef GRADWEAVE_RUNTIME_CUDA_PLAN_PLATFORM_H_
#define GRADWEAVE_RUNTIME_CUDA_PLAN_PLATFORM_H_

#include <cstddef>
#include <memory>
#include <optional>

#include "absl/status/status.h"
#include "absl/types/span.h"
#include "gradweave/runtime/cuda/api/api.h"
#include "gradweave/runtime/cuda/api/kernel_compiler.h"
#include "gradweave/runtime/cuda/fusion/fusion.h"
#include "gradweave/runtime/cuda/ops/commit.h"
#include "gradweave/runtime/kernel/kernel.h"

namespace gradweave {

struct CudaPlatform {
  CudaApi* api = nullptr;                   // Null if this build has no CUDA support.
  const KernelRegistry* kernels = nullptr;  // Compiled for the api's kind of device.
  CommitFunction commit = nullptr;
  // Makes one kernel for a group of elementwise nodes, as MakeFusedKernel does; null if nodes run
  // one by one.
  Kernel (*make_fused)(const Graph& graph, const FusedGroup& group,
                       absl::Span<const std::shared_ptr<const LoadedKernel>> generated) = nullptr;
  KernelCompiler compiler = {};  // If its functions are null, the chains of groups are interpreted.
  // Bytes of workspace in the device's memory for the products of a stream, which gets it before
  // its first product and keeps it until it is destroyed. 0 means that products need none, and the
  // function may be null.
  size_t workspace_bytes = 0;
  void (*give_workspace)(CudaApi& api, CudaStream stream, void* memory) = nullptr;
  // The driver hands out large pieces of device memory in multiples of this many bytes.
  size_t allocation_unit = 1;
  // Bytes of device memory that plans leave to the driver, which loads code when it first runs,
  // keeps local memory and holds graphs.
  size_t reserved_bytes = 0;
};

// Returns this build's platform, or the one that a test has set.
CudaPlatform GetCudaPlatform();

// Sets the platform of sessions that are made from now on, for tests. It cannot be undone.
void SetCudaPlatformForTest(std::optional<CudaPlatform> backend);

// Returns Unavailable, with the reason and the remedy, if the backend has no device of this index.
absl::Status CheckCudaDevice(const CudaPlatform& platform, int index);

}  // namespace gradweave

#endif  // GRADWEAVE_RUNTIME_CUDA_PLAN_PLATFORM_H_
