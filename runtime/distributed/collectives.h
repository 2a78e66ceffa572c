// Collective operations on memory of the host.
#ifndef GRADWEAVE_RUNTIME_DISTRIBUTED_COLLECTIVES_H_
#define GRADWEAVE_RUNTIME_DISTRIBUTED_COLLECTIVES_H_

#include <cstddef>
#include <cstdint>

#include "absl/functional/function_ref.h"
#include "absl/status/status.h"
#include "absl/strings/string_view.h"
#include "gradweave/graph/dtype.h"
#include "gradweave/runtime/distributed/communicator.h"

namespace gradweave::distributed {

// The arguments of one shard's call. All shards make the call with the same dtype and sizes. Errors
// are those of Exchange.
struct Call {
  Communicator& communicator;
  absl::string_view what;             // Names the operation in errors.
  absl::FunctionRef<bool()> stopped;  // True once the call has to end.
};

// Sums over shards are added in one binary tree by shard number: first 0+1, 2+3 and so on, then
// these sums in the same way. So they have the same bits for any distribution of the shards over
// processes.

// out[i] = sum over shards of x[i] for `count` elements. `scratch` has AllReduceScratch bytes.
// `out` may be x. Each shard adds up a part of the elements and sends it to the others: it sends
// 2*(shards - 1)/shards of the bytes, as a ring does (Patarasu and Yuan, "Bandwidth optimal
// all-reduce algorithms for clusters of workstations", 2009, section 3). A few bytes go to all
// shards at once, in one exchange instead of two.
absl::Status AllReduceSum(const Call& call, DType dtype, int64_t count, const void* x, void* out, std::byte* scratch);
size_t AllReduceScratch(int shards, DType dtype, int64_t count);

// out = the `bytes` bytes of each shard, in the order of the shards.
absl::Status AllGather(const Call& call, size_t bytes, const void* x, void* out);

// x has `count` elements for each shard. out[i] = sum over shards of their element i for this
// shard. `scratch` has ReduceScatterScratch bytes.
absl::Status ReduceScatterSum(const Call& call, DType dtype, int64_t count, const void* x, void* out,
                              std::byte* scratch);
size_t ReduceScatterScratch(int shards, DType dtype, int64_t count);

// out = the `bytes` bytes x of the shard `root`. `out` may be x.
absl::Status Broadcast(const Call& call, int root, size_t bytes, const void* x, void* out);

}  // namespace gradweave::distributed

#endif  // GRADWEAVE_RUNTIME_DISTRIBUTED_COLLECTIVES_H_
