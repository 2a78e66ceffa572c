#include "gradweave/frontend/command/output_file.h"

#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>

#include "absl/strings/str_cat.h"
#include "gradweave/frontend/command/command.h"
#include "gradweave/frontend/data/npy_format.h"

namespace gradweave::command {

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

absl::Status WriteText(const std::string& path, const std::string& text) {
  return data::WriteOutputFile(path, [&](FILE* stream) {
    return std::fwrite(text.data(), 1, text.size(), stream) == text.size()
               ? absl::OkStatus()
               : absl::ErrnoToStatus(errno, absl::StrCat(path, ": the file cannot be written"));
  });
}

std::string EndOf(const std::string& path) {
  const size_t point = path.find_last_of("./");
  return point == std::string::npos || path[point] == '/' ? "" : path.substr(point + 1);
}

}  // namespace gradweave::command
