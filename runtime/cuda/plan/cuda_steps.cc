#include "gradweave/runtime/cuda/plan/cuda_steps.h"

#include <cstddef>
#include <iterator>
#include <utility>

#include "gradweave/graph/check.h"
#include "gradweave/runtime/cuda/fusion/fusion.h"
#include "gradweave/runtime/cuda/ops/conv_shape.h"

namespace gradweave {
namespace {

// A part's nodes that run as one kernel, with their generated kernels, by group.
struct PartGroups {
  FusionPlan fusion;
  std::vector<KernelStore::GroupKernels> generated;
};

FusionOptions WantedFusion(const CudaDevice& device, const CompileOptions& options) {
  constexpr int kMostGeneratedChannels = 128;
  FusionOptions fusion;
  if (!device.kernels().CanGenerate()) return fusion;
  fusion.reductions = true;
  fusion.rows = options.row_fusion != RowFusion::kNever;
  // If products may not round their factors, sums in registers keep up with the library for more
  // channels.
  const bool rounds = device.product_precision() != ProductPrecision::kIeee;
  fusion.convolution_channels = options.in_order ? 0 : rounds ? kMostDirectChannels : kMostGeneratedChannels;
  return fusion;
}

// Some groups can only run as generated kernels. If one of these kernels cannot be made, the
// options exclude groups of its kind. Returns true if that changes the options.
bool LeaveOutMissing(absl::Span<const FusedGroup> groups, absl::Span<const KernelStore::GroupKernels> generated,
                     FusionOptions& fusion) {
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
  return missing;
}

absl::StatusOr<std::vector<PartGroups>> FindGroups(const CudaDevice& device, absl::Span<const DevicePart* const> parts,
                                                   const CompileOptions& options) {
  std::vector<PartGroups> found(parts.size());
  FusionOptions fusion = WantedFusion(device, options);
  while (true) {
    std::vector<FusedGroup> groups;
    for (size_t i = 0; i < parts.size(); ++i) {
      found[i].fusion = FindFusedGroups(parts[i]->graph, fusion);
      groups.insert(groups.end(), found[i].fusion.groups.begin(), found[i].fusion.groups.end());
    }
    GW_ASSIGN_OR_RETURN(std::vector<KernelStore::GroupKernels> generated, device.kernels().KernelsOf(groups));
    if (LeaveOutMissing(groups, generated, fusion)) continue;
    auto next = generated.begin();
    for (PartGroups& part : found) {
      const auto end = next + static_cast<std::ptrdiff_t>(part.fusion.groups.size());
      part.generated.assign(std::make_move_iterator(next), std::make_move_iterator(end));
      next = end;
    }
    return found;
  }
}

// Makes the kernel for the node of the whole graph, because the kernel reports the node's id with
// bad data.
absl::Status AddNodeStep(const CudaDevice& device, const Graph& graph, const DevicePart& part, NodeId id, int threads,
                         PartSteps& made) {
  const Node& node = part.graph.node(id);
  // Sources stand for values of other parts.
  if (node.op->is_source() || AliasedOperand(node) >= 0) return absl::OkStatus();
  const Node& origin = graph.node(part.OriginOf(id));
  GW_ASSIGN_OR_RETURN(PartStep step, MakeNodeStep(*device.platform().kernels, graph, origin, threads));
  step.nodes = {id};
  step.operands.assign(node.inputs.begin(), node.inputs.end());
  for (Port& output : step.outputs) output.node = id;
  made.steps.push_back(std::move(step));
  return absl::OkStatus();
}

void AddGroupStep(const CudaDevice& device, const DevicePart& part, const FusedGroup& group,
                  const KernelStore::GroupKernels& generated, PartSteps& made) {
  PartStep step{.kernel = device.platform().make_fused(part.graph, group, generated), .nodes = group.nodes};
  step.operands.assign(group.operands.begin(), group.operands.end());
  step.outputs.assign(group.outputs.begin(), group.outputs.end());
  // The results of groups have their own memory, even if a single node would return a view.
  for (NodeId id : group.nodes) made.own_memory[id] = true;
  made.steps.push_back(std::move(step));
}

}  // namespace

absl::StatusOr<std::vector<PartSteps>> MakeCudaSteps(CudaDevice& device, const Graph& graph,
                                                     absl::Span<const DevicePart* const> parts,
                                                     const CompileOptions& options) {
  std::vector<PartGroups> groups(parts.size());
  if (device.platform().make_fused != nullptr) {
    GW_ASSIGN_OR_RETURN(groups, FindGroups(device, parts, options));
  }
  std::vector<PartSteps> steps(parts.size());
  for (size_t i = 0; i < parts.size(); ++i) {
    const DevicePart& part = *parts[i];
    PartSteps& made = steps[i];
    made.own_memory.assign(part.graph.num_nodes(), false);
    if (groups[i].fusion.groups.empty()) {
      for (const Node& node : part.graph.nodes()) {
        GW_RETURN_IF_ERROR(AddNodeStep(device, graph, part, node.id, options.threads, made));
      }
      continue;
    }
    for (OrderItem item : groups[i].fusion.order) {
      if (item.is_node()) {
        GW_RETURN_IF_ERROR(AddNodeStep(device, graph, part, item.node(), options.threads, made));
      } else {
        AddGroupStep(device, part, groups[i].fusion.groups[item.index], groups[i].generated[item.index], made);
      }
    }
  }
  return steps;
}

}  // namespace gradweave
