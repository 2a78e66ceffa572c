// One entry of an order in which a partitioned graph runs.
#ifndef GRADWEAVE_GRAPH_PARTITION_ORDER_ITEM_H_
#define GRADWEAVE_GRAPH_PARTITION_ORDER_ITEM_H_

#include <cstdint>
#include <utility>
#include <vector>

#include "gradweave/graph/graph.h"

namespace gradweave {

// A single node, or several nodes that run as one. In the second case `index` counts the batch
// regions, row regions, device parts or fused groups of the partition.
struct OrderItem {
  enum class Kind : uint8_t { kNode, kBatchRegion, kRowRegion, kDevicePart, kFusedGroup };
  Kind kind = Kind::kNode;
  int32_t index = -1;

  static OrderItem Node(NodeId id) { return {Kind::kNode, id}; }
  bool is_node() const { return kind == Kind::kNode; }
  // Requires a node.
  NodeId node() const { return index; }

  friend bool operator==(OrderItem a, OrderItem b) { return a.kind == b.kind && a.index == b.index; }
  friend bool operator<(OrderItem a, OrderItem b) { return a.kind != b.kind ? a.kind < b.kind : a.index < b.index; }
  template <typename H>
  friend H AbslHashValue(H h, OrderItem item) {
    return H::combine(std::move(h), item.kind, item.index);
  }
};

// Every node of the graph by itself, in the graph's order.
inline std::vector<OrderItem> NodeOrder(const Graph& graph) {
  std::vector<OrderItem> order;
  order.reserve(graph.num_nodes());
  for (NodeId id = 0; id < graph.num_nodes(); ++id) order.push_back(OrderItem::Node(id));
  return order;
}

}  // namespace gradweave

#endif  // GRADWEAVE_GRAPH_PARTITION_ORDER_ITEM_H_
