#include <algorithm>
#include <memory>
#include <utility>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/container/flat_hash_set.h"
#include "absl/strings/str_cat.h"
#include "gradweave/graph/body.h"
#include "gradweave/graph/passes/bodies.h"
#include "gradweave/graph/passes/passes.h"
#include "gradweave/graph/status_macros.h"

namespace gradweave {
namespace {

// Moves work of one Scan to before and after it. `node` has the attributes to work on, and `inputs`
// are its operands in `result`.
class LoopHoister {
 public:
  LoopHoister(const Node& node, absl::Span<const Port> inputs, Graph& result)
      : node_(node),
        inputs_(inputs),
        result_(result),
        body_(*node.attribute<Body>("body")),
        states_(static_cast<int>(node.attribute<int64_t>("states"))),
        input_axes_(node.attribute<Integers>("input_axes")),
        output_axes_(node.attribute<Integers>("output_axes")),
        operands_(BodyPorts(body_, kBodyOperands)),
        results_(BodyPorts(body_, kBodyResults)) {}

  // Returns the ports that replace the outputs of the node, or nullopt if nothing moves.
  absl::StatusOr<std::optional<Ports>> Run() {
    const Dim& length = node_.attribute<Shape>("length")[0];
    // A node that moves out of the loop must have run in it, since it may fail.
    if (!length.is_known() || length.size() < 2 || !HasStaticShapes()) return std::nullopt;
    length_ = length.size();
    FindInvariant();
    FindOutputs();
    FindSums(OpKind::kMatMul);
    FindOutputProducts();
    FindSums(OpKind::kSum);
    FindMoved();
    const bool changes = !moved_.empty() || !input_products_.empty() ||
                         std::any_of(output_products_.begin(), output_products_.end(),
                                     [](const Node* product) { return product != nullptr; }) ||
                         std::any_of(sums_.begin(), sums_.end(), [](const Node* term) { return term != nullptr; });
    if (!changes) return std::nullopt;
    GW_ASSIGN_OR_RETURN(Ports ports, Rebuild());
    return ports;
  }

 private:
  // All slices of a port of the body, one for each step: an input of the loop, or an output.
  struct Stack {
    bool is_input;
    int index;
  };
  struct LoopOutput {
    Port port;
    int64_t axis;
  };

  bool HasStaticShapes() const {
    for (const Node& node : body_.nodes()) {
      for (const TensorType& type : node.outputs) {
        if (!type.shape.is_static()) return false;
      }
    }
    return true;
  }
  double Bytes(Port port) const { return static_cast<double>(body_.type(port).byte_size()); }
  bool IsInput(Port port) const {
    const auto begin = operands_.begin() + states_;
    const auto end = begin + static_cast<std::ptrdiff_t>(input_axes_.size());
    return std::find(begin, end, port) != end;
  }

  // Finds the nodes that are the same in all steps, and how often each port is read.
  void FindInvariant() {
    invariant_.assign(body_.num_nodes(), true);
    for (int i = 0; i < states_ + static_cast<int>(input_axes_.size()); ++i) invariant_[operands_[i].node] = false;
    const std::vector<bool> needed = NeededNodes(body_);
    for (const Node& node : body_.nodes()) {
      for (Port input : node.inputs) {
        if (!invariant_[input.node]) invariant_[node.id] = false;
        if (needed[node.id]) ++uses_[input];
      }
    }
    for (Port result : results_) ++uses_[result];
  }

  // True if the node is a product of x with a matrix that is the same in all steps. Rows of all
  // slices of x then make one product.
  bool IsProductWithMatrix(const Node& node) const {
    return node.op->kind == OpKind::kMatMul && !node.attribute<bool>("transpose_a") &&
           !invariant_[node.inputs[0].node] && invariant_[node.inputs[1].node] &&
           body_.type(node.inputs[1]).shape.rank() == 2;
  }

