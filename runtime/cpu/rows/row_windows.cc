#include "gradweave/runtime/cpu/rows/row_windows.h"

#include "gradweave/runtime/cpu/rows/row_choices.h"

namespace gradweave {
namespace {

// Loops over shorter rows cost more than a copy of them.
constexpr int64_t kLeastWindowColumns = 32;

// Returns the window of a slice of some columns, and one without a step for other nodes.
RowWindow WindowOf(const Graph& graph, const Node& node) {
  if (node.op->kind != OpKind::kSlice) return {};
  const Shape &x = graph.type(node.inputs[0]).shape, &y = node.outputs[0].shape;
  const int last = y.rank() - 1;
  if (last < 1 || !x.is_static() || y[last].size() < kLeastWindowColumns) return {};
  for (int64_t step : node.attribute<Integers>("steps")) {
    if (step != 1) return {};
  }
  for (int axis = 0; axis < last; ++axis) {
    if (!(x[axis] == y[axis])) return {};
  }
  return {x[last].size(), node.attribute<Shape>("start")[last].size()};
}

int64_t Columns(const Graph& graph, Port port) {
  const Shape& shape = graph.type(port).shape;
  return shape[shape.rank() - 1].size();
}

}  // namespace

absl::flat_hash_map<Port, RowWindow> FindRowWindows(const Graph& graph, absl::Span<const RowRegion> regions) {
  absl::flat_hash_map<Port, RowWindow> windows;
  absl::flat_hash_map<Port, int> other_uses;  // Counts readers of slices that read no window.
  for (const Node& node : graph.nodes()) {
    const RowWindow window = WindowOf(graph, node);
    if (window.step > 0) windows[{node.id, 0}] = window;
    // A region reads the slice behind a view. Others may read the view too.
    for (Port input : node.inputs) {
      if (windows.contains(input)) other_uses[input] += node.op->alias ? 2 : 1;
    }
  }
  if (windows.empty()) return windows;
  for (const auto& [name, ports] : graph.outputs()) {
    for (Port port : ports) ++other_uses[port];
  }
  for (const RowRegion& region : regions) {
    // A flat region may be divided into rows of any length.
    int64_t columns = IsFlat(graph, region) ? 0 : region.columns;
    for (const RowRegion::Member& member : region.nodes) {
      for (const RowRegion::Operand& operand : member.operands) {
        if (operand.extent != RowExtent::kFull || !windows.contains(operand.port)) continue;
        if (columns == 0) columns = Columns(graph, operand.port);
        if (Columns(graph, operand.port) == columns) --other_uses[operand.port];
      }
    }
  }
  absl::erase_if(windows, [&](const auto& entry) { return other_uses[entry.first] != 0; });
  return windows;
}

}  // namespace gradweave
