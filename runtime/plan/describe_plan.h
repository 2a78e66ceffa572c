// A plan as a table for users: Session::DescribePlan, and the table of a profile.
#ifndef GRADWEAVE_RUNTIME_PLAN_DESCRIBE_PLAN_H_
#define GRADWEAVE_RUNTIME_PLAN_DESCRIBE_PLAN_H_

#include <functional>
#include <string>

#include "gradweave/runtime/plan/plan.h"

namespace gradweave {

// Entries that a device adds to the table.
struct PlanNotes {
  std::function<std::string(int step)> stream = nullptr;  // The stream of a step; null: there are none.
  std::string total = "";                                 // Text at the end of the line of sums.
  std::string lines = "";                                 // Lines below the sums.
};

// Returns a table. It has a row for each step: node, kernel, output, bytes, FLOPs, and after a
// profiled run microseconds and GFLOP/s. For one device, it also has a row for each part of a
// kernel. For several devices, it has the device of each step and the ops of kernels that run many
// nodes. Below are the sums, the planned memory, and how nodes run together.
std::string DescribePlan(const Plan& plan, const PlanNotes& notes = {});

}  // namespace gradweave

#endif  // GRADWEAVE_RUNTIME_PLAN_DESCRIBE_PLAN_H_
