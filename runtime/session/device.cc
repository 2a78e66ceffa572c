#include "gradweave/runtime/session/device.h"

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/strip.h"
#include "gradweave/runtime/cuda/plan/backend.h"

namespace gradweave {

Device Device::Best() {
  const Device cuda{kCuda, 0};
  return cuda.CheckAvailable().ok() ? cuda : Cpu();
}

absl::StatusOr<Device> Device::Parse(absl::string_view text) {
  absl::string_view rest = text;
  Device device;
  if (absl::ConsumePrefix(&rest, "cuda")) {
    device.kind = kCuda;
  } else if (!absl::ConsumePrefix(&rest, "cpu")) {
    rest = "?";
  }
  const bool indexed = absl::ConsumePrefix(&rest, ":");
  if (indexed ? !absl::SimpleAtoi(rest, &device.index) || device.index < 0 : !rest.empty()) {
    return absl::InvalidArgumentError(
        absl::StrCat("'", text, "' is no device; devices are cpu, cpu:0, cuda and cuda:<index>"));
  }
  return device;
}

absl::Status Device::CheckAvailable() const {
  if (kind == kCuda) return CheckCudaDevice(GetCudaBackend(), index);
  if (index != 0)
    return absl::UnavailableError(
        absl::StrCat("the device ", ToString(), " is not available: there is one CPU device, cpu:0"));
  return absl::OkStatus();
}

std::string Device::ToString() const { return absl::StrCat(kind == kCpu ? "cpu(" : "cuda(", index, ")"); }

}  // namespace gradweave
