#include "gradweave/runtime/cpu/rows/row_choices.h"

#include <optional>

#include "gradweave/runtime/cpu/conv/conv_kernels.h"
#include "gradweave/runtime/cpu/cost/cost_model.h"
#include "gradweave/runtime/cpu/rows/sample_convolution.h"
#include "gradweave/runtime/cpu/simd/vector_loops.h"

namespace gradweave {
namespace {

// A product with fewer rows is divided by columns, so it cannot be the producer of a region with
// whole rows.
constexpr int64_t kLeastWholeRows = 64;

}  // namespace

bool RowsSupport(const Graph& graph, const Node& node) {
  if (node.op->elementwise) {
    const std::optional<DType> dtype = FloatingDTypeOf(graph, node);
    // A Cast that is left here has truth values on one side.
    if (dtype.has_value() && (node.op->kind == OpKind::kCast || node.op->kind == OpKind::kBroadcastTo)) return true;
    return FindElementLoop(node.op->name, dtype.value_or(kBool)).run != nullptr;
  }
  const OpKind op = node.op->kind;
  return IsFloating(node.outputs[0].dtype) && (op == OpKind::kSum || op == OpKind::kMax || op == OpKind::kSoftmax);
}

bool NeedsWholeRows(const Graph& graph, const RowRegion& region) {
  for (const RowRegion::Member& member : region.nodes) {
    if (member.result != RowExtent::kFull || graph.node(member.node).op->kind == OpKind::kSoftmax) return true;
  }
  return false;
}

MatMulProduct CutProduct(const MatMulSizes& sizes, bool whole_rows, int threads) {
  return whole_rows ? MatMulProduct::OfWholeRows(sizes, kMostRowPartials) : MatMulProduct(sizes, threads);
}

bool MakesBlocks(const Graph& graph, const Node& convolution, const RowRegion& region, bool toom_cook) {
  return !NeedsWholeRows(graph, region) && ConvolutionKernel(graph, convolution, toom_cook) == kImplicitProduct;
}

// Returns true for products and convolutions whose rows the region can take while they are in a
// cache.
bool RowsBegin(const Graph& graph, const Node& producer, const RowRegion& region, bool toom_cook) {
  if (producer.op->kind == OpKind::kConv2D) {
    // Sums over all channels and samples would need partial sums of single samples.
    for (const RowRegion::Member& member : region.nodes) {
      if (member.result == RowExtent::kPerColumn) return false;
    }
    return producer.outputs[0].dtype == region.dtype &&
           (MakesBlocks(graph, producer, region, toom_cook) || SampleConvolution::Pays(graph, producer, toom_cook));
  }
  if (producer.op->kind != OpKind::kMatMul || producer.outputs[0].dtype != kFloat32 ||
      region.columns < ThisMachine().least_row_columns)
    return false;
  const MatMulSizes sizes(producer, graph.OperandTypes(producer));
  if (!MatMulProduct::PaysInRegion(sizes)) return false;
  const bool whole_rows = NeedsWholeRows(graph, region);
  if (whole_rows && region.rows < kLeastWholeRows) return false;
  const MatMulProduct product = CutProduct(sizes, whole_rows, 1);
  return product.MakesBlocks() && (!whole_rows || product.block_columns() >= region.columns);
}

bool IsFlat(const Graph& graph, const RowRegion& region) {
  if (region.has_producer) return false;
  for (const RowRegion::Member& member : region.nodes) {
    if (member.result != RowExtent::kFull || graph.node(member.node).op->kind == OpKind::kSoftmax) return false;
    for (const RowRegion::Operand& operand : member.operands) {
      if (operand.extent != RowExtent::kFull && operand.extent != RowExtent::kScalar) return false;
    }
  }
  return true;
}

// Single nodes are divided by elements, so a few long rows run on more threads without a region
// that needs whole rows.
bool RowsPay(const Graph& graph, const RowRegion& region) {
  if (region.has_producer || IsFlat(graph, region)) return true;
  if (region.columns < ThisMachine().least_row_columns) return false;
  return !NeedsWholeRows(graph, region) || region.rows >= kMostRowPartials ||
         region.rows * region.columns <= 2 * kRowGrain;
}

}  // namespace gradweave
