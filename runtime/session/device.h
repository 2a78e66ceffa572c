// Devices by name.
#ifndef GRADWEAVE_RUNTIME_SESSION_DEVICE_H_
#define GRADWEAVE_RUNTIME_SESSION_DEVICE_H_

#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

namespace gradweave {

struct Device {
  std::string backend = "cpu";  // "cpu", "cuda", or a name that RegisterBackend was given.
  int index = 0;

  static Device Cpu() { return {}; }
  // The fastest device that this build and this machine have.
  static Device Best();
  // Parses the name of a backend, alone or with an index: "cpu", "cpu:0", "cuda", "cuda:1". Returns
  // InvalidArgument for other text.
  static absl::StatusOr<Device> Parse(absl::string_view text);
  // Returns Unavailable if this build or machine lacks the device. The message says what is
  // missing: CUDA support in the build, the driver, a GPU, or a GPU of this index.
  absl::Status CheckAvailable() const;

  bool is_cpu() const { return backend == "cpu"; }
  // Returns "cuda:0", the form that nodes use.
  std::string name() const;
  // Returns "cuda(0)", the form that Dive into Deep Learning uses.
  std::string ToString() const;
  friend bool operator==(const Device& a, const Device& b) { return a.backend == b.backend && a.index == b.index; }
};

}  // namespace gradweave

#endif  // GRADWEAVE_RUNTIME_SESSION_DEVICE_H_
