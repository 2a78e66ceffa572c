#include "gradweave/ops/matmul.h"

#include <algorithm>

#include "gradweave/graph/check.h"
#include "gradweave/graph/gradient.h"
#include "gradweave/ops/elementwise.h"
#include "gradweave/ops/reduction.h"
#include "gradweave/ops/registry.h"

namespace gradweave {
namespace {

using BatchAxes = absl::InlinedVector<BatchAxis, 2>;

Shape Leading(const Shape& shape) { return Shape(absl::Span<const Dim>(shape.dims().data(), shape.rank() - 2)); }

// The rows and columns of an operand after its transposition.
struct MatrixSizes {
  Dim rows, columns;
};
MatrixSizes Sizes(const Shape& shape, bool transpose) {
  const Dim& second_last = shape[shape.rank() - 2];
  const Dim& last = shape[shape.rank() - 1];
  return transpose ? MatrixSizes{last, second_last} : MatrixSizes{second_last, last};
}

absl::StatusOr<TensorTypes> InferMatMul(const OpView& op) {
  for (int i = 0; i < 2; ++i) {
    if (op.shape(i).rank() < 2) {
      return op.Error("operand ", i, " is ", op.operand(i).ToString(),
                      " and has to have at least two axes; ExpandDims turns a vector into a row or a column");
    }
  }
  const MatrixSizes a = Sizes(op.shape(0), op.attribute<bool>("transpose_a"));
  const MatrixSizes b = Sizes(op.shape(1), op.attribute<bool>("transpose_b"));
  if (!(a.columns == b.rows)) {
    return op.Error("a has ", a.columns.ToString(), " columns and b has ", b.rows.ToString(),
                    " rows after the requested transpositions; they have to be equal");
  }
  std::optional<Shape> shape = BroadcastShapes(Leading(op.shape(0)), Leading(op.shape(1)));
  if (!shape.has_value()) return op.Error("the leading axes do not broadcast: sizes have to be equal or 1");
  shape->Append(a.rows);
  shape->Append(b.columns);
  return TensorTypes{{op.dtype(0), *shape}};
}

// With a' and b' the operands after their transpositions, da' = dy b'^T and db' = a'^T dy. The
// gradient of a transposed operand is transposed back.
void MatMulGradient(GradientContext& g) {
  const Value a = g.operand(0), b = g.operand(1), dy = g.output_gradient();
  const bool ta = g.attribute<bool>("transpose_a"), tb = g.attribute<bool>("transpose_b");
  if (g.needs(0)) {
    const Value da = ta ? MatMul(b, dy, {.transpose_a = tb, .transpose_b = true})
                        : MatMul(dy, b, {.transpose_a = false, .transpose_b = !tb});
    g.Set(0, SumToShape(da, a.shape()));
  }
  if (g.needs(1)) {
    const Value db = tb ? MatMul(dy, a, {.transpose_a = true, .transpose_b = ta})
                        : MatMul(a, dy, {.transpose_a = !ta, .transpose_b = false});
    g.Set(1, SumToShape(db, b.shape()));
  }
}

// The batch may be a leading axis, the rows of a, the columns of b, or the axis of the summation.
BatchAxes MatMulBatch(const OpView& op, absl::Span<const BatchAxis> operands) {
  BatchAxes mixed = {{BatchAxis::kMixed, 0}};
  const int rank_a = op.shape(0).rank(), rank_b = op.shape(1).rank(), rank = std::max(rank_a, rank_b);
  const bool has_a = operands[0].kind != BatchAxis::kAbsent, has_b = operands[1].kind != BatchAxis::kAbsent;
  if (!has_a && !has_b) return {BatchAxis{}};
  for (const BatchAxis& operand : operands) {
    if (operand.kind == BatchAxis::kMixed || operand.kind == BatchAxis::kSummed) return mixed;
  }
  // Axes are counted from the end: 1 and 2 are the matrix axes.
  const int from_end_a = has_a ? rank_a - operands[0].axis : 0, from_end_b = has_b ? rank_b - operands[1].axis : 0;
  const int rows_a = op.attribute<bool>("transpose_a") ? 1 : 2, columns_b = op.attribute<bool>("transpose_b") ? 2 : 1;
  if (has_a && has_b) {
    if (from_end_a > 2 && from_end_a == from_end_b) return {BatchAxis::Axis(rank - from_end_a)};
    const bool summed = from_end_a == 3 - rows_a && from_end_b == 3 - columns_b;
    return summed ? BatchAxes{{BatchAxis::kSummed, 0}} : mixed;
  }
  if (has_a && from_end_a == rows_a) return {BatchAxis::Axis(rank - 2)};
  if (has_b && from_end_b == columns_b) return {BatchAxis::Axis(rank - 1)};
  const int leading = has_a ? from_end_a : from_end_b;
  const Shape& other = op.shape(has_a ? 1 : 0);
  const bool other_stretches = leading > 2 && (leading > other.rank() || other[other.rank() - leading] == Dim(1));
  return other_stretches ? BatchAxes{BatchAxis::Axis(rank - leading)} : mixed;
}

}  // namespace

void RegisterMatMulOps(OpRegistry& registry) {
  registry.Add({
      .name = "MatMul",
      .doc = "The matrix product of the last two axes: a [..., m, k] times b [..., k, n] gives [..., m, n]. The "
             "leading axes broadcast.",
      .operands = {{"a", "[..., m, k], or [..., k, m] with transpose_a.", kFloating},
                   {"b", "[..., k, n], or [..., n, k] with transpose_b.", kFloating}},
      .attributes = {{"transpose_a", AttributeType::kBool, "Exchanges the last two axes of a first.", false},
                     {"transpose_b", AttributeType::kBool, "Exchanges the last two axes of b first.", false}},
      .infer = InferMatMul,
      .gradient = MatMulGradient,
      .batch = MatMulBatch,
      .flops =
          [](const OpView& op, absl::Span<const TensorType> outputs) {
            const Dim& k = Sizes(op.shape(0), op.attribute<bool>("transpose_a")).columns;
            return 2.0 * outputs[0].shape.num_elements().size() * k.size();
          },
      .kind = OpKind::kMatMul,
      .same_dtypes = true,
      .mixed_precision = MixedPrecision::kHalf,
  });
}

Value MatMul(Operand a, Operand b, MatMulOptions options) {
  return AddOp("MatMul", {a, b}, {{"transpose_a", options.transpose_a}, {"transpose_b", options.transpose_b}});
}

}  // namespace gradweave
