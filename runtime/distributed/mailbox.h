// Mailbox: messages between the shards of one process, which are in different threads.
#ifndef GRADWEAVE_RUNTIME_DISTRIBUTED_MAILBOX_H_
#define GRADWEAVE_RUNTIME_DISTRIBUTED_MAILBOX_H_

#include <chrono>
#include <condition_variable>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "absl/functional/function_ref.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/types/span.h"
#include "gradweave/runtime/distributed/communicator.h"

namespace gradweave::distributed {

// Messages of one shard to and from other processes. One thread at a time may call it.
class RemoteMessages {
 public:
  virtual ~RemoteMessages() = default;
  // Starts messages to and from shards in other processes. All data must stay in place until
  // Finished.
  virtual absl::Status Start(int64_t exchange, absl::Span<const Send> sends, absl::Span<const Receive> receives) = 0;
  // Returns true when all messages of Start have been delivered.
  virtual absl::StatusOr<bool> Finished() = 0;
  // Appends the shards whose messages are missing.
  virtual void AppendMissing(std::vector<int>& shards) const = 0;
};

// The data that the shards of one process share.
struct Mailbox {
  Mailbox(int first, int local, int shards, std::chrono::milliseconds timeout)
      : first(first), local(local), shards(shards), timeout(timeout), slots(local * local) {}

  bool Has(int shard) const { return shard >= first && shard < first + local; }

  // A message that waits for its receiver.
  struct Slot {
    bool full = false;
    int64_t exchange = 0;
    const void* data = nullptr;
    size_t bytes = 0;
  };
  Slot& slot(int from, int to) { return slots[(from - first) * local + (to - first)]; }

  const int first, local, shards;  // The process has the shards [first, first + local).
  const std::chrono::milliseconds timeout;
  std::mutex mutex;
  std::condition_variable changed;
  std::vector<Slot> slots;
  absl::Status failure;  // The first error of any of the shards.
};

// The communicator of a shard. `remote` is null if all shards are in this process. `names` says
// where each shard is: "process 1 on host a".
std::shared_ptr<Communicator> MakeCommunicator(int shard, std::shared_ptr<Mailbox> mailbox,
                                               std::unique_ptr<RemoteMessages> remote, std::vector<std::string> names);

}  // namespace gradweave::distributed

#endif  // GRADWEAVE_RUNTIME_DISTRIBUTED_MAILBOX_H_
