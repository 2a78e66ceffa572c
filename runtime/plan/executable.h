// Executable: a plan run step by step on the calling thread.
#ifndef GRADWEAVE_RUNTIME_PLAN_EXECUTABLE_H_
#define GRADWEAVE_RUNTIME_PLAN_EXECUTABLE_H_

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/types/span.h"
#include "gradweave/runtime/plan/binding.h"
#include "gradweave/runtime/plan/compiled_graph.h"
#include "gradweave/runtime/plan/shared_memory.h"

namespace gradweave {

// Operands and outputs of the steps are addresses in arenas, constants, variables or feeds; only
// the addresses of feeds change between runs. Run allocates nothing. The CPU runs plans in this
// way, and so does any device whose kernels can be called one by one. Feeds and constants that such
// a device needs are copied to its memory.
//
// A run keeps copies of the variables that it overwrites, and restores them if its options stop it.
// If the copies would exceed kMostOldBytes, the run goes on to its end: its last steps mostly
// compute new values of variables.
class Executable : public CompiledGraph {
 public:
  static constexpr size_t kMostOldBytes = 1 << 20;

  explicit Executable(std::unique_ptr<Plan> plan) : CompiledGraph(std::move(plan)) {}
  ~Executable() override;

  absl::Status Allocate() override;
  absl::Status Run(absl::Span<const void* const> feeds, absl::Span<Tensor> results, ThreadPool& pool, uint64_t seed,
                   uint64_t run_number, Profiler* profiler = nullptr, const RunOptions& options = {}) override;
  std::string Describe() const override;

 private:
  using Memory = std::shared_ptr<std::byte>;
  // A feed or a constant in the memory of a device beside the CPU.
  struct Source {
    Port root;
    int device;
    size_t offset = 0;        // The place of a feed in the arena.
    Memory memory = nullptr;  // The elements of a constant.
  };

  // A variable that a step writes in place, and where a run keeps its old value.
  struct Write {
    int step;
    Port variable;
    int device;
    size_t bytes;
    size_t offset;  // In old_values_.
  };

  absl::Status TakeMemory();
  void FindWrites();
  absl::Status AddSources(int device, size_t& arena_bytes);
  absl::Status HoldArenas();
  std::byte* AddressOf(const Source& source) const;
  void* Address(Port root, int device) const;
  absl::Status Copy(void* to, int to_device, const void* from, int from_device, size_t bytes) const;
  absl::Status BringVariables();
  absl::Status CopyFeeds(absl::Span<const void* const> feeds);
  absl::Status RunSteps(const RunOptions& options, KernelArguments& arguments, int& step);
  void EndStarted(int step, KernelArguments arguments);
  absl::Status RunStepBesideCpu(int number, KernelArguments arguments);
  absl::Status CopyResults(absl::Span<Tensor> results) const;
  absl::Status UpdateVariables();
  absl::StatusOr<bool> KeepOldValues(int step, size_t& kept);
  absl::Status Stop(const RunOptions& options, int step, size_t kept);

  std::vector<MemoryClaim> claims_;  // Indexed by device.
  std::vector<std::byte*> arenas_;   // Indexed by device, as they were held last.
  std::vector<Source> sources_;
  std::vector<Write> writes_;  // Indexed by step.
  std::vector<std::byte> old_values_;
  Binding binding_;
  bool binding_is_current_ = false;  // Its addresses are those of the arenas.
  bool has_memory_ = false;
};

}  // namespace gradweave

#endif  // GRADWEAVE_RUNTIME_PLAN_EXECUTABLE_H_
