// How a CudaExecutable is made: steps, lifetimes, and addresses on both sides.
#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <optional>
#include <utility>

#include "absl/container/flat_hash_map.h"
#include "absl/container/flat_hash_set.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "gradweave/graph/check.h"
#include "gradweave/runtime/cuda/cuda_executable.h"
#include "gradweave/runtime/memory_plan.h"
#include "gradweave/runtime/value_lifetimes.h"

namespace gradweave {
namespace {

// Feeds up to this size go to the device with the run state, as one copy; larger ones are worth a stream of their own.
constexpr size_t kSmallFeedBytes = 64 << 10;

bool IsInput(const Node& node) { return node.op->name == "Input"; }
bool IsConstant(const Node& node) { return node.op->name == "Constant"; }
bool IsVariable(const Node& node) { return node.op->name == "Variable"; }

}  // namespace

absl::Status CheckCudaKernel(const CudaBackend& backend, const Graph& graph, const Node& node) {
  const KernelFactory* factory = backend.kernels->Find(node.op->name);
  if (factory == nullptr) return absl::UnimplementedError("there is no kernel for it");
  const absl::StatusOr<Kernel> kernel = (*factory)({node, graph.OperandTypes(node), 1});
  // Whatever else is wrong is told where the kernel is made to be used.
  return kernel.status().code() == absl::StatusCode::kUnimplemented ? kernel.status() : absl::OkStatus();
}

class CudaPlanner {
 public:
  CudaPlanner(CudaExecutable& executable, const CudaExecutable::Options& options)
      : out_(executable), graph_(executable.graph_), options_(options) {}

  // All that needs no memory.
  absl::Status Plan() {
    GW_RETURN_IF_ERROR(MakeSteps());
    GW_ASSIGN_OR_RETURN(assignments_, values_.FindAssignments(graph_));
    MarkAssignedVariables();
    values_.FindLastUses(graph_, out_.steps_, assignments_);
    PlaceAssignmentsInVariables();
    AddCopiesOfVariables();
    AssignBuffers();
    FindSources();
    PlanArenas();
    MakeSegments();
    return absl::OkStatus();
  }

  // The rest. What it has taken when it fails is free again.
  absl::Status Allocate();
  // Device memory that the plan takes and hasn't got, but for the arena.
  int64_t BytesBesideArena() const;

 private:
  using Side = CudaExecutable::Side;
  using Step = CudaExecutable::Step;
  static constexpr size_t kAlignment = CudaExecutable::kAlignment;
  static constexpr Side kHost = CudaExecutable::kHost, kDevice = CudaExecutable::kDevice;

  // Where the elements of a root are.
  struct Place {
    enum Kind { kUnset, kArena, kVariable } kind = kUnset;
    Side side = kHost;
    int buffer = -1;  // Of kArena, in buffers_[side].
    CudaVariables::Variable* variable = nullptr;
  };
  static size_t RoundUp(size_t bytes) { return (bytes + kAlignment - 1) / kAlignment * kAlignment; }
  Side SideOf(const Node& node) const { return IsCudaDevice(node.device) ? kDevice : kHost; }
  // Inputs and constants are on both sides.
  bool IsEverywhere(Port root) const { return IsInput(graph_.node(root.node)) || IsConstant(graph_.node(root.node)); }
  Port Root(Port port) const { return values_.Root(port); }
  Place& PlaceOf(Port root) { return places_[root.node][root.output]; }
  bool IsSmallFeed(Port port) const { return Bytes(port) <= kSmallFeedBytes; }
  // Where constants begin in the device's memory; the arena comes after them.
  size_t ConstantsAt() const { return kAlignment + out_.staged_bytes_ + 2 * large_feed_bytes_; }
  size_t ArenaAt() const { return ConstantsAt() + constant_bytes_; }
  size_t SlotBytes() const { return out_.staged_bytes_ + large_feed_bytes_; }
  size_t Bytes(Port port) const { return static_cast<size_t>(graph_.type(port).byte_size()); }

