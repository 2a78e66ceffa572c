// The state of Session and PreparedRun. Only the session's sources include this header.
#ifndef GRADWEAVE_RUNTIME_SESSION_SESSION_STATE_H_
#define GRADWEAVE_RUNTIME_SESSION_SESSION_STATE_H_

#include <list>
#include <memory>
#include <mutex>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/container/flat_hash_set.h"
#include "gradweave/graph/graph.h"
#include "gradweave/runtime/kernel/forks.h"
#include "gradweave/runtime/kernel/run_options.h"
#include "gradweave/runtime/kernel/thread_pool.h"
#include "gradweave/runtime/plan/backend.h"
#include "gradweave/runtime/plan/compiled_graph.h"
#include "gradweave/runtime/plan/lower.h"
#include "gradweave/runtime/plan/variables.h"
#include "gradweave/runtime/session/session.h"

namespace gradweave {

// The key of a plan: the feeds with their sizes, and the fetches.
struct PlanKey {
  std::vector<std::pair<Port, std::vector<int64_t>>> feeds;  // Sorted by port.
  std::vector<Port> fetches;
  std::vector<Port> updates;

  friend bool operator==(const PlanKey& a, const PlanKey& b) {
    return a.feeds == b.feeds && a.fetches == b.fetches && a.updates == b.updates;
  }
  template <typename H>
  friend H AbslHashValue(H h, const PlanKey& key) {
    return H::combine(std::move(h), key.feeds, key.fetches, key.updates);
  }
};

// Runs nodes of constants on the CPU.
Evaluator CpuEvaluator();

// Checks a feed against its input, and takes the sizes of the symbols from it.
absl::Status BindSizes(const Node& input, const Tensor& tensor, DimBindings& bindings);
// Checks the sizes that are not single symbols, once all symbols have sizes.
absl::Status CheckSizes(const Node& input, const Tensor& tensor, const DimBindings& bindings);

struct PreparedRun::State {
  explicit State(std::shared_ptr<Session::State> of) : session(std::move(of)) {}

  const std::shared_ptr<Session::State> session;
  std::shared_ptr<CompiledGraph> executable;
  std::vector<Feed> feeds;
  std::vector<const void*> addresses;
  std::vector<Tensor> results;
  absl::Status failure;                  // The first error of started runs that no call has returned.
  bool reads_tables = false;             // The only feed, if any, is the rows' numbers.
  std::vector<std::string> sums = {};    // The variables that hold running sums.
  std::vector<std::string> tables = {};  // The variables that hold its tables.
};

struct Session::State {
  const uint64_t forks = ForksSoFar();
  Graph graph;
  const Graph* original = nullptr;  // The graph that Create copied. It may be gone; only its address is used.
  uint64_t seed = 0;
  CompileOptions compile_options;
  SessionOptions options;  // Without the variables.
  int64_t memory_budget = 0;
  Device device;
  std::unique_ptr<ThreadPool> pool;
  std::vector<std::shared_ptr<BackendDevice>> devices;  // The CPU first, then the other device if there is one.
  std::shared_ptr<Variables> variables;
  std::shared_ptr<SessionMemory> memory;
  absl::flat_hash_set<std::string> told;    // Messages printed so far about ops that run on the CPU.
  std::vector<std::string> variable_names;  // In the graph's order.
  // In a group that shards the state of optimizers, the variables of which `variables` has only a
  // part, and their whole values as long as no run changes them.
  std::set<std::string> sharded;
  absl::flat_hash_map<std::string, Tensor> wholes;

  mutable std::mutex mutex;  // Held by all code that runs plans or accesses variables.
  uint64_t next_run = 1;
  PreparedRun::State* started = nullptr;              // The prepared run whose started runs may be in progress.
  absl::flat_hash_map<std::string, int> table_users;  // The prepared runs that read a table, by its variable.

  // Plans, the most recently used first.
  using Plan = std::pair<PlanKey, std::shared_ptr<CompiledGraph>>;
  std::list<Plan> plans;
  absl::flat_hash_map<PlanKey, std::list<Plan>::iterator> plan_of;

  // True in a child that fork() has made after the session. A thread that the child lacks may hold
  // the mutex, and the state may be inconsistent.
  bool is_copy() const { return forks != ForksSoFar(); }
  absl::Status CheckProcess(absl::string_view call) const;
  absl::Status RunPlan(CompiledGraph& executable, absl::Span<const void* const> feeds, absl::Span<Tensor> results,
                       const RunOptions& options, Profiler* profiler = nullptr);
  absl::Status StartPlan(CompiledGraph& executable, absl::Span<const void* const> feeds, absl::Span<Tensor> results,
                         const RunOptions& options);
  absl::StatusOr<Port> PortOf(const Value& value, absl::string_view role) const;
  absl::StatusOr<PlanKey> MakeKey(const std::vector<Feed>& feeds, const std::vector<Fetch>& fetches) const;
  Graph GraphOf(const PlanKey& key) const;
  absl::StatusOr<std::shared_ptr<CompiledGraph>> CompileGraph(const Graph& wanted, const DimBindings& bindings,
                                                              const absl::flat_hash_set<std::string>& fed);
  absl::Status ReleaseIdlePlans();
  std::string KeepTable(const Node& input, const Tensor& table, PreparedRun::State& run);
  void ForgetTables(const PreparedRun::State& run);
  absl::StatusOr<Graph> KeepSums(const Graph& wanted, const std::vector<Fetch>& fetches, PreparedRun::State& run);
  absl::Status ClearSums(const PreparedRun::State& run);
  absl::Status SetSums(const PreparedRun::State& run, absl::Span<const Tensor> sums);
  void ForgetSums(const PreparedRun::State& run);
  void Settle();
  absl::StatusOr<std::shared_ptr<CompiledGraph>> Compile(const Graph& wanted, const std::vector<Feed>& feeds);
  absl::StatusOr<std::shared_ptr<CompiledGraph>> FindOrCompile(const std::vector<Feed>& feeds,
                                                               const std::vector<Fetch>& fetches);
  absl::StatusOr<std::vector<const void*>> FeedAddresses(const CompiledGraph& executable,
                                                         const std::vector<Feed>& feeds) const;
  // Returns the whole value of a variable of which the session has a part. Returns
  // FailedPrecondition if a run has changed it.
  absl::StatusOr<Tensor> WholeOf(const std::string& name) const;
  // The part of a whole value that the session's shard has.
  absl::StatusOr<Tensor> PartOf(const Tensor& whole) const;
  // Forgets the whole values that a run of the plan changes.
  void ForgetWholes(const CompiledGraph& executable);
  absl::Status InitializeVariables(const std::vector<std::pair<std::string, Tensor>>& given);
  absl::StatusOr<std::vector<Tensor>> ComputeInitialValues(absl::Span<const NodeId> wanted) const;
  absl::StatusOr<Graph> Expand(const Graph& specialized) const;
  absl::Status CheckInputs(const Graph& specialized, const absl::flat_hash_set<std::string>& fed) const;
};

}  // namespace gradweave

#endif  // GRADWEAVE_RUNTIME_SESSION_SESSION_STATE_H_
