#include "gradweave/runtime/plan/executable.h"

#include <algorithm>
#include <cstring>

#include "gradweave/graph/alignment.h"
#include "gradweave/graph/check.h"
#include "gradweave/runtime/kernel/float_state.h"
#include "gradweave/runtime/plan/describe_plan.h"

namespace gradweave {

absl::StatusOr<std::unique_ptr<CompiledGraph>> BackendDevice::Compile(std::unique_ptr<Plan> plan) {
  return std::make_unique<Executable>(std::move(plan));
}

Executable::~Executable() {
  if (!has_memory_) return;
  for (const VariableUse& used : plan_->variables) used.variable->plans -= used.device != 0 ? 1 : 0;
}

absl::Status Executable::Allocate() {
  if (has_memory_) return absl::OkStatus();
  absl::Status status = TakeMemory();
  if (status.ok()) status = HoldArenas();
  if (!status.ok()) {
    claims_.clear();
    arenas_.clear();
    sources_.clear();
    return status;
  }
  for (const VariableUse& used : plan_->variables) used.variable->plans += used.device != 0 ? 1 : 0;
  FindWrites();
  has_memory_ = true;
  return absl::OkStatus();
}

void Executable::FindWrites() {
  size_t offset = 0;
  for (const Assignment& assignment : plan_->assignments) {
    if (!assignment.in_place) continue;
    writes_.push_back({.step = plan_->step_of[assignment.value.node],
                       .variable = assignment.variable,
                       .device = plan_->PlaceOf(assignment.variable).device,
                       .bytes = static_cast<size_t>(plan_->Bytes(assignment.variable))});
  }
  std::stable_sort(writes_.begin(), writes_.end(), [](const Write& a, const Write& b) { return a.step < b.step; });
  for (Write& write : writes_) {
    write.offset = offset;
    offset += write.bytes;
  }
}

absl::Status Executable::TakeMemory() {
  GW_RETURN_IF_ERROR(AllocateKept(*plan_));
  for (int device = 0; device < static_cast<int>(plan_->devices.size()); ++device) {
    size_t bytes = RoundUp(static_cast<size_t>(plan_->arenas[device].run_bytes()), kAlignment);
    GW_RETURN_IF_ERROR(AddSources(device, bytes));
    claims_.emplace_back(plan_->memory->arenas[device], std::max<size_t>(bytes, 1));
  }
  for (const VariableUse& used : plan_->variables) {
    if (used.device != 0) GW_RETURN_IF_ERROR(plan_->session_variables->Reserve(*used.variable));
  }
  return absl::OkStatus();
}

// Feeds come after the values in the arena. Constants keep their places from run to run.
absl::Status Executable::AddSources(int device, size_t& arena_bytes) {
  for (Port root : plan_->arenas[device].inputs) {
    sources_.push_back({.root = root, .device = device, .offset = arena_bytes});
    arena_bytes += RoundUp(static_cast<size_t>(plan_->Bytes(root)), kAlignment);
  }
  for (Port root : plan_->arenas[device].constants) {
    const size_t bytes = static_cast<size_t>(plan_->Bytes(root));
    GW_ASSIGN_OR_RETURN(Memory memory, plan_->devices[device]->Allocate(std::max<size_t>(bytes, 1)));
    GW_RETURN_IF_ERROR(Copy(memory.get(), device, HostAddress(*plan_, root, nullptr), 0, bytes));
    sources_.push_back({.root = root, .device = device, .memory = std::move(memory)});
  }
  return absl::OkStatus();
}

// Other plans may have moved the arenas since the last run.
absl::Status Executable::HoldArenas() {
  arenas_.resize(claims_.size());
  for (size_t device = 0; device < claims_.size(); ++device) {
    GW_ASSIGN_OR_RETURN(std::byte* const arena, claims_[device].Hold());
    binding_is_current_ &= arena == arenas_[device];
    arenas_[device] = arena;
  }
  if (binding_is_current_) return absl::OkStatus();
  binding_ = BindPlan(*plan_, [this](Port root, int device) { return Address(root, device); });
  binding_is_current_ = true;
  return absl::OkStatus();
}

std::byte* Executable::AddressOf(const Source& source) const {
  return source.memory != nullptr ? source.memory.get() : arenas_[source.device] + source.offset;
}

void* Executable::Address(Port root, int device) const {
  if (device == 0) return HostAddress(*plan_, root, arenas_[0]);
  const ValuePlace& place = plan_->PlaceOf(root);
  if (place.is_everywhere()) {
    const auto source = std::find_if(sources_.begin(), sources_.end(), [&](const Source& candidate) {
      return candidate.root == root && candidate.device == device;
    });
    GW_CHECK(source != sources_.end(), "a device lacks a feed or a constant");
    return AddressOf(*source);
  }
  if (place.kind == ValuePlace::kVariable) return place.variable->device.get();
  return arenas_[device] + plan_->arenas[device].memory.offsets[place.index];
}

absl::Status Executable::Copy(void* to, int to_device, const void* from, int from_device, size_t bytes) const {
  if (bytes == 0) return absl::OkStatus();
  if (to_device == 0 && from_device == 0) {
    std::memcpy(to, from, bytes);
    return absl::OkStatus();
  }
  const CopyDirection direction = to_device == 0     ? CopyDirection::kToHost
                                  : from_device == 0 ? CopyDirection::kToDevice
                                                     : CopyDirection::kOnDevice;
  return plan_->devices[std::max(to_device, from_device)]->Copy(to, from, bytes, direction);
}

// Copies variables to the side that the plan reads.
absl::Status Executable::BringVariables() {
  for (const VariableUse& used : plan_->variables) {
    if (plan_->devices.size() > 1) {
      GW_RETURN_IF_ERROR(used.device == 0 ? plan_->session_variables->ToHost(*used.variable)
                                          : plan_->session_variables->ToDevice(*used.variable));
    }
    if (used.assigned && used.device == 0) ++used.variable->version;
  }
  return absl::OkStatus();
}

absl::Status Executable::CopyFeeds(absl::Span<const void* const> feeds) {
  binding_.SetFeeds(feeds);
  for (const Source& source : sources_) {
    const ValuePlace& place = plan_->PlaceOf(source.root);
    if (place.kind != ValuePlace::kFeed) continue;
    GW_RETURN_IF_ERROR(
        Copy(AddressOf(source), source.device, feeds[place.index], 0, static_cast<size_t>(plan_->Bytes(source.root))));
  }
  return absl::OkStatus();
}

// Runs a step of another device than the CPU.
absl::Status Executable::RunStepBesideCpu(int number, KernelArguments arguments) {
  const PlanStep& step = plan_->steps[number];
  if (step.is_transfer()) {
    void* const* pointers = binding_.pointers.data() + binding_.first_operand[number];
    const size_t bytes = static_cast<size_t>(plan_->Bytes(step.outputs[0]));
    return WithNode(Copy(pointers[1], step.to, pointers[0], step.from, bytes), *plan_, step);
  }
  const std::vector<int64_t>& offsets = plan_->arenas[step.from].memory.offsets;
  arguments.scratch = step.scratch < 0 ? nullptr : arenas_[step.from] + offsets[step.scratch];
  return RunHostStep(*plan_, binding_, number, arguments);
}

absl::Status Executable::CopyResults(absl::Span<Tensor> results) const {
  for (size_t i = 0; i < binding_.results.size(); ++i) {
    const Binding::Result& result = binding_.results[i];
    GW_RETURN_IF_ERROR(
        Copy(results[i].mutable_raw_data(), 0, binding_.pointers[result.pointer], result.device, result.bytes));
  }
  return absl::OkStatus();
}

absl::Status Executable::UpdateVariables() {
  for (const Binding::Update& update : binding_.updates) {
    GW_RETURN_IF_ERROR(Copy(update.to, update.device, binding_.pointers[update.pointer], update.device, update.bytes));
  }
  for (const VariableUse& used : plan_->variables) {
    if (used.assigned) used.variable->SetCurrent(used.device == 0);
  }
  return absl::OkStatus();
}

// Copies the values that the step overwrites, so that Stop can restore them. `kept` counts the
// writes that have been copied. Returns false if there are too many bytes.
absl::StatusOr<bool> Executable::KeepOldValues(int step, size_t& kept) {
  for (; kept < writes_.size() && writes_[kept].step == step; ++kept) {
    const Write& write = writes_[kept];
    const size_t end = write.offset + write.bytes;
    if (end > kMostOldBytes) return false;
    if (old_values_.size() < end)
      old_values_.resize(std::min(kMostOldBytes, writes_.back().offset + writes_.back().bytes));
    GW_RETURN_IF_ERROR(
        Copy(old_values_.data() + write.offset, 0, Address(write.variable, write.device), write.device, write.bytes));
  }
  return true;
}

// Ends a run before the step.
absl::Status Executable::Stop(const RunOptions& options, int step, size_t kept) {
  for (size_t i = 0; i < kept; ++i) {
    const Write& write = writes_[i];
    GW_RETURN_IF_ERROR(
        Copy(Address(write.variable, write.device), write.device, old_values_.data() + write.offset, 0, write.bytes));
  }
  return StopError(options, BeforeStep(*plan_, step));
}

absl::Status Executable::Run(absl::Span<const void* const> feeds, absl::Span<Tensor> results, ThreadPool& pool,
                             uint64_t seed, uint64_t run_number, Profiler* profiler, const RunOptions& options) {
  GW_CHECK(has_memory_, "a plan runs before it has its memory");
  const KernelFloatState float_state;
  GW_RETURN_IF_ERROR(HoldArenas());
  GW_RETURN_IF_ERROR(BringVariables());
  GW_RETURN_IF_ERROR(CopyFeeds(feeds));
  KernelArguments arguments;
  arguments.pool = &pool;
  arguments.seed = seed;
  arguments.run_number = run_number;
  arguments.profiler = profiler;
  if (options.is_limited()) arguments.options = &options;
  int step = 0;
  if (absl::Status status = RunSteps(options, arguments, step); !status.ok()) {
    EndStarted(step, arguments);
    return status;
  }
  GW_RETURN_IF_ERROR(CopyResults(results));
  return UpdateVariables();
}

// Runs the steps from `step` on. Afterwards `step` is the step that failed, or the step before
// which the run stopped.
absl::Status Executable::RunSteps(const RunOptions& options, KernelArguments& arguments, int& step) {
  const Arena& host = plan_->arenas[0];
  size_t kept = 0;
  const int steps = static_cast<int>(plan_->steps.size());
  for (; step < steps; ++step) {
    if (arguments.options != nullptr) {
      if (options.stopped()) return Stop(options, step, kept);
      GW_ASSIGN_OR_RETURN(const bool may_stop, KeepOldValues(step, kept));
      if (!may_stop) arguments.options = nullptr;
    }
    if (plan_->steps[step].is_on(0)) {
      const int scratch = plan_->steps[step].scratch;
      arguments.scratch = arenas_[0] + (scratch < 0 ? host.memory.arena_bytes : host.memory.offsets[scratch]);
      GW_RETURN_IF_ERROR(RunHostStep(*plan_, binding_, step, arguments));
    } else {
      GW_RETURN_IF_ERROR(RunStepBesideCpu(step, arguments));
    }
  }
  if (arguments.options != nullptr && options.stopped()) return Stop(options, steps, kept);
  return absl::OkStatus();
}

// After an error of this step, ends work of earlier steps that is still in progress in the arena.
void Executable::EndStarted(int step, KernelArguments arguments) {
  CancellationToken ended;
  ended.Cancel();
  const RunOptions options{.cancellation = &ended};
  arguments.options = &options;
  for (int i = 0; i < step; ++i) {
    const int waiting = plan_->steps[i].waited_for;
    if (waiting >= step) RunHostStep(*plan_, binding_, waiting, arguments).IgnoreError();
  }
}

std::string Executable::Describe() const { return DescribePlan(*plan_); }

}  // namespace gradweave
