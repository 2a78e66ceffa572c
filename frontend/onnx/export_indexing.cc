// The forms in ONNX of ops with indices.
#include <algorithm>
#include <cstdint>
#include <string>

#include "gradweave/frontend/onnx/exporter.h"
#include "gradweave/graph/status_macros.h"

namespace gradweave::onnx {
namespace {

// Returns, for each element of a list of indices, the place of the first or the last equal one.
std::string PlaceOfEqual(Exporter& e, const std::string& indices, bool last) {
  const std::string same = e.Add("Equal", {e.WithAxes(indices, {1}), e.WithAxes(indices, {0})});
  return e.Add("ArgMax", {e.CastTo(same, kInt32)},
               {{"axis", int64_t{1}}, {"keepdims", int64_t{0}}, {"select_last_index", int64_t{last ? 1 : 0}}});
}

// The axes of x from `axis` on, `count` of them, in front of the others; and the order that undoes
// it.
Integers ToFront(int rank, int64_t axis, int64_t count) {
  Integers order;
  for (int64_t i = 0; i < count; ++i) order.push_back(axis + i);
  for (int64_t i = 0; i < rank; ++i) {
    if (i < axis || i >= axis + count) order.push_back(i);
  }
  return order;
}
Integers Inverse(const Integers& order) {
  Integers inverse(order.size());
  for (size_t i = 0; i < order.size(); ++i) inverse[static_cast<size_t>(order[i])] = static_cast<int64_t>(i);
  return inverse;
}

// x with rows of updates at indices along its first axis.
struct RowUpdate {
  std::string x, indices, updates;  // [rows, rest...], int64[count], [count, rest...].
  Dim rows;
  Dim count;
  int rank;  // The rank of x.
};

// In ONNX, indices that occur twice have no defined result. Of these the last one counts: the
// others, and indices outside of x if `leave_out`, go to a row behind x, which is then removed.
absl::StatusOr<std::string> SetRows(Exporter& e, const Node& node, const RowUpdate& rows, bool leave_out) {
  GW_ASSIGN_OR_RETURN(const std::string behind, e.Size(node, rows.rows));
  GW_ASSIGN_OR_RETURN(const std::string count, e.Size(node, rows.count));
  std::string indices = rows.indices;
  const std::string zero = e.Number(kInt64, 0);
  if (leave_out) {
    const std::string inside =
        e.Add("And", {e.Add("GreaterOrEqual", {indices, zero}), e.Add("Less", {indices, behind})});
    indices = e.Add("Where", {inside, indices, behind});
  }
  const std::string own = e.Add("Range", {zero, e.Add("Squeeze", {count, e.List({0})}), e.Number(kInt64, 1)});
  const std::string is_last = e.Add("Equal", {PlaceOfEqual(e, indices, true), own});
  indices = e.Add("Where", {is_last, indices, behind});
  Integers pads(2 * static_cast<size_t>(rows.rank), 0);
  pads[static_cast<size_t>(rows.rank)] = 1;
  const std::string longer =
      e.Add("Pad", {rows.x, e.List(pads), e.Number(e.ComputeType(node), 0)}, {{"mode", std::string("constant")}});
  const std::string scattered = e.Add("ScatterND", {longer, e.WithAxes(indices, {1}), rows.updates});
  return e.Add("Slice", {scattered, e.List({0}), e.List({-1}), e.List({0})});
}

absl::Status WriteScatter(Exporter& e, const Node& node) {
  const bool adds = node.op->kind == OpKind::kScatterAdd;
  const std::string how = adds ? "add" : node.attribute<std::string>("reduction");
  if ((how == "max" || how == "min") && e.opset() < 18) return e.Refuse(node, "ONNX has its form from opset 18 on");
  const Shape &x = e.In(node, 0).shape, &indices = e.In(node, 1).shape, &updates = e.In(node, 2).shape;
  const int64_t axis = node.attribute<int64_t>("axis");
  const Integers x_order = ToFront(x.rank(), axis, 1), order = ToFront(updates.rank(), axis, indices.rank());
  RowUpdate rows{.x = axis == 0 ? e.Name(node, 0) : e.Transposed(e.Name(node, 0), x_order),
                 .indices = e.CastTo(e.Name(node, 1), kInt64),
                 .updates = axis == 0 ? e.Name(node, 2) : e.Transposed(e.Name(node, 2), order),
                 .rows = x[static_cast<int>(axis)],
                 .count = indices.num_elements(),
                 .rank = x.rank()};
  if (indices.rank() != 1) {
    Shape flat{rows.count};
    for (int i = 0; i < x.rank(); ++i) {
      if (i != axis) flat.Append(x[i]);
    }
    GW_ASSIGN_OR_RETURN(rows.indices, e.Reshaped(node, rows.indices, {rows.count}));
    GW_ASSIGN_OR_RETURN(rows.updates, e.Reshaped(node, rows.updates, flat));
  }
  std::string result;
  if (how == "set") {
    GW_ASSIGN_OR_RETURN(result, SetRows(e, node, rows, false));
  } else {
    result = e.Add("ScatterND", {rows.x, e.WithAxes(rows.indices, {1}), rows.updates}, {{"reduction", how}});
  }
  if (axis != 0) result = e.Transposed(result, Inverse(x_order));
  e.Set(node, std::move(result));
  return absl::OkStatus();
}

absl::Status WritePutRows(Exporter& e, const Node& node) {
  const Shape &x = e.In(node, 0).shape, &indices = e.In(node, 1).shape;
  RowUpdate rows{.x = e.Name(node, 0),
                 .indices = e.CastTo(e.Name(node, 1), kInt64),
                 .updates = e.Name(node, 2),
                 .rows = x[0],
                 .count = indices.num_elements(),
                 .rank = x.rank()};
  Shape flat = x;
  flat[0] = rows.count;
  GW_ASSIGN_OR_RETURN(rows.indices, e.Reshaped(node, rows.indices, {rows.count}));
  GW_ASSIGN_OR_RETURN(rows.updates, e.Reshaped(node, rows.updates, flat));
  GW_ASSIGN_OR_RETURN(std::string result, SetRows(e, node, rows, true));
  e.Set(node, std::move(result));
  return absl::OkStatus();
}

absl::Status WriteTakeRows(Exporter& e, const Node& node) {
  const Shape &x = e.In(node, 0).shape, &indices = e.In(node, 1).shape;
  GW_ASSIGN_OR_RETURN(const std::string size, e.Size(node, x[0]));
  const std::string behind = e.Add("Squeeze", {size, e.List({0})}), zero = e.Number(kInt64, 0);
  const std::string at = e.CastTo(e.Name(node, 1), kInt64);
  std::string inside = e.Add("And", {e.Add("GreaterOrEqual", {at, zero}), e.Add("Less", {at, behind})});
  const std::string rows =
      e.Add("Gather", {e.Name(node, 0), e.Add("Where", {inside, at, zero})}, {{"axis", int64_t{0}}});
  Integers axes;
  for (int i = 1; i < x.rank(); ++i) axes.push_back(indices.rank() + i - 1);
  if (!axes.empty()) inside = e.WithAxes(inside, axes);
  e.Set(node, e.Add("Where", {inside, rows, e.Number(e.ComputeType(node), 0)}));
  return absl::OkStatus();
}

// Each row is added to the first one with its index, and taken from there.
absl::Status WriteSumRows(Exporter& e, const Node& node) {
  const Shape &indices = e.In(node, 0).shape, &rows = e.In(node, 1).shape;
  Shape flat{indices.num_elements()};
  for (int i = indices.rank(); i < rows.rank(); ++i) flat.Append(rows[i]);
  GW_ASSIGN_OR_RETURN(const std::string at, e.Reshaped(node, e.Name(node, 0), {flat[0]}));
  GW_ASSIGN_OR_RETURN(const std::string values, e.Reshaped(node, e.Name(node, 1), flat));
  const std::string first = PlaceOfEqual(e, at, false);
  GW_ASSIGN_OR_RETURN(const std::string zeros, e.Spread(node, e.Number(e.ComputeType(node, 1), 0), flat));
  const std::string sums =
      e.Add("ScatterND", {zeros, e.WithAxes(first, {1}), values}, {{"reduction", std::string("add")}});
  const std::string taken = e.Add("Gather", {sums, first}, {{"axis", int64_t{0}}});
  GW_ASSIGN_OR_RETURN(std::string result, e.Reshaped(node, taken, node.outputs[0].shape));
  e.Set(node, std::move(result));
  return absl::OkStatus();
}

absl::Status WriteOneHot(Exporter& e, const Node& node) {
  const std::string values = e.Constant(Tensor::Of<float>({2}, {0, 1}));
  const std::string depth = e.Number(kInt64, static_cast<double>(node.attribute<int64_t>("depth")));
  const std::string hot = e.Add("OneHot", {e.CastTo(e.Name(node, 0), kInt64), depth, values}, {{"axis", int64_t{-1}}});
  e.Set(node, e.CastTo(hot, node.outputs[0].dtype));
  return absl::OkStatus();
}

absl::Status WriteArgSort(Exporter& e, const Node& node) {
  GW_ASSIGN_OR_RETURN(const std::string count, e.Sizes(node, node.attribute<Shape>("count")));
  const int64_t largest = node.attribute<bool>("descending") ? 1 : 0;
  const Exporter::Names top = e.AddMany("TopK", {e.Name(node, 0), count}, 2,
                                        {{"axis", int64_t{-1}}, {"largest", largest}, {"sorted", int64_t{1}}});
  e.Set(node, e.CastTo(top[1], node.outputs[0].dtype));
  return absl::OkStatus();
}

constexpr ExportRow kRows[] = {
    {"ArgSort", "TopK", WriteArgSort, true},
    {"OneHot", "OneHot", WriteOneHot},
    {"PutRows", "ScatterND", WritePutRows, true},
    {"Scatter", "ScatterND", WriteScatter, true},
    {"ScatterAdd", "ScatterND", WriteScatter, true},
    {"SumRows", "ScatterND to the first equal index, and Gather", WriteSumRows, true},
    {"TakeRows", "Gather and Where", WriteTakeRows, true},
};

}  // namespace

absl::Span<const ExportRow> IndexingForms() { return kRows; }

}  // namespace gradweave::onnx
