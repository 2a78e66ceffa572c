#include "gradweave/frontend/onnx/export.h"

#include <algorithm>
#include <cstring>
#include <limits>
#include <map>
#include <optional>
#include <set>

#include "absl/container/flat_hash_map.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "gradweave/frontend/onnx/importer.h"
#include "gradweave/graph/body.h"
#include "gradweave/graph/out_of_memory.h"
#include "gradweave/graph/passes/bodies.h"
#include "gradweave/graph/status_macros.h"
#include "gradweave/graph/version.h"
#include "gradweave/ops/attention.h"
#include "gradweave/proto/onnx.pb.h"
#include "gradweave/runtime/model_file/file_pair.h"

namespace gradweave::onnx {
namespace {

constexpr int64_t kLeastOpset = 17, kMostOpset = 20;
constexpr int64_t kIrVersion = 8;

// ONNX's numbers of attribute types.
constexpr int32_t kFloatType = 1, kIntType = 2, kStringType = 3, kTensorType = 4, kIntsType = 7;

class Exporter;
using WriteFunction = absl::Status (*)(Exporter& exporter, const Node& node);

// The form of an op in ONNX: an op with the same operands and no attributes, or a function that
// writes it.
struct ExportRow {
  const char* op;
  const char* onnx;
  WriteFunction write = nullptr;
};
const ExportRow* FindExport(absl::string_view op);

class Exporter {
 public:
  Exporter(const Model& model, const ExportOptions& options) : model_(model), graph_(model.graph), options_(options) {
    for (const auto& [name, value] : model.variables) values_[name] = &value;
    file_.set_ir_version(kIrVersion);
    file_.set_producer_name("gradweave");
    file_.set_producer_version(kVersion);
    file_.add_opset_import()->set_version(options.opset);
    file_.mutable_opset_import(0)->set_domain("");
    file_.mutable_graph()->set_name("gradweave");
  }

  absl::Status Run(const NamedValues& outputs);
  const proto::Model& file() const { return file_; }

  int64_t opset() const { return options_.opset; }
  const TensorType& Type(Port port) const { return graph_.type(port); }
  const TensorType& In(const Node& node, int i) const { return graph_.type(node.inputs[static_cast<size_t>(i)]); }
  const std::string& Name(Port port) const { return names_.at(port); }
  // True if an output or a node that is written reads the port.
  bool Uses(Port port) const { return used_.contains(port); }
  std::string NewName(absl::string_view base) {
    for (;;) {
      std::string name = absl::StrCat(base, "_", next_++);
      if (taken_.insert(name).second) return name;
    }
  }

  // Adds an ONNX node. The result has this name, or a new one.
  proto::Node& Add(absl::string_view op, const std::vector<std::string>& inputs, std::string output) {
    proto::Node& node = *file_.mutable_graph()->add_node();
    node.set_op_type(std::string(op));
    node.set_name(output);
    for (const std::string& input : inputs) node.add_input(input);
    node.add_output(std::move(output));
    return node;
  }
  // A node in the place of this one, with its operands.
  proto::Node& Place(absl::string_view op, const Node& node) {
    std::vector<std::string> inputs;
    for (const Port input : node.inputs) inputs.push_back(Name(input));
    return Add(op, inputs, Name({node.id, 0}));
  }
  std::string Constant(const Tensor& value);
  std::string Integers1D(const Integers& numbers) {
    return Constant(Tensor::Of<int64_t>({static_cast<int64_t>(numbers.size())}, absl::Span<const int64_t>(numbers)));
  }
  // The name of an int64 tensor with these sizes.
  absl::StatusOr<std::string> Sizes(const Node& node, const Shape& shape);

  absl::Status Refuse(const Node& node, absl::string_view why) const {
    return absl::UnimplementedError(
        absl::StrCat("node '", node.display_name(), "' (", node.op->name, ") cannot be exported: ", why));
  }

 private:
  absl::Status WriteNode(const Node& node);
  void WriteType(const TensorType& type, const std::string& name, proto::ValueInfo& info) const;

