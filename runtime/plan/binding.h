// Addresses for a plan's steps, results and updates, and how a step of the CPU runs with them.
#ifndef GRADWEAVE_RUNTIME_PLAN_BINDING_H_
#define GRADWEAVE_RUNTIME_PLAN_BINDING_H_

#include <cstddef>
#include <cstdint>
#include <vector>

#include "absl/functional/function_ref.h"
#include "absl/status/status.h"
#include "absl/types/span.h"
#include "gradweave/runtime/plan/plan.h"

namespace gradweave {

struct Binding {
  // A pointer that each run sets to a feed's address.
  struct FeedPatch {
    int pointer;
    int feed;
  };
  // A fetched value, or the new value of a variable that no step writes in place, and its address.
  struct Result {
    int device;
    int pointer;
    size_t bytes;
  };
  struct Update {
    int device;
    int pointer;
    void* to;
    size_t bytes;
  };

  std::vector<void*> pointers;
  std::vector<int> first_operand;  // Indexed by step, in `pointers`: operands, then outputs.
  std::vector<FeedPatch> feed_patches;
  std::vector<Result> results;  // In the order of fetches.
  std::vector<Update> updates;

  void SetFeeds(absl::Span<const void* const> feeds) {
    for (const FeedPatch& patch : feed_patches) pointers[patch.pointer] = const_cast<void*>(feeds[patch.feed]);
  }
};

// Returns the address of a root's elements in the memory of a device; null for a feed of the CPU,
// whose address each run gives.
using AddressOf = absl::FunctionRef<void*(Port root, int device)>;

Binding BindPlan(const Plan& plan, AddressOf address);

// The address of a root on the CPU, for an arena that begins there. Values are on the CPU, or
// everywhere.
void* HostAddress(const Plan& plan, Port root, std::byte* arena);

// Gives the kernels of the CPU the memory that they keep. Returns ResourceExhausted if there is no
// room.
absl::Status AllocateKept(Plan& plan);

// Returns the error with the node of the step.
absl::Status WithNode(const absl::Status& status, const Plan& plan, const PlanStep& step);

// Runs a kernel, and adds its time to the step and to the profiler of the arguments.
absl::Status RunProfiled(Plan& plan, PlanStep& step, const KernelArguments& arguments);

// Runs a kernel of the CPU with the memory that it keeps. `arguments` has the values that all steps
// share, and gets the others; its scratch is in the CPU's arena. Errors name the node. A profiler
// in the arguments gets the step's time. It is inline because a step of a small model takes about a
// microsecond.
inline absl::Status RunHostStep(Plan& plan, const Binding& binding, int number, KernelArguments& arguments) {
  PlanStep& step = plan.steps[number];
  KeptMemory* const kept = step.kept < 0 ? nullptr : &plan.kept[step.kept];
  uint64_t made_of = 0;
  arguments.kept = nullptr;
  arguments.kept_is_current = false;
  if (kept != nullptr) {
    for (const Variable* variable : kept->variables) made_of += variable->version;
    arguments.kept = kept->block->memory.get();
    arguments.kept_is_current = kept->block->made_of == made_of;
  }
  void* const* pointers = binding.pointers.data() + binding.first_operand[number];
  arguments.operands = {reinterpret_cast<const void* const*>(pointers), step.operands.size()};
  arguments.outputs = {pointers + step.operands.size(), step.outputs.size()};
  absl::Status status = arguments.profiler == nullptr ? step.kernel.run(arguments) : RunProfiled(plan, step, arguments);
  if (!status.ok()) return WithNode(status, plan, step);
  if (kept != nullptr) kept->block->made_of = made_of;
  return status;
}

}  // namespace gradweave

#endif  // GRADWEAVE_RUNTIME_PLAN_BINDING_H_
