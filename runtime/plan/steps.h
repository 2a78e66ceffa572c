// Steps: the kernel calls of a plan.
#ifndef GRADWEAVE_RUNTIME_PLAN_STEPS_H_
#define GRADWEAVE_RUNTIME_PLAN_STEPS_H_

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/container/inlined_vector.h"
#include "absl/status/statusor.h"
#include "gradweave/graph/graph.h"
#include "gradweave/runtime/kernel/kernel.h"
#include "gradweave/runtime/plan/compile_options.h"

namespace gradweave {
namespace distributed {
class Communicator;
}

// One kernel call on a part of a graph: for one node, or for several that run together.
struct PartStep {
  Kernel kernel;
  std::vector<NodeId> nodes;  // In the graph's order.
  absl::InlinedVector<Port, 3> operands;
  absl::InlinedVector<Port, 2> outputs;
};

// The steps that a device makes from a part, by ids of the part's graph.
struct PartSteps {
  std::vector<PartStep> steps;  // In an order in which they can run.
  // Indexed by node: true if the step gives the outputs memory of their own, even if the node alone
  // would be a view. Empty means none.
  std::vector<bool> own_memory;
  absl::flat_hash_map<Port, int64_t> bytes;  // Sizes in memory that differ from the type's.
  std::vector<std::string> choices;          // How nodes run together, and why, for the plan's description.
  std::vector<bool> tiled;                   // Indexed by batch region that the device found: true if it runs in tiles.
  double nanoseconds = 0;                    // Expected time of one thread, if the options ask for it.
};

// Options for making steps: the session's options, and choices that a memory budget changes.
struct StepOptions : CompileOptions {
  // Indexed by batch region, in the order in which the device finds them: true if it has to run in
  // tiles. Regions behind the last entry do not. Empty: the cost model decides. Applies to
  // BatchTiles::kAuto.
  std::vector<bool> tiled;
  bool wants_estimate = false;  // Asks for PartSteps::nanoseconds.
  // The communicator of collective ops; null for a graph without them.
  std::shared_ptr<distributed::Communicator> communicator;
};

// A step of a whole plan.
struct PlanStep {
  Kernel kernel;      // Without `run` for a copy from device to device.
  NodeId node;        // The last one if there are several.
  int num_nodes = 1;  // The number of nodes that it runs.
  absl::InlinedVector<Port, 3> operands = {};
  absl::InlinedVector<Port, 2> outputs = {};
  // The devices of operands and of outputs; they differ for copies from device to device.
  int from = 0, to = 0;
  // The step that waits for the work of this one, which runs beside the steps between the two. -1
  // if the work is done when the kernel returns.
  int waited_for = -1;
  int scratch = -1;         // A buffer of its device's arena; -1: none, or the device's shared scratch.
  int kept = -1;            // Index in Plan::kept of the memory that the kernel keeps; -1 if none.
  double microseconds = 0;  // The time in the latest profiled run.
  std::vector<double> part_microseconds = {};

  bool is_transfer() const { return from != to; }
  bool is_on(int device) const { return from == device && to == device; }
};

// Returns the step of one node, whose shapes are known, with a kernel of the registry. Returns
// Unimplemented if the registry has none for the op; errors name the node. `toom_cook` is passed on
// to KernelRequest.
absl::StatusOr<PartStep> MakeNodeStep(const KernelRegistry& kernels, const Graph& graph, const Node& node, int threads,
                                      bool toom_cook = true);

// Returns the operand that has the result's elements, or -1. An assignment's result is the new
// value, and a view shares its operand's memory.
int AliasedOperand(const Node& node);

}  // namespace gradweave

#endif  // GRADWEAVE_RUNTIME_PLAN_STEPS_H_
