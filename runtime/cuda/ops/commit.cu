// Commits all new values of variables with few launches. Launching a copy for each would cost more
// than the copy.
#include "gradweave/runtime/cuda/ops/launch.h"

#include <algorithm>
#include <cstdint>

#include "absl/types/span.h"
#include "gradweave/graph/check.h"
#include "gradweave/runtime/cuda/ops/commit.h"
#include "gradweave/runtime/cuda/ops/device.h"

namespace gradweave::GRADWEAVE_CUDA_NAMESPACE {
namespace {

// Limited by the size of a kernel's arguments, 4 KiB.
constexpr int kCopiesOfLaunch = 128;

struct CommitTable {
  CudaCommit copies[kCopiesOfLaunch];
};

// Copies each entry with one row of blocks.
__global__ void CommitKernel(const int32_t* error, CommitTable table) {
  if (*error != 0) return;
  const CudaCommit copy = table.copies[blockIdx.y];
  const uint64_t wide = copy.bytes / sizeof(Wide);
  const uint64_t first = uint64_t{blockIdx.x} * blockDim.x + threadIdx.x;
  const uint64_t threads = uint64_t{gridDim.x} * blockDim.x;
  for (uint64_t i = first; i < wide; i += threads)
    static_cast<Wide*>(copy.to)[i] = static_cast<const Wide*>(copy.from)[i];
  for (uint64_t i = wide * sizeof(Wide) + first; i < copy.bytes; i += threads) {
    static_cast<unsigned char*>(copy.to)[i] = static_cast<const unsigned char*>(copy.from)[i];
  }
}

}  // namespace

absl::Status Commit(const CudaContext& context, absl::Span<const CudaCommit> copies) {
  for (size_t begin = 0; begin < copies.size(); begin += kCopiesOfLaunch) {
    const absl::Span<const CudaCommit> part = copies.subspan(begin, kCopiesOfLaunch);
    CommitTable table = {};
    uint64_t most = 1;
    for (size_t i = 0; i < part.size(); ++i) {
      table.copies[i] = part[i];
      most = std::max(most, part[i].bytes / sizeof(Wide));
    }
    // With many copies, few blocks for each suffice.
    constexpr unsigned kMostBlocks = 64;
    const CudaDim3 grid{std::min(BlocksFor(static_cast<int64_t>(most)), kMostBlocks),
                        static_cast<unsigned>(part.size())};
    GW_RETURN_IF_ERROR(Launch(context, "commit", CommitKernel, grid, {kBlock}, 0, context.error, table));
  }
  return absl::OkStatus();
}

}  // namespace gradweave::GRADWEAVE_CUDA_NAMESPACE
