#include "gradweave/runtime/plan/binding.h"

#include "absl/strings/str_cat.h"
#include "gradweave/graph/check.h"

namespace gradweave {

Binding BindPlan(const Plan& plan, AddressOf address) {
  Binding binding;
  // Adds the address of a value, or for a feed an entry that each run fills in.
  auto add_pointer = [&](Port port, int device) {
    const Port root = plan.Root(port);
    const int index = static_cast<int>(binding.pointers.size());
    binding.pointers.push_back(address(root, device));
    const ValuePlace& place = plan.PlaceOf(root);
    if (place.kind == ValuePlace::kFeed && device == 0) binding.feed_patches.push_back({index, place.index});
    return index;
  };
  for (const PlanStep& step : plan.steps) {
    binding.first_operand.push_back(static_cast<int>(binding.pointers.size()));
    for (Port operand : step.operands) add_pointer(operand, step.from);
    for (Port output : step.outputs) add_pointer(output, step.to);
  }
  if (auto fetches = plan.graph.outputs().find(kFetches); fetches != plan.graph.outputs().end()) {
    for (Port port : fetches->second) {
      const ValuePlace& place = plan.PlaceOf(plan.Root(port));
      const int device = place.is_everywhere() ? 0 : place.device;
      binding.results.push_back({device, add_pointer(port, device), static_cast<size_t>(plan.Bytes(port))});
    }
  }
  for (const Assignment& assignment : plan.assignments) {
    if (assignment.in_place) continue;
    const int device = plan.PlaceOf(assignment.variable).device;
    const int value = add_pointer(assignment.value, device);
    binding.updates.push_back(
        {device, value, address(assignment.variable, device), static_cast<size_t>(plan.Bytes(assignment.variable))});
  }
  return binding;
}

void* HostAddress(const Plan& plan, Port root, std::byte* arena) {
  const ValuePlace& place = plan.PlaceOf(root);
  switch (place.kind) {
    case ValuePlace::kFeed:
      return nullptr;
    case ValuePlace::kConstant:
      return const_cast<void*>(plan.graph.node(root.node).attribute<Tensor>("value").raw_data());
    case ValuePlace::kVariable:
      return place.variable->host.mutable_raw_data();
    case ValuePlace::kArena:
      return arena + plan.arenas[0].memory.offsets[place.index];
    case ValuePlace::kUnset:
      break;
  }
  GW_CHECK(false, "a value has no place: ", DescribeNode(plan.graph, plan.graph.node(root.node)));
  return nullptr;
}

absl::Status AllocateKept(Plan& plan) {
  for (const KeptMemory& kept : plan.kept) {
    if (kept.block->memory != nullptr) continue;
    GW_ASSIGN_OR_RETURN(kept.block->memory, plan.devices[0]->Allocate(kept.block->bytes));
  }
  return absl::OkStatus();
}

absl::Status RunProfiled(Plan& plan, PlanStep& step, const KernelArguments& arguments) {
  Profiler& profiler = *arguments.profiler;
  const double begin = profiler.Now();
  absl::Status status = step.kernel.run(arguments);
  const double end = profiler.Now();
  profiler.AddSpan(0, absl::StrCat(plan.graph.node(step.node).display_name(), ": ", step.kernel.name), begin, end);
  step.microseconds = end - begin;
  step.part_microseconds = profiler.TakeParts();
  return status;
}

absl::Status WithNode(const absl::Status& status, const Plan& plan, const PlanStep& step) {
  if (status.ok()) return status;
  return absl::Status(status.code(),
                      absl::StrCat(status.message(), "; in ", DescribeNode(plan.graph, plan.graph.node(step.node))));
}

}  // namespace gradweave
