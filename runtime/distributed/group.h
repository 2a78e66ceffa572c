// Group: the shards of a data-parallel training that this process computes.
#ifndef GRADWEAVE_RUNTIME_DISTRIBUTED_GROUP_H_
#define GRADWEAVE_RUNTIME_DISTRIBUTED_GROUP_H_

#include <chrono>
#include <memory>
#include <utility>
#include <vector>

#include "absl/status/statusor.h"
#include "gradweave/runtime/distributed/communicator.h"

namespace gradweave::distributed {

struct GroupOptions {
  // The number of parts of each batch, a multiple of the number of processes. With the same number
  // of shards, results have the same bits for any number of processes. 0 means one for each
  // process.
  int shards = 0;
  // A shard that waits longer than this for the others in one operation ends with an error. It has
  // to be above 0, and longer than process 0 takes to save a checkpoint.
  std::chrono::milliseconds timeout = std::chrono::seconds(30);
  // Divides the state of optimizers, such as momenta, among the shards, which takes less memory and
  // gives the same bits: each shard updates a part of each variable, and all gather the new values.
  // Session::GetVariable returns the current value of such a variable only before the first step
  // and after Fit has gathered it: for checkpoints, after each epoch and at the end. A run that
  // fetches the value gathers it too.
  bool shard_optimizer = false;
};

// A process of a training, with its shards. Sessions and Fit take it and share its ownership. All
// processes make the same calls with the same graphs and options.
class Group {
 public:
  // The shards are numbered in the order of the processes.
  Group(int process, int processes, std::vector<std::shared_ptr<Communicator>> communicators,
        bool shard_optimizer = false)
      : process_(process),
        processes_(processes),
        communicators_(std::move(communicators)),
        shard_optimizer_(shard_optimizer) {}
  virtual ~Group() = default;
  Group(const Group&) = delete;
  Group& operator=(const Group&) = delete;

  int process() const { return process_; }  // In [0, processes).
  int processes() const { return processes_; }
  int shards() const { return communicators_[0]->shards(); }
  // The shards of this process, at least one.
  int local_shards() const { return static_cast<int>(communicators_.size()); }
  const std::shared_ptr<Communicator>& communicator(int local_shard = 0) const { return communicators_[local_shard]; }
  bool shard_optimizer() const { return shard_optimizer_; }  // GroupOptions::shard_optimizer.
  // True in the one process that prints and saves.
  bool is_main() const { return process_ == 0; }

  // Reports that this process cannot continue: when the group is destroyed, the other processes end
  // too.
  void Fail() { failed_ = true; }
  bool failed() const { return failed_; }

 private:
  const int process_, processes_;
  const std::vector<std::shared_ptr<Communicator>> communicators_;
  const bool shard_optimizer_;
  bool failed_ = false;
};

// Returns groups whose processes are threads of this one: element p is the group of "process" p.
// Each needs a thread of its own. Tests use it, and Init for one process with several shards.
// Returns InvalidArgument unless 1 <= processes and the shards are a multiple of them.
absl::StatusOr<std::vector<std::shared_ptr<Group>>> ThreadGroups(int processes, const GroupOptions& options);

// Joins the training that mpirun, or srun, has started; call it first in main. Without them the
// group is this one process. Initializes MPI; the last owner of the group ends it, and ends the
// other processes if this one failed. Returns InvalidArgument for options outside their ranges,
// Unavailable if there are several processes and the build has no MPI, and errors of MPI.
//
//   const absl::StatusOr<std::shared_ptr<gw::distributed::Group>> group = gw::distributed::Init(&argc, &argv);
absl::StatusOr<std::shared_ptr<Group>> Init(int* argc, char*** argv, const GroupOptions& options = {});

// True if the build has MPI.
bool HasMpi();

}  // namespace gradweave::distributed

#endif  // GRADWEAVE_RUNTIME_DISTRIBUTED_GROUP_H_
