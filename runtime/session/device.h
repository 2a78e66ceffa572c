// Devices by name.
#ifndef GRADWEAVE_RUNTIME_SESSION_DEVICE_H_
#define GRADWEAVE_RUNTIME_SESSION_DEVICE_H_

#include <string>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

namespace gradweave {

struct Device {
  enum Kind { kCpu, kCuda };
  Kind kind = kCpu;
  int index = 0;

  static Device Cpu() { return {kCpu, 0}; }
  // The fastest device that this build and this machine have.
  static Device Best();
  // "cpu", "cpu:0", "cuda", "cuda:1". InvalidArgument for other text.
  static absl::StatusOr<Device> Parse(absl::string_view text);
  // Unavailable where this build or machine lacks the device, with what is missing: CUDA support in the build, the
  // driver, a GPU, or one of that index.
  absl::Status CheckAvailable() const;

  // "cpu(0)", as the book writes it.
  std::string ToString() const;
  friend bool operator==(const Device& a, const Device& b) { return a.kind == b.kind && a.index == b.index; }
};

}  // namespace gradweave

#endif  // GRADWEAVE_RUNTIME_SESSION_DEVICE_H_
