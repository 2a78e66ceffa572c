#include "gradweave/runtime/cpu/region_steps.h"

#include <algorithm>
#include <cmath>
#include <memory>
#include <utility>

#include "absl/container/flat_hash_map.h"
#include "absl/container/flat_hash_set.h"
#include "absl/strings/str_format.h"
#include "gradweave/graph/body.h"
#include "gradweave/graph/check.h"
#include "gradweave/runtime/cpu/control_flow.h"
#include "gradweave/runtime/cpu/kernels.h"
#include "gradweave/runtime/cpu/region_cost.h"
#include "gradweave/runtime/cpu/rows/row_program.h"
#include "gradweave/runtime/cpu/rows/row_windows.h"
#include "gradweave/runtime/cpu/tile/tile_cost.h"
#include "gradweave/runtime/cpu/tile/tile_program.h"
#include "gradweave/runtime/distributed/collective_kernels.h"
#include "gradweave/runtime/plan/compile_options.h"

namespace gradweave {
namespace {

class RegionStepFinder {
 public:
  RegionStepFinder(const Graph& graph, const StepOptions& options) : graph_(graph), options_(options) {
    if (options.communicator != nullptr) distributed::RegisterCollectiveKernels(options.communicator, collectives_);
  }

  absl::StatusOr<PartSteps> Find() {
    const BatchPartition partition = FindBatches();
    if (options_.wants_estimate) result_.nanoseconds = ExpectedNanoseconds(partition);
    result_.own_memory.assign(graph_.num_nodes(), false);
    for (const BatchRegion& region : partition.regions) {
      for (const BatchRegion::Member& member : region.nodes) result_.own_memory[member.node] = true;
    }
    FindTiledValues(partition);
    const RowPartition rows = FindRows(partition);
    windows_ = FindRowWindows(graph_, rows.regions);
    // Operands of slices in batch regions may be in no memory.
    absl::erase_if(windows_, [this](const auto& window) { return result_.own_memory[window.first.node]; });
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
    const bool always = options_.batch_tiles == BatchTiles::kAlways;
    if (options_.batch_tiles == BatchTiles::kNever) return {.order = NodeOrder(graph_)};
    return FindBatchRegions(graph_, always ? 1 : tiles_.least_batch, tiles_.supports, [&](const BatchRegion& region) {
      const double saving = TilesSaving(graph_, region, options_.toom_cook);
      const size_t number = result_.tiled.size();
      const bool is_told = !always && !options_.tiled.empty();
      const bool wanted = is_told ? number < options_.tiled.size() && options_.tiled[number] : always || saving > 0;
      result_.tiled.push_back(wanted && HasElements(region));
      result_.choices.push_back(absl::StrFormat(
          "batch region of %d nodes from %s: tiles are expected to %s %.1f us of a thread%s", region.nodes.size(),
          graph_.node(region.nodes[0].node).display_name(), saving > 0 ? "save" : "cost", std::abs(saving),
          is_told && wanted != (saving > 0) ? wanted ? "; in tiles to save memory" : "; one by one to save memory"
                                            : ""));
      return result_.tiled.back();
    });
  }

  double ExpectedNanoseconds(const BatchPartition& partition) const {
    Estimate estimate;
    for (OrderItem item : partition.order) {
      estimate.Add(item.is_node() ? NodeEstimate(graph_, graph_.node(item.node()), options_.toom_cook)
                                  : TileEstimate(graph_, partition.regions[item.index], options_.toom_cook));
    }
    return estimate.nanoseconds();
  }

  // False if no node has elements: a region would go over the samples for nothing, and there may be
  // any number of them.
  bool HasElements(const BatchRegion& region) const {
    return std::any_of(region.nodes.begin(), region.nodes.end(), [this](const BatchRegion::Member& member) {
      const TensorTypes& outputs = graph_.node(member.node).outputs;
      return !member.summed && !(outputs[0].shape.num_elements() == Dim(0));
    });
  }

