#include "gradweave/runtime/session/device.h"

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "gradweave/runtime/session/backends.h"

namespace gradweave {

Device Device::Best() {
  for (const BackendEntry* entry : Backends()) {
    if (entry->backend.check_available(0).ok()) return {entry->backend.name, 0};
  }
  return Cpu();
}

absl::StatusOr<Device> Device::Parse(absl::string_view text) {
  const size_t colon = text.find(':');
  Device device{std::string(text.substr(0, colon))};
  bool is_device = FindBackend(device.backend) != nullptr;
  if (colon != absl::string_view::npos) {
    is_device &= absl::SimpleAtoi(text.substr(colon + 1), &device.index) && device.index >= 0;
  }
  if (is_device) return device;
  const std::string names = absl::StrJoin(Backends(), ", ", [](std::string* out, const BackendEntry* entry) {
    absl::StrAppend(out, entry->backend.name, " and ", entry->backend.name, ":<index>");
  });
  return absl::InvalidArgumentError(absl::StrCat("'", text, "' is not a device; devices are ", names));
}

absl::Status Device::CheckAvailable() const {
  const BackendEntry* const entry = FindBackend(backend);
  if (entry != nullptr) return entry->backend.check_available(index);
  return absl::UnavailableError(absl::StrCat("the device ", ToString(), " is not available: there is no such backend"));
}

std::string Device::name() const { return absl::StrCat(backend, ":", index); }

std::string Device::ToString() const { return absl::StrCat(backend, "(", index, ")"); }

}  // namespace gradweave
