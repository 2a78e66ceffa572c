// Shapes as data: integers that nodes compute from the sizes of tensors, followed as dimensions.
#include <algorithm>
#include <optional>

#include "gradweave/frontend/onnx/importer.h"
#include "gradweave/graph/status_macros.h"

namespace gradweave::onnx {
namespace {

constexpr size_t kMostElements = 4096;  // Longer tensors hold data, not shapes.

// An operand whose elements are known, at least as symbols.
struct Operand1D {
  Elements elements;
  bool scalar;
};

std::optional<Operand1D> OperandOf(const Call& call, int i) {
  if (!call.Has(i)) return std::nullopt;
  Item& item = call.item(i);
  const bool integers = item.type.dtype == kInt64 || item.type.dtype == kInt32;
  if (!integers || item.type.shape.rank() > 1) return std::nullopt;
  if (item.elements.has_value()) return Operand1D{*item.elements, item.type.shape.rank() == 0};
  if (!item.tensor.has_value() || item.tensor->num_elements() > static_cast<int64_t>(kMostElements))
    return std::nullopt;
  const Tensor wide = item.tensor->Cast(kInt64);
  return Operand1D{Elements(wide.values<int64_t>().begin(), wide.values<int64_t>().end()), item.tensor->rank() == 0};
}

// True if one operand has symbols: without any, the op is computed as any other.
bool AllKnown(const Elements& elements) {
  return std::all_of(elements.begin(), elements.end(), [](const Dim& dim) { return dim.is_known(); });
}

using Function2 = std::optional<Dim> (*)(const Dim& a, const Dim& b);

std::optional<Dim> Quotient(const Dim& a, const Dim& b) {
  if (a.is_known() && b.is_known()) {
    if (b.size() == 0 || (b.size() == -1 && a.size() == INT64_MIN)) return std::nullopt;
    return Dim(a.size() / b.size());
  }
  if (std::optional<Dim> exact = DivideExactly(a, b); exact.has_value()) return exact;
  // Sizes are not negative, so rounding down and toward zero are the same.
  if (b.is_known() && b.size() > 0) return FloorDivide(a, b.size());
  return std::nullopt;
}

std::optional<Dim> Remainder(const Dim& a, const Dim& b) {
  if (!b.is_known() || b.size() <= 0 || (a.is_known() && a.size() < 0)) return std::nullopt;
  return a - FloorDivide(a, b.size()) * b;
}

std::optional<Dim> Larger(const Dim& a, const Dim& b) {
  if (a == b) return a;
  if (a.is_known() && b.is_known()) return Dim(std::max(a.size(), b.size()));
  // A size is at least 0.
  if (b.is_known() && b.size() <= 0) return a;
  if (a.is_known() && a.size() <= 0) return b;
  return std::nullopt;
}

struct BinaryRow {
  const char* name;
  Function2 function;
};
constexpr BinaryRow kBinary[] = {
    {"Add", [](const Dim& a, const Dim& b) -> std::optional<Dim> { return a + b; }},
    {"Sub", [](const Dim& a, const Dim& b) -> std::optional<Dim> { return a - b; }},
    {"Mul", [](const Dim& a, const Dim& b) -> std::optional<Dim> { return a * b; }},
    {"Div", Quotient},
    {"Mod", Remainder},
    {"Max", Larger},
};

bool FollowBinary(Call& call, Function2 function) {
  const std::optional<Operand1D> a = OperandOf(call, 0), b = OperandOf(call, 1);
  if (call.num_inputs() != 2 || !a.has_value() || !b.has_value() || call.Int("fmod", 0) != 0) return false;
  const size_t size = std::max(a->elements.size(), b->elements.size());
  if ((a->elements.size() != size && a->elements.size() != 1) ||
      (b->elements.size() != size && b->elements.size() != 1))
    return false;
  Elements result;
  for (size_t i = 0; i < size; ++i) {
    const std::optional<Dim> element =
        function(a->elements[a->elements.size() == 1 ? 0 : i], b->elements[b->elements.size() == 1 ? 0 : i]);
    if (!element.has_value()) return false;
    const bool fits = !element->is_known() || call.Type(0).dtype == kInt64 ||
                      Represents(kInt32, static_cast<double>(element->size()));
    if (!fits) return false;
    result.push_back(*element);
  }
  call.Set(0, std::move(result), a->scalar && b->scalar, call.Type(0).dtype);
  return true;
}

bool FollowShape(Call& call) {
  const Shape& shape = call.Type(0).shape;
  const int64_t rank = shape.rank();
  auto bound = [&](absl::string_view name, int64_t otherwise) {
    const int64_t at = call.Int(name, otherwise);
    return std::clamp<int64_t>(at < 0 ? at + rank : at, 0, rank);
  };
  Elements result;
  for (int64_t i = bound("start", 0); i < bound("end", rank); ++i) result.push_back(shape[static_cast<int>(i)]);
  call.Set(0, std::move(result), false);
  return true;
}

bool FollowSize(Call& call) {
  call.Set(0, Elements{call.Type(0).shape.num_elements()}, true);
  return true;
}

bool FollowGather(Call& call) {
  const std::optional<Operand1D> data = OperandOf(call, 0), indices = OperandOf(call, 1);
  if (!data.has_value() || data->scalar || !indices.has_value() || !AllKnown(indices->elements)) return false;
  Elements result;
  const auto size = static_cast<int64_t>(data->elements.size());
  for (const Dim& index : indices->elements) {
    const int64_t at = index.size() < 0 ? index.size() + size : index.size();
    if (at < 0 || at >= size) return false;
    result.push_back(data->elements[static_cast<size_t>(at)]);
  }
  call.Set(0, std::move(result), indices->scalar, call.Type(0).dtype);
  return true;
}

bool FollowSlice(Call& call) {
  const std::optional<Operand1D> data = OperandOf(call, 0);
  if (!data.has_value() || data->scalar) return false;
  const auto size = static_cast<int64_t>(data->elements.size());
  auto number = [&](int i, absl::string_view attribute, int64_t otherwise) -> std::optional<int64_t> {
    if (const std::optional<Integers> given = call.Ints(attribute); given.has_value() && given->size() == 1)
      return (*given)[0];
    if (!call.Has(i)) return otherwise;
    const std::optional<Operand1D> operand = OperandOf(call, i);
    if (!operand.has_value() || operand->elements.size() != 1 || !operand->elements[0].is_known()) return std::nullopt;
    return operand->elements[0].size();
  };
  const std::optional<int64_t> start = number(1, "starts", 0), end = number(2, "ends", size),
                               axis = number(3, "axes", 0), step = number(4, "steps", 1);
  if (!start || !end || !axis || !step || *step == 0 || (*axis != 0 && *axis != -1)) return false;
  auto place = [&](int64_t at, int64_t low, int64_t high) { return std::clamp(at < 0 ? at + size : at, low, high); };
  Elements result;
  if (*step > 0) {
    const int64_t last = place(*end, 0, size);
    for (int64_t i = place(*start, 0, size); i<last; i = *step> size ? last : i + *step)
      result.push_back(data->elements[static_cast<size_t>(i)]);
  } else {
    const int64_t last = *end < -size ? -1 : place(*end, -1, size - 1);
    for (int64_t i = place(*start, -1, size - 1); i > last; i = *step < -size ? last : i + *step)
      result.push_back(data->elements[static_cast<size_t>(i)]);
  }
  call.Set(0, std::move(result), false, call.Type(0).dtype);
  return true;
}

bool FollowConcat(Call& call) {
  Elements result;
  for (int i = 0; i < call.num_inputs(); ++i) {
    const std::optional<Operand1D> part = OperandOf(call, i);
    if (!part.has_value() || part->scalar) return false;
    result.insert(result.end(), part->elements.begin(), part->elements.end());
    if (result.size() > kMostElements) return false;
  }
  call.Set(0, std::move(result), false, call.Type(0).dtype);
  return true;
}

// Between a scalar and a list with one element.
bool FollowRank(Call& call, bool to_scalar) {
  const std::optional<Operand1D> data = OperandOf(call, 0);
  if (!data.has_value() || data->elements.size() != 1 || data->scalar == to_scalar) return false;
  call.Set(0, data->elements, to_scalar, call.Type(0).dtype);
  return true;
}

bool FollowReshape(Call& call) {
  const std::optional<Operand1D> data = OperandOf(call, 0);
  const std::optional<Operand1D> shape = call.Has(1) ? OperandOf(call, 1) : std::nullopt;
  if (!data.has_value() || !shape.has_value() || shape->elements.size() > 1) return false;
  if (shape->elements.size() == 1 && !(shape->elements[0] == Dim(-1)) &&
      !(shape->elements[0] == Dim(static_cast<int64_t>(data->elements.size()))))
    return false;
  if (shape->elements.empty() && data->elements.size() != 1) return false;
  call.Set(0, data->elements, shape->elements.empty(), call.Type(0).dtype);
  return true;
}

bool FollowCast(Call& call) {
  const std::optional<Operand1D> data = OperandOf(call, 0);
  const int64_t to = call.Int("to", 0);
  if (!data.has_value() || (to != DTypeToOnnx(kInt64) && to != DTypeToOnnx(kInt32))) return false;
  call.Set(0, data->elements, data->scalar, to == DTypeToOnnx(kInt64) ? kInt64 : kInt32);
  return true;
}

bool FollowIdentity(Call& call) {
  const std::optional<Operand1D> data = OperandOf(call, 0);
  if (!data.has_value()) return false;
  call.Set(0, data->elements, data->scalar, call.Type(0).dtype);
  return true;
}

bool FollowProduct(Call& call) {
  const std::optional<Operand1D> data = OperandOf(call, 0);
  const bool keep = call.Int("keepdims", 1) != 0;
  if (!data.has_value() || data->scalar) return false;
  Dim product(1);
  for (const Dim& element : data->elements) product = product * element;
  call.Set(0, Elements{product}, !keep, call.Type(0).dtype);
  return true;
}

// Compares dimensions: true if they are equal for all values of the symbols, false if for none,
// else unknown.
std::optional<bool> SameDim(const Dim& a, const Dim& b) {
  if (a == b) return true;
  if (a.is_known() && b.is_known()) return false;
  // A size is at least 0.
  if ((a.is_known() && a.size() < 0) || (b.is_known() && b.size() < 0)) return false;
  if ((a - b).is_known()) return false;
  return std::nullopt;
}

bool FollowEqual(Call& call) {
  const std::optional<Operand1D> a = OperandOf(call, 0), b = OperandOf(call, 1);
  if (!a.has_value() || !b.has_value()) return false;
  const size_t size = std::max(a->elements.size(), b->elements.size());
  if ((a->elements.size() != size && a->elements.size() != 1) ||
      (b->elements.size() != size && b->elements.size() != 1))
    return false;
  const bool scalar = a->scalar && b->scalar;
  Tensor result(kBool, scalar ? std::vector<int64_t>{} : std::vector<int64_t>{static_cast<int64_t>(size)});
  for (size_t i = 0; i < size; ++i) {
    const std::optional<bool> same =
        SameDim(a->elements[a->elements.size() == 1 ? 0 : i], b->elements[b->elements.size() == 1 ? 0 : i]);
    if (!same.has_value()) return false;
    result.mutable_data<bool>()[i] = *same;
  }
  call.Set(0, std::move(result));
  return true;
}

bool FollowWhere(Call& call) {
  const std::optional<Operand1D> a = OperandOf(call, 1), b = OperandOf(call, 2);
  if (!a.has_value() || !b.has_value() || !call.item(0).tensor.has_value()) return false;
  const Tensor& condition = *call.item(0).tensor;
  if (condition.dtype() != kBool || condition.rank() > 1) return false;
  const auto count = static_cast<size_t>(condition.num_elements());
  const size_t size = std::max({count, a->elements.size(), b->elements.size()});
  for (const size_t part : {count, a->elements.size(), b->elements.size()}) {
    if (part != size && part != 1) return false;
  }
  Elements result;
  for (size_t i = 0; i < size; ++i) {
    const Operand1D& from = condition.data<bool>()[count == 1 ? 0 : i] ? *a : *b;
    result.push_back(from.elements[from.elements.size() == 1 ? 0 : i]);
  }
  call.Set(0, std::move(result), condition.rank() == 0 && a->scalar && b->scalar, call.Type(1).dtype);
  return true;
}

struct FollowRow {
  const char* name;
  int inputs;
  bool (*follow)(Call& call);
};
constexpr FollowRow kRows[] = {
    {"Shape", 1, FollowShape},
    {"Size", 1, FollowSize},
    {"Gather", 2, FollowGather},
    {"Slice", 1, FollowSlice},
    {"Concat", 1, FollowConcat},
    {"Squeeze", 1, [](Call& call) { return FollowRank(call, true); }},
    {"Unsqueeze", 1,
     [](Call& call) {
       const std::optional<Operand1D> axes = OperandOf(call, 1);
       const size_t added = axes.has_value() ? axes->elements.size() : call.Ints("axes").value_or(Integers()).size();
       return added == 1 && FollowRank(call, false);
     }},
    {"Reshape", 1, FollowReshape},
    {"Cast", 1, FollowCast},
    {"Identity", 1, FollowIdentity},
    {"ReduceProd", 1, FollowProduct},
    {"Equal", 2, FollowEqual},
    {"Where", 3, FollowWhere},
};

}  // namespace

bool FollowElements(Call& call) {
  if (!call.node().domain().empty() && call.node().domain() != "ai.onnx") return false;
  for (int i = 0; i < call.num_inputs(); ++i) {
    if (!call.Has(i)) return false;
  }
  for (const FollowRow& row : kRows) {
    if (call.node().op_type() == row.name) return call.num_inputs() >= row.inputs && call.Wants(0) && row.follow(call);
  }
  for (const BinaryRow& row : kBinary) {
    if (call.node().op_type() == row.name) return call.Wants(0) && FollowBinary(call, row.function);
  }
  return false;
}

}  // namespace gradweave::onnx