  // Returns the slices of the port along the axis, if the loop reads or outputs them.
  std::optional<Stack> FindStack(Port port, int64_t axis) const {
    for (size_t i = 0; i < input_axes_.size(); ++i) {
      if (operands_[states_ + i] == port && input_axes_[i] == axis) return Stack{true, static_cast<int>(i)};
    }
    for (size_t i = 0; i < outputs_.size(); ++i) {
      if (outputs_[i].port == port && outputs_[i].axis == axis) return Stack{false, static_cast<int>(i)};
    }
    return std::nullopt;
  }
  Stack AddStack(Port port, int64_t axis) {
    if (const std::optional<Stack> found = FindStack(port, axis); found.has_value()) return *found;
    outputs_.push_back({port, axis});
    return {false, static_cast<int>(outputs_.size()) - 1};
  }

  // Finds the outputs that do not change. Products with such a matrix, which the body does not
  // read, come later.
  void FindOutputs() {
    output_products_.assign(output_axes_.size(), nullptr);
    output_place_.assign(output_axes_.size(), {});
    for (size_t k = 0; k < output_axes_.size(); ++k) {
      const Port port = results_[states_ + k];
      const Node& node = body_.node(port.node);
      if (IsProductWithMatrix(node) && uses_[port] == 1 && output_axes_[k] < body_.type(port).shape.rank()) {
        output_products_[k] = &node;
      } else {
        output_place_[k] = AddStack(port, output_axes_[k]);
      }
    }
  }
  // The loop outputs the first operands of these products, if it does so anyway or they are not
  // larger.
  void FindOutputProducts() {
    for (size_t k = 0; k < output_axes_.size(); ++k) {
      if (output_products_[k] == nullptr) continue;
      const Port port = results_[states_ + k], first = output_products_[k]->inputs[0];
      const bool is_moved = Bytes(first) <= Bytes(port) || FindStack(first, output_axes_[k]).has_value();
      if (!is_moved) output_products_[k] = nullptr;
      output_place_[k] = AddStack(is_moved ? first : port, output_axes_[k]);
    }
  }

  // Finds states that only sum up products a^T b of the steps, or sums over axes of values that the
  // loop reads or gives anyway. Gradients of weights do. One product of all rows of the steps is
  // faster than one for each step.
  void FindSums(OpKind kind) {
    sums_.resize(states_, nullptr);
    for (int i = 0; i < states_; ++i) {
      const Port sum = results_[i];
      const Node& add = body_.node(sum.node);
      if (add.op->kind != OpKind::kAdd || uses_[sum] != 1 || uses_[operands_[i]] != 1) continue;
      const int before = add.inputs[0] == operands_[i] ? 0 : 1;
      const Port term = add.inputs[1 - before];
      if (!(add.inputs[before] == operands_[i]) || uses_[term] != 1 || !(body_.type(term) == body_.type(sum))) continue;
      const Node& node = body_.node(term.node);
      if (node.op->kind != kind || !(kind == OpKind::kMatMul ? MayBeProductOfRows(node) : IsStacked(node))) continue;
      sums_[i] = &node;
      for (Port input : node.inputs) AddStack(input, 0);
    }
  }
  bool IsStacked(const Node& node) const { return FindStack(node.inputs[0], 0).has_value(); }
  // True if the node is a product of two matrices that change, and if the slices that the loop
  // outputs only for this product take less memory than all its other inputs and outputs.
  bool MayBeProductOfRows(const Node& node) const {
    if (!node.attribute<bool>("transpose_a") || node.attribute<bool>("transpose_b")) return false;
    double added = 0, present = 0;
    for (Port input : node.inputs) {
      if (invariant_[input.node] || body_.type(input).shape.rank() != 2) return false;
      if (!FindStack(input, 0).has_value()) added += Bytes(input);
    }
    for (size_t i = 0; i < input_axes_.size(); ++i) present += Bytes(operands_[states_ + i]);
    for (size_t k = 0; k < output_axes_.size(); ++k) present += Bytes(results_[states_ + k]);
    return added <= present;
  }

