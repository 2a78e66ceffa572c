// Runs a function in a thread for each shard of a group.
#ifndef GRADWEAVE_TESTS_DISTRIBUTED_THREAD_GROUP_H_
#define GRADWEAVE_TESTS_DISTRIBUTED_THREAD_GROUP_H_

#include <functional>
#include <memory>
#include <thread>
#include <vector>

#include "gradweave/runtime/distributed/group.h"

namespace gradweave::distributed {

// Calls run(shard, its communicator) in a thread for each of the group's local shards, and waits
// for them.
inline void ForEachShard(const Group& group,
                         const std::function<void(int shard, const std::shared_ptr<Communicator>&)>& run) {
  std::vector<std::thread> threads;
  for (int i = 0; i < group.local_shards(); ++i) {
    const std::shared_ptr<Communicator>& communicator = group.communicator(i);
    threads.emplace_back([&run, &communicator] { run(communicator->shard(), communicator); });
  }
  for (std::thread& thread : threads) thread.join();
}

}  // namespace gradweave::distributed

#endif  // GRADWEAVE_TESTS_DISTRIBUTED_THREAD_GROUP_H_
