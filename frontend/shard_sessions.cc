#include "gradweave/frontend/shard_sessions.h"

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <memory>
#include <set>
#include <string>
#include <system_error>
#include <thread>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "gradweave/graph/passes/shard_state.h"
#include "gradweave/graph/status_macros.h"
#include "gradweave/runtime/distributed/collectives.h"
#include "gradweave/runtime/distributed/group.h"

namespace gradweave {
namespace {

constexpr auto kNeverStopped = [] { return false; };

// FNV-1a (Fowler, Noll and Vo), 64 bits.
uint64_t HashOf(absl::string_view text) {
  uint64_t hash = 0xcbf29ce484222325;
  for (const char byte : text) hash = (hash ^ static_cast<unsigned char>(byte)) * 0x100000001b3;
  return hash;
}

// The variables of which each shard has a part.
std::set<std::string> ShardedVariables(const Session& session) {
  const std::shared_ptr<distributed::Group>& group = session.options().group;
  if (group == nullptr || !group->shard_optimizer()) return {};
  return VariablesToShard(session.graph(), group->shards());
}

bool IsConsequence(const absl::Status& status) { return status.code() == absl::StatusCode::kAborted; }

}  // namespace

distributed::Communicator* CommunicatorOf(const Session& session) {
  const SessionOptions& options = session.options();
  return options.group == nullptr ? nullptr : options.group->communicator(options.local_shard).get();
}

bool IsMainShard(const Session& session) {
  const distributed::Communicator* const communicator = CommunicatorOf(session);
  return communicator == nullptr || communicator->shard() == 0;
}

absl::Status RunOnShards(const char* caller, Session& session, absl::FunctionRef<absl::Status(Session&)> run) {
  const std::shared_ptr<distributed::Group> group = session.options().group;
  if (group == nullptr) return run(session);
  const int shards = group->local_shards();
  if (session.options().local_shard != 0) {
    return absl::InvalidArgumentError(absl::StrCat(caller, ": the session is that of local shard ",
                                                   session.options().local_shard,
                                                   "; give it that of local shard 0, and it makes the others"));
  }
  std::vector<Session> others;
  for (int shard = 1; shard < shards; ++shard) {
    SessionOptions options = session.options();
    options.local_shard = shard;
    options.threads = std::max(1, session.threads() / shards);
    GW_ASSIGN_OR_RETURN(Session other, Session::Create(session.graph(), std::move(options)));
    others.push_back(std::move(other));
  }
  std::vector<absl::Status> statuses(shards);
  auto run_shard = [&](int shard) {
    statuses[shard] = run(shard == 0 ? session : others[shard - 1]);
    // The others may be waiting for this one.
    if (!statuses[shard].ok()) group->communicator(shard)->Fail(statuses[shard]);
  };
  std::vector<std::thread> threads;
  for (int shard = 1; shard < shards; ++shard) {
    try {
      threads.emplace_back(run_shard, shard);
    } catch (const std::system_error& error) {
      statuses[shard] = absl::ResourceExhaustedError(absl::StrCat(caller, ": no thread for a shard: ", error.what()));
      group->communicator(shard)->Fail(statuses[shard]);
    }
  }
  run_shard(0);
  for (std::thread& thread : threads) thread.join();
  absl::Status first;
  for (const absl::Status& status : statuses) {
    if (first.ok() || (IsConsequence(first) && !status.ok() && !IsConsequence(status))) first = status;
  }
  if (!first.ok()) group->Fail();
  return first;
}

absl::Status ShareState(Session& session) {
  distributed::Communicator* const communicator = CommunicatorOf(session);
  if (communicator == nullptr) return absl::OkStatus();
  int64_t run_number = static_cast<int64_t>(session.run_number());
  GW_RETURN_IF_ERROR(ShareNumbers(session, {&run_number, 1}));
  session.SetRunNumber(static_cast<uint64_t>(run_number));
  const std::set<std::string> sharded = ShardedVariables(session);
  for (const std::string& name : session.VariableNames()) {
    absl::StatusOr<Tensor> known = session.GetVariable(name);
    if (sharded.count(name) > 0) {
      int64_t is_known = known.ok();
      GW_RETURN_IF_ERROR(ShareNumbers(session, {&is_known, 1}));
      if (is_known == 0) continue;
      if (!known.ok()) {
        const TensorType& type = session.graph().node(session.graph().FindNamed(name)).outputs[0];
        known = Tensor::Create(type.dtype, type.shape.sizes());
      }
    }
    GW_ASSIGN_OR_RETURN(Tensor value, std::move(known));
    const std::string what = absl::StrCat("sending the variable '", name, "'");
    GW_RETURN_IF_ERROR(distributed::Broadcast({*communicator, what, kNeverStopped}, 0, value.byte_size(),
                                              value.raw_data(), value.mutable_raw_data()));
    if (communicator->shard() != 0) GW_RETURN_IF_ERROR(session.SetVariable(name, value));
  }
  return absl::OkStatus();
}

absl::Status GatherState(Session& session) {
  const std::set<std::string> sharded = ShardedVariables(session);
  if (sharded.empty()) return absl::OkStatus();
  const Graph& graph = session.graph();
  std::vector<Fetch> fetches;
  // Handles to read with; nothing changes the graph.
  for (const std::string& name : sharded) {
    fetches.emplace_back(Value(const_cast<Graph*>(&graph), {graph.FindNamed(name), 0}));
  }
  const uint64_t run_number = session.run_number();
  GW_ASSIGN_OR_RETURN(const std::vector<Tensor> values, session.Run({}, fetches));
  session.SetRunNumber(run_number);
  if (session.options().local_shard != 0) return absl::OkStatus();
  size_t i = 0;
  for (const std::string& name : sharded) GW_RETURN_IF_ERROR(session.SetVariable(name, values[i++]));
  return absl::OkStatus();
}

absl::Status ShareNumbers(Session& session, absl::Span<int64_t> numbers) {
  distributed::Communicator* const communicator = CommunicatorOf(session);
  if (communicator == nullptr) return absl::OkStatus();
  return distributed::Broadcast({*communicator, "sending the state of the training", kNeverStopped}, 0,
                                numbers.size() * sizeof(int64_t), numbers.data(), numbers.data());
}

absl::Status CheckSameLines(const char* caller, const Session& session, const std::string& lines) {
  distributed::Communicator* const communicator = CommunicatorOf(session);
  if (communicator == nullptr) return absl::OkStatus();
  const int shards = communicator->shards();
  const distributed::Call call{*communicator, "comparing graphs and options", kNeverStopped};
  const uint64_t own[2] = {HashOf(lines), lines.size()};
  std::vector<uint64_t> all(2 * shards);
  GW_RETURN_IF_ERROR(distributed::AllGather(call, sizeof own, own, all.data()));
  int different = 0;
  while (different < shards && all[2 * different] == all[0] && all[2 * different + 1] == all[1]) ++different;
  if (different == shards) return absl::OkStatus();
  // All shards come here, and see the lines of both.
  std::string first = lines, second = lines;
  first.resize(all[1]);
  second.resize(all[2 * different + 1]);
  GW_RETURN_IF_ERROR(distributed::Broadcast(call, 0, first.size(), first.data(), first.data()));
  GW_RETURN_IF_ERROR(distributed::Broadcast(call, different, second.size(), second.data(), second.data()));
  const std::vector<absl::string_view> a = absl::StrSplit(first, '\n'), b = absl::StrSplit(second, '\n');
  size_t line = 0;
  while (line + 1 < a.size() && line + 1 < b.size() && a[line] == b[line]) ++line;
  return absl::FailedPreconditionError(
      absl::StrCat(caller, ": the processes do not have the same graph and options: ", communicator->Name(0), " has '",
                   a[line], "', and ", communicator->Name(different), " has '", b[line], "'"));
}

}  // namespace gradweave
