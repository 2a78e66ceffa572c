// Losses, optimizers and learning rates by name, as the command line gives them.
#ifndef GRADWEAVE_FRONTEND_COMMAND_TRAINING_CHOICES_H_
#define GRADWEAVE_FRONTEND_COMMAND_TRAINING_CHOICES_H_

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "gradweave/frontend/metrics.h"
#include "gradweave/frontend/optimizers.h"
#include "gradweave/graph/graph.h"

namespace gradweave::command {

// A loss of a prediction and a target.
struct LossChoice {
  const char* name;
  bool has_classes;  // True if targets are integers, one for each row of the prediction.
  Value (*loss)(const Value& prediction, const Value& target);
  std::vector<Metric> (*metrics)(const Value& prediction, const Value& target);
};
// The loss of this name. NotFound with the nearest name.
absl::StatusOr<const LossChoice*> FindLoss(absl::string_view name);

// An optimizer of text such as "adamw" or "adamw:weight_decay=0.1,clip_norm=1", with a learning
// rate or its own default. Returns NotFound for an unknown optimizer or option, with the nearest,
// and InvalidArgument for text that is not a number.
absl::StatusOr<optim::Optimizer> ParseOptimizer(absl::string_view text, std::optional<optim::LearningRate> rate);

// A learning rate of text: "0.1", or a schedule as "cosine:0.001". `steps` is the number of all
// steps, and `per_epoch` the number of steps of an epoch. Errors are the same as above.
absl::StatusOr<optim::Schedule> ParseSchedule(absl::string_view text, int64_t steps, int64_t per_epoch);

// Lines for --help: the names and options there are.
std::string LossesText();
std::string OptimizersText();
std::string SchedulesText();

}  // namespace gradweave::command

#endif  // GRADWEAVE_FRONTEND_COMMAND_TRAINING_CHOICES_H_
