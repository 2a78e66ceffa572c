// The search for a plan that fits into a memory budget.
#ifndef GRADWEAVE_RUNTIME_PLAN_FIT_PLAN_H_
#define GRADWEAVE_RUNTIME_PLAN_FIT_PLAN_H_

#include <cstdint>
#include <memory>

#include "absl/functional/function_ref.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "gradweave/graph/graph.h"
#include "gradweave/runtime/plan/compiled_graph.h"
#include "gradweave/runtime/plan/steps.h"

namespace gradweave {

// Plans a graph and compiles the plan for its device, without taking its memory.
using MakePlan =
    absl::FunctionRef<absl::StatusOr<std::unique_ptr<CompiledGraph>>(Graph graph, const StepOptions& options)>;

// Replaces `plan`, the graph's plan, if it takes more than `budget` bytes. The new plan is the one
// that the cost model expects to be the fastest of those that fit or, if none fits, the smallest
// one. If the CPU is the only device, it tries combinations of
// - tiles or nodes one by one for each batch region, with BatchTiles::kAuto: all combinations of up
//   to four regions. With more regions it changes each one alone, and then more and more of them,
//   beginning with those that save most bytes;
// - row regions or none, with RowFusion::kAuto;
// - packed weights that are kept, or none;
// - Rematerialize with several goals, if nothing faster fits.
// If there is another device, it tries Rematerialize only. The number of plans is limited. Returns
// the errors of Rematerialize and of `make`.
absl::Status FitPlan(const Graph& graph, int64_t budget, MakePlan make, std::unique_ptr<CompiledGraph>& plan);

}  // namespace gradweave

#endif  // GRADWEAVE_RUNTIME_PLAN_FIT_PLAN_H_
