#include "gradweave/ops/indexing.h"

#include <utility>

#include "absl/strings/str_cat.h"
#include "gradweave/graph/check.h"
#include "gradweave/graph/gradient.h"
#include "gradweave/ops/registry.h"
#include "gradweave/ops/state.h"

namespace gradweave {
namespace {

using BatchAxes = absl::InlinedVector<BatchAxis, 2>;

// Returns x's shape with the axis replaced by the axes of the indices.
Shape GatheredShape(const Shape& x, const Shape& indices, int64_t axis) {
  Shape result;
  for (int i = 0; i < axis; ++i) result.Append(x[i]);
  for (const Dim& dim : indices) result.Append(dim);
  for (int i = static_cast<int>(axis) + 1; i < x.rank(); ++i) result.Append(x[i]);
  return result;
}

absl::Status CheckAxis(const OpView& op) {
  const int64_t axis = op.attribute<int64_t>("axis");
  if (axis >= 0 && axis < op.shape(0).rank()) return absl::OkStatus();
  return op.Error("axis ", axis, " is outside [0, ", op.shape(0).rank(), ")");
}

int64_t Normalized(const Operand& x, int64_t axis) {
  const int64_t normalized = NormalizedAxis(axis, x.rank());
  return normalized < 0 ? axis : normalized;
}

void RegisterGatherAndScatter(OpRegistry& registry) {
  registry.Add({
      .name = "Gather",
      .doc = "Slices of x at the indices along the axis. The axes of the indices replace this axis. An index outside "
             "of [0, size) fails the run.",
      .operands = {{"x", "At least one axis."}, {"indices", "Any shape.", kIndices}},
      .attributes = {{"axis", AttributeType::kInteger, "In [0, rank of x)."}},
      .infer = [](const OpView& op) -> absl::StatusOr<TensorTypes> {
        GW_RETURN_IF_ERROR(CheckAxis(op));
        return TensorTypes{{op.dtype(0), GatheredShape(op.shape(0), op.shape(1), op.attribute<int64_t>("axis"))}};
      },
      .gradient =
          [](GradientContext& g) {
            g.Set(0, ScatterAdd(FullLike(g.operand(0), 0), g.operand(1), g.output_gradient(),
                                g.attribute<int64_t>("axis")));
          },
      .batch = [](const OpView& op, absl::Span<const BatchAxis> operands) -> BatchAxes {
        const int64_t axis = op.attribute<int64_t>("axis");
        if (operands[0].kind == BatchAxis::kAbsent) {
          if (operands[1].kind != BatchAxis::kAxis) return {operands[1]};
          return {BatchAxis::Axis(operands[1].axis + static_cast<int>(axis))};
        }
        if (operands[1].kind != BatchAxis::kAbsent || operands[0].kind != BatchAxis::kAxis ||
            operands[0].axis == axis) {
          return {{BatchAxis::kMixed, 0}};
        }
        const int moved = operands[0].axis < axis ? 0 : op.shape(1).rank() - 1;
        return {BatchAxis::Axis(operands[0].axis + moved)};
      },
      .kind = OpKind::kGather,
  });
  registry.Add({
      .name = "ScatterAdd",
      .doc = "A copy of x with each slice of updates added at its index along the axis. Slices with equal indices add "
             "up. An index outside of [0, size) fails the run.",
      .operands = {{"x", "At least one axis.", kNumeric},
                   {"indices", "Any shape.", kIndices},
                   {"updates", "Shape of Gather(x, indices, axis) and dtype of x.", kNumeric}},
      .attributes = {{"axis", AttributeType::kInteger, "In [0, rank of x)."}},
      .infer = [](const OpView& op) -> absl::StatusOr<TensorTypes> {
        GW_RETURN_IF_ERROR(CheckAxis(op));
        const TensorType expected{op.dtype(0), GatheredShape(op.shape(0), op.shape(1), op.attribute<int64_t>("axis"))};
        if (!(op.operand(2) == expected)) return op.Error("updates have to be ", expected.ToString());
        return TensorTypes{op.operand(0)};
      },
      .gradient =
          [](GradientContext& g) {
            g.Set(0, g.output_gradient());
            if (g.needs(2)) g.Set(2, Gather(g.output_gradient(), g.operand(1), g.attribute<int64_t>("axis")));
          },
      .flops = [](const OpView& op,
                  absl::Span<const TensorType>) { return static_cast<double>(op.shape(2).num_elements().size()); },
      .kind = OpKind::kScatterAdd,
  });
}

// Optimizers update rows of a variable with these ops. None of them can fail, so the variable may be
// written in place.
void RegisterRowOps(OpRegistry& registry) {
  registry.Add({
      .name = "TakeRows",
      .doc = "Gather along axis 0, but an index outside of [0, size) gives zeros.",
      .operands = {{"x", "At least one axis.", kNumeric}, {"indices", "Any shape.", kIndices}},
      .infer = [](const OpView& op) -> absl::StatusOr<TensorTypes> {
        if (op.shape(0).rank() == 0) return op.Error("x needs at least one axis");
        return TensorTypes{{op.dtype(0), GatheredShape(op.shape(0), op.shape(1), 0)}};
      },
      .kind = OpKind::kTakeRows,
  });
  registry.Add({
      .name = "PutRows",
      .doc = "A copy of x in which the given rows replace those at the indices along axis 0. If an index has several "
             "rows, the last one counts. Rows for an index outside of [0, size) are left out.",
      .operands = {{"x", "At least one axis.", kNumeric},
                   {"indices", "Any shape.", kIndices},
                   {"rows", "Shape of TakeRows(x, indices) and dtype of x.", kNumeric}},
      .infer = [](const OpView& op) -> absl::StatusOr<TensorTypes> {
        if (op.shape(0).rank() == 0) return op.Error("x needs at least one axis");
        const TensorType expected{op.dtype(0), GatheredShape(op.shape(0), op.shape(1), 0)};
        if (!(op.operand(2) == expected)) return op.Error("rows have to be ", expected.ToString());
        return TensorTypes{op.operand(0)};
      },
  });
  registry.Add({
      .name = "SumRows",
      .doc = "Each row is the sum of all rows with an equal index, in order: Gather(ScatterAdd(0, indices, rows), "
             "indices) without the memory for rows that no index names.",
      .operands = {{"indices", "Any shape.", kIndices},
                   {"rows", "A row for each index: the shape of the indices and then that of a row.", kNumeric}},
      .infer = [](const OpView& op) -> absl::StatusOr<TensorTypes> {
        const Shape &indices = op.shape(0), &rows = op.shape(1);
        bool fits = rows.rank() >= indices.rank();
        for (int axis = 0; fits && axis < indices.rank(); ++axis) fits = rows[axis] == indices[axis];
        if (!fits) return op.Error("the shape of the rows has to begin with that of the indices");
        return TensorTypes{op.operand(1)};
      },
      // The sum over equal indices is a symmetric matrix.
      .gradient =
          [](GradientContext& g) {
            g.Set(1, AddOp("SumRows", {g.operand(0), g.output_gradient()}));
          },
      .flops = [](const OpView& op,
                  absl::Span<const TensorType>) { return static_cast<double>(op.shape(1).num_elements().size()); },
  });
}

}  // namespace

void RegisterIndexingOps(OpRegistry& registry) {
  RegisterGatherAndScatter(registry);
  RegisterRowOps(registry);
  registry.Add({
      .name = "OneHot",
      .doc = "1 at each index and 0 elsewhere, along a new last axis. An index outside of [0, depth) fails the run.",
      .operands = {{"indices", "Any shape.", kIntegers}},
      .attributes = {{"depth", AttributeType::kInteger, "The size of the new axis, at least 0."},
                     {"dtype", AttributeType::kDType, "Result dtype.", kFloat32}},
      .infer = [](const OpView& op) -> absl::StatusOr<TensorTypes> {
        const int64_t depth = op.attribute<int64_t>("depth");
        if (depth < 0) return op.Error("the depth is ", depth, " and has to be at least 0");
        Shape shape = op.shape(0);
        shape.Append(Dim(depth));
        return TensorTypes{{op.attribute<DType>("dtype"), shape}};
      },
      .gradient = [](GradientContext&) {},
      .batch = [](const OpView&, absl::Span<const BatchAxis> operands) -> BatchAxes { return {operands[0]}; },
  });
}

Value Gather(Operand x, Operand indices, int64_t axis) {
  return AddOp("Gather", {x, indices}, {{"axis", Normalized(x, axis)}});
}
Value ScatterAdd(Operand x, Operand indices, Operand updates, int64_t axis) {
  return AddOp("ScatterAdd", {x, indices, updates}, {{"axis", Normalized(x, axis)}});
}
Value OneHot(Operand indices, int64_t depth, DType dtype) {
  return AddOp("OneHot", {indices}, {{"depth", depth}, {"dtype", dtype}});
}

}  // namespace gradweave
