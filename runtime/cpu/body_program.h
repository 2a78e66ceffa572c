// The body of a loop or of a branch, as kernels on planned memory.
#ifndef GRADWEAVE_RUNTIME_CPU_BODY_PROGRAM_H_
#define GRADWEAVE_RUNTIME_CPU_BODY_PROGRAM_H_

#include <cstddef>
#include <cstdint>
#include <memory>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "gradweave/graph/graph.h"
#include "gradweave/runtime/kernel/kernel.h"
#include "gradweave/runtime/plan/binding.h"
#include "gradweave/runtime/plan/plan.h"
#include "gradweave/runtime/plan/steps.h"

namespace gradweave {

// The plan of a body. It is made once and runs any number of times, at other addresses each time.
// Runs allocate nothing. Not thread-safe.
class BodyProgram {
 public:
  // Operands from `first_constant` on are the same in all runs after one call of Begin, and kernels
  // keep data that they compute from them, such as packed weights. `priority` lists all results. If
  // several results are one value, the first one in `priority` is written to its address, and the
  // others are copied from there. Returns InvalidArgument if a shape is not known, else errors of
  // the planner.
  static absl::StatusOr<std::unique_ptr<BodyProgram>> Make(const Graph& body, const StepOptions& options,
                                                           absl::Span<const int> priority, int first_constant);

  // The bytes of memory that runs need, a multiple of 64.
  size_t bytes() const { return bytes_; }
  // True if some data make a run fail.
  bool fallible() const;
  // Adds a part for each step to the kernel of the node, which runs the body. A profiled run
  // measures them, each summed over all runs of the body. `runs` is the number of runs of the body
  // in one run of the kernel, for the FLOPs; 0 if it is known only in the run.
  void AddParts(NodeId node, double runs, Kernel& kernel);
  int num_steps() const { return static_cast<int>(plan_->steps.size()); }
  // The result that is written in place of this one: itself, another one, or -1 if it is copied
  // from an operand or a constant.
  int writer(int result) const { return results_[result].writer; }

  // Begins runs with this memory, aligned to 64.
  void Begin(std::byte* memory);
  // Sets an address for the next run. Results must not overlap operands and each other, but results
  // with one writer may have one address.
  void SetOperand(int i, const void* address);
  void SetResult(int i, void* address);
  absl::Status Run(KernelArguments arguments);

 private:
  using Pointers = std::vector<int>;  // Indices in binding_.
  struct Operand {
    const void* address = nullptr;
    Pointers pointers = {};
  };
  struct Result {
    size_t bytes = 0;
    void* address = nullptr;
    int writer = -1;
    int operand = -1;                // The operand, if it is one.
    const void* constant = nullptr;  // The constant, if it is one.
    Pointers pointers = {};          // Pointers to its buffer, if it is a writer.
  };
  // Memory that the kernel of a step keeps from run to run.
  struct Kept {
    size_t offset = 0;
    bool is_used = false, is_current = false;
  };

  explicit BodyProgram(std::unique_ptr<Plan> plan) : plan_(std::move(plan)) {}
  void PlaceResults(absl::Span<const int> priority);
  void Bind();
  void PlaceKept(int first_constant);

  std::unique_ptr<Plan> plan_;
  Binding binding_;
  std::vector<Operand> operands_;
  std::vector<Result> results_;
  std::vector<std::pair<int, int64_t>> in_arena_;  // Pointers and their offsets.
  std::vector<Kept> kept_;                         // Indexed by step.
  size_t scratch_offset_ = 0, bytes_ = 0;
  int first_part_ = 0;  // The part of the kernel that is the first step's.
  std::byte* memory_ = nullptr;
};

}  // namespace gradweave

#endif  // GRADWEAVE_RUNTIME_CPU_BODY_PROGRAM_H_
