#include "gradweave/runtime/cpu/region_cost.h"

#include <algorithm>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "gradweave/runtime/cpu/ops/choices.h"
#include "gradweave/runtime/cpu/tile/tile_cost.h"

namespace gradweave {
namespace {

struct ChoiceRow {
  OpKind op;
  std::vector<KernelChoice> (*choices)(const KernelRequest& request);
};
constexpr ChoiceRow kChoices[] = {{OpKind::kConv2D, Conv2DChoices},
                                  {OpKind::kConv2DInputGrad, Conv2DInputGradChoices},
                                  {OpKind::kConv2DFilterGrad, Conv2DFilterGradChoices},
                                  {OpKind::kMatMul, MatMulChoices}};

bool IsPool(OpKind op) {
  return op == OpKind::kAvgPool2D || op == OpKind::kAvgPool2DGrad || op == OpKind::kMaxPool2D ||
         op == OpKind::kMaxUnpool2D;
}

double ElementsOf(const TensorType& type) { return static_cast<double>(type.shape.num_elements().size()); }

Work Streamed(const TensorType& type) { return Moved(ElementsOf(type), static_cast<double>(type.byte_size())); }

Port WithoutAliases(const Graph& graph, Port port) {
  while (graph.node(port.node).op->alias) port = graph.node(port.node).inputs[0];
  return port;
}

// Returns true if a row region can pass the value to an elementwise node of that many elements.
bool PassesOn(const Graph& graph, Port port, double elements) {
  const Node& producer = graph.node(WithoutAliases(graph, port).node);
  return (producer.op->elementwise || producer.op->kind == OpKind::kMatMul) &&
         ElementsOf(producer.outputs[0]) == elements;
}

// Averages of 2x2 windows are elementwise loops. A gradient of maxima takes a share of the time of
// a pool's other loops.
Estimate PoolEstimate(const Node& node, const TensorTypes& operands) {
  constexpr double kShareOfUnpool = 0.4;
  const TensorType& large = ElementsOf(operands[0]) > ElementsOf(node.outputs[0]) ? operands[0] : node.outputs[0];
  const TensorType& small = &large == &operands[0] ? node.outputs[0] : operands[0];
  const bool is_average = node.op->kind == OpKind::kAvgPool2D || node.op->kind == OpKind::kAvgPool2DGrad;
  Estimate estimate;
  if (is_average && node.attribute<Integers>("window") == Integers{2, 2} &&
      node.attribute<Integers>("stride") == Integers{2, 2}) {
    return estimate.Add(Loop::kElements, Streamed(large)).Add(Loop::kElements, Streamed(small));
  }
  return estimate.Add(Loop::kWindows, {.moved = ElementsOf(large) + ElementsOf(small)},
                      node.op->kind == OpKind::kMaxUnpool2D ? kShareOfUnpool : 1);
}

}  // namespace

Estimate NodeEstimate(const Graph& graph, const Node& node, bool toom_cook) {
  Estimate estimate;
  if (node.inputs.empty() || node.op->alias) return estimate;
  const TensorTypes operands = graph.OperandTypes(node);
  for (const ChoiceRow& row : kChoices) {
    if (node.op->kind == row.op) return Cheapest(row.choices({node, operands, 1, toom_cook})).estimate;
  }
  if (IsPool(node.op->kind)) return PoolEstimate(node, operands);
  estimate.Add(Loop::kElements, {.calls = 1});
  const double elements = ElementsOf(node.outputs[0]);
  for (Port input : node.inputs) {
    if (!node.op->elementwise || !PassesOn(graph, input, elements))
      estimate.Add(Loop::kElements, Streamed(graph.type(input)));
  }
  for (const TensorType& output : node.outputs) estimate.Add(Loop::kElements, Streamed(output));
  return estimate;
}

Estimate OneByOneEstimate(const Graph& graph, const BatchRegion& region, bool toom_cook) {
  Estimate estimate;
  // Elementwise nodes whose readers are all elementwise do not store their results.
  absl::flat_hash_map<NodeId, int> other_readers;
  for (const BatchRegion::Output& output : region.outputs) ++other_readers[output.port.node];
  for (const BatchRegion::Member& member : region.nodes) {
    const Node& node = graph.node(member.node);
    estimate.Add(NodeEstimate(graph, node, toom_cook));
    for (Port input : node.inputs) {
      const Port made = WithoutAliases(graph, input);
      const double elements = ElementsOf(node.outputs[0]);
      if (!node.op->elementwise || !PassesOn(graph, made, elements)) ++other_readers[made.node];
    }
  }
  for (const BatchRegion::Member& member : region.nodes) {
    const Node& node = graph.node(member.node);
    if (node.op->elementwise && !other_readers.contains(node.id))
      estimate.Add(Loop::kElements, Streamed(node.outputs[0]), -1);
  }
  return estimate;
}

double TilesSaving(const Graph& graph, const BatchRegion& region, bool toom_cook) {
  // A region that takes samples from others decides for them too: they all run in tiles, or none.
  // No estimate has the time that tiles save if values pass from one region to the next, so minimal
  // filtering does not count there.
  const bool takes_samples =
      std::any_of(region.operands.begin(), region.operands.end(), [&](const BatchRegion::Operand& operand) {
        return operand.batched && !graph.node(WithoutAliases(graph, operand.port).node).op->is_source();
      });
  const Estimate tiled = TileEstimate(graph, region, toom_cook);
  const Estimate alone = OneByOneEstimate(graph, region, toom_cook && !takes_samples);
  return (alone.nanoseconds() - tiled.nanoseconds()) / 1e3;
}

}  // namespace gradweave
