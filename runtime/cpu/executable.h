// Executable: a graph compiled for known sizes, as a flat list of kernel calls on planned memory.
#ifndef GRADWEAVE_RUNTIME_CPU_EXECUTABLE_H_
#define GRADWEAVE_RUNTIME_CPU_EXECUTABLE_H_

#include <cstddef>
#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "gradweave/graph/graph.h"
#include "gradweave/graph/partition/batch_regions.h"
#include "gradweave/graph/passes/passes.h"
#include "gradweave/graph/tensor.h"
#include "gradweave/runtime/cpu/compile_options.h"
#include "gradweave/runtime/plan/compiled_graph.h"
#include "gradweave/runtime/kernel/kernel.h"

namespace gradweave {

// Operands and outputs of the steps are addresses in the arena, in constants, in variables, or in what is fed; only the
// last change between runs. Run allocates nothing. Not thread-safe.
class Executable : public CompiledGraph {
 public:
  // The graph has the outputs kFetches and kUpdates and known shapes throughout. Kernels come from the registry.
  // InvalidArgument where a variable is assigned twice, Unimplemented where an op has
  // no kernel, ResourceExhausted where the arena does not fit in memory.
  static absl::StatusOr<std::unique_ptr<Executable>> Compile(Graph graph, const KernelRegistry& kernels,
                                                             const VariableStorage& variables,
                                                             const CompileOptions& options);

  const std::vector<std::string>& input_names() const override { return input_names_; }
  absl::Status Run(absl::Span<const void* const> feeds, absl::Span<Tensor> results, ThreadPool& pool, uint64_t seed,
                   uint64_t run_number, Profiler* profiler = nullptr) override;
  const Graph& graph() const override { return graph_; }
  int64_t arena_bytes() const override { return arena_bytes_; }
  int64_t lower_bound_bytes() const { return lower_bound_bytes_; }

  std::string Describe() const override;

 private:
  friend class Planner;

  // A node, or a region as one.
  struct Step {
    Kernel kernel;
    NodeId node;  // Of a region, the last.
    int num_nodes;
    absl::InlinedVector<Port, 3> operands;
    absl::InlinedVector<Port, 2> outputs;
    int first_operand;        // In pointers_, followed by the outputs.
    int kept = -1;            // In kept_; -1: none.
    double microseconds = 0;  // Of the latest profiled run.
    std::vector<double> part_microseconds = {};
  };
  // A place in pointers_ that gets a feed's address.
  struct FeedPatch {
    int pointer;
    int feed;
  };
  // What a kernel keeps from run to run, of the versions of variables that it was made of.
  struct Kept {
    size_t offset;  // In kept_memory_.
    absl::InlinedVector<const uint64_t*, 2> versions;
    std::optional<uint64_t> made_of = std::nullopt;  // Their sum, which every change makes larger.
  };
  struct Copy {
    int pointer;  // In pointers_: from where.
    void* to;     // Null: the result of that index.
    int result;
    size_t bytes;
  };

  Graph graph_;
  std::vector<Step> steps_;
  std::vector<void*> pointers_;
  std::vector<FeedPatch> feed_patches_;
  std::vector<Copy> result_copies_;
  std::vector<Copy> variable_copies_;         // Of assignments that could not be made in place.
  std::vector<uint64_t*> assigned_versions_;  // Of the variables that runs set.
  std::vector<Kept> kept_;
  std::vector<std::string> input_names_;
  std::shared_ptr<std::byte> arena_;
  std::byte* scratch_ = nullptr;
  std::byte* kept_memory_ = nullptr;
  int64_t arena_bytes_ = 0;
  int64_t lower_bound_bytes_ = 0;
  std::vector<std::string> choices_;  // How regions run, and why, for Describe.
  VariableStorage variables_;         // Keeps the storage alive.
};

// Runs one node on values: the evaluator of constant folding.
absl::StatusOr<std::vector<Tensor>> EvaluateNode(const KernelRegistry& kernels, const Node& node,
                                                 absl::Span<const Tensor> operands);

}  // namespace gradweave

#endif  // GRADWEAVE_RUNTIME_CPU_EXECUTABLE_H_
