// The sessions of a group's shards: how Fit and Evaluate run in a group.
#ifndef GRADWEAVE_FRONTEND_SHARD_SESSIONS_H_
#define GRADWEAVE_FRONTEND_SHARD_SESSIONS_H_

#include <string>

#include "absl/functional/function_ref.h"
#include "absl/status/status.h"
#include "absl/types/span.h"
#include "gradweave/runtime/distributed/communicator.h"
#include "gradweave/runtime/session/session.h"

namespace gradweave {

// The communicator of the session's shard; null if it has no group.
distributed::Communicator* CommunicatorOf(const Session& session);
// True if the session has no group, or belongs to shard 0, which prints and saves.
bool IsMainShard(const Session& session);

// Calls run(session) for the session and, in threads of their own, for sessions of the same graph
// for the other shards of its group in this process. A session without a group runs alone. If one
// fails the others end too, and the group has failed. Returns the first error. `caller` names the
// call in errors.
absl::Status RunOnShards(const char* caller, Session& session, absl::FunctionRef<absl::Status(Session&)> run);

// The functions below are for all shards of a group, which call them together. They do nothing
// without a group.

// Gives the variables and the run number of shard 0's session to all others. Variables that all
// shards have parts of stay as they are if shard 0 does not know their whole values.
absl::Status ShareState(Session& session);

// Lets Session::GetVariable return the variables that all shards have parts of
// (GroupOptions::shard_optimizer), in the session of each process that Fit was given, until the
// next step.
absl::Status GatherState(Session& session);

// Gives the numbers of shard 0 to all others.
absl::Status ShareNumbers(Session& session, absl::Span<int64_t> numbers);

// Returns FailedPrecondition in all shards, with the first line that differs, unless all have the
// same lines.
absl::Status CheckSameLines(const char* caller, const Session& session, const std::string& lines);

}  // namespace gradweave

#endif  // GRADWEAVE_FRONTEND_SHARD_SESSIONS_H_
