#include "gradweave/graph/partition/row_regions.h"

#include <algorithm>
#include <functional>
#include <optional>
#include <queue>
#include <utility>

#include "absl/container/flat_hash_set.h"
#include "absl/types/span.h"
#include "gradweave/graph/check.h"
#include "gradweave/graph/partition/row_forms.h"

namespace gradweave {
namespace {

int64_t ElementsOf(const TensorType& type) { return type.shape.num_elements().size(); }

// Returns the columns of a producer's rows: the pixels of a convolution, or the last axis of a
// product. No region has 0 columns.
int64_t ProducerColumns(const Node& node) {
  return LastAxes(node.outputs[0].shape, node.op->kind == OpKind::kConv2D ? 2 : 1);
}

// Returns true for results that are complete only when the region ends, so that no node of the
// region may read them.
bool EndsRegion(RowExtent result) { return result == RowExtent::kPerColumn || result == RowExtent::kPerRowPeriodic; }

class RowRegionFinder {
 public:
  RowRegionFinder(const Graph& graph, const BatchPartition& batch,
                  absl::FunctionRef<bool(const Graph&, const Node&)> supported, RowSplit split)
      : graph_(graph),
        batch_(batch),
        supported_(supported),
        split_(split),
        nodes_(graph.num_nodes()),
        item_(graph.num_nodes()) {}

  using Begins = absl::FunctionRef<bool(const Node& producer, const RowRegion&)>;
  using Keep = absl::FunctionRef<bool(const RowRegion&)>;
  RowPartition Find(Begins begins, Keep keep);

