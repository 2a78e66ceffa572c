#include "gradweave/runtime/plan/plan.h"

#include <algorithm>
#include <numeric>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_join.h"
#include "gradweave/graph/check.h"

namespace gradweave {
namespace {

std::string PortText(const Plan& plan, Port port) {
  return absl::StrCat(plan.graph.node(port.node).display_name(),
                      port.output == 0 ? "" : absl::StrCat(":", port.output));
}

absl::Status StepError(const Plan& plan, int number, absl::string_view problem) {
  const PlanStep& step = plan.steps[number];
  return absl::InternalError(absl::StrCat("step ", number, ", ", step.kernel.name, ", ", problem, ": ",
                                          DescribeNode(plan.graph, plan.graph.node(step.node))));
}

// Returns true if no two buffers overlap while both are live.
bool LieApart(const Arena& arena) {
  std::vector<int> order(arena.buffers.size());
  std::iota(order.begin(), order.end(), 0);
  std::stable_sort(order.begin(), order.end(),
                   [&](int a, int b) { return arena.buffers[a].first < arena.buffers[b].first; });
  std::vector<int> alive;
  for (int i : order) {
    const BufferLifetime& buffer = arena.buffers[i];
    const int64_t begin = arena.memory.offsets[i];
    std::erase_if(alive, [&](int other) { return arena.buffers[other].last < buffer.first; });
    for (int other : alive) {
      const int64_t other_begin = arena.memory.offsets[other];
      if (begin < other_begin + arena.buffers[other].bytes && other_begin < begin + buffer.bytes) return false;
    }
    if (begin < 0 || begin + buffer.bytes > arena.memory.arena_bytes) return false;
    alive.push_back(i);
  }
  return true;
}

}  // namespace

int64_t Plan::Bytes(Port port) const {
  const auto found = value_bytes.find(port);
  return found != value_bytes.end() ? found->second : graph.type(port).byte_size();
}

int Plan::DeviceNamed(absl::string_view name) const {
  for (size_t i = devices.size(); i-- > 1;) {
    if (devices[i]->name() == name) return static_cast<int>(i);
  }
  return 0;
}

bool Plan::UsesDevices() const {
  return std::any_of(steps.begin(), steps.end(), [](const PlanStep& step) { return !step.is_on(0); }) ||
         std::any_of(variables.begin(), variables.end(), [](const VariableUse& used) { return used.device != 0; });
}

std::string PlanToText(const Plan& plan) {
  auto ports = [&](const auto& list) {
    return absl::StrJoin(list, ", ",
                         [&](std::string* text, Port port) { absl::StrAppend(text, PortText(plan, port)); });
  };
  std::string text;
  for (size_t i = 0; i < plan.steps.size(); ++i) {
    const PlanStep& step = plan.steps[i];
    absl::StrAppendFormat(&text, "%4d %s %s(%s) -> %s\n", i, plan.devices[step.to]->name(), step.kernel.name,
                          ports(step.operands), ports(step.outputs));
  }
  for (const Assignment& assignment : plan.assignments) {
    absl::StrAppend(&text, PortText(plan, assignment.variable), " = ", PortText(plan, assignment.value),
                    assignment.in_place ? ", in place\n" : "\n");
  }
  for (size_t device = 0; device < plan.arenas.size(); ++device) {
    const Arena& arena = plan.arenas[device];
    absl::StrAppend(&text, "arena of ", plan.devices[device]->name(), ", ", arena.bytes(), " bytes\n");
    for (size_t i = 0; i < arena.buffers.size(); ++i) {
      const BufferLifetime& buffer = arena.buffers[i];
      absl::StrAppendFormat(&text, "  %-32s steps %d to %d, %d bytes",
                            i < arena.owners.size() ? PortText(plan, arena.owners[i]) : "scratch", buffer.first,
                            buffer.last, buffer.bytes);
      if (i < arena.memory.offsets.size()) absl::StrAppend(&text, " at ", arena.memory.offsets[i]);
      text += "\n";
    }
  }
  return text;
}

absl::Status VerifyPlan(const Plan& plan) {
  for (int i = 0; i < static_cast<int>(plan.steps.size()); ++i) {
    const PlanStep& step = plan.steps[i];
    for (Port operand : step.operands) {
      const Port root = plan.Root(operand);
      const ValuePlace& place = plan.PlaceOf(root);
      if (place.kind == ValuePlace::kUnset) return StepError(plan, i, "reads a value that has no place");
      if (!place.is_everywhere() && place.device != step.from)
        return StepError(plan, i, "reads another device's value");
      const bool is_source = plan.graph.node(root.node).op->is_source();
      if (!is_source && (plan.step_of[root.node] < 0 || plan.step_of[root.node] >= i)) {
        return StepError(plan, i, "reads a value before it is made");
      }
    }
    for (Port output : step.outputs) {
      const ValuePlace& place = plan.PlaceOf(output);
      if (place.kind != ValuePlace::kArena && place.kind != ValuePlace::kVariable) {
        return StepError(plan, i, "makes a value that has no place");
      }
      if (place.device != step.to) return StepError(plan, i, "makes a value in another device's memory");
    }
  }
  for (size_t device = 0; device < plan.arenas.size(); ++device) {
    if (LieApart(plan.arenas[device])) continue;
    return absl::InternalError(absl::StrCat("buffers overlap in the arena of ", plan.devices[device]->name()));
  }
  return absl::OkStatus();
}

}  // namespace gradweave
