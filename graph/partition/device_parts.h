// What each device runs of a placed graph between the copies from device to device.
#ifndef GRADWEAVE_GRAPH_PARTITION_DEVICE_PARTS_H_
#define GRADWEAVE_GRAPH_PARTITION_DEVICE_PARTS_H_

#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "gradweave/graph/graph.h"

namespace gradweave {

// Nodes of one device that need no copy between them, as a graph of their own, in which whatever finds nodes to run
// together may take any: a part runs as a whole, so what is made of several of its nodes can't wait for itself by way
// of another device.
struct DevicePart {
  std::string device;
  // Copies of the nodes, in their order, and of the constants and variables that they read. Values of the other device
  // and of other parts are Inputs where they belong to a batch that is fed, else Variables. The outputs are the values
  // that are read elsewhere, and what the whole graph's outputs ask for.
  Graph graph;
  std::vector<Port> origins;  // By node of `graph`: where its first output is in the whole graph.

  Port OriginOf(Port port) const {
    const Port first = origins[port.node];
    return {first.node, first.output + port.output};
  }
  NodeId OriginOf(NodeId node) const { return origins[node].node; }
};

// Parts, and an order in which the graph can run: a copy from device to device, which is a node, or ~part. Nodes that
// are in no part make no elements: inputs, constants, variables, and views of inputs and constants, which are at hand
// on each device.
struct DeviceParts {
  std::vector<DevicePart> parts;
  std::vector<int> order;
};

// The parts of a graph that Place has made, of known shapes. Copies lead from one phase to the next; a part has what a
// device runs in a phase. A node belongs to the latest phase that the graph's order and its readers allow: what is put
// off (updates, or what is computed a second time) stays so. In a phase copies come first, then the CUDA device's part,
// which runs on while the CPU has its own; in the last the CPU's comes first, so that only the device is under way when
// variables change. Takes time in proportion to the graph.
absl::StatusOr<DeviceParts> FindDeviceParts(const Graph& placed);

}  // namespace gradweave

#endif  // GRADWEAVE_GRAPH_PARTITION_DEVICE_PARTS_H_
