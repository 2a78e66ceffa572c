// The stages that turn a placed graph into a plan, for every backend. lower.cc lists them in order.
#ifndef GRADWEAVE_RUNTIME_PLAN_PLANNER_H_
#define GRADWEAVE_RUNTIME_PLAN_PLANNER_H_

#include "absl/status/status.h"
#include "gradweave/runtime/plan/plan.h"

namespace gradweave {

// Cuts the graph into parts that run on one device each. With one device the graph is one part.
absl::Status FindParts(Plan& plan);

// Asks each device for the steps of its parts: which nodes run together, and with which kernels.
absl::Status MakePartSteps(Plan& plan);

// Puts the steps of all parts, and copies between devices, into an order in which they can run.
absl::Status OrderSteps(Plan& plan);

// In a group of shards on the CPU, starts each sum over shards as soon as its operand exists, lets
// it run beside the next steps, and waits for it before the first step that reads it. Steps that
// only compute new values of variables come after all steps that can fail.
absl::Status OverlapCollectives(Plan& plan);

// Finds the assigned variables and the last use of each value. Returns InvalidArgument if a
// variable is assigned twice.
absl::Status FindLifetimes(Plan& plan);

// Lets steps write new values directly into variables, if no later step reads the old value and no
// later step can fail.
absl::Status UpdateInPlace(Plan& plan);

// Adds a copy of each variable whose old value is assigned to another variable, since its own
// assignment may take effect first.
absl::Status CopyAssignedVariables(Plan& plan);

// Gives buffers to values and scratch. An output that may overwrite an operand after its last use
// shares its buffer.
absl::Status AssignBuffers(Plan& plan);

// Gives buffers offsets in their device's arena, and kernels of the CPU memory that they keep from
// run to run.
absl::Status PlanArenas(Plan& plan);

}  // namespace gradweave

#endif  // GRADWEAVE_RUNTIME_PLAN_PLANNER_H_
