#include "gradweave/frontend/initializers.h"

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <initializer_list>
#include <type_traits>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"
#include "gradweave/frontend/number_checks.h"
#include "gradweave/ops/elementwise.h"
#include "gradweave/ops/functions.h"
#include "gradweave/ops/matmul.h"
#include "gradweave/ops/random.h"
#include "gradweave/ops/reduction.h"
#include "gradweave/ops/shape_ops.h"
#include "gradweave/ops/state.h"

namespace gradweave::nn {
namespace {

double SquaredGain(Activation activation, double slope) {
  switch (activation) {
    case Activation::kLinear:
    case Activation::kSigmoid:
      return 1;
    case Activation::kTanh:
      return 25.0 / 9;
    case Activation::kRelu:
      return 2;
    case Activation::kLeakyRelu:
      return 2 / (1 + slope * slope);
    case Activation::kSelu:
      return 9.0 / 16;
  }
  return 1;
}

// A variable whose initial value is made. Nodes and errors get the line of the builder's state.
struct Request {
  Scope& scope;
  DType dtype;
  const Shape& shape;

  Graph& graph() const { return scope.graph(); }
  Value Error(absl::string_view message) const {
    graph().RecordError(
        absl::InvalidArgumentError(absl::StrCat("InitialValue: ", message, ", and the shape is ", shape.ToString(),
                                                "; at ", ToString(graph().builder().location))));
    return Value(&graph(), Port{});
  }
  bool Check(absl::string_view name, std::initializer_list<NumberCheck> checks) const {
    return CheckNumbers(graph(), name, checks);
  }
  Value Invalid() const { return Value(&graph(), Port{}); }
  Value Uniform(double low, double high) const { return RandomUniform(scope, shape, low, high, {.dtype = dtype}); }
  Value Normal(double mean, double deviation) const {
    return RandomNormal(scope, shape, mean, deviation, {.dtype = dtype});
  }
};

struct Fans {
  double in = 1, out = 1;
  double of(Fan fan) const { return fan == Fan::kIn ? in : out; }
};

Fans FansOf(const Shape& shape) {
  if (shape.rank() == 2) return {static_cast<double>(shape[0].size()), static_cast<double>(shape[1].size())};
  double window = 1;
  for (int axis = 2; axis < shape.rank(); ++axis) window *= static_cast<double>(shape[axis].size());
  return {static_cast<double>(shape[1].size()) * window, static_cast<double>(shape[0].size()) * window};
}

// The variance, times fan or for Xavier the mean of both fans. Uniform numbers in ±b have variance
// b^2/3.
Value UniformOfVariance(const Request& request, double numerator, double fan) {
  const double bound = std::sqrt(3 * numerator / fan);
  return request.Uniform(-bound, bound);
}
Value NormalOfVariance(const Request& request, double numerator, double fan) {
  return request.Normal(0, std::sqrt(numerator / fan));
}

Value Make(const Request& request, const XavierUniform&) {
  const Fans fans = FansOf(request.shape);
  return UniformOfVariance(request, 2, fans.in + fans.out);
}
Value Make(const Request& request, const XavierNormal&) {
  const Fans fans = FansOf(request.shape);
  return NormalOfVariance(request, 2, fans.in + fans.out);
}
Value Make(const Request& request, const LeCunUniform&) {
  return UniformOfVariance(request, 1, FansOf(request.shape).in);
}
Value Make(const Request& request, const LeCunNormal&) {
  return NormalOfVariance(request, 1, FansOf(request.shape).in);
}
Value Make(const Request& request, const KaimingUniform& kind) {
  if (!request.Check("KaimingUniform", {{"slope", kind.slope, NumberCheck::kFinite}})) return request.Invalid();
  return UniformOfVariance(request, SquaredGain(kind.activation, kind.slope), FansOf(request.shape).of(kind.fan));
}
Value Make(const Request& request, const KaimingNormal& kind) {
  if (!request.Check("KaimingNormal", {{"slope", kind.slope, NumberCheck::kFinite}})) return request.Invalid();
  return NormalOfVariance(request, SquaredGain(kind.activation, kind.slope), FansOf(request.shape).of(kind.fan));
}

Value Make(const Request& request, const Constant& kind) {
  if (!request.Check("Constant", {{"value", kind.value, NumberCheck::kNotNaN}})) return request.Invalid();
  return BroadcastTo(request.scope.Constant(Tensor::ScalarOf(request.dtype, kind.value)), request.shape);
}

Value Make(const Request& request, const Uniform& kind) {
  if (!request.Check("Uniform", {{"low", kind.low, NumberCheck::kFinite}, {"high", kind.high, NumberCheck::kFinite}}))
    return request.Invalid();
  return request.Uniform(kind.low, kind.high);
}

template <typename Kind>
bool CheckNormal(const Request& request, absl::string_view name, const Kind& kind) {
  return request.Check(name, {{"mean", kind.mean, NumberCheck::kFinite},
                              {"standard_deviation", kind.standard_deviation, NumberCheck::kNotNegative}});
}

Value Make(const Request& request, const Normal& kind) {
  if (!CheckNormal(request, "Normal", kind)) return request.Invalid();
  return request.Normal(kind.mean, kind.standard_deviation);
}

// sqrt(2) * erf^-1(u) of uniform numbers u between erf(-sqrt(2)) and erf(sqrt(2)), the shares of
// the normal distribution between ±2 deviations. Halley's iteration finds erf^-1 from the line
// through 0: with f(y) = erf(y) - u and e = f/f', f''/f' is -2y, and the step is -e/(1 + y*e). Four
// steps give full precision in float64 for all these u.
Value Make(const Request& request, const TruncatedNormal& kind) {
  if (!CheckNormal(request, "TruncatedNormal", kind)) return request.Invalid();
  const double edge = std::erf(M_SQRT2), slope = 1 / M_2_SQRTPI;
  const Value u = request.Uniform(-edge, edge);
  Value y = u * slope;
  for (int step = 0; step < 4; ++step) {
    const Value error = (Erf(y) - u) * Exp(Square(y)) * slope;
    y = y - error / (y * error + 1);
  }
  return Clip(y * M_SQRT2, -2, 2) * kind.standard_deviation + kind.mean;
}

// The numbers 0 to size - 1, along one axis of a matrix.
Value RowNumbers(Scope& scope, int64_t size) { return gradweave::Reshape(Range(scope, size), {size, 1}); }
Value ColumnNumbers(Scope& scope, int64_t size) { return Transpose(RowNumbers(scope, size)); }

Value Make(const Request& request, const Identity& kind) {
  if (request.shape.rank() != 2) return request.Error("Identity is for matrices");
  if (!request.Check("Identity", {{"gain", kind.gain, NumberCheck::kFinite}})) return request.Invalid();
  const Value rows = RowNumbers(request.scope, request.shape[0].size());
  const Value columns = ColumnNumbers(request.scope, request.shape[1].size());
  return Cast(Equal(rows, columns), request.dtype) * kind.gain;
}

// A random matrix [n, k], n >= k, with orthonormal columns, in float64: the product of the
// Householder reflections that make a normal matrix triangular, applied to the first k columns of
// the identity, with the signs that make it uniformly distributed (Stewart, "The efficient
// generation of random orthogonal matrices with an application to condition estimators", 1980).
// Below its first element, a column of the remaining matrix is normal for all reflections before,
// so column j of a triangular normal matrix gives reflection j, and all reflections are known at
// once.
//
// Panels of reflections are applied as I - V T V^T. For unit vectors, T is twice the inverse of I +
// N, where N is what is above the diagonal of 2 V^T V (Joffrain et al., "Accumulating Householder
// transformations, revisited", 2006). With M = -N, whose power of the panel's width is zero, the
// inverse is (I + M)(I + M^2)(I + M^4)...
Value RandomOrthonormal(Scope& scope, int64_t n, int64_t k) {
  constexpr int64_t kPanel = 256;
  const Value rows = RowNumbers(scope, n), columns = ColumnNumbers(scope, k);
  const Value identity = Cast(Equal(rows, columns), kFloat64);
  const Value x = Where(GreaterEqual(rows, columns), RandomNormal(scope, {n, k}, 0, 1, {.dtype = kFloat64}), 0);
  const ReductionOptions of_columns{.axes = {0}, .keep_dims = true};
  // A reflection maps its column of x to -sign * |x| times a column of the identity.
  const Value diagonal = Sum(x * identity, of_columns);
  const Value sign = Where(Less(diagonal, 0), -1, OnesLike(diagonal));
  const Value unscaled = x + identity * (sign * Norm(x, of_columns));
  const Value v = unscaled / Norm(unscaled, of_columns);
  Value q = identity;
  for (int64_t first = (k - 1) / kPanel * kPanel; first >= 0; first -= kPanel) {
    const int64_t width = std::min(kPanel, k - first);
    const Value panel = SliceAxis(v, 1, first, first + width);
    const Value strictly_upper = Less(RowNumbers(scope, width), ColumnNumbers(scope, width));
    const Value gram = MatMul(panel, panel, {.transpose_a = true});
    Value power = Where(strictly_upper, gram * -2, 0);
    Value inverse = Cast(Equal(RowNumbers(scope, width), ColumnNumbers(scope, width)), kFloat64) + power;
    for (int64_t exponent = 2; exponent < width; exponent *= 2) {
      power = MatMul(power, power);
      inverse = inverse + MatMul(inverse, power);
    }
    q = q - MatMul(panel, MatMul(inverse * 2, MatMul(panel, q, {.transpose_a = true})));
  }
  return q * -sign;
}

Value Make(const Request& request, const Orthogonal& kind) {
  if (!request.Check("Orthogonal", {{"gain", kind.gain, NumberCheck::kFinite}})) return request.Invalid();
  if (!IsFloating(request.dtype)) return request.Error("Orthogonal is for floating variables");
  int64_t rows = request.shape[0].size(), columns = 1;
  for (int axis = 1; axis < request.shape.rank(); ++axis) columns *= request.shape[axis].size();
  if (rows < 1 || columns < 1) return request.Error("Orthogonal needs elements");
  const Value matrix = RandomOrthonormal(request.scope, std::max(rows, columns), std::min(rows, columns));
  return Cast(gradweave::Reshape(rows < columns ? Transpose(matrix) : matrix, request.shape) * kind.gain,
              request.dtype);
}

template <typename Kind>
constexpr bool kNeedsTwoAxes = !(std::is_same_v<Kind, Constant> || std::is_same_v<Kind, Uniform> ||
                                 std::is_same_v<Kind, Normal> || std::is_same_v<Kind, TruncatedNormal>);

}  // namespace

double Gain(Activation activation, double slope) { return std::sqrt(SquaredGain(activation, slope)); }

Value InitialValue(Scope& scope, const Initializer& initializer, DType dtype, const Shape& shape,
                   std::source_location location) {
  Graph& graph = scope.graph();
  const LocationGuard guard(graph,
                            graph.builder().location.file != nullptr ? SourceLocation() : ToSourceLocation(location));
  const Request request{scope, dtype, shape};
  if (!shape.is_static()) return request.Error("a variable's shape has to be known");
  return std::visit(
      [&]<typename Kind>(const Kind& kind) {
        if (kNeedsTwoAxes<Kind> && shape.rank() < 2)
          return request.Error("Xavier, Kaiming, LeCun, Orthogonal and Identity initializers need at least two axes");
        return Make(request, kind);
      },
      initializer);
}

}  // namespace gradweave::nn
