#include "gradweave/frontend/quantization/layers.h"

#include <algorithm>
#include <optional>
#include <utility>

#include "gradweave/graph/body.h"
#include "gradweave/graph/passes/passes.h"
#include "gradweave/graph/status_macros.h"

namespace gradweave {
namespace {

// Indexed by node: true if the node's values are the same in every run.
std::vector<bool> FindConstants(const Graph& graph, const std::vector<bool>& needed) {
  std::vector<bool> constant(graph.num_nodes(), false);
  for (NodeId id = 0; id < graph.num_nodes(); ++id) {
    const Node& node = graph.node(id);
    const auto is_static = [](const TensorType& type) { return type.shape.is_static(); };
    if (!std::all_of(node.outputs.begin(), node.outputs.end(), is_static)) continue;
    if (node.op->kind == OpKind::kConstant || node.op->kind == OpKind::kVariable) {
      constant[id] = true;
      continue;
    }
    constant[id] =
        !node.inputs.empty() && !node.op->stateful && !HasBody(node) &&
        std::all_of(node.inputs.begin(), node.inputs.end(), [&](Port input) { return constant[input.node]; });
  }
  for (NodeId id = 0; id < graph.num_nodes(); ++id) {
    // This output assigns a variable, which then differs from run to run. Such models are rare, and
    // stay in float32.
    if (needed[id] && graph.node(id).op->kind == OpKind::kAssign) return std::vector<bool>(graph.num_nodes(), false);
  }
  return constant;
}

// The name of a variable that the value is made of, or "".
std::string VariableOf(const Graph& graph, Port port) {
  const Node* node = &graph.node(port.node);
  while (node->op->kind != OpKind::kVariable && !node->inputs.empty()) node = &graph.node(node->inputs[0].node);
  return node->op->kind == OpKind::kVariable ? node->name : "";
}

// A node that is folded into a layer, and the port of its constant operand.
struct Folded {
  NodeId node;
  Port constant;
  int place;  // The index of the constant among the operands.
};

class LayerFinder {
 public:
  explicit LayerFinder(Graph& graph)
      : graph_(graph), needed_(NeededNodes(graph)), constant_(FindConstants(graph, needed_)), uses_(FindUses(graph)) {}

  absl::StatusOr<std::vector<ProductLayer>> Find(Session& session);

 private:
  struct Candidate {
    ProductLayer layer;
    Port weights;
    std::optional<Port> bias;
    std::vector<Folded> folded;
  };

  bool IsConstant(Port port) const { return constant_[port.node]; }
  std::optional<Candidate> Match(NodeId id) const;
  // Adds the nodes that follow.
  void Follow(Candidate& candidate) const;
  std::optional<Folded> MatchChannelwise(NodeId id, Port y, int channel_axis, int64_t channels) const;
  void Fill(Candidate& candidate, const absl::flat_hash_map<Port, Tensor>& values) const;

