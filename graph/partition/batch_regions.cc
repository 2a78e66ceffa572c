#include "gradweave/graph/partition/batch_regions.h"

#include <algorithm>
#include <map>
#include <utility>

#include "absl/container/flat_hash_set.h"

namespace gradweave {
namespace {

// Returns the size of axis 0 with the most bytes among the inputs; 0 if no input has an axis.
int64_t BatchSize(const Graph& graph) {
  std::map<int64_t, int64_t> bytes_of_size;
  for (const Node& node : graph.nodes()) {
    if (node.op->kind != OpKind::kInput || node.outputs[0].shape.rank() == 0) continue;
    bytes_of_size[node.outputs[0].shape[0].size()] += node.outputs[0].byte_size();
  }
  int64_t best = 0, most = 0;
  for (const auto& [size, bytes] : bytes_of_size) {
    if (bytes > most) best = size, most = bytes;
  }
  return best;
}

class BatchRegionFinder {
 public:
  BatchRegionFinder(const Graph& graph, int64_t batch, absl::FunctionRef<bool(const BatchNode&)> supported)
      : graph_(graph), batch_(batch), supported_(supported), nodes_(graph.num_nodes()) {}

  BatchPartition Find(absl::FunctionRef<bool(const BatchRegion&)> keep);

 private:
  struct NodeState {
    bool inside = false;
    bool summed = false;
    bool of_batch = false;  // Depends on an input with a batch.
    // The number of regions that must run before. The nodes inside at one level form one region. A
    // path that leaves the region and comes back arrives at a higher level, so running the region
    // as one creates no cycle.
    int level = 0;
    absl::InlinedVector<bool, 4> batched = {};  // Indexed by operand, for nodes inside.
  };

  bool HasBatch(Port port) const {
    const Shape& shape = graph_.type(port).shape;
    return shape.rank() > 0 && shape[0].size() == batch_;
  }
  // True if a node that depends on no batch can still supply one value for each sample: a constant,
  // or a broadcast value.
  bool IsForEachSample(const Node& node) const {
    return node.op->kind == OpKind::kConstant || (node.op->kind == OpKind::kBroadcastTo && !HasBatch(node.inputs[0]));
  }
  void Classify(const Node& node);
  bool TryBatch(const Node& node, absl::Span<const BatchAxis> axes, NodeState& state);
  std::vector<BatchRegion> RegionsByLevel() const;
  std::vector<bool> KeptLevels(const std::vector<BatchRegion>& regions,
                               absl::FunctionRef<bool(const BatchRegion&)> keep) const;

