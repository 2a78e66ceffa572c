// The forms in ONNX of ops that move elements.
#include <cstdint>
#include <limits>
#include <string>

#include "gradweave/frontend/onnx/exporter.h"
#include "gradweave/graph/status_macros.h"

namespace gradweave::onnx {
namespace {

// Concat and others have one attribute, of the same name.
absl::Status WriteAxis(Exporter& e, const Node& node) {
  e.Place(FindForm(node.op->name)->form, node, {{"axis", node.attribute<int64_t>("axis")}});
  return absl::OkStatus();
}

absl::Status WriteReshape(Exporter& e, const Node& node) {
  GW_ASSIGN_OR_RETURN(std::string reshaped, e.Reshaped(node, e.Name(node, 0), node.outputs[0].shape));
  e.Set(node, std::move(reshaped));
  return absl::OkStatus();
}

absl::Status WriteTranspose(Exporter& e, const Node& node) {
  e.Place("Transpose", node, {{"perm", node.attribute<Integers>("permutation")}});
  return absl::OkStatus();
}

absl::Status WriteBroadcast(Exporter& e, const Node& node) {
  GW_ASSIGN_OR_RETURN(std::string spread, e.Spread(node, e.Name(node, 0), node.outputs[0].shape));
  e.Set(node, std::move(spread));
  return absl::OkStatus();
}

absl::Status WriteSlice(Exporter& e, const Node& node) {
  const Shape& limit = node.attribute<Shape>("limit");
  Integers axes;
  for (int i = 0; i < limit.rank(); ++i) axes.push_back(i);
  GW_ASSIGN_OR_RETURN(const std::string starts, e.Sizes(node, node.attribute<Shape>("start")));
  GW_ASSIGN_OR_RETURN(const std::string ends, e.Sizes(node, limit));
  e.Set(node, e.Add("Slice", {e.Name(node, 0), starts, ends, e.List(axes), e.List(node.attribute<Integers>("steps"))}));
  return absl::OkStatus();
}

absl::Status WriteReverse(Exporter& e, const Node& node) {
  const Integers& axes = node.attribute<Integers>("axes");
  if (axes.empty()) {
    e.Place("Identity", node);
    return absl::OkStatus();
  }
  const Integers back(axes.size(), -1), ends(axes.size(), std::numeric_limits<int64_t>::min());
  e.Set(node, e.Add("Slice", {e.Name(node, 0), e.List(back), e.List(ends), e.List(axes), e.List(back)}));
  return absl::OkStatus();
}

// A value of this shape with elements `number` around it and between its elements. ONNX pads only
// around: each element gets an axis of its own, which is padded and merged.
absl::StatusOr<std::string> Padded(Exporter& e, const Node& node, std::string value, Shape shape, const Shape& low,
                                   Shape high, const Integers& interior, const std::string& number) {
  for (int axis = 0; axis < shape.rank(); ++axis) {
    const int64_t between = interior[static_cast<size_t>(axis)];
    if (between == 0) continue;
    Integers pads(2 * static_cast<size_t>(shape.rank() + 1), 0);
    pads[static_cast<size_t>(shape.rank() + 1 + axis + 1)] = between;
    value = e.Add("Pad", {e.WithAxes(value, {axis + 1}), e.List(pads), number}, {{"mode", std::string("constant")}});
    shape[axis] = shape[axis] * (between + 1);
    high[axis] = high[axis] - between;
    GW_ASSIGN_OR_RETURN(value, e.Reshaped(node, value, shape));
  }
  Shape pads = low;
  for (const Dim& dim : high) pads.Append(dim);
  GW_ASSIGN_OR_RETURN(const std::string sizes, e.Sizes(node, pads));
  return e.Add("Pad", {value, sizes, number}, {{"mode", std::string("constant")}});
}

absl::Status WritePad(Exporter& e, const Node& node) {
  const std::string number = e.Number(node.outputs[0].dtype, node.attribute<double>("value"));
  GW_ASSIGN_OR_RETURN(std::string padded,
                      Padded(e, node, e.Name(node, 0), e.In(node, 0).shape, node.attribute<Shape>("low"),
                             node.attribute<Shape>("high"), node.attribute<Integers>("interior"), number));
  e.Set(node, std::move(padded));
  return absl::OkStatus();
}

// Each part is padded to the size of x and added.
absl::Status WriteSliceAdd(Exporter& e, const Node& node) {
  const Shape &x = e.In(node, 0).shape, &starts = node.attribute<Shape>("starts");
  const Integers& steps = node.attribute<Integers>("steps");
  std::string sum = e.Name(node, 0);
  const std::string zero = e.Number(e.ComputeType(node), 0);
  for (int i = 1; i < static_cast<int>(node.inputs.size()); ++i) {
    const Shape& part = e.In(node, i).shape;
    if (part.num_elements() == Dim(0)) continue;
    Shape low, high;
    Integers interior;
    for (int axis = 0; axis < x.rank(); ++axis) {
      const int at = (i - 1) * x.rank() + axis;
      const int64_t step = part[axis] == Dim(1) ? 1 : steps[static_cast<size_t>(at)];
      low.Append(starts[at]);
      high.Append(x[axis] - starts[at] - (part[axis] - 1) * step - 1);
      interior.push_back(step - 1);
    }
    GW_ASSIGN_OR_RETURN(const std::string padded, Padded(e, node, e.Name(node, i), part, low, high, interior, zero));
    sum = e.Add("Add", {sum, padded});
  }
  e.Set(node, e.Add("Identity", {sum}));
  return absl::OkStatus();
}

absl::Status WriteDimSize(Exporter& e, const Node& node) {
  const std::string place = e.Constant(Tensor::Scalar<int64_t>(node.attribute<int64_t>("axis")));
  const std::string size = e.Add("Gather", {e.Add("Shape", {e.Name(node, 0)}), place});
  e.Set(node, e.CastTo(size, node.outputs[0].dtype));
  return absl::OkStatus();
}

constexpr ExportRow kRows[] = {
    {"BroadcastTo", "Expand", WriteBroadcast},
    {"Concat", "Concat", WriteAxis},
    {"DimSize", "Gather of Shape", WriteDimSize},
    {"Gather", "Gather", WriteAxis},
    {"LogSoftmax", "LogSoftmax", WriteAxis},
    {"Pad", "Pad", WritePad},
    {"Reshape", "Reshape", WriteReshape},
    {"Reverse", "Slice", WriteReverse},
    {"Slice", "Slice", WriteSlice},
    {"SliceAdd", "Pad of each part, and Add", WriteSliceAdd, true},
    {"Softmax", "Softmax", WriteAxis},
    {"Transpose", "Transpose", WriteTranspose},
};

}  // namespace

absl::Span<const ExportRow> ShapeForms() { return kRows; }

}  // namespace gradweave::onnx
