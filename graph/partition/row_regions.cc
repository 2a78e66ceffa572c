#include "gradweave/graph/partition/row_regions.h"

#include <algorithm>
#include <functional>
#include <optional>
#include <queue>
#include <utility>

#include "absl/container/flat_hash_set.h"
#include "gradweave/graph/check.h"

namespace gradweave {
namespace {

// Returns the number of rows: the product of all axes but the last.
int64_t RowsOf(const Shape& shape) {
  int64_t rows = 1;
  for (int axis = 0; axis + 1 < shape.rank(); ++axis) rows *= shape[axis].size();
  return rows;
}
int64_t ColumnsOf(const Shape& shape) { return shape.rank() == 0 ? 1 : shape[shape.rank() - 1].size(); }

// Returns how an operand broadcasts to a result of shape `full`; nullopt if no RowExtent describes
// it.
std::optional<RowExtent> ExtentIn(const Shape& operand, const Shape& full) {
  const int64_t elements = operand.num_elements().size();
  if (elements == full.num_elements().size()) return RowExtent::kFull;
  if (elements == 1) return RowExtent::kScalar;
  if (elements == ColumnsOf(full) && ColumnsOf(operand) == elements) return RowExtent::kPerColumn;
  if (elements == RowsOf(full) && operand.rank() == full.rank() && ColumnsOf(operand) == 1) return RowExtent::kPerRow;
  return std::nullopt;
}

class RowRegionFinder {
 public:
  RowRegionFinder(const Graph& graph, const BatchPartition& batch,
                  absl::FunctionRef<bool(const Graph&, const Node&)> supported)
      : graph_(graph), batch_(batch), supported_(supported), nodes_(graph.num_nodes()), item_(graph.num_nodes()) {}

  using Begins = absl::FunctionRef<bool(const Node& producer, const RowRegion&)>;
  using Keep = absl::FunctionRef<bool(const RowRegion&)>;
  RowPartition Find(Begins begins, Keep keep);

 private:
  struct NodeState {
    bool inside = false;
    Port root = {-1, 0};  // For aliases: the port whose elements they show.
    // The number of regions that must run before. Connected nodes inside of the same level and size
    // form one region. A path that leaves it and comes back arrives at a higher level, so running
    // the region as one creates no cycle.
    int level = 0;
    DType dtype = kFloat32;
    int64_t rows = 0, columns = 0;
    RowRegion::Member member = {};  // For nodes inside.
    NodeId leader = -1;             // Union-find: the parent in the set of connected nodes.
  };

  Port Resolve(Port port) const {
    const Port root = nodes_[port.node].root;
    return root.node < 0 ? port : root;
  }
  int LevelOutside(Port port) const { return nodes_[port.node].level + (nodes_[port.node].inside ? 1 : 0); }
  bool Describe(const Node& node, NodeState& state) const;
  bool DescribePerRow(const Node& node, NodeState& state) const;
  void Classify(const Node& node);
  // True if the node reads the operand inside its own region.
  bool ReadsInside(const NodeState& reader, const RowRegion::Operand& operand) const {
    const NodeState& producer = nodes_[operand.port.node];
    return producer.inside && producer.member.result != RowExtent::kPerColumn &&
           producer.member.result == operand.extent && producer.dtype == reader.dtype && producer.rows == reader.rows &&
           producer.columns == reader.columns;
  }
  NodeId Leader(NodeId id) {
    while (nodes_[id].leader != id) id = nodes_[id].leader = nodes_[nodes_[id].leader].leader;
    return id;
  }
  void JoinReaders();
  void AddProducers(Begins begins, std::vector<RowRegion>& found) const;
  std::vector<RowRegion> CollectRegions(Begins begins, Keep keep);
  std::vector<OrderItem> Order(const std::vector<RowRegion>& regions) const;
  template <typename Body>
  void ForInputs(OrderItem item, const std::vector<RowRegion>& regions, Body body) const;

