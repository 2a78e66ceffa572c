// LinkCost: the time that the shards of a group take to exchange data.
#ifndef GRADWEAVE_RUNTIME_DISTRIBUTED_LINK_COST_H_
#define GRADWEAVE_RUNTIME_DISTRIBUTED_LINK_COST_H_

#include <cstdint>

namespace gradweave::distributed {

// The alpha-beta model (Hockney, "The communication challenge for MPP", 1994): a message of n bytes
// takes seconds_per_message + n*seconds_per_byte. A shard sends its messages of one exchange at
// once, through one link. The defaults hold for threads of one process, which copy their data.
struct LinkCost {
  double seconds_per_message = 10e-6;
  double seconds_per_byte = 0.2e-9;
};

// Seconds of an AllReduce of this many bytes, which has two exchanges and sends 2*(shards -
// 1)/shards times the bytes from each shard; see AllReduceSum in collectives.h.
double AllReduceSeconds(const LinkCost& cost, int shards, int64_t bytes);

// The bytes of an AllReduce in which the time per message is a tenth of the total: larger ones gain
// little and start later.
int64_t BucketBytes(const LinkCost& cost, int shards);

}  // namespace gradweave::distributed

#endif  // GRADWEAVE_RUNTIME_DISTRIBUTED_LINK_COST_H_
