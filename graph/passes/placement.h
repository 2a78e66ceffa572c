// Placement: assigns a device to each node.
#ifndef GRADWEAVE_GRAPH_PASSES_PLACEMENT_H_
#define GRADWEAVE_GRAPH_PASSES_PLACEMENT_H_

#include <functional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "gradweave/graph/graph.h"

namespace gradweave {

// Options of Place.
struct PlacementOptions {
  std::string device;  // For nodes without a device: "cpu:0", "cuda:0".
  // Returns Ok if the device can run the node, else the reason why it cannot. The node belongs to
  // the graph that is placed. Place never asks for the CPU.
  std::function<absl::Status(const Node& node, absl::string_view device)> check;
};

// The result of Place.
struct Placement {
  Graph graph;
  // Nodes that run on the CPU because their device cannot run them: one line for each op and
  // reason.
  std::vector<std::string> moved;
};

// Assigns a device to each node and inserts Copy nodes where a node reads a value of another
// device, one for each value and device. A node runs on its own device if it names one, else on the
// options' device, or on the CPU if that device cannot run it. An op whose result aliases its
// operand runs where the operand is. Inputs and constants get no device and no copies, because they
// are available on every device. A variable is stored where its new value is computed or, if no
// node assigns it, where it is read. All shapes must be known.
absl::StatusOr<Placement> Place(const Graph& graph, const PlacementOptions& options);

}  // namespace gradweave

#endif  // GRADWEAVE_GRAPH_PASSES_PLACEMENT_H_
