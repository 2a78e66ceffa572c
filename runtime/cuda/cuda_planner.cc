// Which steps a graph makes, how long its values live, and which buffers they have.
#include "gradweave/runtime/cuda/cuda_planner.h"

#include <algorithm>
#include <cstring>
#include <optional>
#include <utility>

#include "gradweave/graph/check.h"

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

// Nodes that run as one kernel. Where the CPU has a part of the graph, nodes keep their order: a copy that
// came earlier or later could make one device wait for the other.
absl::StatusOr<FusionPlan> CudaPlanner::FindGroups() {
  if (out_.device_->backend().make_fused == nullptr) return FusionPlan{};
  for (const Node& node : graph_.nodes()) {
    if (!IsInput(node) && !IsConstant(node) && SideOf(node) == kHost) return FusionPlan{};
  }
  KernelStore& kernels = out_.device_->kernels();
  const bool generates = kernels.CanGenerate();
  FusionPlan plan = FindFusedGroups(graph_, {.reductions = generates, .rows = generates && options_.fuse_rows});
  GW_ASSIGN_OR_RETURN(generated_, kernels.KernelsOf(plan.groups));
  // Only generated kernels reduce: where one of them cannot be had, all reductions run alone.
  for (size_t i = 0; i < plan.groups.size(); ++i) {
    if (!plan.groups[i].needs_generated_kernel() || generated_[i][0] != nullptr) continue;
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
