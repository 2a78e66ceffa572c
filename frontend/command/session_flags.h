// Flags that several subcommands share.
#ifndef GRADWEAVE_FRONTEND_COMMAND_SESSION_FLAGS_H_
#define GRADWEAVE_FRONTEND_COMMAND_SESSION_FLAGS_H_

#include <string>
#include <vector>

#include "absl/flags/declare.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"
#include "gradweave/frontend/command/command.h"
#include "gradweave/runtime/session/session.h"

ABSL_DECLARE_FLAG(std::string, device);
ABSL_DECLARE_FLAG(std::vector<std::string>, threads);
ABSL_DECLARE_FLAG(uint64_t, seed);
ABSL_DECLARE_FLAG(gradweave::command::NamedTexts, shape);
ABSL_DECLARE_FLAG(std::vector<std::string>, outputs);
ABSL_DECLARE_FLAG(std::string, output);
ABSL_DECLARE_FLAG(gradweave::command::NamedTexts, input);
ABSL_DECLARE_FLAG(bool, random);
ABSL_DECLARE_FLAG(std::string, loss);

namespace gradweave::command {

// Returns InvalidArgument with the flag, its value and the range unless low <= value <= high.
template <typename Number>
absl::Status CheckRange(const char* flag, Number value, Number low, Number high, const char* range) {
  if (value >= low && value <= high) return absl::OkStatus();
  return absl::InvalidArgumentError(absl::StrCat("--", flag, "=", value, " is outside its range, ", range));
}

// The whole numbers of a flag, with commas between them. A usage error for other text and for
// numbers outside of [low, high].
absl::StatusOr<std::vector<int64_t>> NumbersOf(absl::string_view flag, const std::vector<std::string>& texts,
                                               int64_t low, int64_t high);

// The session's options by --threads, which has one number here, and a device in the text of
// --device. Returns Unavailable for a device that is not there, and InvalidArgument for other texts
// and numbers.
absl::StatusOr<SessionOptions> SessionOptionsFor(const std::string& device);
absl::StatusOr<SessionOptions> SessionFlags();  // Reads --device.

}  // namespace gradweave::command

#endif  // GRADWEAVE_FRONTEND_COMMAND_SESSION_FLAGS_H_
