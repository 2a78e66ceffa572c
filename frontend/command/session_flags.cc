#include "gradweave/frontend/command/session_flags.h"

#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>

#include "absl/flags/flag.h"
#include "absl/strings/match.h"
#include "gradweave/graph/status_macros.h"

ABSL_FLAG(std::string, device, "cpu", "cpu, cuda or cuda:<index>.");
ABSL_FLAG(int32_t, threads, 0, "Threads of a run, in [1, 1024]; 0 means one per processor.");
ABSL_FLAG(uint64_t, seed, 0, "Seed of random inputs, and of all random numbers of a training.");
ABSL_FLAG(gradweave::command::NamedTexts, shape, {},
          "Sizes of an input, which give its symbols their sizes; may be given for each input. A symbol without a "
          "size is 1.");
ABSL_FLAG(std::vector<std::string>, outputs, {}, "The outputs to compute, with commas between them.");
ABSL_FLAG(std::string, output, "", "The file to write.");

namespace gradweave::command {

absl::StatusOr<SessionOptions> SessionOptionsFor(const std::string& device) {
  SessionOptions options;
  options.threads = absl::GetFlag(FLAGS_threads);
  GW_RETURN_IF_ERROR(CheckRange<int32_t>("threads", options.threads, 0, 1024, "[1, 1024], or 0 for all processors"));
  GW_ASSIGN_OR_RETURN(options.device, Device::Parse(device));
  GW_RETURN_IF_ERROR(options.device.CheckAvailable());
  return options;
}

absl::StatusOr<SessionOptions> SessionFlags() { return SessionOptionsFor(absl::GetFlag(FLAGS_device)); }

absl::Status CheckWritable(const std::string& path) {
  if (path.empty()) return UsageError("-o FILE is expected, the file to write");
  struct stat info;
  if (stat(path.c_str(), &info) == 0) {
    if (S_ISDIR(info.st_mode)) return absl::FailedPreconditionError(absl::StrCat(path, ": this is a folder"));
    if (access(path.c_str(), W_OK) == 0) return absl::OkStatus();
    return absl::ErrnoToStatus(errno, absl::StrCat(path, ": the file cannot be written"));
  }
  const size_t slash = path.rfind('/');
  const std::string folder = slash == std::string::npos ? "." : path.substr(0, slash + 1);
  if (access(folder.c_str(), W_OK) == 0) return absl::OkStatus();
  return absl::ErrnoToStatus(errno, absl::StrCat(path, ": the file cannot be written"));
}

}  // namespace gradweave::command
