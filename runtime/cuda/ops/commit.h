// Commit of the variables' new values at the end of a run, unless the run has failed.
#ifndef GRADWEAVE_RUNTIME_CUDA_OPS_COMMIT_H_
#define GRADWEAVE_RUNTIME_CUDA_OPS_COMMIT_H_

#include <cstdint>

#include "absl/status/status.h"
#include "absl/types/span.h"
#include "gradweave/runtime/cuda/api/api.h"

namespace gradweave {

// One copy in device memory. Addresses are aligned to 16 bytes, and the areas of all copies are
// disjoint.
struct CudaCommit {
  void* to;
  const void* from;
  uint64_t bytes;
};

// Enqueues the copies. They do nothing if *context.error is not zero when they run.
using CommitFunction = absl::Status (*)(const CudaContext& context, absl::Span<const CudaCommit> copies);

namespace cuda {
absl::Status Commit(const CudaContext& context, absl::Span<const CudaCommit> copies);
}
namespace cuda_emulated {
absl::Status Commit(const CudaContext& context, absl::Span<const CudaCommit> copies);
}

}  // namespace gradweave

#endif  // GRADWEAVE_RUNTIME_CUDA_OPS_COMMIT_H_
