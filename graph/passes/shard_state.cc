#include "gradweave/graph/passes/shard_state.h"

#include <algorithm>
#include <utility>
#include <vector>

#include "absl/container/inlined_vector.h"
#include "gradweave/graph/check.h"
#include "gradweave/graph/passes/collective_chain.h"
#include "gradweave/graph/passes/passes.h"

namespace gradweave {
namespace {

constexpr int64_t kLeastElements = 256;

bool IsOne(const TensorType& type) { return type.shape.num_elements() == Dim(1); }

// True if parts of the output follow from parts of operands of its shape and from single elements.
bool WorksOnParts(const Graph& graph, const Node& node) {
  if (node.outputs.size() != 1 || !node.outputs[0].shape.is_static() || IsOne(node.outputs[0])) return false;
  if (node.op->kind == OpKind::kBroadcastTo) return IsOne(graph.type(node.inputs[0]));
  if (!node.op->elementwise) return false;
  for (Port input : node.inputs) {
    const TensorType& type = graph.type(input);
    if (IsOne(type)) continue;
    if (!(type.shape == node.outputs[0].shape) || graph.node(input.node).outputs.size() != 1) return false;
  }
  return true;
}

class StateSharder {
 public:
  StateSharder(const Graph& graph, int64_t shards, const std::set<std::string>& variables, absl::string_view updates)
      : graph_(graph),
        shards_(shards),
        updates_(updates),
        sharded_(graph.num_nodes(), false),
        from_parts_(graph.num_nodes(), false),
        needs_whole_(graph.num_nodes(), false),
        needs_part_(graph.num_nodes(), false),
        wholes_(graph.num_nodes()),
        parts_(graph.num_nodes()) {
    for (const Node& node : graph.nodes()) {
      if (node.op->kind == OpKind::kVariable) sharded_[node.id] = variables.count(node.name) > 0;
      if (node.op->kind == OpKind::kAssign) sharded_[node.id] = sharded_[node.inputs[0].node];
      from_parts_[node.id] = sharded_[node.id];
      if (!WorksOnParts(graph, node)) continue;
      for (Port input : node.inputs) from_parts_[node.id] = from_parts_[node.id] || from_parts_[input.node];
    }
  }

  absl::StatusOr<Graph> Make() {
    FindNeeds();
    Graph result;
    result.builder() = graph_.builder();
    chain_.SetGraph(result);
    for (const Node& node : graph_.nodes()) {
      if (needs_whole_[node.id] || needs_part_[node.id]) GW_RETURN_IF_ERROR(Translate(node));
    }
    for (const auto& [name, ports] : graph_.outputs()) {
      std::vector<Value> values;
      for (Port port : ports) {
        const bool is_update = name == updates_ && sharded_[port.node];
        values.push_back(result.value(is_update ? parts_[port.node] : Whole(port)));
      }
      result.SetOutput(name, values);
    }
    return result;
  }

 private:
  // Goes from the last node to the first and finds the values that are needed whole, and those of
  // which only the shard's part is needed.
  void FindNeeds() {
    for (const auto& [name, ports] : graph_.outputs()) {
      for (Port port : ports) (name == updates_ && sharded_[port.node] ? needs_part_ : needs_whole_)[port.node] = true;
    }
    for (NodeId id = graph_.num_nodes() - 1; id >= 0; --id) {
      const Node& node = graph_.node(id);
      // Whole values that follow from parts are gathered.
      if (from_parts_[id] && needs_whole_[id]) needs_part_[id] = true;
      if (node.op->kind == OpKind::kVariable) {
        if (!sharded_[id] && needs_part_[id]) needs_whole_[id] = true;
        if (!sharded_[id] && needs_whole_[id]) NeedOperands(node);
      } else if (sharded_[id]) {
        if (needs_part_[id]) needs_part_[node.inputs[0].node] = needs_part_[node.inputs[1].node] = true;
      } else if (node.op->collective) {
        // The chain gets a new order, so `after` is not needed.
        if (node.op->kind != OpKind::kAllReduce && needs_part_[id]) needs_whole_[id] = true;
        if (needs_whole_[id] || needs_part_[id]) needs_whole_[node.inputs[0].node] = true;
      } else if (WorksOnParts(graph_, node)) {
        if (needs_part_[id]) NeedOperandsOfPart(node);
        if (needs_whole_[id] && !from_parts_[id]) NeedOperands(node);
      } else {
        if (needs_part_[id]) needs_whole_[id] = true;
        if (needs_whole_[id]) NeedOperands(node);
      }
    }
  }
  void NeedOperands(const Node& node) {
    for (Port input : node.inputs) needs_whole_[input.node] = true;
  }
  void NeedOperandsOfPart(const Node& node) {
    for (Port input : node.inputs) (IsOne(graph_.type(input)) ? needs_whole_ : needs_part_)[input.node] = true;
  }