  const Graph& graph_;
  const BatchPartition& batch_;
  absl::FunctionRef<bool(const Graph&, const Node&)> supported_;
  std::vector<NodeState> nodes_;
  std::vector<OrderItem> item_;  // By node: the element of RowPartition::order that runs it.
};

// An elementwise op on per-row values belongs to the region that computes those values.
bool RowRegionFinder::DescribePerRow(const Node& node, NodeState& state) const {
  const int64_t elements = node.outputs[0].shape.num_elements().size();
  if (elements < 2) return false;
  const NodeState* source = nullptr;
  state.member.operands.clear();
  for (Port input : node.inputs) {
    const int64_t size = graph_.type(input).shape.num_elements().size();
    if (size != elements && size != 1) return false;
    const Port port = Resolve(input);
    const NodeState& producer = nodes_[port.node];
    const bool per_row = producer.inside && producer.member.result == RowExtent::kPerRow &&
                         producer.dtype == state.dtype && producer.rows == elements;
    if (per_row && (source == nullptr || producer.level > source->level)) source = &producer;
    state.member.operands.push_back({port, size == 1 ? RowExtent::kScalar : RowExtent::kPerRow});
  }
  if (source == nullptr) return false;
  state.rows = source->rows;
  state.columns = source->columns;
  state.member.result = RowExtent::kPerRow;
  return true;
}

// Fills in the size and the member if the node can belong to a region.
bool RowRegionFinder::Describe(const Node& node, NodeState& state) const {
  if (node.inputs.empty() || node.outputs.size() != 1) return false;
  const std::optional<DType> dtype = FloatingDTypeOf(graph_, node);
  if (!dtype.has_value()) return false;
  state.dtype = *dtype;
  if (node.op->elementwise) {
    if (DescribePerRow(node, state)) return true;
    const Shape& full = node.outputs[0].shape;
    state.rows = RowsOf(full);
    state.columns = ColumnsOf(full);
    state.member.result = RowExtent::kFull;
    state.member.operands.clear();
    for (Port input : node.inputs) {
      const std::optional<RowExtent> extent = ExtentIn(graph_.type(input).shape, full);
      if (!extent.has_value()) return false;
      state.member.operands.push_back({Resolve(input), *extent});
    }
    return state.rows > 0 && state.columns > 1;
  }
  const Shape& x = graph_.type(node.inputs[0]).shape;
  state.rows = RowsOf(x);
  state.columns = ColumnsOf(x);
  if (state.rows < 2 || state.columns < 2) return false;
  state.member.operands = {{Resolve(node.inputs[0]), RowExtent::kFull}};
  if (node.op->kind == OpKind::kSoftmax || node.op->kind == OpKind::kLogSoftmax) {
    state.member.result = RowExtent::kFull;
    return node.attribute<int64_t>("axis") == x.rank() - 1;
  }
  if (!node.op->reduction) return false;
  const Integers& axes = node.attribute<Integers>("axes");
  const bool reduces_last = std::find(axes.begin(), axes.end(), x.rank() - 1) != axes.end();
  state.member.result = reduces_last ? RowExtent::kPerRow : RowExtent::kPerColumn;
  if (reduces_last) return axes.size() == 1;
  // Only Sum may also reduce over the rows.
  return node.op->kind == OpKind::kSum && static_cast<int>(axes.size()) == x.rank() - 1;
}

void RowRegionFinder::Classify(const Node& node) {
  NodeState& state = nodes_[node.id];
  state.inside = supported_(graph_, node) && Describe(node, state);
  if (!state.inside) {
    for (Port input : node.inputs) state.level = std::max(state.level, LevelOutside(Resolve(input)));
    return;
  }
  state.member.node = state.leader = node.id;
  for (const RowRegion::Operand& operand : state.member.operands) {
    const bool inside = ReadsInside(state, operand);
    state.level = std::max(state.level, inside ? nodes_[operand.port.node].level : LevelOutside(operand.port));
  }
  for (const RowRegion::Operand& operand : state.member.operands) {
    if (!ReadsInside(state, operand) || nodes_[operand.port.node].level != state.level) continue;
    nodes_[Leader(operand.port.node)].leader = Leader(node.id);
  }
}

// Calls body(port) for each value that an item reads and does not compute itself.
template <typename Body>
void RowRegionFinder::ForInputs(OrderItem item, const std::vector<RowRegion>& regions, Body body) const {
  if (item.is_node()) {
    for (Port input : graph_.node(item.node()).inputs) body(Resolve(input));
  } else if (item.kind == OrderItem::Kind::kBatchRegion) {
    for (const BatchRegion::Operand& operand : batch_.regions[item.index].operands) body(Resolve(operand.port));
  } else {
    for (const RowRegion::Operand& operand : regions[item.index].operands) body(operand.port);
  }
}

// A node that reads only scalars and values from before the run has the lowest level, such as m*beta of an optimizer.
// It joins the region that alone reads it, so its result needs no memory. Its operands live through the run anyway.
void RowRegionFinder::JoinReaders() {
  constexpr NodeId kNone = -1, kOthers = -2;
  std::vector<NodeId> readers(graph_.num_nodes(), kNone);  // By node: the leader of the region that alone reads it.
  auto read = [&](Port port, NodeId leader) {
    NodeId& known = readers[port.node];
    known = known == kNone || known == leader ? leader : kOthers;
  };
  for (OrderItem item : batch_.order) {
    if (!item.is_node() || !nodes_[item.node()].inside) {
      if (item.is_node() && graph_.node(item.node()).op->alias) continue;
      ForInputs(item, {}, [&](Port port) { read(port, kOthers); });
      continue;
    }
    const NodeState& state = nodes_[item.node()];
    for (const RowRegion::Operand& operand : state.member.operands)
      read(operand.port, ReadsInside(state, operand) ? Leader(item.node()) : kOthers);
  }
  for (const auto& [name, ports] : graph_.outputs()) {
    for (Port port : ports) read(Resolve(port), kOthers);
  }
  for (const Node& node : graph_.nodes()) {
    NodeState& state = nodes_[node.id];
    if (!state.inside || readers[node.id] < 0) continue;
    const auto& operands = state.member.operands;
    const bool is_early = std::all_of(operands.begin(), operands.end(), [&](const RowRegion::Operand& operand) {
      return operand.extent == RowExtent::kScalar || graph_.node(operand.port.node).op->is_source();
    });
    if (!is_early) continue;
    state.level = nodes_[readers[node.id]].level;
    state.leader = readers[node.id];
  }
}

// Adds to each region a node that only this region reads. A path from the region to that node's
// operands would give the node a higher level than its readers, so no cycle can arise.
void RowRegionFinder::AddProducers(Begins begins, std::vector<RowRegion>& found) const {
  struct Readers {
    enum class Kind { kNone, kOneRegion, kOthers } kind = Kind::kNone;
    size_t region = 0;
  };
  std::vector<Readers> readers(graph_.num_nodes());
  auto read_by_region = [&](Port port, size_t region) {
    Readers& known = readers[port.node];
    const bool alone = known.kind == Readers::Kind::kNone || known.region == region;
    if (known.kind != Readers::Kind::kOthers)
      known = {alone ? Readers::Kind::kOneRegion : Readers::Kind::kOthers, region};
  };
  auto read_by_others = [&](Port port) { readers[port.node].kind = Readers::Kind::kOthers; };
  std::vector<bool> in_region(graph_.num_nodes(), false);
  for (size_t i = 0; i < found.size(); ++i) {
    for (const RowRegion::Member& member : found[i].nodes) {
      in_region[member.node] = true;
      for (const RowRegion::Operand& operand : member.operands) {
        if (operand.extent == RowExtent::kFull) {
          read_by_region(operand.port, i);
        } else {
          read_by_others(operand.port);
        }
      }
    }
  }
  for (OrderItem item : batch_.order) {
    if (!item.is_node()) {
      for (const BatchRegion::Operand& operand : batch_.regions[item.index].operands)
        read_by_others(Resolve(operand.port));
    } else if (!in_region[item.node()] && !graph_.node(item.node()).op->alias) {
      for (Port input : graph_.node(item.node()).inputs) read_by_others(Resolve(input));
    }
  }
  for (const auto& [name, ports] : graph_.outputs()) {
    for (Port port : ports) read_by_others(Resolve(port));
  }
  for (size_t i = 0; i < found.size(); ++i) {
    RowRegion& region = found[i];
    // Prefer the last producer: its elements are still in a cache.
    NodeId producer = -1;
    for (const RowRegion::Member& member : region.nodes) {
      for (const RowRegion::Operand& operand : member.operands) {
        const NodeId id = operand.port.node;
        if (id <= producer || in_region[id] || !(item_[id] == OrderItem::Node(id))) continue;
        if (readers[id].kind != Readers::Kind::kOneRegion || readers[id].region != i) continue;
        const Node& node = graph_.node(id);
        if (node.outputs.size() != 1 || ColumnsOf(node.outputs[0].shape) != region.columns) continue;
        if (begins(node, region)) producer = id;
      }
    }
    if (producer < 0) continue;
    RowRegion::Member member{.node = producer, .result = RowExtent::kFull};
    for (Port input : graph_.node(producer).inputs) member.operands.push_back({Resolve(input), RowExtent::kWhole});
    region.nodes.insert(region.nodes.begin(), std::move(member));
    region.has_producer = true;
  }
}

std::vector<RowRegion> RowRegionFinder::CollectRegions(Begins begins, Keep keep) {
  std::vector<RowRegion> found;
  std::vector<int> region_of_leader(graph_.num_nodes(), -1);
  for (OrderItem item : batch_.order) {
    if (!item.is_node() || !nodes_[item.node()].inside) continue;
    const NodeState& state = nodes_[item.node()];
    int& region = region_of_leader[Leader(item.node())];
    // Nodes come in execution order, so a part reads only earlier parts.
    if (region < 0 || found[region].nodes.size() == kMostNodesOfRowRegion) {
      region = static_cast<int>(found.size());
      found.push_back({.dtype = state.dtype, .rows = state.rows, .columns = state.columns});
    }
    found[region].nodes.push_back(state.member);
  }
  AddProducers(begins, found);
  std::vector<RowRegion> kept;
  for (RowRegion& region : found) {
    if (region.nodes.size() < 2 || !keep(region)) continue;
    const OrderItem item = {OrderItem::Kind::kRowRegion, static_cast<int>(kept.size())};
    for (const RowRegion::Member& member : region.nodes) item_[member.node] = item;
    kept.push_back(std::move(region));
  }
  for (RowRegion& region : kept) {
    const OrderItem item = item_[region.nodes[0].node];
    absl::flat_hash_set<std::pair<Port, int>> seen;
    for (const RowRegion::Member& member : region.nodes) {
      for (const RowRegion::Operand& operand : member.operands) {
        if (item_[operand.port.node] == item) continue;
        if (seen.insert({operand.port, static_cast<int>(operand.extent)}).second) region.operands.push_back(operand);
      }
    }
  }
  return kept;
}

// Among the items that are ready, the one with the smallest node runs first. Nodes thus stay near
// their original order, and values live no longer than before.
std::vector<OrderItem> RowRegionFinder::Order(const std::vector<RowRegion>& regions) const {
  std::vector<OrderItem> items;
  std::vector<int> first;                             // By index in `items`: the smallest node.
  std::vector<int> index_of(graph_.num_nodes(), -1);  // By node.
  auto add = [&](OrderItem item, NodeId smallest) {
    items.push_back(item);
    first.push_back(smallest);
    return static_cast<int>(items.size()) - 1;
  };
  for (OrderItem item : batch_.order) {
    if (item.is_node()) {
      const NodeId id = item.node();
      if (nodes_[id].root.node < 0 && item_[id] == item) index_of[id] = add(item, id);
      continue;
    }
    const BatchRegion& region = batch_.regions[item.index];
    const int index = add(item, region.nodes[0].node);
    for (const BatchRegion::Member& member : region.nodes) index_of[member.node] = index;
  }
  for (const RowRegion& region : regions) {
    const int index = add(item_[region.nodes[0].node], region.nodes[0].node);
    for (const RowRegion::Member& member : region.nodes) index_of[member.node] = index;
  }
  std::vector<std::vector<int>> readers(items.size());
  std::vector<int> missing(items.size(), 0);
  for (size_t i = 0; i < items.size(); ++i) {
    ForInputs(items[i], regions, [&](Port port) {
      readers[index_of[port.node]].push_back(static_cast<int>(i));
      ++missing[i];
    });
  }
  using Entry = std::pair<int, int>;
  std::priority_queue<Entry, std::vector<Entry>, std::greater<>> ready;
  for (size_t i = 0; i < items.size(); ++i) {
    if (missing[i] == 0) ready.push({first[i], static_cast<int>(i)});
  }
  std::vector<OrderItem> order;
  order.reserve(items.size());
  while (!ready.empty()) {
    const int index = ready.top().second;
    ready.pop();
    order.push_back(items[index]);
    for (int reader : readers[index]) {
      if (--missing[reader] == 0) ready.push({first[reader], reader});
    }
  }
  GW_CHECK(order.size() == items.size(), "row regions form a cycle");
  return order;
}

RowPartition RowRegionFinder::Find(Begins begins, Keep keep) {
  for (OrderItem item : batch_.order) {
    if (!item.is_node()) {
      const BatchRegion& region = batch_.regions[item.index];
      int level = 0;
      for (const BatchRegion::Operand& operand : region.operands)
        level = std::max(level, LevelOutside(Resolve(operand.port)));
      for (const BatchRegion::Member& member : region.nodes) {
        nodes_[member.node].level = level;
        item_[member.node] = item;
      }
      continue;
    }
    const Node& node = graph_.node(item.node());
    item_[node.id] = item;
    if (node.op->alias || node.op->kind == OpKind::kAssign) {
      nodes_[node.id].root = Resolve(node.inputs[node.op->alias ? 0 : 1]);
    } else {
      Classify(node);
    }
  }
  JoinReaders();
  RowPartition result;
  result.regions = CollectRegions(begins, keep);
  result.order = Order(result.regions);
  std::vector<bool> read_outside(graph_.num_nodes(), false);
  for (OrderItem item : result.order)
    ForInputs(item, result.regions, [&](Port port) { read_outside[port.node] = true; });
  for (const auto& [name, ports] : graph_.outputs()) {
    for (Port port : ports) read_outside[Resolve(port).node] = true;
  }
  for (RowRegion& region : result.regions) {
    for (const RowRegion::Member& member : region.nodes) {
      if (read_outside[member.node]) region.outputs.push_back({{member.node, 0}, member.result});
    }
  }
  return result;
}

}  // namespace

RowPartition FindRowRegions(const Graph& graph, const BatchPartition& batch,
                            absl::FunctionRef<bool(const Graph&, const Node&)> supported,
                            absl::FunctionRef<bool(const Node& producer, const RowRegion&)> begins,
                            absl::FunctionRef<bool(const RowRegion&)> keep) {
  return RowRegionFinder(graph, batch, supported).Find(begins, keep);
}

}  // namespace gradweave
