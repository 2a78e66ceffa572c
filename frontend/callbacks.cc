#include "gradweave/frontend/callbacks.h"

#include <algorithm>
#include <chrono>
#include <cmath>
#include <memory>
#include <optional>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_join.h"
#include "gradweave/graph/check.h"

namespace gradweave {
namespace {

using Clock = std::chrono::steady_clock;

double Seconds(Clock::duration duration) { return std::chrono::duration<double>(duration).count(); }

// "  loss 0.473  accuracy 0.823".
std::string ToString(const MetricValues& metrics) {
  std::string text;
  for (const auto& [name, value] : metrics.all()) {
    if (value.num_elements() != 1) continue;
    const double number = value.ToDouble(), size = std::abs(number);
    // Small numbers have three digits too: a loss of 0.00913 still falls.
    constexpr double kLeast = 0.1, kMost = 1e4;
    absl::StrAppend(&text, "  ", name, " ",
                    size == 0 || (size >= kLeast && size < kMost) ? absl::StrFormat("%.3f", number)
                                                                  : absl::StrFormat("%#.3g", number));
  }
  return text;
}

std::string ProgressLine(const TrainingState& state) {
  const double batches = static_cast<double>(state.batches);
  const double in_epoch = static_cast<double>(state.batch);
  const double batches_left = batches * static_cast<double>(state.epochs - state.epoch) - in_epoch;
  const double seconds_left =
      state.batches_done > 0 ? state.step_seconds / static_cast<double>(state.batches_done) * batches_left : 0;
  return absl::StrCat(
      absl::StrFormat("epoch %d/%d  batch %d/%d", state.epoch + 1, state.epochs, state.batch, state.batches),
      ToString(state.train),
      std::isnan(state.learning_rate) ? "" : absl::StrFormat("  learning rate %.4g", state.learning_rate),
      absl::StrFormat("  %.0f examples/sec  %.0f s left", state.examples_per_second(), seconds_left));
}

// The best value of a goal so far.
struct Best {
  Goal goal;
  std::optional<double> value;

  // Returns true if the goal's metric is now better than before, and keeps it.
  absl::StatusOr<bool> Improve(const TrainingState& state) {
    if (!(goal.least_change >= 0)) {
      return absl::InvalidArgumentError(
          absl::StrCat("Fit: least_change is ", goal.least_change, " and has to be at least 0"));
    }
    const MetricValues& metrics = goal.of_training ? state.train : state.validation;
    const Tensor* metric = metrics.Find(goal.metric);
    if (metric == nullptr || metric->num_elements() != 1) {
      return absl::InvalidArgumentError(
          absl::StrCat("Fit: a callback needs the ", goal.of_training ? "training" : "validation", " metric '",
                       goal.metric, "', a scalar; the metrics are ",
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
};

}  // namespace

Callback PrintProgress(std::ostream& out, bool redraw) {
  auto last_drawn = std::make_shared<Clock::time_point>();
  return {.after_batch =
              [&out, redraw, last_drawn](TrainingState& state) {
                constexpr double kSecondsBetween = 0.1;
                if (redraw && Seconds(Clock::now() - *last_drawn) > kSecondsBetween) {
                  out << "\r" << ProgressLine(state) << "\x1b[K" << std::flush;
                  *last_drawn = Clock::now();
                }
                return absl::OkStatus();
              },
          .after_epoch =
              [&out, redraw](TrainingState& state) {
                out << (redraw ? "\r" : "") << ProgressLine(state);
                if (!state.validation.all().empty()) out << "  validation:" << ToString(state.validation);
                out << (redraw ? "\x1b[K" : "") << "\n" << std::flush;
                return absl::OkStatus();
              }};
}

Callback RecordCurves(TrainingCurves& curves, int64_t times_per_epoch) {
  auto last = std::make_shared<int64_t>(0);
  auto record = [](const MetricValues& metrics, double at, std::map<std::string, TrainingCurves::Points>& to) {
    for (const auto& [name, value] : metrics.all()) {
      if (value.num_elements() == 1) to[name].emplace_back(at, value.ToDouble());
    }
  };
  return {.after_batch =
              [&curves, times_per_epoch, last, record](TrainingState& state) {
                const int64_t every = std::max<int64_t>(1, state.batches / std::max<int64_t>(times_per_epoch, 1));
                // Callbacks do not come after every batch.
                const int64_t part = state.batch / every;
                if (part != *last || state.batch == state.batches) {
                  *last = state.batch == state.batches ? 0 : part;
                  record(state.train,
                         static_cast<double>(state.epoch) +
                             static_cast<double>(state.batch) / static_cast<double>(state.batches),
                         curves.train);
                }
                return absl::OkStatus();
              },
          .after_epoch =
              [&curves, record](TrainingState& state) {
                record(state.validation, static_cast<double>(state.epoch + 1), curves.validation);
                return absl::OkStatus();
              }};
}

Callback Checkpoint(std::function<absl::Status()> save, int64_t every) {
  return {.after_epoch = [save = std::move(save), every](TrainingState& state) {
    return (state.epoch + 1) % std::max<int64_t>(every, 1) == 0 ? save() : absl::OkStatus();
  }};
}

Callback StopEarly(Goal goal, int64_t patience) {
  auto best = std::make_shared<Best>(Best{std::move(goal)});
  auto epochs_since = std::make_shared<int64_t>(0);
  return {.after_epoch = [best, epochs_since, patience](TrainingState& state) -> absl::Status {
    if (patience < 1) {
      return absl::InvalidArgumentError(
          absl::StrCat("Fit: the patience of StopEarly is ", patience, " and has to be at least 1"));
    }
    GW_ASSIGN_OR_RETURN(const bool is_better, best->Improve(state));
    *epochs_since = is_better ? 0 : *epochs_since + 1;
    if (*epochs_since >= patience) state.stop = true;
    return absl::OkStatus();
  }};
}

Callback SaveBest(Goal goal, std::function<absl::Status()> save) {
  auto best = std::make_shared<Best>(Best{std::move(goal)});
  return {.after_epoch = [best, save = std::move(save)](TrainingState& state) -> absl::Status {
    GW_ASSIGN_OR_RETURN(const bool is_better, best->Improve(state));
    return is_better ? save() : absl::OkStatus();
  }};
}

Callback KeepBest(Goal goal, Session& session) {
  auto variables = std::make_shared<std::vector<std::pair<std::string, Tensor>>>();
  Callback callback = SaveBest(std::move(goal), [variables, &session]() -> absl::Status {
    variables->clear();
    for (const std::string& name : session.VariableNames()) {
      GW_ASSIGN_OR_RETURN(Tensor value, session.GetVariable(name));
      variables->emplace_back(name, std::move(value));
    }
    return absl::OkStatus();
  });
  callback.after_training = [variables, &session](TrainingState&) -> absl::Status {
    for (const auto& [name, value] : *variables) GW_RETURN_IF_ERROR(session.SetVariable(name, value));
    return absl::OkStatus();
  };
  return callback;
}

}  // namespace gradweave