  // True if it is better to keep the node's value than to compute it in each step. Views,
  // broadcasts and other values larger than their operands would be read from memory that the step
  // otherwise does not need.
  bool IsWorthMoving(const Node& node) const {
    if (!invariant_[node.id] || node.op->is_source() || node.op->alias || node.op->kind == OpKind::kBroadcastTo) {
      return false;
    }
    double read = 0, written = 0;
    for (Port input : node.inputs) read += Bytes(input);
    for (Port port : node.ports()) written += Bytes(port);
    return written <= read;
  }

  // Finds the values that move before the loop: nodes that are the same in all steps, and products
  // of whole inputs with a matrix.
  void FindMoved() {
    std::vector<bool> stays(body_.num_nodes(), false);
    absl::flat_hash_set<Port> found;
    auto read = [&](Port port) {
      const Node& node = body_.node(port.node);
      if (IsWorthMoving(node)) {
        if (found.insert(port).second) moved_.push_back(port);
      } else if (IsProductWithMatrix(node) && IsInput(node.inputs[0]) &&
                 AxisOfInput(node.inputs[0]) < body_.type(node.inputs[0]).shape.rank()) {
        if (found.insert(port).second) input_products_.push_back(port);
      } else {
        stays[node.id] = true;
      }
    };
    for (int i = 0; i < states_; ++i) {
      if (sums_[i] == nullptr) read(results_[i]);
    }
    for (const LoopOutput& output : outputs_) read(output.port);
    for (NodeId id = body_.num_nodes() - 1; id >= 0; --id) {
      if (!stays[id]) continue;
      for (Port input : body_.node(id).inputs) read(input);
    }
  }
  int64_t AxisOfInput(Port port) const {
    return input_axes_[std::find(operands_.begin() + states_, operands_.end(), port) - operands_.begin() - states_];
  }

  absl::StatusOr<Port> Add(OpKind op, std::initializer_list<Port> inputs,
                           std::initializer_list<NamedAttribute> attributes) {
    GW_ASSIGN_OR_RETURN(const NodeId id,
                        result_.AddNode({.op = node_.op->registry->Find(op),
                                         .inputs = absl::MakeConstSpan(inputs.begin(), inputs.size()),
                                         .attributes = absl::MakeConstSpan(attributes.begin(), attributes.size()),
                                         .name = node_.name,
                                         .device = node_.device,
                                         .location = node_.location}));
    return Port{id, 0};
  }
  // The product of the node, with another first operand.
  absl::StatusOr<Port> AddProduct(const Node& product, Port first) {
    return Add(OpKind::kMatMul, {first, outside_.at(product.inputs[1])},
               {{"transpose_a", false}, {"transpose_b", product.attribute<bool>("transpose_b")}});
  }

  // Computes the values that the loop takes from before it: moved values, and the matrices of
  // products.
  absl::Status AddBefore() {
    std::vector<Port> wanted = moved_;
    for (Port port : input_products_) wanted.push_back(body_.node(port.node).inputs[1]);
    for (const Node* product : output_products_) {
      if (product != nullptr) wanted.push_back(product->inputs[1]);
    }
    for (size_t i = states_ + input_axes_.size(); i < operands_.size(); ++i) outside_[operands_[i]] = inputs_[i];
    GW_RETURN_IF_ERROR(CopyNodes(body_, wanted, result_, outside_));
    for (size_t i = 0; i < input_axes_.size(); ++i) outside_[operands_[states_ + i]] = inputs_[states_ + i];
    for (Port port : input_products_) {
      const Node& product = body_.node(port.node);
      GW_ASSIGN_OR_RETURN(outside_[port], AddProduct(product, outside_.at(product.inputs[0])));
    }
    return absl::OkStatus();
  }

