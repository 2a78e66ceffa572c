#include "gradweave/graph/passes/placement.h"

#include <algorithm>
#include <map>
#include <utility>

#include "absl/container/flat_hash_map.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "gradweave/graph/check.h"
#include "gradweave/graph/device_name.h"
#include "gradweave/graph/passes/passes.h"

namespace gradweave {
namespace {

bool IsFedOrConstant(const Node& node) { return node.op->kind == OpKind::kInput || node.op->kind == OpKind::kConstant; }
bool IsVariable(const Node& node) { return node.op->kind == OpKind::kVariable; }

// Gives each device one name: "cuda" becomes "cuda:0".
std::string FullName(absl::string_view device) {
  return absl::StrContains(device, ':') ? std::string(device) : absl::StrCat(device, ":0");
}

// Chooses a device for each needed node; inputs and constants get "".
class DeviceChooser {
 public:
  DeviceChooser(const Graph& graph, const PlacementOptions& options)
      : graph_(graph),
        options_(options),
        needed_(NeededNodes(graph)),
        default_(FullName(options.device)),
        devices_(graph.num_nodes()) {}

  void Choose() {
    for (const Node& node : graph_.nodes()) {
      if (needed_[node.id] && !IsFedOrConstant(node) && !IsVariable(node) && node.op->kind != OpKind::kAssign)
        ChooseFor(node);
    }
    for (const Node& node : graph_.nodes()) {
      if (needed_[node.id] && IsVariable(node)) devices_[node.id] = node.device.empty() ? "" : FullName(node.device);
    }
    // The device of its new value decides where a variable is stored. Other variables follow their
    // readers.
    for (const Node& node : graph_.nodes()) {
      if (!needed_[node.id] || node.op->kind != OpKind::kAssign) continue;
      std::string& variable = devices_[node.inputs[0].node];
      const std::string& value = devices_[node.inputs[1].node];
      if (variable.empty()) variable = value.empty() ? default_ : value;
      devices_[node.id] = variable;
    }
    PlaceReadVariables();
  }

  const std::string& device(NodeId id) const { return devices_[id]; }
  std::vector<std::string> TakeMoved() {
    std::vector<std::string> lines;
    lines.reserve(moved_.size());
    for (const auto& [reason, count] : moved_) {
      lines.push_back(count == 1 ? reason : absl::StrCat(reason, " (", count, " nodes)"));
    }
    return lines;
  }

 private:
  void ChooseFor(const Node& node) {
    std::string& device = devices_[node.id];
    if (!node.device.empty()) {
      device = FullName(node.device);
    } else if (node.op->alias && !devices_[node.inputs[0].node].empty() && node.op->kind != OpKind::kCopy) {
      device = devices_[node.inputs[0].node];
    } else {
      device = default_;
    }
    if (node.op->alias || device == kCpuDevice) return;
    const absl::Status status = options_.check(node, device);
    if (status.ok()) return;
    ++moved_[absl::StrCat(node.op->name, " runs on the CPU and not on ", device, ": ", status.message())];
    device = kCpuDevice;
  }

  void PlaceReadVariables() {
    for (const Node& node : graph_.nodes()) {
      if (!needed_[node.id]) continue;
      for (Port input : node.inputs) {
        if (!IsVariable(graph_.node(input.node))) continue;
        std::string& variable = devices_[input.node];
        if (variable.empty()) variable = devices_[node.id];
      }
    }
    // The remaining variables are only fetched.
    for (const Node& node : graph_.nodes()) {
      if (needed_[node.id] && IsVariable(node) && devices_[node.id].empty()) devices_[node.id] = default_;
    }
  }

  const Graph& graph_;
  const PlacementOptions& options_;
  const std::vector<bool> needed_;
  const std::string default_;
  std::vector<std::string> devices_;  // Indexed by node.
  std::map<std::string, int> moved_;  // Number of nodes, by op and reason.
};

}  // namespace

absl::StatusOr<Placement> Place(const Graph& graph, const PlacementOptions& options) {
  DeviceChooser chooser(graph, options);
  chooser.Choose();
  absl::flat_hash_map<std::pair<Port, std::string>, Port> copies;  // Indexed by value of the result and device.
  GW_ASSIGN_OR_RETURN(
      Graph placed,
      Rewrite(
          graph,
          [&](const Node& node, absl::Span<const Port> inputs, Graph& result) -> absl::StatusOr<std::optional<Ports>> {
            const std::string& device = chooser.device(node.id);
            // An explicit Copy already moves its operand.
            const bool is_copy = node.op->kind == OpKind::kCopy;
            Ports operands(inputs.begin(), inputs.end());
            for (Port& operand : operands) {
              const Node& source = result.node(operand.node);
              if (is_copy || IsFedOrConstant(source) || source.device == device) continue;
              // A value that was copied from this device is still there.
              if (source.op->kind == OpKind::kCopy && result.node(source.inputs[0].node).device == device) {
                operand = source.inputs[0];
                continue;
              }
              auto [copy, is_new] = copies.try_emplace({operand, device});
              if (is_new) {
                const OpDefinition* op = node.op->registry->Find(OpKind::kCopy);
                if (op == nullptr) return absl::UnimplementedError("the registry of ops lacks Copy");
                GW_ASSIGN_OR_RETURN(NodeId id, result.AddNode(op, {}, {operand}, "", device, source.location));
                copy->second = {id, 0};
              }
              operand = copy->second;
            }
            GW_ASSIGN_OR_RETURN(NodeId id,
                                result.AddNode(node.op, node.attributes, operands, node.name, device, node.location));
            return result.node(id).ports();
          }));
  return Placement{std::move(placed), chooser.TakeMoved()};
}

}  // namespace gradweave
