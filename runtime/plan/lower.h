// Lowering: from a graph as a user built it to a plan that runs.
#ifndef GRADWEAVE_RUNTIME_PLAN_LOWER_H_
#define GRADWEAVE_RUNTIME_PLAN_LOWER_H_

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "gradweave/graph/graph.h"
#include "gradweave/graph/passes/passes.h"
#include "gradweave/runtime/plan/compiled_graph.h"
#include "gradweave/runtime/plan/plan.h"

namespace gradweave {

// The sizes that a graph is lowered for, and how constants are folded.
struct PipelineOptions {
  DimBindings bindings;
  bool initial_values = false;  // The same as in Specialize.
  Evaluator evaluate;
  // Replaces nodes by the ops that define them, where devices need or prefer that; null: none.
  std::function<absl::StatusOr<Graph>(const Graph& graph)> expand = nullptr;
  // The half type of products and convolutions; see MakeMixedPrecision. Null: the graph's own types.
  std::optional<DType> mixed_precision = std::nullopt;
  int64_t shards = 0;  // If above 0, lowers the graph for one of this many shards; see DataParallel.
  // The variables of which the shards have parts; see ShardState.
  std::set<std::string> sharded_variables = {};
};

// A session's options for the lowering of its graphs.
struct LoweringOptions {
  PipelineOptions pipeline;
  StepOptions compile;
  std::vector<std::shared_ptr<BackendDevice>> devices;  // The CPU first.
  std::string device;                                   // The device of nodes that name none.
  std::shared_ptr<Variables> variables;
  std::shared_ptr<SessionMemory> memory = nullptr;  // Shared with other plans of these devices; null: the plan's own.
  int64_t memory_budget = 0;                        // SessionOptions::memory_budget.
  // Checks the graph after the passes; null if there is nothing to check.
  std::function<absl::Status(const Graph&)> check = nullptr;
  // The name of a stage of StagesThatMayBeLeftOut to leave out; empty: none. Tests compare the
  // results.
  std::string left_out = "";
  // Frees memory of other plans if possible; null if it is not.
  std::function<absl::Status()> release_memory = nullptr;
  // Reports nodes that the CPU runs instead of another device; null means no report.
  std::function<void(const std::string& line)> tell = nullptr;
};

// Returns the plan, with its memory, of a graph with the outputs kFetches and kUpdates. Returns
// InvalidArgument if shapes do not fit together or a variable is assigned twice; Unimplemented if
// an op has no kernel; ResourceExhausted if the plan does not fit in the memory budget or in the
// devices; and errors of LoweringOptions::check.
//
// In debug builds, and if the environment variable GRADWEAVE_VERIFY is set, graphs and plans are
// verified after each stage. If GRADWEAVE_DUMP names a folder, each stage writes its result there
// as text, and graphs for Graphviz too; times.txt has the microseconds of each stage.
absl::StatusOr<std::unique_ptr<CompiledGraph>> Lower(const Graph& graph, const LoweringOptions& options);

// The names of the stages that only make runs faster or smaller. Results stay the same, up to
// rounding, without any of them.
std::vector<std::string> StagesThatMayBeLeftOut();

// The stages of Lower that lead from graph to graph and need no device.
absl::StatusOr<Graph> RunPipeline(const Graph& graph, const PipelineOptions& options);

}  // namespace gradweave

#endif  // GRADWEAVE_RUNTIME_PLAN_LOWER_H_