  Port Whole(Port port) const {
    GW_CHECK(port.output < static_cast<int>(wholes_[port.node].size()), "a whole value is missing");
    return wholes_[port.node][port.output];
  }
  Ports WholesOf(absl::Span<const Port> inputs) const {
    Ports ports;
    for (Port input : inputs) ports.push_back(Whole(input));
    return ports;
  }
  int64_t CountOf(const Node& node) const { return node.outputs[0].shape.num_elements().size(); }
  int64_t PartOf(const Node& node) const { return PartSize(CountOf(node), shards_); }

  absl::Status Translate(const Node& node) {
    const NodeId id = node.id;
    if (needs_part_[id]) {
      GW_RETURN_IF_ERROR(TranslatePart(node));
    }
    if (!needs_whole_[id] || !wholes_[id].empty()) return absl::OkStatus();
    if (from_parts_[id]) {
      GW_ASSIGN_OR_RETURN(const Port whole, Gather(node, parts_[id]));
      wholes_[id] = {whole};
    } else if (node.op->collective) {
      GW_ASSIGN_OR_RETURN(const Port port, chain_.CopyCollective(node, Whole(node.inputs[0])));
      wholes_[id] = {port};
    } else {
      GW_ASSIGN_OR_RETURN(wholes_[id], chain_.Copy(node, WholesOf(node.inputs)));
    }
    return absl::OkStatus();
  }

  absl::Status TranslatePart(const Node& node) {
    const NodeId id = node.id;
    if (node.op->kind == OpKind::kVariable && sharded_[id]) {
      GW_ASSIGN_OR_RETURN(parts_[id], AddVariable(node));
    } else if (sharded_[id]) {
      GW_ASSIGN_OR_RETURN(const Ports ports,
                          chain_.Copy(node, {parts_[node.inputs[0].node], parts_[node.inputs[1].node]}));
      parts_[id] = ports[0];
    } else if (WorksOnParts(graph_, node)) {
      GW_ASSIGN_OR_RETURN(parts_[id], ComputePart(node));
    } else if (node.op->kind == OpKind::kAllReduce && !needs_whole_[id]) {
      GW_ASSIGN_OR_RETURN(const Port rows, Rows(node, Whole(node.inputs[0])));
      GW_ASSIGN_OR_RETURN(parts_[id], chain_.AddCollective(node, "ReduceScatter", shards_, rows));
    } else {
      // The whole value exists, so the part is a row of it.
      if (node.op->collective) {
        GW_ASSIGN_OR_RETURN(const Port port, chain_.CopyCollective(node, Whole(node.inputs[0])));
        wholes_[id] = {port};
      } else {
        GW_ASSIGN_OR_RETURN(wholes_[id], chain_.Copy(node, WholesOf(node.inputs)));
      }
      GW_ASSIGN_OR_RETURN(const Port rows, Rows(node, wholes_[id][0]));
      if (index_.node < 0) {
        const NamedAttribute shards[] = {{"shards", shards_}};
        GW_ASSIGN_OR_RETURN(index_, chain_.Add(node, "ShardIndex", {}, shards));
      }
      const NamedAttribute axis[] = {{"axis", int64_t{0}}};
      GW_ASSIGN_OR_RETURN(parts_[id], chain_.Add(node, "Gather", {rows, index_}, axis));
    }
    return absl::OkStatus();
  }

  absl::StatusOr<Port> AddVariable(const Node& node) {
    absl::InlinedVector<AttributeValue, 1> attributes = node.attributes;
    attributes[node.op->AttributeIndex("shape")] = Shape{PartOf(node)};
    return chain_.AddWith(node, std::move(attributes), {});
  }

