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

// Operands and outputs of the steps are addresses in arenas, in constants, in variables, or in what is fed; only the
// last change between runs. Run allocates nothing. It is how the CPU runs plans, and any device whose kernels can be
// called one by one: feeds and constants that such a device needs are copied to its memory.
class Executable : public CompiledGraph {
 public:
  explicit Executable(std::unique_ptr<Plan> plan) : CompiledGraph(std::move(plan)) {}
  ~Executable() override;

  absl::Status Allocate() override;
  absl::Status Run(absl::Span<const void* const> feeds, absl::Span<Tensor> results, ThreadPool& pool, uint64_t seed,
                   uint64_t run_number, Profiler* profiler = nullptr) override;
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

  absl::Status TakeMemory();
  absl::Status AddSources(int device, size_t& arena_bytes);
  absl::Status HoldArenas();
  std::byte* AddressOf(const Source& source) const;
  void* Address(Port root, int device) const;
  absl::Status Copy(void* to, int to_device, const void* from, int from_device, size_t bytes) const;
  absl::Status BringVariables();
  absl::Status CopyFeeds(absl::Span<const void* const> feeds);
  absl::Status RunStepBesideCpu(int number, KernelArguments arguments);
  absl::Status CopyResults(absl::Span<Tensor> results) const;
  absl::Status UpdateVariables();

  std::vector<MemoryClaim> claims_;  // By device.
  std::vector<std::byte*> arenas_;   // By device, as they were held last.
  std::vector<Source> sources_;
  Binding binding_;
  bool binding_is_current_ = false;  // Its addresses are those of the arenas.
  bool has_memory_ = false;
};

}  // namespace gradweave

#endif  // GRADWEAVE_RUNTIME_PLAN_EXECUTABLE_H_
