#include "gradweave/ops/indexing.h"

#include <algorithm>
#include <iterator>
#include <string>
#include <utility>

#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"
#include "gradweave/graph/check.h"
#include "gradweave/graph/gradient.h"
#include "gradweave/ops/elementwise.h"
#include "gradweave/ops/functions.h"
#include "gradweave/ops/registry.h"
#include "gradweave/ops/shape_ops.h"
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

constexpr const char* kReductions[] = {"set", "mul", "max", "min"};

// The updates that the op Scatter takes last at their index, of those with its shape: bool, which
// broadcasts with the updates.
Value IsLast(const Value& x, const Value& indices, const Shape& updates, int64_t axis) {
  const Dim count = indices.shape().num_elements();
  const Value flat = Reshape(indices, {count}), position = RangeLike(indices, count);
  const Value last = Scatter(ZerosLike(RangeLike(indices, x.shape()[static_cast<int>(axis)])), flat, position);
  Shape shape = indices.shape();
  for (int i = static_cast<int>(axis) + indices.rank(); i < updates.rank(); ++i) shape.Append(Dim(1));
  return Reshape(Equal(Gather(last, flat), position), shape);
}

void ScatterGradient(GradientContext& g) {
  const std::string& reduction = g.attribute<std::string>("reduction");
  const int64_t axis = g.attribute<int64_t>("axis");
  const Value x = g.operand(0), indices = g.operand(1), updates = g.operand(2), dy = g.output_gradient();
  auto at = [&](const Value& value) { return Gather(value, indices, axis); };
  auto counts = [&](const Value& holds) { return ScatterAdd(ZerosLike(x), indices, Cast(holds, x.dtype()), axis); };
  if (reduction == "set") {
    g.Set(0, Scatter(dy, indices, ZerosLike(updates), {.axis = axis}));
    if (g.needs(2)) g.Set(2, Where(IsLast(x, indices, updates.shape(), axis), at(dy), 0));
  } else if (reduction == "mul") {
    const ScatterOptions mul = {.axis = axis, .reduction = ScatterReduction::kMul};
    if (g.needs(0)) g.Set(0, Mul(dy, Scatter(OnesLike(x), indices, updates, mul)));
    if (!g.needs(2)) return;
    // The derivative for an update is the product of all others: a quotient, unless another one is
    // 0.
    const Value is_zero = Equal(updates, 0), divisor = Where(is_zero, 1, updates);
    const Value others = Div(at(Scatter(x, indices, divisor, mul)), divisor);
    const Value other_zeros = Sub(at(counts(is_zero)), Cast(is_zero, x.dtype()));
    g.Set(2, Where(Equal(other_zeros, 0), Mul(at(dy), others), 0));
  } else {
    // The element and the updates that equal the extremum share the gradient evenly.
    const Value wins = Equal(x, g.output()), update_wins = Equal(updates, at(g.output()));
    const Value share = Div(dy, Add(Cast(wins, x.dtype()), counts(update_wins)));
    g.Set(0, Where(wins, share, 0));
    if (g.needs(2)) g.Set(2, Where(update_wins, at(share), 0));
  }
}

// The type of x, if the updates have the type of Gather(x, indices, axis).
absl::StatusOr<TensorTypes> InferScatter(const OpView& op) {
  GW_RETURN_IF_ERROR(CheckAxis(op));
  const TensorType expected{op.dtype(0), GatheredShape(op.shape(0), op.shape(1), op.attribute<int64_t>("axis"))};
  if (!(op.operand(2) == expected)) return op.Error("updates have to be ", expected.ToString());
  return TensorTypes{op.operand(0)};
}

double UpdatedElements(const OpView& op, absl::Span<const TensorType>) {
  return static_cast<double>(op.shape(2).num_elements().size());
}

