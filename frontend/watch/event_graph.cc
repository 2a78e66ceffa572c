// The graph as TensorBoard's GraphDef message.
#include <string>
#include <utility>
#include <vector>

#include "absl/container/flat_hash_set.h"
#include "absl/strings/str_cat.h"
#include "gradweave/frontend/input_file.h"
#include "gradweave/frontend/watch/event_file.h"
#include "gradweave/proto/tensorboard.pb.h"

namespace gradweave {
namespace {

// Returns for each node id whether it computes nothing but initial values of variables.
std::vector<bool> OnlyInitialValues(const Graph& graph) {
  std::vector<bool> has_user(graph.num_nodes(), false), has_other_user(graph.num_nodes(), false);
  for (const auto& [name, ports] : graph.outputs()) {
    for (const Port port : ports) has_other_user[port.node] = true;
  }
  std::vector<bool> result(graph.num_nodes(), false);
  for (NodeId id = graph.num_nodes() - 1; id >= 0; --id) {
    const Node& node = graph.node(id);
    const bool is_source = node.op->kind == OpKind::kInput || node.op->kind == OpKind::kVariable;
    result[id] = has_user[id] && !has_other_user[id] && !is_source;
    for (const Port input : node.inputs) {
      has_user[input.node] = true;
      if (node.op->kind != OpKind::kVariable && !result[id]) has_other_user[input.node] = true;
    }
  }
  return result;
}

// Returns a name for each node. A node whose name another one has gets its number too.
std::vector<std::string> UniqueNames(const Graph& graph) {
  std::vector<std::string> names;
  absl::flat_hash_set<std::string> taken;
  for (const Node& node : graph.nodes()) {
    std::string name = PrintableText(node.display_name());
    while (!taken.insert(name).second) absl::StrAppend(&name, "_", node.id);
    names.push_back(std::move(name));
  }
  return names;
}

}  // namespace

std::string GraphDefOf(const Graph& graph) {
  const std::vector<bool> left_out = OnlyInitialValues(graph);
  const std::vector<std::string> names = UniqueNames(graph);
  tensorboard::GraphDef message;
  message.mutable_versions()->set_producer(22);  // The version that the tensorboard of PyTorch writes.
  for (const Node& node : graph.nodes()) {
    if (left_out[node.id]) continue;
    tensorboard::NodeDef& to = *message.add_node();
    to.set_name(names[node.id]);
    to.set_op(node.op->name);
    to.set_device(PrintableText(node.device));
    for (const Port input : node.inputs) {
      if (left_out[input.node]) continue;
      const std::string& name = names[input.node];
      to.add_input(input.output == 0 ? name : absl::StrCat(name, ":", input.output));
    }
    auto& attributes = *to.mutable_attr();
    for (size_t i = 0; i < node.attributes.size(); ++i) {
      attributes[node.op->attributes[i].name].set_s(PrintableText(ToString(node.attributes[i])));
    }
    tensorboard::AttrValue::List& shapes = *attributes["_output_shapes"].mutable_list();
    for (size_t i = 0; i < node.outputs.size(); ++i) {
      const TensorType& type = node.outputs[i];
      attributes[node.outputs.size() == 1 ? "type" : absl::StrCat("type ", i)].set_s(PrintableText(type.ToString()));
      tensorboard::Shape& shape = *shapes.add_shape();
      for (int axis = 0; axis < type.shape.rank(); ++axis) {
        const Dim& dim = type.shape[axis];
        shape.add_dim()->set_size(dim.is_known() ? dim.size() : -1);
      }
    }
  }
  return message.SerializeAsString();
}

}  // namespace gradweave