  // Adds the remaining loop, and returns its node.
  absl::StatusOr<NodeId> AddLoop() {
    Graph body;
    body.builder() = body_.builder();
    std::vector<Port> outer;
    std::vector<Value> operands;
    absl::flat_hash_map<Port, Port> places;
    auto add_operand = [&](Port port, Port outside) -> absl::Status {
      NodeId id;
      if (body_.node(port.node).op->kind == OpKind::kInput) {
        GW_ASSIGN_OR_RETURN(id, body.AddNodeLike(body_.node(port.node), {}));
      } else {
        size_t number = operands.size();
        while (body_.FindNamed(absl::StrCat("hoisted_", number)) >= 0) ++number;
        const TensorType& type = body_.type(port);
        const NamedAttribute attributes[] = {{"dtype", type.dtype}, {"shape", type.shape}};
        GW_ASSIGN_OR_RETURN(id, body.AddNode({.op = node_.op->registry->Find(OpKind::kInput),
                                              .attributes = attributes,
                                              .name = absl::StrCat("hoisted_", number),
                                              .location = node_.location}));
      }
      places[port] = Port{id, 0};
      operands.push_back(body.value(id));
      outer.push_back(outside);
      return absl::OkStatus();
    };
    Integers input_axes = input_axes_, output_axes;
    std::vector<Port> results;
    for (int i = 0; i < states_; ++i) {
      if (sums_[i] != nullptr) continue;
      GW_RETURN_IF_ERROR(add_operand(operands_[i], inputs_[i]));
      results.push_back(results_[i]);
    }
    const auto states = static_cast<int64_t>(results.size());
    for (size_t i = 0; i < input_axes_.size(); ++i) {
      GW_RETURN_IF_ERROR(add_operand(operands_[states_ + i], inputs_[states_ + i]));
    }
    for (Port port : input_products_) {
      GW_RETURN_IF_ERROR(add_operand(port, outside_.at(port)));
      input_axes.push_back(AxisOfInput(body_.node(port.node).inputs[0]));
    }
    for (size_t i = states_ + input_axes_.size(); i < operands_.size(); ++i) {
      GW_RETURN_IF_ERROR(add_operand(operands_[i], inputs_[i]));
    }
    for (Port port : moved_) GW_RETURN_IF_ERROR(add_operand(port, outside_.at(port)));
    for (const LoopOutput& output : outputs_) {
      results.push_back(output.port);
      output_axes.push_back(output.axis);
    }
    GW_RETURN_IF_ERROR(CopyNodes(body_, results, body, places));
    std::vector<Value> values;
    for (Port port : results) values.push_back(body.value(places.at(port)));
    body.SetOutput(kBodyOperands, operands);
    body.SetOutput(kBodyResults, values);
    absl::InlinedVector<AttributeValue, 1> attributes = node_.attributes;
    const NamedAttribute changed[] = {{"body", Body(std::make_shared<Graph>(std::move(body)))},
                                      {"states", states},
                                      {"input_axes", input_axes},
                                      {"output_axes", output_axes}};
    for (const auto& [name, value] : changed) attributes[node_.op->AttributeIndex(name)] = value;
    return result_.AddNode(node_.op, std::move(attributes), outer, node_.name, node_.device, node_.location);
  }

  absl::StatusOr<Ports> Rebuild() {
    GW_RETURN_IF_ERROR(AddBefore());
    const bool is_empty = outputs_.empty() && std::find(sums_.begin(), sums_.end(), nullptr) == sums_.end();
    NodeId loop = -1;
    if (!is_empty) {
      GW_ASSIGN_OR_RETURN(loop, AddLoop());
    }
    const auto states = static_cast<int>(std::count(sums_.begin(), sums_.end(), nullptr));
    auto stacked = [&](const Stack& stack) {
      return stack.is_input ? inputs_[states_ + stack.index] : Port{loop, states + stack.index};
    };
    Ports ports;
    int state = 0;
    for (int i = 0; i < states_; ++i) {
      if (sums_[i] == nullptr) {
        ports.push_back({loop, state++});
        continue;
      }
      std::vector<Port> operands;
      for (Port input : sums_[i]->inputs) operands.push_back(stacked(*FindStack(input, 0)));
      GW_ASSIGN_OR_RETURN(const Port sum, AddSum(*sums_[i], operands));
      GW_ASSIGN_OR_RETURN(ports.emplace_back(), Add(OpKind::kAdd, {inputs_[i], sum}, {}));
    }
    for (size_t k = 0; k < output_axes_.size(); ++k) {
      ports.push_back(stacked(output_place_[k]));
      if (output_products_[k] == nullptr) continue;
      GW_ASSIGN_OR_RETURN(ports.back(), AddProduct(*output_products_[k], ports.back()));
    }
    return ports;
  }

