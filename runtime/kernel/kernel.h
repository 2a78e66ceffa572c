// Kernels: how an op is executed on a device.
#ifndef GRADWEAVE_RUNTIME_KERNEL_KERNEL_H_
#define GRADWEAVE_RUNTIME_KERNEL_KERNEL_H_

#include <cstddef>
#include <cstdint>
#include <functional>
#include <string>
#include <utility>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "gradweave/graph/graph.h"
#include "gradweave/runtime/kernel/profiler.h"
#include "gradweave/runtime/kernel/thread_pool.h"

namespace gradweave {

// What one execution of a kernel works on. Pointers are in the order of the node's operands and outputs, aligned as the
// dtype needs.
struct KernelArguments {
  absl::Span<const void* const> operands;
  absl::Span<void* const> outputs;
  std::byte* scratch = nullptr;  // Kernel::scratch_bytes, aligned to 64.
  std::byte* kept = nullptr;     // Kernel::kept_bytes, aligned to 64, that nothing else writes to; null: none.
  bool kept_is_current = false;  // What the kernel's last run left there is what this one would put there.
  ThreadPool* pool = nullptr;
  uint64_t seed = 0;             // Of the session.
  uint64_t run_number = 0;       // Counts the session's runs.
  Profiler* profiler = nullptr;  // Of a run that is profiled.
  // For kernels of a device beside the CPU: a struct of its backend. Pointers here are then to the device's memory, and
  // the kernel enqueues its work and returns. Null on the CPU.
  const void* context = nullptr;

  template <typename T>
  const T* operand(int i) const {
    return static_cast<const T*>(operands[i]);
  }
  template <typename T>
  T* output(int i = 0) const {
    return static_cast<T*>(outputs[i]);
  }
  template <typename Context>
  const Context& device() const {
    return *static_cast<const Context*>(context);
  }
};

// A kernel for one node with its sizes known: everything that can be prepared is, and run allocates nothing.
struct Kernel {
  std::string name;  // For plans and profiles: "im2col+gemm".
  // Outputs don't overlap operands, but where overwrites allows it.
  std::function<absl::Status(const KernelArguments&)> run;
  size_t scratch_bytes = 0;
  // Memory for what depends on kept_operands alone, as weights in the order in which loops read them. While these are
  // unchanged, a plan may keep it from one run to the next, and then gives this much scratch.
  size_t kept_bytes = 0, scratch_bytes_with_kept = 0;
  absl::InlinedVector<int, 2> kept_operands = {};
  // Whether run can fail for some data (an index out of range). Such a kernel runs before any variable changes.
  bool fallible = false;
  // Whether run may call a library whose products need a workspace of the stream that they are on (CudaApi::Gemm).
  bool needs_workspace = false;
  // {operand, output}: the output may be the operand's memory. They have the same bytes.
  absl::InlinedVector<std::pair<int, int>, 2> overwrites = {};
  // Of a kernel that runs several nodes: what a profile tells apart.
  struct Part {
    std::string name;
    NodeId node;
    double flops;
  };
  std::vector<Part> parts = {};
};

// What a factory is given: a node of a graph whose shapes are all known.
struct KernelRequest {
  const Node& node;
  TensorTypes operands;
  int threads =
      1;  // Of the pool that runs will have: for scratch that each thread has its own of, never for how work is split.

  const TensorType& operand(int i) const { return operands[i]; }
  const TensorType& output(int i = 0) const { return node.outputs[i]; }
  template <typename T>
  const T& attribute(absl::string_view name) const {
    return node.attribute<T>(name);
  }
};

// Makes the kernel for a node, or says why it cannot.
using KernelFactory = std::function<absl::StatusOr<Kernel>(const KernelRequest&)>;

// The kernels of a device, by op.
class KernelRegistry {
 public:
  void Add(absl::string_view op, KernelFactory factory) { factories_[std::string(op)] = std::move(factory); }
  // Null where the device has no kernel for the op.
  const KernelFactory* Find(absl::string_view op) const {
    auto found = factories_.find(op);
    return found == factories_.end() ? nullptr : &found->second;
  }

 private:
  absl::flat_hash_map<std::string, KernelFactory> factories_;
};

}  // namespace gradweave

#endif  // GRADWEAVE_RUNTIME_KERNEL_KERNEL_H_
