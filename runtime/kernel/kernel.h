// Kernels: how an op is executed on a device.
#ifndef GRADWEAVE_RUNTIME_KERNEL_KERNEL_H_
#define GRADWEAVE_RUNTIME_KERNEL_KERNEL_H_

#include <cstddef>
#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "gradweave/graph/graph.h"
#include "gradweave/graph/partition/batch_regions.h"
#include "gradweave/graph/partition/row_regions.h"
#include "gradweave/runtime/kernel/profile.h"
#include "gradweave/runtime/kernel/thread_pool.h"

namespace gradweave {

struct CudaContext;  // Of runtime/cuda/api/api.h.

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
  // Of kernels of the CUDA device, whose pointers here are to device memory: they enqueue their work there, and return.
  const CudaContext* cuda = nullptr;

  template <typename T>
  const T* operand(int i) const {
    return static_cast<const T*>(operands[i]);
  }
  template <typename T>
  T* output(int i = 0) const {
    return static_cast<T*>(outputs[i]);
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
  // Of kernels of the CUDA device: whether run may call CudaApi::Gemm, for which its stream has to have a workspace.
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

// What makes a kernel of a whole batch region is given. Between two regions, values may be kept in tiles.
struct RegionRequest {
  const Graph& graph;
  const BatchRegion& region;
  std::vector<bool> tiled_operands, tiled_outputs;  // By operand and output of the region.
  int threads = 1;
  bool toom_cook = true;  // Whether convolutions may take Toom and Cook's algorithm.
};

// How a device runs batch regions.
struct RegionCompiler {
  int64_t least_batch;                      // With fewer samples, nodes run one by one.
  bool (*supports)(const BatchNode& node);  // Whether the node may be part of a region.
  // Microseconds of one thread that running the region as one is expected to save over its nodes one by one; it is run
  // as one where that is positive. Depends on neither threads nor measurements: results would.
  double (*saving)(const Graph& graph, const BatchRegion& region);
  // Bytes of a value with a batch axis that is kept in tiles.
  int64_t (*tiled_bytes)(const TensorType& type);
  Kernel (*make)(const RegionRequest& request);
};

// What makes a kernel of a whole row region is given. Its operands and outputs are the region's.
struct RowRegionRequest {
  const Graph& graph;
  const RowRegion& region;
  int threads = 1;
};

// How a device runs row regions.
struct RowRegionCompiler {
  bool (*supports)(const Graph& graph, const Node& node);  // Whether the node may be part of a region.
  // Whether the region may begin with that node, whose result has its rows and columns.
  bool (*begins)(const Graph& graph, const Node& producer, const RowRegion& region);
  bool (*pays)(const Graph& graph, const RowRegion& region);  // Whether it is faster than its nodes one by one.
  Kernel (*make)(const RowRegionRequest& request);
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

  void SetRegionCompiler(const RegionCompiler& compiler) { regions_ = compiler; }
  // Null where the device runs nodes one by one.
  const RegionCompiler* regions() const { return regions_.has_value() ? &*regions_ : nullptr; }
  void SetRowRegionCompiler(const RowRegionCompiler& compiler) { row_regions_ = compiler; }
  // Null where the device runs no rows of several nodes.
  const RowRegionCompiler* row_regions() const { return row_regions_.has_value() ? &*row_regions_ : nullptr; }

 private:
  std::optional<RegionCompiler> regions_;
  std::optional<RowRegionCompiler> row_regions_;
  absl::flat_hash_map<std::string, KernelFactory> factories_;
};

// The kernels of the CPU.
const KernelRegistry& CpuKernels();

}  // namespace gradweave

#endif  // GRADWEAVE_RUNTIME_KERNEL_KERNEL_H_
