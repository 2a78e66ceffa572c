// The kernel calls that a graph makes on a device that runs regions: the CPU.
#ifndef GRADWEAVE_RUNTIME_CPU_REGION_STEPS_H_
#define GRADWEAVE_RUNTIME_CPU_REGION_STEPS_H_

#include <cstdint>
#include <string>
#include <vector>

#include "absl/container/flat_hash_set.h"
#include "absl/container/inlined_vector.h"
#include "absl/status/statusor.h"
#include "gradweave/graph/graph.h"
#include "gradweave/runtime/cpu/compile_options.h"
#include "gradweave/runtime/kernel/kernel.h"

namespace gradweave {

inline bool IsSource(const Node& node) {
  return node.op->name == "Input" || node.op->name == "Constant" || node.op->name == "Variable";
}

// Of the operands, the value that has the result's elements: an assignment's result is the new value. -1: none.
inline int AliasedOperand(const Node& node) {
  if (node.op->name == "Assign") return 1;
  return node.op->alias ? 0 : -1;
}

// A node, or a region as one.
struct RegionStep {
  Kernel kernel;
  std::vector<NodeId> nodes;  // In order.
  absl::InlinedVector<Port, 3> operands;
  absl::InlinedVector<Port, 2> outputs;
};

struct RegionSteps {
  std::vector<RegionStep> steps;  // In an order in which they can run.
  std::vector<bool>
      in_batch_region;              // By node: what it makes is in memory of its own, whatever the node would do alone.
  absl::flat_hash_set<Port> tiled;  // Values that batch regions pass on in tiles (RegionCompiler::tiled_bytes).
  std::vector<std::string> choices;  // How regions run, and why.
};

// The steps of a graph with known shapes, with kernels of the registry, which may refer to the graph. Unimplemented
// where an op has no kernel.
absl::StatusOr<RegionSteps> FindRegionSteps(const Graph& graph, const KernelRegistry& kernels,
                                            const CompileOptions& options);

}  // namespace gradweave

#endif  // GRADWEAVE_RUNTIME_CPU_REGION_STEPS_H_
