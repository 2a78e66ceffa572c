// Checks of the numbers that layers, losses, optimizers and schedules are given.
#ifndef GRADWEAVE_FRONTEND_NUMBER_CHECKS_H_
#define GRADWEAVE_FRONTEND_NUMBER_CHECKS_H_

#include <initializer_list>

#include "absl/status/status.h"
#include "absl/strings/string_view.h"
#include "gradweave/graph/graph.h"

namespace gradweave {

struct NumberCheck {
  enum Range {
    kNotNaN,
    kFinite,
    kNotNegative,  // Finite and at least 0.
    kPositive,     // Above 0; may be infinite.
    kFraction,     // In [0, 1].
    kBelowOne,     // In [0, 1).
    kAtLeastOne,   // A count.
  };
  absl::string_view name;
  double number;
  Range range;
};

// Returns InvalidArgument for the first number that is not in range, with `what` ("Adam"), the
// number and its range.
absl::Status CheckNumbers(absl::string_view what, std::initializer_list<NumberCheck> checks);

// Returns true if all numbers are in range, and otherwise records that error in the graph, with the
// line of the builder's state.
bool CheckNumbers(Graph& graph, absl::string_view what, std::initializer_list<NumberCheck> checks);

}  // namespace gradweave

#endif  // GRADWEAVE_FRONTEND_NUMBER_CHECKS_H_
