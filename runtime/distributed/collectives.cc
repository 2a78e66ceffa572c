#include "gradweave/runtime/distributed/collectives.h"

#include <algorithm>
#include <cstring>
#include <type_traits>

#include "absl/container/inlined_vector.h"
#include "gradweave/graph/check.h"

namespace gradweave::distributed {
namespace {

// Up to this many bytes go to all shards whole. A message of 4 KiB takes about as long as an empty
// one.
constexpr size_t kWholeBytes = 4096;

using Sends = absl::InlinedVector<Send, 16>;
using Receives = absl::InlinedVector<Receive, 16>;

template <typename T>
T Plus(T a, T b) {
  // Sums of integers wrap around, which is defined only for unsigned types.
  if constexpr (std::is_integral_v<T>) return static_cast<T>(static_cast<uint64_t>(a) + static_cast<uint64_t>(b));
  return a + b;
}

// Adds pairs of neighbours, then pairs of these sums and so on, into the first piece.
template <typename T>
void AddTree(T* pieces, int number, int64_t count) {
  for (int step = 1; step < number; step *= 2) {
    for (int i = 0; i + step < number; i += 2 * step) {
      T* const to = pieces + i * count;
      const T* const from = pieces + (i + step) * count;
      for (int64_t k = 0; k < count; ++k) to[k] = Plus(to[k], from[k]);
    }
  }
}

// Adds up `number` pieces of `count` elements each, which are contiguous, into the first one.
void AddPieces(DType dtype, std::byte* pieces, int number, int64_t count) {
  auto add = [&](auto zero) { AddTree(reinterpret_cast<decltype(zero)*>(pieces), number, count); };
  switch (dtype) {
    case kFloat32:
      return add(float{});
    case kFloat64:
      return add(double{});
    case kInt32:
      return add(int32_t{});
    case kInt64:
      return add(int64_t{});
    case kUint8:
      return add(uint8_t{});
    default:
      break;
  }
  GW_CHECK(false, "sums of ", DTypeName(dtype));
}

void CopyBytes(void* to, const void* from, size_t bytes) {
  if (bytes > 0 && to != from) std::memcpy(to, from, bytes);
}

// The elements that a shard adds up.
struct Part {
  int64_t begin, count;
};
Part PartOf(int64_t count, int shard, int shards) {
  const int64_t begin = count / shards * shard + std::min<int64_t>(shard, count % shards);
  return {begin, count / shards + (shard < count % shards ? 1 : 0)};
}

bool SendsWhole(int shards, size_t bytes) { return shards <= 2 || bytes <= kWholeBytes; }

}  // namespace

size_t AllReduceScratch(int shards, DType dtype, int64_t count) {
  if (shards == 1) return 0;
  const int64_t part = SendsWhole(shards, count * DTypeSize(dtype)) ? count : PartOf(count, 0, shards).count;
  return static_cast<size_t>(part) * shards * DTypeSize(dtype);
}

absl::Status AllReduceSum(const Call& call, DType dtype, int64_t count, const void* x, void* out, std::byte* scratch) {
  const int shards = call.communicator.shards(), self = call.communicator.shard();
  const size_t size = DTypeSize(dtype), bytes = count * size;
  if (shards == 1) {
    CopyBytes(out, x, bytes);
    return absl::OkStatus();
  }
  const auto* const from = static_cast<const std::byte*>(x);
  auto* const to = static_cast<std::byte*>(out);
  Sends sends;
  Receives receives;
  if (SendsWhole(shards, bytes)) {
    GW_RETURN_IF_ERROR(AllGather(call, bytes, x, scratch));
    AddPieces(dtype, scratch, shards, count);
    CopyBytes(out, scratch, bytes);
    return absl::OkStatus();
  }
  const Part own = PartOf(count, self, shards);
  const size_t own_bytes = own.count * size;
  for (int shard = 0; shard < shards; ++shard) {
    if (shard == self) continue;
    const Part part = PartOf(count, shard, shards);
    sends.push_back({shard, from + part.begin * size, part.count * size});
    receives.push_back({shard, scratch + shard * own_bytes, own_bytes});
  }
  CopyBytes(scratch + self * own_bytes, from + own.begin * size, own_bytes);
  GW_RETURN_IF_ERROR(call.communicator.Exchange(call.what, sends, receives, call.stopped));
  AddPieces(dtype, scratch, shards, own.count);
  CopyBytes(to + own.begin * size, scratch, own_bytes);
  sends.clear();
  receives.clear();
  for (int shard = 0; shard < shards; ++shard) {
    if (shard == self) continue;
    const Part part = PartOf(count, shard, shards);
    sends.push_back({shard, to + own.begin * size, own_bytes});
    receives.push_back({shard, to + part.begin * size, part.count * size});
  }
  return call.communicator.Exchange(call.what, sends, receives, call.stopped);
}

absl::Status AllGather(const Call& call, size_t bytes, const void* x, void* out) {
  const int shards = call.communicator.shards(), self = call.communicator.shard();
  auto* const to = static_cast<std::byte*>(out);
  Sends sends;
  Receives receives;
  for (int shard = 0; shard < shards; ++shard) {
    if (shard == self) continue;
    sends.push_back({shard, x, bytes});
    receives.push_back({shard, to + shard * bytes, bytes});
  }
  CopyBytes(to + self * bytes, x, bytes);
  return call.communicator.Exchange(call.what, sends, receives, call.stopped);
}

size_t ReduceScatterScratch(int shards, DType dtype, int64_t count) {
  return static_cast<size_t>(count) * shards * DTypeSize(dtype);
}

absl::Status ReduceScatterSum(const Call& call, DType dtype, int64_t count, const void* x, void* out,
                              std::byte* scratch) {
  const int shards = call.communicator.shards(), self = call.communicator.shard();
  const size_t bytes = count * DTypeSize(dtype);
  const auto* const from = static_cast<const std::byte*>(x);
  Sends sends;
  Receives receives;
  for (int shard = 0; shard < shards; ++shard) {
    if (shard == self) continue;
    sends.push_back({shard, from + shard * bytes, bytes});
    receives.push_back({shard, scratch + shard * bytes, bytes});
  }
  CopyBytes(scratch + self * bytes, from + self * bytes, bytes);
  GW_RETURN_IF_ERROR(call.communicator.Exchange(call.what, sends, receives, call.stopped));
  AddPieces(dtype, scratch, shards, count);
  CopyBytes(out, scratch, bytes);
  return absl::OkStatus();
}

absl::Status Broadcast(const Call& call, int root, size_t bytes, const void* x, void* out) {
  const int shards = call.communicator.shards(), self = call.communicator.shard();
  Sends sends;
  Receives receives;
  if (self == root) {
    for (int shard = 0; shard < shards; ++shard) {
      if (shard != root) sends.push_back({shard, x, bytes});
    }
    CopyBytes(out, x, bytes);
  } else {
    receives.push_back({root, out, bytes});
  }
  return call.communicator.Exchange(call.what, sends, receives, call.stopped);
}

}  // namespace gradweave::distributed
