#include "gradweave/frontend/c/status.h"

#include <algorithm>
#include <cstddef>

#include "absl/strings/str_cat.h"
#include "gradweave/graph/version.h"

namespace gradweave {
namespace {

// Messages of files are at most 1000 characters and a path long. A longer one loses its end.
constexpr size_t kMostBytes = 4096;
thread_local constinit char last_error[kMostBytes + 1] = "";

// The names of the statuses, in the order of their numbers.
constexpr const char* kStatusNames[] = {
    "OK",        "CANCELLED",      "UNKNOWN",           "INVALID_ARGUMENT",   "DEADLINE_EXCEEDED",
    "NOT_FOUND", "ALREADY_EXISTS", "PERMISSION_DENIED", "RESOURCE_EXHAUSTED", "FAILED_PRECONDITION",
    "ABORTED",   "OUT_OF_RANGE",   "UNIMPLEMENTED",     "INTERNAL",           "UNAVAILABLE",
    "DATA_LOSS", "UNAUTHENTICATED"};
constexpr size_t kStatuses = sizeof(kStatusNames) / sizeof(kStatusNames[0]);
static_assert(kStatuses == GW_UNAUTHENTICATED + 1);
static_assert(GW_INVALID_ARGUMENT == static_cast<int>(absl::StatusCode::kInvalidArgument) &&
              GW_UNAUTHENTICATED == static_cast<int>(absl::StatusCode::kUnauthenticated));

}  // namespace

gw_status KeepError(absl::string_view function, absl::StatusCode code, absl::string_view message) noexcept {
  char* end = last_error;
  for (absl::string_view part : {function, absl::string_view(": "), message})
    end = std::copy_n(part.data(), std::min<size_t>(part.size(), last_error + kMostBytes - end), end);
  *end = '\0';
  const int number = static_cast<int>(code);
  return number >= 0 && number < static_cast<int>(kStatuses) ? static_cast<gw_status>(number) : GW_UNKNOWN;
}

gw_status KeepSuccess() noexcept {
  last_error[0] = '\0';
  return GW_OK;
}

absl::Status CheckGiven(std::initializer_list<std::pair<const char*, const void*>> arguments) {
  for (const auto& [name, pointer] : arguments) {
    if (pointer == nullptr) return absl::InvalidArgumentError(absl::StrCat(name, " is NULL"));
  }
  return absl::OkStatus();
}

}  // namespace gradweave

using gradweave::kStatuses;
using gradweave::kStatusNames;

const char* gw_last_error(void) { return gradweave::last_error; }

const char* gw_status_name(gw_status status) {
  const int number = static_cast<int>(status);
  return number >= 0 && number < static_cast<int>(kStatuses) ? kStatusNames[number] : "UNKNOWN";
}

const char* gw_version(void) { return gradweave::kVersion; }
