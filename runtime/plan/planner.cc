#include "gradweave/runtime/plan/planner.h"

#include <algorithm>
#include <utility>

#include "absl/container/flat_hash_set.h"
#include "gradweave/graph/alignment.h"
#include "gradweave/graph/check.h"
#include "gradweave/runtime/kernel/kernel.h"
#include "gradweave/runtime/plan/binding.h"

namespace gradweave {
namespace {

// A copy from one device to another.
bool IsTransfer(const Plan& plan, const Node& node) {
  if (node.op->kind != OpKind::kCopy) return false;
  const ValuePlace& place = plan.PlaceOf(plan.Root(node.inputs[0]));
  return !place.is_everywhere() && place.device != plan.DeviceOf(node);
}

// Adds the graph's next node to what the plan knows by node.
void AddNode(Plan& plan, const Node& node, int aliased) {
  plan.values.AddNode(node, aliased);
  plan.places.emplace_back(node.outputs.size(), ValuePlace{.device = plan.DeviceOf(node)});
  plan.step_of.push_back(-1);
}

void PlaceSource(Plan& plan, const Node& node) {
  if (!node.op->is_source()) return;
  ValuePlace& place = plan.PlaceOf({node.id, 0});
  if (node.op->kind == OpKind::kInput) {
    place.kind = ValuePlace::kFeed;
    place.index = static_cast<int>(plan.input_names.size());
    plan.input_names.push_back(node.name);
  } else if (node.op->kind == OpKind::kConstant) {
    place.kind = ValuePlace::kConstant;
  } else {
    place.kind = ValuePlace::kVariable;
    place.variable = plan.session_variables->Find(node.name);
    GW_CHECK(place.variable != nullptr, node.name);
    plan.variables.push_back({place.variable, place.device});
  }
}

void AddStep(Plan& plan, PlanStep step, absl::Span<const NodeId> nodes) {
  for (NodeId id : nodes) plan.step_of[id] = static_cast<int>(plan.steps.size());
  plan.steps.push_back(std::move(step));
}

void AddTransfer(Plan& plan, const Node& node) {
  const int to = plan.DeviceOf(node);
  AddStep(plan,
          {.kernel = {.name = to == 0 ? "copy to the CPU" : "copy to the device"},
           .node = node.id,
           .operands = {node.inputs[0]},
           .outputs = {Port{node.id, 0}},
           .from = plan.PlaceOf(plan.Root(node.inputs[0])).device,
           .to = to},
          {node.id});
}

void AddPartSteps(Plan& plan, const DevicePart& part, PartSteps& made) {
  for (PartStep& planned : made.steps) {
    std::vector<NodeId> nodes;
    for (NodeId id : planned.nodes) nodes.push_back(part.OriginOf(id));
    const int device = plan.DeviceNamed(part.device);
    PlanStep step{.kernel = std::move(planned.kernel),
                  .node = nodes.back(),
                  .num_nodes = static_cast<int>(nodes.size()),
                  .from = device,
                  .to = device};
    for (Port port : planned.operands) step.operands.push_back(part.OriginOf(port));
    for (Port port : planned.outputs) step.outputs.push_back(part.OriginOf(port));
    AddStep(plan, std::move(step), nodes);
  }
}

// Returns the first step that may write to a variable, or the number of steps if none may. A
// failure of a kernel on another device than the CPU is known only at the end, so if one can fail,
// no step writes. Any call to such a device may fail, so only steps after the last step of the CPU
// write to variables.
int FirstStepThatMayUpdate(const Plan& plan) {
  const bool uses_devices = plan.UsesDevices();
  const int count = static_cast<int>(plan.steps.size());
  int first = 0;
  for (int i = 0; i < count; ++i) {
    const PlanStep& step = plan.steps[i];
    const bool beside_cpu = !step.is_transfer() && step.from != 0;
    if (step.kernel.fallible && beside_cpu) return count;
    if (step.kernel.fallible || (uses_devices && !beside_cpu)) first = i + 1;
  }
  // If CopyAssignedVariables adds a step of the CPU, that step is the last one.
  for (const Assignment& assignment : plan.assignments) {
    const ValuePlace& value = plan.PlaceOf(assignment.value);
    if (uses_devices && value.kind == ValuePlace::kVariable && value.device == 0) return count;
  }
  return first;
}

// Returns the buffer of an operand whose last use is this step and whose memory the output may
// take; -1 if there is none.
int FindReusedBuffer(const Plan& plan, int number, int output, absl::Span<const int> taken) {
  const PlanStep& step = plan.steps[number];
  const Port port = step.outputs[output];
  const std::optional<Port> overwritten = plan.values.FindOverwritten(step, number, output, [&](Port root) {
    const ValuePlace& candidate = plan.PlaceOf(root);
    // The root's buffer may have been passed on before. It is free because no later step reads this
    // value.
    return candidate.kind == ValuePlace::kArena && candidate.device == step.to &&
           plan.Bytes(root) == plan.Bytes(port) &&
           std::find(taken.begin(), taken.end(), candidate.index) == taken.end();
  });
  return overwritten.has_value() ? plan.PlaceOf(*overwritten).index : -1;
}

void AssignBuffersOfStep(Plan& plan, int number) {
  const PlanStep& step = plan.steps[number];
  Arena& arena = plan.arenas[step.to];
  absl::InlinedVector<int, 2> taken;  // Buffers of operands that an output of this step has taken over.
  for (int output = 0; output < static_cast<int>(step.outputs.size()); ++output) {
    const Port port = step.outputs[output];
    if (plan.PlaceOf(port).kind != ValuePlace::kUnset) continue;
    const int last = std::max(number, std::min(plan.values.LastUse(port), static_cast<int>(plan.steps.size())));
    int buffer = FindReusedBuffer(plan, number, output, taken);
    if (buffer >= 0) {
      taken.push_back(buffer);
      arena.buffers[buffer].last = std::max(arena.buffers[buffer].last, last);
    } else {
      buffer = static_cast<int>(arena.buffers.size());
      arena.buffers.push_back({plan.Bytes(port), number, last});
      arena.owners.push_back(port);
    }
    plan.PlaceOf(port) = {.kind = ValuePlace::kArena, .device = step.to, .index = buffer};
  }
}

// Finds the feeds and constants that a device beside the CPU needs in its own memory.
void FindSourcesOfDevices(Plan& plan) {
  std::vector<absl::flat_hash_set<Port>> seen(plan.devices.size());
  auto add = [&](Port root, int device) {
    const ValuePlace& place = plan.PlaceOf(root);
    if (device == 0 || !place.is_everywhere() || !seen[device].insert(root).second) return;
    Arena& arena = plan.arenas[device];
    (place.kind == ValuePlace::kFeed ? arena.inputs : arena.constants).push_back(root);
  };
  for (const PlanStep& step : plan.steps) {
    for (Port operand : step.operands) add(plan.Root(operand), step.from);
  }
  for (const Assignment& assignment : plan.assignments) {
    add(assignment.value, plan.PlaceOf(assignment.variable).device);
  }
}

// Follows a value to the port from which elementwise functions alone compute it, such as rounding to
// halves, and adds their names to the layout: what a kernel keeps depends on them.
Port SourceOf(const Plan& plan, Port port, std::string& layout) {
  for (port = plan.Root(port);; port = plan.Root(plan.graph.node(port.node).inputs[0])) {
    const Node& node = plan.graph.node(port.node);
    if (!node.op->elementwise || node.op->kind == OpKind::kBroadcastTo || node.inputs.size() != 1 ||
        !node.attributes.empty())
      return port;
    if (!layout.empty()) layout += node.op->name;
  }
}

// Gives memory to kernels that can keep data of constants and of variables that the graph does not
// assign. Returns the bytes.
int64_t PlaceKept(Plan& plan) {
  if (!plan.options.keep_weights) return 0;
  absl::flat_hash_set<const Variable*> assigned;
  for (const VariableUse& used : plan.variables) {
    if (used.assigned) assigned.insert(used.variable);
  }
  int64_t bytes = 0;
  for (PlanStep& step : plan.steps) {
    const int64_t step_bytes = static_cast<int64_t>(step.kernel.kept_bytes);
    if (!step.is_on(0) || step_bytes == 0 || bytes + step_bytes > kMostKeptBytes) continue;
    KeptMemory kept;
    KeptBlocks::Key key{step.kernel.kept_layout, {}};
    bool can_keep = true;
    for (int operand : step.kernel.kept_operands) {
      const Port root = SourceOf(plan, step.operands[operand], key.first);
      const ValuePlace& place = plan.PlaceOf(root);
      if (place.kind == ValuePlace::kVariable) {
        can_keep &= !assigned.contains(place.variable);
        kept.variables.push_back(place.variable);
        key.second.push_back(place.variable);
      } else if (place.kind == ValuePlace::kConstant) {
        key.second.push_back(HostAddress(plan, root, nullptr));
      } else {
        can_keep = false;
      }
    }
    if (can_keep) kept.block = plan.memory->kept.FindOrAdd(key, step.kernel.kept_bytes);
    if (kept.block == nullptr) continue;
    bytes += RoundUp(step_bytes, kAlignment);
    step.kept = static_cast<int>(plan.kept.size());
    plan.kept.push_back(std::move(kept));
  }
  return bytes;
}

}  // namespace

absl::Status FindParts(Plan& plan) {
  if (plan.devices.size() > 1) {
    GW_ASSIGN_OR_RETURN(plan.parts, FindDeviceParts(plan.graph));
  } else {
    plan.parts.parts.push_back({.device = plan.devices[0]->name(), .graph = plan.graph});
    plan.parts.order = {{OrderItem::Kind::kDevicePart, 0}};
  }
  return absl::OkStatus();
}

absl::Status MakePartSteps(Plan& plan) {
  plan.part_steps.resize(plan.parts.parts.size());
  // The CPU comes last, as its choices are the last lines of a description.
  for (int device = static_cast<int>(plan.devices.size()) - 1; device >= 0; --device) {
    std::vector<const DevicePart*> parts;
    std::vector<size_t> indices;
    for (size_t i = 0; i < plan.parts.parts.size(); ++i) {
      if (plan.DeviceNamed(plan.parts.parts[i].device) != device) continue;
      parts.push_back(&plan.parts.parts[i]);
      indices.push_back(i);
    }
    GW_ASSIGN_OR_RETURN(std::vector<PartSteps> made, plan.devices[device]->MakeSteps(plan.graph, parts, plan.options));
    for (size_t i = 0; i < made.size(); ++i) {
      plan.choices.insert(plan.choices.end(), made[i].choices.begin(), made[i].choices.end());
      plan.tiled.insert(plan.tiled.end(), made[i].tiled.begin(), made[i].tiled.end());
      plan.nanoseconds += made[i].nanoseconds;
      plan.part_steps[indices[i]] = std::move(made[i]);
    }
  }
  return absl::OkStatus();
}

absl::Status OrderSteps(Plan& plan) {
  std::vector<bool> own_memory(plan.graph.num_nodes(), false);
  for (size_t i = 0; i < plan.parts.parts.size(); ++i) {
    const DevicePart& part = plan.parts.parts[i];
    const PartSteps& made = plan.part_steps[i];
    for (size_t id = 0; id < made.own_memory.size(); ++id) {
      if (made.own_memory[id]) own_memory[part.OriginOf(static_cast<NodeId>(id))] = true;
    }
    for (const auto& [port, bytes] : made.bytes) plan.value_bytes[part.OriginOf(port)] = bytes;
  }
  for (const Node& node : plan.graph.nodes()) {
    AddNode(plan, node, own_memory[node.id] || IsTransfer(plan, node) ? -1 : AliasedOperand(node));
    PlaceSource(plan, node);
  }
  for (OrderItem item : plan.parts.order) {
    if (!item.is_node()) {
      AddPartSteps(plan, plan.parts.parts[item.index], plan.part_steps[item.index]);
    } else if (IsTransfer(plan, plan.graph.node(item.node()))) {
      AddTransfer(plan, plan.graph.node(item.node()));
    }
  }
  plan.part_steps.clear();
  return absl::OkStatus();
}

absl::Status FindLifetimes(Plan& plan) {
  GW_ASSIGN_OR_RETURN(plan.assignments, plan.values.FindAssignments(plan.graph));
  for (const Assignment& assignment : plan.assignments) {
    for (VariableUse& used : plan.variables)
      used.assigned |= used.variable == plan.PlaceOf(assignment.variable).variable;
  }
  plan.values.FindLastUses(plan.graph, plan.steps, plan.assignments);
  return absl::OkStatus();
}

absl::Status UpdateInPlace(Plan& plan) {
  const int first = FirstStepThatMayUpdate(plan);
  for (Assignment& assignment : plan.assignments) {
    ValuePlace& place = plan.PlaceOf(assignment.value);
    const ValuePlace& variable = plan.PlaceOf(assignment.variable);
    const int producer = plan.step_of[assignment.value.node];
    if (place.kind != ValuePlace::kUnset || producer < first || place.device != variable.device) continue;
    if (!plan.values.MayWriteToVariable(assignment, plan.steps[producer], producer)) continue;
    place = variable;
    assignment.in_place = true;
  }
  return absl::OkStatus();
}

absl::Status CopyAssignedVariables(Plan& plan) {
  for (Assignment& assignment : plan.assignments) {
    const Node& variable = plan.graph.node(assignment.value.node);
    if (assignment.in_place || variable.op->kind != OpKind::kVariable) continue;
    const OpDefinition* op = variable.op->registry->Find(OpKind::kCopy);
    GW_CHECK(op != nullptr, "the registry lacks Copy");
    const int device = plan.PlaceOf(assignment.value).device;
    GW_ASSIGN_OR_RETURN(const NodeId copy, plan.graph.AddNode(op, {}, {assignment.value}, "", variable.device));
    AddNode(plan, plan.graph.node(copy), -1);
    const Port port{copy, 0};
    AddStep(plan,
            {.kernel = plan.devices[device]->MakeCopyKernel(plan.Bytes(assignment.value)),
             .node = copy,
             .operands = {assignment.value},
             .outputs = {port},
             .from = device,
             .to = device},
            {copy});
    plan.values.Use(port, ValueLifetimes::kEnd);
    assignment.value = port;
  }
  return absl::OkStatus();
}

absl::Status AssignBuffers(Plan& plan) {
  plan.arenas.resize(plan.devices.size());
  const int count = static_cast<int>(plan.steps.size());
  for (int step = 0; step < count; ++step) AssignBuffersOfStep(plan, step);
  // The CPU's steps run one after the other and share their scratch. Steps of other devices, and
  // steps whose work outlasts their call, may run side by side, so each has a buffer of its own.
  for (int i = 0; i < count; ++i) {
    PlanStep& step = plan.steps[i];
    if ((step.from == 0 && step.waited_for < 0) || step.kernel.scratch_bytes == 0) continue;
    std::vector<BufferLifetime>& buffers = plan.arenas[step.from].buffers;
    step.scratch = static_cast<int>(buffers.size());
    buffers.push_back({static_cast<int64_t>(step.kernel.scratch_bytes), i, std::max(i, step.waited_for)});
  }
  FindSourcesOfDevices(plan);
  return absl::OkStatus();
}

absl::Status PlanArenas(Plan& plan) {
  for (Arena& arena : plan.arenas) arena.memory = PlanMemory(arena.buffers);
  Arena& host = plan.arenas[0];
  host.kept_bytes = PlaceKept(plan);
  for (const PlanStep& step : plan.steps) {
    if (!step.is_on(0) || step.scratch >= 0) continue;
    const size_t bytes =
        std::min(step.kept < 0 ? step.kernel.scratch_bytes : step.kernel.scratch_bytes_with_kept, kMostScratchBytes);
    host.scratch_bytes = std::max(host.scratch_bytes, RoundUp(static_cast<int64_t>(bytes), kAlignment));
  }
  return absl::OkStatus();
}

}  // namespace gradweave
