// Placement: which device runs each node.
#ifndef GRADWEAVE_GRAPH_PASSES_PLACEMENT_H_
#define GRADWEAVE_GRAPH_PASSES_PLACEMENT_H_

#include <functional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "gradweave/graph/graph.h"

namespace gradweave {

struct PlacementOptions {
  std::string device;  // Of nodes that name none: "cpu:0", "cuda:0".
  // OK where the device can run the node, which is one of the graph that is placed; else why it cannot. Asked for
  // devices other than the CPU alone.
  std::function<absl::Status(const Node& node, absl::string_view device)> check;
};

struct Placement {
  Graph graph;
  // Nodes that their device cannot run and that the CPU runs in its place, one line for each op and reason.
  std::vector<std::string> moved;
};

// Gives each node a device, and puts Copy nodes where a node's operand is a value of another device: one for each value
// and device. Nodes run where they say, else where the options say, else on the CPU. An op whose result shares its
// operand's memory runs where the operand is. Inputs and constants get no copies, and no device: what is fed and what
// is constant is at hand wherever it is read. A variable is where its new value is computed, or, where it is only read,
// where it is read. All shapes have to be known.
absl::StatusOr<Placement> Place(const Graph& graph, const PlacementOptions& options);

}  // namespace gradweave

#endif  // GRADWEAVE_GRAPH_PASSES_PLACEMENT_H_
