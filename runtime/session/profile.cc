#include "gradweave/runtime/session/profile.h"

#include <fstream>

#include "absl/strings/str_cat.h"

namespace gradweave {

absl::Status Profile::WriteTrace(absl::string_view path) const {
  std::ofstream file{std::string(path)};
  file << trace;
  file.close();
  if (file.good()) return absl::OkStatus();
  return absl::UnavailableError(absl::StrCat("the trace cannot be written to '", path, "'"));
}

}  // namespace gradweave
