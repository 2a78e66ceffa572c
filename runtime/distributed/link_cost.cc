#include "gradweave/runtime/distributed/link_cost.h"

#include <algorithm>

namespace gradweave::distributed {
namespace {

// The time of the messages is at most this share of the time of a bucket.
constexpr double kShareOfMessages = 0.1;
constexpr double kLeastBytes = 4096, kMostBytes = 1 << 26;

}  // namespace

double AllReduceSeconds(const LinkCost& cost, int shards, int64_t bytes) {
  if (shards <= 1) return 0;
  const double sent = 2.0 * (shards - 1) / shards * static_cast<double>(bytes);
  return 2 * cost.seconds_per_message + sent * cost.seconds_per_byte;
}

int64_t BucketBytes(const LinkCost& cost, int shards) {
  if (shards <= 1) return static_cast<int64_t>(kMostBytes);
  const double seconds_of_bytes = 2 * cost.seconds_per_message * (1 / kShareOfMessages - 1);
  const double bytes = seconds_of_bytes / (2.0 * (shards - 1) / shards * cost.seconds_per_byte);
  return static_cast<int64_t>(std::clamp(bytes, kLeastBytes, kMostBytes));
}

}  // namespace gradweave::distributed
