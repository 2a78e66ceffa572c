#include "gradweave/runtime/cpu/tile/tile_cost.h"

#include <algorithm>

#include "absl/container/flat_hash_set.h"
#include "gradweave/runtime/cpu/tile/tile_lowering.h"
#include "gradweave/runtime/cpu/tile/toom_cook.h"
#include "gradweave/runtime/kernel/conv_geometry.h"
#include "gradweave/runtime/plan/memory_plan.h"

namespace gradweave {
namespace {

// The time to pack a weight, as a share of that of an element at a tile's boundary. Found by
// trying.
constexpr double kPackingShare = 0.25;

double ElementsOf(const TensorType& type) { return static_cast<double>(type.shape.num_elements().size()); }

// The numbers that the estimates of all nodes of a region depend on.
struct TileSizes {
  const TileKernels& kernels;
  bool toom_cook;
  double batch;  // Number of samples.
  double tiles;
  double weight_bytes;                   // Bytes of the weights of all convolutions and products.
  absl::flat_hash_set<NodeId> assigned;  // Variables that the graph assigns.

  double lanes() const { return kernels.lanes; }
  // Returns the floats of a value with a batch in all tiles.
  double FloatsOf(const TensorType& type) const { return ElementsOf(type) / batch * lanes() * tiles; }
  // The cache has to hold one tile of the value and of another one.
  Work Touched(const TensorType& type) const {
    const double floats = FloatsOf(type);
    return Moved(floats, 2 * floats / tiles * sizeof(float));
  }
  // Returns the cost of weights that every tile reads once. They come from beyond the second-level
  // cache if the weights of the region do not fit into it.
  Estimate Weights(double floats) const { return Estimate().Add(Loop::kTileSums, Moved(floats * tiles, weight_bytes)); }
  // Returns the cost of packing weights into this many floats, which a plan can keep from run to
  // run unless it changes them or they are too large.
  Estimate Packing(const Graph& graph, Port weights, double floats) const {
    if (!IsPackedAgain(graph, weights, assigned) && weight_bytes <= kMostKeptBytes) return {};
    return Estimate().Add(Loop::kTileBoundary, Moved(floats, weight_bytes), kPackingShare);
  }
  // Returns the cost of sums over samples: each chunk of tiles clears its sums and adds them up.
  Estimate Sums(double elements) const {
    const double lanes = kernels.folded_lanes;
    return Estimate().Add(Loop::kTileElements, Moved(elements * lanes * std::min<double>(tiles, kMostTileChunks),
                                                     elements * lanes * sizeof(float)));
  }
};

Estimate Convolution(const TileSizes& sizes, const BatchNode& at, const ConvGeometry& g, UnitConvolution c,
                     int64_t input_columns, int64_t rows, int64_t columns) {
  const double times = sizes.tiles * static_cast<double>(rows * c.groups);
  const Port filter = at.node.inputs[1];
  Estimate estimate = sizes.Weights(static_cast<double>(g.filter_size()));
  if (g.unit_strides()) {
    if (IsPackedAgain(at.graph, filter, sizes.assigned)) c.packings = 1 / (sizes.tiles * static_cast<double>(rows));
    return estimate.Add(RowEstimate(sizes.kernels, c, input_columns, columns, sizes.toom_cook), times);
  }
  const double weights = static_cast<double>(g.filter_size() / g.groups);
  return estimate.Add(sizes.Packing(at.graph, filter, static_cast<double>(g.filter_size())))
      .Add(Loop::kTileSums, {.calls = times, .products = static_cast<double>(g.output_size() * g.taps()) * sizes.tiles})
      .Add(Loop::kTileSums, Moved(weights, weights * sizeof(float)), times);
}

Estimate FilterGradient(const TileSizes& sizes, const ConvGeometry& g) {
  const double times = sizes.tiles * static_cast<double>(g.output_height * g.groups);
  Estimate estimate = sizes.Sums(static_cast<double>(g.filter_size()));
  if (g.unit_strides()) {
    return estimate.Add(
        RowEstimate(sizes.kernels, UnitFilterGradOf(g), g.output_height, g.output_width, sizes.toom_cook), times);
  }
  return estimate.Add(Loop::kTileFilters,
                      {.calls = times, .products = static_cast<double>(g.output_size() * g.taps()) * sizes.tiles});
}

Estimate DenseLayer(const TileSizes& sizes, const Graph& graph, const Node& node) {
  const Shape& weights = graph.type(node.inputs[1]).shape;
  const bool transposed = node.attribute<bool>("transpose_b");
  const int64_t terms = weights[transposed ? 1 : 0].size(), outputs = weights[transposed ? 0 : 1].size();
  const double floats = static_cast<double>(terms * outputs);
  const int64_t places =
      static_cast<int64_t>(ElementsOf(node.outputs[0]) / sizes.batch) / std::max<int64_t>(outputs, 1);
  const DenseBlocks dense = ChooseDenseBlocks(sizes.kernels, outputs, places);
  const double blocks = static_cast<double>(dense.blocks.rows.size() * dense.blocks.columns.size());
  Estimate estimate = sizes.Weights(floats);
  if (dense.by_outputs || transposed) estimate.Add(sizes.Packing(graph, node.inputs[1], floats));
  return estimate.Add(Loop::kTileSums, {.calls = blocks, .products = dense.blocks.cost * static_cast<double>(terms)},
                      sizes.tiles);
}

Estimate TileNodeEstimate(const TileSizes& sizes, const BatchNode& at) {
  const Node& node = at.node;
  const OpKind op = node.op->kind;
  auto shape = [&](int i) -> const Shape& { return OperandType(at, i).shape; };
  if (node.op->alias) return {};
  if (op == OpKind::kConv2D) {
    const ConvGeometry g(node, shape(0), shape(1), node.outputs[0].shape);
    return Convolution(sizes, at, g, UnitConvolutionOf(g), g.width, g.output_height, g.output_width);
  }
  if (op == OpKind::kConv2DInputGrad) {
    const ConvGeometry g(node, node.outputs[0].shape, shape(1), shape(0));
    return Convolution(sizes, at, g, UnitInputGradOf(g), g.output_width, g.height, g.width);
  }
  if (op == OpKind::kConv2DFilterGrad) return FilterGradient(sizes, {node, shape(0), node.outputs[0].shape, shape(1)});
  if (op == OpKind::kMatMul) return DenseLayer(sizes, at.graph, node);
  Estimate estimate;
  estimate.Add(Loop::kTileElements, {.calls = sizes.tiles});
  for (size_t i = 0; i < node.inputs.size(); ++i) {
    if (at.batched[i]) estimate.Add(Loop::kTileElements, sizes.Touched(OperandType(at, static_cast<int>(i))));
  }
  if (at.summed) return estimate.Add(sizes.Sums(ElementsOf(node.outputs[0])));
  estimate.Add(Loop::kTileElements, sizes.Touched(node.outputs[0]));
  return estimate;
}

bool HasWeights(OpKind op) { return op == OpKind::kConv2D || op == OpKind::kConv2DInputGrad || op == OpKind::kMatMul; }

}  // namespace

absl::flat_hash_set<NodeId> AssignedVariables(const Graph& graph) {
  absl::flat_hash_set<NodeId> assigned;
  for (const Node& node : graph.nodes()) {
    if (node.op->kind == OpKind::kAssign) assigned.insert(node.inputs[0].node);
  }
  return assigned;
}

bool IsPackedAgain(const Graph& graph, Port weights, const absl::flat_hash_set<NodeId>& assigned) {
  const Node* node = &graph.node(weights.node);
  while (node->op->alias) node = &graph.node(node->inputs[0].node);
  return node->op->kind == OpKind::kVariable ? assigned.contains(node->id) : node->op->kind != OpKind::kConstant;
}

int LanesOfTiles(int64_t batch) {
  return batch <= ThisMachine().most_batch_of_short_tiles ? kLanesOfAvx2 : GetTileKernels().lanes;
}

Estimate TileEstimate(const Graph& graph, const BatchRegion& region, bool toom_cook) {
  const TileKernels& kernels = GetTileKernels(LanesOfTiles(region.batch));
  TileSizes sizes{kernels,
                  toom_cook,
                  static_cast<double>(region.batch),
                  static_cast<double>((region.batch + kernels.lanes - 1) / kernels.lanes),
                  0,
                  AssignedVariables(graph)};
  for (const BatchRegion::Member& member : region.nodes) {
    const Node& node = graph.node(member.node);
    if (HasWeights(node.op->kind)) sizes.weight_bytes += static_cast<double>(graph.type(node.inputs[1]).byte_size());
  }
  Estimate estimate;
  for (const BatchRegion::Member& member : region.nodes)
    estimate.Add(TileNodeEstimate(sizes, {graph, graph.node(member.node), member.batched, member.summed}));
  for (const BatchRegion::Operand& operand : region.operands) {
    if (operand.batched) estimate.Add(Loop::kTileBoundary, sizes.Touched(graph.type(operand.port)));
  }
  for (const BatchRegion::Output& output : region.outputs) {
    if (!output.summed) estimate.Add(Loop::kTileBoundary, sizes.Touched(graph.type(output.port)));
  }
  return estimate;
}

}  // namespace gradweave