  const Model& model_;
  const Graph& graph_;
  const ExportOptions options_;
  proto::Model file_;
  absl::flat_hash_map<std::string, const Tensor*> values_;
  std::map<Port, std::string> names_;
  std::set<std::string> taken_;
  std::set<Port> used_;
  std::map<std::string, std::string> symbols_;  // The names of tensors [1] that hold symbols' sizes.
  std::vector<NodeId> inputs_;
  int next_ = 0;
};

void WriteTensor(const Tensor& tensor, proto::Tensor& message) {
  message.set_data_type(DTypeToOnnx(tensor.dtype()));
  for (const int64_t size : tensor.sizes()) message.add_dims(size);
  message.set_raw_data(tensor.raw_data(), tensor.byte_size());
}

void SetInts(proto::Node& node, const char* name, const Integers& numbers) {
  proto::Attribute& attribute = *node.add_attribute();
  attribute.set_name(name);
  attribute.set_type(kIntsType);
  for (const int64_t number : numbers) attribute.add_ints(number);
}
void SetInt(proto::Node& node, const char* name, int64_t number) {
  proto::Attribute& attribute = *node.add_attribute();
  attribute.set_name(name);
  attribute.set_type(kIntType);
  attribute.set_i(number);
}
void SetFloat(proto::Node& node, const char* name, double number) {
  proto::Attribute& attribute = *node.add_attribute();
  attribute.set_name(name);
  attribute.set_type(kFloatType);
  attribute.set_f(static_cast<float>(number));
}
void SetText(proto::Node& node, const char* name, const char* text) {
  proto::Attribute& attribute = *node.add_attribute();
  attribute.set_name(name);
  attribute.set_type(kStringType);
  attribute.set_s(text);
}

std::string Exporter::Constant(const Tensor& value) {
  std::string name = NewName("constant");
  proto::Attribute& attribute = *Add("Constant", {}, name).add_attribute();
  attribute.set_name("value");
  attribute.set_type(kTensorType);
  WriteTensor(value, *attribute.mutable_t());
  return name;
}

absl::StatusOr<std::string> Exporter::Sizes(const Node& node, const Shape& shape) {
  std::vector<std::string> parts;
  Integers known;
  auto flush = [&] {
    if (!known.empty()) parts.push_back(Integers1D(known));
    known.clear();
  };
  for (const Dim& dim : shape) {
    if (dim.is_known()) {
      known.push_back(dim.size());
      continue;
    }
    const std::optional<std::string> symbol = dim.AsSymbol();
    if (!symbol.has_value()) return Refuse(node, absl::StrCat("the size ", dim.ToString(), " is no size of an input"));
    std::string& name = symbols_[*symbol];
    for (size_t i = 0; name.empty() && i < inputs_.size(); ++i) {
      const Shape& sizes = graph_.type({inputs_[i], 0}).shape;
      for (int axis = 0; axis < sizes.rank(); ++axis) {
        if (!(sizes[axis] == dim) || !name.empty()) continue;
        const std::string all = NewName("shape");
        Add("Shape", {Name({inputs_[i], 0})}, all);
        const std::string place = Integers1D({axis});
        name = NewName("size");
        Add("Gather", {all, place}, name);
      }
    }
    if (name.empty()) return Refuse(node, absl::StrCat("no input has the size ", dim.ToString()));
    flush();
    parts.push_back(name);
  }
  flush();
  if (parts.empty()) return Integers1D({});
  if (parts.size() == 1) return parts[0];
  std::string joined = NewName("sizes");
  SetInt(Add("Concat", parts, joined), "axis", 0);
  return joined;
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

absl::Status Exporter::WriteNode(const Node& node) {
  switch (node.op->kind) {
    case OpKind::kInput:
      WriteType(node.outputs[0], node.name, *file_.mutable_graph()->add_input());
      return absl::OkStatus();
    case OpKind::kVariable: {
      const auto value = values_.find(node.name);
      if (value == values_.end()) {
        return absl::InvalidArgumentError(absl::StrCat("variable '", node.name, "' has no value in the model"));
      }
      proto::Tensor& tensor = *file_.mutable_graph()->add_initializer();
      tensor.set_name(node.name);
      WriteTensor(*value->second, tensor);
      return absl::OkStatus();
    }
    case OpKind::kConstant: {
      proto::Attribute& attribute = *Place("Constant", node).add_attribute();
      attribute.set_name("value");
      attribute.set_type(kTensorType);
      WriteTensor(node.attribute<Tensor>("value"), *attribute.mutable_t());
      return absl::OkStatus();
    }
    default:
      break;
  }
  const ExportRow* row = FindExport(node.op->name);
  if (row == nullptr) return Refuse(node, "ONNX has no such op");
  if (row->write != nullptr) return row->write(*this, node);
  Place(row->onnx, node);
  return absl::OkStatus();
}

absl::Status Exporter::Run(const NamedValues& outputs) {
  // The nodes that outputs need. Initial values of variables are not written.
  std::vector<bool> needed(static_cast<size_t>(graph_.num_nodes()));
  std::map<Port, std::string> output_names;
  for (const auto& [name, value] : outputs) {
    const Port port = value.port();
    if (!value.valid() || !graph_.Exists(port) || graph_.node(port.node).serial != value.serial()) {
      return absl::InvalidArgumentError(absl::StrCat("output '", name, "' is no value of the model's graph"));
    }
    if (name.empty() || !taken_.insert(name).second) {
      return absl::InvalidArgumentError(absl::StrCat("the name '", name, "' of an output is empty or taken"));
    }
    needed[static_cast<size_t>(port.node)] = true;
    used_.insert(port);
    if (!graph_.node(port.node).op->is_source()) output_names.emplace(port, name);
  }
  for (NodeId id = graph_.num_nodes() - 1; id >= 0; --id) {
    const Node& node = graph_.node(id);
    if (!needed[static_cast<size_t>(id)] || node.op->kind == OpKind::kVariable) continue;
    for (const Port input : node.inputs) {
      needed[static_cast<size_t>(input.node)] = true;
      used_.insert(input);
    }
  }
  for (const Node& node : graph_.nodes()) {
    if (!needed[static_cast<size_t>(node.id)]) continue;
    if (node.op->kind != OpKind::kInput && node.op->kind != OpKind::kVariable) continue;
    if (!taken_.insert(node.name).second) {
      return absl::InvalidArgumentError(
          absl::StrCat("the name '", node.name, "' of an output is that of an input or a variable"));
    }
    names_[{node.id, 0}] = node.name;
    if (node.op->kind == OpKind::kInput) inputs_.push_back(node.id);
  }
  for (const Node& node : graph_.nodes()) {
    if (!needed[static_cast<size_t>(node.id)]) continue;
    for (const Port port : node.ports()) {
      if (names_.contains(port)) continue;
      const auto named = output_names.find(port);
      names_[port] = named != output_names.end() ? named->second : NewName(node.op->name);
    }
    GW_RETURN_IF_ERROR(WriteNode(node));
  }
  for (const auto& [name, value] : outputs) {
    if (Name(value.port()) != name) Add("Identity", {Name(value.port())}, name);
    WriteType(value.type(), name, *file_.mutable_graph()->add_output());
  }
  return absl::OkStatus();
}

absl::Status WriteLeakyRelu(Exporter& e, const Node& node) {
  SetFloat(e.Place("LeakyRelu", node), "alpha", node.attribute<double>("slope"));
  return absl::OkStatus();
}
absl::Status WriteElu(Exporter& e, const Node& node) {
  SetFloat(e.Place("Elu", node), "alpha", node.attribute<double>("alpha"));
  return absl::OkStatus();
}
absl::Status WriteClip(Exporter& e, const Node& node) {
  const DType dtype = node.outputs[0].dtype;
  const std::string low = e.Constant(Tensor::ScalarOf(dtype, node.attribute<double>("low")));
  const std::string high = e.Constant(Tensor::ScalarOf(dtype, node.attribute<double>("high")));
  e.Add("Clip", {e.Name(node.inputs[0]), low, high}, e.Name({node.id, 0}));
  return absl::OkStatus();
}
absl::Status WriteCast(Exporter& e, const Node& node) {
  SetInt(e.Place("Cast", node), "to", DTypeToOnnx(node.outputs[0].dtype));
  return absl::OkStatus();
}
absl::Status WriteSquare(Exporter& e, const Node& node) {
  e.Add("Mul", {e.Name(node.inputs[0]), e.Name(node.inputs[0])}, e.Name({node.id, 0}));
  return absl::OkStatus();
}
absl::Status WriteRsqrt(Exporter& e, const Node& node) {
  const std::string root = e.NewName("root");
  e.Add("Sqrt", {e.Name(node.inputs[0])}, root);
  e.Add("Reciprocal", {root}, e.Name({node.id, 0}));
  return absl::OkStatus();
}
// x * (1 + erf(x / sqrt(2))) / 2 before ONNX has the op.
absl::Status WriteGelu(Exporter& e, const Node& node) {
  if (e.opset() >= 20) {
    e.Place("Gelu", node);
    return absl::OkStatus();
  }
  const DType dtype = node.outputs[0].dtype;
  const std::string x = e.Name(node.inputs[0]);
  auto number = [&](double value) { return e.Constant(Tensor::ScalarOf(dtype, value)); };
  auto step = [&](const char* op, const std::vector<std::string>& inputs) {
    std::string name = e.NewName("gelu");
    e.Add(op, inputs, name);
    return name;
  };
  const std::string erf = step("Erf", {step("Mul", {x, number(0.70710678118654752)})});
  const std::string half = step("Mul", {x, number(0.5)});
  const std::string factor = step("Add", {erf, number(1)});
  e.Add("Mul", {half, factor}, e.Name({node.id, 0}));
  return absl::OkStatus();
}

// Axes are an input of ReduceSum, and of the other ops from opset 18 on.
absl::Status WriteReduction(Exporter& e, const Node& node) {
  const Integers& axes = node.attribute<Integers>("axes");
  if (axes.empty()) {
    e.Place("Identity", node);
    return absl::OkStatus();
  }
  const std::string op = FindExport(node.op->name)->onnx;
  const bool as_input = op == "ReduceSum" || e.opset() >= 18;
  std::vector<std::string> inputs = {e.Name(node.inputs[0])};
  if (as_input) inputs.push_back(e.Integers1D(axes));
  proto::Node& written = e.Add(op, inputs, e.Name({node.id, 0}));
  if (!as_input) SetInts(written, "axes", axes);
  SetInt(written, "keepdims", node.attribute<bool>("keep_dims") ? 1 : 0);
  return absl::OkStatus();
}
absl::Status WriteArg(Exporter& e, const Node& node) {
  const bool casts = node.outputs[0].dtype != kInt64;
  const std::string name = casts ? e.NewName("index") : e.Name({node.id, 0});
  proto::Node& written = e.Add(node.op->name, {e.Name(node.inputs[0])}, name);
  SetInt(written, "axis", node.attribute<int64_t>("axis"));
  SetInt(written, "keepdims", node.attribute<bool>("keep_dims") ? 1 : 0);
  if (casts) SetInt(e.Add("Cast", {name}, e.Name({node.id, 0})), "to", DTypeToOnnx(node.outputs[0].dtype));
  return absl::OkStatus();
}
// Softmax, LogSoftmax, Concat and Gather have one attribute, of the same name.
absl::Status WriteAxis(Exporter& e, const Node& node) {
  SetInt(e.Place(FindExport(node.op->name)->onnx, node), "axis", node.attribute<int64_t>("axis"));
  return absl::OkStatus();
}

absl::Status WriteReshape(Exporter& e, const Node& node) {
  const Shape& shape = node.outputs[0].shape;
  int symbols = 0;
  bool empty = false;
  Integers sizes;
  for (const Dim& dim : shape) {
    symbols += dim.is_known() ? 0 : 1;
    empty |= dim == Dim(0);
    sizes.push_back(dim.is_known() ? dim.size() : -1);
  }
  std::string target;
  if (symbols <= 1 && !(empty && symbols == 1)) {
    target = e.Integers1D(sizes);
  } else {
    GW_ASSIGN_OR_RETURN(target, e.Sizes(node, shape));
  }
  SetInt(e.Add("Reshape", {e.Name(node.inputs[0]), target}, e.Name({node.id, 0})), "allowzero", 1);
  return absl::OkStatus();
}
absl::Status WriteTranspose(Exporter& e, const Node& node) {
  SetInts(e.Place("Transpose", node), "perm", node.attribute<Integers>("permutation"));
  return absl::OkStatus();
}
absl::Status WriteBroadcast(Exporter& e, const Node& node) {
  GW_ASSIGN_OR_RETURN(const std::string shape, e.Sizes(node, node.outputs[0].shape));
  e.Add("Expand", {e.Name(node.inputs[0]), shape}, e.Name({node.id, 0}));
  return absl::OkStatus();
}
absl::Status WriteSlice(Exporter& e, const Node& node) {
  const Integers& steps = node.attribute<Integers>("steps");
  const Shape& limit = node.attribute<Shape>("limit");
  Integers axes;
  for (int i = 0; i < limit.rank(); ++i) axes.push_back(i);
  GW_ASSIGN_OR_RETURN(const std::string starts, e.Sizes(node, node.attribute<Shape>("start")));
  GW_ASSIGN_OR_RETURN(const std::string ends, e.Sizes(node, limit));
  const std::string axes_name = e.Integers1D(axes), steps_name = e.Integers1D(steps);
  e.Add("Slice", {e.Name(node.inputs[0]), starts, ends, axes_name, steps_name}, e.Name({node.id, 0}));
  return absl::OkStatus();
}
absl::Status WriteReverse(Exporter& e, const Node& node) {
  const Integers& axes = node.attribute<Integers>("axes");
  const std::string starts = e.Integers1D(Integers(axes.size(), -1));
  const std::string ends = e.Integers1D(Integers(axes.size(), std::numeric_limits<int64_t>::min()));
  const std::string places = e.Integers1D(axes), steps = e.Integers1D(Integers(axes.size(), -1));
  e.Add("Slice", {e.Name(node.inputs[0]), starts, ends, places, steps}, e.Name({node.id, 0}));
  return absl::OkStatus();
}
absl::Status WritePad(Exporter& e, const Node& node) {
  for (const int64_t between : node.attribute<Integers>("interior")) {
    if (between != 0) return e.Refuse(node, "ONNX pads only around a tensor");
  }
  Shape pads = node.attribute<Shape>("low");
  for (const Dim& dim : node.attribute<Shape>("high")) pads.Append(dim);
  GW_ASSIGN_OR_RETURN(const std::string sizes, e.Sizes(node, pads));
  const std::string value = e.Constant(Tensor::ScalarOf(node.outputs[0].dtype, node.attribute<double>("value")));
  SetText(e.Add("Pad", {e.Name(node.inputs[0]), sizes, value}, e.Name({node.id, 0})), "mode", "constant");
  return absl::OkStatus();
}
absl::Status WriteDimSize(Exporter& e, const Node& node) {
  const std::string shape = e.NewName("shape"), size = e.NewName("size");
  e.Add("Shape", {e.Name(node.inputs[0])}, shape);
  const std::string place = e.Constant(Tensor::Scalar<int64_t>(node.attribute<int64_t>("axis")));
  e.Add("Gather", {shape, place}, size);
  SetInt(e.Add("Cast", {size}, e.Name({node.id, 0})), "to", DTypeToOnnx(node.outputs[0].dtype));
  return absl::OkStatus();
}

// Two matrices are a Gemm, which transposes; otherwise a node transposes.
absl::Status WriteMatMul(Exporter& e, const Node& node) {
  const bool transposes[] = {node.attribute<bool>("transpose_a"), node.attribute<bool>("transpose_b")};
  if ((transposes[0] || transposes[1]) && e.In(node, 0).shape.rank() == 2 && e.In(node, 1).shape.rank() == 2) {
    proto::Node& gemm = e.Place("Gemm", node);
    SetInt(gemm, "transA", transposes[0] ? 1 : 0);
    SetInt(gemm, "transB", transposes[1] ? 1 : 0);
    return absl::OkStatus();
  }
  std::vector<std::string> inputs;
  for (int i = 0; i < 2; ++i) {
    std::string name = e.Name(node.inputs[static_cast<size_t>(i)]);
    if (transposes[i]) {
      const int rank = e.In(node, i).shape.rank();
      Integers order;
      for (int axis = 0; axis < rank; ++axis) order.push_back(axis);
      std::swap(order[static_cast<size_t>(rank) - 1], order[static_cast<size_t>(rank) - 2]);
      const std::string transposed = e.NewName("transposed");
      SetInts(e.Add("Transpose", {name}, transposed), "perm", order);
      name = transposed;
    }
    inputs.push_back(name);
  }
  e.Add("MatMul", inputs, e.Name({node.id, 0}));
  return absl::OkStatus();
}

// Gradweave: top, bottom, left, right. ONNX: top, left, bottom, right.
Integers Pads(const Node& node) {
  const Integers& p = node.attribute<Integers>("padding");
  return {p[0], p[2], p[1], p[3]};
}
absl::Status WriteConv(Exporter& e, const Node& node) {
  const Shape& filter = e.In(node, 1).shape;
  proto::Node& conv = e.Place("Conv", node);
  SetInts(conv, "kernel_shape", {filter[2].size(), filter[3].size()});
  SetInts(conv, "strides", node.attribute<Integers>("stride"));
  SetInts(conv, "dilations", node.attribute<Integers>("dilation"));
  SetInts(conv, "pads", Pads(node));
  SetInt(conv, "group", node.attribute<int64_t>("groups"));
  return absl::OkStatus();
}
absl::Status WritePool(Exporter& e, const Node& node) {
  const bool average = node.op->kind == OpKind::kAvgPool2D;
  if (e.Uses({node.id, 1})) return e.Refuse(node, "ONNX counts the indices of a pool in another way");
  proto::Node& pool = e.Place(average ? "AveragePool" : "MaxPool", node);
  SetInts(pool, "kernel_shape", node.attribute<Integers>("window"));
  SetInts(pool, "strides", node.attribute<Integers>("stride"));
  SetInts(pool, "pads", Pads(node));
  if (average) SetInt(pool, "count_include_pad", node.attribute<bool>("count_padding") ? 1 : 0);
  return absl::OkStatus();
}

constexpr ExportRow kRows[] = {
    {"Abs", "Abs"},
    {"Add", "Add"},
    {"ArgMax", "ArgMax", WriteArg},
    {"ArgMin", "ArgMin", WriteArg},
    {"Atan", "Atan"},
    {"AvgPool2D", "AveragePool", WritePool},
    {"BroadcastTo", "Expand", WriteBroadcast},
    {"Cast", "Cast", WriteCast},
    {"Ceil", "Ceil"},
    {"Clip", "Clip", WriteClip},
    {"Concat", "Concat", WriteAxis},
    {"Conv2D", "Conv", WriteConv},
    {"Copy", "Identity"},
    {"Cos", "Cos"},
    {"DimSize", "Shape", WriteDimSize},
    {"Div", "Div"},
    {"Elu", "Elu", WriteElu},
    {"Equal", "Equal"},
    {"Erf", "Erf"},
    {"Exp", "Exp"},
    {"Floor", "Floor"},
    {"Gather", "Gather", WriteAxis},
    {"Gelu", "Gelu", WriteGelu},
    {"Greater", "Greater"},
    {"GreaterEqual", "GreaterOrEqual"},
    {"LeakyRelu", "LeakyRelu", WriteLeakyRelu},
    {"Less", "Less"},
    {"LessEqual", "LessOrEqual"},
    {"Log", "Log"},
    {"LogSoftmax", "LogSoftmax", WriteAxis},
    {"LogSumExp", "ReduceLogSumExp", WriteReduction},
    {"LogicalAnd", "And"},
    {"LogicalNot", "Not"},
    {"LogicalOr", "Or"},
    {"LogicalXor", "Xor"},
    {"MatMul", "MatMul", WriteMatMul},
    {"Max", "ReduceMax", WriteReduction},
    {"MaxPool2D", "MaxPool", WritePool},
    {"Maximum", "Max"},
    {"Min", "ReduceMin", WriteReduction},
    {"Minimum", "Min"},
    {"Mul", "Mul"},
    {"Neg", "Neg"},
    {"Pad", "Pad", WritePad},
    {"Pow", "Pow"},
    {"Prod", "ReduceProd", WriteReduction},
    {"Reciprocal", "Reciprocal"},
    {"Relu", "Relu"},
    {"Reshape", "Reshape", WriteReshape},
    {"Reverse", "Slice", WriteReverse},
    {"Round", "Round"},
    {"Rsqrt", "Sqrt", WriteRsqrt},
    {"Sigmoid", "Sigmoid"},
    {"Sign", "Sign"},
    {"Sin", "Sin"},
    {"Slice", "Slice", WriteSlice},
    {"Softmax", "Softmax", WriteAxis},
    {"Softplus", "Softplus"},
    {"Sqrt", "Sqrt"},
    {"Square", "Mul", WriteSquare},
    {"StopGradient", "Identity"},
    {"Sub", "Sub"},
    {"Sum", "ReduceSum", WriteReduction},
    {"Tanh", "Tanh"},
    {"Transpose", "Transpose", WriteTranspose},
    {"Where", "Where"},
};

const ExportRow* FindExport(absl::string_view op) {
  const auto found =
      std::find_if(std::begin(kRows), std::end(kRows), [&](const ExportRow& row) { return op == row.op; });
  return found == std::end(kRows) ? nullptr : found;
}

}  // namespace

namespace {

bool HasAttention(const Graph& graph) {
  return HasBodies(graph) || std::any_of(graph.nodes().begin(), graph.nodes().end(), [](const Node& node) {
           return absl::StartsWith(node.op->name, "ScaledDotProductAttention");
         });
}

// Puts the ops that define attention, which ONNX lacks, in its place. The outputs become values of
// the model.
absl::Status ExpandAttentionOf(Model& model, NamedValues& outputs) {
  std::vector<Value> values;
  for (const auto& [name, value] : outputs) {
    const Port port = value.port();
    // The exporter refuses such a value.
    if (!value.valid() || !model.graph.Exists(port) || model.graph.node(port.node).serial != value.serial())
      return absl::OkStatus();
    values.push_back(model.graph.value(port));
  }
  constexpr absl::string_view kOutputs = "outputs";
  model.graph.ClearOutputs();
  model.graph.SetOutput(kOutputs, values);
  GW_ASSIGN_OR_RETURN(model.graph, ApplyWithBodies(model.graph, [](const Graph& part) {
                        return ExpandAttention(part, [](const Graph&, const Node&) { return true; });
                      }));
  values = model.graph.Output(kOutputs);
  for (size_t i = 0; i < values.size(); ++i) outputs[i].second = values[i];
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<std::string> ExportBytes(const Model& model, const NamedValues& outputs, ExportOptions options) try {
  if (options.opset < kLeastOpset || options.opset > kMostOpset) {
    return absl::InvalidArgumentError(
        absl::StrCat("Export: the opset has to be in [", kLeastOpset, ", ", kMostOpset, "], and is ", options.opset));
  }
  Model expanded;
  NamedValues of_expanded = outputs;
  const bool expands = HasAttention(model.graph);
  if (expands) {
    expanded.graph = model.graph;
    expanded.variables = model.variables;
    GW_RETURN_IF_ERROR(ExpandAttentionOf(expanded, of_expanded));
  }
  Exporter exporter(expands ? expanded : model, options);
  GW_RETURN_IF_ERROR(exporter.Run(of_expanded));
  if (exporter.file().ByteSizeLong() > INT32_MAX)
    return absl::InvalidArgumentError("Export: the file would need 2 GiB");
  return exporter.file().SerializeAsString();
}
GW_CATCH_OUT_OF_MEMORY("onnx::Export")

absl::Status Export(const Model& model, const NamedValues& outputs, const std::string& path, ExportOptions options) {
  GW_ASSIGN_OR_RETURN(const std::string bytes, ExportBytes(model, outputs, options));
  GW_ASSIGN_OR_RETURN(const std::unique_ptr<FilePair> file, FilePair::Begin(path));
  return file->Commit({{bytes.data(), bytes.size()}}, [](const std::string&) { return std::string(); });
}

}  // namespace gradweave::onnx
