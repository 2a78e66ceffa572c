// The kernel calls that the CPU makes for a graph: batch regions in tiles, row regions in blocks,
// other nodes alone.
#ifndef GRADWEAVE_RUNTIME_CPU_REGION_STEPS_H_
#define GRADWEAVE_RUNTIME_CPU_REGION_STEPS_H_

#include "absl/status/statusor.h"
#include "gradweave/graph/graph.h"
#include "gradweave/runtime/plan/steps.h"

namespace gradweave {

// The steps of a graph with known shapes, whose kernels may refer to it. Values that only batch
// regions make and read are passed on in tiles, with another size in memory. Returns Unimplemented
// if an op has no kernel.
absl::StatusOr<PartSteps> FindRegionSteps(const Graph& graph, const StepOptions& options);

}  // namespace gradweave

#endif  // GRADWEAVE_RUNTIME_CPU_REGION_STEPS_H_
