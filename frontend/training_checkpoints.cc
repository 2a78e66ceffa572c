#include "gradweave/frontend/training_checkpoints.h"

#include <fcntl.h>
#include <signal.h>
#include <sys/file.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cmath>
#include <filesystem>
#include <iostream>
#include <limits>
#include <set>
#include <system_error>
#include <utility>

#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/strip.h"
#include "gradweave/frontend/user_functions.h"
#include "gradweave/graph/check.h"
#include "gradweave/graph/graph.h"
#include "gradweave/graph/out_of_memory.h"

namespace gradweave {
namespace {

namespace fs = std::filesystem;

constexpr char kStem[] = "checkpoint_", kExtension[] = ".gw", kBest[] = "best.gw";
constexpr int64_t kMostCount = 1'000'000'000;

// Returns the step of a name "checkpoint_<step>.gw<rest>" and its rest, or nothing.
std::optional<std::pair<int64_t, std::string>> ParseName(absl::string_view name) {
  if (!absl::ConsumePrefix(&name, kStem)) return std::nullopt;
  const size_t digits = std::min(name.find_first_not_of("0123456789"), name.size());
  int64_t step = 0;
  if (!absl::SimpleAtoi(name.substr(0, digits), &step)) return std::nullopt;
  name.remove_prefix(digits);
  if (!absl::ConsumePrefix(&name, kExtension)) return std::nullopt;
  return std::pair(step, std::string(name));
}

std::string NameOfStep(int64_t step) { return absl::StrCat(kStem, absl::StrFormat("%012d", step), kExtension); }

// The content of a folder: the steps of its checkpoints, and the names that have leftovers of
// killed trainings.
struct Contents {
  std::set<int64_t, std::greater<>> steps;
  bool has_best = false;
  std::set<std::string> leftovers;
};

absl::StatusOr<Contents> Read(const std::string& folder) {
  Contents contents;
  std::error_code error;
  for (fs::directory_iterator entry(folder, error), end; !error && entry != end; entry.increment(error)) {
    const std::string name = entry->path().filename();
    const auto parsed = ParseName(name);
    if (name == kBest) contents.has_best = true;
    if (absl::StartsWith(name, absl::StrCat(kBest, "."))) contents.leftovers.insert(kBest);
    if (!parsed.has_value()) continue;
    if (name == NameOfStep(parsed->first)) contents.steps.insert(parsed->first);
    if (absl::StartsWith(parsed->second, ".")) contents.leftovers.insert(NameOfStep(parsed->first));
  }
  if (error) return absl::ErrnoToStatus(error.value(), absl::StrCat(folder, ": the folder cannot be read"));
  return contents;
}

// A training cannot continue from a state with NaN or infinities.
absl::Status CheckFinite(const Model& model) {
  for (const auto& [name, value] : model.variables) {
    const Node& node = model.graph.node(model.graph.FindNamed(name));
    if (!IsFloating(value.dtype()) || !node.attribute<bool>("trainable")) continue;
    const auto is_finite = [](auto number) { return std::isfinite(number); };
    const absl::Span<const float> floats = value.values<float>();
    const absl::Span<const double> doubles = value.values<double>();
    if (std::all_of(floats.begin(), floats.end(), is_finite) && std::all_of(doubles.begin(), doubles.end(), is_finite))
      continue;
    return absl::InvalidArgumentError(absl::StrCat(
        "variable '", name, "' has NaN or infinite elements; FitOptions::check_numerics finds their source"));
  }
  return absl::OkStatus();
}

// Writes the files, and then removes all checkpoints but the newest ones. Checkpoints of later
// steps belong to an earlier continuation from here, or are damaged; they do not count.
absl::Status WriteFiles(const Model& model, const std::string& dir, const std::vector<std::string>& names, int64_t step,
                        int64_t keep) try {
  absl::Status status = CheckFinite(model);
  for (const std::string& name : names) {
    if (status.ok()) status = SaveModel(model, absl::StrCat(dir, "/", name));
  }
  if (!status.ok()) {
    return absl::Status(status.code(),
                        absl::StrCat("Fit: no checkpoint of step ", step, " was written: ", status.message()));
  }
  GW_ASSIGN_OR_RETURN(const Contents contents, Read(dir));
  for (auto old = contents.steps.lower_bound(step); old != contents.steps.end(); ++old) {
    if (keep-- > 0) continue;
    GW_RETURN_IF_ERROR(RemoveModel(absl::StrCat(dir, "/", NameOfStep(*old))));
  }
  return absl::OkStatus();
}
GW_CATCH_OUT_OF_MEMORY("Fit: the checkpoint")

absl::Status CheckOptions(const CheckpointOptions& options) {
  if (options.every.count < 1 || options.every.count > kMostCount) {
    return absl::InvalidArgumentError(absl::StrCat("Fit: the interval of checkpoints is ", options.every.count,
                                                   " and has to be in [1, ", kMostCount, "]"));
  }
  if (options.keep >= 1) return absl::OkStatus();
  return absl::InvalidArgumentError(
      absl::StrCat("Fit: checkpoints.keep is ", options.keep, " and has to be at least 1"));
}

}  // namespace

absl::StatusOr<CheckpointInterval> ParseCheckpointInterval(absl::string_view text) {
  static constexpr struct {
    const char* name;
    CheckpointInterval::Unit unit;
  } kUnits[] = {{"step", CheckpointInterval::kSteps},     {"steps", CheckpointInterval::kSteps},
                {"epoch", CheckpointInterval::kEpochs},   {"epochs", CheckpointInterval::kEpochs},
                {"min", CheckpointInterval::kMinutes},    {"minute", CheckpointInterval::kMinutes},
                {"minutes", CheckpointInterval::kMinutes}};
  const size_t digits = std::min(text.find_first_not_of("0123456789"), text.size());
  CheckpointInterval interval;
  const bool is_number = absl::SimpleAtoi(text.substr(0, digits), &interval.count);
  for (const auto& [name, unit] : kUnits) {
    if (text.substr(digits) != name || !is_number || interval.count < 1 || interval.count > kMostCount) continue;
    interval.unit = unit;
    return interval;
  }
  return absl::InvalidArgumentError(absl::StrCat("'", text,
                                                 "' is not an interval of checkpoints; give a whole number in [1, ",
                                                 kMostCount, "] with a unit: 100steps, 1epoch or 5min"));
}

bool CheckpointTimer::IsDueAfterStep(int64_t step, Clock::time_point now) {
  if (last_step < 0) last_step = step - 1;
  switch (every.unit) {
    case CheckpointInterval::kSteps:
      return step / every.count > last_step / every.count;
    case CheckpointInterval::kMinutes:
      return now - last_time >= std::chrono::minutes(every.count);
    case CheckpointInterval::kEpochs:
      break;
  }
  return false;
}

bool CheckpointTimer::IsDueAfterEpoch(int64_t epochs) const {
  return every.unit == CheckpointInterval::kEpochs && epochs % every.count == 0;
}

void CheckpointTimer::Restart(int64_t step, Clock::time_point now) {
  last_step = step;
  last_time = now;
}

TrainingCheckpoints::TrainingCheckpoints(CheckpointOptions options, Session& session)
    : options_(std::move(options)), session_(session), timer_{.every = options_.every} {}

TrainingCheckpoints::~TrainingCheckpoints() {
  if (writing_.valid()) writing_.wait();
  if (folder_ >= 0) close(folder_);
}

absl::StatusOr<std::unique_ptr<TrainingCheckpoints>> TrainingCheckpoints::Open(CheckpointOptions options,
                                                                               Session& session) try {
  GW_RETURN_IF_ERROR(CheckOptions(options));
  std::unique_ptr<TrainingCheckpoints> checkpoints(new TrainingCheckpoints(std::move(options), session));
  GW_RETURN_IF_ERROR(checkpoints->OpenFolder());
  if (checkpoints->options_.stop_on_signals) checkpoints->signals_.emplace();
  return checkpoints;
}
GW_CATCH_OUT_OF_MEMORY("TrainingCheckpoints::Open")

absl::Status TrainingCheckpoints::OpenFolder() {
  const std::string& dir = options_.dir;
  std::error_code error;
  fs::create_directories(dir, error);
  folder_ = open(dir.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (folder_ < 0) return absl::ErrnoToStatus(errno, absl::StrCat("Fit: the folder ", dir, " cannot be opened"));
  if (access(dir.c_str(), W_OK) != 0)
    return absl::ErrnoToStatus(errno, absl::StrCat("Fit: the folder ", dir, " is not writable"));
  // Some file systems have no locks.
  if (flock(folder_, LOCK_EX | LOCK_NB) != 0 && errno == EWOULDBLOCK) {
    return absl::FailedPreconditionError(
        absl::StrCat("Fit: another training keeps its checkpoints in ", dir, "; each needs a folder of its own"));
  }
  GW_ASSIGN_OR_RETURN(const Contents contents, Read(dir));
  for (const std::string& name : contents.leftovers) GW_RETURN_IF_ERROR(RemoveLeftovers(absl::StrCat(dir, "/", name)));
  if (options_.resume) return Resume();
  if (contents.steps.empty() && !contents.has_best) return absl::OkStatus();
  return absl::FailedPreconditionError(absl::StrCat(
      "Fit: ", dir,
      " has checkpoints of an earlier training; resume continues it, and a new one needs an empty folder"));
}

absl::Status TrainingCheckpoints::Resume() {
  GW_ASSIGN_OR_RETURN(const Contents contents, Read(options_.dir));
  std::vector<std::string> names;
  for (int64_t step : contents.steps) names.push_back(NameOfStep(step));
  if (contents.has_best) names.push_back(kBest);
  // Ops of the program's own are in the registry of the graph's nodes.
  LoadOptions load{.memory_limit = std::numeric_limits<int64_t>::max()};
  if (session_.graph().num_nodes() > 0) load.registry = session_.graph().node(0).op->registry;
  absl::Status first_error;
  for (size_t i = 0; i < names.size(); ++i) {
    const std::string path = absl::StrCat(options_.dir, "/", names[i]);
    absl::StatusOr<Model> model = LoadModel(path, load);
    if (!model.ok()) {
      first_error.Update(model.status());
      if (i + 1 < names.size()) {
        GW_RETURN_IF_ERROR(Tell(absl::StrCat(model.status().message(), "; ", names[i + 1], " takes its place")));
      }
      continue;
    }
    if (absl::Status status = GiveState(*model); !status.ok()) {
      return absl::Status(status.code(),
                          absl::StrCat("Fit: the training cannot continue from ", path, ": ", status.message()));
    }
    resumed_ = std::move(model->extra);
    resumed_path_ = path;
    return absl::OkStatus();
  }
  if (!first_error.ok()) {
    return absl::DataLossError(absl::StrCat("Fit: none of the ", names.size(), " checkpoints in ", options_.dir,
                                            " can be read: ", first_error.message()));
  }
  return Tell(absl::StrCat(options_.dir, " has no checkpoint; the training begins"));
}

absl::Status TrainingCheckpoints::GiveState(const Model& model) const {
  if (model.seed != session_.seed()) {
    return absl::InvalidArgumentError(
        absl::StrCat("its session had the seed ", model.seed, ", and this one has ", session_.seed()));
  }
  const Graph& graph = session_.graph();
  for (const std::string& name : session_.VariableNames()) {
    const TensorType& type = graph.node(graph.FindNamed(name)).outputs[0];
    const auto value = std::find_if(model.variables.begin(), model.variables.end(),
                                    [&](const auto& variable) { return variable.first == name; });
    if (value != model.variables.end() && value->second.type() == type) continue;
    return absl::InvalidArgumentError(absl::StrCat(
        "it is of another model: its variable '", name, "' ",
        value == model.variables.end() ? "is missing" : absl::StrCat("is ", value->second.type().ToString()),
        ", and has to be ", type.ToString()));
  }
  for (const auto& [name, value] : model.variables) {
    const NodeId id = graph.FindNamed(name);
    if (id >= 0 && graph.node(id).op->kind == OpKind::kVariable) continue;
    return absl::InvalidArgumentError(
        absl::StrCat("it is of another model: this one has no variable '", name, "', ", value.type().ToString()));
  }
  for (const auto& [name, value] : model.variables) GW_RETURN_IF_ERROR(session_.SetVariable(name, value));
  session_.SetRunNumber(model.run_number);
  return absl::OkStatus();
}

absl::Status TrainingCheckpoints::Tell(const std::string& line) const {
  if (options_.tell == nullptr) {
    std::cerr << "gradweave: " << line << std::endl;
    return absl::OkStatus();
  }
  return CallUserFunction("Fit: CheckpointOptions::tell", [&] {
    options_.tell(line);
    return absl::OkStatus();
  });
}

std::string TrainingCheckpoints::CheckpointName() const { return NameOfStep(now_.step); }

absl::Status TrainingCheckpoints::Finish(bool wait) {
  if (!writing_.valid()) return absl::OkStatus();
  if (!wait && writing_.wait_for(std::chrono::seconds(0)) != std::future_status::ready) return absl::OkStatus();
  return writing_.get();
}

absl::Status TrainingCheckpoints::Write(std::vector<std::string> names, State state,
                                        std::optional<uint64_t> run_number) try {
  GW_RETURN_IF_ERROR(Finish(/*wait=*/true));
  GW_ASSIGN_OR_RETURN(Model model, ModelOf(session_));
  GW_ASSIGN_OR_RETURN(model.extra, state());
  if (run_number.has_value()) model.run_number = *run_number;
  // If the thread cannot be created, the function and the model that it shares do not change.
  const auto write = [model = std::make_shared<const Model>(std::move(model)), dir = options_.dir,
                      names = std::move(names), step = now_.step,
                      keep = options_.keep] { return WriteFiles(*model, dir, names, step, keep); };
  try {
    writing_ = std::async(std::launch::async, write);
  } catch (const std::system_error&) {
    return write();  // The system has no more threads.
  }
  return absl::OkStatus();
}
GW_CATCH_OUT_OF_MEMORY("Fit: the checkpoint")

absl::Status TrainingCheckpoints::AfterStep(int64_t step, State state) {
  GW_ASSIGN_OR_RETURN(const bool is_due, IsDue(step));
  return is_due ? SaveNow(state) : absl::OkStatus();
}

absl::StatusOr<bool> TrainingCheckpoints::IsDue(int64_t step) {
  now_ = {step, false};
  GW_RETURN_IF_ERROR(Finish(/*wait=*/false));
  return stops() || (timer_.IsDueAfterStep(step, CheckpointTimer::Clock::now()) && !writing_.valid());
}

absl::Status TrainingCheckpoints::SaveNow(State state) {
  if (stops()) return Stop(now_.step, state);
  timer_.Restart(now_.step, CheckpointTimer::Clock::now());
  saved_ = now_;
  return Write({CheckpointName()}, state);
}

absl::Status TrainingCheckpoints::AfterEpoch(int64_t step, int64_t epochs, bool is_best, State state) {
  now_ = {step, true};
  GW_RETURN_IF_ERROR(Finish(/*wait=*/false));
  std::vector<std::string> names;
  // The best one comes first: if the process ends between the two, the training continues from
  // before this epoch and writes the best one again.
  if (is_best) names.push_back(kBest);
  if (timer_.IsDueAfterEpoch(epochs) || stops()) {
    names.push_back(CheckpointName());
    saved_ = now_;
  }
  if (!names.empty()) GW_RETURN_IF_ERROR(Write(std::move(names), state));
  return stops() ? Stop(step, state) : absl::OkStatus();
}

absl::Status TrainingCheckpoints::AtEnd(int64_t step, State state) {
  if (!(now_ == saved_)) {
    saved_ = now_;
    GW_RETURN_IF_ERROR(Write({CheckpointName()}, state));
  }
  GW_RETURN_IF_ERROR(Finish(/*wait=*/true));
  return stops() ? Stop(step, state) : absl::OkStatus();
}

absl::Status TrainingCheckpoints::Stop(int64_t step, State state, std::optional<uint64_t> run_number) {
  const int signal = StopSignals::Received();
  if (signal == 0) return absl::FailedPreconditionError("Stop: no signal has come; call it only if stops() is true");
  if (!(now_ == saved_)) {
    saved_ = now_;
    GW_RETURN_IF_ERROR(Write({CheckpointName()}, state, run_number));
  }
  GW_RETURN_IF_ERROR(Finish(/*wait=*/true));
  return StoppedBySignal(
      signal, absl::StrCat(signal == SIGINT ? "SIGINT" : "SIGTERM", " ended the training after step ", step, "; ",
                           options_.dir, "/", CheckpointName(), " has its state"));
}

}  // namespace gradweave
