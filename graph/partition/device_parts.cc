#include "gradweave/graph/partition/device_parts.h"

#include <algorithm>
#include <utility>

#include "absl/container/flat_hash_map.h"
#include "absl/container/flat_hash_set.h"
#include "absl/strings/str_cat.h"
#include "gradweave/graph/check.h"
#include "gradweave/graph/device_name.h"

namespace gradweave {
namespace {

class DevicePartFinder {
 public:
  explicit DevicePartFinder(const Graph& graph) : graph_(graph), nodes_(graph.num_nodes()) {}

  absl::StatusOr<DeviceParts> Find() {
    for (const Node& node : graph_.nodes()) Classify(node);
    FindPhases();
    AssignParts();
    for (const Node& node : graph_.nodes()) GW_RETURN_IF_ERROR(AddNode(node));
    SetOutputs();
    SetOrder();
    return std::move(result_);
  }

 private:
  enum Kind {
    kEverywhere,  // Inputs, constants, and views of them.
    kVariable,
    kTransfer,  // A copy from one device to another.
    kInPart,
  };
  struct NodeState {
    Kind kind = kInPart;
    bool fed = false;  // Depends on an input.
    int earliest = 0, latest = 0, phase = 0;
    int part = -1;
  };

  // Returns the number of phases from `from` to `to`. A copy runs a phase later than its operand,
  // unless the operand is a variable.
  int Step(NodeId from, NodeId to) const {
    return nodes_[to].kind == kTransfer && nodes_[from].kind != kVariable ? 1 : 0;
  }
  bool IsComputed(NodeId id) const { return nodes_[id].kind == kTransfer || nodes_[id].kind == kInPart; }

  void Classify(const Node& node) {
    NodeState& state = nodes_[node.id];
    const OpKind op = node.op->kind;
    for (Port input : node.inputs) state.fed |= nodes_[input.node].fed;
    if (op == OpKind::kInput || op == OpKind::kConstant) {
      state.kind = kEverywhere;
      state.fed = op == OpKind::kInput;
      if (op == OpKind::kInput && node.outputs[0].shape.rank() > 0) batches_.insert(node.outputs[0].shape[0].size());
    } else if (op == OpKind::kVariable) {
      state.kind = kVariable;
    } else if (node.op->alias && nodes_[node.inputs[0].node].kind == kEverywhere) {
      state.kind = kEverywhere;
    } else if (op == OpKind::kCopy && graph_.node(node.inputs[0].node).device != node.device) {
      state.kind = kTransfer;
    }
  }

  void FindPhases() {
    for (const Node& node : graph_.nodes()) {
      NodeState& state = nodes_[node.id];
      for (Port input : node.inputs) {
        state.earliest = std::max(state.earliest, nodes_[input.node].earliest + Step(input.node, node.id));
      }
      last_phase_ = std::max(last_phase_, state.earliest);
    }
    for (NodeState& state : nodes_) state.latest = last_phase_;
    for (NodeId id = graph_.num_nodes() - 1; id >= 0; --id) {
      for (Port input : graph_.node(id).inputs) {
        int& latest = nodes_[input.node].latest;
        latest = std::min(latest, nodes_[id].latest - Step(input.node, id));
      }
    }
    int so_far = 0;  // The latest phase of the nodes so far.
    for (const Node& node : graph_.nodes()) {
      NodeState& state = nodes_[node.id];
      if (!IsComputed(node.id)) continue;
      so_far = std::max(so_far, state.earliest);
      state.phase = std::min(so_far, state.latest);
      for (Port input : node.inputs) {
        if (IsComputed(input.node))
          state.phase = std::max(state.phase, nodes_[input.node].phase + Step(input.node, node.id));
      }
    }
  }

  void AssignParts() {
    parts_of_phase_.resize(last_phase_ + 1);
    for (const Node& node : graph_.nodes()) {
      NodeState& state = nodes_[node.id];
      if (state.kind != kInPart) continue;
      std::vector<int>& parts = parts_of_phase_[state.phase];
      auto part = std::find_if(parts.begin(), parts.end(),
                               [&](int candidate) { return result_.parts[candidate].device == node.device; });
      if (part == parts.end()) {
        part = parts.insert(part, static_cast<int>(result_.parts.size()));
        result_.parts.push_back({.device = node.device});
      }
      state.part = *part;
    }
    copies_.resize(result_.parts.size());
    read_elsewhere_.resize(result_.parts.size());
  }

  // Returns a name that no node of the graph has.
  std::string NameOf(Port port) const {
    std::string name = absl::StrCat("output ", port.output, " of node ", port.node);
    while (graph_.FindNamed(name) >= 0) name += "'";
    return name;
  }

