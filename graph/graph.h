// The graph: nodes that apply ops to the values of earlier nodes.
#ifndef GRADWEAVE_GRAPH_GRAPH_H_
#define GRADWEAVE_GRAPH_GRAPH_H_

#include <cstdint>
#include <deque>
#include <map>
#include <memory>
#include <optional>
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

// The index of a node in its graph; -1 means none.
using NodeId = int32_t;

// One output of a node, identified within a graph.
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

// The outputs of a node, in order.
using Ports = absl::InlinedVector<Port, 2>;

// A line of the user's program. `file` must live as long as the graph; see Graph::Intern.
struct SourceLocation {
  const char* file = nullptr;  // Null if unknown.
  uint32_t line = 0;
};

// One application of an op. Nodes are read-only outside of Graph, which creates them.
struct Node {
  NodeId id = -1;
  // Different for all nodes that the process adds to graphs. A copy of a graph keeps the numbers.
  uint64_t serial = 0;
  const OpDefinition* op = nullptr;
  absl::InlinedVector<AttributeValue, 1> attributes;  // All of them, in the order of op->attributes.
  absl::InlinedVector<Port, 2> inputs;
  TensorTypes outputs;
  std::string name;    // Prefixed with its scopes; often empty.
  std::string device;  // "cpu:0"; if empty, placement chooses.
  SourceLocation location;

  // Returns the value of the attribute `name`, which has type T.
  template <typename T>
  const T& attribute(absl::string_view attribute_name) const {
    return std::get<T>(attributes[op->AttributeIndex(attribute_name)]);
  }
  // Returns all outputs, in order.
  Ports ports() const;
  // Returns the name or, if it is empty, the op and the id: "conv2d_17".
  std::string display_name() const;
};

class Graph;

// A handle to a value of a graph, cheap to copy. A builder call that fails returns an invalid
// Value; a call with an invalid operand returns an invalid Value too. The graph keeps the first
// error. A default-constructed Value is invalid.
class Value {
 public:
  Value() = default;
  // The value of that port of the graph; an invalid one for a port without a node.
  Value(Graph* graph, Port port);

  bool valid() const { return port_.node >= 0; }
  Graph* graph() const { return graph_; }
  Port port() const { return port_; }
  // Node::serial of the node; 0 for an invalid value. It tells values of different graphs apart,
  // even if a graph no longer exists.
  uint64_t serial() const { return serial_; }

  // The dtype and shape of a valid value; float32[] for an invalid one.
  const TensorType& type() const;
  const Shape& shape() const { return type().shape; }
  DType dtype() const { return type().dtype; }
  int rank() const { return shape().rank(); }

  // The node that computes this value. The value must be valid.
  const Node& node() const;

  friend bool operator==(const Value& a, const Value& b) { return a.graph_ == b.graph_ && a.port_ == b.port_; }

 private:
  Graph* graph_ = nullptr;
  Port port_;
  uint64_t serial_ = 0;
};

// An append-only directed acyclic graph. A node may only use existing values, so the order of the
// nodes is a topological order.
//
// A Graph also holds the state of builder calls: the first error, the current name prefix, device
// and source line. It may be copied; a Value belongs to the graph in which it was created. A Graph
// must not be used from other threads while one thread adds nodes.
class Graph {
 public:
  // These are defined in graph.cc: inline, each source that copies or destroys a graph would compile
  // them again. A move allocates, because that of a deque does.
  Graph();
  Graph(const Graph&);
  Graph(Graph&&) noexcept(false);
  Graph& operator=(const Graph&);
  Graph& operator=(Graph&&) noexcept(false);
  ~Graph();

  int num_nodes() const { return static_cast<int>(nodes_.size()); }
  const Node& node(NodeId id) const { return nodes_[id]; }
  const std::deque<Node>& nodes() const { return nodes_; }
  const TensorType& type(Port port) const { return nodes_[port.node].outputs[port.output]; }

  // True if the graph has this value.
  bool Exists(Port port) const;

  // Returns the types of a node's operands, in their order.
  TensorTypes OperandTypes(const Node& node) const;