  const Graph& graph_;
  const int64_t batch_;
  absl::FunctionRef<bool(const BatchNode&)> supported_;
  std::vector<NodeState> nodes_;
};

bool BatchRegionFinder::TryBatch(const Node& node, absl::Span<const BatchAxis> axes, NodeState& state) {
  const TensorTypes types = graph_.OperandTypes(node);
  const auto results = node.op->batch(OpView(*node.op, node.attributes, types), axes);
  state.summed = results[0].kind == BatchAxis::kSummed;
  for (const BatchAxis& result : results) {
    if (state.summed ? result.kind != BatchAxis::kSummed : !(result == BatchAxis::Axis(0))) return false;
  }
  state.batched.clear();
  for (const BatchAxis& axis : axes) state.batched.push_back(axis.kind == BatchAxis::kAxis);
  return supported_({graph_, node, state.batched, state.summed});
}

void BatchRegionFinder::Classify(const Node& node) {
  NodeState& state = nodes_[node.id];
  // Nodes outside can read a region's value when the region is complete.
  auto level_outside = [&](Port input) {
    const NodeState& producer = nodes_[input.node];
    return producer.level + (producer.inside ? 1 : 0);
  };
  state.of_batch = node.op->kind == OpKind::kInput && HasBatch({node.id, 0});
  int outside = 0, inside = 0;
  bool reads_region = false, may_start = false;
  for (Port input : node.inputs) {
    const NodeState& producer = nodes_[input.node];
    const bool sample = producer.inside && !producer.summed;
    reads_region |= sample;
    may_start |= producer.of_batch && HasBatch(input);
    state.of_batch |= producer.of_batch;
    outside = std::max(outside, level_outside(input));
    inside = std::max(inside, sample ? producer.level : level_outside(input));
  }
  if ((reads_region || may_start) && node.op->batch != nullptr && !node.inputs.empty()) {
    // A value with the size of the batch may be read by sample or as a whole. Reading by sample is
    // tried first. If samples would mix, only the values that the region itself computes, and
    // inputs, are read by sample.
    absl::InlinedVector<BatchAxis, 4> by_sample(node.inputs.size()), as_made(node.inputs.size());
    for (size_t i = 0; i < node.inputs.size(); ++i) {
      const NodeState& producer = nodes_[node.inputs[i].node];
      const bool sample = producer.inside && !producer.summed;
      // A dimension may have the size of the batch by chance. It counts as the batch only if the
      // value depends on a batch, or is a constant or a broadcast value, such as the gradient of a
      // mean.
      if (HasBatch(node.inputs[i]) && (producer.of_batch || IsForEachSample(graph_.node(node.inputs[i].node)))) {
        by_sample[i] = BatchAxis::Axis(0);
      }
      if (sample || graph_.node(node.inputs[i].node).op->kind == OpKind::kInput) {
        if (HasBatch(node.inputs[i])) as_made[i] = BatchAxis::Axis(0);
      }
    }
    auto any = [](const auto& axes) {
      return std::any_of(axes.begin(), axes.end(), [](const BatchAxis& axis) { return axis.kind == BatchAxis::kAxis; });
    };
    state.inside = (any(by_sample) && TryBatch(node, by_sample, state)) ||
                   (any(as_made) && !(as_made == by_sample) && TryBatch(node, as_made, state));
  }
  state.level = state.inside ? inside : outside;
}

// One region for each level. Levels without nodes inside have an empty one.
std::vector<BatchRegion> BatchRegionFinder::RegionsByLevel() const {
  int levels = 1;
  for (const NodeState& state : nodes_) levels = std::max(levels, state.level + 1);
  std::vector<BatchRegion> regions(levels);
  // Operands by how they are read: as a whole, or by sample.
  std::vector<absl::flat_hash_set<std::pair<Port, bool>>> seen(levels);
  std::vector<absl::InlinedVector<bool, 1>> read_outside(graph_.num_nodes());
  for (const Node& node : graph_.nodes()) read_outside[node.id].resize(node.outputs.size());
  for (const Node& node : graph_.nodes()) {
    const NodeState& state = nodes_[node.id];
    BatchRegion& region = regions[state.level];
    if (state.inside) {
      region.batch = batch_;
      region.nodes.push_back({node.id, state.batched, state.summed});
    }
    for (size_t i = 0; i < node.inputs.size(); ++i) {
      const Port input = node.inputs[i];
      const NodeState& producer = nodes_[input.node];
      const bool same = state.inside && producer.inside && !producer.summed && producer.level == state.level;
      if (same && state.batched[i]) continue;
      if (producer.inside) read_outside[input.node][input.output] = true;
      if (!state.inside) continue;
      const bool batched = state.batched[i];
      if (seen[state.level].insert({input, batched}).second) region.operands.push_back({input, batched});
    }
  }
  for (const auto& [name, ports] : graph_.outputs()) {
    for (Port port : ports) {
      if (nodes_[port.node].inside) read_outside[port.node][port.output] = true;
    }
  }
  for (BatchRegion& region : regions) {
    for (const BatchRegion::Member& member : region.nodes) {
      for (size_t k = 0; k < read_outside[member.node].size(); ++k) {
        if (read_outside[member.node][k])
          region.outputs.push_back({{member.node, static_cast<int32_t>(k)}, member.summed});
      }
    }
  }
  return regions;
}

// Returns the levels whose regions `keep` accepts, and those whose regions exchange samples with a
// kept region.
std::vector<bool> BatchRegionFinder::KeptLevels(const std::vector<BatchRegion>& regions,
                                                absl::FunctionRef<bool(const BatchRegion&)> keep) const {
  const int levels = static_cast<int>(regions.size());
  std::vector<int> waiting;
  std::vector<bool> kept(levels, false);
  for (int level = 0; level < levels; ++level) {
    kept[level] = !regions[level].nodes.empty() && keep(regions[level]);
    if (kept[level]) waiting.push_back(level);
  }
  std::vector<std::vector<int>> neighbours(levels);
  for (int level = 0; level < levels; ++level) {
    for (const BatchRegion::Operand& operand : regions[level].operands) {
      const NodeState& producer = nodes_[operand.port.node];
      if (!operand.batched || !producer.inside || producer.summed) continue;
      neighbours[level].push_back(producer.level);
      neighbours[producer.level].push_back(level);
    }
  }
  while (!waiting.empty()) {
    const int level = waiting.back();
    waiting.pop_back();
    for (int neighbour : neighbours[level]) {
      if (kept[neighbour]) continue;
      kept[neighbour] = true;
      waiting.push_back(neighbour);
    }
  }
  return kept;
}

BatchPartition BatchRegionFinder::Find(absl::FunctionRef<bool(const BatchRegion&)> keep) {
  for (const Node& node : graph_.nodes()) Classify(node);
  std::vector<BatchRegion> regions = RegionsByLevel();
  const std::vector<bool> kept = KeptLevels(regions, keep);
  if (std::find(kept.begin(), kept.end(), true) == kept.end()) return {.order = NodeOrder(graph_)};
  // Nodes that wait for a region follow it. So do the nodes of a rejected region, one by one.
  BatchPartition result;
  std::vector<std::vector<NodeId>> before(regions.size());
  for (const Node& node : graph_.nodes()) {
    if (!nodes_[node.id].inside) before[nodes_[node.id].level].push_back(node.id);
  }
  for (size_t level = 0; level < regions.size(); ++level) {
    for (NodeId id : before[level]) result.order.push_back(OrderItem::Node(id));
    if (kept[level]) {
      result.order.push_back({OrderItem::Kind::kBatchRegion, static_cast<int>(result.regions.size())});
      result.regions.push_back(std::move(regions[level]));
    } else {
      for (const BatchRegion::Member& member : regions[level].nodes)
        result.order.push_back(OrderItem::Node(member.node));
    }
  }
  return result;
}

}  // namespace

BatchPartition FindBatchRegions(const Graph& graph, int64_t least_batch,
                                absl::FunctionRef<bool(const BatchNode&)> supported) {
  return FindBatchRegions(graph, least_batch, supported, [](const BatchRegion&) { return true; });
}

BatchPartition FindBatchRegions(const Graph& graph, int64_t least_batch,
                                absl::FunctionRef<bool(const BatchNode&)> supported,
                                absl::FunctionRef<bool(const BatchRegion&)> keep) {
  const int64_t batch = BatchSize(graph);
  if (batch < std::max<int64_t>(least_batch, 1)) {
    return {.order = NodeOrder(graph)};
  }
  return BatchRegionFinder(graph, batch, supported).Find(keep);
}

}  // namespace gradweave
