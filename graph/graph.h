// The graph: nodes that apply ops to values of earlier nodes.
#ifndef GRADWEAVE_GRAPH_GRAPH_H_
#define GRADWEAVE_GRAPH_GRAPH_H_

#include <cstdint>
#include <deque>
#include <map>
#include <set>
#include <string>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/container/inlined_vector.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/types/span.h"
#include "gradweave/graph/attribute.h"
#include "gradweave/graph/op.h"
#include "gradweave/graph/shape.h"

namespace gradweave {

using NodeId = int32_t;

// An output of a node, inside one graph.
struct Port {
  NodeId node = -1;
  int32_t output = 0;

  friend bool operator==(Port a, Port b) { return a.node == b.node && a.output == b.output; }
  friend bool operator<(Port a, Port b) { return a.node != b.node ? a.node < b.node : a.output < b.output; }
  template <typename H>
  friend H AbslHashValue(H h, Port p) {
    return H::combine(std::move(h), p.node, p.output);
  }
};

// A line of the user's program. The file's name lives as long as the graph.
struct SourceLocation {
  const char* file = nullptr;  // Null: unknown.
  uint32_t line = 0;
};

// One application of an op. Fields are for reading; only a Graph makes nodes.
struct Node {
  NodeId id = -1;
  const OpDefinition* op = nullptr;
  absl::InlinedVector<AttributeValue, 1> attributes;  // In the order of op->attributes, all of them.
  absl::InlinedVector<Port, 2> inputs;
  TensorTypes outputs;
  std::string name;    // As given, with its scopes; often empty.
  std::string device;  // "cpu:0"; empty: left to placement.
  SourceLocation location;

  // The attribute of that name, which has type T.
  template <typename T>
  const T& attribute(absl::string_view attribute_name) const {
    return std::get<T>(attributes[op->AttributeIndex(attribute_name)]);
  }
  // The name, or one made of op and id: "conv2d_17".
  std::string display_name() const;
};

class Graph;

// A value of a graph: a small handle to copy. After an error in a builder call, values made from what failed are
// invalid, and whatever is built from them is invalid too; the graph keeps the first error. A default-constructed Value
// is invalid.
class Value {
 public:
  Value() = default;
  Value(Graph* graph, Port port) : graph_(graph), port_(port) {}

  bool valid() const { return port_.node >= 0; }
  Graph* graph() const { return graph_; }
  Port port() const { return port_; }

  // Of a valid value; an invalid one is float32[].
  const TensorType& type() const;
  const Shape& shape() const { return type().shape; }
  DType dtype() const { return type().dtype; }
  int rank() const { return shape().rank(); }

  // The node; only of a valid value.
  const Node& node() const;

  friend bool operator==(const Value& a, const Value& b) { return a.graph_ == b.graph_ && a.port_ == b.port_; }

 private:
  Graph* graph_ = nullptr;
  Port port_;
};

// An append-only directed acyclic graph: a node may only use values that exist, so the order of nodes is a topological
// order.
//
// A Graph also holds what a program of builder calls needs: the first error, the current name prefix, device and source
// line. It may be copied; Values belong to the graph they were made in. Not safe for use from several threads while one
// of them adds nodes.
class Graph {
 public:
  Graph() = default;

  int num_nodes() const { return static_cast<int>(nodes_.size()); }
  const Node& node(NodeId id) const { return nodes_[id]; }
  const std::deque<Node>& nodes() const { return nodes_; }
  const TensorType& type(Port port) const { return nodes_[port.node].outputs[port.output]; }

  // The types of a node's operands.
  TensorTypes OperandTypes(const Node& node) const;

  struct NewNode {
    const OpDefinition* op = nullptr;
    absl::Span<const Port> inputs = {};
    absl::Span<const NamedAttribute> attributes = {};  // Those left out take their default.
    absl::string_view name = "";
    absl::string_view device = "";
    SourceLocation location = {};
  };
  // Adds a node after checking its operands and attributes against the op's definition and inferring its output types.
  // InvalidArgument says what is wrong, the operands' types and the source line. A failed call changes nothing.
  absl::StatusOr<NodeId> AddNode(const NewNode& node);

  // For passes that carry a node over: all attributes, in the order of the definition.
  absl::StatusOr<NodeId> AddNode(const OpDefinition* op, absl::InlinedVector<AttributeValue, 1> attributes,
                                 absl::Span<const Port> inputs, absl::string_view name = "",
                                 absl::string_view device = "", SourceLocation location = {});

  // Input and Variable nodes have unique names; the node of that name, or -1.
  NodeId FindNamed(absl::string_view name) const;

  // Results under a name, kept in files: {"logits", {logits}}, or a training step's updates. Replaces what had the
  // name.
  void SetOutput(absl::string_view name, absl::Span<const Value> values);
  const std::map<std::string, std::vector<Port>, std::less<>>& outputs() const { return outputs_; }
  void ClearOutputs() { outputs_.clear(); }
  // Empty where there is no output of that name.
  std::vector<Value> Output(absl::string_view name);

  // A handle to a port of this graph.
  Value value(Port port) { return Value(this, port); }
  Value value(NodeId node) { return Value(this, {node, 0}); }

  // The first error of the builder calls so far.
  const absl::Status& status() const { return status_; }
  // Keeps the error if it is the first.
  void RecordError(absl::Status error);

  // The state of builder calls, set through Scope and the guards below.
  struct BuilderState {
    std::string name_prefix;  // "encoder/layer_1/".
    std::string device;
    SourceLocation location;               // Set: new nodes get it in place of the line of the call.
    int64_t next_seed = 1;                 // For random ops that are not given one.
    const OpRegistry* registry = nullptr;  // Of ops without operands.
  };
  BuilderState& builder() { return builder_; }
  const BuilderState& builder() const { return builder_; }

  // A file name that lives as long as the graph and its copies, for the locations of loaded nodes.
  const char* Intern(absl::string_view text);

 private:
  std::deque<Node> nodes_;  // A deque: references to nodes hold while nodes are added.
  absl::flat_hash_map<std::string, NodeId> named_;
  std::map<std::string, std::vector<Port>, std::less<>> outputs_;
  absl::Status status_;
  BuilderState builder_;
  std::shared_ptr<std::set<std::string>> interned_;
};

// Nodes made while this lives have the location, whatever line calls the builder: gradients belong to the line of the
// op they differentiate, the parts of a layer to the line that applied it. An unknown location changes nothing.
class LocationGuard {
 public:
  LocationGuard(Graph& graph, SourceLocation location) : graph_(graph), previous_(graph.builder().location) {
    if (location.file != nullptr) graph.builder().location = location;
  }
  ~LocationGuard() { graph_.builder().location = previous_; }
  LocationGuard(const LocationGuard&) = delete;
  LocationGuard& operator=(const LocationGuard&) = delete;

 private:
  Graph& graph_;
  SourceLocation previous_;
};

// "examples/lenet.cc:42"; "unknown line" where it is not known.
std::string ToString(SourceLocation location);

// Op, operands with their types, name and line of a node, for messages: "MatMul(float32[2,3], float32[4,5])".
std::string DescribeNode(const Graph& graph, const Node& node);

}  // namespace gradweave

#endif  // GRADWEAVE_GRAPH_GRAPH_H_
