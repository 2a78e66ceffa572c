#include "gradweave/frontend/onnx/exporter.h"

#include <optional>
#include <type_traits>

#include "absl/strings/ascii.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "gradweave/frontend/onnx/importer.h"
#include "gradweave/graph/body.h"
#include "gradweave/graph/check.h"
#include "gradweave/graph/status_macros.h"
#include "gradweave/graph/version.h"

namespace gradweave::onnx {
namespace {

constexpr int64_t kIrVersion = 8;

// ONNX's numbers of attribute types.
constexpr int32_t kFloatType = 1, kIntType = 2, kStringType = 3, kTensorType = 4, kGraphType = 5, kIntsType = 7;

void WriteTensor(const Tensor& tensor, proto::Tensor& message) {
  message.set_data_type(DTypeToOnnx(tensor.dtype()));
  for (const int64_t size : tensor.sizes()) message.add_dims(size);
  message.set_raw_data(tensor.raw_data(), tensor.byte_size());
}

void WriteAttribute(OnnxAttribute& attribute, proto::Attribute& message) {
  message.set_name(attribute.name);
  std::visit(
      [&](auto& value) {
        using T = std::decay_t<decltype(value)>;
        if constexpr (std::is_same_v<T, int64_t>) {
          message.set_type(kIntType);
          message.set_i(value);
        } else if constexpr (std::is_same_v<T, double>) {
          message.set_type(kFloatType);
          message.set_f(static_cast<float>(value));
        } else if constexpr (std::is_same_v<T, std::string>) {
          message.set_type(kStringType);
          message.set_s(value);
        } else if constexpr (std::is_same_v<T, Integers>) {
          message.set_type(kIntsType);
          for (const int64_t number : value) message.add_ints(number);
        } else if constexpr (std::is_same_v<T, Tensor>) {
          message.set_type(kTensorType);
          WriteTensor(value, *message.mutable_t());
        } else {
          message.set_type(kGraphType);
          message.mutable_g()->Swap(&value);
        }
      },
      attribute.value);
}

bool Take(absl::string_view& text, absl::string_view prefix) {
  if (text.substr(0, prefix.size()) != prefix) return false;
  text.remove_prefix(prefix.size());
  return true;
}

// Takes the longest start of characters that a name or a number may have.
absl::string_view TakeWord(absl::string_view& text) {
  size_t size = 0;
  while (size < text.size() && (absl::ascii_isalnum(static_cast<unsigned char>(text[size])) || text[size] == '_' ||
                                text[size] == '.' || (size == 0 && text[size] == '-')))
    ++size;
  const absl::string_view word = text.substr(0, size);
  text.remove_prefix(size);
  return word;
}

}  // namespace

const std::vector<absl::Span<const ExportRow>>& AllForms() {
  static const auto* const forms = new std::vector<absl::Span<const ExportRow>>{
      ElementwiseForms(), ShapeForms(), IndexingForms(), MathForms(), WindowForms(), ControlForms(), QuantizedForms()};
  return *forms;
}

const ExportRow* FindForm(absl::string_view op) {
  static const auto* const by_name = [] {
    auto* rows = new absl::flat_hash_map<std::string, const ExportRow*>();
    for (const absl::Span<const ExportRow> family : AllForms()) {
      for (const ExportRow& row : family) GW_CHECK(rows->emplace(row.op, &row).second, row.op);
    }
    return rows;
  }();
  const auto found = by_name->find(op);
  return found == by_name->end() ? nullptr : found->second;
}

absl::Status Refused(Exporter& exporter, const Node& node) {
  return exporter.Refuse(node, FindForm(node.op->name)->form);
}

Exporter::Exporter(const Model& model, const ExportOptions& options)
    : model_(model), options_(options), out_(file_.mutable_graph()), top_{&model.graph} {
  for (const auto& [name, value] : model.variables) values_[name] = &value;
  file_.set_ir_version(kIrVersion);
  file_.set_producer_name("gradweave");
  file_.set_producer_version(kVersion);
  file_.add_opset_import()->set_version(options.opset);
  file_.mutable_opset_import(0)->set_domain("");
  out_->set_name("gradweave");
}

absl::Status Exporter::Refuse(const Node& node, absl::string_view why) const {
  return absl::UnimplementedError(
      absl::StrCat("node '", node.display_name(), "' (", node.op->name, ") cannot be exported: ", why));
}

std::string Exporter::NewName(absl::string_view base) {
  for (;;) {
    std::string name = absl::StrCat(base, "_", next_++);
    if (taken_.insert(name).second) return name;
  }
}

Exporter::Names Exporter::Operands(const Node& node) const {
  Names names;
  for (const Port input : node.inputs) names.push_back(at_->names.at(input));
  return names;
}

DType Exporter::ComputeType(const Node& node, int operand) const {
  const DType dtype = In(node, operand).dtype;
  return widened_ && dtype == kUint8 ? kInt32 : dtype;
}

Exporter::Names Exporter::AddMany(absl::string_view op, const Names& inputs, int results,
                                  std::vector<OnnxAttribute> attributes) {
  proto::Node& node = *out_->add_node();
  node.set_op_type(std::string(op));
  for (const std::string& input : inputs) node.add_input(input);
  for (OnnxAttribute& attribute : attributes) WriteAttribute(attribute, *node.add_attribute());
  Names names;
  for (int i = 0; i < results; ++i) {
    names.push_back(NewName(op));
    node.add_output(names.back());
  }
  node.set_name(names.front());
  return names;
}

std::string Exporter::Add(absl::string_view op, const Names& inputs, std::vector<OnnxAttribute> attributes) {
  return AddMany(op, inputs, 1, std::move(attributes))[0];
}

void Exporter::Set(const Node& node, std::string name, int output) {
  const Port port{node.id, output};
  if (widened_ && at_->graph->type(port).dtype == kUint8) name = CastTo(name, kUint8);
  // The last node gives the output of the file its name.
  const auto wanted = at_->graph == &model_.graph ? output_names_.find(port) : output_names_.end();
  proto::Node* const last = out_->node_size() == 0 ? nullptr : out_->mutable_node(out_->node_size() - 1);
  for (int i = 0; wanted != output_names_.end() && last != nullptr && i < last->output_size(); ++i) {
    if (last->output(i) != name) continue;
    last->set_output(i, wanted->second);
    name = wanted->second;
  }
  at_->names[port] = std::move(name);
}

void Exporter::Place(absl::string_view op, const Node& node, std::vector<OnnxAttribute> attributes) {
  Set(node, Add(op, Operands(node), std::move(attributes)));
}

std::string Exporter::Constant(const Tensor& value) { return Add("Constant", {}, {{"value", value}}); }

std::string Exporter::List(const Integers& numbers) {
  return Constant(Tensor::Of<int64_t>({static_cast<int64_t>(numbers.size())}, absl::Span<const int64_t>(numbers)));
}

std::string Exporter::CastTo(const std::string& value, DType dtype) {
  return Add("Cast", {value}, {{"to", int64_t{DTypeToOnnx(dtype)}}});
}

// term := number | name | Op "(" term {", " term} ")".
std::string Exporter::Term(absl::string_view& text, const Node& node, std::map<std::string, std::string>& names) {
  const std::string word(TakeWord(text));
  if (Take(text, "(")) {
    Names operands;
    do {
      operands.push_back(Term(text, node, names));
    } while (Take(text, ", "));
    GW_CHECK(Take(text, ")"), text);
    // Mod without the attribute has the sign of the divisor.
    if (word == "Fmod") return Add("Mod", operands, {{"fmod", int64_t{1}}});
    return Add(word, operands);
  }
  if (const auto known = names.find(word); known != names.end()) return known->second;
  double number = 0;
  if (!absl::SimpleAtod(word, &number)) number = node.attribute<double>(word);
  return names[word] = Number(ComputeType(node), number);
}

std::string Exporter::Compose(absl::string_view text, const Node& node) {
  std::map<std::string, std::string> names;
  const Names operands = Operands(node);
  for (size_t i = 0; i < operands.size(); ++i) names[std::string(1, static_cast<char>('a' + i))] = operands[i];
  for (;;) {
    const size_t assigns = text.find(" = "), ends = text.find("; ");
    if (ends == absl::string_view::npos) break;
    const std::string name(text.substr(0, assigns));
    text.remove_prefix(assigns + 3);
    std::string value = Term(text, node, names);
    names[name] = std::move(value);
    GW_CHECK(Take(text, "; "), text);
  }
  std::string value = Term(text, node, names);
  GW_CHECK(text.empty(), text);
  return value;
}

void Exporter::WriteType(const TensorType& type, const std::string& name, proto::ValueInfo& info) const {
  info.set_name(name);
  proto::Type::Tensor& tensor = *info.mutable_type()->mutable_tensor_type();
  tensor.set_elem_type(DTypeToOnnx(type.dtype));
  tensor.mutable_shape();
  for (const Dim& dim : type.shape) {
    proto::Dimension& size = *tensor.mutable_shape()->add_dim();
    if (dim.is_known()) {
      size.set_dim_value(dim.size());
    } else {
      size.set_dim_param(dim.ToString());
    }
  }
}

void Exporter::WriteInput(const Node& node) {
  if (!written_inputs_.insert(node.id).second) return;
  WriteType(node.outputs[0], node.name, *file_.mutable_graph()->add_input());
}

absl::Status Exporter::WriteVariable(const Node& node) {
  const auto value = values_.find(node.name);
  if (value == values_.end()) {
    return absl::InvalidArgumentError(absl::StrCat("variable '", node.name, "' has no value in the model"));
  }
  proto::Tensor& tensor = *file_.mutable_graph()->add_initializer();
  tensor.set_name(node.name);
  WriteTensor(*value->second, tensor);
  // A variable that the file assigns is an input too, whose value a run may replace.
  if (assigned_.contains(node.id)) WriteType(node.outputs[0], node.name, *file_.mutable_graph()->add_input());
  return absl::OkStatus();
}

absl::Status Exporter::WriteNode(const Node& node) {
  for (const TensorType& type : node.outputs) {
    if (DTypeToOnnx(type.dtype) == 0)
      return Refuse(node, absl::StrCat("the dtype ", DTypeName(type.dtype), " is not exported"));
  }
  switch (node.op->kind) {
    case OpKind::kInput:
      WriteInput(node);
      return absl::OkStatus();
    case OpKind::kVariable:
      return WriteVariable(node);
    case OpKind::kConstant:
      Set(node, Constant(node.attribute<Tensor>("value")));
      return absl::OkStatus();
    default:
      break;
  }
  const ExportRow* const row = FindForm(node.op->name);
  if (row == nullptr) return Refuse(node, "ONNX has no such op");
  if (options_.opset < row->since)
    return Refuse(node, absl::StrCat("ONNX has its form from opset ", row->since, " on"));
  std::map<Port, std::string> narrow;
  for (const Port input : node.inputs) {
    if (row->widens && at_->graph->type(input).dtype == kUint8) narrow[input] = at_->names.at(input);
  }
  widened_ = !narrow.empty();
  for (const auto& [port, name] : narrow) at_->names[port] = CastTo(name, kInt32);
  absl::Status status;
  if (row->write != nullptr) {
    status = row->write(*this, node);
  } else if (absl::string_view(row->form).find('(') != absl::string_view::npos) {
    Set(node, Compose(row->form, node));
  } else {
    Place(row->form, node);
  }
  widened_ = false;
  for (auto& [port, name] : narrow) at_->names[port] = std::move(name);
  return status;
}

std::vector<bool> Exporter::Needed(const Graph& graph, absl::Span<const Port> ports, std::set<Port>& used) {
  std::vector<bool> needed(static_cast<size_t>(graph.num_nodes()));
  for (const Port port : ports) {
    needed[static_cast<size_t>(port.node)] = true;
    used.insert(port);
  }
  for (NodeId id = graph.num_nodes() - 1; id >= 0; --id) {
    const Node& node = graph.node(id);
    // Initial values of variables are not written.
    if (!needed[static_cast<size_t>(id)] || node.op->kind == OpKind::kVariable) continue;
    for (const Port input : node.inputs) {
      needed[static_cast<size_t>(input.node)] = true;
      used.insert(input);
    }
  }
  return needed;
}

absl::Status Exporter::Run(const NamedValues& outputs) {
  const Graph& graph = model_.graph;
  std::vector<Port> ports;
  for (const auto& [name, value] : outputs) {
    const Port port = value.port();
    if (!value.valid() || !graph.Exists(port) || graph.node(port.node).serial != value.serial()) {
      return absl::InvalidArgumentError(absl::StrCat("output '", name, "' is not a value of the model's graph"));
    }
    if (name.empty() || !taken_.insert(name).second) {
      return absl::InvalidArgumentError(absl::StrCat("the name '", name, "' of an output is empty or taken"));
    }
    ports.push_back(port);
    output_names_.emplace(port, name);
  }
  const std::vector<bool> needed = Needed(graph, ports, top_.used);
  for (const Node& node : graph.nodes()) {
    const bool is_needed = needed[static_cast<size_t>(node.id)];
    if (is_needed && node.op->kind == OpKind::kAssign) assigned_.insert(node.inputs[0].node);
    // Other inputs may be needed for their sizes.
    if (node.op->kind != OpKind::kInput && !(is_needed && node.op->kind == OpKind::kVariable)) continue;
    if (taken_.insert(node.name).second) {
      top_.names[{node.id, 0}] = node.name;
    } else if (is_needed) {
      return absl::InvalidArgumentError(
          absl::StrCat("the name '", node.name, "' of an output is that of an input or a variable"));
    }
  }
  for (const Node& node : graph.nodes()) {
    if (needed[static_cast<size_t>(node.id)]) GW_RETURN_IF_ERROR(WriteNode(node));
  }
  for (const auto& [name, value] : outputs) {
    const std::string& written = top_.names.at(value.port());
    if (written != name) {
      proto::Node& node = *out_->add_node();
      node.set_op_type("Identity");
      node.set_name(name);
      node.add_input(written);
      node.add_output(name);
    }
    WriteType(value.type(), name, *out_->add_output());
  }
  return absl::OkStatus();
}

absl::StatusOr<Exporter::Names> Exporter::Inline(const Graph& body, const Names& operands) {
  Level level{&body};
  Level* const outer = at_;
  const absl::Span<const Port> inputs = BodyPorts(body, kBodyOperands), results = BodyPorts(body, kBodyResults);
  for (size_t i = 0; i < inputs.size(); ++i) level.names[inputs[i]] = operands[i];
  const std::vector<bool> needed = Needed(body, results, level.used);
  at_ = &level;
  absl::Status status;
  for (const Node& node : body.nodes()) {
    if (status.ok() && needed[static_cast<size_t>(node.id)] && node.op->kind != OpKind::kInput)
      status = WriteNode(node);
  }
  at_ = outer;
  GW_RETURN_IF_ERROR(status);
  Names names;
  for (const Port port : results) names.push_back(level.names.at(port));
  return names;
}

absl::StatusOr<proto::Graph> Exporter::NewBody(absl::Span<const TensorType> inputs,
                                               absl::Span<const TensorType> results,
                                               absl::FunctionRef<absl::StatusOr<Names>(const Names&)> build) {
  proto::Graph graph;
  graph.set_name(NewName("body"));
  proto::Graph* const outer = out_;
  out_ = &graph;
  Names operands;
  for (const TensorType& type : inputs) {
    operands.push_back(NewName("operand"));
    WriteType(type, operands.back(), *graph.add_input());
  }
  absl::StatusOr<Names> names = build(operands);
  // The results of a body have to be different values of its nodes.
  std::set<std::string> given;
  for (const proto::Node& node : graph.node()) given.insert(node.output().begin(), node.output().end());
  for (size_t i = 0; names.ok() && i < results.size(); ++i) {
    std::string& name = (*names)[i];
    if (given.erase(name) == 0) name = Add("Identity", {name});
    WriteType(results[i], name, *graph.add_output());
  }
  out_ = outer;
  GW_RETURN_IF_ERROR(names.status());
  return graph;
}

Exporter::Names Exporter::AddScan(Names states, const Names& inputs, proto::Graph body, const Integers& input_axes,
                                  const Integers& output_axes, bool reverse) {
  const auto results = static_cast<int>(states.size() + output_axes.size());
  states.insert(states.end(), inputs.begin(), inputs.end());
  const int64_t direction = reverse ? 1 : 0;
  return AddMany("Scan", states, results,
                 {{"body", std::move(body)},
                  {"num_scan_inputs", static_cast<int64_t>(inputs.size())},
                  {"scan_input_axes", input_axes},
                  {"scan_input_directions", Integers(input_axes.size(), direction)},
                  {"scan_output_axes", output_axes},
                  {"scan_output_directions", Integers(output_axes.size(), direction)}});
}

// ---- Sizes ----

absl::StatusOr<std::string> Exporter::Symbol(const Node& node, const std::string& symbol) {
  const Dim dim{absl::string_view(symbol)};
  for (const bool written : {true, false}) {
    for (const Node& input : model_.graph.nodes()) {
      if (input.op->kind != OpKind::kInput || (written && !written_inputs_.contains(input.id))) continue;
      if (!top_.names.contains({input.id, 0})) continue;  // An output has its name.
      const Shape& sizes = input.outputs[0].shape;
      for (int axis = 0; axis < sizes.rank(); ++axis) {
        if (!(sizes[axis] == dim)) continue;
        WriteInput(input);
        return Add("Gather", {Add("Shape", {input.name}), List({axis})});
      }
    }
  }
  return Refuse(node, absl::StrCat("no input has the size ", symbol));
}

// Both parse what Dim::ToString writes: products of symbols, numbers and floor((sum)/number), and
// sums of them.
absl::StatusOr<std::string> Exporter::DimProduct(const Node& node, absl::string_view& text) {
  std::string product;
  do {
    std::string factor;
    if (Take(text, "floor((")) {
      GW_ASSIGN_OR_RETURN(const std::string numerator, DimSum(node, text));
      GW_CHECK(Take(text, ")/"), text);
      int64_t divisor = 0;
      GW_CHECK(absl::SimpleAtoi(TakeWord(text), &divisor) && Take(text, ")"), text);
      // Sizes are not negative, so rounding down and toward zero are the same.
      factor = Add("Div", {numerator, List({divisor})});
    } else {
      const std::string word(TakeWord(text));
      int64_t number = 0;
      if (absl::SimpleAtoi(word, &number)) {
        factor = List({number});
      } else {
        GW_ASSIGN_OR_RETURN(factor, Size(node, Dim(absl::string_view(word))));
      }
    }
    product = product.empty() ? factor : Add("Mul", {product, factor});
  } while (Take(text, "*"));
  return product;
}

absl::StatusOr<std::string> Exporter::DimSum(const Node& node, absl::string_view& text) {
  std::string sum;
  if (Take(text, "-")) {
    GW_ASSIGN_OR_RETURN(const std::string first, DimProduct(node, text));
    sum = Add("Sub", {List({0}), first});
  } else {
    GW_ASSIGN_OR_RETURN(sum, DimProduct(node, text));
  }
  for (;;) {
    const bool minus = Take(text, " - ");
    if (!minus && !Take(text, " + ")) return sum;
    GW_ASSIGN_OR_RETURN(const std::string next, DimProduct(node, text));
    sum = Add(minus ? "Sub" : "Add", {sum, next});
  }
}

absl::StatusOr<std::string> Exporter::Size(const Node& node, const Dim& dim) {
  if (dim.is_known()) return List({dim.size()});
  const std::string text = dim.ToString();
  if (const auto known = sizes_.find(text); known != sizes_.end()) return known->second;
  // Bodies see the values of the graph around them, but not each other's values.
  proto::Graph* const inner = out_;
  out_ = file_.mutable_graph();
  const std::optional<std::string> symbol = dim.AsSymbol();
  absl::string_view rest = text;
  absl::StatusOr<std::string> size = symbol.has_value() ? Symbol(node, *symbol) : DimSum(node, rest);
  out_ = inner;
  if (size.ok()) sizes_[text] = *size;
  return size;
}

absl::StatusOr<std::string> Exporter::Sizes(const Node& node, const Shape& shape) {
  Names parts;
  Integers known;
  auto flush = [&] {
    if (!known.empty()) parts.push_back(List(known));
    known.clear();
  };
  for (const Dim& dim : shape) {
    if (dim.is_known()) {
      known.push_back(dim.size());
      continue;
    }
    GW_ASSIGN_OR_RETURN(const std::string size, Size(node, dim));
    flush();
    parts.push_back(size);
  }
  flush();
  if (parts.empty()) return List({});
  if (parts.size() == 1) return parts[0];
  return Add("Concat", parts, {{"axis", int64_t{0}}});
}

absl::StatusOr<std::string> Exporter::Reshaped(const Node& node, const std::string& value, const Shape& shape) {
  int symbols = 0;
  bool empty = false;
  Integers sizes;
  for (const Dim& dim : shape) {
    symbols += dim.is_known() ? 0 : 1;
    empty |= dim == Dim(0);
    sizes.push_back(dim.is_known() ? dim.size() : -1);
  }
  // One unknown size follows from the others, unless one of them is 0.
  std::string target;
  if (symbols <= 1 && !(empty && symbols == 1)) {
    target = List(sizes);
  } else {
    GW_ASSIGN_OR_RETURN(target, Sizes(node, shape));
  }
  return Add("Reshape", {value, target}, {{"allowzero", int64_t{1}}});
}

absl::StatusOr<std::string> Exporter::Spread(const Node& node, const std::string& value, const Shape& shape) {
  GW_ASSIGN_OR_RETURN(const std::string sizes, Sizes(node, shape));
  return Add("Expand", {value, sizes});
}

}  // namespace gradweave::onnx
