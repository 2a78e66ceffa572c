// Plan: a graph of known sizes as steps on devices, with a place in memory for every value. It is
// data; the functions of planner.h fill it in, stage by stage, and a CompiledGraph runs it.
#ifndef GRADWEAVE_RUNTIME_PLAN_PLAN_H_
#define GRADWEAVE_RUNTIME_PLAN_PLAN_H_

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/container/inlined_vector.h"
#include "absl/status/status.h"
#include "absl/strings/string_view.h"
#include "gradweave/graph/graph.h"
#include "gradweave/graph/partition/device_parts.h"
#include "gradweave/runtime/plan/backend.h"
#include "gradweave/runtime/plan/memory_plan.h"
#include "gradweave/runtime/plan/session_memory.h"
#include "gradweave/runtime/plan/steps.h"
#include "gradweave/runtime/plan/value_lifetimes.h"
#include "gradweave/runtime/plan/variables.h"

namespace gradweave {

// The outputs of a compiled graph: values to return, and Assign nodes to carry out.
inline constexpr absl::string_view kFetches = "fetches";
inline constexpr absl::string_view kUpdates = "updates";

// The place of a root's elements. Feeds and constants are available on every device.
struct ValuePlace {
  enum Kind { kUnset, kArena, kVariable, kConstant, kFeed } kind = kUnset;
  int device = 0;
  int index = -1;                // kArena: the buffer; kFeed: the feed.
  Variable* variable = nullptr;  // kVariable: the variable.

  bool is_everywhere() const { return kind == kConstant || kind == kFeed; }
};

// The memory of a plan on one device: values, then scratch that steps share. It does not include
// the memory that kernels keep.
struct Arena {
  std::vector<BufferLifetime> buffers;
  std::vector<Port> owners;  // The values that the first buffers were made for; scratch comes after them.
  MemoryPlan memory;
  int64_t scratch_bytes = 0, kept_bytes = 0;
  std::vector<Port> inputs,
      constants;  // Feeds and constants that steps on the device read, or that its variables are set to.

  // Memory of one run; its contents are not needed after the run.
  int64_t run_bytes() const { return memory.arena_bytes + scratch_bytes; }
  int64_t bytes() const { return run_bytes() + kept_bytes; }
  int64_t lower_bound_bytes() const { return memory.lower_bound_bytes + scratch_bytes + kept_bytes; }
};

// Memory that one kernel keeps from run to run, on the CPU.
struct KeptMemory {
  absl::InlinedVector<const Variable*, 2> variables;  // The variables that its contents depend on.
  std::shared_ptr<KeptBlock> block;
};

struct VariableUse {
  Variable* variable;
  int device;  // Where the plan reads and writes it.
  bool assigned = false;
};

struct Plan {
  Graph graph;
  StepOptions options;
  std::vector<std::shared_ptr<BackendDevice>> devices;  // The CPU first.
  std::shared_ptr<Variables> session_variables;
  std::shared_ptr<SessionMemory> memory;  // The memory of all plans of the session.

  std::vector<std::string> moved = {};  // Nodes that run on the CPU because their device has no kernel.
  DeviceParts parts = {};
  std::vector<PartSteps> part_steps = {};  // Indexed by part, until the steps are in order.
  std::vector<std::string> choices = {};   // How nodes run together, and why.
  std::vector<bool> tiled = {};            // Indexed by batch region of the CPU: true if it runs in tiles.
  double nanoseconds = 0;                  // Expected time of one thread, if the options ask for it.

  std::vector<PlanStep> steps = {};
  std::vector<std::string> input_names = {};  // In the order of feeds.
  std::vector<VariableUse> variables = {};
  std::vector<Assignment> assignments = {};
  ValueLifetimes values = {};
  absl::flat_hash_map<Port, int64_t> value_bytes = {};          // Sizes that differ from the type's.
  std::vector<absl::InlinedVector<ValuePlace, 1>> places = {};  // Indexed by node and output, of roots.
  std::vector<int> step_of = {};                                // Indexed by node; -1: none.
  std::vector<Arena> arenas = {};                               // Indexed by device.
  std::vector<KeptMemory> kept = {};

  Port Root(Port port) const { return values.Root(port); }
  ValuePlace& PlaceOf(Port root) { return places[root.node][root.output]; }
  const ValuePlace& PlaceOf(Port root) const { return places[root.node][root.output]; }
  // Bytes of a value in memory.
  int64_t Bytes(Port port) const;
  // The index in `devices` of the device of this name; 0, the CPU, for an empty name, which inputs
  // and constants have.
  int DeviceNamed(absl::string_view name) const;
  int DeviceOf(const Node& node) const { return DeviceNamed(node.device); }
  // Returns true if steps or variables are on a device other than the CPU.
  bool UsesDevices() const;
};

// Returns a table for developers: steps with their devices, and buffers with lifetimes and offsets,
// if they are known already.
std::string PlanToText(const Plan& plan);

// Checks a plan whose arenas are planned: each step reads values that exist by then, each value has
// a place, and buffers with overlapping lifetimes do not overlap in memory. Returns Internal, with
// the step, if a check fails.
absl::Status VerifyPlan(const Plan& plan);

}  // namespace gradweave

#endif  // GRADWEAVE_RUNTIME_PLAN_PLAN_H_
