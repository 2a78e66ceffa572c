// gradweave new: writes a starter project.
#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <string>
#include <system_error>
#include <utility>
#include <vector>

#include "absl/flags/flag.h"
#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_replace.h"
#include "absl/strings/string_view.h"
#include "absl/strings/strip.h"
#include "gradweave/frontend/command/output_file.h"
#include "gradweave/frontend/command/starter.h"
#include "gradweave/frontend/command/subcommands.h"
#include "gradweave/frontend/input_file.h"
#include "gradweave/graph/status_macros.h"
#include "gradweave/graph/version.h"

ABSL_FLAG(
    std::string, gradweave, "",
    "The folder of a clone of Gradweave; without it, the project has no files for Bazel. Default: the one in which "
    "`bazel run` runs the command.");

namespace gradweave::command {
namespace {

// README.md ends with a part for Bazel.
constexpr char kBazelPart[] = "\n## Bazel";

// A Bazel workspace may have this name, and so may a target.
bool IsName(absl::string_view name) {
  for (const char c : name) {
    if (!absl::ascii_isalnum(static_cast<unsigned char>(c)) && c != '_') return false;
  }
  return !name.empty() && absl::ascii_isalpha(static_cast<unsigned char>(name[0]));
}

bool IsForBazel(absl::string_view path) { return path == "BUILD.bazel" || path == "WORKSPACE" || path == ".bazelrc"; }

// Returns the folder in which the running command is installed with the library, or the folder of
// README.md's example.
std::string InstalledPrefix() {
  std::error_code error;
  const std::filesystem::path program = std::filesystem::read_symlink("/proc/self/exe", error);
  const std::filesystem::path prefix = program.parent_path().parent_path();
  const bool is_installed = !error && std::filesystem::exists(prefix / "lib/cmake/Gradweave", error);
  return is_installed ? prefix.string() : "$ENV{HOME}/gradweave";
}

// The files of the project. Without the folder of a clone, those for Bazel are left out.
std::vector<std::pair<std::string, std::string>> ProjectFiles(const std::string& name, const std::string& clone) {
  std::vector<std::pair<std::string, std::string>> files;
  for (const StarterFile& file : StarterFiles()) {
    absl::string_view text = file.text;
    if (clone.empty()) {
      if (IsForBazel(file.path)) continue;
      text = text.substr(0, text.find(kBazelPart));
    }
    files.emplace_back(file.path, absl::StrReplaceAll(text, {{"@NAME@", name},
                                                             {"@GRADWEAVE@", clone},
                                                             {"@PREFIX@", InstalledPrefix()},
                                                             {"@VERSION@", Version()}}));
  }
  return files;
}

// Returns the folder of the clone that the user names or from which `bazel run` runs; empty if
// there is none.
absl::StatusOr<std::string> FindClone() {
  std::string clone = absl::GetFlag(FLAGS_gradweave);
  if (clone.empty()) {
    const char* const workspace = std::getenv("BUILD_WORKSPACE_DIRECTORY");
    if (workspace == nullptr) return "";
    clone = workspace;
  }
  std::error_code error;
  if (!std::filesystem::exists(clone + "/gradweave.h", error)) {
    return absl::NotFoundError(absl::StrCat(clone, ": this is not a clone of Gradweave: it has no gradweave.h"));
  }
  return std::filesystem::canonical(clone, error).string();
}

absl::StatusOr<int> RunNew(absl::Span<const std::string> arguments, std::ostream& out) {
  const std::string path(absl::StripSuffix(arguments[0], "/"));
  const std::string name = path.substr(path.rfind('/') == std::string::npos ? 0 : path.rfind('/') + 1);
  if (!IsName(name)) {
    return UsageError(absl::StrCat("'", PrintableText(name),
                                   "' cannot be the name of a project; letters, digits and _ are expected, a letter "
                                   "first"));
  }
  GW_ASSIGN_OR_RETURN(const std::string clone, FindClone());
  std::error_code error;
  if (std::filesystem::exists(path, error)) return absl::AlreadyExistsError(absl::StrCat(path, ": it exists already"));

  // The folder takes its name when all files are in it.
  const std::string temporary = absl::StrCat(path, ".", getpid());
  if (!std::filesystem::create_directory(temporary, error)) {
    return absl::ErrnoToStatus(error ? error.value() : EEXIST, absl::StrCat(path, ": the folder cannot be made"));
  }
  const std::vector<std::pair<std::string, std::string>> files = ProjectFiles(name, clone);
  absl::Status status;
  for (const auto& [file, text] : files) {
    if (status.ok()) status = WriteText(absl::StrCat(temporary, "/", file), text);
  }
  if (status.ok() && std::rename(temporary.c_str(), path.c_str()) != 0) {
    status = absl::ErrnoToStatus(errno, absl::StrCat(path, ": the folder cannot be made"));
  }
  if (!status.ok()) {
    std::filesystem::remove_all(temporary, error);
    return status;
  }
  for (const auto& [file, text] : files) out << path << "/" << file << "\n";
  out << "\ncd " << path << " && cmake -B build && cmake --build build && build/" << name << "\n";
  if (!clone.empty()) out << "cd " << path << " && bazel run //:" << name << "\n";
  return 0;
}

}  // namespace

Subcommand New() {
  return {.name = "new",
          .arguments = "FOLDER",
          .summary = "Writes a project that trains a small model and saves it, for CMake and Bazel",
          .details =
              "The last part of FOLDER is the project's name. With CMake the project uses the installed library,\n"
              "with Bazel a clone of Gradweave.",
          .flags = {{"gradweave", "FOLDER"}},
          .fewest = 1,
          .most = 1,
          .run = RunNew};
}

}  // namespace gradweave::command