void RegisterGatherAndScatter(OpRegistry& registry) {
  registry.Add({
      .name = "Gather",
      .doc = "Slices of x at the indices along the axis. The axes of the indices replace this axis. An index outside "
             "of [0, size) fails the run.",
      .operands = {{"x", "At least one axis.", kAnyDType}, {"indices", "Any shape.", kIndices}},
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
      .mixed_precision = MixedPrecision::kFollows,
  });
  registry.Add({
      .name = "ScatterAdd",
      .doc = "A copy of x with each slice of updates added at its index along the axis. Slices with equal indices add "
             "up. An index outside of [0, size) fails the run.",
      .operands = {{"x", "At least one axis.", kNumeric},
                   {"indices", "Any shape.", kIndices},
                   {"updates", "Shape of Gather(x, indices, axis) and dtype of x.", kNumeric}},
      .attributes = {{"axis", AttributeType::kInteger, "In [0, rank of x)."}},
      .infer = InferScatter,
      .gradient =
          [](GradientContext& g) {
            g.Set(0, g.output_gradient());
            if (g.needs(2)) g.Set(2, Gather(g.output_gradient(), g.operand(1), g.attribute<int64_t>("axis")));
          },
      .flops = UpdatedElements,
      .kind = OpKind::kScatterAdd,
      .mixed_precision = MixedPrecision::kFollows,
  });
  registry.Add({
      .name = "Scatter",
      .doc =
          "A copy of x with each slice of updates combined with the slice at its index along the axis, one after the "
          "other: set in its place, multiplied, or their largest or smallest elements. Any dtype can be set. An index "
          "outside of [0, size) fails the run. Of equal numbers, set: the last update gets the gradient, max and min: "
          "all share it evenly. "
          "The second gradient of mul is wrong where an update is 0.",
      .operands = {{"x", "At least one axis.", kAnyDType},
                   {"indices", "Any shape.", kIndices},
                   {"updates", "Shape of Gather(x, indices, axis) and dtype of x.", kAnyDType}},
      .attributes = {{"axis", AttributeType::kInteger, "In [0, rank of x)."},
                     {"reduction", AttributeType::kString, "set, mul, max or min.", std::string("set")}},
      .infer = [](const OpView& op) -> absl::StatusOr<TensorTypes> {
        const std::string& reduction = op.attribute<std::string>("reduction");
        if (std::find(std::begin(kReductions), std::end(kReductions), reduction) == std::end(kReductions))
          return op.Error("the reduction is \"", absl::Utf8SafeCEscape(reduction),
                          "\" and has to be set, mul, max or min");
        if (reduction != "set" && !kNumeric.Contains(op.dtype(0))) {
          return op.Error("x is ", DTypeName(op.dtype(0)), ", and the reduction ", reduction, " needs ",
                          kNumeric.ToString(), "; Cast converts");
        }
        return InferScatter(op);
      },
      .gradient = ScatterGradient,
      .flops = UpdatedElements,
  });
}

// Optimizers update rows of a variable with these ops. None of them can fail, so the variable may
// be written in place.
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
      .mixed_precision = MixedPrecision::kFollows,
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
      .mixed_precision = MixedPrecision::kFollows,
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
        const DType dtype = op.attribute<DType>("dtype");
        if (!kComputed.Contains(dtype)) {
          return op.Error("the dtype is ", DTypeName(dtype), " and has to be ", kComputed.ToString(),
                          "; Cast converts the result");
        }
        Shape shape = op.shape(0);
        shape.Append(Dim(depth));
        return TensorTypes{{dtype, shape}};
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
Value Scatter(Operand x, Operand indices, Operand updates, ScatterOptions options) {
  if (options.reduction == ScatterReduction::kAdd) return ScatterAdd(x, indices, updates, options.axis);
  const char* const reduction = kReductions[static_cast<int>(options.reduction)];
  return AddOp("Scatter", {x, indices, updates},
               {{"axis", Normalized(x, options.axis)}, {"reduction", std::string(reduction)}});
}
Value OneHot(Operand indices, int64_t depth, DType dtype) {
  return AddOp("OneHot", {indices}, {{"depth", depth}, {"dtype", dtype}});
}

}  // namespace gradweave
