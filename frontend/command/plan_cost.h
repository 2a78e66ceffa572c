// The cost of a run, as its plan says.
#ifndef GRADWEAVE_FRONTEND_COMMAND_PLAN_COST_H_
#define GRADWEAVE_FRONTEND_COMMAND_PLAN_COST_H_

#include <string>

#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "gradweave/frontend/command/model_source.h"
#include "gradweave/graph/dim.h"
#include "gradweave/runtime/session/session.h"

namespace gradweave::command {

struct PlanCost {
  double flops = 0;       // Floating-point operations of a run.
  double peak_bytes = 0;  // The most memory of intermediate values.
  std::string description;
};

// The cost of a run that computes the outputs with these sizes of symbols; see
// Session::DescribePlan.
absl::StatusOr<PlanCost> CostOf(Session& session, Graph& graph, absl::Span<const NamedOutput> outputs,
                                const DimBindings& sizes);

}  // namespace gradweave::command

#endif  // GRADWEAVE_FRONTEND_COMMAND_PLAN_COST_H_