 private:
  struct NodeState {
    bool candidate = false;  // May belong to a region, if its operands allow it.
    bool inside = false;
    Port root = {-1, 0};  // For aliases: the port whose elements they show.
    // The elements of the region's rows and columns, for candidates; of the result, for producers.
    int64_t elements = 0;
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
  // Returns the least level of a region that reads the value from outside.
  int LevelOutside(Port port) const { return nodes_[port.node].level + (nodes_[port.node].inside ? 1 : 0); }
  bool IsElementwise(NodeId id) const { return nodes_[id].candidate && graph_.node(id).op->elementwise; }
  void Prepare(const Node& node);
  bool ReadByColumns(const Node& node, int64_t columns, RowRegion::Member* member) const;
  int64_t NaturalColumnsOf(const Node& node) const;
  bool PassesColumns(const NodeState& from, NodeId to) const;
  void SpreadColumns(absl::Span<const NodeId> order, bool start);
  void AssignColumns(absl::Span<const NodeId> order);
  bool Describe(const Node& node, NodeState& state) const;
  bool DescribePerRow(const Node& node, NodeState& state) const;
  void Classify(const Node& node);
  // True if the node reads the operand inside its own region.
  bool ReadsInside(const NodeState& reader, const RowRegion::Operand& operand) const {
    const NodeState& producer = nodes_[operand.port.node];
    return producer.inside && !EndsRegion(producer.member.result) && producer.member.result == operand.extent &&
           producer.dtype == reader.dtype && producer.rows == reader.rows && producer.columns == reader.columns;
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
  const RowSplit split_;
  std::vector<NodeState> nodes_;
  std::vector<OrderItem> item_;  // Indexed by node: the element of RowPartition::order that runs it.
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

// Finds out whether the node is a candidate or a producer, and its columns if it determines them.
void RowRegionFinder::Prepare(const Node& node) {
  NodeState& state = nodes_[node.id];
  if (node.outputs.size() != 1 || node.inputs.empty() || ElementsOf(node.outputs[0]) == 0) return;
  if (node.op->kind == OpKind::kMatMul || node.op->kind == OpKind::kConv2D) {
    state.elements = ElementsOf(node.outputs[0]);
    state.columns = ProducerColumns(node);
    return;
  }
  if (!supported_(graph_, node)) return;
  std::optional<DType> dtype = FloatingDTypeOf(graph_, node);
  if (!dtype.has_value()) {
    // Truth values belong to the floating values that they come from.
    const NodeState& source = nodes_[Resolve(node.inputs[0]).node];
    if (!source.candidate || node.outputs[0].dtype != kBool || graph_.type(node.inputs[0]).dtype != kBool) return;
    dtype = source.dtype;
  }
  state.dtype = *dtype;
  if (node.op->elementwise) {
    state.candidate = true;
    state.elements = ElementsOf(node.outputs[0]);
    return;
  }
  const TensorType& x = graph_.type(node.inputs[0]);
  state.elements = ElementsOf(x);
  const std::optional<RowForm> form = FormOf(node, x.shape);
  if (!form.has_value() || form->columns < 2 || state.elements < 2 * form->columns) return;
  if (split_ == RowSplit::kLastAxis &&
      (form->columns != LastAxes(x.shape, 1) || form->result == RowExtent::kPerRowPeriodic))
    return;
  state.candidate = true;
  state.columns = form->columns;
  state.member = {.node = node.id, .operands = {{Resolve(node.inputs[0]), RowExtent::kFull}}, .result = form->result};
}

// Returns true if an elementwise node can read its operands by rows of that many columns, and adds
// them to the member.
bool RowRegionFinder::ReadByColumns(const Node& node, int64_t columns, RowRegion::Member* member) const {
  const Shape& full = node.outputs[0].shape;
  if (split_ == RowSplit::kLastAxis && columns != LastAxes(full, 1)) return false;
  if (columns < 2 || ElementsOf(node.outputs[0]) % columns != 0) return false;
  for (Port input : node.inputs) {
    const std::optional<RowRegion::Operand> operand =
        OperandByRows(Resolve(input), graph_.type(input).shape, full, columns);
    if (!operand.has_value() || (split_ == RowSplit::kLastAxis && operand->period > 1)) return false;
    if (member != nullptr) member->operands.push_back(*operand);
  }
  return true;
}

// Returns the columns at which all operands are simple, or at least described; 0 if there are none.
int64_t RowRegionFinder::NaturalColumnsOf(const Node& node) const {
  if (split_ == RowSplit::kLastAxis) return LastAxes(node.outputs[0].shape, 1);
  for (Port input : node.inputs) {
    const int64_t columns = NaturalColumns(graph_.type(input).shape, node.outputs[0].shape);
    if (columns > 0 && ReadByColumns(node, columns, nullptr)) return columns;
  }
  return 0;
}

// Returns true if an elementwise node has no columns yet and can take over the columns of a
// neighbour of the same size.
bool RowRegionFinder::PassesColumns(const NodeState& from, NodeId to) const {
  return from.columns > 0 && IsElementwise(to) && nodes_[to].columns == 0 && nodes_[to].elements == from.elements &&
         ReadByColumns(graph_.node(to), from.columns, nullptr);
}

// Passes columns on to readers, and then back to operands. If `start` is true, nodes that get none
// from operands begin with columns of their own.
void RowRegionFinder::SpreadColumns(absl::Span<const NodeId> order, bool start) {
  for (NodeId id : order) {
    const Node& node = graph_.node(id);
    for (Port input : node.inputs) {
      const NodeState& from = nodes_[Resolve(input).node];
      const bool is_full = from.member.result == RowExtent::kFull;
      if (is_full && PassesColumns(from, id)) nodes_[id].columns = from.columns;
    }
    if (start && IsElementwise(id) && nodes_[id].columns == 0) nodes_[id].columns = NaturalColumnsOf(node);
  }
  for (auto id = order.rbegin(); id != order.rend(); ++id) {
    if (!nodes_[*id].candidate) continue;
    for (Port input : graph_.node(*id).inputs) {
      const NodeId made = Resolve(input).node;
      if (PassesColumns(nodes_[*id], made)) nodes_[made].columns = nodes_[*id].columns;
    }
  }
}

void RowRegionFinder::AssignColumns(absl::Span<const NodeId> order) {
  SpreadColumns(order, false);
  SpreadColumns(order, true);
  for (NodeId id : order) {
    // These nodes read only whole values and single elements, so any columns are possible.
    if (!IsElementwise(id) || nodes_[id].columns > 0) continue;
    const Shape& shape = graph_.node(id).outputs[0].shape;
    for (int axes = 1; axes <= shape.rank() && nodes_[id].columns < 2; ++axes)
      nodes_[id].columns = LastAxes(shape, axes);
  }
}

// Fills in the size and the member if the node can belong to a region.
bool RowRegionFinder::Describe(const Node& node, NodeState& state) const {
  if (!state.candidate) return false;
  if (node.op->elementwise) {
    if (DescribePerRow(node, state)) return true;
    state.member = {.node = node.id, .result = RowExtent::kFull};
    if (!ReadByColumns(node, state.columns, &state.member)) return false;
  }
  state.rows = state.elements / state.columns;
  return true;
}

void RowRegionFinder::Classify(const Node& node) {
  NodeState& state = nodes_[node.id];
  state.inside = Describe(node, state);
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

// A node that reads only variables, inputs and scalars has the lowest level, such as m*beta of an
// optimizer. If only one region reads it, it joins that region, so its result needs no memory. Its
// operands live through the run anyway.
void RowRegionFinder::JoinReaders() {
  constexpr NodeId kNone = -1, kOthers = -2;
  std::vector<NodeId> readers(graph_.num_nodes(), kNone);  // Indexed by node: the leader of its only reading region.
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
        if (node.outputs.size() != 1 || ProducerColumns(node) != region.columns) continue;
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
    absl::flat_hash_set<RowRegion::Operand> seen;
    for (const RowRegion::Member& member : region.nodes) {
      for (const RowRegion::Operand& operand : member.operands) {
        if (item_[operand.port.node] == item) continue;
        if (seen.insert(operand).second) region.operands.push_back(operand);
      }
    }
  }
  return kept;
}

// Among the items that are ready, the one with the smallest node runs first. Nodes thus stay near
// their original order, and values live no longer than before.
std::vector<OrderItem> RowRegionFinder::Order(const std::vector<RowRegion>& regions) const {
  std::vector<OrderItem> items;
  std::vector<int> first;                             // Indexed by index in `items`: the smallest node.
  std::vector<int> index_of(graph_.num_nodes(), -1);  // Indexed by node.
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
  std::vector<NodeId> order;  // Nodes in no batch region that compute something.
  for (OrderItem item : batch_.order) {
    if (!item.is_node()) {
      for (const BatchRegion::Member& member : batch_.regions[item.index].nodes) item_[member.node] = item;
      continue;
    }
    const Node& node = graph_.node(item.node());
    item_[node.id] = item;
    if (node.op->alias || node.op->kind == OpKind::kAssign) {
      nodes_[node.id].root = Resolve(node.inputs[node.op->alias ? 0 : 1]);
    } else {
      Prepare(node);
      order.push_back(node.id);
    }
  }
  AssignColumns(order);
  for (OrderItem item : batch_.order) {
    if (item.is_node()) {
      if (nodes_[item.node()].root.node < 0) Classify(graph_.node(item.node()));
      continue;
    }
    const BatchRegion& region = batch_.regions[item.index];
    int level = 0;
    for (const BatchRegion::Operand& operand : region.operands)
      level = std::max(level, LevelOutside(Resolve(operand.port)));
    for (const BatchRegion::Member& member : region.nodes) nodes_[member.node].level = level;
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
                            absl::FunctionRef<bool(const RowRegion&)> keep, RowSplit split) {
  return RowRegionFinder(graph, batch, supported, split).Find(begins, keep);
}

}  // namespace gradweave
