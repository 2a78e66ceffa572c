// The frame of the command `gradweave`: subcommands, their flags and their errors.
#ifndef GRADWEAVE_FRONTEND_COMMAND_COMMAND_H_
#define GRADWEAVE_FRONTEND_COMMAND_COMMAND_H_

#include <ostream>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/types/span.h"

namespace gradweave::command {

// A flag of a subcommand: its Abseil flag, and the name of its value in --help ("FILE").
struct FlagUse {
  const char* name;
  const char* value = "";  // Empty for a bool.
  const char* help = "";   // The meaning of the flag here, if that is not the flag's own help.
};

// One subcommand. Its function takes the arguments that are not flags, and prints to `out`. It
// returns the exit code, 0 or 1, or an error, which becomes one line on stderr and exit code 1.
struct Subcommand {
  const char* name;
  const char* arguments;  // "MODEL", as --help shows them.
  const char* summary;    // One line without a full stop.
  const char* details;    // Lines of --help, in width.
  std::vector<FlagUse> flags;
  int fewest, most;  // The number of arguments.
  absl::StatusOr<int> (*run)(absl::Span<const std::string> arguments, std::ostream& out);
};

// An error in how the command was called. Its exit code is 2.
absl::Status UsageError(absl::string_view message);

// Runs the subcommand that argv names. Returns the exit code: 0, 1 after an error or if a
// subcommand finds a difference, 2 for a wrong call, and 130 or 143 after a signal that has ended a
// training.
int Main(absl::Span<const Subcommand> subcommands, int argc, char** argv);

// The flags --shape and --input may be given several times: NAME=VALUE.
struct NamedTexts {
  std::vector<std::pair<std::string, std::string>> items;
};
bool AbslParseFlag(absl::string_view text, NamedTexts* flag, std::string* error);
std::string AbslUnparseFlag(const NamedTexts& flag);

}  // namespace gradweave::command

#endif  // GRADWEAVE_FRONTEND_COMMAND_COMMAND_H_
