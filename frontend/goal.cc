#include "gradweave/frontend/goal.h"

#include <cmath>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"

namespace gradweave {

absl::StatusOr<bool> BestSoFar::Improve(const MetricValues& train, const MetricValues& validation) {
  if (!(goal.least_change >= 0)) {
    return absl::InvalidArgumentError(
        absl::StrCat("Fit: least_change is ", goal.least_change, " and has to be at least 0"));
  }
  const MetricValues& metrics = goal.of_training ? train : validation;
  const Tensor* metric = metrics.Find(goal.metric);
  if (metric == nullptr || metric->num_elements() != 1) {
    return absl::InvalidArgumentError(
        absl::StrCat("Fit: a goal needs the ", goal.of_training ? "training" : "validation", " metric '", goal.metric,
                     "', a scalar; the metrics are ",
                     metrics.all().empty() ? "none"
                                           : absl::StrJoin(metrics.all(), ", ",
                                                           [](std::string* out, const auto& entry) {
                                                             absl::StrAppend(out, "'", entry.first, "' (",
                                                                             entry.second.type().ToString(), ")");
                                                           }),
                     metrics.all().empty() && !goal.of_training
                         ? ", because there is no validation; give FitOptions::validation, or set Goal::of_training"
                         : ""));
  }
  const double now = metric->ToDouble();
  if (std::isnan(now)) return false;
  if (value.has_value() &&
      !(goal.larger_is_better ? now > *value + goal.least_change : now < *value - goal.least_change))
    return false;
  value = now;
  return true;
}

}  // namespace gradweave
