// The call of one node: its inputs, attributes and outputs.
#include <algorithm>
#include <cmath>
#include <limits>

#include "gradweave/frontend/input_file.h"
#include "gradweave/frontend/onnx/importer.h"
#include "gradweave/graph/status_macros.h"
#include "gradweave/ops/elementwise.h"
#include "gradweave/ops/shape_ops.h"

namespace gradweave::onnx {
namespace {

constexpr DTypeSet kNarrow = {kInt8, kInt16, kUint16, kUint32, kUint64};

}  // namespace

Call::Call(Importer& importer, NameScope& names, const proto::Node& node, int64_t opset)
    : importer_(importer), names_(names), node_(node), opset_(opset), outputs_(node.output_size(), nullptr) {
  for (const std::string& name : node.input()) {
    inputs_.push_back(name.empty() ? nullptr : importer.Lookup(names, name));
  }
}

std::vector<Value> Call::Ins() const {
  std::vector<Value> values;
  for (int i = 0; i < num_inputs(); ++i) {
    if (Has(i)) values.push_back(In(i));
  }
  return values;
}

absl::StatusOr<Integers> Call::KnownIntegers(int i) const {
  GW_ASSIGN_OR_RETURN(const Tensor tensor, Known(i));
  if (!IsInteger(tensor.dtype())) return Wrong("input ", i, " has to hold integers");
  if (tensor.rank() > 1) return Wrong("input ", i, " has to have one axis");
  const Tensor wide = tensor.Cast(kInt64);
  return Integers(wide.values<int64_t>().begin(), wide.values<int64_t>().end());
}

absl::StatusOr<double> Call::KnownNumber(int i) const {
  GW_ASSIGN_OR_RETURN(const Tensor tensor, Known(i));
  if (tensor.num_elements() != 1) return Wrong("input ", i, " has to be one number");
  return tensor.ToDouble();
}

std::optional<int64_t> Call::KnownZero(int i) const {
  if (!Has(i)) return 0;
  const std::optional<Tensor>& tensor = item(i).tensor;
  if (!tensor.has_value() || tensor->num_elements() != 1) return std::nullopt;
  return static_cast<int64_t>(tensor->ToDouble());
}

const proto::Attribute* Call::Find(absl::string_view name) const {
  asked_.insert(name);
  for (const proto::Attribute& attribute : node_.attribute()) {
    if (attribute.name() != name) continue;
    if (attribute.ref_attr_name().empty()) return &attribute;
    if (names_.attributes != nullptr) {
      for (const proto::Attribute& given : *names_.attributes) {
        if (given.name() == attribute.ref_attr_name()) return &given;
      }
    }
    if (names_.function != nullptr) {
      for (const proto::Attribute& given : names_.function->attribute_proto()) {
        if (given.name() == attribute.ref_attr_name()) return &given;
      }
    }
    return nullptr;
  }
  return nullptr;
}

absl::Status Call::CheckAttributes() const {
  for (const proto::Attribute& attribute : node_.attribute()) {
    // A hint of the first opsets, about memory.
    if (!asked_.contains(attribute.name()) && attribute.name() != "consumed_inputs")
      return Refuse("its attribute '", PrintableText(attribute.name()), "' is not known");
  }
  return absl::OkStatus();
}

int64_t Call::Int(absl::string_view name, int64_t otherwise) const {
  const proto::Attribute* found = Find(name);
  return found != nullptr && found->has_i() ? found->i() : otherwise;
}

double Call::Float(absl::string_view name, double otherwise) const {
  const proto::Attribute* found = Find(name);
  return found != nullptr && found->has_f() ? static_cast<double>(found->f()) : otherwise;
}

std::string Call::Text(absl::string_view name, absl::string_view otherwise) const {
  const proto::Attribute* found = Find(name);
  return found != nullptr && found->has_s() ? found->s() : std::string(otherwise);
}

std::optional<Integers> Call::Ints(absl::string_view name) const {
  const proto::Attribute* found = Find(name);
  if (found == nullptr) return std::nullopt;
  return Integers(found->ints().begin(), found->ints().end());
}

absl::StatusOr<Tensor> Call::TensorAttribute(absl::string_view name) const {
  const proto::Attribute* found = Find(name);
  if (found == nullptr || !found->has_t()) return Wrong("the attribute '", name, "' has no tensor");
  absl::StatusOr<Tensor> tensor = ReadTensor(found->t(), importer_.folder(), importer_.room());
  if (tensor.ok()) return tensor;
  return absl::Status(tensor.status().code(), absl::StrCat("its attribute '", name, "': ", tensor.status().message()));
}

absl::StatusOr<std::optional<Integers>> Call::IntsOrInput(absl::string_view name, int i) const {
  if (Has(i)) {
    GW_ASSIGN_OR_RETURN(Integers integers, KnownIntegers(i));
    return std::optional<Integers>(std::move(integers));
  }
  return Ints(name);
}

absl::Status Call::RequireEqual(const Dim& a, const Dim& b, absl::string_view what) {
  if (a == b) return absl::OkStatus();
  required_.emplace_back(a, b);
  for (const auto& [from, to] : {std::make_pair(a, b), std::make_pair(b, a)}) {
    const std::optional<std::string> symbol = from.AsSymbol();
    if (symbol.has_value() && to.is_known() && importer_.knowledge().sizes.Set(*symbol, to)) importer_.BeginAgain();
  }
  return Wrong(what, " is ", a.ToString(), " and has to be ", b.ToString());
}

absl::StatusOr<int64_t> Call::Axis(int64_t axis, int64_t rank) const {
  const int64_t normalized = NormalizedAxis(axis, rank);
  if (normalized < 0) return Wrong("axis ", axis, " is outside of the ", rank, " axes");
  return normalized;
}

absl::StatusOr<Integers> Call::Axes(Integers axes, int64_t rank) const {
  for (int64_t& axis : axes) {
    GW_ASSIGN_OR_RETURN(axis, Axis(axis, rank));
  }
  return axes;
}

void Call::Set(int i, Value value) {
  if (!Wants(i)) return;
  Item* item = importer_.NewItem(node_.output(i));
  item->value = value;
  item->type = value.type();
  outputs_[i] = item;
}

void Call::Set(int i, Tensor value) {
  if (!Wants(i)) return;
  Item* item = importer_.NewItem(node_.output(i));
  item->type = value.type();
  item->tensor = std::move(value);
  outputs_[i] = item;
}

void Call::Set(int i, Elements elements, bool scalar, DType dtype) {
  if (!Wants(i)) return;
  Item* item = importer_.NewItem(node_.output(i));
  item->type = {dtype, scalar ? Shape() : Shape{static_cast<int64_t>(elements.size())}};
  if (std::all_of(elements.begin(), elements.end(), [](const Dim& dim) { return dim.is_known(); })) {
    Tensor tensor(kInt64, item->type.shape.sizes());
    std::transform(elements.begin(), elements.end(), tensor.mutable_data<int64_t>(),
                   [](const Dim& dim) { return dim.size(); });
    item->tensor = dtype == kInt64 ? std::move(tensor) : tensor.Cast(dtype);
  } else {
    item->elements = std::move(elements);
  }
  outputs_[i] = item;
}

void Call::Set(int i, Item* item) {
  if (Wants(i)) outputs_[i] = item;
}

Value Repeat(Value x, int64_t axis, int64_t times) {
  if (axis >= x.rank()) return {};  // x is invalid.
  Shape shape = x.shape(), merged = x.shape();
  shape.Insert(static_cast<int>(axis) + 1, times);
  merged[static_cast<int>(axis)] = SizeAt(x.shape(), axis) * times;
  return Reshape(BroadcastTo(ExpandDims(x, {axis + 1}), shape), merged);
}

int64_t ToInteger(double number) {
  constexpr double kBeyond = 0x1p63;
  if (std::isnan(number)) return 0;
  if (number >= kBeyond) return std::numeric_limits<int64_t>::max();
  return number < -kBeyond ? std::numeric_limits<int64_t>::min() : static_cast<int64_t>(number);
}

absl::StatusOr<std::pair<Value, Value>> BroadcastOperands(Call& call) {
  const Value a = call.In(0);
  Value b = call.In(1);
  if (call.opset() < 7) call.Ignore({"axis", "broadcast"});
  if (call.opset() < 7 && call.Int("broadcast", 0) != 0 && a.valid() && b.valid()) {
    // The axes of b are those of a from `axis` on; without it, the last ones.
    int64_t axis = call.Int("axis", a.rank() - b.rank());
    if (axis < 0) axis += a.rank();
    if (axis < 0 || axis + b.rank() > a.rank()) return call.Wrong("the axis of the second operand is out of range");
    Shape shape = b.shape();
    for (int64_t i = axis + b.rank(); i < a.rank(); ++i) shape.Append(1);
    b = Reshape(b, shape);
  }
  return std::make_pair(a, b);
}

bool Call::HasNarrowInputs() const {
  return std::any_of(inputs_.begin(), inputs_.end(),
                     [](const Item* item) { return item != nullptr && kNarrow.Contains(item->type.dtype); });
}

void Call::Widen() {
  for (Item*& input : inputs_) {
    if (input == nullptr || !kNarrow.Contains(input->type.dtype)) continue;
    const DType narrow = input->type.dtype, wide = DTypeSize(narrow) < 4 ? kInt32 : kInt64;
    Item* const item = importer_.NewItem(input->name);
    item->type = {wide, input->type.shape};
    if (input->tensor.has_value()) {
      item->tensor = input->tensor->Cast(wide);
    } else {
      item->value = Cast(importer_.ValueOf(*input), wide);
    }
    input = item;
    if (!narrow_.has_value()) narrow_ = narrow, wide_ = wide;
  }
}

void Call::Narrow() {
  // Indices are int64, whatever the dtype of the inputs is. They follow the values, or are all that
  // the op gives.
  const std::string& op = node_.op_type();
  const bool indices_alone = op == "ArgMax" || op == "ArgMin" || op == "NonZero";
  const int values = wide_ == kInt64 ? (indices_alone ? 0 : 1) : num_outputs();
  for (int i = 0; i < std::min(values, num_outputs()); ++i) {
    if (IsSet(i) && outputs_[i]->type.dtype == wide_) Set(i, Cast(importer_.ValueOf(*outputs_[i]), *narrow_));
  }
}

}  // namespace gradweave::onnx