  RowPartition FindRows(const BatchPartition& partition) const {
    if (options_.row_fusion == RowFusion::kNever) return {.order = partition.order};
    const auto begins = [&](const Node& producer, const RowRegion& region) {
      return rows_.begins(graph_, producer, region, options_.toom_cook);
    };
    const auto keep = [&](const RowRegion& region) {
      return options_.row_fusion == RowFusion::kAlways || rows_.pays(graph_, region);
    };
    return FindRowRegions(graph_, partition, rows_.supports, begins, keep, RowSplit::kAnyAxis);
  }

  absl::Status AddNode(const Node& node) {
    if (node.op->is_source() || AliasedOperand(node) >= 0 || windows_.contains({node.id, 0})) return absl::OkStatus();
    const KernelRegistry& kernels = HasBody(node)                                 ? KernelsOfBodies()
                                    : collectives_.Find(node.op->name) != nullptr ? collectives_
                                                                                  : CpuKernels();
    GW_ASSIGN_OR_RETURN(PartStep step, MakeNodeStep(kernels, graph_, node, options_.threads, options_.toom_cook));
    result_.steps.push_back(std::move(step));
    return absl::OkStatus();
  }

  // Bodies get their steps with the same options.
  const KernelRegistry& KernelsOfBodies() {
    if (of_bodies_ == nullptr) {
      of_bodies_ = std::make_unique<KernelRegistry>();
      RegisterControlFlowKernels(*of_bodies_, options_);
    }
    return *of_bodies_;
  }

  void AddRegion(const BatchRegion& region) {
    RegionRequest request{
        .graph = graph_, .region = region, .threads = options_.threads, .toom_cook = options_.toom_cook};
    PartStep step;
    for (const BatchRegion::Operand& operand : region.operands) {
      step.operands.push_back(operand.port);
      request.tiled_operands.push_back(operand.batched && result_.bytes.contains(operand.port));
    }
    for (const BatchRegion::Output& output : region.outputs) {
      step.outputs.push_back(output.port);
      request.tiled_outputs.push_back(result_.bytes.contains(output.port));
    }
    step.kernel = tiles_.make(request);
    for (const BatchRegion::Member& member : region.nodes) step.nodes.push_back(member.node);
    result_.steps.push_back(std::move(step));
  }

  void AddRegion(const RowRegion& region) {
    RowRegionRequest request{
        .graph = graph_, .region = region, .threads = options_.threads, .toom_cook = options_.toom_cook};
    PartStep step;
    for (size_t i = 0; i < region.operands.size(); ++i) {
      const Port port = region.operands[i].port;
      step.operands.push_back(port);
      const auto window = windows_.find(port);
      if (window == windows_.end()) continue;
      step.operands.back() = graph_.node(port.node).inputs[0];
      request.windows.resize(region.operands.size());
      request.windows[i] = window->second;
      request.window_columns = graph_.type(port).shape[graph_.type(port).shape.rank() - 1].size();
    }
    for (const RowRegion::Operand& output : region.outputs) step.outputs.push_back(output.port);
    step.kernel = rows_.make(request);
    for (const RowRegion::Member& member : region.nodes) step.nodes.push_back(member.node);
    result_.steps.push_back(std::move(step));
  }

  // A value that only regions write and read, sample by sample, stays in tiles between them.
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
        if (output.summed || others.contains(output.port)) continue;
        result_.bytes[output.port] = tiles_.tiled_bytes(graph_.type(output.port));
      }
    }
  }

  const Graph& graph_;
  const StepOptions& options_;
  const RegionCompiler tiles_ = TileCompiler();
  const RowRegionCompiler rows_ = RowCompiler();
  KernelRegistry collectives_;  // With the session's communicator, if it has one.
  std::unique_ptr<KernelRegistry> of_bodies_;
  absl::flat_hash_map<Port, RowWindow> windows_;  // Indexed by slice. The slice has no step.
  PartSteps result_;
};

}  // namespace

absl::StatusOr<PartSteps> FindRegionSteps(const Graph& graph, const StepOptions& options) {
  return RegionStepFinder(graph, options).Find();
}

}  // namespace gradweave
