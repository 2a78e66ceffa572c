#include "gradweave/frontend/command/training_choices.h"

#include <cmath>
#include <functional>
#include <utility>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_split.h"
#include "gradweave/frontend/command/text.h"
#include "gradweave/frontend/input_file.h"
#include "gradweave/frontend/losses.h"
#include "gradweave/graph/status_macros.h"

namespace gradweave::command {
namespace {

template <typename Rows>
std::vector<std::string> NamesOfRows(const Rows& rows) {
  std::vector<std::string> names;
  for (const auto& row : rows) names.push_back(row.name);
  return names;
}

template <typename Rows>
absl::StatusOr<typename Rows::const_pointer> FindRow(const Rows& rows, absl::string_view what, absl::string_view name) {
  for (const auto& row : rows) {
    if (name == row.name) return &row;
  }
  return absl::NotFoundError(
      absl::StrCat("there is no ", what, " '", PrintableText(name), "'", DidYouMean(name, NamesOfRows(rows))));
}

absl::StatusOr<double> ParseNumber(absl::string_view what, absl::string_view text) {
  double number = 0;
  if (absl::SimpleAtod(text, &number) && std::isfinite(number)) return number;
  return absl::InvalidArgumentError(absl::StrCat(what, ": '", PrintableText(text), "' is not a finite number"));
}

const std::vector<LossChoice>& Losses() {
  static const auto* const losses = new std::vector<LossChoice>{
      {"softmax_cross_entropy", true, [](const Value& x, const Value& y) { return nn::SoftmaxCrossEntropy(x, y); },
       [](const Value& x, const Value& y) { return std::vector<Metric>{metrics::Accuracy(x, y)}; }},
      {"multi_class_hinge", true, [](const Value& x, const Value& y) { return nn::MultiClassHinge(x, y); },
       [](const Value& x, const Value& y) { return std::vector<Metric>{metrics::Accuracy(x, y)}; }},
      {"binary_cross_entropy", false,
       [](const Value& x, const Value& y) { return nn::BinaryCrossEntropyWithLogits(x, y); },
       [](const Value& x, const Value& y) { return std::vector<Metric>{metrics::BinaryAccuracy(x, y)}; }},
      {"mean_squared_error", false, [](const Value& x, const Value& y) { return nn::MeanSquaredError(x, y); },
       [](const Value& x, const Value& y) { return std::vector<Metric>{metrics::MeanAbsoluteError(x, y)}; }},
      {"mean_absolute_error", false, [](const Value& x, const Value& y) { return nn::MeanAbsoluteError(x, y); },
       [](const Value& x, const Value& y) { return std::vector<Metric>{metrics::MeanSquaredError(x, y)}; }},
      {"huber", false, [](const Value& x, const Value& y) { return nn::Huber(x, y); },
       [](const Value& x, const Value& y) { return std::vector<Metric>{metrics::MeanAbsoluteError(x, y)}; }},
  };
  return *losses;
}

// Numbers by name, from the text after the colon: "weight_decay=0.1,clip_norm=1".
using Numbers = std::vector<std::pair<std::string, double>>;

struct OptimizerChoice {
  std::string name;
  std::vector<std::string> options;
  std::function<optim::Optimizer(const Numbers& numbers, const std::optional<optim::LearningRate>& rate)> make;
};

// A row of the table of optimizers: the name, and the options that are numbers.
template <typename O>
OptimizerChoice Choice(const char* name, std::vector<std::pair<const char*, double O::*>> members) {
  OptimizerChoice choice{.name = name};
  for (const auto& [option, member] : members) choice.options.emplace_back(option);
  choice.options.insert(choice.options.end(), {"clip_norm", "clip_value"});
  choice.make = [members](const Numbers& numbers, const std::optional<optim::LearningRate>& rate) {
    O optimizer;
    if (rate.has_value()) optimizer.learning_rate = *rate;
    for (const auto& [name, number] : numbers) {
      if (name == "clip_norm") optimizer.clip_norm = number;
      if (name == "clip_value") optimizer.clip_value = number;
      for (const auto& [option, member] : members) {
        if (name == option) optimizer.*member = number;
      }
    }
    return optim::Optimizer(optimizer);
  };
  return choice;
}

// The options that most have.
template <typename O>
std::vector<std::pair<const char*, double O::*>> Betas() {
  return {{"beta1", &O::beta1}, {"beta2", &O::beta2}, {"weight_decay", &O::weight_decay}};
}
template <typename O>
std::vector<std::pair<const char*, double O::*>> BetasAndEpsilon() {
  auto members = Betas<O>();
  members.emplace_back("epsilon", &O::epsilon);
  return members;
}

const std::vector<OptimizerChoice>& Optimizers() {
  using namespace optim;  // NOLINT: the rows are a table
  static const auto* const optimizers = new std::vector<OptimizerChoice>{
      Choice<Sgd>("sgd", {{"momentum", &Sgd::momentum}, {"weight_decay", &Sgd::weight_decay}}),
      Choice<Adam>("adam", BetasAndEpsilon<Adam>()),
      Choice<AdamW>("adamw", BetasAndEpsilon<AdamW>()),
      Choice<Adamax>("adamax", BetasAndEpsilon<Adamax>()),
      Choice<NAdam>("nadam", BetasAndEpsilon<NAdam>()),
      Choice<RAdam>("radam", BetasAndEpsilon<RAdam>()),
      Choice<RmsProp>("rmsprop", {{"alpha", &RmsProp::alpha},
                                  {"epsilon", &RmsProp::epsilon},
                                  {"momentum", &RmsProp::momentum},
                                  {"weight_decay", &RmsProp::weight_decay}}),
      Choice<Adagrad>("adagrad", {{"epsilon", &Adagrad::epsilon}, {"weight_decay", &Adagrad::weight_decay}}),
      Choice<Adadelta>(
          "adadelta",
          {{"rho", &Adadelta::rho}, {"epsilon", &Adadelta::epsilon}, {"weight_decay", &Adadelta::weight_decay}}),
      Choice<Lion>("lion", Betas<Lion>()),
      Choice<Lamb>("lamb", BetasAndEpsilon<Lamb>()),
      Choice<Muon>("muon", {{"momentum", &Muon::momentum}, {"weight_decay", &Muon::weight_decay}}),
  };
  return *optimizers;
}

// The numbers of a schedule, its number of steps, and the steps of an epoch.
struct ScheduleCall {
  std::vector<double> numbers;
  int64_t steps, per_epoch;
};

struct ScheduleChoice {
  const char* name;
  const char* numbers;  // "RATE[,FINAL]".
  size_t fewest, most;
  optim::Schedule (*make)(const ScheduleCall& call);
};

int64_t Steps(double epochs, int64_t per_epoch) {
  return static_cast<int64_t>(std::llround(epochs * static_cast<double>(per_epoch)));
}

const std::vector<ScheduleChoice>& Schedules() {
  static const auto* const schedules = new std::vector<ScheduleChoice>{
      {"constant", "RATE", 1, 1, [](const ScheduleCall& call) { return optim::ConstantRate(call.numbers[0]); }},
      {"cosine", "RATE[,FINAL]", 1, 2,
       [](const ScheduleCall& call) {
         return optim::CosineDecay(call.numbers[0], call.steps, call.numbers.size() > 1 ? call.numbers[1] : 0);
       }},
      {"one_cycle", "HIGHEST[,WARMUP]", 1, 2,
       [](const ScheduleCall& call) {
         optim::OneCycleOptions options;
         if (call.numbers.size() > 1) options.warmup = call.numbers[1];
         return optim::OneCycle(call.numbers[0], call.steps, options);
       }},
      {"polynomial", "RATE[,POWER]", 1, 2,
       [](const ScheduleCall& call) {
         return optim::PolynomialDecay(call.numbers[0], call.steps, call.numbers.size() > 1 ? call.numbers[1] : 1);
       }},
      {"step", "RATE,FACTOR,EPOCHS", 3, 3,
       [](const ScheduleCall& call) {
         return optim::StepDecay(call.numbers[0], call.numbers[1], Steps(call.numbers[2], call.per_epoch));
       }},
      {"exponential", "RATE,FACTOR,EPOCHS", 3, 3,
       [](const ScheduleCall& call) {
         return optim::ExponentialDecay(call.numbers[0], call.numbers[1], Steps(call.numbers[2], call.per_epoch));
       }},
  };
  return *schedules;
}

}  // namespace

absl::StatusOr<const LossChoice*> FindLoss(absl::string_view name) { return FindRow(Losses(), "loss", name); }

absl::StatusOr<optim::Optimizer> ParseOptimizer(absl::string_view text, std::optional<optim::LearningRate> rate) {
  const std::pair<absl::string_view, absl::string_view> parts = absl::StrSplit(text, absl::MaxSplits(':', 1));
  GW_ASSIGN_OR_RETURN(const OptimizerChoice* const choice, FindRow(Optimizers(), "optimizer", parts.first));
  Numbers numbers;
  for (absl::string_view item : absl::StrSplit(parts.second, ',', absl::SkipEmpty())) {
    const std::pair<absl::string_view, absl::string_view> option = absl::StrSplit(item, absl::MaxSplits('=', 1));
    bool is_known = false;
    for (const std::string& known : choice->options) is_known |= known == option.first;
    if (!is_known) {
      return absl::NotFoundError(absl::StrCat(choice->name, " has no option '", PrintableText(option.first), "'",
                                              DidYouMean(option.first, choice->options)));
    }
    GW_ASSIGN_OR_RETURN(const double number, ParseNumber(absl::StrCat(choice->name, ":", option.first), option.second));
    numbers.emplace_back(option.first, number);
  }
  return choice->make(numbers, rate);
}

absl::StatusOr<optim::Schedule> ParseSchedule(absl::string_view text, int64_t steps, int64_t per_epoch) {
  const bool has_name = text.find(':') != absl::string_view::npos;
  std::pair<absl::string_view, absl::string_view> parts = absl::StrSplit(text, absl::MaxSplits(':', 1));
  if (!has_name) parts = {"constant", text};
  GW_ASSIGN_OR_RETURN(const ScheduleChoice* const choice, FindRow(Schedules(), "schedule", parts.first));
  ScheduleCall call{{}, steps, per_epoch};
  for (absl::string_view item : absl::StrSplit(parts.second, ',')) {
    GW_ASSIGN_OR_RETURN(const double number, ParseNumber(absl::StrCat("--lr=", PrintableText(text)), item));
    call.numbers.push_back(number);
  }
  if (call.numbers.size() < choice->fewest || call.numbers.size() > choice->most) {
    return absl::InvalidArgumentError(
        absl::StrCat("--lr=", PrintableText(text), ": ", choice->name, ":", choice->numbers, " is expected"));
  }
  return choice->make(call);
}

std::string LossesText() { return absl::StrJoin(NamesOfRows(Losses()), ", "); }

std::string OptimizersText() { return absl::StrJoin(NamesOfRows(Optimizers()), ", "); }

std::string SchedulesText() {
  return absl::StrJoin(Schedules(), ", ", [](std::string* text, const ScheduleChoice& choice) {
    absl::StrAppend(text, choice.name, ":", choice.numbers);
  });
}

}  // namespace gradweave::command