  Graph& graph_;
  const std::vector<bool> needed_;
  const std::vector<bool> constant_;
  const Uses uses_;
};

std::optional<LayerFinder::Candidate> LayerFinder::Match(NodeId id) const {
  const Node& node = graph_.node(id);
  const bool conv = node.op->kind == OpKind::kConv2D;
  if (!needed_[id] || constant_[id] || (!conv && node.op->kind != OpKind::kMatMul)) return std::nullopt;
  if (node.outputs[0].dtype != kFloat32 || IsConstant(node.inputs[0]) || !IsConstant(node.inputs[1]))
    return std::nullopt;
  const Shape& weights = graph_.type(node.inputs[1]).shape;
  Candidate candidate;
  candidate.weights = node.inputs[1];
  if (conv) {
    if (node.inputs.size() == 3) {
      if (!IsConstant(node.inputs[2])) return std::nullopt;
      candidate.bias = node.inputs[2];
    }
  } else if (weights.rank() != 2 || node.attribute<bool>("transpose_a")) {
    return std::nullopt;
  }
  const bool transposed = !conv && node.attribute<bool>("transpose_b");
  ProductLayer& layer = candidate.layer;
  layer.nodes = {id};
  layer.x = node.inputs[0];
  layer.name = VariableOf(graph_, candidate.weights);
  if (layer.name.empty()) layer.name = node.display_name();
  for (const Dim& dim : weights.dims()) layer.sizes.push_back(dim.size());
  if (transposed) std::swap(layer.sizes[0], layer.sizes[1]);
  layer.bias.assign(conv ? layer.sizes[0] : layer.sizes[1], 0);
  return candidate;
}

std::optional<Folded> LayerFinder::MatchChannelwise(NodeId id, Port y, int channel_axis, int64_t channels) const {
  const Node& node = graph_.node(id);
  const absl::string_view op = node.op->name;
  if (op != "Add" && op != "Sub" && op != "Mul" && op != "Div") return std::nullopt;
  const int place = node.inputs[0] == y ? 1 : 0;
  const Port constant = node.inputs[place];
  if (!IsConstant(constant) || (op == "Div" && place == 0)) return std::nullopt;
  if (!(node.outputs[0].shape == graph_.type(y).shape)) return std::nullopt;
  const Shape& shape = graph_.type(constant).shape;
  for (int axis = 0; axis < shape.rank(); ++axis) {
    const int64_t size = shape[axis].size();
    const bool is_channel = axis + node.outputs[0].shape.rank() - shape.rank() == channel_axis;
    if (size != 1 && !(is_channel && size == channels)) return std::nullopt;
  }
  return Folded{id, constant, place};
}

void LayerFinder::Follow(Candidate& candidate) const {
  ProductLayer& layer = candidate.layer;
  const int channel_axis = layer.is_conv() ? 1 : graph_.type(layer.y()).shape.rank() - 1;
  while (!layer.relu) {
    const std::vector<NodeId>& users = uses_.at(layer.y());
    if (users.size() != 1 || users[0] < 0) return;
    const Node& user = graph_.node(users[0]);
    if (user.op->name == "Relu") {
      layer.relu = true;
    } else {
      const std::optional<Folded> folded = MatchChannelwise(users[0], layer.y(), channel_axis, layer.channels());
      if (!folded.has_value()) return;
      candidate.folded.push_back(*folded);
    }
    layer.nodes.push_back(users[0]);
  }
}

void LayerFinder::Fill(Candidate& candidate, const absl::flat_hash_map<Port, Tensor>& values) const {
  ProductLayer& layer = candidate.layer;
  layer.weights = values.at(candidate.weights).ToDoubles();
  if (const Node& node = graph_.node(layer.product()); !layer.is_conv() && node.attribute<bool>("transpose_b")) {
    std::vector<double> transposed(layer.weights.size());
    for (int64_t i = 0; i < layer.sizes[0]; ++i) {
      for (int64_t j = 0; j < layer.sizes[1]; ++j)
        transposed[i * layer.sizes[1] + j] = layer.weights[j * layer.sizes[0] + i];
    }
    layer.weights = std::move(transposed);
  }
  if (candidate.bias.has_value()) layer.bias = values.at(*candidate.bias).ToDoubles();
  std::vector<double> factor(layer.channels(), 1);
  for (const Folded& folded : candidate.folded) {
    const std::vector<double> numbers = values.at(folded.constant).ToDoubles();
    const absl::string_view op = graph_.node(folded.node).op->name;
    for (int64_t c = 0; c < layer.channels(); ++c) {
      const double number = numbers[numbers.size() == 1 ? 0 : c];
      double &a = factor[c], &b = layer.bias[c];
      if (op == "Add") b += number;
      if (op == "Mul") a *= number, b *= number;
      if (op == "Div") a /= number, b /= number;
      if (op == "Sub") b -= number;
      if (op == "Sub" && folded.place == 0) a = -a, b = -b;
    }
  }
  for (size_t i = 0; i < layer.weights.size(); ++i)
    layer.weights[i] *= factor[layer.ChannelOf(static_cast<int64_t>(i))];
}

absl::StatusOr<std::vector<ProductLayer>> LayerFinder::Find(Session& session) {
  std::vector<Candidate> candidates;
  std::vector<Port> ports;
  for (NodeId id = 0; id < graph_.num_nodes(); ++id) {
    std::optional<Candidate> candidate = Match(id);
    if (!candidate.has_value()) continue;
    Follow(*candidate);
    ports.push_back(candidate->weights);
    if (candidate->bias.has_value()) ports.push_back(*candidate->bias);
    for (const Folded& folded : candidate->folded) ports.push_back(folded.constant);
    candidates.push_back(*std::move(candidate));
  }
  std::vector<Fetch> fetches;
  for (Port port : ports) fetches.push_back(graph_.value(port));
  GW_ASSIGN_OR_RETURN(const std::vector<Tensor> results, session.Run({}, fetches));
  absl::flat_hash_map<Port, Tensor> values;
  for (size_t i = 0; i < ports.size(); ++i) values.emplace(ports[i], results[i]);
  std::vector<ProductLayer> layers;
  for (Candidate& candidate : candidates) {
    Fill(candidate, values);
    layers.push_back(std::move(candidate.layer));
  }
  return layers;
}

}  // namespace

Uses FindUses(const Graph& graph) {
  Uses uses;
  const std::vector<bool> needed = NeededNodes(graph);
  for (NodeId id = 0; id < graph.num_nodes(); ++id) {
    if (!needed[id]) continue;
    for (Port port : graph.node(id).ports()) uses[port];
    for (Port input : graph.node(id).inputs) uses[input].push_back(id);
  }
  for (const auto& [name, ports] : graph.outputs()) {
    for (Port port : ports) uses[port].push_back(-1);
  }
  return uses;
}

bool PassesIntegers(const Node& node, const Uses& uses) {
  if (node.op->kind == OpKind::kMaxPool2D) {
    const auto indices = uses.find({node.id, 1});
    return indices == uses.end() || indices->second.empty();
  }
  return node.op->kind == OpKind::kReshape || node.op->kind == OpKind::kTranspose ||
         node.op->kind == OpKind::kStopGradient;
}

absl::StatusOr<std::vector<ProductLayer>> FindProductLayers(Graph& graph, Session& session) {
  return LayerFinder(graph).Find(session);
}

}  // namespace gradweave