  // The sum of the node's results in all steps, from the slices of its operands along axis 0.
  absl::StatusOr<Port> AddSum(const Node& node, absl::Span<const Port> operands) {
    if (node.op->kind == OpKind::kMatMul) {
      Port rows[2];
      for (int i = 0; i < 2; ++i) {
        const Shape& shape = body_.type(node.inputs[i]).shape;
        GW_ASSIGN_OR_RETURN(
            rows[i], Add(OpKind::kReshape, {operands[i]}, {{"shape", Shape{Dim(length_) * shape[0], shape[1]}}}));
      }
      return Add(OpKind::kMatMul, {rows[0], rows[1]}, {{"transpose_a", true}, {"transpose_b", false}});
    }
    Integers axes = {0};
    for (int64_t axis : node.attribute<Integers>("axes")) axes.push_back(axis + 1);
    GW_ASSIGN_OR_RETURN(const Port sum, Add(OpKind::kSum, {operands[0]}, {{"axes", axes}, {"keep_dims", false}}));
    if (result_.type(sum) == node.outputs[0]) return sum;
    return Add(OpKind::kReshape, {sum}, {{"shape", node.outputs[0].shape}});
  }

  const Node& node_;
  const absl::Span<const Port> inputs_;
  Graph& result_;
  const Graph& body_;
  const int states_;
  const Integers &input_axes_, &output_axes_;
  const absl::Span<const Port> operands_, results_;
  int64_t length_ = 0;
  std::vector<bool> invariant_;               // Indexed by node of the body.
  absl::flat_hash_map<Port, int> uses_;       // The number of nodes and results that read the port.
  std::vector<LoopOutput> outputs_;           // Outputs of the loop that is left.
  std::vector<const Node*> output_products_;  // Indexed by output: the product that moves, or null.
  std::vector<Stack> output_place_;           // Indexed by output: its place, or the operand's.
  std::vector<const Node*> sums_;             // Indexed by state: the node that is summed, or null.
  std::vector<Port> moved_, input_products_;  // Values that are computed before the loop.
  absl::flat_hash_map<Port, Port> outside_;   // Ports of the body as ports of result_.
};

}  // namespace

absl::StatusOr<Graph> HoistFromLoops(const Graph& graph) {
  if (!HasBodies(graph)) return graph;
  return Rewrite(
      graph,
      [](const Node& node, absl::Span<const Port> inputs, Graph& result) -> absl::StatusOr<std::optional<Ports>> {
        if (!HasBody(node)) return std::nullopt;
        Node inner = node;
        for (AttributeValue& attribute : inner.attributes) {
          Body* const body = std::get_if<Body>(&attribute);
          if (body == nullptr || !HasBodies(**body)) continue;
          GW_ASSIGN_OR_RETURN(Graph hoisted, HoistFromLoops(**body));
          *body = std::make_shared<Graph>(std::move(hoisted));
        }
        if (inner.op->kind == OpKind::kScan) {
          GW_ASSIGN_OR_RETURN(std::optional<Ports> ports, LoopHoister(inner, inputs, result).Run());
          if (ports.has_value()) return ports;
        }
        GW_ASSIGN_OR_RETURN(const NodeId copy, result.AddNodeLike(inner, inputs));
        return result.node(copy).ports();
      });
}

}  // namespace gradweave
