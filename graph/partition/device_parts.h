// Device parts: the parts of a placed graph that one device runs between two copies.
#ifndef GRADWEAVE_GRAPH_PARTITION_DEVICE_PARTS_H_
#define GRADWEAVE_GRAPH_PARTITION_DEVICE_PARTS_H_

#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "gradweave/graph/graph.h"
#include "gradweave/graph/partition/order_item.h"

namespace gradweave {

// Nodes of one device that need no copy between them, as a graph of their own. A part runs as a
// whole, so a fusion of any of its nodes cannot wait for its own result by way of another device.
struct DevicePart {
  std::string device;
  // Copies of the nodes, in their order, and of the constants and variables that they read. A value
  // of the other device or of another part is an Input if it has the batch of a feed, else a
  // Variable. The outputs are the values that other parts, copies and the outputs of the whole
  // graph read.
  Graph graph;
  // Indexed by node of `graph`: its first output's port in the whole graph. Empty if `graph` is the
  // whole graph.
  std::vector<Port> origins;

  Port OriginOf(Port port) const {
    if (origins.empty()) return port;
    const Port first = origins[port.node];
    return {first.node, first.output + port.output};
  }
  NodeId OriginOf(NodeId node) const { return origins.empty() ? node : origins[node].node; }
};

// The parts, and an execution order of the parts and of the nodes that copy between devices. The
// nodes that belong to no part compute nothing: inputs, constants, variables, and views of inputs
// and constants, which are available on every device.
struct DeviceParts {
  std::vector<DevicePart> parts;
  std::vector<OrderItem> order;
};

// Partitions a graph that Place returned; its shapes are known. Copies lead from one phase to the
// next. A part holds the nodes of one device in one phase. A node belongs to the latest phase that
// its position in the graph and its readers allow, so delayed work (updates, recomputed values)
// stays delayed. Each phase begins with its copies. The parts of other devices than the CPU follow,
// so that they run while the CPU runs its own part. In the last phase the CPU's part comes first,
// so that only the other devices still work when variables change. Time is linear in the size of
// the graph.
absl::StatusOr<DeviceParts> FindDeviceParts(const Graph& placed);

}  // namespace gradweave

#endif  // GRADWEAVE_GRAPH_PARTITION_DEVICE_PARTS_H_
