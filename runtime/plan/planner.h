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

// In a group of shards on the CPU: starts each sum over shards as soon as its operand is there,
// lets it run beside the steps that follow, and waits for it before the first step that reads it.
// Steps that only compute new values of variables come behind all that can fail.
absl::Status OverlapCollectives(Plan& plan);

// Finds what the updates assign, and the last use of each value. InvalidArgument where a variable
// is assigned twice.
absl::Status FindLifetimes(Plan& plan);

// Lets steps write new values straight into variables where nothing reads the old value afterwards
// and nothing that comes later can fail.
absl::Status UpdateInPlace(Plan& plan);

// Adds a copy of a variable whose value another variable is set to: by then its own assignment may
// have taken effect.
absl::Status CopyAssignedVariables(Plan& plan);

// Gives values and scratch buffers, shared where an output may overwrite an operand that dies.
absl::Status AssignBuffers(Plan& plan);

// Gives buffers offsets in their device's arena, and kernels of the CPU memory that they keep from
// run to run.
absl::Status PlanArenas(Plan& plan);

}  // namespace gradweave

#endif  // GRADWEAVE_RUNTIME_PLAN_PLANNER_H_
