#include "gradweave/runtime/cpu/region_steps.h"

#include <cmath>
#include <utility>

#include "absl/strings/str_format.h"
#include "gradweave/graph/check.h"
#include "gradweave/runtime/plan/value_lifetimes.h"

namespace gradweave {
namespace {

class RegionStepPlanner {
 public:
  RegionStepPlanner(const Graph& graph, const KernelRegistry& kernels, const CompileOptions& options)
      : graph_(graph), kernels_(kernels), options_(options) {}

  absl::StatusOr<RegionSteps> Plan() {
    const BatchPartition partition = FindBatches();
    result_.in_batch_region.assign(graph_.num_nodes(), false);
    for (const BatchRegion& region : partition.regions) {
      for (const BatchRegion::Member& member : region.nodes) result_.in_batch_region[member.node] = true;
    }
    FindTiledValues(partition);
    const RowPartition rows = FindRows(partition);
    for (OrderItem item : rows.order) {
      if (item.is_node()) {
        GW_RETURN_IF_ERROR(AddNode(graph_.node(item.node())));
      } else if (item.kind == OrderItem::Kind::kBatchRegion) {
        AddRegion(partition.regions[item.index]);
      } else {
        AddRegion(rows.regions[item.index]);
      }
    }
    return std::move(result_);
  }

 private:
  BatchPartition FindBatches() {
    const RegionCompiler* regions = options_.batch_tiles == BatchTiles::kNever ? nullptr : kernels_.regions();
    const bool always = options_.batch_tiles == BatchTiles::kAlways;
    if (regions == nullptr) return {.order = NodeOrder(graph_)};
    return FindBatchRegions(
        graph_, always ? 1 : regions->least_batch, regions->supports, [&](const BatchRegion& region) {
          const double saving = regions->saving(graph_, region);
          result_.choices.push_back(absl::StrFormat(
              "batch region of %d nodes from %s: tiles are expected to %s %.1f us of a thread", region.nodes.size(),
              graph_.node(region.nodes[0].node).display_name(), saving > 0 ? "save" : "cost", std::abs(saving)));
          return always || saving > 0;
        });
  }

  RowPartition FindRows(const BatchPartition& partition) const {
    const RowRegionCompiler* compiler = kernels_.row_regions();
    if (compiler == nullptr || options_.row_fusion == RowFusion::kNever) return {.order = partition.order};
    const auto begins = [&](const Node& producer, const RowRegion& region) {
      return compiler->begins(graph_, producer, region);
    };
    return FindRowRegions(graph_, partition, compiler->supports, begins, [&](const RowRegion& region) {
      return options_.row_fusion == RowFusion::kAlways || compiler->pays(graph_, region);
    });
  }

  absl::Status AddNode(const Node& node) {
    if (IsSource(node) || AliasedOperand(node) >= 0) return absl::OkStatus();
    GW_ASSIGN_OR_RETURN(Kernel kernel, MakeKernel(kernels_, graph_, node, options_.threads));
    RegionStep step{.kernel = std::move(kernel), .nodes = {node.id}};
    step.operands.assign(node.inputs.begin(), node.inputs.end());
    for (int i = 0; i < static_cast<int>(node.outputs.size()); ++i) step.outputs.push_back({node.id, i});
    result_.steps.push_back(std::move(step));
    return absl::OkStatus();
  }

  void AddRegion(const BatchRegion& region) {
    RegionRequest request{
        .graph = graph_, .region = region, .threads = options_.threads, .toom_cook = options_.toom_cook};
    RegionStep step;
    for (const BatchRegion::Operand& operand : region.operands) {
      step.operands.push_back(operand.port);
      request.tiled_operands.push_back(operand.batched && result_.tiled.contains(operand.port));
    }
    for (const BatchRegion::Output& output : region.outputs) {
      step.outputs.push_back(output.port);
      request.tiled_outputs.push_back(result_.tiled.contains(output.port));
    }
    step.kernel = kernels_.regions()->make(request);
    for (const BatchRegion::Member& member : region.nodes) step.nodes.push_back(member.node);
    result_.steps.push_back(std::move(step));
  }

  void AddRegion(const RowRegion& region) {
    RegionStep step;
    for (const RowRegion::Operand& operand : region.operands) step.operands.push_back(operand.port);
    for (const RowRegion::Operand& output : region.outputs) step.outputs.push_back(output.port);
    step.kernel = kernels_.row_regions()->make({.graph = graph_, .region = region, .threads = options_.threads});
    for (const RowRegion::Member& member : region.nodes) step.nodes.push_back(member.node);
    result_.steps.push_back(std::move(step));
  }

  // What only regions make and read, sample by sample, need not be brought into the order of tensors between them.
  void FindTiledValues(const BatchPartition& partition) {
    absl::flat_hash_set<Port> others;
    for (const auto& [name, ports] : graph_.outputs()) others.insert(ports.begin(), ports.end());
    for (OrderItem item : partition.order) {
      if (!item.is_node()) continue;
      for (Port input : graph_.node(item.node()).inputs) others.insert(input);
    }
    for (const BatchRegion& region : partition.regions) {
      for (const BatchRegion::Operand& operand : region.operands) {
        if (!operand.batched) others.insert(operand.port);
      }
    }
    for (const BatchRegion& region : partition.regions) {
      for (const BatchRegion::Output& output : region.outputs) {
        if (!output.summed && !others.contains(output.port)) result_.tiled.insert(output.port);
      }
    }
  }

  const Graph& graph_;
  const KernelRegistry& kernels_;
  const CompileOptions& options_;
  RegionSteps result_;
};

}  // namespace

absl::StatusOr<RegionSteps> FindRegionSteps(const Graph& graph, const KernelRegistry& kernels,
                                            const CompileOptions& options) {
  return RegionStepPlanner(graph, kernels, options).Plan();
}

}  // namespace gradweave