  // An op that works on parts, with parts as operands.
  absl::StatusOr<Port> ComputePart(const Node& node) {
    Ports inputs;
    for (Port input : node.inputs) {
      if (!IsOne(graph_.type(input))) {
        inputs.push_back(parts_[input.node]);
        continue;
      }
      inputs.push_back(Whole(input));
      if (graph_.type(input).shape.rank() == 0) continue;
      const NamedAttribute scalar[] = {{"shape", Shape{}}};
      GW_ASSIGN_OR_RETURN(inputs.back(), chain_.Add(node, "Reshape", {inputs.back()}, scalar));
    }
    absl::InlinedVector<AttributeValue, 1> attributes = node.attributes;
    if (node.op->kind == OpKind::kBroadcastTo) attributes[node.op->AttributeIndex("shape")] = Shape{PartOf(node)};
    return chain_.AddWith(node, std::move(attributes), inputs);
  }

  // The elements of a value as [shards, PartSize], filled up with zeros.
  absl::StatusOr<Port> Rows(const Node& node, Port whole) {
    const int64_t count = CountOf(node), part = PartOf(node);
    const NamedAttribute flat[] = {{"shape", Shape{count}}}, rows[] = {{"shape", Shape{shards_, part}}};
    if (part * shards_ != count) {
      const NamedAttribute zeros[] = {
          {"low", Shape{0}}, {"high", Shape{part * shards_ - count}}, {"interior", Integers{0}}};
      GW_ASSIGN_OR_RETURN(whole, chain_.Add(node, "Reshape", {whole}, flat));
      GW_ASSIGN_OR_RETURN(whole, chain_.Add(node, "Pad", {whole}, zeros));
    }
    return chain_.Add(node, "Reshape", {whole}, rows);
  }

  // The whole value of all shards' parts.
  absl::StatusOr<Port> Gather(const Node& node, Port part) {
    const int64_t count = CountOf(node), padded = PartOf(node) * shards_;
    GW_ASSIGN_OR_RETURN(Port all, chain_.AddCollective(node, "AllGather", shards_, part));
    if (padded != count) {
      const NamedAttribute flat[] = {{"shape", Shape{padded}}};
      const NamedAttribute first[] = {{"start", Shape{0}}, {"limit", Shape{count}}, {"steps", Integers{1}}};
      GW_ASSIGN_OR_RETURN(all, chain_.Add(node, "Reshape", {all}, flat));
      GW_ASSIGN_OR_RETURN(all, chain_.Add(node, "Slice", {all}, first));
    }
    const NamedAttribute shape[] = {{"shape", node.outputs[0].shape}};
    return chain_.Add(node, "Reshape", {all}, shape);
  }

  const Graph& graph_;
  const int64_t shards_;
  const absl::string_view updates_;
  // Indexed by node of the graph.
  std::vector<bool> sharded_;     // Variables to shard, and their assignments.
  std::vector<bool> from_parts_;  // Values that follow from parts of variables.
  std::vector<bool> needs_whole_, needs_part_;
  std::vector<Ports> wholes_;  // In the result; empty if there is none.
  std::vector<Port> parts_;
  CollectiveChain chain_;
  Port index_;  // The number of the shard.
};

}  // namespace

int64_t PartSize(int64_t count, int64_t shards) { return count / shards + (count % shards != 0 ? 1 : 0); }

std::set<std::string> VariablesToShard(const Graph& graph, int64_t shards) {
  std::vector<bool> fits(graph.num_nodes(), false), assigned(graph.num_nodes(), false);
  for (const Node& node : graph.nodes()) {
    if (node.op->kind == OpKind::kVariable && shards > 1) {
      const TensorType& type = node.outputs[0];
      fits[node.id] = !node.attribute<bool>("trainable") && IsFloating(type.dtype) && type.shape.is_static() &&
                      type.shape.num_elements().size() >= std::max(kLeastElements, shards);
    }
    for (size_t i = 0; i < node.inputs.size(); ++i) {
      const NodeId input = node.inputs[i].node;
      if (!fits[input]) continue;
      const bool is_target = node.op->kind == OpKind::kAssign && i == 0;
      if (is_target) assigned[input] = true;
      fits[input] = is_target || (node.op->kind != OpKind::kAssign && WorksOnParts(graph, node));
    }
  }
  std::set<std::string> names;
  for (const Node& node : graph.nodes()) {
    if (fits[node.id] && assigned[node.id]) names.insert(node.name);
  }
  return names;
}

absl::StatusOr<Graph> ShardState(const Graph& graph, int64_t shards, const std::set<std::string>& variables,
                                 absl::string_view updates) {
  return StateSharder(graph, shards, variables, updates).Make();
}

}  // namespace gradweave
