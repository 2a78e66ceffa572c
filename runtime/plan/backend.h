// Backends: kinds of devices that graphs run on. The CPU is one, and CUDA another.
//
// A backend is a folder with kernels, a BackendDevice, and a function that returns its Backend. The
// rest of the engine knows it only through one row in runtime/session/backends.cc. Programs call
// RegisterBackend instead.
#ifndef GRADWEAVE_RUNTIME_PLAN_BACKEND_H_
#define GRADWEAVE_RUNTIME_PLAN_BACKEND_H_

#include <any>
#include <cstddef>
#include <functional>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "gradweave/graph/graph.h"
#include "gradweave/graph/partition/device_parts.h"
#include "gradweave/runtime/kernel/kernel.h"
#include "gradweave/runtime/plan/steps.h"

namespace gradweave {

class CompiledGraph;
struct Plan;

enum class CopyDirection { kToDevice, kToHost, kOnDevice };

// A device that a session has opened. The session calls it from one thread at a time, but not
// always the same one.
class BackendDevice {
 public:
  virtual ~BackendDevice() = default;

  const std::string& name() const { return name_; }  // "cuda:0", as nodes name it.

  // Returns OK if the device can run the node, whose shapes are known, else the reason why not. The
  // CPU runs the other nodes.
  virtual absl::Status CheckSupports(const Graph& graph, const Node& node) const = 0;

  // Replaces ops of a graph by ops that this device alone has. All nodes will run on it, and sizes
  // may be symbols.
  virtual absl::Status Adapt(Graph& graph) const { return (void)graph, absl::OkStatus(); }

  // Returns the steps of each of the device's parts of a graph, with their kernels. Kernels may
  // refer to the parts and the graph, which live as long as the plan. A kernel that depends on the
  // id of a node uses the id in the whole graph. Returns Unimplemented if an op has no kernel.
  virtual absl::StatusOr<std::vector<PartSteps>> MakeSteps(const Graph& graph,
                                                           absl::Span<const DevicePart* const> parts,
                                                           const StepOptions& options) = 0;
  // Returns a kernel that copies this number of bytes within the device's memory.
  virtual Kernel MakeCopyKernel(size_t bytes) = 0;

  // Allocates memory of the device, aligned to 64. It is freed with its last owner. Returns
  // ResourceExhausted, with numbers, if there is no room.
  virtual absl::StatusOr<std::shared_ptr<std::byte>> Allocate(size_t bytes) = 0;
  // Copies after all work that the device has been given, and returns when the copy is done.
  virtual absl::Status Copy(void* to, const void* from, size_t bytes, CopyDirection direction) = 0;

  // Turns a plan whose steps are on the CPU and this device into something that runs. It may change
  // the plan's arena of this device. Without an override, an Executable calls the kernels one after
  // the other.
  virtual absl::StatusOr<std::unique_ptr<CompiledGraph>> Compile(std::unique_ptr<Plan> plan);

 protected:
  explicit BackendDevice(std::string name) : name_(std::move(name)) {}

 private:
  const std::string name_;
};

// A kind of device, as a session knows it before it opens one.
struct Backend {
  std::string name;  // "cuda": its devices are "cuda:0", "cuda:1" and so on.
  // Returns InvalidArgument for options outside their ranges; null if the backend has no options.
  std::function<absl::Status(const std::any& options)> check_options = nullptr;
  // Returns OK if the device of this index can be opened; else Unavailable, with the reason and the
  // remedy.
  std::function<absl::Status(int index)> check_available;
  // Opens a device with the backend's own struct of options; an empty std::any means all defaults.
  std::function<absl::StatusOr<std::shared_ptr<BackendDevice>>(int index, const std::any& options)> open;
};

}  // namespace gradweave

#endif  // GRADWEAVE_RUNTIME_PLAN_BACKEND_H_
