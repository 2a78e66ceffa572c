#include "gradweave/ops/elementwise.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "gradweave/graph/passes/autodiff.h"
#include "gradweave/ops/reduction.h"
#include "gradweave/ops/registry.h"
#include "tests/ops/op_case.h"

namespace gradweave {
namespace {

constexpr double kNaN = std::numeric_limits<double>::quiet_NaN();
constexpr double kInfinity = std::numeric_limits<double>::infinity();

struct UnaryRow {
  const char* op;
  Value (*build)(Operand);
  double (*formula)(double);
  double low, high;
  int derivatives = 2;
};

// The ranges exclude poles and jumps of the derivatives.
const UnaryRow kUnary[] = {
    {"Neg", Neg, [](double x) { return -x; }, -2, 2},
    {"Abs", Abs, [](double x) { return std::abs(x); }, 0.1, 2},
    {"Sign", Sign, [](double x) { return double(x > 0) - double(x < 0); }, 0.1, 2},
    {"Exp", Exp, [](double x) { return std::exp(x); }, -2, 2},
    {"Expm1", Expm1, [](double x) { return std::expm1(x); }, -1, 1},
    {"Log", Log, [](double x) { return std::log(x); }, 0.5, 3},
    {"Log1p", Log1p, [](double x) { return std::log1p(x); }, -0.5, 2},
    {"Sqrt", Sqrt, [](double x) { return std::sqrt(x); }, 0.5, 3},
    {"Rsqrt", Rsqrt, [](double x) { return 1 / std::sqrt(x); }, 0.5, 3},
    {"Reciprocal", Reciprocal, [](double x) { return 1 / x; }, 0.5, 2},
    {"Square", Square, [](double x) { return x * x; }, -2, 2},
    {"Sin", Sin, [](double x) { return std::sin(x); }, -4, 4},
    {"Cos", Cos, [](double x) { return std::cos(x); }, -4, 4},
    {"Tan", Tan, [](double x) { return std::tan(x); }, -1.2, 1.2},
    {"Asin", Asin, [](double x) { return std::asin(x); }, -0.9, 0.9},
    {"Acos", Acos, [](double x) { return std::acos(x); }, -0.9, 0.9},
    {"Atan", Atan, [](double x) { return std::atan(x); }, -4, 4},
    {"Sinh", Sinh, [](double x) { return std::sinh(x); }, -3, 3},
    {"Cosh", Cosh, [](double x) { return std::cosh(x); }, -3, 3},
    {"Tanh", Tanh, [](double x) { return std::tanh(x); }, -2, 2},
    {"Asinh", Asinh, [](double x) { return std::asinh(x); }, -3, 3},
    {"Acosh", Acosh, [](double x) { return std::acosh(x); }, 1.2, 4},
    {"Atanh", Atanh, [](double x) { return std::atanh(x); }, -0.9, 0.9},
    {"Sigmoid", Sigmoid, [](double x) { return 1 / (1 + std::exp(-x)); }, -4, 4},
    {"Relu", Relu, [](double x) { return std::max(x, 0.0); }, 0.1, 2},
    {"Selu", Selu, [](double x) { return 1.0507009873554805 * (x > 0 ? x : 1.6732632423543772 * std::expm1(x)); }, -2,
     -0.1},
    {"Gelu", Gelu, [](double x) { return x * (1 + std::erf(x / std::sqrt(2.0))) / 2; }, -3, 3},
    {"Softplus", Softplus, [](double x) { return std::log1p(std::exp(x)); }, -3, 3},
    {"Erf", Erf, [](double x) { return std::erf(x); }, -2, 2},
    {"Floor", Floor, [](double x) { return std::floor(x); }, 0.1, 0.9},
    {"Ceil", Ceil, [](double x) { return std::ceil(x); }, 0.1, 0.9},
    {"Round", Round, [](double x) { return std::nearbyint(x); }, -0.4, 0.4},
};

struct BinaryRow {
  const char* op;
  Value (*build)(Operand, Operand);
  double (*formula)(double, double);
  int derivatives;
};

const BinaryRow kBinary[] = {
    {"Add", Add, [](double a, double b) { return a + b; }, 2},
    {"Sub", Sub, [](double a, double b) { return a - b; }, 2},
    {"Mul", Mul, [](double a, double b) { return a * b; }, 2},
    {"Div", Div, [](double a, double b) { return a / b; }, 2},
    {"Fmod", Fmod, [](double a, double b) { return std::fmod(a, b); }, 2},
    {"Mod", Mod, [](double a, double b) { return a - b * std::floor(a / b); }, 2},
    {"Pow", Pow, [](double a, double b) { return std::pow(a, b); }, 2},
    {"Minimum", Minimum, [](double a, double b) { return std::min(a, b); }, 2},
    {"Maximum", Maximum, [](double a, double b) { return std::max(a, b); }, 2},
    {"SigmoidCrossEntropy", SigmoidCrossEntropy,
     [](double z, double t) { return t * std::log1p(std::exp(-z)) + (1 - t) * std::log1p(std::exp(z)); }, 2},
    {"Equal", Equal, [](double a, double b) { return double(a == b); }, 0},
    {"NotEqual", NotEqual, [](double a, double b) { return double(a != b); }, 0},
    {"Less", Less, [](double a, double b) { return double(a < b); }, 0},
    {"LessEqual", LessEqual, [](double a, double b) { return double(a <= b); }, 0},
    {"Greater", Greater, [](double a, double b) { return double(a > b); }, 0},
    {"GreaterEqual", GreaterEqual, [](double a, double b) { return double(a >= b); }, 0},
};

std::function<std::vector<Array>(const std::vector<Array>&)> Each(std::function<double(double)> formula) {
  return [formula](const std::vector<Array>& x) {
    Array y = x[0];
    for (double& value : y.values) value = formula(value);
    return std::vector<Array>{y};
  };
}

// Returns the element of an operand from which an element of the broadcast result is computed.
double Stretched(const Array& x, const std::vector<int64_t>& indices) {
  std::vector<int64_t> own(indices.end() - x.sizes.size(), indices.end());
  for (size_t axis = 0; axis < own.size(); ++axis) own[axis] = x.sizes[axis] == 1 ? 0 : own[axis];
  return x.at(own);
}

std::function<std::vector<Array>(const std::vector<Array>&)> Pairs(std::vector<int64_t> sizes,
                                                                   std::function<double(double, double)> formula) {
  return [sizes, formula](const std::vector<Array>& x) {
    Array y = Array::Zeros(sizes);
    ForIndices(sizes, [&](const std::vector<int64_t>& indices) {
      y.at(indices) = formula(Stretched(x[0], indices), Stretched(x[1], indices));
    });
    return std::vector<Array>{y};
  };
}

std::function<std::vector<Value>(const std::vector<Value>&)> One(
    std::function<Value(const std::vector<Value>&)> build) {
  return [build](const std::vector<Value>& x) { return std::vector<Value>{build(x)}; };
}

}  // namespace

OpCases ElementwiseCases() {
  OpCases all;
  for (const UnaryRow& row : kUnary) {
    // 37 elements are at least two full vectors and a remainder, for any vector width.
    all.cases.push_back({row.op,
                         "vector",
                         {{{37}, kFloat64, row.low, row.high}},
                         One([row](const auto& x) { return row.build(x[0]); }),
                         Each(row.formula),
                         row.derivatives});
  }
  for (const UnaryRow& row : kUnary) {
    if (!CoreOps().Find(row.op)->operands[0].dtypes.Contains(kInt32)) continue;
    all.cases.push_back({row.op,
                         "int32",
                         {{{5, 3}, kInt32, -9, 9}},
                         One([row](const auto& x) { return row.build(x[0]); }),
                         Each(row.formula),
                         0});
  }
  all.cases.push_back({"Relu",
                       "negative",
                       {{{3, 5}, kFloat64, -2, -0.1}},
                       One([](const auto& x) { return Relu(x[0]); }),
                       Each([](double x) { return std::max(x, 0.0); })});
  all.cases.push_back(
      {"Abs", "negative", {{{7}, kFloat64, -2, -0.1}}, One([](const auto& x) { return Abs(x[0]); }), Each([](double x) {
         return std::abs(x);
       })});
  all.cases.push_back(
      {"Selu", "positive", {{{7}, kFloat64, 0.1, 2}}, One([](const auto& x) { return Selu(x[0]); }), Each([](double x) {
         return 1.0507009873554805 * x;
       })});
  const std::vector<double> extreme = {-1e4, -800, -90, -0.0, 0, 90, 800, 1e4, kInfinity, -kInfinity, kNaN};
  auto special = [&](const char* op, Value (*build)(Operand), double (*formula)(double)) {
    all.cases.push_back({op,
                         "extreme",
                         {{{11}, kFloat64, 0, 0, extreme}},
                         One([build](const auto& x) { return build(x[0]); }),
                         [formula](const std::vector<Array>& x) { return Each(formula)(x); },
                         0});
  };
  special("Sigmoid", Sigmoid, [](double x) { return 1 / (1 + std::exp(-x)); });
  special("Atan", Atan, [](double x) { return std::atan(x); });
  special("Asinh", Asinh, [](double x) { return std::asinh(x); });
  special("Tanh", Tanh, [](double x) { return std::tanh(x); });
  special("Relu", Relu, [](double x) { return x > 0 || std::isnan(x) ? x : 0.0; });
  special("Softplus", Softplus, [](double x) { return x > 30 ? x : std::log1p(std::exp(x)); });
  special("Gelu", Gelu, [](double x) {
    return std::isnan(x) || x == -kInfinity ? kNaN : x > 10 ? x : x < -10 ? 0.0 : 0.0;
  });

  for (const BinaryRow& row : kBinary) {
    auto build = One([row](const auto& x) { return row.build(x[0], x[1]); });
    const OperandCase positive = {{4, 7}, kFloat64, 0.5, 2};
    OperandCase other = positive;
    all.cases.push_back({row.op, "same_shape", {positive, other}, build, Pairs({4, 7}, row.formula), row.derivatives});
    other.sizes = {7};
    all.cases.push_back({row.op, "row", {positive, other}, build, Pairs({4, 7}, row.formula), row.derivatives});
    other.sizes = {4, 1};
    all.cases.push_back(
        {row.op, "column_first", {other, positive}, build, Pairs({4, 7}, row.formula), row.derivatives});
    other.sizes = {};
    all.cases.push_back({row.op, "scalar", {positive, other}, build, Pairs({4, 7}, row.formula), row.derivatives});
    all.cases.push_back({row.op,
                         "both_stretch",
                         {{{2, 1, 3}, kFloat64, 0.5, 2}, {{5, 1}, kFloat64, 0.5, 2}},
                         build,
                         Pairs({2, 5, 3}, row.formula),
                         row.derivatives});
    if (!CoreOps().Find(row.op)->operands[0].dtypes.Contains(kInt32)) continue;
    for (DType dtype : {kInt32, kInt64, kUint8}) {
      auto formula = row.formula;
      auto integer = [formula, op = absl::string_view(row.op)](double a, double b) {
        return op == "Div" ? std::trunc(a / b) : formula(a, b);
      };
      all.cases.push_back({row.op,
                           std::string(DTypeName(dtype)),
                           {{{3, 4}, dtype, 5, 9}, {{4}, dtype, 1, 5}},
                           build,
                           Pairs({3, 4}, integer),
                           0});
    }
  }
  all.cases.push_back({"Div",
                       "integers_by_zero",
                       {{{3}, kInt32, 0, 0, {7, -7, -2147483648.0}}, {{3}, kInt32, 0, 0, {0, 2, -1}}},
                       One([](const auto& x) { return Div(x[0], x[1]); }),
                       [](const std::vector<Array>&) {
                         return std::vector<Array>{{{3}, {0, -3, -2147483648.0}}};
                       },
                       0});
  // The signs and the quotients of Python's % and of C's fmod, for every pair of signs.
  struct Remainders {
    const char* op;
    Value (*build)(Operand, Operand);
    std::vector<double> floating, integers;
  };
  for (const Remainders& row :
       {Remainders{"Mod", Mod, {1.5, 2, -2, -1.5, 0.5, kNaN, 5, kNaN}, {1, 2, -2, -1, 0, 0, 0, 6}},
        Remainders{"Fmod", Fmod, {1.5, -1.5, 1.5, -1.5, 0.5, kNaN, 5, kNaN}, {1, -1, 1, -1, 0, 0, 0, 6}}}) {
    auto build = One([row](const auto& x) { return row.build(x[0], x[1]); });
    all.cases.push_back({row.op,
                         "signs",
                         {{{8}, kFloat64, 0, 0, {5, -5, 5, -5, 7, 1, 5, kInfinity}},
                          {{8}, kFloat64, 0, 0, {3.5, 3.5, -3.5, -3.5, 0.8125, 0, kInfinity, 3}}},
                         build,
                         [row](const std::vector<Array>&) {
                           return std::vector<Array>{{{8}, row.floating}};
                         },
                         0});
    all.cases.push_back({row.op,
                         "integer_signs",
                         {{{8}, kInt32, 0, 0, {7, -7, 7, -7, 5, -2147483648.0, 9, 27}},
                          {{8}, kInt32, 0, 0, {3, 3, -3, -3, 0, -1, 9, 7}}},
                         build,
                         [row](const std::vector<Array>&) {
                           return std::vector<Array>{{{8}, row.integers}};
                         },
                         0});
    // The derivative for b is minus the quotient, which differs between the two.
    all.cases.push_back({row.op,
                         "derivatives",
                         {{{4}, kFloat64, 0, 0, {5, -5, 5, -5}}, {{4}, kFloat64, 0, 0, {3.5, 3.25, -3.5, -1.75}}},
                         build,
                         Pairs({4}, [python = absl::string_view(row.op) == "Mod"](double a, double b) {
                           return a - b * (python ? std::floor(a / b) : std::trunc(a / b));
                         })});
  }
  const std::vector<double> bits_a = {12, 10, 255, 0, 1, 7, 200}, bits_b = {10, 3, 15, 9, 7, 8, 1};
  auto bits = [&](const char* op, Value (*build)(Operand, Operand), int64_t (*formula)(int64_t, int64_t)) {
    for (DType dtype : {kInt32, kInt64, kUint8}) {
      all.cases.push_back({op,
                           std::string(DTypeName(dtype)),
                           {{{7}, dtype, 0, 0, bits_a}, {{7}, dtype, 0, 0, bits_b}},
                           One([build](const auto& x) { return build(x[0], x[1]); }),
                           [formula, dtype](const std::vector<Array>& x) {
                             Array y = x[0];
                             for (size_t i = 0; i < y.values.size(); ++i) {
                               const int64_t whole =
                                   formula(static_cast<int64_t>(x[0].values[i]), static_cast<int64_t>(x[1].values[i]));
                               y.values[i] = static_cast<double>(dtype == kUint8 ? whole & 255 : whole);
                             }
                             return std::vector<Array>{y};
                           },
                           0});
    }
  };
  bits("BitAnd", BitAnd, [](int64_t a, int64_t b) { return a & b; });
  bits("BitOr", BitOr, [](int64_t a, int64_t b) { return a | b; });
  bits("BitXor", BitXor, [](int64_t a, int64_t b) { return a ^ b; });
  bits("ShiftLeft", ShiftLeft, [](int64_t a, int64_t b) { return a << b; });
  bits("ShiftRight", ShiftRight, [](int64_t a, int64_t b) { return a >> b; });
  auto shifts = [&](const char* op, Value (*build)(Operand, Operand), std::vector<double> expected) {
    all.cases.push_back({op,
                         "signs",
                         {{{6}, kInt32, 0, 0, {-8, -8, -8, 5, 5, 1}}, {{6}, kInt32, 0, 0, {1, -1, 32, -3, 100, 31}}},
                         One([build](const auto& x) { return build(x[0], x[1]); }),
                         [expected](const std::vector<Array>&) {
                           return std::vector<Array>{{{6}, expected}};
                         },
                         0});
  };
  shifts("ShiftLeft", ShiftLeft, {-16, 0, 0, 0, 0, -2147483648.0});
  shifts("ShiftRight", ShiftRight, {-4, -1, -1, 0, 0, 0});
  all.cases.push_back(
      {"Maximum",
       "nan",
       {{{4}, kFloat64, 0, 0, {1, kNaN, 2, kInfinity}}, {{4}, kFloat64, 0, 0, {kNaN, 1, 3, -kInfinity}}},
       One([](const auto& x) { return Maximum(x[0], x[1]); }),
       [](const std::vector<Array>&) {
         return std::vector<Array>{{{4}, {kNaN, kNaN, 3, kInfinity}}};
       },
       0});
  all.cases.push_back(
      {"Minimum",
       "nan",
       {{{4}, kFloat64, 0, 0, {1, kNaN, 2, kInfinity}}, {{4}, kFloat64, 0, 0, {kNaN, 1, 3, -kInfinity}}},
       One([](const auto& x) { return Minimum(x[0], x[1]); }),
       [](const std::vector<Array>&) {
         return std::vector<Array>{{{4}, {kNaN, kNaN, 2, -kInfinity}}};
       },
       0});

  // Logits of both signs: the derivative at 0 is 0.5 - target.
  all.cases.push_back({"SigmoidCrossEntropy",
                       "signs",
                       {{{7}, kFloat64, 0, 0, {-3, -1, -0.5, 0, 0.5, 1, 3}}, {{7}, kFloat64, 0, 1}},
                       One([](const auto& x) { return SigmoidCrossEntropy(x[0], x[1]); }),
                       Pairs({7}, [](double z, double t) {
                         return t * std::log1p(std::exp(-z)) + (1 - t) * std::log1p(std::exp(z));
                       })});
  all.cases.push_back(
      {"SigmoidCrossEntropy",
       "extreme",
       {{{10},
         kFloat64,
         0,
         0,
         {kInfinity, kInfinity, kInfinity, -kInfinity, -kInfinity, -kInfinity, 1e4, -1e4, kNaN, kNaN}},
        {{10}, kFloat64, 0, 0, {1, 0, 0.5, 1, 0, 0.5, 0.25, 0.25, 0, 1}}},
       One([](const auto& x) { return SigmoidCrossEntropy(x[0], x[1]); }),
       [](const std::vector<Array>&) {
         return std::vector<Array>{{{10}, {0, kInfinity, kInfinity, kInfinity, 0, kInfinity, 7500, 2500, kNaN, kNaN}}};
       },
       0});

  auto logic = [&](const char* op, Value (*build)(Operand, Operand), double (*formula)(double, double)) {
    all.cases.push_back({op,
                         "table",
                         {{{4}, kBool, 0, 0, {0, 0, 1, 1}}, {{4}, kBool, 0, 0, {0, 1, 0, 1}}},
                         One([build](const auto& x) { return build(x[0], x[1]); }),
                         Pairs({4}, formula),
                         0});
  };
  logic("LogicalAnd", LogicalAnd, [](double a, double b) { return double(a != 0 && b != 0); });
  logic("LogicalOr", LogicalOr, [](double a, double b) { return double(a != 0 || b != 0); });
  logic("LogicalXor", LogicalXor, [](double a, double b) { return double(a != b); });
  all.cases.push_back({"LogicalNot",
                       "table",
                       {{{2}, kBool, 0, 0, {0, 1}}},
                       One([](const auto& x) { return LogicalNot(x[0]); }),
                       Each([](double x) { return 1 - x; }),
                       0});

  all.cases.push_back({"Where",
                       "broadcast",
                       {{{3, 1}, kBool, 0, 0, {1, 0, 1}}, {{3, 4}}, {{4}}},
                       One([](const auto& x) { return Where(x[0], x[1], x[2]); }),
                       [](const std::vector<Array>& x) {
                         Array y = Array::Zeros({3, 4});
                         ForIndices(y.sizes, [&](const auto& i) {
                           y.at(i) = Stretched(x[0], i) != 0 ? x[1].at(i) : Stretched(x[2], i);
                         });
                         return std::vector<Array>{y};
                       }});
  all.cases.push_back({"Where",
                       "number",
                       {{{4}, kBool, 0, 0, {1, 0, 1, 0}}, {{4}}},
                       One([](const auto& x) { return Where(x[0], x[1], 2.5); }),
                       [](const std::vector<Array>& x) {
                         Array y = x[1];
                         for (int i = 1; i < 4; i += 2) y.values[i] = 2.5;
                         return std::vector<Array>{y};
                       }});

  auto with = [&](const char* op, const char* name, double low, double high, std::function<Value(Value)> build,
                  std::function<double(double)> formula) {
    all.cases.push_back({op,
                         name,
                         {{{3, 6}, kFloat64, low, high}},
                         One([build](const auto& x) { return build(x[0]); }),
                         Each(formula)});
  };
  with(
      "LeakyRelu", "negative", -2, -0.1, [](Value x) { return LeakyRelu(x, 0.2); }, [](double x) { return 0.2 * x; });
  with(
      "LeakyRelu", "positive", 0.1, 2, [](Value x) { return LeakyRelu(x, 0.2); }, [](double x) { return x; });
  with(
      "Elu", "negative", -2, -0.1, [](Value x) { return Elu(x, 1.5); }, [](double x) { return 1.5 * std::expm1(x); });
  with(
      "Elu", "positive", 0.1, 2, [](Value x) { return Elu(x, 1.5); }, [](double x) { return x; });
  with(
      "Clip", "inside", -0.9, 0.9, [](Value x) { return Clip(x, -1, 1); }, [](double x) { return x; });
  with(
      "Clip", "outside", 1.1, 2, [](Value x) { return Clip(x, -1, 1); }, [](double) { return 1.0; });
  with(
      "StopGradient", "value", -1, 1, [](Value x) { return StopGradient(x); }, [](double x) { return x; });
  all.cases.back().derivatives = 0;
  with(
      "Cast", "float32", -2, 2, [](Value x) { return Cast(Cast(x, kFloat32), kFloat64); }, [](double x) { return x; });
  all.cases.back().derivatives = 0;
  with(
      "Cast", "int32", -9, 9, [](Value x) { return Cast(x, kInt32); }, [](double x) { return std::trunc(x); });
  all.cases.back().derivatives = 0;
  with(
      "Cast", "differentiable", -2, 2, [](Value x) { return Square(Cast(x, kFloat64)); },
      [](double x) { return x * x; });
  all.cases.push_back({"Cast",
                       "saturates",
                       {{{6}, kFloat64, 0, 0, {1e30, -1e30, kNaN, kInfinity, -0.9, 255.5}}},
                       One([](const auto& x) { return Cast(x[0], kInt32); }),
                       [](const std::vector<Array>&) {
                         return std::vector<Array>{{{6}, {2147483647.0, -2147483648.0, 0, 2147483647.0, 0, 255}}};
                       },
                       0});
  all.cases.push_back({"Cast",
                       "to_bool",
                       {{{3}, kInt32, 0, 0, {0, 2, -1}}},
                       One([](const auto& x) { return Cast(x[0], kBool); }),
                       Each([](double x) { return double(x != 0); }),
                       0});

  // The gradient ops on their own, with operands dy and y, or dy and x.
  auto gradient = [&](const char* op, double low, double high, double (*formula)(double, double)) {
    all.cases.push_back({op,
                         "same_shape",
                         {{{3, 5}}, {{3, 5}, kFloat64, low, high}},
                         One([op](const auto& x) {
                           return AddOp(op, {Operand(x[0]), Operand(x[1])});
                         }),
                         Pairs({3, 5}, formula)});
  };
  gradient("SigmoidGrad", 0.1, 0.9, [](double dy, double y) { return dy * y * (1 - y); });
  gradient("TanhGrad", -0.9, 0.9, [](double dy, double y) { return dy * (1 - y * y); });
  gradient("ReluGrad", 0.1, 2, [](double dy, double y) { return y > 0 ? dy : 0; });
  gradient("GeluGrad", -4, 4, [](double dy, double x) {
    return dy * (std::erfc(-x / std::sqrt(2.0)) / 2 + x * std::exp(-x * x / 2) / std::sqrt(2 * M_PI));
  });

  all.cases.push_back({"GeluGrad",
                       "far",
                       {{{6}, kFloat64, 1, 2}, {{6}, kFloat64, 0, 0, {-1e37, -1e10, -20, 20, 1e10, 1e37}}},
                       One([](const auto& x) {
                         return AddOp("GeluGrad", {Operand(x[0]), Operand(x[1])});
                       }),
                       Pairs({6}, [](double dy, double x) { return x > 0 ? dy : 0; }),
                       0});

  // Ties, denormals, and the largest numbers. The gradient is no derivative: the function has steps.
  const auto add_rounding = [&](const char* op, auto build, auto half, std::vector<double> numbers) {
    using Half = decltype(half);
    all.cases.push_back({.op = op,
                         .name = "ties_and_limits",
                         .operands = {{{static_cast<int64_t>(numbers.size())}, kFloat64, 0, 0, numbers}},
                         .build = [build](const std::vector<Value>& x) { return std::vector<Value>{build(x[0])}; },
                         .reference = Each([](double x) { return static_cast<double>(Half(x)); }),
                         .derivatives = 0,
                         .float32_tolerance = 0,
                         .float64_tolerance = 0});
    all.cases.push_back({.op = op,
                         .name = "gradient",
                         .operands = {{{65}}},
                         .build =
                             [build](const std::vector<Value>& x) {
                               return std::vector<Value>{Gradients({Sum(build(x[0]) * x[0])}, {x[0]})[0] - build(x[0])};
                             },
                         .reference = Each([](double x) { return static_cast<double>(Half(x)); }),
                         .derivatives = 0});
  };
  add_rounding(
      "RoundToFloat16", [](const Value& x) { return RoundToFloat16(x); }, Float16(),
      {0, 1.00048828125, 1.00146484375, -1.00048828125, 65504, 65519.99609375, 65520, -1e30, 5.9604644775390625e-8,
       2.98023223876953125e-8, 3.1e-8, 8.9406967163085938e-8, 6.1e-5, -3.0000001, 1e-30, 2049, 2051, kInfinity});
  add_rounding("RoundToBFloat16", [](const Value& x) { return RoundToBFloat16(x); }, BFloat16(),
               {0, 1.00390625, 1.01171875, -1.00390625, 3.38e38, 3.3961775e38, 3.4e38, -3.4e38, 1e-30, 257, 259,
                -3.0000001, 1e30, kInfinity});

  all.errors = {
      {"Add",
       "shapes",
       [](Scope& s) {
         Add(s.Input("a", kFloat32, {2, 3}), s.Input("b", kFloat32, {4, 3}));
       },
       {"Add", "[2,3] and [4,3] do not broadcast", "a: float32[2,3], b: float32[4,3]"}},
      {"Add",
       "symbols",
       [](Scope& s) { Add(s.Input("a", kFloat32, {Dim("n")}), s.Input("b", kFloat32, {Dim("m")})); },
       {"[n] and [m] do not broadcast"}},
      {"Mul",
       "dtypes",
       [](Scope& s) { Mul(s.Input("a", kFloat32, {2}), s.Input("b", kFloat64, {2})); },
       {"different dtypes, float32 and float64", "Cast converts"}},
      {"Exp",
       "integer",
       [](Scope& s) { Exp(s.Input("a", kInt32, {2})); },
       {"Exp: operand 0 (x) is int32 and has to be float32 or float64"}},
      {"BitAnd",
       "floating",
       [](Scope& s) { BitAnd(s.Input("a", kFloat32, {2}), s.Input("b", kFloat32, {2})); },
       {"BitAnd: operand 0 (a) is float32 and has to be int32 or int64 or uint8"}},
      {"Add",
       "number_dtype",
       [](Scope& s) { Add(s.Input("a", kInt32, {2}), 0.5); },
       {"the number 0.5 is not a valid int32"}},
      {"LeakyRelu",
       "slope",
       [](Scope& s) { LeakyRelu(s.Input("a", kFloat32, {2}), kNaN); },
       {"slope is nan and has to be finite"}},
      {"Elu", "alpha", [](Scope& s) { Elu(s.Input("a", kFloat32, {2}), kInfinity); }, {"alpha is inf"}},
      {"Clip", "bounds", [](Scope& s) { Clip(s.Input("a", kFloat32, {2}), 2, 1); }, {"low is 2 and high is 1"}},
      {"Where",
       "condition",
       [](Scope& s) { Where(s.Input("a", kFloat32, {2}), s.Input("b", kFloat32, {2}), 0); },
       {"operand 0 (condition) is float32 and has to be bool"}},
  };
  return all;
}

}  // namespace gradweave