  // The arguments of AddNode.
  struct NewNode {
    const OpDefinition* op = nullptr;
    absl::Span<const Port> inputs = {};
    absl::Span<const NamedAttribute> attributes = {};  // Attributes left out take their defaults.
    absl::string_view name = "";
    absl::string_view device = "";
    SourceLocation location = {};
  };
  // Adds a node. Checks its operands and attributes against the op's definition and infers its
  // output types. Returns InvalidArgument with the problem, the operands' types and the source line
  // if a check fails, and ResourceExhausted if the graph is full. A failed call changes nothing.
  absl::StatusOr<NodeId> AddNode(const NewNode& node);

  // Adds a node like another, which may belong to another graph: with the same op, attributes,
  // name, device and line, and the given inputs. Returns the errors of AddNode.
  absl::StatusOr<NodeId> AddNodeLike(const Node& node, absl::Span<const Port> inputs) {
    return AddNode(node.op, node.attributes, inputs, node.name, node.device, node.location);
  }

  // The same for passes, which copy nodes: takes all attributes, in the order of the definition.
  absl::StatusOr<NodeId> AddNode(const OpDefinition* op, absl::InlinedVector<AttributeValue, 1> attributes,
                                 absl::Span<const Port> inputs, absl::string_view name = "",
                                 absl::string_view device = "", SourceLocation location = {});

  // Returns the Input or Variable node of this name, or -1. These names are unique in a graph.
  NodeId FindNamed(absl::string_view name) const;

  // Names a list of values as an output: {"logits", {logits}}, or the updates of a training step.
  // Files store outputs. An existing output of the same name is replaced. An invalid value or a
  // value of another graph is recorded as an error.
  void SetOutput(absl::string_view name, absl::Span<const Value> values);
  const std::map<std::string, std::vector<Port>, std::less<>>& outputs() const { return outputs_; }
  void ClearOutputs() { outputs_.clear(); }
  // Returns the values of the named output; empty if there is no such output.
  std::vector<Value> Output(absl::string_view name);

  // Returns a handle to a port of this graph.
  Value value(Port port) { return Value(this, port); }
  Value value(NodeId node) { return Value(this, {node, 0}); }

  // The first error of all builder calls so far.
  const absl::Status& status() const { return status_; }
  // Keeps the error if it is the first one.
  void RecordError(absl::Status error);

  // The state of builder calls. Scope and LocationGuard set it.
  struct BuilderState {
    std::string name_prefix;  // "encoder/layer_1/".
    std::string device;
    SourceLocation location;               // If known, new nodes get it instead of the line of the call.
    int64_t next_seed = 1;                 // For random ops without an explicit seed.
    const OpRegistry* registry = nullptr;  // Holds the ops that have no operands.
  };
  BuilderState& builder() { return builder_; }
  const BuilderState& builder() const { return builder_; }

  // Returns a copy of the text that lives as long as the graph and its copies. The locations of
  // loaded nodes use it for file names.
  const char* Intern(absl::string_view text);

 private:
  std::deque<Node> nodes_;  // A deque keeps references to nodes valid while nodes are added.
  absl::flat_hash_map<std::string, NodeId> named_;
  std::map<std::string, std::vector<Port>, std::less<>> outputs_;
  absl::Status status_;
  BuilderState builder_;
  std::shared_ptr<std::set<std::string>> interned_;
};

// While it lives, new nodes get this location instead of the line of the builder call: gradients
// get the line of the op they differentiate, the parts of a layer get the line that applied the
// layer. An unknown location changes nothing.
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

// Returns the floating dtype of the node's operands and outputs, some of which may be bool. Returns
// nullopt if there is any other dtype, or only bool.
std::optional<DType> FloatingDTypeOf(const Graph& graph, const Node& node);

// Formats the location: "examples/lenet.cc:42", or "unknown line".
std::string ToString(SourceLocation location);

// Describes a node for error messages, with its op, operand types, name and line: "MatMul(a:
// float32[2,3], b: float32[4,5]) 'logits' at examples/lenet.cc:42".
std::string DescribeNode(const Graph& graph, const Node& node);

}  // namespace gradweave

#endif  // GRADWEAVE_GRAPH_GRAPH_H_
