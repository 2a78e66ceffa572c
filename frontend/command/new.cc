// gradweave new: writes a starter project.
#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <string>
#include <system_error>
#include <vector>

#include "absl/flags/flag.h"
#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_replace.h"
#include "gradweave/frontend/command/output_file.h"
#include "gradweave/frontend/command/starter.h"
#include "gradweave/frontend/command/subcommands.h"
#include "gradweave/frontend/input_file.h"
#include "gradweave/graph/status_macros.h"

ABSL_FLAG(std::string, gradweave, "",
          "The folder of the clone of Gradweave. Default: the one in which `bazel run` runs the command.");

namespace gradweave::command {
namespace {

// A Bazel workspace may have this name, and so may a target.
bool IsName(absl::string_view name) {
  for (const char c : name) {
    if (!absl::ascii_isalnum(static_cast<unsigned char>(c)) && c != '_') return false;
  }
  return !name.empty() && absl::ascii_isalpha(static_cast<unsigned char>(name[0]));
}

absl::Status WriteFiles(const std::string& folder, const std::string& name, const std::string& gradweave) {
  for (const StarterFile& file : StarterFiles()) {
    const std::string text = absl::StrReplaceAll(file.text, {{"@NAME@", name}, {"@GRADWEAVE@", gradweave}});
    GW_RETURN_IF_ERROR(WriteText(absl::StrCat(folder, "/", file.path), text));
  }
  return absl::OkStatus();
}

absl::StatusOr<int> RunNew(absl::Span<const std::string> arguments, std::ostream& out) {
  const std::string& path = arguments[0];
  const std::string name = path.substr(path.rfind('/') == std::string::npos ? 0 : path.rfind('/') + 1);
  if (!IsName(name)) {
    return UsageError(absl::StrCat("'", PrintableText(name),
                                   "' cannot be the name of a project; letters, digits and _ are expected, a letter "
                                   "first"));
  }
  std::string gradweave = absl::GetFlag(FLAGS_gradweave);
  if (gradweave.empty()) {
    const char* const workspace = std::getenv("BUILD_WORKSPACE_DIRECTORY");
    if (workspace == nullptr) return UsageError("--gradweave=FOLDER is expected, the clone of Gradweave");
    gradweave = workspace;
  }
  std::error_code error;
  if (!std::filesystem::exists(gradweave + "/gradweave.h", error)) {
    return absl::NotFoundError(absl::StrCat(gradweave, ": this is no clone of Gradweave: it has no gradweave.h"));
  }
  gradweave = std::filesystem::canonical(gradweave, error).string();
  if (std::filesystem::exists(path, error)) return absl::AlreadyExistsError(absl::StrCat(path, ": it exists already"));

  // The folder takes its name when all files are in it.
  const std::string temporary = absl::StrCat(path, ".", getpid());
  if (!std::filesystem::create_directory(temporary, error)) {
    return absl::ErrnoToStatus(error.value(), absl::StrCat(path, ": the folder cannot be made"));
  }
  absl::Status status = WriteFiles(temporary, name, gradweave);
  if (status.ok() && std::rename(temporary.c_str(), path.c_str()) != 0) {
    status = absl::ErrnoToStatus(errno, absl::StrCat(path, ": the folder cannot be made"));
  }
  if (!status.ok()) {
    std::filesystem::remove_all(temporary, error);
    return status;
  }
  for (const StarterFile& file : StarterFiles()) out << path << "/" << file.path << "\n";
  out << "\ncd " << path << " && bazel run //:" << name << "\n";
  return 0;
}

}  // namespace

Subcommand New() {
  return {.name = "new",
          .arguments = "FOLDER",
          .summary = "Writes a project that builds with Bazel, trains a small model and saves it",
          .details = "The last part of FOLDER is the project's name.",
          .flags = {{"gradweave", "FOLDER"}},
          .fewest = 1,
          .most = 1,
          .run = RunNew};
}

}  // namespace gradweave::command
