// Giving variables their new values at the end of a run, unless the run has failed.
#ifndef GRADWEAVE_RUNTIME_CUDA_OPS_COMMIT_H_
#define GRADWEAVE_RUNTIME_CUDA_OPS_COMMIT_H_

#include <cstdint>

#include "absl/status/status.h"
#include "absl/types/span.h"
#include "gradweave/runtime/cuda/api/api.h"

namespace gradweave {

// Device memory, aligned to 16; the places don't overlap.
struct CudaCommit {
  void* to;
  const void* from;
  uint64_t bytes;
};

// Enqueues the copies, which are left out where *context.error is not zero by then.
using CommitFunction = absl::Status (*)(const CudaContext& context, absl::Span<const CudaCommit> copies);

namespace cuda {
absl::Status Commit(const CudaContext& context, absl::Span<const CudaCommit> copies);
}
namespace cuda_emulated {
absl::Status Commit(const CudaContext& context, absl::Span<const CudaCommit> copies);
}

}  // namespace gradweave

#endif  // GRADWEAVE_RUNTIME_CUDA_OPS_COMMIT_H_
