#include "gradweave/ops/shape_ops.h"

#include <algorithm>
#include <numeric>
#include <utility>

#include "absl/strings/str_cat.h"
#include "gradweave/graph/check.h"
#include "gradweave/graph/gradient.h"
#include "gradweave/graph/tensor.h"
#include "gradweave/ops/elementwise.h"
#include "gradweave/ops/reduction.h"
#include "gradweave/ops/registry.h"

namespace gradweave {
namespace {

using BatchAxes = absl::InlinedVector<BatchAxis, 2>;

// Maps the batch axis of an op with one operand. axis_of_result returns -1 if samples mix.
template <typename AxisOfResult>
BatchAxes MoveBatch(absl::Span<const BatchAxis> operands, AxisOfResult axis_of_result) {
  if (operands[0].kind == BatchAxis::kAbsent) return {BatchAxis{}};
  if (operands[0].kind != BatchAxis::kAxis) return {{BatchAxis::kMixed, 0}};
  const int axis = axis_of_result(operands[0].axis);
  return {axis < 0 ? BatchAxis{BatchAxis::kMixed, 0} : BatchAxis::Axis(axis)};
}

// Returns the shape with its axes permuted.
Shape Permuted(const Shape& shape, const Integers& permutation) {
  Shape result;
  for (int64_t axis : permutation) result.Append(shape[axis]);
  return result;
}

// Returns ceil(a / divisor).
Dim CeilDivide(const Dim& a, int64_t divisor) { return FloorDivide(a + Dim(divisor - 1), divisor); }

// Steps and paddings beyond this have no use, because a tensor has at most 2^48 elements. Sums of
// such numbers do not overflow, and the gradient of an op has numbers as large as those of the op.
constexpr int64_t kMostStep = int64_t{1} << 48;

bool InRange(int64_t number) { return number >= -kMostStep && number <= kMostStep; }
bool InRange(const Dim& dim) { return !dim.is_known() || InRange(dim.size()); }

Shape Full(int rank, const Dim& dim) { return Shape(std::vector<Dim>(rank, dim)); }

absl::StatusOr<TensorTypes> InferReshape(const OpView& op) {
  const Shape& shape = op.attribute<Shape>("shape");
  if (!(shape.num_elements() == op.shape(0).num_elements())) {
    return op.Error("the shape ", shape.ToString(), " has ", shape.num_elements().ToString(), " elements, and x has ",
                    op.shape(0).num_elements().ToString());
  }
  return TensorTypes{{op.dtype(0), shape}};
}

// The batch axis keeps its meaning if the number of elements before it stays the same.
BatchAxes ReshapeBatch(const OpView& op, absl::Span<const BatchAxis> operands) {
  return MoveBatch(operands, [&](int axis) {
    const Shape& shape = op.attribute<Shape>("shape");
    Dim before(1), so_far(1);
    for (int i = 0; i < axis; ++i) before = before * op.shape(0)[i];
    for (int i = 0; i < shape.rank(); ++i) {
      if (so_far == before && shape[i] == op.shape(0)[axis]) return i;
      so_far = so_far * shape[i];
    }
    return -1;
  });
}

absl::StatusOr<TensorTypes> InferTranspose(const OpView& op) {
  Integers sorted = op.attribute<Integers>("permutation");
  std::sort(sorted.begin(), sorted.end());
  Integers expected(op.shape(0).rank());
  std::iota(expected.begin(), expected.end(), 0);
  if (sorted != expected) {
    return op.Error("the permutation ", ToString(AttributeValue(op.attribute<Integers>("permutation"))),
                    " is not one of the ", expected.size(), " axes of x");
  }
  return TensorTypes{{op.dtype(0), Permuted(op.shape(0), op.attribute<Integers>("permutation"))}};
}

absl::StatusOr<TensorTypes> InferBroadcastTo(const OpView& op) {
  const Shape& shape = op.attribute<Shape>("shape");
  std::optional<Shape> broadcast = BroadcastShapes(op.shape(0), shape);
  if (!broadcast.has_value() || !(*broadcast == shape)) {
    return op.Error(op.shape(0).ToString(), " does not broadcast to ", shape.ToString(),
                    ": aligned at their last axes, sizes have to be equal or 1 in x");
  }
  return TensorTypes{{op.dtype(0), shape}};
}

absl::StatusOr<TensorTypes> InferConcat(const OpView& op) {
  const int64_t axis = op.attribute<int64_t>("axis");
  const int rank = op.shape(0).rank();
  if (axis < 0 || axis >= rank) return op.Error("axis ", axis, " is outside [0, ", rank, ")");
  Shape shape = op.shape(0);
  for (int i = 1; i < op.num_operands(); ++i) {
    Shape other = op.shape(i);
    const bool same_rank = other.rank() == rank;
    const Dim size = same_rank ? other[axis] : Dim(0);
    if (same_rank) other[axis] = op.shape(0)[axis];
    if (!(other == op.shape(0))) {
      return op.Error("operand ", i, " is ", op.operand(i).ToString(), "; but along axis ", axis,
                      " sizes have to be those of operand 0, ", op.shape(0).ToString());
    }
    shape[axis] = shape[axis] + size;
  }
  return TensorTypes{{op.dtype(0), shape}};
}

void ConcatGradient(GradientContext& g) {
  const int64_t axis = g.attribute<int64_t>("axis");
  Dim start(0);
  for (int i = 0; i < g.num_operands(); ++i) {
    const Dim limit = start + g.operand(i).shape()[axis];
    if (g.needs(i)) g.Set(i, SliceAxis(g.output_gradient(), axis, start, limit));
    start = limit;
  }
}

BatchAxes ConcatBatch(const OpView& op, absl::Span<const BatchAxis> operands) {
  for (const BatchAxis& operand : operands) {
    if (!(operand == operands[0]) || operand.kind == BatchAxis::kMixed) return {{BatchAxis::kMixed, 0}};
  }
  if (operands[0].kind == BatchAxis::kAbsent) return {BatchAxis{}};
  if (operands[0].axis == op.attribute<int64_t>("axis")) return {{BatchAxis::kMixed, 0}};
  return {operands[0]};
}

// Returns the shape of a slice of x, or an error of the op that slices.
absl::StatusOr<Shape> SlicedShape(const OpView& op, absl::Span<const Dim> start, absl::Span<const Dim> limit,
                                  absl::Span<const int64_t> steps) {
  const Shape& shape = op.shape(0);
  Shape result;
  for (int axis = 0; axis < shape.rank(); ++axis) {
    if (steps[axis] < 1 || steps[axis] > kMostStep)
      return op.Error("the step along axis ", axis, " is ", steps[axis], " and has to be in [1, 2^48]");
    auto outside = [](const Dim& low, const Dim& high) {
      return low.is_known() && high.is_known() && low.size() > high.size();
    };
    if (outside(Dim(0), start[axis]) || outside(start[axis], limit[axis]) || outside(limit[axis], shape[axis])) {
      return op.Error("start ", start[axis].ToString(), " and limit ", limit[axis].ToString(), " along axis ", axis,
                      " have to lie in order in [0, ", shape[axis].ToString(), "]");
    }
    result.Append(CeilDivide(limit[axis] - start[axis], steps[axis]));
  }
  return result;
}

absl::StatusOr<TensorTypes> InferSlice(const OpView& op) {
  const Shape& start = op.attribute<Shape>("start");
  const Shape& limit = op.attribute<Shape>("limit");
  const Integers& steps = op.attribute<Integers>("steps");
  const int rank = op.shape(0).rank();
  if (start.rank() != rank || limit.rank() != rank || static_cast<int>(steps.size()) != rank)
    return op.Error("start, limit and steps need an element for each of the ", rank, " axes of x");
  GW_ASSIGN_OR_RETURN(Shape result, SlicedShape(op, start.dims(), limit.dims(), steps));
  return TensorTypes{{op.dtype(0), std::move(result)}};
}

// Pads dy with zeros where no element was selected: between selected elements, before the first and
// after the last.
void SliceGradient(GradientContext& g) {
  const Shape& start = g.attribute<Shape>("start");
  const Integers& steps = g.attribute<Integers>("steps");
  const Shape& shape = g.operand(0).shape();
  Shape high;
  Integers interior;
  for (int axis = 0; axis < shape.rank(); ++axis) {
    const Dim covered = (g.output().shape()[axis] - Dim(1)) * Dim(steps[axis]) + Dim(1);
    // A slice without elements covers nothing.
    high.Append(g.output().shape()[axis] == Dim(0) ? shape[axis] - start[axis] : shape[axis] - start[axis] - covered);
    interior.push_back(steps[axis] - 1);
  }
  g.Set(0, Pad(g.output_gradient(), {.low = start, .high = high, .interior = interior}));
}

BatchAxes SliceBatch(const OpView& op, absl::Span<const BatchAxis> operands) {
  return MoveBatch(operands, [&](int axis) {
    const bool whole = op.attribute<Shape>("start")[axis] == Dim(0) &&
                       op.attribute<Shape>("limit")[axis] == op.shape(0)[axis] &&
                       op.attribute<Integers>("steps")[axis] == 1;
    return whole ? axis : -1;
  });
}

absl::StatusOr<TensorTypes> InferSliceAdd(const OpView& op) {
  const Shape& starts = op.attribute<Shape>("starts");
  const Shape& limits = op.attribute<Shape>("limits");
  const Integers& steps = op.attribute<Integers>("steps");
  const int rank = op.shape(0).rank(), numbers = (op.num_operands() - 1) * rank;
  if (starts.rank() != numbers || limits.rank() != numbers || static_cast<int>(steps.size()) != numbers)
    return op.Error("starts, limits and steps need ", numbers, " elements, one for each part and axis of x");
  for (int k = 1; k < op.num_operands(); ++k) {
    auto of_part = [&](const auto& list) { return absl::MakeConstSpan(list).subspan((k - 1) * rank, rank); };
    GW_ASSIGN_OR_RETURN(Shape shape, SlicedShape(op, of_part(starts.dims()), of_part(limits.dims()), of_part(steps)));
    if (!(op.shape(k) == shape))
      return op.Error("operand ", k, " is ", op.operand(k).ToString(), ", and its slice of x is ", shape.ToString());
  }
  return TensorTypes{op.operand(0)};
}

void SliceAddGradient(GradientContext& g) {
  g.Set(0, g.output_gradient());
  const Shape& starts = g.attribute<Shape>("starts");
  const Shape& limits = g.attribute<Shape>("limits");
  const Integers& steps = g.attribute<Integers>("steps");
  const int rank = g.operand(0).rank();
  for (int k = 1; k < g.num_operands(); ++k) {
    if (!g.needs(k)) continue;
    auto of_part = [&](const auto& list) { return absl::MakeConstSpan(list).subspan((k - 1) * rank, rank); };
    g.Set(k, Slice(g.output_gradient(), {.start = Shape(of_part(starts.dims())),
                                         .limit = Shape(of_part(limits.dims())),
                                         .steps = Integers(of_part(steps).begin(), of_part(steps).end())}));
  }
}

absl::StatusOr<TensorTypes> InferPad(const OpView& op) {
  const Shape& low = op.attribute<Shape>("low");
  const Shape& high = op.attribute<Shape>("high");
  const Integers& interior = op.attribute<Integers>("interior");
  const Shape& shape = op.shape(0);
  if (low.rank() != shape.rank() || high.rank() != shape.rank() || static_cast<int>(interior.size()) != shape.rank()) {
    return op.Error("low, high and interior need an element for each of the ", shape.rank(), " axes of x");
  }
  const double value = op.attribute<double>("value");
  if (!Represents(op.dtype(0), value)) {
    return op.Error("the value is ", value, " and has to be a number that ", DTypeName(op.dtype(0)), " has");
  }
  Shape result;
  for (int axis = 0; axis < shape.rank(); ++axis) {
    if (interior[axis] < 0 || interior[axis] >= kMostStep)
      return op.Error("interior along axis ", axis, " is ", interior[axis], " and has to be in [0, 2^48)");
    if (!InRange(low[axis]) || !InRange(high[axis])) {
      return op.Error("low ", low[axis].ToString(), " and high ", high[axis].ToString(), " along axis ", axis,
                      " have to be in [-2^48, 2^48]");
    }
    const Dim inside = shape[axis] == Dim(0) ? Dim(0) : shape[axis] + (shape[axis] - Dim(1)) * Dim(interior[axis]);
    const Dim size = low[axis] + inside + high[axis];
    if (size.is_known() && size.size() < 0) {
      return op.Error("low ", low[axis].ToString(), " and high ", high[axis].ToString(), " remove more along axis ",
                      axis, " than there is");
    }
    result.Append(size);
  }
  return TensorTypes{{op.dtype(0), result}};
}

// Selects the elements of x from dy: every (interior + 1)th, starting at `low`.
void PadGradient(GradientContext& g) {
  const Shape& low = g.attribute<Shape>("low");
  const Shape& high = g.attribute<Shape>("high");
  const Integers& interior = g.attribute<Integers>("interior");
  // Undo `low` and `high` first: remove the added elements and fill zeros in for the removed ones.
  // Then take every (interior + 1)th element.
  Shape negative_low, negative_high;
  Integers steps;
  for (int axis = 0; axis < low.rank(); ++axis) {
    negative_low.Append(Dim(0) - low[axis]);
    negative_high.Append(Dim(0) - high[axis]);
    steps.push_back(interior[axis] + 1);
  }
  const Value inside = Pad(g.output_gradient(), {.low = negative_low, .high = negative_high});
  g.Set(0, Slice(inside, {.start = Full(low.rank(), Dim(0)), .limit = inside.shape(), .steps = steps}));
}

BatchAxes PadBatch(const OpView& op, absl::Span<const BatchAxis> operands) {
  return MoveBatch(operands, [&](int axis) {
    const bool untouched = op.attribute<Shape>("low")[axis] == Dim(0) && op.attribute<Shape>("high")[axis] == Dim(0) &&
                           op.attribute<Integers>("interior")[axis] == 0;
    return untouched ? axis : -1;
  });
}

absl::StatusOr<TensorTypes> InferReverse(const OpView& op) {
  for (int64_t axis : op.attribute<Integers>("axes")) {
    if (axis < 0 || axis >= op.shape(0).rank())
      return op.Error("axis ", axis, " is outside [0, ", op.shape(0).rank(), ")");
  }
  return TensorTypes{op.operand(0)};
}

OperandDefinition AnyTensor() { return {"x", "Any shape.", kAnyDType}; }

// Ops that show the elements of x in another shape or order.
void RegisterViews(OpRegistry& registry) {
  registry.Add({
      .name = "Reshape",
      .doc = "The elements of x, in the same order, with another shape.",
      .operands = {AnyTensor()},
      .attributes = {{"shape", AttributeType::kShape, "Result shape, with as many elements as x."}},
      .infer = InferReshape,
      .gradient = [](GradientContext& g) { g.Set(0, Reshape(g.output_gradient(), g.operand(0).shape())); },
      .batch = ReshapeBatch,
      .kind = OpKind::kReshape,
      .alias = true,
      .mixed_precision = MixedPrecision::kFollows,
  });
  registry.Add({
      .name = "Transpose",
      .doc = "Axis i of the result is axis permutation[i] of x.",
      .operands = {AnyTensor()},
      .attributes = {{"permutation", AttributeType::kIntegers, "Each axis once."}},
      .infer = InferTranspose,
      .gradient =
          [](GradientContext& g) {
            const Integers& permutation = g.attribute<Integers>("permutation");
            Integers inverse(permutation.size());
            for (size_t i = 0; i < permutation.size(); ++i) inverse[permutation[i]] = static_cast<int64_t>(i);
            g.Set(0, Transpose(g.output_gradient(), inverse));
          },
      .batch =
          [](const OpView& op, absl::Span<const BatchAxis> operands) {
            return MoveBatch(operands, [&](int axis) {
              const Integers& permutation = op.attribute<Integers>("permutation");
              return static_cast<int>(std::find(permutation.begin(), permutation.end(), axis) - permutation.begin());
            });
          },
      .kind = OpKind::kTranspose,
      .mixed_precision = MixedPrecision::kFollows,
  });
  registry.Add({
      .name = "BroadcastTo",
      .doc = "x repeated along new leading axes and along axes of size 1.",
      .operands = {AnyTensor()},
      .attributes = {{"shape", AttributeType::kShape, "Result shape. x broadcasts to it."}},
      .infer = InferBroadcastTo,
      .gradient = [](GradientContext& g) { g.Set(0, SumToShape(g.output_gradient(), g.operand(0).shape())); },
      .batch =
          [](const OpView& op, absl::Span<const BatchAxis> operands) {
            return MoveBatch(operands, [&](int axis) {
              const int moved = axis + op.attribute<Shape>("shape").rank() - op.shape(0).rank();
              return op.attribute<Shape>("shape")[moved] == op.shape(0)[axis] ? moved : -1;
            });
          },
      .kind = OpKind::kBroadcastTo,
      .elementwise = true,
      .mixed_precision = MixedPrecision::kFollows,
  });
}

// Ops that join, cut and move elements.
void RegisterSlices(OpRegistry& registry) {
  registry.Add({
      .name = "Concat",
      .doc = "Concatenates the operands along an axis.",
      .operands = {{"values", "One rank; equal sizes along all other axes.", kAnyDType, OperandDefinition::kVariadic}},
      .attributes = {{"axis", AttributeType::kInteger, "In [0, rank)."}},
      .infer = InferConcat,
      .gradient = ConcatGradient,
      .batch = ConcatBatch,
      .kind = OpKind::kConcat,
      .same_dtypes = true,
      .mixed_precision = MixedPrecision::kFollows,
  });
  registry.Add({
      .name = "Slice",
      .doc = "The elements start, start + step, ... below limit along each axis: ceil((limit - start)/step) elements.",
      .operands = {AnyTensor()},
      .attributes = {{"start", AttributeType::kShape, "One per axis, in [0, limit]."},
                     {"limit", AttributeType::kShape, "One per axis, at most the size."},
                     {"steps", AttributeType::kIntegers, "One per axis, in [1, 2^48]."}},
      .infer = InferSlice,
      .gradient = SliceGradient,
      .batch = SliceBatch,
      .kind = OpKind::kSlice,
      .mixed_precision = MixedPrecision::kFollows,
  });
  registry.Add({
      .name = "SliceAdd",
      .doc = "A copy of x with each part added to a slice of it, one part after the other. Slices may overlap. The "
             "gradient of several slices of one value has this form.",
      .operands = {{"x", "Any shape.", kNumeric},
                   {"parts", "Each has the shape of its slice of x.", kNumeric, OperandDefinition::kVariadic}},
      .attributes = {{"starts", AttributeType::kShape, "The `start` of each part's Slice, one after the other."},
                     {"limits", AttributeType::kShape, "The `limit` of each part's Slice, one after the other."},
                     {"steps", AttributeType::kIntegers, "The `steps` of each part's Slice, one after the other."}},
      .infer = InferSliceAdd,
      .gradient = SliceAddGradient,
      .flops =
          [](const OpView& op, absl::Span<const TensorType>) {
            double sums = 0;
            for (int k = 1; k < op.num_operands(); ++k) sums += static_cast<double>(op.shape(k).num_elements().size());
            return sums;
          },
      .kind = OpKind::kSliceAdd,
      .same_dtypes = true,
      .mixed_precision = MixedPrecision::kFollows,
  });
  registry.Add({
      .name = "Pad",
      .doc = "Adds elements with the given value along each axis: `low` before x, `high` after it and `interior` "
             "between neighbours. Negative low and high remove elements.",
      .operands = {AnyTensor()},
      .attributes = {{"low", AttributeType::kShape, "One per axis, in [-2^48, 2^48]."},
                     {"high", AttributeType::kShape, "One per axis, in [-2^48, 2^48]."},
                     {"interior", AttributeType::kIntegers, "One per axis, in [0, 2^48)."},
                     {"value", AttributeType::kReal, "For integers and bool, a number that x's dtype has.", 0.0}},
      .infer = InferPad,
      .gradient = PadGradient,
      .batch = PadBatch,
      .mixed_precision = MixedPrecision::kFollows,
  });
  registry.Add({
      .name = "Reverse",
      .doc = "x with the elements along the axes in reverse order.",
      .operands = {AnyTensor()},
      .attributes = {{"axes", AttributeType::kIntegers, "In [0, rank)."}},
      .infer = InferReverse,
      .gradient = [](GradientContext& g) { g.Set(0, Reverse(g.output_gradient(), g.attribute<Integers>("axes"))); },
      .batch =
          [](const OpView& op, absl::Span<const BatchAxis> operands) {
            return MoveBatch(operands, [&](int axis) {
              const Integers& axes = op.attribute<Integers>("axes");
              return std::find(axes.begin(), axes.end(), axis) == axes.end() ? axis : -1;
            });
          },
      .mixed_precision = MixedPrecision::kFollows,
  });
}

}  // namespace

void RegisterShapeOps(OpRegistry& registry) {
  RegisterViews(registry);
  RegisterSlices(registry);
}

Value Transpose(Operand x, Integers permutation) {
  if (permutation.empty()) {
    for (int axis = x.rank() - 1; axis >= 0; --axis) permutation.push_back(axis);
  }
  for (int64_t& axis : permutation) {
    if (axis < 0) axis += x.rank();
  }
  return AddOp("Transpose", {x}, {{"permutation", permutation}});
}

Value BroadcastTo(Operand x, Shape shape) { return AddOp("BroadcastTo", {x}, {{"shape", shape}}); }

Value Concat(const std::vector<Value>& values, int64_t axis, std::source_location location) {
  std::vector<Operand> operands;
  for (const Value& value : values) operands.emplace_back(value, location);
  if (operands.empty()) return Value();
  const int64_t normalized = NormalizedAxis(axis, operands[0].rank());
  return AddOp("Concat", operands, {{"axis", normalized < 0 ? axis : normalized}});
}

std::vector<Value> Split(Operand x, const std::vector<Dim>& sizes, int64_t axis) {
  if (!x.is_value()) return std::vector<Value>(sizes.size(), NeedsValue("Split", x));
  std::vector<Value> parts(sizes.size(), Value(x.graph(), Port{}));
  const int64_t normalized = NormalizedAxis(axis, x.rank());
  Dim total(0);
  for (const Dim& size : sizes) total = total + size;
  if (normalized < 0 || !(total == x.shape()[normalized])) {
    BuilderError(
        "Split", {x},
        absl::StrCat("the sizes add up to ", total.ToString(), ", and have to add up to axis ", axis, " of x"));
    return parts;
  }
  Dim start(0);
  for (size_t i = 0; i < sizes.size(); ++i) {
    const LocationGuard location(*x.graph(),
                                 x.graph()->builder().location.file != nullptr ? SourceLocation() : x.location());
    parts[i] = SliceAxis(x, normalized, start, start + sizes[i]);
    start = start + sizes[i];
  }
  return parts;
}

Value Slice(Operand x, SliceOptions options) {
  if (!x.is_value()) return NeedsValue("Slice", x);
  const int rank = x.rank();
  if (options.steps.empty()) options.steps.assign(rank, 1);
  if (options.start.rank() != rank || options.limit.rank() != rank || static_cast<int>(options.steps.size()) != rank) {
    return BuilderError("Slice", {x},
                        absl::StrCat("start, limit and steps need an element for each of the ", rank, " axes of x"));
  }
  // The elements start, start - s, ... above `limit` are a slice with the positive step s from the
  // last of them, in reverse order.
  Integers reversed;
  for (int axis = 0; axis < rank; ++axis) {
    int64_t& step = options.steps[axis];
    // The op refuses steps that are too large.
    if (step >= 0 || step < -kMostStep) continue;
    step = -step;
    reversed.push_back(axis);
    const Dim count = CeilDivide(options.start[axis] - options.limit[axis], step);
    const Dim last = options.start[axis] - (count - Dim(1)) * Dim(step);
    options.limit[axis] = options.start[axis] + Dim(1);
    options.start[axis] = last;
  }
  const Value slice =
      AddOp("Slice", {x}, {{"start", options.start}, {"limit", options.limit}, {"steps", options.steps}});
  return reversed.empty() ? slice : Reverse(Operand(slice), reversed);
}

Value SliceAxis(Operand x, int64_t axis, Dim start, Dim limit, int64_t step) {
  if (!x.is_value()) return NeedsValue("SliceAxis", x);
  const int64_t normalized = NormalizedAxis(axis, x.rank());
  if (normalized < 0)
    return BuilderError("Slice", {x}, absl::StrCat("axis ", axis, " is outside [", -x.rank(), ", ", x.rank(), ")"));
  SliceOptions options{.start = Full(x.rank(), Dim(0)), .limit = x.shape(), .steps = Integers(x.rank(), 1)};
  options.start[normalized] = std::move(start);
  options.limit[normalized] = std::move(limit);
  options.steps[normalized] = step;
  return Slice(x, std::move(options));
}

Value Reverse(Operand x, Integers axes) {
  for (int64_t& axis : axes) {
    if (axis < 0) axis += x.rank();
  }
  return AddOp("Reverse", {x}, {{"axes", axes}});
}

Value Pad(Operand x, PadOptions options) {
  if (options.interior.empty()) options.interior.assign(x.rank(), 0);
  return AddOp(
      "Pad", {x},
      {{"low", options.low}, {"high", options.high}, {"interior", options.interior}, {"value", options.value}});
}

}  // namespace gradweave
