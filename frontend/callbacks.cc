#include "gradweave/frontend/callbacks.h"

#include <algorithm>
#include <chrono>
#include <cmath>
#include <memory>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/string_view.h"
#include "gradweave/frontend/named_tensors.h"
#include "gradweave/frontend/process_memory.h"
#include "gradweave/frontend/seconds.h"
#include "gradweave/graph/check.h"

namespace gradweave {
namespace {

using Clock = std::chrono::steady_clock;

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
  constexpr double kMega = 1e6;
  const double batches = static_cast<double>(state.batches);
  const double in_epoch = static_cast<double>(state.batch);
  const double batches_left = batches * static_cast<double>(state.epochs - state.epoch) - in_epoch;
  const double seconds_left =
      state.batches_done > 0 ? state.step_seconds / static_cast<double>(state.batches_done) * batches_left : 0;
  return absl::StrCat(
      absl::StrFormat("epoch %d/%d  batch %d/%d", state.epoch + 1, state.epochs, state.batch, state.batches),
      ToString(state.train),
      std::isnan(state.learning_rate) ? "" : absl::StrFormat("  learning rate %.4g", state.learning_rate),
      absl::StrFormat("  %.0f examples/sec  %.0f s left", state.examples_per_second(), seconds_left),
      absl::StrFormat("  %.0f MB", static_cast<double>(PeakMemory()) / kMega));
}

absl::Status NoFunction(absl::string_view callback) {
  return absl::InvalidArgumentError(absl::StrCat("Fit: the function of ", callback, " is null"));
}

// StateOf makes the tensors that a checkpoint keeps of a goal or of curves. Restore reads them
// back.
NamedTensors StateOf(const BestSoFar& best) {
  NamedTensors state;
  if (best.value.has_value()) state.emplace_back("best", Tensor::Scalar(*best.value));
  return state;
}

absl::Status Restore(const NamedTensors& state, BestSoFar& best) {
  best.value.reset();
  if (Find(state, "best") == nullptr) return absl::OkStatus();
  GW_ASSIGN_OR_RETURN(best.value, Number(state, "best"));
  return absl::OkStatus();
}

NamedTensors StateOf(const std::map<std::string, TrainingCurves::Points>& curves) {
  NamedTensors state;
  for (const auto& [name, points] : curves) {
    Tensor numbers(kFloat64, {static_cast<int64_t>(points.size()), 2});
    double* to = numbers.mutable_data<double>();
    for (const auto& [x, y] : points) {
      *to++ = x;
      *to++ = y;
    }
    state.emplace_back(name, std::move(numbers));
  }
  return state;
}

absl::Status Restore(const NamedTensors& state, std::map<std::string, TrainingCurves::Points>& curves) {
  curves.clear();
  for (const auto& [name, numbers] : state) {
    if (numbers.dtype() != kFloat64 || numbers.rank() != 2 || numbers.size(1) != 2) {
      return absl::InvalidArgumentError(absl::StrCat("the curve '", name, "' is ", numbers.type().ToString()));
    }
    const double* from = numbers.data<double>();
    for (int64_t i = 0; i < numbers.size(0); ++i) curves[name].emplace_back(from[2 * i], from[2 * i + 1]);
  }
  return absl::OkStatus();
}

}  // namespace

Callback PrintProgress(std::ostream& out, bool redraw) {
  auto last_drawn = std::make_shared<Clock::time_point>();
  return {.after_batch =
              [&out, redraw, last_drawn](TrainingState& state) {
                constexpr double kSecondsBetween = 0.1;
                if (redraw && SecondsSince(*last_drawn) > kSecondsBetween) {
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
              },
          .name = "RecordCurves",
          .save_state =
              [&curves, last] {
                NamedTensors state = {{"last", Tensor::Scalar(*last)}};
                Append("train/", StateOf(curves.train), state);
                Append("validation/", StateOf(curves.validation), state);
                return state;
              },
          .restore_state = [&curves, last](const NamedTensors& state) -> absl::Status {
            GW_ASSIGN_OR_RETURN(*last, Integer(state, "last"));
            GW_RETURN_IF_ERROR(Restore(WithPrefix(state, "train/"), curves.train));
            return Restore(WithPrefix(state, "validation/"), curves.validation);
          }};
}

Callback Checkpoint(std::function<absl::Status()> save, int64_t every) {
  return {.after_epoch = [save = std::move(save), every](TrainingState& state) {
    if (every < 1)
      return absl::InvalidArgumentError(
          absl::StrCat("Fit: `every` of Checkpoint is ", every, " and has to be at least 1"));
    if (save == nullptr) return NoFunction("Checkpoint");
    return (state.epoch + 1) % every == 0 ? save() : absl::OkStatus();
  }};
}

Callback StopEarly(Goal goal, int64_t patience) {
  auto best = std::make_shared<BestSoFar>(BestSoFar{std::move(goal)});
  auto epochs_since = std::make_shared<int64_t>(0);
  return {.after_epoch = [best, epochs_since, patience](TrainingState& state) -> absl::Status {
            if (patience < 1) {
              return absl::InvalidArgumentError(
                  absl::StrCat("Fit: the patience of StopEarly is ", patience, " and has to be at least 1"));
            }
            GW_ASSIGN_OR_RETURN(const bool is_better, best->Improve(state.train, state.validation));
            *epochs_since = is_better ? 0 : *epochs_since + 1;
            if (*epochs_since >= patience) state.stop = true;
            return absl::OkStatus();
          },
          .name = "StopEarly",
          .save_state =
              [best, epochs_since] {
                NamedTensors state = StateOf(*best);
                state.emplace_back("epochs_since", Tensor::Scalar(*epochs_since));
                return state;
              },
          .restore_state = [best, epochs_since](const NamedTensors& state) -> absl::Status {
            GW_ASSIGN_OR_RETURN(*epochs_since, Integer(state, "epochs_since"));
            return Restore(state, *best);
          }};
}

Callback SaveBest(Goal goal, std::function<absl::Status()> save) {
  auto best = std::make_shared<BestSoFar>(BestSoFar{std::move(goal)});
  return {.after_epoch = [best, save = std::move(save)](TrainingState& state) -> absl::Status {
            if (save == nullptr) return NoFunction("SaveBest");
            GW_ASSIGN_OR_RETURN(const bool is_better, best->Improve(state.train, state.validation));
            return is_better ? save() : absl::OkStatus();
          },
          .name = "SaveBest",
          .save_state = [best] { return StateOf(*best); },
          .restore_state = [best](const NamedTensors& state) { return Restore(state, *best); }};
}

Callback KeepBest(Goal goal, Session& session) {
  auto variables = std::make_shared<NamedTensors>();
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
  callback.name = "KeepBest";
  callback.save_state = [variables, save_best = callback.save_state] {
    NamedTensors state = save_best();
    Append("variable/", *variables, state);
    return state;
  };
  callback.restore_state = [variables, restore_best = callback.restore_state](const NamedTensors& state) {
    *variables = WithPrefix(state, "variable/");
    return restore_best(state);
  };
  return callback;
}

}  // namespace gradweave
