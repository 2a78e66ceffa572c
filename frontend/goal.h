// Goals: the metric that decides which epoch of a training is better.
#ifndef GRADWEAVE_FRONTEND_GOAL_H_
#define GRADWEAVE_FRONTEND_GOAL_H_

#include <optional>
#include <string>
#include <utility>

#include "absl/status/statusor.h"
#include "gradweave/frontend/metrics.h"

namespace gradweave {

// The metric by which epochs are compared.
struct Goal {
  std::string metric = "loss";
  bool larger_is_better = false;  // True for an accuracy, false for a loss.
  bool of_training = false;       // The training's metric in place of the validation's.
  double least_change = 0;        // Smaller changes do not count. At least 0.
};
// A goal for an accuracy, or for another metric that has to be large.
inline Goal Largest(std::string metric) { return {.metric = std::move(metric), .larger_is_better = true}; }

// The best value of a goal so far.
struct BestSoFar {
  Goal goal;
  std::optional<double> value = {};

  // Returns true if the goal's metric is now better than before, and keeps it. A NaN is not better.
  // Returns InvalidArgument if the metric is unknown or not a scalar, or least_change is below 0.
  absl::StatusOr<bool> Improve(const MetricValues& train, const MetricValues& validation);
};

}  // namespace gradweave

#endif  // GRADWEAVE_FRONTEND_GOAL_H_
