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
  std::string total = "";                                 // At the end of the line of sums.
  std::string lines = "";                                 // Below it.
};

// A row for each step: node, kernel, output, bytes, FLOPs, and after a profiled run microseconds
// and GFLOP/s. Plans of one device have a row for each part of a kernel; those of several say each
// step's device, and which ops a kernel of many nodes holds. Then the sums and the planned memory,
// and how nodes run together.
std::string DescribePlan(const Plan& plan, const PlanNotes& notes = {});

}  // namespace gradweave

#endif  // GRADWEAVE_RUNTIME_PLAN_DESCRIBE_PLAN_H_
