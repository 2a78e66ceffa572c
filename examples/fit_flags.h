// Flags of the example programs that train: checkpoints, and a check for NaN.
#ifndef GRADWEAVE_EXAMPLES_FIT_FLAGS_H_
#define GRADWEAVE_EXAMPLES_FIT_FLAGS_H_

#include <string>

#include "absl/status/statusor.h"
#include "examples/example.h"
#include "gradweave/gradweave.h"

namespace examples {

// Returns Flags::fit with the flags of this file. Returns InvalidArgument for a flag outside its
// range, or one that needs --checkpoint_dir without it. A program with several trainings gives each
// one a name, which is that of its folder in --checkpoint_dir.
absl::StatusOr<gw::FitOptions> FitFlags(const Flags& flags, const std::string& training = "");

}  // namespace examples

#endif  // GRADWEAVE_EXAMPLES_FIT_FLAGS_H_
