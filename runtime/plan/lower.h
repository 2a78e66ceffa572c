// Lowering: from a graph as a user built it to a plan that runs.
#ifndef GRADWEAVE_RUNTIME_PLAN_LOWER_H_
#define GRADWEAVE_RUNTIME_PLAN_LOWER_H_

#include <cstdint>
#include <functional>
#include <memory>
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
  bool initial_values = false;  // As of Specialize.
  Evaluator evaluate;
  // Replaces nodes by the ops that define them, where devices need or prefer that; null: none.
  std::function<absl::StatusOr<Graph>(const Graph& graph)> expand = nullptr;
  int64_t shards = 0;  // Above 0: the graph is lowered for one of so many shards; see DataParallel.
  // The variables of which the shards have parts; see ShardState.
  std::set<std::string> sharded_variables = {};
};

// A session's options for the lowering of its graphs.
struct LoweringOptions {
  PipelineOptions pipeline;
  StepOptions compile;
  std::vector<std::shared_ptr<BackendDevice>> devices;  // The CPU first.
  std::string device;                                   // The name of the one that nodes run on unless they name one.
  std::shared_ptr<Variables> variables;
  std::shared_ptr<SessionMemory> memory = nullptr;  // Shared with other plans of these devices; null: the plan's own.
  int64_t memory_budget = 0;                        // SessionOptions::memory_budget.
  // Checks the graph after the passes, when it is known what it needs; null: nothing is checked.
  std::function<absl::Status(const Graph&)> check = nullptr;
  // The name of a stage of StagesThatMayBeLeftOut to leave out; empty: none. Tests compare the
  // results.
  std::string left_out = "";
  // Frees memory of other plans, as far as that is possible; null: it isn't.
  std::function<absl::Status()> release_memory = nullptr;
  // Tells the user of nodes that the CPU runs in place of another device; null: nobody is told.
  std::function<void(const std::string& line)> tell = nullptr;
};

// The plan, with its memory, of a graph with the outputs kFetches and kUpdates. InvalidArgument
// where shapes don't fit together, or a variable is assigned twice; Unimplemented where an op has
// no kernel; ResourceExhausted where the plan fits neither in the memory budget nor in the devices;
// and errors of LoweringOptions::check.
//
// In debug builds, and where GRADWEAVE_VERIFY is set in the environment, graphs and plans are
// verified after each stage. Where GRADWEAVE_DUMP names a folder, each stage writes what it has
// made there, as text and graphs for Graphviz too, and times.txt says how many microseconds each
// has taken.
absl::StatusOr<std::unique_ptr<CompiledGraph>> Lower(const Graph& graph, const LoweringOptions& options);

// The names of the stages that only make runs faster or smaller: the results mean the same without
// any of them.
std::vector<std::string> StagesThatMayBeLeftOut();

// The stages of Lower that lead from graph to graph and need no device.
absl::StatusOr<Graph> RunPipeline(const Graph& graph, const PipelineOptions& options);

}  // namespace gradweave

#endif  // GRADWEAVE_RUNTIME_PLAN_LOWER_H_
