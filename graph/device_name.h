// Names of devices: "cpu:0", "cuda:1".
#ifndef GRADWEAVE_GRAPH_DEVICE_NAME_H_
#define GRADWEAVE_GRAPH_DEVICE_NAME_H_

#include "absl/strings/match.h"
#include "absl/strings/string_view.h"

namespace gradweave {

inline constexpr char kCpuDevice[] = "cpu:0";

// Returns true for the name of a CUDA device: "cuda", "cuda:1".
inline bool IsCudaDevice(absl::string_view device) { return absl::StartsWith(device, "cuda"); }

}  // namespace gradweave

#endif  // GRADWEAVE_GRAPH_DEVICE_NAME_H_
