#include "gradweave/ops/reduction.h"

#include <algorithm>
#include <limits>
#include <utility>

#include "absl/strings/str_cat.h"
#include "gradweave/graph/check.h"
#include "gradweave/graph/gradient.h"
#include "gradweave/ops/composition.h"
#include "gradweave/ops/elementwise.h"
#include "gradweave/ops/registry.h"
#include "gradweave/ops/shape_ops.h"
#include "gradweave/ops/state.h"

namespace gradweave {
namespace {

using BatchAxes = absl::InlinedVector<BatchAxis, 2>;

// The number of indices that int32 has.
constexpr int64_t kMostOfInt32 = int64_t{1} << 31;

bool Reduced(const Integers& axes, int axis) { return std::find(axes.begin(), axes.end(), axis) != axes.end(); }

Shape ReducedShape(const Shape& shape, const Integers& axes, bool keep_dims) {
  Shape result;
  for (int axis = 0; axis < shape.rank(); ++axis) {
    if (!Reduced(axes, axis)) {
      result.Append(shape[axis]);
    } else if (keep_dims) {
      result.Append(Dim(1));
    }
  }
  return result;
}

absl::StatusOr<TensorTypes> InferReduction(const OpView& op) {
  const Integers& axes = op.attribute<Integers>("axes");
  for (size_t i = 0; i < axes.size(); ++i) {
    if (axes[i] < 0 || axes[i] >= op.shape(0).rank()) {
      return op.Error("axis ", axes[i], " is outside [0, ", op.shape(0).rank(), ")");
    }
    if (i > 0 && axes[i] <= axes[i - 1])
      return op.Error("the axes ", ToString(AttributeValue(axes)), " are not increasing");
  }
  return TensorTypes{{op.dtype(0), ReducedShape(op.shape(0), axes, op.attribute<bool>("keep_dims"))}};
}

// Maps an axis of x that is not reduced to the axis of the result.
int KeptAxis(const Integers& axes, bool keep_dims, int axis) {
  if (keep_dims) return axis;
  return axis -
         static_cast<int>(std::count_if(axes.begin(), axes.end(), [axis](int64_t other) { return other < axis; }));
}

BatchAxes ReductionBatch(const OpView& op, absl::Span<const BatchAxis> operands, BatchAxis::Kind over_batch) {
  if (operands[0].kind != BatchAxis::kAxis) return {operands[0]};
  const Integers& axes = op.attribute<Integers>("axes");
  if (Reduced(axes, operands[0].axis)) return {{over_batch, 0}};
  return {BatchAxis::Axis(KeptAxis(axes, op.attribute<bool>("keep_dims"), operands[0].axis))};
}

// Reshapes a value of the result's shape so that it broadcasts with x: reduced axes get size 1.
Value WithReducedAxes(GradientContext& g, const Value& value) {
  return Reshape(value, ReducedShape(g.operand(0).shape(), g.attribute<Integers>("axes"), true));
}

void SumGradient(GradientContext& g) {
  g.Set(0, BroadcastTo(WithReducedAxes(g, g.output_gradient()), g.operand(0).shape()));
}

// All elements that equal the extremum share the gradient evenly.
void ExtremumGradient(GradientContext& g) {
  const Value x = g.operand(0);
  const Value wins = Equal(x, WithReducedAxes(g, g.output()));
  const Value count = Sum(Cast(wins, x.dtype()), {.axes = g.attribute<Integers>("axes"), .keep_dims = true});
  // Selected, not multiplied by 0: the gradient may be infinite.
  g.Set(0, Where(wins, Div(WithReducedAxes(g, g.output_gradient()), count), 0));
}

// Where all elements are -infinity, each e^x is 0 and so is its derivative; x - output would be
// NaN.
void LogSumExpGradient(GradientContext& g) {
  const Value output = WithReducedAxes(g, g.output());
  const Value is_empty = Equal(output, -std::numeric_limits<double>::infinity());
  const Value softmax = Exp(Sub(g.operand(0), Where(is_empty, 0, output)));
  g.Set(0, Mul(softmax, WithReducedAxes(g, g.output_gradient())));
}

// The derivative for an element is the product of all other elements: the product of those before
// it times the product of those after it. This is exact even where elements are zero. ExclusiveProd
// works along the last axis, so the reduced axes are moved there and merged.
void ProdGradient(GradientContext& g) {
  const Value x = g.operand(0);
  const Integers& axes = g.attribute<Integers>("axes");
  Integers permutation;
  Shape kept;
  Dim joined(1);
  for (int axis = 0; axis < x.rank(); ++axis) {
    if (!Reduced(axes, axis)) {
      permutation.push_back(axis);
      kept.Append(x.shape()[axis]);
    }
  }
  for (int64_t axis : axes) {
    permutation.push_back(axis);
    joined = joined * x.shape()[axis];
  }
  Shape flat = kept;
  flat.Append(joined);
  const Value moved = Transpose(x, permutation);
  const Value rows = Reshape(moved, flat);
  const Integers last = {static_cast<int64_t>(flat.rank()) - 1};
  const Value before = AddOp("ExclusiveProd", {rows});
  const Value after = Reverse(AddOp("ExclusiveProd", {Reverse(rows, last)}), last);
  Integers inverse(permutation.size());
  for (size_t i = 0; i < permutation.size(); ++i) inverse[permutation[i]] = static_cast<int64_t>(i);
  const Value others = Transpose(Reshape(Mul(before, after), moved.shape()), inverse);
  g.Set(0, Mul(others, WithReducedAxes(g, g.output_gradient())));
}

// y[i] = x[0]*...*x[i-1]. Let P(lo, hi) be the product of x over [lo, hi). Then dx[j] = sum over i
// > j of dy[i] * P(0, j) * P(j+1, i). The inner sum obeys s[j] = dy[j+1] + x[j+1]*s[j+1], which is
// SuffixSum.
void ExclusiveProdGradient(GradientContext& g) {
  g.Set(0, Mul(g.output(), AddOp("SuffixSum", {g.output_gradient(), g.operand(0)})));
}

// s = SuffixSum(a, x): s[n-1] = 0 and s[j] = a[j+1] + x[j+1]*s[j+1]. Let t solve the transposed
// recurrence t[0] = 0, t[j+1] = ds[j] + x[j]*t[j]. Then da = t, and dx[j] = s[j]*t[j] because
// s[j-1] contains x[j]*s[j].
void SuffixSumGradient(GradientContext& g) {
  const Value x = g.operand(1);
  const Integers last = {static_cast<int64_t>(x.rank()) - 1};
  // The transposed recurrence runs forward. On reversed operands it is a SuffixSum again.
  const Value t = Reverse(AddOp("SuffixSum", {Reverse(g.output_gradient(), last), Reverse(x, last)}), last);
  g.Set(0, t);
  if (g.needs(1)) g.Set(1, Mul(g.output(), t));
}

absl::StatusOr<TensorTypes> InferAlongLastAxis(const OpView& op) {
  if (op.shape(0).rank() < 1) return op.Error("x has to have an axis");
  for (int i = 1; i < op.num_operands(); ++i) {
    if (!(op.shape(i) == op.shape(0))) return op.Error("the operands have to have the same shape");
  }
  return TensorTypes{op.operand(0)};
}

BatchAxes AlongLastAxisBatch(const OpView& op, absl::Span<const BatchAxis> operands) {
  int axis = -1;
  for (const BatchAxis& operand : operands) {
    if (operand.kind == BatchAxis::kAbsent && axis < 0 && &operand == &operands.back()) return {BatchAxis{}};
    if (operand.kind == BatchAxis::kAbsent) continue;
    if (operand.kind != BatchAxis::kAxis || (axis >= 0 && axis != operand.axis)) return {{BatchAxis::kMixed, 0}};
    axis = operand.axis;
  }
  for (const BatchAxis& operand : operands) {
    if (operand.kind == BatchAxis::kAbsent) return {{BatchAxis::kMixed, 0}};
  }
  return {axis == op.shape(0).rank() - 1 ? BatchAxis{BatchAxis::kMixed, 0} : BatchAxis::Axis(axis)};
}

absl::StatusOr<TensorTypes> InferArg(const OpView& op) {
  const int64_t axis = op.attribute<int64_t>("axis");
  const Shape& shape = op.shape(0);
  if (axis < 0 || axis >= shape.rank()) return op.Error("axis ", axis, " is outside [0, ", shape.rank(), ")");
  if (shape[axis] == Dim(0)) return op.Error("axis ", axis, " has no elements, so none is the largest or smallest");
  const DType dtype = op.attribute<DType>("dtype");
  if (!kIndices.Contains(dtype))
    return op.Error("the dtype of indices is ", DTypeName(dtype), " and has to be ", kIndices.ToString());
  if (dtype == kInt32 && shape[axis].is_known() && shape[axis].size() > kMostOfInt32) {
    return op.Error("axis ", axis, " has ", shape[axis].ToString(),
                    " elements, and int32 has no numbers for all of them; int64 has");
  }
  return TensorTypes{{dtype, ReducedShape(shape, {axis}, op.attribute<bool>("keep_dims"))}};
}

double InputElements(const OpView& op, absl::Span<const TensorType>) {
  return static_cast<double>(op.shape(0).num_elements().size());
}

// Returns the axes sorted and not negative. If one is out of range or given twice, records an error
// and returns nullopt.
std::optional<Integers> NormalizedAxes(absl::string_view name, const Operand& x, const Integers& axes) {
  Integers result;
  for (int64_t axis : axes) {
    const int64_t normalized = NormalizedAxis(axis, x.rank());
    if (normalized < 0) {
      BuilderError(name, {x}, absl::StrCat("axis ", axis, " is outside [", -x.rank(), ", ", x.rank(), ")"));
      return std::nullopt;
    }
    if (Reduced(result, static_cast<int>(normalized))) {
      BuilderError(name, {x}, absl::StrCat("axis ", axis, " is given twice"));
      return std::nullopt;
    }
    result.push_back(normalized);
  }
  if (axes.empty()) {
    for (int axis = 0; axis < x.rank(); ++axis) result.push_back(axis);
  }
  std::sort(result.begin(), result.end());
  return result;
}

Value AddReduction(absl::string_view name, const Operand& x, const ReductionOptions& options) {
  if (!x.is_value()) return NeedsValue(name, x);
  const std::optional<Integers> axes = NormalizedAxes(name, x, options.axes);
  if (!axes.has_value()) return Value(x.graph(), Port{});
  return AddOp(name, {x}, {{"axes", *axes}, {"keep_dims", options.keep_dims}});
}

Value AddArg(absl::string_view name, const Operand& x, const ArgOptions& options) {
  const int64_t axis = NormalizedAxis(options.axis, x.rank());
  if (options.last && axis >= 0) {
    // The first one of the reversed elements.
    const CallLocation location(x);
    ArgOptions first = options;
    first.last = false;
    const Value index = AddArg(name, Operand(Reverse(x, {axis})), first);
    if (!index.valid()) return index;
    return DimSize(x, axis, options.dtype) - 1 - index;
  }
  return AddOp(name, {x},
               {{"axis", axis < 0 ? options.axis : axis}, {"keep_dims", options.keep_dims}, {"dtype", options.dtype}});
}

}  // namespace

void RegisterReductionOps(OpRegistry& registry) {
  struct Row {
    const char* name;
    const char* doc;
    DTypeSet dtypes;
    void (*gradient)(GradientContext& g);
    BatchAxis::Kind over_batch;
    OpKind kind = OpKind::kOther;
  };
  const Row rows[] = {
      {"Sum", "The sum over the axes; 0 for no elements. Sums of integers wrap around: int32 is modulo 2^32.", kNumeric,
       SumGradient, BatchAxis::kSummed, OpKind::kSum},
      {"Prod", "The product over the axes; 1 for no elements. Products of integers wrap around.", kNumeric,
       ProdGradient, BatchAxis::kMixed},
      {"Max",
       "The largest element over the axes; NaN if any element is NaN. For no elements, -infinity or the smallest "
       "integer.",
       kNumeric, ExtremumGradient, BatchAxis::kMixed, OpKind::kMax},
      {"Min",
       "The smallest element over the axes; NaN if any element is NaN. For no elements, infinity or the largest "
       "integer.",
       kNumeric, ExtremumGradient, BatchAxis::kMixed},
      {"LogSumExp",
       "log(sum(e^x)) over the axes, after subtracting the maximum. The gradient is 0 where all elements are "
       "-infinity.",
       kFloating, LogSumExpGradient, BatchAxis::kMixed},
  };
  for (const Row& row : rows) {
    const BatchAxis::Kind over_batch = row.over_batch;
    registry.Add({
        .name = row.name,
        .doc = row.doc,
        .operands = {{"x", "Any shape.", row.dtypes}},
        .attributes = {{"axes", AttributeType::kIntegers, "Increasing, in [0, rank)."},
                       {"keep_dims", AttributeType::kBool, "Keeps reduced axes with size 1.", false}},
        .infer = InferReduction,
        .gradient = row.gradient,
        .batch = [over_batch](
                     const OpView& op,
                     absl::Span<const BatchAxis> operands) { return ReductionBatch(op, operands, over_batch); },
        .flops = InputElements,
        .kind = row.kind,
        .reduction = true,
    });
  }
  for (const char* name : {"ArgMax", "ArgMin"}) {
    const bool largest = absl::string_view(name) == "ArgMax";
    registry.Add({
        .name = name,
        .doc = largest ? "The index of the largest element along the axis; the first one of several. NaN counts as the "
                         "largest."
                       : "The index of the smallest element along the axis; the first one of several. NaN counts as "
                         "the smallest.",
        .operands = {{"x", "At least one axis.", kNumeric}},
        .attributes = {{"axis", AttributeType::kInteger, "In [0, rank)."},
                       {"keep_dims", AttributeType::kBool, "Keeps the axis with size 1.", false},
                       {"dtype", AttributeType::kDType, "Result dtype: int32 or int64.", kInt64}},
        .infer = InferArg,
        .batch = [](const OpView& op, absl::Span<const BatchAxis> operands) -> BatchAxes {
          if (operands[0].kind != BatchAxis::kAxis) return {operands[0]};
          const int64_t axis = op.attribute<int64_t>("axis");
          if (operands[0].axis == axis) return {{BatchAxis::kMixed, 0}};
          return {BatchAxis::Axis(KeptAxis({axis}, op.attribute<bool>("keep_dims"), operands[0].axis))};
        },
        .flops = InputElements,
    });
  }
  registry.Add({
      .name = "ExclusiveProd",
      .doc = "Along the last axis, y[i] = x[0]*...*x[i-1]; y[0] = 1.",
      .operands = {{"x", "At least one axis.", kFloating}},
      .infer = InferAlongLastAxis,
      .gradient = ExclusiveProdGradient,
      .batch = AlongLastAxisBatch,
      .flops = InputElements,
  });
  registry.Add({
      .name = "SuffixSum",
      .doc = "Along the last axis, of size n, s[n-1] = 0 and s[j] = a[j+1] + x[j+1]*s[j+1]: the gradient of "
             "ExclusiveProd.",
      .operands = {{"a", "At least one axis.", kFloating}, {"x", "Same shape as a.", kFloating}},
      .infer = InferAlongLastAxis,
      .gradient = SuffixSumGradient,
      .batch = AlongLastAxisBatch,
      .flops = InputElements,
      .same_dtypes = true,
  });
}

Value Sum(Operand x, ReductionOptions options) { return AddReduction("Sum", x, options); }
Value Prod(Operand x, ReductionOptions options) { return AddReduction("Prod", x, options); }
Value Max(Operand x, ReductionOptions options) { return AddReduction("Max", x, options); }
Value Min(Operand x, ReductionOptions options) { return AddReduction("Min", x, options); }
Value LogSumExp(Operand x, ReductionOptions options) { return AddReduction("LogSumExp", x, options); }

Value Mean(Operand x, ReductionOptions options) {
  if (!x.is_value()) return NeedsValue("Mean", x);
  if (!IsReal(x.dtype())) return BuilderError("Mean", {x}, "x has to be floating; Cast converts");
  const LocationGuard location(*x.graph(),
                               x.graph()->builder().location.file != nullptr ? SourceLocation() : x.location());
  // The sum may be larger than any half.
  if (IsHalf(x.dtype())) return Cast(Mean(Cast(x, kFloat32), options), x.dtype());
  const Value sum = Sum(x, options);
  if (!sum.valid()) return sum;
  const std::optional<Integers> axes = NormalizedAxes("Mean", x, options.axes);
  return axes->empty() ? sum : Div(sum, NumElements(x, *axes, x.dtype()));
}

Value Norm(Operand x, ReductionOptions options) {
  if (!x.is_value()) return NeedsValue("Norm", x);
  if (!IsReal(x.dtype())) return BuilderError("Norm", {x}, "x has to be floating; Cast converts");
  const LocationGuard location(*x.graph(),
                               x.graph()->builder().location.file != nullptr ? SourceLocation() : x.location());
  if (IsHalf(x.dtype())) return Cast(Norm(Cast(x, kFloat32), options), x.dtype());
  const Value squares = Sum(Square(x), options);
  if (!squares.valid()) return squares;
  // Where the sum is 0, neither its root nor the root's infinite derivative is taken; NaN goes
  // through.
  const Value is_zero = Equal(squares, 0);
  return Where(is_zero, 0, Sqrt(Where(is_zero, 1, squares)));
}

Value SumOfSizes(Operand x, ReductionOptions options) {
  if (!x.is_value()) return NeedsValue("SumOfSizes", x);
  const CallLocation location(x);
  return Sum(Abs(x), options);
}

Value SumOfSquares(Operand x, ReductionOptions options) {
  if (!x.is_value()) return NeedsValue("SumOfSquares", x);
  const CallLocation location(x);
  return Sum(Square(x), options);
}

Value LogSum(Operand x, ReductionOptions options) {
  if (!x.is_value()) return NeedsValue("LogSum", x);
  const CallLocation location(x);
  return Log(Sum(x, options));
}

Value ArgMax(Operand x, ArgOptions options) { return AddArg("ArgMax", x, options); }
Value ArgMin(Operand x, ArgOptions options) { return AddArg("ArgMin", x, options); }

Value SumToShape(Operand x, const Shape& shape) {
  if (!x.is_value()) return NeedsValue("SumToShape", x);
  if (x.shape() == shape) return x.value();
  const int added = x.rank() - shape.rank();
  Integers axes;
  for (int axis = 0; axis < x.rank(); ++axis) {
    if (axis < added || (shape[axis - added] == Dim(1) && !(x.shape()[axis] == Dim(1)))) axes.push_back(axis);
  }
  return Reshape(axes.empty() ? x.value() : Sum(x, {.axes = axes}), shape);
}

}  // namespace gradweave
