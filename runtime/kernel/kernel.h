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

struct RunOptions;

// The arguments of one execution of a kernel. Pointers are in the order of the node's operands and
// outputs, and aligned as the dtype needs.
struct KernelArguments {
  absl::Span<const void* const> operands;
  absl::Span<void* const> outputs;
  std::byte* scratch = nullptr;  // Kernel::scratch_bytes, aligned to 64.
  std::byte* kept = nullptr;     // Kernel::kept_bytes, aligned to 64, for this kernel alone. Null if there is none.
  bool kept_is_current = false;  // True if `kept` still holds the bytes that this run would write.
  ThreadPool* pool = nullptr;
  uint64_t seed = 0;             // The session's seed.
  uint64_t run_number = 0;       // Counts the session's runs.
  Profiler* profiler = nullptr;  // Set if the run is profiled.
  // Set while the run may be stopped.
  const RunOptions* options = nullptr;
  // Null for kernels of the CPU. For another device, a struct of its backend; the pointers here are
  // then to the device's memory, and the kernel enqueues its work and returns.
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
  // True if the run has to stop. A long kernel calls it between parts of its work, from any thread,
  // and skips the remaining parts. Nothing reads its outputs then. Once true, it stays true for the
  // run.
  bool stopped() const;
};

// A kernel for one node with known sizes. All preparation is done, and `run` allocates nothing.
struct Kernel {
  std::string name;  // For plans and profiles: "im2col+gemm".
  // Outputs do not overlap operands, unless `overwrites` allows it.
  std::function<absl::Status(const KernelArguments&)> run;
  size_t scratch_bytes = 0;
  // Memory for data that depends only on kept_operands, such as packed weights. While these
  // operands do not change, a plan may keep the memory from run to run; the kernel then gets
  // scratch_bytes_with_kept of scratch. Kernels with equal kept_layout write the same bytes for the
  // same kept_operands, so plans share the memory. An empty layout is shared with no other kernel.
  size_t kept_bytes = 0, scratch_bytes_with_kept = 0;
  absl::InlinedVector<int, 2> kept_operands = {};
  std::string kept_layout = {};
  // True if some data make `run` fail, such as an index out of range. Such a kernel runs before any
  // variable changes.
  bool fallible = false;
  // True if `run` may call a library whose products need a workspace of their stream
  // (CudaApi::Gemm).
  bool needs_workspace = false;
  // Pairs {operand, output}: the output may be in the memory of the operand, which has the same
  // size.
  absl::InlinedVector<std::pair<int, int>, 2> overwrites = {};
  // The parts that a profile shows for a kernel that runs several nodes.
  struct Part {
    std::string name;
    NodeId node;
    double flops;
  };
  std::vector<Part> parts = {};
};

// The argument of a factory: a node with known shapes.
struct KernelRequest {
  const Node& node;
  TensorTypes operands;
  // Size of the thread pool of the runs. It may determine the scratch of the threads, but never how
  // work is split.
  int threads = 1;
  // Allows algorithms with fewer multiplications and a larger error (SessionOptions::toom_cook).
  bool toom_cook = true;

  const TensorType& operand(int i) const { return operands[i]; }
  const TensorType& output(int i = 0) const { return node.outputs[i]; }
  template <typename T>
  const T& attribute(absl::string_view name) const {
    return node.attribute<T>(name);
  }
};

// Upper limit of the bytes of a kernel's scratch. No machine has this much memory, and sums of such
// sizes do not overflow.
inline constexpr size_t kMostScratchBytes = size_t{1} << 60;

// Returns the bytes of one area of `elements` elements for each thread, at most kMostScratchBytes.
inline size_t ScratchBytes(int threads, int64_t elements, size_t element_bytes) {
  size_t bytes;
  const bool overflows =
      __builtin_mul_overflow(static_cast<size_t>(elements), static_cast<size_t>(threads) * element_bytes, &bytes);
  return overflows || bytes > kMostScratchBytes ? kMostScratchBytes : bytes;
}

// Returns the kernel for a node, or the reason why there is none.
using KernelFactory = std::function<absl::StatusOr<Kernel>(const KernelRequest&)>;

// The kernels of a device by the name of the op.
class KernelRegistry {
 public:
  void Add(absl::string_view op, KernelFactory factory) { factories_[std::string(op)] = std::move(factory); }
  // Returns null if the device has no kernel for the op.
  const KernelFactory* Find(absl::string_view op) const {
    auto found = factories_.find(op);
    return found == factories_.end() ? nullptr : &found->second;
  }

 private:
  absl::flat_hash_map<std::string, KernelFactory> factories_;
};

}  // namespace gradweave

#endif  // GRADWEAVE_RUNTIME_KERNEL_KERNEL_H_
