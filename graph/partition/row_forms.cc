#include "gradweave/graph/partition/row_forms.h"

#include <algorithm>

#include "absl/container/inlined_vector.h"

namespace gradweave {
namespace {

// Neighbouring axes of one kind, joined.
struct AxisGroup {
  int64_t size;
  bool marked;
};
using AxisGroups = absl::InlinedVector<AxisGroup, 4>;

// Returns the groups of a shape from the last axis to the first, without axes of size 1. Neighbours
// are marked differently.
template <typename IsMarked>
AxisGroups GroupsOf(const Shape& shape, IsMarked is_marked) {
  AxisGroups groups;
  for (int axis = shape.rank() - 1; axis >= 0; --axis) {
    const int64_t size = shape[axis].size();
    if (size == 1) continue;
    const bool marked = is_marked(axis);
    if (!groups.empty() && groups.back().marked == marked) {
      groups.back().size *= size;
    } else {
      groups.push_back({size, marked});
    }
  }
  return groups;
}

// Marks the axes along which the operand has elements of its own.
AxisGroups GroupsOfOperand(const Shape& operand, const Shape& full) {
  const int added = full.rank() - operand.rank();
  return GroupsOf(full, [&](int axis) { return axis >= added && operand[axis - added].size() != 1; });
}

}  // namespace

std::optional<RowRegion::Operand> OperandByRows(Port port, const Shape& operand, const Shape& full, int64_t columns) {
  AxisGroups groups = GroupsOfOperand(operand, full);
  if (groups.empty()) groups.push_back({1, false});
  if (groups[0].size % columns != 0) return std::nullopt;
  const bool by_column = groups[0].marked;
  groups[0].size /= columns;
  // The rows, from the inside: those that repeat an entry, the entries, and the repetitions of all.
  enum Part { kRepeat, kPeriod, kAll };
  int64_t sizes[] = {1, 1, 1};
  int last = kRepeat;
  for (const AxisGroup& group : groups) {
    if (group.size == 1) continue;
    const int part = group.marked ? kPeriod : last == kRepeat ? kRepeat : kAll;
    if (part < last) return std::nullopt;
    sizes[part] = group.size;
    last = part;
  }
  RowRegion::Operand result{.port = port, .extent = by_column ? RowExtent::kPerColumn : RowExtent::kScalar};
  if (sizes[kRepeat] == 1 && sizes[kAll] == 1) {
    if (by_column || sizes[kPeriod] > 1) result.extent = by_column ? RowExtent::kFull : RowExtent::kPerRow;
  } else if (sizes[kPeriod] > 1) {
    result.extent = by_column ? RowExtent::kFullPeriodic : RowExtent::kPerRowPeriodic;
    result.repeat = sizes[kRepeat];
    result.period = sizes[kPeriod];
  }
  return result;
}

int64_t NaturalColumns(const Shape& operand, const Shape& full) {
  const AxisGroups groups = GroupsOfOperand(operand, full);
  return groups.size() > 1 ? groups[0].size : 0;
}

int64_t LastAxes(const Shape& shape, int axes) {
  int64_t product = 1;
  for (int axis = std::max(0, shape.rank() - axes); axis < shape.rank(); ++axis) product *= shape[axis].size();
  return product;
}

std::optional<RowForm> FormOf(const Node& node, const Shape& x) {
  const OpKind op = node.op->kind;
  if (op == OpKind::kSoftmax || op == OpKind::kLogSoftmax) {
    if (node.attribute<int64_t>("axis") != x.rank() - 1) return std::nullopt;
    return RowForm{LastAxes(x, 1), RowExtent::kFull};
  }
  if (!node.op->reduction) return std::nullopt;
  const Integers& axes = node.attribute<Integers>("axes");
  const AxisGroups groups =
      GroupsOf(x, [&](int axis) { return std::find(axes.begin(), axes.end(), axis) != axes.end(); });
  if (groups.size() < 2 || groups.size() > 3) return std::nullopt;
  const bool reduces_columns = groups[0].marked;
  if (groups.size() == 2 && reduces_columns) return RowForm{groups[0].size, RowExtent::kPerRow};
  // Only Sum may also reduce over the rows.
  if (op != OpKind::kSum || (groups.size() == 3 && !reduces_columns)) return std::nullopt;
  return RowForm{groups[0].size, reduces_columns ? RowExtent::kPerRowPeriodic : RowExtent::kPerColumn};
}

}  // namespace gradweave
