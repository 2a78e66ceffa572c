#include "gradweave/graph/graph.h"

#include <algorithm>
#include <atomic>
#include <limits>
#include <set>
#include <string>
#include <utility>
#include <variant>

#include "absl/strings/ascii.h"
#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "gradweave/graph/check.h"
#include "gradweave/graph/out_of_memory.h"

namespace gradweave {
namespace {

// Formats operand types with the operands' declared names: "x: float32[2,3], bias: float32[3]".
std::string DescribeOperands(const OpDefinition& op, absl::Span<const TensorType> operands) {
  std::string text;
  for (size_t i = 0; i < operands.size(); ++i) {
    const size_t known = std::min(i, op.operands.empty() ? 0 : op.operands.size() - 1);
    absl::StrAppend(&text, i == 0 ? "" : ", ", op.operands.empty() ? "operand" : op.operands[known].name, ": ",
                    operands[i].ToString());
  }
  return text;
}

absl::Status WithContext(const absl::Status& status, const OpDefinition& op, absl::Span<const TensorType> operands,
                         absl::string_view name, SourceLocation location) {
  std::string message(status.message());
  if (!operands.empty()) absl::StrAppend(&message, "; operands are (", DescribeOperands(op, operands), ")");
  if (!name.empty()) absl::StrAppend(&message, ", node '", absl::Utf8SafeCHexEscape(name), "'");
  if (location.file != nullptr) absl::StrAppend(&message, " at ", ToString(location));
  return absl::Status(status.code(), message);
}

absl::Status CheckOperands(const OpView& view) {
  const OpDefinition& op = view.op();
  const size_t given = view.operands().size();
  size_t least = 0, most = op.operands.size();
  for (const OperandDefinition& operand : op.operands) {
    if (operand.arity != OperandDefinition::kOptional) ++least;
    if (operand.arity == OperandDefinition::kVariadic) most = std::numeric_limits<size_t>::max();
  }
  if (given < least || given > most) {
    return view.Error("takes ", most == least ? "" : "at least ", least, least == 1 ? " operand" : " operands", " (",
                      absl::StrJoin(op.operands, ", ", [](std::string* out, const auto& o) { out->append(o.name); }),
                      "), and was given ", given);
  }
  for (size_t i = 0; i < given; ++i) {
    const OperandDefinition& operand = op.operands[std::min(i, op.operands.size() - 1)];
    if (!op.Takes(std::min(i, op.operands.size() - 1), view.dtype(i))) {
      return view.Error(
          "operand ", i, " (", operand.name, ") is ", DTypeName(view.dtype(i)), " and has to be ",
          operand.dtypes.ToString(), "; Cast converts",
          kComputed.Contains(view.dtype(i)) || IsHalf(view.dtype(i)) ? "" : ": this dtype only stores numbers");
    }
    if (op.same_dtypes && view.dtype(i) != view.dtype(0)) {
      return view.Error("operands have different dtypes, ", DTypeName(view.dtype(0)), " and ", DTypeName(view.dtype(i)),
                        ", and have to have the same one; Cast converts");
    }
  }
  return absl::OkStatus();
}

// Symbols come from shape attributes. Files and messages write them, so they must be valid names.
absl::Status CheckSymbols(const OpView& view, absl::string_view attribute, const AttributeValue& value) {
  const Shape* shape = std::get_if<Shape>(&value);
  if (shape == nullptr || shape->is_static()) return absl::OkStatus();
  std::set<std::string> symbols;
  shape->CollectSymbols(symbols);
  for (const std::string& symbol : symbols) {
    if (!IsSymbolName(symbol)) {
      return view.Error("the attribute '", attribute, "' has the symbol '", absl::Utf8SafeCHexEscape(symbol),
                        "'; a symbol has letters, digits and _, and does not begin with a digit");
    }
  }
  return absl::OkStatus();
}

absl::Status CheckOutputs(const OpView& view, const TensorTypes& outputs) {
  // Larger tensors fit in no memory. Sums and products of smaller sizes do not overflow.
  constexpr int64_t kMostElements = int64_t{1} << 48;
  // Shape inference of some ops takes time that is quadratic in the number of axes.
  constexpr int kMostAxes = 255;
  for (const TensorType& type : outputs) {
    if (type.shape.rank() > kMostAxes) {
      return view.Error("the output would have ", type.shape.rank(), " axes; a tensor has at most ", kMostAxes);
    }
    int64_t elements = 1;
    for (const Dim& dim : type.shape) {
      if (!dim.is_known()) continue;
      if (dim.size() < 0) return view.Error("the output would have a negative dimension: ", type.ToString());
      if (__builtin_mul_overflow(elements, std::max<int64_t>(dim.size(), 1), &elements) || elements > kMostElements) {
        return view.Error("the output would have more than 2^48 elements: ", type.ToString());
      }
    }
  }
  return absl::OkStatus();
}

}  // namespace

std::string Node::display_name() const {
  return name.empty() ? absl::StrCat(absl::AsciiStrToLower(op->name), "_", id) : name;
}

Ports Node::ports() const {
  Ports ports;
  for (size_t i = 0; i < outputs.size(); ++i) ports.push_back({id, static_cast<int32_t>(i)});
  return ports;
}

Value::Value(Graph* graph, Port port)
    : graph_(graph), port_(port), serial_(port.node < 0 ? 0 : graph->node(port.node).serial) {}

const TensorType& Value::type() const {
  static const TensorType* const none = new TensorType();
  return valid() ? graph_->type(port_) : *none;
}

const Node& Value::node() const {
  GW_CHECK(valid(), "the value of a failed builder call has no node");
  return graph_->node(port_.node);
}

Graph::Graph() = default;
Graph::Graph(const Graph&) = default;
Graph::Graph(Graph&&) noexcept(false) = default;
Graph& Graph::operator=(const Graph&) = default;
Graph& Graph::operator=(Graph&&) noexcept(false) = default;
Graph::~Graph() = default;

TensorTypes Graph::OperandTypes(const Node& node) const {
  TensorTypes types;
  types.reserve(node.inputs.size());
  for (Port input : node.inputs) types.push_back(type(input));
  return types;
}

bool Graph::Exists(Port port) const {
  return port.node >= 0 && port.node < num_nodes() && port.output >= 0 &&
         port.output < static_cast<int>(node(port.node).outputs.size());
}

absl::StatusOr<NodeId> Graph::AddNode(const NewNode& node) try {
  const OpDefinition& op = *node.op;
  absl::InlinedVector<AttributeValue, 1> attributes(op.attributes.size());
  absl::InlinedVector<bool, 8> given(op.attributes.size(), false);
  for (const auto& [name, value] : node.attributes) {
    const int index = op.AttributeIndex(name);
    if (index < 0) return absl::InvalidArgumentError(absl::StrCat(op.name, ": there is no attribute '", name, "'"));
    attributes[index] = value;
    given[index] = true;
  }
  for (size_t i = 0; i < given.size(); ++i) {
    if (given[i]) continue;
    if (!op.attributes[i].default_value.has_value()) {
      return absl::InvalidArgumentError(
          absl::StrCat(op.name, ": the attribute '", op.attributes[i].name, "' has to be given"));
    }
    attributes[i] = *op.attributes[i].default_value;
  }
  // Inference sees types alone. Passes may put another source in the place of a variable.
  if ((op.kind == OpKind::kInput || op.kind == OpKind::kVariable) && node.name.empty()) {
    return WithContext(
        absl::InvalidArgumentError(absl::StrCat(op.name, " has no name, and runs and files find it by name")), op, {},
        "", node.location);
  }
  if (op.kind == OpKind::kAssign && !node.inputs.empty()) {
    const NodeId variable = node.inputs[0].node;
    if (variable < 0 || variable >= num_nodes() || this->node(variable).op->kind != OpKind::kVariable) {
      TensorTypes operands;
      for (Port input : node.inputs) operands.push_back(Exists(input) ? type(input) : TensorType());
      return WithContext(
          absl::InvalidArgumentError(absl::StrCat(op.name, ": operand 0 has to be the value of a Variable node")), op,
          operands, node.name, node.location);
    }
  }
  return AddNode(node.op, std::move(attributes), node.inputs, node.name, node.device, node.location);
}
GW_CATCH_OUT_OF_MEMORY("AddNode")

absl::StatusOr<NodeId> Graph::AddNode(const OpDefinition* op, absl::InlinedVector<AttributeValue, 1> attributes,
                                      absl::Span<const Port> inputs, absl::string_view name, absl::string_view device,
                                      SourceLocation location) try {
  TensorTypes operands;
  operands.reserve(inputs.size());
  for (Port input : inputs) {
    if (!Exists(input)) {
      return absl::InvalidArgumentError(
          absl::StrCat(op->name, ": operand ", operands.size(), " is not a value of the graph"));
    }
    operands.push_back(type(input));
  }
  if (num_nodes() == std::numeric_limits<NodeId>::max()) {
    return absl::ResourceExhaustedError("a graph cannot have more than 2^31 - 1 nodes");
  }
  const OpView view(*op, attributes, operands);
  auto infer = [&]() -> absl::StatusOr<TensorTypes> {
    if (attributes.size() != op->attributes.size()) {
      return view.Error("has ", op->attributes.size(), " attributes, and was given ", attributes.size());
    }
    for (size_t i = 0; i < attributes.size(); ++i) {
      const AttributeDefinition& definition = op->attributes[i];
      if (TypeOf(attributes[i]) != definition.type) {
        return view.Error("the attribute '", definition.name, "' has to be a ", AttributeTypeName(definition.type),
                          ", and was given a ", AttributeTypeName(TypeOf(attributes[i])));
      }
      GW_RETURN_IF_ERROR(CheckSymbols(view, definition.name, attributes[i]));
    }
    if (std::any_of(name.begin(), name.end(),
                    [](char c) { return absl::ascii_iscntrl(static_cast<unsigned char>(c)); })) {
      return view.Error("the name '", absl::Utf8SafeCHexEscape(name), "' has a control character");
    }
    GW_RETURN_IF_ERROR(CheckOperands(view));
    GW_ASSIGN_OR_RETURN(TensorTypes outputs, op->infer(view));
    GW_RETURN_IF_ERROR(CheckOutputs(view, outputs));
    return outputs;
  };
  absl::StatusOr<TensorTypes> outputs = infer();
  if (!outputs.ok()) return WithContext(outputs.status(), *op, operands, name, location);

  // Feeds, checkpoints and state look up inputs and variables by name, so names must be unique.
  const bool is_named = (op->kind == OpKind::kInput || op->kind == OpKind::kVariable) && !name.empty();
  if (is_named && named_.contains(name)) {
    return WithContext(absl::InvalidArgumentError(absl::StrCat(op->name, ": the name is taken")), *op, operands, name,
                       location);
  }
  // All memory is allocated before the graph changes.
  if (is_named) named_.reserve(named_.size() + 1);
  Node node;
  static std::atomic<uint64_t> serial = 0;
  node.id = num_nodes();
  node.serial = ++serial;
  node.op = op;
  node.attributes = std::move(attributes);
  node.inputs.assign(inputs.begin(), inputs.end());
  node.outputs = *std::move(outputs);
  node.name = std::string(name);
  node.device = std::string(device);
  node.location = location;
  std::string key = node.name;
  nodes_.push_back(std::move(node));
  if (is_named) named_.emplace(std::move(key), nodes_.back().id);
  return nodes_.back().id;
}
GW_CATCH_OUT_OF_MEMORY("AddNode")

NodeId Graph::FindNamed(absl::string_view name) const {
  auto found = named_.find(name);
  return found == named_.end() ? -1 : found->second;
}

void Graph::SetOutput(absl::string_view name, absl::Span<const Value> values) {
  std::vector<Port> ports;
  for (const Value& value : values) {
    if (!value.valid() || value.graph() != this) {
      RecordError(absl::InvalidArgumentError(absl::StrCat("output '", name, "' is not a value of this graph")));
      return;
    }
    ports.push_back(value.port());
  }
  outputs_[std::string(name)] = std::move(ports);
}

std::vector<Value> Graph::Output(absl::string_view name) {
  std::vector<Value> values;
  if (auto found = outputs_.find(name); found != outputs_.end()) {
    for (Port port : found->second) values.push_back(value(port));
  }
  return values;
}

void Graph::RecordError(absl::Status error) { status_.Update(std::move(error)); }

const char* Graph::Intern(absl::string_view text) {
  if (interned_ == nullptr) interned_ = std::make_shared<std::set<std::string>>();
  return interned_->emplace(text).first->c_str();
}

std::optional<DType> FloatingDTypeOf(const Graph& graph, const Node& node) {
  std::optional<DType> dtype;
  auto accept = [&](const TensorType& type) {
    if (type.dtype == kBool) return true;
    if (!kFloating.Contains(type.dtype) || (dtype.has_value() && *dtype != type.dtype)) return false;
    dtype = type.dtype;
    return true;
  };
  const TensorTypes operands = graph.OperandTypes(node);
  const bool all = std::all_of(operands.begin(), operands.end(), accept) &&
                   std::all_of(node.outputs.begin(), node.outputs.end(), accept);
  return all ? dtype : std::nullopt;
}

std::string ToString(SourceLocation location) {
  return location.file == nullptr ? "unknown line" : absl::StrCat(location.file, ":", location.line);
}

std::string DescribeNode(const Graph& graph, const Node& node) {
  std::string text = absl::StrCat(node.op->name, "(", DescribeOperands(*node.op, graph.OperandTypes(node)), ")");
  if (!node.name.empty()) absl::StrAppend(&text, " '", node.name, "'");
  if (node.location.file != nullptr) absl::StrAppend(&text, " at ", ToString(node.location));
  return text;
}

}  // namespace gradweave
