// Which steps a graph makes, how long its values live, and which buffers they have.
#include "gradweave/runtime/cuda/plan/cuda_planner.h"

#include <algorithm>
#include <cstddef>
#include <cstring>
#include <iterator>
#include <optional>
#include <utility>

#include "gradweave/graph/check.h"
#include "gradweave/runtime/cuda/ops/conv_shape.h"

namespace gradweave {

absl::Status CheckCudaKernel(const CudaBackend& backend, const Graph& graph, const Node& node) {
  const KernelFactory* factory = backend.kernels->Find(node.op->name);
  if (factory == nullptr) return absl::UnimplementedError("there is no kernel for it");
  const absl::StatusOr<Kernel> kernel = (*factory)({node, graph.OperandTypes(node), 1});
  // Whatever else is wrong is told where the kernel is made to be used.
  return kernel.status().code() == absl::StatusCode::kUnimplemented ? kernel.status() : absl::OkStatus();
}

absl::Status CudaPlanner::Plan() {
  GW_RETURN_IF_ERROR(MakeSteps());
  GW_ASSIGN_OR_RETURN(assignments_, values_.FindAssignments(graph_));
  MarkAssignedVariables();
  values_.FindLastUses(graph_, out_.steps_, assignments_);
  PlaceAssignmentsInVariables();
  AddCopiesOfVariables();
  AssignBuffers();
  FindSources();
  MakeSegments();
  PlanArenas();
  return absl::OkStatus();
}

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

size_t CudaPlanner::Bytes(Port port) const {
  const TensorType& type = graph_.type(port);
  return static_cast<size_t>(tiled_.contains(port) ? options_.cpu_kernels->regions()->tiled_bytes(type)
                                                   : type.byte_size());
}

// Nodes of the device's parts that run as one kernel, with their kernels.
absl::Status CudaPlanner::FindGroups(std::vector<PartSteps>& steps) {
  if (out_.device_->backend().make_fused == nullptr) return absl::OkStatus();
  KernelStore& kernels = out_.device_->kernels();
  constexpr int kMostGeneratedChannels = 128;
  FusionOptions fusion;
  if (kernels.CanGenerate()) {
    fusion.reductions = true;
    fusion.rows = options_.cpu.row_fusion != RowFusion::kNever;
    // Sums in registers keep up with the library's products for more channels where these may not round.
    const bool rounds = options_.product_precision != ProductPrecision::kIeee;
    fusion.convolution_channels = options_.cpu.in_order ? 0 : rounds ? kMostDirectChannels : kMostGeneratedChannels;
  }
  while (true) {
    std::vector<FusedGroup> groups;
    for (size_t i = 0; i < steps.size(); ++i) {
      const DevicePart& part = out_.parts_.parts[i];
      if (!IsCudaDevice(part.device)) continue;
      steps[i].fusion = FindFusedGroups(part.graph, fusion);
      groups.insert(groups.end(), steps[i].fusion.groups.begin(), steps[i].fusion.groups.end());
    }
    GW_ASSIGN_OR_RETURN(std::vector<KernelStore::GroupKernels> generated, kernels.KernelsOf(groups));
    // Some groups have generated kernels alone: where one of them cannot be had, none of its kind is made.
    bool missing = false;
    for (size_t i = 0; i < groups.size(); ++i) {
      if (!groups[i].needs_generated_kernel() || generated[i][0] != nullptr) continue;
      missing = true;
      if (groups[i].convolution != nullptr) {
        fusion.convolution_channels = 0;
      } else if (groups[i].rows != nullptr) {
        fusion.rows = false;
      } else {
        fusion.reductions = false;
      }
    }
    if (missing) continue;
    auto next = generated.begin();
    for (PartSteps& part : steps) {
      const auto end = next + static_cast<std::ptrdiff_t>(part.fusion.groups.size());
      part.generated.assign(std::make_move_iterator(next), std::make_move_iterator(end));
      next = end;
    }
    return absl::OkStatus();
  }
}

absl::StatusOr<std::vector<CudaPlanner::PartSteps>> CudaPlanner::FindPartSteps() {
  const std::vector<DevicePart>& parts = out_.parts_.parts;
  std::vector<PartSteps> steps(parts.size());
  GW_RETURN_IF_ERROR(FindGroups(steps));
  for (size_t i = 0; i < parts.size(); ++i) {
    if (IsCudaDevice(parts[i].device)) continue;
    RegionSteps& regions = steps[i].regions;
    GW_ASSIGN_OR_RETURN(regions, FindRegionSteps(parts[i].graph, *options_.cpu_kernels, options_.cpu));
    for (Port port : regions.tiled) tiled_.insert(parts[i].OriginOf(port));
    out_.choices_.insert(out_.choices_.end(), regions.choices.begin(), regions.choices.end());
  }
  return steps;
}

absl::Status CudaPlanner::MakeSteps() {
  GW_ASSIGN_OR_RETURN(out_.parts_, FindDeviceParts(graph_));
  const std::vector<DevicePart>& parts = out_.parts_.parts;
  GW_ASSIGN_OR_RETURN(std::vector<PartSteps> steps, FindPartSteps());
  // What groups and batch regions make is in memory of its own, whatever a node would do alone.
  std::vector<bool> together(graph_.num_nodes(), false);
  for (size_t i = 0; i < parts.size(); ++i) {
    for (const FusedGroup& group : steps[i].fusion.groups) {
      for (NodeId id : group.nodes) together[parts[i].OriginOf(id)] = true;
    }
    const std::vector<bool>& in_region = steps[i].regions.in_batch_region;
    for (size_t id = 0; id < in_region.size(); ++id) {
      if (in_region[id]) together[parts[i].OriginOf(static_cast<NodeId>(id))] = true;
    }
  }
  for (const Node& node : graph_.nodes()) {
    AddTables(node, together[node.id] || IsTransfer(node) ? -1 : AliasedOperand(node));
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
  for (OrderItem item : out_.parts_.order) {
    if (item.is_node()) {
      GW_RETURN_IF_ERROR(AddStep(graph_.node(item.node())));
    } else if (IsCudaDevice(parts[item.index].device)) {
      GW_RETURN_IF_ERROR(AddDevicePart(parts[item.index], steps[item.index]));
    } else {
      for (RegionStep& step : steps[item.index].regions.steps) AddRegionStep(parts[item.index], std::move(step));
    }
  }
  return absl::OkStatus();
}

absl::Status CudaPlanner::AddDevicePart(const DevicePart& part, const PartSteps& steps) {
  auto add_node = [&](NodeId id) {
    // Sources stand for what is made elsewhere.
    return IsSource(part.graph.node(id)) ? absl::OkStatus() : AddStep(graph_.node(part.OriginOf(id)));
  };
  if (steps.fusion.groups.empty()) {
    for (const Node& node : part.graph.nodes()) GW_RETURN_IF_ERROR(add_node(node.id));
    return absl::OkStatus();
  }
  for (OrderItem item : steps.fusion.order) {
    if (item.is_node()) {
      GW_RETURN_IF_ERROR(add_node(item.node()));
    } else {
      AddGroupStep(part, steps.fusion.groups[item.index], steps.generated[item.index]);
    }
  }
  return absl::OkStatus();
}

void CudaPlanner::AddGroupStep(const DevicePart& part, const FusedGroup& group,
                               const KernelStore::GroupKernels& generated) {
  Step step{.kind = Step::kOnDevice,
            .kernel = out_.device_->backend().make_fused(part.graph, group, generated),
            .node = part.OriginOf(group.nodes.back()),
            .num_nodes = static_cast<int>(group.nodes.size())};
  for (Port port : group.operands) step.operands.push_back(part.OriginOf(port));
  for (Port port : group.outputs) step.outputs.push_back(part.OriginOf(port));
  for (NodeId id : group.nodes) step_of_[part.OriginOf(id)] = static_cast<int>(out_.steps_.size());
  out_.steps_.push_back(std::move(step));
}

void CudaPlanner::AddRegionStep(const DevicePart& part, RegionStep planned) {
  Step step{.kind = Step::kOnHost,
            .kernel = std::move(planned.kernel),
            .node = part.OriginOf(planned.nodes.back()),
            .num_nodes = static_cast<int>(planned.nodes.size())};
  for (Port port : planned.operands) step.operands.push_back(part.OriginOf(port));
  for (Port port : planned.outputs) step.outputs.push_back(part.OriginOf(port));
  for (NodeId id : planned.nodes) step_of_[part.OriginOf(id)] = static_cast<int>(out_.steps_.size());
  out_.steps_.push_back(std::move(step));
}

absl::Status CudaPlanner::AddStep(const Node& node) {
  if (IsSource(node) || !(Root({node.id, 0}) == Port{node.id, 0})) return absl::OkStatus();
  Step step{.kind = Step::kOnDevice, .node = node.id, .num_nodes = 1};
  if (IsTransfer(node)) {
    step.kind = SideOf(node) == kDevice ? Step::kToDevice : Step::kToHost;
    step.kernel.name = step.kind == Step::kToDevice ? "copy to the device" : "copy to the CPU";
  } else {
    GW_ASSIGN_OR_RETURN(step.kernel, MakeKernel(*out_.device_->backend().kernels, graph_, node, options_.cpu.threads));
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
  }
  // Scratch is a buffer of its step alone, so that steps that run side by side have scratch of their own.
  for (int step = 0; step < end; ++step) {
    const Step& current = out_.steps_[step];
    const bool any = current.kernel.scratch_bytes > 0;
    auto& buffers = buffers_[current.operand_side()];
    scratch_.push_back(any ? static_cast<int>(buffers.size()) : -1);
    if (any) buffers.push_back({static_cast<int64_t>(current.kernel.scratch_bytes), step, step});
  }
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
  executable->product_precision_ = options.product_precision;
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