  // Returns the value's port in a part. Adds a node to the part if the value comes from elsewhere.
  absl::StatusOr<Port> Bring(Port port, int part_number) {
    absl::flat_hash_map<Port, Port>& copies = copies_[part_number];
    if (auto found = copies.find(port); found != copies.end()) return found->second;
    const Node& node = graph_.node(port.node);
    if (nodes_[port.node].part >= 0) Read(port);
    DevicePart& part = result_.parts[part_number];
    absl::StatusOr<NodeId> id;
    if (node.op->is_source()) {
      id = part.graph.AddNodeLike(node, {});
    } else {
      const TensorType& type = graph_.type(port);
      const bool of_batch = nodes_[port.node].fed && type.shape.rank() > 0 && batches_.contains(type.shape[0].size());
      const OpDefinition* source = node.op->registry->Find(of_batch ? OpKind::kInput : OpKind::kVariable);
      GW_CHECK(source != nullptr, "the registry lacks Input or Variable");
      const NamedAttribute attributes[] = {{"dtype", type.dtype}, {"shape", type.shape}};
      id = part.graph.AddNode({.op = source, .attributes = attributes, .name = NameOf(port), .device = part.device});
    }
    GW_RETURN_IF_ERROR(id.status());
    part.origins.push_back(port);
    return copies[port] = Port{*id, 0};
  }

  // Records that something outside of the value's part reads it.
  void Read(Port port) {
    const int part = nodes_[port.node].part;
    if (part >= 0 && seen_.insert(port).second) read_elsewhere_[part].push_back(port);
  }

  absl::Status AddNode(const Node& node) {
    const int part_number = nodes_[node.id].part;
    if (part_number < 0) {
      for (Port input : node.inputs) Read(input);
      return absl::OkStatus();
    }
    absl::InlinedVector<Port, 4> inputs;
    for (Port input : node.inputs) {
      GW_ASSIGN_OR_RETURN(const Port copy, Bring(input, part_number));
      inputs.push_back(copy);
    }
    DevicePart& part = result_.parts[part_number];
    GW_ASSIGN_OR_RETURN(const NodeId id, part.graph.AddNodeLike(node, inputs));
    part.origins.push_back({node.id, 0});
    for (int i = 0; i < static_cast<int>(node.outputs.size()); ++i) copies_[part_number][{node.id, i}] = {id, i};
    return absl::OkStatus();
  }

  void SetOutputs() {
    for (const auto& [name, ports] : graph_.outputs()) {
      for (Port port : ports) Read(port);
    }
    for (size_t i = 0; i < result_.parts.size(); ++i) {
      Graph& graph = result_.parts[i].graph;
      std::vector<Value> values;
      for (Port port : read_elsewhere_[i]) values.push_back(graph.value(copies_[i].at(port)));
      graph.SetOutput("values", values);
    }
  }

  void SetOrder() {
    std::vector<std::vector<NodeId>> to_cpu(last_phase_ + 1), to_device(last_phase_ + 1);
    for (const Node& node : graph_.nodes()) {
      if (nodes_[node.id].kind != kTransfer) continue;
      (node.device == kCpuDevice ? to_cpu : to_device)[nodes_[node.id].phase].push_back(node.id);
    }
    for (int phase = 0; phase <= last_phase_; ++phase) {
      // A copy to the CPU waits for all work that the device received before this phase.
      for (const auto* copies : {&to_cpu[phase], &to_device[phase]}) {
        for (NodeId id : *copies) result_.order.push_back(OrderItem::Node(id));
      }
      std::vector<int>& parts = parts_of_phase_[phase];
      std::stable_partition(parts.begin(), parts.end(), [&](int part) {
        return (result_.parts[part].device == kCpuDevice) == (phase == last_phase_);
      });
      for (int part : parts) result_.order.push_back({OrderItem::Kind::kDevicePart, part});
    }
  }

  const Graph& graph_;
  std::vector<NodeState> nodes_;
  absl::flat_hash_set<int64_t> batches_;  // Sizes of axis 0 of inputs.
  int last_phase_ = 0;
  std::vector<std::vector<int>> parts_of_phase_;
  std::vector<absl::flat_hash_map<Port, Port>> copies_;  // Indexed by part, for values of the whole graph.
  std::vector<std::vector<Port>> read_elsewhere_;        // Indexed by part.
  absl::flat_hash_set<Port> seen_;                       // The values in read_elsewhere_.
  DeviceParts result_;
};

}  // namespace

absl::StatusOr<DeviceParts> FindDeviceParts(const Graph& placed) { return DevicePartFinder(placed).Find(); }

}  // namespace gradweave
