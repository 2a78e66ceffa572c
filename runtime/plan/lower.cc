#include "gradweave/runtime/plan/lower.h"

#include <algorithm>
#include <chrono>
#include <cstdlib>
#include <fstream>
#include <set>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_join.h"
#include "absl/types/span.h"
#include "gradweave/graph/body.h"
#include "gradweave/graph/check.h"
#include "gradweave/graph/passes/bodies.h"
#include "gradweave/graph/passes/data_parallel.h"
#include "gradweave/graph/passes/join_all_reduces.h"
#include "gradweave/graph/passes/mixed_precision.h"
#include "gradweave/graph/passes/placement.h"
#include "gradweave/graph/passes/shard_state.h"
#include "gradweave/graph/passes/widen_halves.h"
#include "gradweave/graph/print.h"
#include "gradweave/graph/verify.h"
#include "gradweave/runtime/distributed/communicator.h"
#include "gradweave/runtime/plan/fit_plan.h"
#include "gradweave/runtime/plan/planner.h"

namespace gradweave {
namespace {

// The state that the stages work on: a graph, then a plan, then the plan compiled by its device.
struct Lowering {
  const LoweringOptions& options;
  Graph graph;
  StepOptions compile;
  std::vector<std::string> notes = {};  // Lines for the plan's description.
  std::unique_ptr<Plan> plan = nullptr;
  std::unique_ptr<CompiledGraph> compiled = nullptr;
};

struct Stage {
  const char* name;
  absl::Status (*run)(Lowering&);
  bool may_be_left_out = false;  // The results mean the same without it.
};

absl::Status MakeShard(Lowering& lowering);
absl::Status MixPrecision(Lowering& lowering);
absl::Status Expand(Lowering& lowering);
absl::Status AdaptToDevice(Lowering& lowering);
absl::Status JoinSums(Lowering& lowering);
absl::Status Place(Lowering& lowering);
absl::Status CompilePlan(Lowering& lowering);
absl::Status RematerializeToFit(Lowering& lowering);
absl::Status AllocateMemory(Lowering& lowering);

// A stage from graph to graph.
template <typename Pass>
absl::Status Rewrite(Lowering& lowering, Pass pass) {
  GW_ASSIGN_OR_RETURN(lowering.graph, pass(lowering.graph, lowering.options.pipeline));
  return absl::OkStatus();
}
#define GRADWEAVE_PASS(expression) \
  [](Lowering& l) { return Rewrite(l, [](const Graph& graph, const PipelineOptions& options) { return expression; }); }
// The same, but also for the bodies of loops and branches.
#define GRADWEAVE_PASS_WITH_BODIES(expression) \
  GRADWEAVE_PASS(ApplyWithBodies(              \
      graph, [&options](const Graph& graph) { return (void)options, absl::StatusOr<Graph>(expression); }))
// The same for a pass that only changes loops.
#define GRADWEAVE_PASS_ON_LOOPS(expression)           \
  [](Lowering& l) {                                   \
    if (!HasBodies(l.graph)) return absl::OkStatus(); \
    return GRADWEAVE_PASS_WITH_BODIES(expression)(l); \
  }
#define GRADWEAVE_PLAN(function) [](Lowering& l) { return function(*l.plan); }

// The whole lowering, in order.
constexpr Stage kStages[] = {
    // Stages from graph to graph. The first ones find the batch by its symbol, before it gets the
    // size of a shard.
    {"data_parallel", MakeShard},
    {"join_all_reduces", JoinSums, true},
    // Known sizes let shapes be folded and broadcasts be seen. Folding makes numbers that rules
    // look for, and rules make nodes equal. Loops merge while their bodies are as they were built.
    {"specialize", GRADWEAVE_PASS(Specialize(graph, options.bindings, options.initial_values))},
    {"merge_scans", GRADWEAVE_PASS_ON_LOOPS(MergeScans(graph)), true},
    // Which nodes have halves. An op rounds its results once, also one that other ops replace.
    {"mixed_precision", MixPrecision},
    {"widen_halves", GRADWEAVE_PASS_WITH_BODIES(WidenHalves(graph))},
    {"expand", Expand},
    {"simplify", GRADWEAVE_PASS_WITH_BODIES(Simplify(graph)), true},
    {"fold_constants", GRADWEAVE_PASS_WITH_BODIES(FoldConstants(graph, options.evaluate)), true},
    {"simplify_folded", GRADWEAVE_PASS_WITH_BODIES(Simplify(graph)), true},
    {"hoist_from_loops", GRADWEAVE_PASS(HoistFromLoops(graph)), true},
    {"flatten_products", GRADWEAVE_PASS_WITH_BODIES(FlattenProducts(graph)), true},
    {"eliminate_common_subexpressions", GRADWEAVE_PASS_WITH_BODIES(EliminateCommonSubexpressions(graph)), true},
    {"prune_scans", GRADWEAVE_PASS_ON_LOOPS(PruneScans(graph)), true},
    {"eliminate_dead_nodes", GRADWEAVE_PASS_WITH_BODIES(EliminateDeadNodes(graph)), true},
    {"adapt_to_device", AdaptToDevice},
    {"check_inputs",
     [](Lowering& l) { return l.options.check == nullptr ? absl::OkStatus() : l.options.check(l.graph); }},
    // Stages from graph to plan: devices, kernels and the order of steps.
    {"place", Place},
    {"partition", GRADWEAVE_PLAN(FindParts)},
    {"fuse", GRADWEAVE_PLAN(MakePartSteps)},
    {"order_steps", GRADWEAVE_PLAN(OrderSteps)},
    {"overlap_collectives", GRADWEAVE_PLAN(OverlapCollectives), true},
    // Stages that place values in memory.
    {"find_lifetimes", GRADWEAVE_PLAN(FindLifetimes)},
    {"update_in_place", GRADWEAVE_PLAN(UpdateInPlace), true},
    {"copy_assigned_variables", GRADWEAVE_PLAN(CopyAssignedVariables)},
    {"assign_buffers", GRADWEAVE_PLAN(AssignBuffers)},
    {"plan_memory", GRADWEAVE_PLAN(PlanArenas)},
    // Compilation by the device, such as streams and CUDA graphs. If the plan is too large, the
    // next stage recomputes values and plans again from "place" on.
    {"compile", CompilePlan},
    {"rematerialize", RematerializeToFit},
    {"bind", AllocateMemory},
};
#undef GRADWEAVE_PASS_ON_LOOPS
#undef GRADWEAVE_PASS_WITH_BODIES
#undef GRADWEAVE_PASS
#undef GRADWEAVE_PLAN

// The number of the stage of this name; the number of all stages for an empty name.
constexpr int StageNumber(absl::string_view name) {
  int number = 0;
  for (const Stage& stage : kStages) {
    if (name == stage.name) break;
    ++number;
  }
  return number;
}
constexpr int kCheck = StageNumber("check_inputs"), kPlace = StageNumber("place"),
              kPartition = StageNumber("partition"), kFindLifetimes = StageNumber("find_lifetimes"),
              kPlanMemory = StageNumber("plan_memory"), kRematerialize = StageNumber("rematerialize"),
              kEnd = StageNumber("");

const Plan* PlanOf(const Lowering& lowering) {
  return lowering.compiled != nullptr ? &lowering.compiled->plan() : lowering.plan.get();
}

bool VerifyWanted() {
#ifdef NDEBUG
  static const bool wanted = std::getenv("GRADWEAVE_VERIFY") != nullptr;
  return wanted;
#else
  return true;
#endif
}

absl::Status Verify(int stage, const Lowering& lowering) {
  const Plan* const plan = PlanOf(lowering);
  absl::Status status;
  if (plan == nullptr || stage == kPlace) {
    status = VerifyGraph(plan == nullptr ? lowering.graph : plan->graph);
  } else if (stage == kPartition) {
    for (const DevicePart& part : plan->parts.parts) status.Update(VerifyGraph(part.graph));
  } else if (stage >= kPlanMemory) {
    status = VerifyPlan(*plan);
  }
  if (status.ok()) return status;
  return absl::InternalError(absl::StrCat("the stage ", kStages[stage].name, " broke the ",
                                          stage <= kPartition ? "graph" : "plan", ": ", status.message()));
}

void DumpGraph(const Graph& graph, const std::string& path) {
  std::ofstream(path + ".txt") << GraphToText(graph);
  std::ofstream(path + ".dot") << GraphToDot(graph);
}

// This is an aid for developers, so it ignores files that cannot be written.
void Dump(absl::string_view folder, int stage, double microseconds, const Lowering& lowering) {
  const std::string path = absl::StrCat(folder, "/", absl::StrFormat("%02d", stage), "_", kStages[stage].name);
  const Plan* const plan = PlanOf(lowering);
  if (plan == nullptr || stage == kPlace) {
    DumpGraph(plan == nullptr ? lowering.graph : plan->graph, path);
  } else if (stage == kPartition) {
    for (size_t i = 0; i < plan->parts.parts.size(); ++i) {
      DumpGraph(plan->parts.parts[i].graph, absl::StrCat(path, "_", i));
    }
  } else {
    std::ofstream(path + ".txt") << PlanToText(*plan);
  }
  std::ofstream(absl::StrCat(folder, "/times.txt"), stage == 0 ? std::ios::trunc : std::ios::app)
      << absl::StrFormat("%-32s %10.1f us\n", kStages[stage].name, microseconds);
}

// Runs the stages [first, last), each with its verifier and its dump.
absl::Status RunStages(int first, int last, Lowering& lowering) {
  using Clock = std::chrono::steady_clock;
  const char* const folder = std::getenv("GRADWEAVE_DUMP");
  for (int stage = first; stage < last; ++stage) {
    if (kStages[stage].may_be_left_out && lowering.options.left_out == kStages[stage].name) continue;
    const Clock::time_point start = Clock::now();
    GW_RETURN_IF_ERROR(kStages[stage].run(lowering));
    const double microseconds = std::chrono::duration<double, std::micro>(Clock::now() - start).count();
    if (folder != nullptr) Dump(folder, stage, microseconds, lowering);
    if (VerifyWanted()) GW_RETURN_IF_ERROR(Verify(stage, lowering));
  }
  return absl::OkStatus();
}

// Runs only in a session with a communicator.
absl::Status MakeShard(Lowering& lowering) {
  const int64_t shards = lowering.options.pipeline.shards;
  if (shards == 0) return absl::OkStatus();
  GW_ASSIGN_OR_RETURN(lowering.graph, DataParallel(lowering.graph, shards));
  const std::set<std::string>& sharded = lowering.options.pipeline.sharded_variables;
  if (sharded.empty()) return absl::OkStatus();
  int64_t whole = 0, part = 0;
  for (const std::string& name : sharded) {
    const NodeId id = lowering.graph.FindNamed(name);
    if (id < 0) continue;  // The run does not need it.
    const TensorType& type = lowering.graph.node(id).outputs[0];
    whole += type.byte_size();
    part += PartSize(type.shape.num_elements().size(), shards) * static_cast<int64_t>(DTypeSize(type.dtype));
  }
  if (whole > 0) {
    lowering.notes.push_back(absl::StrFormat("state of optimizers: %d bytes, of which this shard has %d", whole, part));
  }
  GW_ASSIGN_OR_RETURN(lowering.graph, ShardState(lowering.graph, shards, sharded, kUpdates));
  return absl::OkStatus();
}

// The same.
absl::Status JoinSums(Lowering& lowering) {
  const distributed::Communicator* const communicator = lowering.compile.communicator.get();
  if (lowering.options.pipeline.shards == 0 || communicator == nullptr) return absl::OkStatus();
  const int64_t bytes = BucketBytes(communicator->link(), communicator->shards());
  GW_ASSIGN_OR_RETURN(lowering.graph, JoinAllReduces(lowering.graph, bytes));
  return absl::OkStatus();
}

absl::Status MixPrecision(Lowering& lowering) {
  const std::optional<DType> half = lowering.options.pipeline.mixed_precision;
  if (!half.has_value()) return absl::OkStatus();
  MixedPrecisionReport report;
  GW_ASSIGN_OR_RETURN(lowering.graph, ApplyWithBodies(lowering.graph, [&](const Graph& graph) {
                        return MakeMixedPrecision(graph, *half, &report);
                      }));
  lowering.notes.push_back(report.ToString());
  return absl::OkStatus();
}

absl::Status Expand(Lowering& lowering) {
  if (lowering.options.pipeline.expand == nullptr) return absl::OkStatus();
  GW_ASSIGN_OR_RETURN(lowering.graph, ApplyWithBodies(lowering.graph, lowering.options.pipeline.expand));
  return absl::OkStatus();
}

// Nodes have no device yet, so this is for sessions of one device.
absl::Status AdaptToDevice(Lowering& lowering) {
  const auto& devices = lowering.options.devices;
  return devices.size() == 1 ? devices[0]->Adapt(lowering.graph) : absl::OkStatus();
}

// Gives each node a device, with copies between devices. A session of the CPU alone needs none.
absl::Status Place(Lowering& lowering) {
  const LoweringOptions& options = lowering.options;
  Placement placement{lowering.graph};
  if (options.devices.size() > 1) {
    auto check = [&](const Node& node, absl::string_view device) {
      for (const std::shared_ptr<BackendDevice>& candidate : options.devices) {
        if (candidate->name() == device) return candidate->CheckSupports(lowering.graph, node);
      }
      return absl::UnimplementedError(absl::StrCat("the session has no device ", device));
    };
    GW_ASSIGN_OR_RETURN(placement, gradweave::Place(lowering.graph, {.device = options.device, .check = check}));
  }
  for (const std::string& line : placement.moved) {
    if (options.tell != nullptr) options.tell(line);
  }
  lowering.plan = std::make_unique<Plan>(
      Plan{.graph = std::move(placement.graph),
           .options = lowering.compile,
           .devices = options.devices,
           .session_variables = options.variables,
           .memory = options.memory != nullptr ? options.memory : std::make_shared<SessionMemory>(options.devices),
           .moved = std::move(placement.moved),
           .choices = lowering.notes});
  return absl::OkStatus();
}

absl::Status CompilePlan(Lowering& lowering) {
  BackendDevice& device = *lowering.plan->devices.back();
  GW_ASSIGN_OR_RETURN(lowering.compiled, device.Compile(std::move(lowering.plan)));
  return absl::OkStatus();
}

// Replaces a plan that exceeds the budget by one within the budget, or else by a smaller one.
absl::Status Shrink(Lowering& lowering, int64_t budget) {
  return FitPlan(
      lowering.graph, budget,
      [&](Graph graph, const StepOptions& options) -> absl::StatusOr<std::unique_ptr<CompiledGraph>> {
        Lowering other{lowering.options, std::move(graph), options, lowering.notes};
        GW_RETURN_IF_ERROR(RunStages(kPlace, kRematerialize, other));
        return std::move(other.compiled);
      },
      lowering.compiled);
}

absl::Status ReleaseMemory(const Lowering& lowering) {
  return lowering.options.release_memory == nullptr ? absl::OkStatus() : lowering.options.release_memory();
}

// Fits the plan into the budget and into what its device has. Other plans lose their memory first.
absl::Status RematerializeToFit(Lowering& lowering) {
  std::unique_ptr<CompiledGraph>& plan = lowering.compiled;
  if (plan->arena_bytes() > plan->arena_room()) GW_RETURN_IF_ERROR(ReleaseMemory(lowering));
  const int64_t memory_budget = lowering.options.memory_budget;
  const int64_t room = plan->arena_room();
  GW_RETURN_IF_ERROR(Shrink(lowering, memory_budget > 0 ? std::min(memory_budget, room) : room));
  if (memory_budget > 0 && plan->arena_bytes() > memory_budget) {
    return absl::ResourceExhaustedError(absl::StrCat("Run: the smallest plan that was found takes ",
                                                     plan->arena_bytes(), " bytes, and the session's memory_budget is ",
                                                     memory_budget, "; a smaller batch takes less"));
  }
  return absl::OkStatus();
}

// Gives the plan its memory, and steps their addresses.
absl::Status AllocateMemory(Lowering& lowering) {
  std::unique_ptr<CompiledGraph>& plan = lowering.compiled;
  auto is_exhausted = [](const absl::Status& status) { return status.code() == absl::StatusCode::kResourceExhausted; };
  absl::Status status = plan->Allocate();
  if (!is_exhausted(status) || lowering.options.devices.size() == 1) return status;
  GW_RETURN_IF_ERROR(ReleaseMemory(lowering));
  status = plan->Allocate();
  if (!is_exhausted(status) || plan->arena_bytes() > plan->arena_room()) return status;
  // There is enough memory, but not in one piece.
  GW_RETURN_IF_ERROR(Shrink(lowering, plan->arena_bytes() * 3 / 4));
  return plan->Allocate();
}

}  // namespace

std::vector<std::string> StagesThatMayBeLeftOut() {
  std::vector<std::string> names;
  for (const Stage& stage : kStages) {
    if (stage.may_be_left_out) names.push_back(stage.name);
  }
  return names;
}

absl::StatusOr<std::unique_ptr<CompiledGraph>> Lower(const Graph& graph, const LoweringOptions& options) {
  if (const std::vector<std::string> names = StagesThatMayBeLeftOut();
      !options.left_out.empty() && std::find(names.begin(), names.end(), options.left_out) == names.end()) {
    return absl::InvalidArgumentError(absl::StrCat(
        "Lower: '", options.left_out, "' is not a stage that may be left out; those are ", absl::StrJoin(names, ", ")));
  }
  Lowering lowering{options, graph, options.compile};
  lowering.compile.arena_limit = options.memory_budget;
  GW_RETURN_IF_ERROR(RunStages(0, kEnd, lowering));
  return std::move(lowering.compiled);
}

absl::StatusOr<Graph> RunPipeline(const Graph& graph, const PipelineOptions& options) {
  const LoweringOptions lowering_options{.pipeline = options};
  Lowering lowering{lowering_options, graph, {}};
  GW_RETURN_IF_ERROR(RunStages(0, kCheck, lowering));
  return std::move(lowering.graph);
}

}  // namespace gradweave
