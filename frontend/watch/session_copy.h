// A session beside the one that trains, so that watching changes neither its values nor its random
// numbers.
#ifndef GRADWEAVE_FRONTEND_WATCH_SESSION_COPY_H_
#define GRADWEAVE_FRONTEND_WATCH_SESSION_COPY_H_

#include <cstdint>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "gradweave/frontend/batches.h"
#include "gradweave/graph/graph.h"
#include "gradweave/runtime/session/session.h"

namespace gradweave {

// Returns a session without a group on the device of `session`, with its options, the values of its
// variables and the number of its next run. `graph` is the session's graph, to which nodes may have
// been added. Returns the errors of Session::Create and GetVariable.
absl::StatusOr<Session> CopySession(const Session& session, const Graph& graph);

// Gives the variables of the copy the values that they have in `session` now.
absl::Status CopyVariables(const Session& session, Session& copy);

// Returns the value of a graph that has the same nodes first, such as a copy, or an invalid value
// for a value that is invalid or of no such graph.
Value ValueIn(Graph& graph, const Value& value);

// The options of a loader of samples in their order, in the dtypes of the graph's inputs of their
// names.
data::BatchOptions InOrder(const Graph& graph, const data::Dataset& samples, int64_t batch_size);
// Returns the feeds of a batch: the arrays that have inputs of their names.
std::vector<Feed> FeedsOf(Graph& graph, const data::Dataset& samples, const data::Batch& batch);

}  // namespace gradweave

#endif  // GRADWEAVE_FRONTEND_WATCH_SESSION_COPY_H_
