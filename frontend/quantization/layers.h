// Layers that can be quantized.
#ifndef GRADWEAVE_FRONTEND_QUANTIZATION_LAYERS_H_
#define GRADWEAVE_FRONTEND_QUANTIZATION_LAYERS_H_

#include <cstdint>
#include <string>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/status/statusor.h"
#include "gradweave/graph/graph.h"
#include "gradweave/runtime/session/session.h"

namespace gradweave {

// A product or convolution with constant weights, and the nodes behind it that are folded into it:
// y = relu(product(x, weights) + bias).
struct ProductLayer {
  std::string name;
  std::vector<NodeId> nodes;  // The product first. Each needs the one before alone, except constants.
  Port x;
  bool relu = false;
  // The folded weights: [k, channels] of a MatMul, [channels, c/groups, kh, kw] of a Conv2D; and
  // the bias [channels].
  std::vector<int64_t> sizes;
  std::vector<double> weights, bias;

  NodeId product() const { return nodes.front(); }
  Port y() const { return {nodes.back(), 0}; }
  bool is_conv() const { return sizes.size() == 4; }
  int64_t channels() const { return static_cast<int64_t>(bias.size()); }
  // The channel of weight i.
  int64_t ChannelOf(int64_t i) const {
    return is_conv() ? i / (static_cast<int64_t>(weights.size()) / channels()) : i % channels();
  }
};

// The nodes that use each value, among the nodes that outputs need; an output counts as a use by
// the node -1.
using Uses = absl::flat_hash_map<Port, std::vector<NodeId>>;
Uses FindUses(const Graph& graph);

// True if output 0 of the node has numbers of operand 0 alone, and the node takes integers as well:
// it reshapes, transposes or finds the maxima of windows. `uses` tells whether another output is
// used.
bool PassesIntegers(const Node& node, const Uses& uses);

// Finds the layers among the nodes that outputs need. Runs the session, which has the same graph
// and no inputs in it, for their weights. Returns the errors of Session::Run.
absl::StatusOr<std::vector<ProductLayer>> FindProductLayers(Graph& graph, Session& session);

}  // namespace gradweave

#endif  // GRADWEAVE_FRONTEND_QUANTIZATION_LAYERS_H_
