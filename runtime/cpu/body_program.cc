#include "gradweave/runtime/cpu/body_program.h"

#include <algorithm>
#include <any>
#include <cstring>
#include <string>
#include <utility>

#include "absl/strings/str_cat.h"
#include "gradweave/graph/alignment.h"
#include "gradweave/graph/body.h"
#include "gradweave/graph/check.h"
#include "gradweave/runtime/cpu/cpu_device.h"
#include "gradweave/runtime/plan/planner.h"

namespace gradweave {
namespace {

absl::Status CheckShapes(const Graph& body) {
  for (const Node& node : body.nodes()) {
    for (const TensorType& type : node.outputs) {
      if (type.shape.is_static()) continue;
      return absl::InvalidArgumentError(absl::StrCat("no feed gives all sizes of ", DescribeNode(body, node), ", ",
                                                     type.ToString(), "; feed an input that has them"));
    }
  }
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<std::unique_ptr<BodyProgram>> BodyProgram::Make(const Graph& body, const StepOptions& options,
                                                               absl::Span<const int> priority, int first_constant) {
  GW_RETURN_IF_ERROR(CheckShapes(body));
  GW_ASSIGN_OR_RETURN(std::shared_ptr<BackendDevice> device, MakeCpuBackend().open(0, {}));
  auto plan = std::make_unique<Plan>(Plan{.graph = body, .options = options, .devices = {std::move(device)}});
  std::vector<Value> results;
  for (Port port : BodyPorts(body, kBodyResults)) results.push_back(plan->graph.value(port));
  plan->graph.ClearOutputs();
  plan->graph.SetOutput(kFetches, results);
  // Choices that the options make by region are those of the graph around the body. What kernels
  // keep is placed below.
  plan->options.tiled = {};
  plan->options.wants_estimate = false;
  plan->options.keep_weights = false;
  GW_RETURN_IF_ERROR(FindParts(*plan));
  GW_RETURN_IF_ERROR(MakePartSteps(*plan));
  GW_RETURN_IF_ERROR(OrderSteps(*plan));
  GW_RETURN_IF_ERROR(FindLifetimes(*plan));
  GW_RETURN_IF_ERROR(AssignBuffers(*plan));
  auto program = std::unique_ptr<BodyProgram>(new BodyProgram(std::move(plan)));
  for (Port port : BodyPorts(body, kBodyOperands)) {
    program->operands_.emplace_back();
    // Feeds are numbered in the order of their nodes. Operands have that of the body.
    ValuePlace& place = program->plan_->PlaceOf(port);
    place.index = static_cast<int>(program->operands_.size()) - 1;
  }
  program->PlaceResults(priority);
  GW_RETURN_IF_ERROR(PlanArenas(*program->plan_));
  program->Bind();
  program->PlaceKept(first_constant);
  return program;
}

// Finds the writer of each result. The buffer of a writer needs no place in the arena.
void BodyProgram::PlaceResults(absl::Span<const int> priority) {
  const std::vector<Port>& ports = plan_->graph.outputs().find(kFetches)->second;
  results_.resize(ports.size());
  for (int i : priority) {
    const Port root = plan_->Root(ports[i]);
    const ValuePlace& place = plan_->PlaceOf(root);
    Result& result = results_[i];
    result.bytes = static_cast<size_t>(plan_->Bytes(ports[i]));
    if (place.kind == ValuePlace::kFeed) {
      result.operand = place.index;
    } else if (place.kind == ValuePlace::kConstant) {
      result.constant = HostAddress(*plan_, root, nullptr);
    } else {
      result.writer = i;
      for (int other : priority) {
        if (other == i) break;
        if (results_[other].writer != other) continue;
        if (plan_->PlaceOf(plan_->Root(ports[other])).index == place.index) result.writer = other;
      }
      plan_->arenas[0].buffers[place.index].bytes = 0;
    }
  }
}

// Finds the pointers of operands, of the buffers of results, and of the arena.
void BodyProgram::Bind() {
  const std::vector<Port>& ports = plan_->graph.outputs().find(kFetches)->second;
  std::vector<int> result_of_buffer(plan_->arenas[0].buffers.size(), -1);
  for (size_t i = 0; i < results_.size(); ++i) {
    if (results_[i].writer != static_cast<int>(i)) continue;
    result_of_buffer[plan_->PlaceOf(plan_->Root(ports[i])).index] = static_cast<int>(i);
  }
  binding_ = BindPlan(*plan_, [&](Port root, int) -> void* {
    return plan_->PlaceOf(root).kind == ValuePlace::kConstant ? HostAddress(*plan_, root, nullptr) : nullptr;
  });
  int pointer = 0;
  auto add = [&](Port port) {
    const ValuePlace& place = plan_->PlaceOf(plan_->Root(port));
    if (place.kind == ValuePlace::kFeed) {
      operands_[place.index].pointers.push_back(pointer);
    } else if (place.kind == ValuePlace::kArena) {
      if (const int result = result_of_buffer[place.index]; result >= 0) {
        results_[result].pointers.push_back(pointer);
      } else {
        in_arena_.emplace_back(pointer, plan_->arenas[0].memory.offsets[place.index]);
      }
    }
    ++pointer;
  };
  for (const PlanStep& step : plan_->steps) {
    for (Port operand : step.operands) add(operand);
    for (Port output : step.outputs) add(output);
  }
  const Arena& arena = plan_->arenas[0];
  scratch_offset_ = RoundUp(static_cast<size_t>(arena.memory.arena_bytes), kAlignment);
  bytes_ = scratch_offset_ + RoundUp(static_cast<size_t>(arena.scratch_bytes), kAlignment);
}

void BodyProgram::PlaceKept(int first_constant) {
  size_t sum = 0;
  for (const PlanStep& step : plan_->steps) {
    Kept& kept = kept_.emplace_back();
    const size_t bytes = RoundUp(step.kernel.kept_bytes, kAlignment);
    kept.is_used = bytes > 0 && sum + bytes <= static_cast<size_t>(kMostKeptBytes) &&
                   std::all_of(step.kernel.kept_operands.begin(), step.kernel.kept_operands.end(), [&](int operand) {
                     const ValuePlace& place = plan_->PlaceOf(plan_->Root(step.operands[operand]));
                     return place.kind == ValuePlace::kConstant ||
                            (place.kind == ValuePlace::kFeed && place.index >= first_constant);
                   });
    if (!kept.is_used) continue;
    kept.offset = bytes_;
    bytes_ += bytes;
    sum += bytes;
  }
}

bool BodyProgram::fallible() const {
  return std::any_of(plan_->steps.begin(), plan_->steps.end(),
                     [](const PlanStep& step) { return step.kernel.fallible; });
}

void BodyProgram::AddParts(NodeId node, double runs, Kernel& kernel) {
  first_part_ = static_cast<int>(kernel.parts.size());
  for (const PlanStep& step : plan_->steps) {
    const Node& last = plan_->graph.node(step.node);
    double flops = 0;
    for (const Kernel::Part& part : step.kernel.parts) flops += part.flops;
    if (step.kernel.parts.empty() && last.op->flops != nullptr) {
      const TensorTypes operands = plan_->graph.OperandTypes(last);
      flops = last.op->flops(OpView(*last.op, last.attributes, operands), last.outputs);
    }
    const std::string nodes =
        step.num_nodes == 1 ? last.display_name() : absl::StrCat(step.num_nodes, " nodes to ", last.display_name());
    kernel.parts.push_back({absl::StrCat(nodes, ": ", step.kernel.name), node, flops * runs});
  }
}

void BodyProgram::Begin(std::byte* memory) {
  for (Kept& kept : kept_) kept.is_current = false;
  if (memory == memory_) return;
  memory_ = memory;
  for (const auto& [pointer, offset] : in_arena_) binding_.pointers[pointer] = memory + offset;
}

void BodyProgram::SetOperand(int i, const void* address) {
  Operand& operand = operands_[i];
  operand.address = address;
  for (int pointer : operand.pointers) binding_.pointers[pointer] = const_cast<void*>(address);
}

void BodyProgram::SetResult(int i, void* address) {
  Result& result = results_[i];
  result.address = address;
  for (int pointer : result.pointers) binding_.pointers[pointer] = address;
}

absl::Status BodyProgram::Run(KernelArguments arguments) {
  arguments.scratch = memory_ + scratch_offset_;
  Profiler* const profiler = std::exchange(arguments.profiler, nullptr);
  for (size_t i = 0; i < plan_->steps.size(); ++i) {
    const PlanStep& step = plan_->steps[i];
    Kept& kept = kept_[i];
    arguments.kept = kept.is_used ? memory_ + kept.offset : nullptr;
    arguments.kept_is_current = kept.is_current;
    void* const* pointers = binding_.pointers.data() + binding_.first_operand[i];
    arguments.operands = {reinterpret_cast<const void* const*>(pointers), step.operands.size()};
    arguments.outputs = {pointers + step.operands.size(), step.outputs.size()};
    const double begin = profiler == nullptr ? 0 : profiler->Now();
    if (absl::Status status = step.kernel.run(arguments); !status.ok()) return WithNode(status, *plan_, step);
    if (profiler != nullptr) profiler->AddPart(0, first_part_ + static_cast<int>(i), profiler->Now() - begin);
    kept.is_current = kept.is_used;
  }
  for (size_t i = 0; i < results_.size(); ++i) {
    const Result& result = results_[i];
    const void* const from = result.operand >= 0          ? operands_[result.operand].address
                             : result.constant != nullptr ? result.constant
                             : result.writer >= 0         ? results_[result.writer].address
                                                          : result.address;
    if (from != result.address && result.bytes > 0) std::memcpy(result.address, from, result.bytes);
  }
  return absl::OkStatus();
}

}  // namespace gradweave
