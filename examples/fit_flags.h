// Flags of the example programs that train: checkpoints, a check for NaN, and what shows the
// training.
#ifndef GRADWEAVE_EXAMPLES_FIT_FLAGS_H_
#define GRADWEAVE_EXAMPLES_FIT_FLAGS_H_

#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "examples/example.h"
#include "gradweave/frontend/watch/report.h"
#include "gradweave/gradweave.h"

namespace examples {

// Returns Flags::fit with the flags of this file. Returns InvalidArgument for a flag outside its
// range, or one that needs --checkpoint_dir without it. A program with several trainings gives each
// one a name, which is also the name of its folder in --checkpoint_dir.
absl::StatusOr<gw::FitOptions> FitFlags(const Flags& flags, const std::string& training = "");

// Adds the callbacks of --tensorboard and --report, if these flags are given. Of `shown` the
// samples are used, and for the report also logits, label and classes. `training` is the name given
// to FitFlags: a folder in --tensorboard, and the end of the name of the file of --report. In a
// group only the main process has them. Returns the errors of TensorBoard and Report. The session
// must outlive the training.
absl::Status AddWatchers(const gw::Session& session, const gw::Training& fit, gw::ReportOptions shown,
                         gw::FitOptions& options, const std::string& training = "");

}  // namespace examples

#endif  // GRADWEAVE_EXAMPLES_FIT_FLAGS_H_