  absl::Status MakeSteps();
  absl::StatusOr<FusionPlan> FindGroups();
  absl::Status AddStep(const Node& node);
  void AddGroupStep(const FusedGroup& group, const KernelStore::GroupKernels& generated);
  void AddTables(const Node& node, int aliased);
  bool IsTransfer(const Node& node) const;
  void MarkAssignedVariables();
  void PlaceAssignmentsInVariables();
  void AddCopiesOfVariables();
  void AssignBuffers();
  void FindSources();
  bool UsesDevice() const;
  void PlanArenas();
  absl::Status AllocateOnDevice();
  void PlaceFeedsAndConstants();
  absl::Status OutOfMemory(const absl::Status& status) const;
  absl::Status PrepareDevice();
  void* Address(Port root, Side side);
  int AddPointer(Port port, Side side);
  absl::Status Bind();
  void MakeSegments();

  CudaExecutable& out_;
  Graph& graph_;
  const CudaExecutable::Options options_;

  std::vector<KernelStore::GroupKernels> generated_;  // By group of fused nodes.
  ValueLifetimes values_;
  std::vector<absl::InlinedVector<Place, 1>> places_;  // By node and output, of roots.
  std::vector<int> step_of_;                           // By node; -1: no step.
  std::vector<Assignment> assignments_;
  std::vector<BufferLifetime> buffers_[2];  // By side.
  std::vector<Port> owners_[2];             // Of each buffer, the value that it was made for.
  MemoryPlan plans_[2];
  std::vector<Port> device_inputs_, device_constants_;  // What the device reads of them.
  absl::flat_hash_map<Port, std::byte*> sources_;       // Where they are on the device.
  absl::flat_hash_map<NodeId, int> feeds_;              // The number of the feed, by input.
  size_t scratch_bytes_[2] = {0, 0};
  size_t constant_bytes_ = 0, large_feed_bytes_ = 0;
};

// A copy from one side to the other.
bool CudaPlanner::IsTransfer(const Node& node) const {
  if (node.op->name != "Copy") return false;
  const Port root = Root(node.inputs[0]);
  return !IsEverywhere(root) && places_[root.node][root.output].side != SideOf(node);
}

void CudaPlanner::AddTables(const Node& node, int aliased) {
  values_.AddNode(node, aliased);
  places_.emplace_back(node.outputs.size(), Place{.side = SideOf(node)});
  step_of_.push_back(-1);
}

// Elementwise nodes that run as one kernel. Where the CPU has a part of the graph, nodes keep their order: a copy that
// came earlier or later could make one device wait for the other.
absl::StatusOr<FusionPlan> CudaPlanner::FindGroups() {
  if (out_.device_->backend().make_fused == nullptr) return FusionPlan{};
  for (const Node& node : graph_.nodes()) {
    if (!IsInput(node) && !IsConstant(node) && SideOf(node) == kHost) return FusionPlan{};
  }
  KernelStore& kernels = out_.device_->kernels();
  FusionPlan plan = FindFusedGroups(graph_, {.reductions = kernels.CanGenerate()});
  GW_ASSIGN_OR_RETURN(generated_, kernels.KernelsOf(plan.groups));
  // Only generated kernels reduce: where one of them cannot be had, all reductions run alone.
  for (size_t i = 0; i < plan.groups.size(); ++i) {
    if (!plan.groups[i].has_reductions() || generated_[i][0] != nullptr) continue;
    plan = FindFusedGroups(graph_);
    GW_ASSIGN_OR_RETURN(generated_, kernels.KernelsOf(plan.groups));
    break;
  }
  return plan;
}

absl::Status CudaPlanner::MakeSteps() {
  GW_ASSIGN_OR_RETURN(const FusionPlan fusion, FindGroups());
  std::vector<bool> in_group(graph_.num_nodes(), false);
  for (const FusedGroup& group : fusion.groups) {
    for (NodeId id : group.nodes) in_group[id] = true;
  }
  for (const Node& node : graph_.nodes()) {
    const int aliased = node.op->name == "Assign"                                   ? 1
                        : node.op->alias && !in_group[node.id] && !IsTransfer(node) ? 0
                                                                                    : -1;
    AddTables(node, aliased);
    if (IsInput(node)) {
      feeds_[node.id] = static_cast<int>(out_.input_names_.size());
      out_.input_names_.push_back(node.name);
    } else if (IsVariable(node)) {
      Place& place = PlaceOf({node.id, 0});
      place.kind = Place::kVariable;
      place.variable = &out_.variables_->Find(node.name);
      out_.used_variables_.push_back({place.variable, place.side, false});
    }
  }
  if (fusion.groups.empty()) {
    for (const Node& node : graph_.nodes()) GW_RETURN_IF_ERROR(AddStep(node));
    return absl::OkStatus();
  }
  for (int item : fusion.order) {
    if (item >= 0) {
      GW_RETURN_IF_ERROR(AddStep(graph_.node(item)));
    } else {
      AddGroupStep(fusion.groups[~item], generated_[~item]);
    }
  }
  return absl::OkStatus();
}

void CudaPlanner::AddGroupStep(const FusedGroup& group, const KernelStore::GroupKernels& generated) {
  Step step{.kind = Step::kOnDevice,
            .kernel = out_.device_->backend().make_fused(graph_, group, generated),
            .node = group.nodes.back(),
            .num_nodes = static_cast<int>(group.nodes.size())};
  step.operands.assign(group.operands.begin(), group.operands.end());
  step.outputs.assign(group.outputs.begin(), group.outputs.end());
  for (NodeId id : group.nodes) step_of_[id] = static_cast<int>(out_.steps_.size());
  out_.steps_.push_back(std::move(step));
}

absl::Status CudaPlanner::AddStep(const Node& node) {
  const bool is_source = IsInput(node) || IsConstant(node) || IsVariable(node);
  if (is_source || !(Root({node.id, 0}) == Port{node.id, 0})) return absl::OkStatus();
  Step step{.kind = SideOf(node) == kDevice ? Step::kOnDevice : Step::kOnHost, .node = node.id, .num_nodes = 1};
  if (IsTransfer(node)) {
    step.kind = SideOf(node) == kDevice ? Step::kToDevice : Step::kToHost;
    step.kernel.name = step.kind == Step::kToDevice ? "copy to the device" : "copy to the CPU";
  } else {
    const KernelRegistry& kernels = SideOf(node) == kDevice ? *out_.device_->backend().kernels : *options_.cpu_kernels;
    GW_ASSIGN_OR_RETURN(step.kernel, MakeKernel(kernels, graph_, node, options_.threads));
  }
  step.operands.assign(node.inputs.begin(), node.inputs.end());
  for (int i = 0; i < static_cast<int>(node.outputs.size()); ++i) step.outputs.push_back({node.id, i});
  step_of_[node.id] = static_cast<int>(out_.steps_.size());
  out_.steps_.push_back(std::move(step));
  return absl::OkStatus();
}

void CudaPlanner::MarkAssignedVariables() {
  for (const Assignment& assignment : assignments_) {
    for (auto& used : out_.used_variables_) used.assigned |= used.variable == PlaceOf(assignment.variable).variable;
  }
}

bool CudaPlanner::UsesDevice() const {
  return std::any_of(out_.steps_.begin(), out_.steps_.end(),
                     [](const Step& step) { return step.kind != Step::kOnHost; }) ||
         std::any_of(out_.used_variables_.begin(), out_.used_variables_.end(),
                     [](const auto& used) { return used.side == kDevice; });
}

// As on the CPU, a new value may be written straight into the variable if nothing reads the old one afterwards and
// nothing that comes later can fail. Whether a kernel of the device has failed is known when all are done, so where one
// can, nothing is written before. Any call to the device may fail, so only what is launched with the last segment
// writes to variables, and of the CPU's steps none does.
void CudaPlanner::PlaceAssignmentsInVariables() {
  const int count = static_cast<int>(out_.steps_.size());
  const bool uses_device = UsesDevice();
  int earliest = 0;  // The first step that may write to a variable.
  for (int step = 0; step < count; ++step) {
    if (out_.steps_[step].kernel.fallible && out_.steps_[step].on_device()) return;
    if (out_.steps_[step].kernel.fallible || (uses_device && !out_.steps_[step].on_device())) earliest = step + 1;
  }
  // Where AddCopiesOfVariables adds a step of the CPU, that is the last.
  for (const Assignment& assignment : assignments_) {
    const Node& value = graph_.node(assignment.value.node);
    if (uses_device && IsVariable(value) && SideOf(value) == kHost) return;
  }
  for (Assignment& assignment : assignments_) {
    Place& place = PlaceOf(assignment.value);
    const Place& variable = PlaceOf(assignment.variable);
    const int producer = step_of_[assignment.value.node];
    if (place.kind != Place::kUnset || producer < earliest || place.side != variable.side) continue;
    if (!values_.MayWriteToVariable(assignment, out_.steps_[producer], producer)) continue;
    place = variable;
    assignment.in_place = true;
  }
}

// A variable's value that is assigned to another variable is copied first: by then its own assignment may have taken
// effect.
void CudaPlanner::AddCopiesOfVariables() {
  for (Assignment& assignment : assignments_) {
    if (assignment.in_place || !IsVariable(graph_.node(assignment.value.node))) continue;
    const Node& variable = graph_.node(assignment.value.node);
    const size_t bytes = Bytes(assignment.value);
    Kernel kernel{.name = "copy"};
    if (SideOf(variable) == kDevice) {
      kernel.run = [bytes](const KernelArguments& arguments) {
        return arguments.cuda->api->CopyAsync(arguments.outputs[0], arguments.operands[0], bytes,
                                              CudaCopyKind::kDeviceToDevice, arguments.cuda->stream);
      };
    } else {
      kernel.run = [bytes](const KernelArguments& arguments) {
        std::memcpy(arguments.outputs[0], arguments.operands[0], bytes);
        return absl::OkStatus();
      };
    }
    const OpDefinition* op = variable.op->registry->Find("Copy");
    GW_CHECK(op != nullptr, "the registry lacks Copy");
    const absl::StatusOr<NodeId> copy = graph_.AddNode(op, {}, {assignment.value}, "", variable.device);
    GW_CHECK(copy.ok(), copy.status().ToString());
    AddTables(graph_.node(*copy), -1);
    step_of_[*copy] = static_cast<int>(out_.steps_.size());
    const Port port{*copy, 0};
    out_.steps_.push_back({.kind = SideOf(variable) == kDevice ? Step::kOnDevice : Step::kOnHost,
                           .kernel = std::move(kernel),
                           .node = *copy,
                           .num_nodes = 1,
                           .operands = {assignment.value},
                           .outputs = {port}});
    values_.Use(port, ValueLifetimes::kEnd);
    assignment.value = port;
  }
}

void CudaPlanner::AssignBuffers() {
  const int end = static_cast<int>(out_.steps_.size());
  for (int step = 0; step < end; ++step) {
    const Step& current = out_.steps_[step];
    const Side side = current.output_side();
    absl::InlinedVector<int, 2> taken;  // Buffers of operands that an output of this step has taken over.
    for (int output = 0; output < static_cast<int>(current.outputs.size()); ++output) {
      const Port port = current.outputs[output];
      Place& place = PlaceOf(port);
      if (place.kind != Place::kUnset) continue;
      const int last = std::max(step, std::min(values_.LastUse(port), end));
      const std::optional<Port> overwritten = values_.FindOverwritten(current, step, output, [&](Port root) {
        const Place& candidate = PlaceOf(root);
        return !IsEverywhere(root) && candidate.kind == Place::kArena && candidate.side == side &&
               Bytes(root) == Bytes(port) && std::find(taken.begin(), taken.end(), candidate.buffer) == taken.end();
      });
      int reused = overwritten.has_value() ? PlaceOf(*overwritten).buffer : -1;
      if (reused >= 0) {
        taken.push_back(reused);
        buffers_[side][reused].last = std::max(buffers_[side][reused].last, last);
      } else {
        reused = static_cast<int>(buffers_[side].size());
        buffers_[side].push_back({static_cast<int64_t>(Bytes(port)), step, last});
        owners_[side].push_back(port);
      }
      place = {Place::kArena, side, reused};
    }
    scratch_bytes_[current.operand_side()] =
        std::max(scratch_bytes_[current.operand_side()], current.kernel.scratch_bytes);
  }
}

// The inputs and constants that steps of the device, or its variables, read.
void CudaPlanner::FindSources() {
  absl::flat_hash_set<Port> seen;
  auto add = [&](Port root) {
    if (!IsEverywhere(root) || !seen.insert(root).second) return;
    (IsInput(graph_.node(root.node)) ? device_inputs_ : device_constants_).push_back(root);
  };
  for (const Step& step : out_.steps_) {
    if (step.operand_side() != kDevice) continue;
    for (Port operand : step.operands) add(Root(operand));
  }
  for (const Assignment& assignment : assignments_) {
    if (PlaceOf(assignment.variable).side == kDevice) add(assignment.value);
  }
  for (Port port : device_constants_) constant_bytes_ += RoundUp(Bytes(port));
  // Those that come with the run state first.
  std::stable_partition(device_inputs_.begin(), device_inputs_.end(), [&](Port port) { return IsSmallFeed(port); });
  out_.staged_bytes_ = kAlignment;
  for (Port port : device_inputs_) (IsSmallFeed(port) ? out_.staged_bytes_ : large_feed_bytes_) += RoundUp(Bytes(port));
  out_.uses_device_ = UsesDevice();
}

// As bytes, and in units that a reader can compare.
std::string Mebibytes(int64_t bytes) { return absl::StrCat(bytes, " bytes (", bytes >> 20, " MiB)"); }

absl::Status CudaPlanner::OutOfMemory(const absl::Status& status) const {
  if (status.code() != absl::StatusCode::kResourceExhausted) return status;
  std::vector<int> order;
  for (int i = 0; i < static_cast<int>(buffers_[kDevice].size()); ++i) order.push_back(i);
  std::stable_sort(order.begin(), order.end(),
                   [&](int a, int b) { return buffers_[kDevice][a].bytes > buffers_[kDevice][b].bytes; });
  constexpr size_t kNamed = 3;
  if (order.size() > kNamed) order.resize(kNamed);
  const std::string largest = absl::StrJoin(order, ", ", [&](std::string* text, int buffer) {
    const Port port = owners_[kDevice][buffer];
    absl::StrAppend(text, graph_.node(port.node).display_name(), " ", graph_.type(port).ToString(), " of ", Bytes(port),
                    " bytes");
  });
  return absl::ResourceExhaustedError(
      absl::StrCat("the plan does not fit in the memory of ", out_.device_->name(), ": its values take ",
                   Mebibytes(plans_[kDevice].arena_bytes), " at the peak, scratch ", scratch_bytes_[kDevice],
                   ", constants ", constant_bytes_, " and feeds ", out_.staged_bytes_ + 2 * large_feed_bytes_, "; ",
                   status.message(), largest.empty() ? "" : absl::StrCat("; the largest values are ", largest),
                   "; a smaller batch or SessionOptions::memory_budget takes less"));
}

void CudaPlanner::PlanArenas() {
  for (Side side : {kHost, kDevice}) {
    plans_[side] = PlanMemory(buffers_[side]);
    out_.arena_bytes_[side] = plans_[side].arena_bytes + static_cast<int64_t>(scratch_bytes_[side]);
    out_.lower_bound_bytes_[side] = plans_[side].lower_bound_bytes + static_cast<int64_t>(scratch_bytes_[side]);
  }
}

int64_t CudaPlanner::BytesBesideArena() const {
  if (!out_.uses_device_) return 0;
  // Rounding the arena up takes less than the last one.
  size_t bytes = ArenaAt() + kAlignment;
  for (const auto& used : out_.used_variables_) {
    if (used.side == kDevice && used.variable->device.data() == nullptr) bytes += used.variable->host.byte_size();
  }
  return static_cast<int64_t>(bytes);
}

absl::Status CudaPlanner::Allocate() {
  const size_t host_bytes = RoundUp(std::max<size_t>(out_.arena_bytes_[kHost], 1));
  void* host = std::aligned_alloc(kAlignment, host_bytes);
  if (host == nullptr) {
    return absl::ResourceExhaustedError(
        absl::StrCat("no memory for the plan's ", host_bytes, " bytes on the CPU; a smaller batch needs less"));
  }
  out_.host_arena_ = std::shared_ptr<std::byte>(static_cast<std::byte*>(host), std::free);
  out_.scratch_[kHost] = out_.host_arena_.get() + plans_[kHost].arena_bytes;
  if (out_.uses_device_) {
    if (absl::Status status = AllocateOnDevice(); !status.ok()) {
      out_.memory_ = CudaMemory();
      out_.pinned_ = CudaMemory();
      // The places of variables that other plans don't use.
      (void)out_.variables_->ReleaseUnused();
      return OutOfMemory(status);
    }
    PlaceFeedsAndConstants();
    GW_RETURN_IF_ERROR(PrepareDevice());
  }
  GW_RETURN_IF_ERROR(Bind());
  for (auto& used : out_.used_variables_) used.variable->plans += used.side == kDevice ? 1 : 0;
  return absl::OkStatus();
}

absl::Status CudaPlanner::AllocateOnDevice() {
  GW_RETURN_IF_ERROR(out_.device_->MakeCurrent());
  for (auto& used : out_.used_variables_) {
    if (used.side == kDevice) GW_RETURN_IF_ERROR(out_.variables_->Reserve(*used.variable));
  }
  size_t pinned_bytes = kAlignment + 2 * SlotBytes();
  if (auto fetches = graph_.outputs().find(kFetches); fetches != graph_.outputs().end()) {
    for (Port port : fetches->second) pinned_bytes += RoundUp(Bytes(port));
  }
  GW_ASSIGN_OR_RETURN(out_.pinned_, out_.device_->AllocatePinned(pinned_bytes));
  GW_ASSIGN_OR_RETURN(out_.memory_, out_.device_->Allocate(ArenaAt() + RoundUp(out_.arena_bytes_[kDevice])));
  return absl::OkStatus();
}

// In pinned memory the error flag comes first, then two slots, then what is fetched.
void CudaPlanner::PlaceFeedsAndConstants() {
  std::byte* device = out_.memory_.data() + 2 * kAlignment;
  out_.pinned_error_ = reinterpret_cast<int32_t*>(out_.pinned_.data());
  for (int i : {0, 1}) out_.slots_[i].data = out_.pinned_.data() + kAlignment + i * SlotBytes();
  size_t offset = kAlignment;
  out_.device_feeds_.clear();
  for (Port input : device_inputs_) {
    const size_t size = Bytes(input);
    out_.device_feeds_.push_back(
        {feeds_.at(input.node), size, offset, device, IsSmallFeed(input) ? nullptr : device + large_feed_bytes_});
    sources_[input] = device;
    device += RoundUp(size);
    offset += RoundUp(size);
  }
  std::byte* constants = out_.memory_.data() + ConstantsAt();
  for (Port constant : device_constants_) {
    sources_[constant] = constants;
    constants += RoundUp(Bytes(constant));
  }
}

// Constants, events, and no error.
absl::Status CudaPlanner::PrepareDevice() {
  CudaDevice& device = *out_.device_;
  for (Port constant : device_constants_) {
    const Tensor& value = graph_.node(constant.node).attribute<Tensor>("value");
    if (value.byte_size() == 0) continue;
    GW_RETURN_IF_ERROR(device.api().CopyAsync(sources_[constant], value.raw_data(), value.byte_size(),
                                              CudaCopyKind::kHostToDevice, device.stream()));
  }
  GW_RETURN_IF_ERROR(device.api().FillAsync(out_.memory_.data(), 0, sizeof(int32_t), device.stream()));
  GW_RETURN_IF_ERROR(device.api().Synchronize(device.stream()));
  for (CudaExecutable::Slot& slot : out_.slots_) {
    GW_ASSIGN_OR_RETURN(slot.taken, device.api().CreateEvent());
  }
  if (large_feed_bytes_ > 0) {
    GW_ASSIGN_OR_RETURN(out_.feeds_ready_, device.api().CreateEvent());
  }
  return absl::OkStatus();
}

// Where the root's elements are on that side; null for a feed of the CPU, which each run brings along.
void* CudaPlanner::Address(Port root, Side side) {
  const Node& node = graph_.node(root.node);
  if (IsEverywhere(root)) {
    if (side == kDevice) return sources_.at(root);
    return IsInput(node) ? nullptr : const_cast<void*>(node.attribute<Tensor>("value").raw_data());
  }
  const Place& place = PlaceOf(root);
  GW_CHECK(place.side == side, "a value is read on the wrong device: ", DescribeNode(graph_, node));
  if (place.kind == Place::kVariable) {
    return side == kDevice ? static_cast<void*>(place.variable->device.data())
                           : place.variable->host.mutable_raw_data();
  }
  GW_CHECK(place.kind == Place::kArena, "a value has no place: ", DescribeNode(graph_, node));
  std::byte* arena = side == kHost ? out_.host_arena_.get() : out_.memory_.data() + ArenaAt();
  return arena + plans_[side].offsets[place.buffer];
}

// Adds the address of a value, or a note to put the feed's there.
int CudaPlanner::AddPointer(Port port, Side side) {
  const Port root = Root(port);
  const int index = static_cast<int>(out_.pointers_.size());
  out_.pointers_.push_back(Address(root, side));
  if (side == kHost && IsInput(graph_.node(root.node))) out_.feed_patches_.push_back({index, feeds_.at(root.node)});
  return index;
}

absl::Status CudaPlanner::Bind() {
  if (out_.uses_device_) {
    out_.scratch_[kDevice] = out_.memory_.data() + ArenaAt() + plans_[kDevice].arena_bytes;
  }
  for (Step& step : out_.steps_) {
    step.first_operand = static_cast<int>(out_.pointers_.size());
    for (Port operand : step.operands) AddPointer(operand, step.operand_side());
    for (Port output : step.outputs) AddPointer(output, step.output_side());
  }
  auto side_of = [&](Port root) { return IsEverywhere(root) ? kHost : PlaceOf(root).side; };
  std::byte* pinned = out_.pinned_.data() + kAlignment + 2 * SlotBytes();
  if (auto fetches = graph_.outputs().find(kFetches); fetches != graph_.outputs().end()) {
    int result = 0;
    for (Port port : fetches->second) {
      const size_t bytes = Bytes(port);
      if (side_of(Root(port)) == kHost) {
        out_.result_copies_.push_back({nullptr, AddPointer(port, kHost), nullptr, result, bytes});
      } else {
        if (bytes > 0) out_.device_fetches_.push_back({Address(Root(port), kDevice), pinned, bytes});
        out_.result_copies_.push_back({pinned, -1, nullptr, result, bytes});
        pinned += RoundUp(bytes);
      }
      ++result;
    }
  }
  for (const Assignment& assignment : assignments_) {
    if (assignment.in_place) continue;
    const size_t bytes = Bytes(assignment.variable);
    const Side side = PlaceOf(assignment.variable).side;
    void* const to = Address(assignment.variable, side);
    if (side == kHost) {
      out_.variable_copies_.push_back({nullptr, AddPointer(assignment.value, kHost), to, -1, bytes});
    } else if (bytes > 0) {
      out_.commits_.push_back({to, Address(assignment.value, kDevice), bytes});
    }
  }
  return absl::OkStatus();
}

// Where the device is used, it has the last segment, which brings the results.
void CudaPlanner::MakeSegments() {
  const int count = static_cast<int>(out_.steps_.size());
  auto& segments = out_.segments_;
  for (int step = 0; step < count; ++step) {
    if (!out_.steps_[step].on_device()) {
      segments.push_back({step, step + 1, false});
    } else if (segments.empty() || !segments.back().on_device) {
      segments.push_back({step, step + 1, true});
    } else {
      segments.back().last = step + 1;
    }
  }
  if (out_.uses_device_ && (segments.empty() || !segments.back().on_device)) segments.push_back({count, count, true});
}

absl::StatusOr<std::unique_ptr<CudaExecutable>> CudaExecutable::Compile(Placement placement,
                                                                        std::shared_ptr<CudaDevice> device,
                                                                        std::shared_ptr<CudaVariables> variables,
                                                                        const Options& options) {
  std::unique_ptr<CudaExecutable> executable(new CudaExecutable());
  executable->graph_ = std::move(placement.graph);
  executable->moved_ = std::move(placement.moved);
  executable->device_ = std::move(device);
  executable->variables_ = std::move(variables);
  executable->allow_tf32_ = options.allow_tf32;
  executable->planner_ = std::make_shared<CudaPlanner>(*executable, options);
  GW_RETURN_IF_ERROR(executable->planner_->Plan());
  return executable;
}

absl::Status CudaExecutable::Allocate() {
  if (planner_ == nullptr) return absl::OkStatus();
  GW_RETURN_IF_ERROR(planner_->Allocate());
  planner_ = nullptr;
  return absl::OkStatus();
}

int64_t CudaExecutable::arena_room() const {
  // Where the device does not say, an allocation will.
  const absl::StatusOr<int64_t> available = device_->AvailableBytes();
  return planner_ == nullptr || !uses_device_ || !available.ok() ? CompiledGraph::arena_room()
                                                                 : *available - planner_->BytesBesideArena();
}

}  // namespace gradweave
