// Communicator: exchanges data between the shards of a data-parallel run.
#ifndef GRADWEAVE_RUNTIME_DISTRIBUTED_COMMUNICATOR_H_
#define GRADWEAVE_RUNTIME_DISTRIBUTED_COMMUNICATOR_H_

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <string>

#include "absl/functional/function_ref.h"
#include "absl/status/status.h"
#include "absl/strings/string_view.h"
#include "absl/types/span.h"
#include "gradweave/runtime/distributed/communication_thread.h"
#include "gradweave/runtime/distributed/link_cost.h"

namespace gradweave::distributed {

// Data for another shard, and data from another shard. There may be no bytes.
struct Send {
  int to;
  const void* data;
  size_t bytes;
};
struct Receive {
  int from;
  void* data;
  size_t bytes;
};

// The member of a group for one of its shards. A group is one training on several shards, which may
// be in several processes. The shards make the same calls in the same order, each from one thread
// at a time: call number n of one shard meets call number n of the others. All collective
// operations use Exchange, so a transport implements this one function.
class Communicator {
 public:
  virtual ~Communicator() = default;
  Communicator(const Communicator&) = delete;
  Communicator& operator=(const Communicator&) = delete;

  int shard() const { return shard_; }    // In [0, shards).
  int shards() const { return shards_; }  // At least 1.

  // Sends and receives. Returns when all data have arrived and the sent data may change. There is
  // at most one message from one shard to another. `what` names the operation in errors. Returns
  // DeadlineExceeded with the missing shards if the others do not make the call within the group's
  // timeout, Cancelled if `stopped` returns true, Aborted if another shard of the process failed,
  // Internal if shards disagree about sizes, and errors of the transport. After an error every
  // further call returns it: the shards are no longer at the same call.
  absl::Status Exchange(absl::string_view what, absl::Span<const Send> sends, absl::Span<const Receive> receives,
                        absl::FunctionRef<bool()> stopped) {
    if (!failure_.ok()) return failure_;
    for (const Send& send : sends) bytes_sent_ += static_cast<int64_t>(send.bytes);
    ++exchanges_;
    failure_ = Transfer(what, sends, receives, stopped);
    return failure_;
  }

  // Reports that this shard cannot continue: shards of this process that wait for it end with
  // Aborted.
  virtual void Fail(const absl::Status& error) = 0;

  // Returns a name such as "shard 2 of 4, process 1 on host a".
  virtual std::string Name(int shard) const = 0;

  // The thread that makes calls beside the computation, in the order in which they are started.
  // Other calls of Exchange wait for all of them first.
  CommunicationThread& thread() { return thread_; }

  // The cost of messages between shards, the same in all of them.
  const LinkCost& link() const { return link_; }
  void set_link(const LinkCost& link) { link_ = link; }

  // Bytes that were sent, and calls of Exchange, so far.
  int64_t bytes_sent() const { return bytes_sent_; }
  int64_t exchanges() const { return exchanges_; }
  // The error of a call, which all further calls return.
  const absl::Status& failure() const { return failure_; }

 protected:
  Communicator(int shard, int shards) : shard_(shard), shards_(shards) {}
  virtual absl::Status Transfer(absl::string_view what, absl::Span<const Send> sends,
                                absl::Span<const Receive> receives, absl::FunctionRef<bool()> stopped) = 0;

 private:
  const int shard_, shards_;
  std::atomic<int64_t> bytes_sent_{0}, exchanges_{0};
  absl::Status failure_;
  LinkCost link_;
  CommunicationThread thread_;
};

}  // namespace gradweave::distributed

#endif  // GRADWEAVE_RUNTIME_DISTRIBUTED_COMMUNICATOR_H_
