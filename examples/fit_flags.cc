#include "examples/fit_flags.h"

#include <cstdint>
#include <utility>

#include "absl/flags/flag.h"
#include "absl/status/status.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_replace.h"
#include "gradweave/frontend/watch/tensorboard.h"
#include "gradweave/graph/check.h"
#include "gradweave/runtime/distributed/group.h"

ABSL_FLAG(std::string, checkpoint_dir, "",
          "Folder for checkpoints, made if it is missing. SIGINT (Ctrl-C) and SIGTERM then save one before the program "
          "ends. The best epoch's is best.gw.");
ABSL_FLAG(std::string, checkpoint_every, "", "How often: 100steps, 1epoch or 5min; the default is 1epoch.");
ABSL_FLAG(int64_t, checkpoint_keep, 0, "So many of the newest ones are kept, in [1, 1000000]; 0 means 3.");
ABSL_FLAG(bool, resume, false, "Goes on from the newest checkpoint in --checkpoint_dir with the same bits.");
ABSL_FLAG(bool, check_numerics, false,
          "Ends the training at the first NaN or infinity in the loss or a variable, and names the node that made it. "
          "Steps take longer.");

ABSL_FLAG(std::string, tensorboard, "",
          "Folder for TensorBoard's event files, made if it is missing: curves, histograms of weights and gradients, "
          "images and the graph.");
ABSL_FLAG(std::string, report, "",
          "File for a report of the training as one HTML page, such as report.html: curves, confusion matrix, wrong "
          "predictions, plan and times.");

namespace examples {
namespace {

// "linear model" as a part of a path.
std::string PathPart(const std::string& training) { return absl::StrReplaceAll(training, {{" ", "_"}}); }

}  // namespace

absl::StatusOr<gw::FitOptions> FitFlags(const Flags& flags, const std::string& training) {
  gw::FitOptions options = flags.fit;
  options.check_numerics = absl::GetFlag(FLAGS_check_numerics);
  gw::CheckpointOptions& checkpoints = options.checkpoints;
  checkpoints.dir = absl::GetFlag(FLAGS_checkpoint_dir);
  const std::string every = absl::GetFlag(FLAGS_checkpoint_every);
  const int64_t keep = absl::GetFlag(FLAGS_checkpoint_keep);
  checkpoints.resume = absl::GetFlag(FLAGS_resume);
  if (checkpoints.dir.empty()) {
    if (every.empty() && keep == 0 && !checkpoints.resume) return options;
    return absl::InvalidArgumentError(absl::StrCat("--",
                                                   checkpoints.resume ? "resume"
                                                   : every.empty()    ? "checkpoint_keep"
                                                                      : "checkpoint_every",
                                                   " needs --checkpoint_dir, the folder of the checkpoints"));
  }
  GW_RETURN_IF_ERROR(CheckRange<int64_t>("checkpoint_keep", keep, 0, 1'000'000, "[1, 1000000], or 0 for 3"));
  if (keep > 0) checkpoints.keep = keep;
  if (!every.empty()) {
    const absl::StatusOr<gw::CheckpointInterval> interval = gw::ParseCheckpointInterval(every);
    if (!interval.ok()) {
      return absl::InvalidArgumentError(absl::StrCat("--checkpoint_every: ", interval.status().message()));
    }
    checkpoints.every = *interval;
  }
  if (!training.empty()) absl::StrAppend(&checkpoints.dir, "/", PathPart(training));
  return options;
}

absl::Status AddWatchers(const gw::Session& session, const gw::Training& fit, gw::ReportOptions shown,
                         gw::FitOptions& options, const std::string& training) {
  const auto& group = session.options().group;
  if (group != nullptr && !group->is_main()) return absl::OkStatus();
  if (std::string dir = absl::GetFlag(FLAGS_tensorboard); !dir.empty()) {
    if (!training.empty()) absl::StrAppend(&dir, "/", PathPart(training));
    GW_ASSIGN_OR_RETURN(options.callbacks.emplace_back(),
                        gw::TensorBoard(session, fit, {.dir = dir, .samples = shown.samples}));
  }
  if (shown.path = absl::GetFlag(FLAGS_report); !shown.path.empty()) {
    shown.title = kProgram.name;
    shown.batch_size = options.batch_size;
    if (!training.empty()) {
      absl::StrAppend(&shown.title, ": ", training);
      const size_t end = shown.path.size() - (absl::EndsWith(shown.path, ".html") ? 5 : 0);
      shown.path.insert(end, absl::StrCat("_", PathPart(training)));
    }
    GW_ASSIGN_OR_RETURN(options.callbacks.emplace_back(), gw::Report(session, fit, std::move(shown)));
  }
  return absl::OkStatus();
}

}  // namespace examples
