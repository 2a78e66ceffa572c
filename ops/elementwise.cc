#include "gradweave/ops/elementwise.h"

#include <cmath>
#include <limits>
#include <string>
#include <utility>

#include "absl/strings/str_cat.h"
#include "gradweave/graph/check.h"
#include "gradweave/graph/gradient.h"
#include "gradweave/ops/composition.h"
#include "gradweave/ops/reduction.h"
#include "gradweave/ops/registry.h"
#include "gradweave/ops/state.h"

namespace gradweave {
namespace {

using BatchAxes = absl::InlinedVector<BatchAxis, 2>;
using GradientRule = Value (*)(GradientContext& g);  // Returns dx of the only operand.

// The dtypes with an order: all but bool.
constexpr DTypeSet kComparable = {kFloat32,  kFloat64, kInt32, kInt64,  kUint8,  kFloat16,
                                  kBFloat16, kInt8,    kInt16, kUint16, kUint32, kUint64};

// The columns of elementwise_ops.inc.
constexpr MixedPrecision kFollows = MixedPrecision::kFollows, kInFloat32 = MixedPrecision::kFloat32;

double OutputElements(const OpView&, absl::Span<const TensorType> outputs) {
  return static_cast<double>(outputs[0].shape.num_elements().size());
}

// The batch axis of a broadcast result. All operands with a batch must have it on the same axis,
// counted from the last one. All other operands must have size 1 there.
BatchAxes BroadcastBatch(const OpView& op, absl::Span<const BatchAxis> operands) {
  int rank = 0;
  for (int i = 0; i < op.num_operands(); ++i) rank = std::max(rank, op.shape(i).rank());
  int axis = -1;
  for (int i = 0; i < op.num_operands(); ++i) {
    if (operands[i].kind == BatchAxis::kAbsent) continue;
    const int aligned = operands[i].axis + rank - op.shape(i).rank();
    if (operands[i].kind != BatchAxis::kAxis || (axis >= 0 && aligned != axis)) return {{BatchAxis::kMixed, 0}};
    axis = aligned;
  }
  if (axis < 0) return {BatchAxis{}};
  for (int i = 0; i < op.num_operands(); ++i) {
    const int own = axis - (rank - op.shape(i).rank());
    if (operands[i].kind == BatchAxis::kAbsent && own >= 0 && !(op.shape(i)[own] == Dim(1)))
      return {{BatchAxis::kMixed, 0}};
  }
  return {BatchAxis::Axis(axis)};
}

absl::StatusOr<Shape> BroadcastOperands(const OpView& op) {
  Shape shape = op.shape(0);
  for (int i = 1; i < op.num_operands(); ++i) {
    std::optional<Shape> broadcast = BroadcastShapes(shape, op.shape(i));
    if (!broadcast.has_value()) {
      return op.Error("the shapes ", shape.ToString(), " and ", op.shape(i).ToString(),
                      " do not broadcast: aligned at their last axes, sizes have to be equal or 1");
    }
    shape = *std::move(broadcast);
  }
  return shape;
}

// Sets the gradient of an operand. Sums over the axes that broadcasting stretched.
void SetUnbroadcast(GradientContext& g, int i, const Value& gradient) {
  if (g.needs(i)) g.Set(i, SumToShape(gradient, g.operand(i).shape()));
}

// ---- One operand ----

struct UnaryRow {
  const char* name;
  const char* doc;
  DTypeSet dtypes;
  MixedPrecision precision;
  GradientRule gradient;  // Null for piecewise constant functions, whose gradient is zero.
  OpKind kind;
};

Value Dy(GradientContext& g) { return g.output_gradient(); }

const UnaryRow kUnary[] = {
#define GRADWEAVE_UNARY_OP(name, kind, doc, dtypes, precision, ...) {#name, doc, dtypes, precision, __VA_ARGS__, kind},
#define GRADWEAVE_BINARY_OP(...)
#include "gradweave/ops/elementwise_ops.inc"
};

// ---- Two operands that broadcast ----

struct BinaryRow {
  const char* name;
  const char* doc;
  DTypeSet dtypes;
  MixedPrecision precision;
  bool commutative;
  void (*gradient)(GradientContext& g);  // Null for comparisons and logic, whose bool result carries no gradient.
  OpKind kind;
};

// The operand that Minimum or Maximum selects gets the gradient. Equal operands get half each.
// Where selects it instead of a product with 0 or 1, because the gradient may be infinite. An
// example is Sqrt(Maximum(x, 0)) at x < 0, where the result is 0.
template <Value (*Better)(Operand, Operand)>
void ExtremumGradient(GradientContext& g) {
  const Value a = g.operand(0), b = g.operand(1);
  const Value tied = Where(Equal(a, b), Mul(Dy(g), 0.5), 0);
  if (g.needs(0)) SetUnbroadcast(g, 0, Where(Better(a, b), Dy(g), tied));
  if (g.needs(1)) SetUnbroadcast(g, 1, Where(Better(b, a), Dy(g), tied));
}

void PowGradient(GradientContext& g) {
  const Value a = g.operand(0), b = g.operand(1);
  if (g.needs(0)) {
    // The derivative is b * a^(b - 1). It is 0 where b is 0, also at a = 0.
    const Value exponent = Where(Equal(b, 0), OnesLike(b), Sub(b, 1));
    SetUnbroadcast(g, 0, Mul(Dy(g), Mul(b, Pow(a, exponent))));
  }
  if (g.needs(1)) {
    // The derivative is a^b * log(a). It is 0 where a is 0: its limit for b > 0.
    const Value safe = Where(Equal(a, 0), OnesLike(a), a);
    SetUnbroadcast(g, 1, Mul(Dy(g), Mul(g.output(), Log(safe))));
  }
}

// The remainder is a - b*q with a whole quotient q, which is constant between its jumps.
void RemainderGradient(GradientContext& g) {
  SetUnbroadcast(g, 0, Dy(g));
  if (!g.needs(1)) return;
  const Value quotient = Round(Div(Sub(g.operand(0), g.output()), g.operand(1)));
  SetUnbroadcast(g, 1, Neg(Mul(Dy(g), quotient)));
}

void ZeroGradient(GradientContext&) {}

const BinaryRow kBinary[] = {
#define GRADWEAVE_UNARY_OP(...)
#define GRADWEAVE_BINARY_OP(name, kind, doc, dtypes, precision, commutative, ...) \
  {#name, doc, dtypes, precision, commutative, __VA_ARGS__, kind},
#include "gradweave/ops/elementwise_ops.inc"
};

absl::StatusOr<TensorTypes> SameType(const OpView& op) { return TensorTypes{op.operand(0)}; }

// Gradients of activations y = f(x) as ops, linear in the gradient dy of the result. The second
// operand is y, or x if the gradient is not a function of y.
void RegisterGradientOps(OpRegistry& registry) {
  struct Row {
    const char* name;
    const char* second;  // Name of the second operand.
    const char* doc;
    DTypeSet dtypes;
    void (*gradient)(GradientContext& g);
  };
  const Row rows[] = {
      {"SigmoidGrad", "y", "dy * y * (1 - y): the gradient of y = Sigmoid(x).", kFloating,
       [](GradientContext& g) {
         const Value y = g.operand(1);
         g.Set(0, AddOp("SigmoidGrad", {Dy(g), y}));
         if (g.needs(1)) g.Set(1, Mul(Mul(Dy(g), g.operand(0)), Sub(1, Mul(y, 2))));
       }},
      {"TanhGrad", "y", "dy * (1 - y^2): the gradient of y = Tanh(x).", kFloating,
       [](GradientContext& g) {
         const Value y = g.operand(1);
         g.Set(0, AddOp("TanhGrad", {Dy(g), y}));
         if (g.needs(1)) g.Set(1, Mul(Mul(Dy(g), g.operand(0)), Mul(y, -2)));
       }},
      {"ReluGrad", "y", "dy where y > 0, else 0: the gradient of y = Relu(x).", kNumeric,
       [](GradientContext& g) {
         g.Set(0, AddOp("ReluGrad", {Dy(g), g.operand(1)}));
       }},
      {"GeluGrad", "x",
       "dy * (Phi(x) + x * phi(x)), with the normal distribution function Phi and density phi: the gradient of y = "
       "Gelu(x).",
       kFloating,
       [](GradientContext& g) {
         const Value x = g.operand(1);
         g.Set(0, AddOp("GeluGrad", {Dy(g), x}));
         if (!g.needs(1)) return;
         const Value density = Mul(Exp(Mul(Square(x), -0.5)), 1 / std::sqrt(2 * M_PI));
         // density * (2 - x^2), computed without squaring a large x.
         g.Set(1, Mul(Mul(Dy(g), g.operand(0)), Sub(Mul(density, 2), Mul(Mul(density, x), x))));
       }},
  };
  for (const Row& row : rows) {
    registry.Add({
        .name = row.name,
        .doc = row.doc,
        .operands = {{"dy", "Any shape.", row.dtypes}, {row.second, "Same shape as dy.", row.dtypes}},
        .infer = [](const OpView& op) -> absl::StatusOr<TensorTypes> {
          if (!(op.shape(0) == op.shape(1))) return op.Error("both operands have to have the same shape");
          return TensorTypes{op.operand(0)};
        },
        .gradient = row.gradient,
        .batch = BroadcastBatch,
        .flops = [](const OpView& op, absl::Span<const TensorType> outputs) { return 3 * OutputElements(op, outputs); },
        .elementwise = true,
        .same_dtypes = true,
        .mixed_precision = kFollows,
    });
  }
}

// The type of x, where the op's only attribute is a finite number.
absl::StatusOr<TensorTypes> SameTypeIfFinite(const OpView& op, absl::string_view attribute) {
  const double number = op.attribute<double>(attribute);
  if (!std::isfinite(number)) return op.Error(attribute, " is ", number, " and has to be finite");
  return SameType(op);
}

void RegisterParameterizedOps(OpRegistry& registry) {
  registry.Add({
      .name = "LeakyRelu",
      .doc = "x where x > 0, else slope * x. The gradient at 0 is the slope.",
      .operands = {{"x", "Any shape.", kFloating}},
      .attributes = {{"slope", AttributeType::kReal, "Finite.", 0.01}},
      .infer = [](const OpView& op) { return SameTypeIfFinite(op, "slope"); },
      .gradient =
          [](GradientContext& g) {
            const Value positive = Greater(g.operand(0), 0);
            g.Set(0, Where(positive, Dy(g), Mul(Dy(g), g.attribute<double>("slope"))));
          },
      .batch = BroadcastBatch,
      .flops = OutputElements,
      .elementwise = true,
      .mixed_precision = kFollows,
  });
  registry.Add({
      .name = "Elu",
      .doc = "x where x > 0, else alpha * (e^x - 1) (Clevert et al., \"Exponential linear units\", 2015).",
      .operands = {{"x", "Any shape.", kFloating}},
      .attributes = {{"alpha", AttributeType::kReal, "Finite.", 1.0}},
      .infer = [](const OpView& op) { return SameTypeIfFinite(op, "alpha"); },
      .gradient =
          [](GradientContext& g) {
            const Value x = g.operand(0);
            g.Set(0,
                  Mul(Dy(g), Where(Greater(x, 0), OnesLike(x), Mul(Exp(Minimum(x, 0)), g.attribute<double>("alpha")))));
          },
      .batch = BroadcastBatch,
      .flops = OutputElements,
      .elementwise = true,
      .mixed_precision = kFollows,
  });
  registry.Add({
      .name = "Clip",
      .doc = "min(max(x, low), high); NaN for NaN. The gradient is 1 in [low, high] and 0 outside.",
      .operands = {{"x", "Any shape.", kNumeric}},
      .attributes = {{"low", AttributeType::kReal, "Not above high."},
                     {"high", AttributeType::kReal, "Not below low."}},
      .infer = [](const OpView& op) -> absl::StatusOr<TensorTypes> {
        const double low = op.attribute<double>("low"), high = op.attribute<double>("high");
        if (!(low <= high)) return op.Error("low is ", low, " and high is ", high, "; low has to be at most high");
        return TensorTypes{op.operand(0)};
      },
      .gradient =
          [](GradientContext& g) {
            const Value x = g.operand(0);
            const Value inside =
                LogicalAnd(GreaterEqual(x, g.attribute<double>("low")), LessEqual(x, g.attribute<double>("high")));
            g.Set(0, Where(inside, Dy(g), 0));
          },
      .batch = BroadcastBatch,
      .flops = OutputElements,
      .elementwise = true,
      .mixed_precision = kFollows,
  });
  registry.Add({
      .name = "Cast",
      .doc =
          "x converted to another dtype. Numbers become floating ones by rounding to the nearest, to even if two are "
          "equally near; beyond the largest they are infinite, and NaN stays NaN. Floating to integer rounds toward "
          "zero and saturates; NaN becomes 0. Integers wrap around. Conversion to bool is x != 0.",
      .operands = {{"x", "Any shape.", kAnyDType}},
      .attributes = {{"dtype", AttributeType::kDType, "Result dtype."}},
      .infer = [](const OpView& op) -> absl::StatusOr<TensorTypes> {
        return TensorTypes{{op.attribute<DType>("dtype"), op.shape(0)}};
      },
      .gradient = [](GradientContext& g) { g.Set(0, Cast(Dy(g), g.operand(0).dtype())); },
      .batch = BroadcastBatch,
      .kind = OpKind::kCast,
      .elementwise = true,
  });
  registry.Add({
      .name = "StopGradient",
      .doc = "x. Gradients stop here.",
      .operands = {{"x", "Any shape.", kAnyDType}},
      .infer = SameType,
      .gradient = ZeroGradient,
      .batch = BroadcastBatch,
      .kind = OpKind::kStopGradient,
      .alias = true,
      .mixed_precision = kFollows,
  });
}

}  // namespace

std::optional<Shape> BroadcastShapes(const Shape& a, const Shape& b) {
  const Shape& longer = a.rank() >= b.rank() ? a : b;
  const Shape& shorter = a.rank() >= b.rank() ? b : a;
  const int offset = longer.rank() - shorter.rank();
  Shape result = longer;
  for (int axis = 0; axis < shorter.rank(); ++axis) {
    const Dim& x = longer[axis + offset];
    const Dim& y = shorter[axis];
    if (x == Dim(1)) {
      result[axis + offset] = y;
    } else if (!(x == y) && !(y == Dim(1))) {
      return std::nullopt;
    }
  }
  return result;
}

void RegisterElementwiseOps(OpRegistry& registry) {
  for (const UnaryRow& row : kUnary) {
    const GradientRule rule = row.gradient;
    registry.Add({
        .name = row.name,
        .doc = row.doc,
        .operands = {{"x", "Any shape.", row.dtypes}},
        .infer = SameType,
        .gradient =
            [rule](GradientContext& g) {
              if (rule != nullptr) g.Set(0, rule(g));
            },
        .batch = BroadcastBatch,
        .flops = OutputElements,
        .kind = row.kind,
        .elementwise = true,
        .mixed_precision = row.precision,
    });
  }
  for (const BinaryRow& row : kBinary) {
    // Only comparisons and logic have no gradient. Their result is bool.
    const bool truth = row.gradient == nullptr;
    registry.Add({
        .name = row.name,
        .doc = row.doc,
        .operands = {{"a", "Any shape.", row.dtypes}, {"b", "Broadcasts with a.", row.dtypes}},
        .infer = [truth](const OpView& op) -> absl::StatusOr<TensorTypes> {
          GW_ASSIGN_OR_RETURN(Shape shape, BroadcastOperands(op));
          return TensorTypes{{truth ? kBool : op.dtype(0), std::move(shape)}};
        },
        .gradient = row.gradient,
        .batch = BroadcastBatch,
        .flops = OutputElements,
        .kind = row.kind,
        .elementwise = true,
        .broadcasts = true,
        .commutative = row.commutative,
        .same_dtypes = true,
        .mixed_precision = row.precision,
    });
  }
  registry.Add({
      .name = "LogicalNot",
      .doc = "True where x is false.",
      .operands = {{"x", "Any shape.", DTypeSet{kBool}}},
      .infer = SameType,
      .batch = BroadcastBatch,
      .elementwise = true,
      .mixed_precision = kFollows,
  });
  registry.Add({
      .name = "Where",
      .doc = "if_true where the condition is true, else if_false. All three operands broadcast.",
      .operands = {{"condition", "Any shape.", DTypeSet{kBool}},
                   {"if_true", "Broadcasts with the condition.", kAnyDType},
                   {"if_false", "Same dtype as if_true.", kAnyDType}},
      .infer = [](const OpView& op) -> absl::StatusOr<TensorTypes> {
        if (op.dtype(1) != op.dtype(2))
          return op.Error("if_true and if_false have to have the same dtype; Cast converts");
        GW_ASSIGN_OR_RETURN(Shape shape, BroadcastOperands(op));
        return TensorTypes{{op.dtype(1), std::move(shape)}};
      },
      .gradient =
          [](GradientContext& g) {
            const Value zeros = FullLike(Dy(g), 0);
            if (g.needs(1)) SetUnbroadcast(g, 1, Where(g.operand(0), Dy(g), zeros));
            if (g.needs(2)) SetUnbroadcast(g, 2, Where(g.operand(0), zeros, Dy(g)));
          },
      .batch = BroadcastBatch,
      .elementwise = true,
      .broadcasts = true,
      .mixed_precision = kFollows,
  });
  RegisterGradientOps(registry);
  RegisterParameterizedOps(registry);
}

Value Where(Operand condition, Operand if_true, Operand if_false) {
  // A number takes the dtype of the other branch, not of the condition.
  const Value& like = if_true.is_number() ? if_false.value() : if_true.value();
  if (if_true.is_number() && if_false.is_number()) {
    return BuilderError("Where", {condition, if_true, if_false},
                        "one of if_true and if_false has to be a value, which gives the dtype");
  }
  return AddOp("Where", {condition, Operand(ToValue(if_true, like)), Operand(ToValue(if_false, like))});
}

Value LeakyRelu(Operand x, double slope) { return AddOp("LeakyRelu", {x}, {{"slope", slope}}); }
Value Elu(Operand x, double alpha) { return AddOp("Elu", {x}, {{"alpha", alpha}}); }
Value Clip(Operand x, double low, double high) { return AddOp("Clip", {x}, {{"low", low}, {"high", high}}); }
Value Cast(Operand x, DType dtype) {
  // A cast to the same dtype needs no node.
  return x.is_value() && x.dtype() == dtype ? x.value() : AddOp("Cast", {x}, {{"dtype", dtype}});
}

#define GRADWEAVE_UNARY_OP(name, ...) \
  Value name(Operand x) { return AddOp(#name, {x}); }
#define GRADWEAVE_BINARY_OP(name, ...) \
  Value name(Operand a, Operand b) { return AddOp(#name, {a, b}); }
#include "gradweave/ops/elementwise_ops.inc"

Value IsNaN(Operand x) {
  if (!x.is_value()) return NeedsValue("IsNaN", x);
  if (!IsReal(x.dtype())) return BuilderError("IsNaN", {x}, "x has to be floating; Cast converts");
  return NotEqual(x, x);
}

Value IsInf(Operand x, InfinityOptions options) {
  if (!x.is_value()) return NeedsValue("IsInf", x);
  if (!IsReal(x.dtype())) return BuilderError("IsInf", {x}, "x has to be floating; Cast converts");
  const CallLocation location(x);
  constexpr double kInfinity = std::numeric_limits<double>::infinity();
  if (options.positive && options.negative) return Equal(Abs(x), kInfinity);
  if (options.positive || options.negative) return Equal(x, options.positive ? kInfinity : -kInfinity);
  return NotEqual(x, x) && Equal(x, x);
}

Value BitNot(Operand x) {
  if (!x.is_value()) return NeedsValue("BitNot", x);
  const CallLocation location(x);
  return BitXor(x, x.dtype() == kUint8 ? 255 : -1);
}

Value LogicalNot(Operand x) { return AddOp("LogicalNot", {x}); }
Value StopGradient(Operand x) { return AddOp("StopGradient", {x}); }

}  // namespace gradweave
