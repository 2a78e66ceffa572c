// The dtypes that store numbers in few bytes: every op that moves or compares elements, and Cast.
#include <algorithm>
#include <cmath>
#include <functional>
#include <limits>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "gradweave/graph/passes/autodiff.h"
#include "gradweave/ops/elementwise.h"
#include "gradweave/ops/indexing.h"
#include "gradweave/ops/matmul.h"
#include "gradweave/ops/reduction.h"
#include "gradweave/ops/shape_ops.h"
#include "gradweave/ops/state.h"
#include "tests/ops/op_case.h"

namespace gradweave {
namespace {

using Values = std::vector<Value>;
using Arrays = std::vector<Array>;

constexpr DType kStorage[] = {kFloat16, kBFloat16, kInt8, kInt16, kUint16, kUint32, kUint64};
constexpr double kNaN = std::numeric_limits<double>::quiet_NaN();
constexpr double kInfinity = std::numeric_limits<double>::infinity();

// The number that a floating dtype with this many bits of fraction and this least exponent has for
// x.
double Rounded(double x, int fraction, int least_exponent, double largest) {
  if (x == 0 || !std::isfinite(x)) return x;
  const int exponent = std::max(std::ilogb(x), least_exponent);
  const double unit = std::ldexp(1.0, exponent - fraction);
  const double rounded = std::nearbyint(x / unit) * unit;
  return std::abs(rounded) > largest ? std::copysign(kInfinity, x) : rounded;
}

// The number that an integer dtype of this many bits has for x.
double Saturated(double x, int bits, bool is_signed) {
  if (std::isnan(x)) return 0;
  const double low = is_signed ? -std::ldexp(1.0, bits - 1) : 0;
  const double high = std::ldexp(1.0, is_signed ? bits - 1 : bits) - 1;
  return x <= low ? low : x >= high ? high : std::trunc(x);
}

double CastTo(DType dtype, double x) {
  switch (dtype) {
    case kFloat16:
      return Rounded(x, 10, -14, 65504);
    case kBFloat16:
      return Rounded(x, 7, -126, 0x1.FEp127);
    case kInt8:
      return Saturated(x, 8, true);
    case kInt16:
      return Saturated(x, 16, true);
    case kUint16:
      return Saturated(x, 16, false);
    case kUint32:
      return Saturated(x, 32, false);
    case kUint64:
      return Saturated(x, 64, false);
    case kBool:
      return x != 0;
    default:
      return x;
  }
}

std::function<Arrays(const Arrays&)> Each(double (*function)(double, double)) {
  return [function](const Arrays& x) {
    Array y = x[0];
    for (size_t i = 0; i < y.values.size(); ++i) y.values[i] = function(x[0].values[i], x[1].values[i]);
    return Arrays{y};
  };
}

// Rows of one dtype, whose numbers are in [0, 9].
void AddRows(DType dtype, std::vector<OpCase>& rows) {
  const std::string name(DTypeName(dtype));
  auto add = [&](const char* op, std::vector<OperandCase> operands, std::function<Value(const Values&)> build,
                 std::function<Arrays(const Arrays&)> reference) {
    rows.push_back({.op = op,
                    .name = name,
                    .operands = std::move(operands),
                    .build = [build](const Values& x) { return Values{build(x)}; },
                    .reference = std::move(reference),
                    .derivatives = 0,
                    .symbolic = false});
  };
  auto numbers = [dtype](std::vector<int64_t> sizes) { return OperandCase{std::move(sizes), dtype, 0, 9.99}; };
  // Builds a result of these sizes, whose element comes from the position that the map returns.
  auto from = [](std::vector<int64_t> sizes, std::function<std::vector<int64_t>(std::vector<int64_t>)> map) {
    return [=](const Arrays& x) {
      Array y = Array::Zeros(sizes);
      ForIndices(sizes, [&](const std::vector<int64_t>& i) { y.at(i) = x[0].at(map(i)); });
      return Arrays{y};
    };
  };

  add(
      "Reshape", {numbers({2, 3})},
      [](const Values& x) {
        return Reshape(x[0], {3, 2});
      },
      [](const Arrays& x) {
        return Arrays{{{3, 2}, x[0].values}};
      });
  add(
      "Transpose", {numbers({3, 4, 2})},
      [](const Values& x) {
        return Transpose(x[0], {1, 2, 0});
      },
      from({4, 2, 3}, [](auto i) {
        return std::vector<int64_t>{i[2], i[0], i[1]};
      }));
  add(
      "BroadcastTo", {numbers({3, 1})},
      [](const Values& x) {
        return BroadcastTo(x[0], {2, 3, 4});
      },
      from({2, 3, 4}, [](auto i) {
        return std::vector<int64_t>{i[1], 0};
      }));
  add(
      "Slice", {numbers({5, 6})},
      [](const Values& x) {
        return Slice(x[0], {.start = {1, 0}, .limit = {5, 6}, .steps = {2, 3}});
      },
      from({2, 2}, [](auto i) {
        return std::vector<int64_t>{1 + 2 * i[0], 3 * i[1]};
      }));
  add(
      "Reverse", {numbers({3, 4})}, [](const Values& x) { return Reverse(x[0], {1}); }, from({3, 4}, [](auto i) {
        return std::vector<int64_t>{i[0], 3 - i[1]};
      }));
  add(
      "Pad", {numbers({2, 3})},
      [](const Values& x) {
        return Pad(x[0], {.low = {1, 0}, .high = {0, 1}, .interior = {0, 1}, .value = 3});
      },
      [](const Arrays& x) {
        Array y = Array::Zeros({3, 6});
        ForIndices(y.sizes, [&](const std::vector<int64_t>& i) {
          const bool inside = i[0] >= 1 && i[1] % 2 == 0 && i[1] < 5;
          y.at(i) = inside ? x[0].at({i[0] - 1, i[1] / 2}) : 3;
        });
        return Arrays{y};
      });
  add(
      "Concat", {numbers({2, 1}), numbers({2, 2})}, [](const Values& x) { return Concat(x, 1); },
      [](const Arrays& x) {
        Array y = Array::Zeros({2, 3});
        ForIndices(y.sizes, [&](const std::vector<int64_t>& i) {
          y.at(i) = i[1] == 0 ? x[0].at({i[0], 0}) : x[1].at({i[0], i[1] - 1});
        });
        return Arrays{y};
      });
  add(
      "Gather", {numbers({4, 3}), {{2}, kInt32, 0, 0, {3, 1}}}, [](const Values& x) { return Gather(x[0], x[1], 0); },
      from({2, 3}, [](auto i) {
        return std::vector<int64_t>{i[0] == 0 ? 3 : 1, i[1]};
      }));
  add(
      "Scatter", {numbers({4, 3}), {{2}, kInt32, 0, 0, {3, 1}}, numbers({2, 3})},
      [](const Values& x) { return Scatter(x[0], x[1], x[2]); },
      [](const Arrays& x) {
        Array y = x[0];
        for (int64_t k = 0; k < 3; ++k) {
          y.at({3, k}) = x[2].at({0, k});
          y.at({1, k}) = x[2].at({1, k});
        }
        return Arrays{y};
      });
  add(
      "Where", {{{3, 1}, kBool, 0, 2}, numbers({3, 4}), numbers({4})},
      [](const Values& x) { return Where(x[0], x[1], x[2]); },
      [](const Arrays& x) {
        Array y = Array::Zeros({3, 4});
        ForIndices(y.sizes, [&](const std::vector<int64_t>& i) {
          y.at(i) = x[0].at({i[0], 0}) != 0 ? x[1].at(i) : x[2].at({i[1]});
        });
        return Arrays{y};
      });
  add(
      "StopGradient", {numbers({5})}, [](const Values& x) { return StopGradient(x[0]); },
      [](const Arrays& x) { return x; });

  const std::vector<double> a = {0, 1, 2, 3}, b = {0, 2, 1, dtype == kFloat16 || dtype == kBFloat16 ? kNaN : 3};
  const std::vector<OperandCase> pair = {{{4}, dtype, 0, 0, a}, {{4}, dtype, 0, 0, b}};
  add(
      "Equal", pair, [](const Values& x) { return Equal(x[0], x[1]); },
      Each([](double x, double y) { return x == y ? 1.0 : 0.0; }));
  add(
      "NotEqual", pair, [](const Values& x) { return NotEqual(x[0], x[1]); },
      Each([](double x, double y) { return x != y ? 1.0 : 0.0; }));
  add(
      "Less", pair, [](const Values& x) { return Less(x[0], x[1]); },
      Each([](double x, double y) { return x < y ? 1.0 : 0.0; }));
  add(
      "LessEqual", pair, [](const Values& x) { return LessEqual(x[0], x[1]); },
      Each([](double x, double y) { return x <= y ? 1.0 : 0.0; }));
  add(
      "Greater", pair, [](const Values& x) { return Greater(x[0], x[1]); },
      Each([](double x, double y) { return x > y ? 1.0 : 0.0; }));
  add(
      "GreaterEqual", pair, [](const Values& x) { return GreaterEqual(x[0], x[1]); },
      Each([](double x, double y) { return x >= y ? 1.0 : 0.0; }));

  // From and to every dtype of kComputed.
  for (DType to : {kFloat32, kFloat64, kInt32, kInt64, kUint8, kBool}) {
    rows.push_back({.op = "Cast",
                    .name = absl::StrCat(name, "_to_", DTypeName(to)),
                    .operands = {{{6}, dtype, 0, 0, {0, 1, 2, 3, 5, 100}}},
                    .build = [to](const Values& x) { return Values{Cast(x[0], to)}; },
                    .reference =
                        [to](const Arrays& x) {
                          Array y = x[0];
                          for (double& number : y.values) number = CastTo(to, number);
                          return Arrays{y};
                        },
                    .derivatives = 0});
  }
  rows.push_back(
      {.op = "Cast",
       .name = absl::StrCat("float_to_", name),
       .operands =
           {{{12}, kFloat64, 0, 0, {0, 1, -1.5, 0.1, 2.5, 257, 1e-6, -70000, 65519, 1e30, -kInfinity, kNaN}, false}},
       .build = [dtype](const Values& x) { return Values{Cast(x[0], dtype)}; },
       .reference =
           [dtype](const Arrays& x) {
             Array y = x[0];
             for (double& number : y.values) number = CastTo(dtype, number);
             return Arrays{y};
           },
       .derivatives = 0,
       .float32_tolerance = 0,
       .float64_tolerance = 0});
}

}  // namespace

OpCases StorageCases() {
  OpCases all;
  for (DType dtype : kStorage) AddRows(dtype, all.cases);
  // Between dtypes that only store numbers.
  for (DType from : kStorage) {
    for (DType to : kStorage) {
      if (from == to) continue;
      all.cases.push_back({.op = "Cast",
                           .name = absl::StrCat(DTypeName(from), "_to_", DTypeName(to)),
                           .operands = {{{5}, from, 0, 0, {0, 1, 2, 65, 127}}},
                           .build = [to](const Values& x) { return Values{Cast(x[0], to)}; },
                           .reference = [](const Arrays& x) { return x; },
                           .derivatives = 0});
    }
  }
  // A value becomes a half and a float again; the gradient does so too.
  for (DType half : {kFloat16, kBFloat16}) {
    all.cases.push_back({.op = "Cast",
                         .name = absl::StrCat("gradient_through_", DTypeName(half)),
                         .operands = {{{2, 2}}},
                         .build =
                             [half](const Values& x) {
                               const Value moved = Transpose(Cast(x[0], half), {1, 0});
                               const Value loss = Sum(Cast(Reverse(moved, {0}), kFloat64) * 3);
                               return Values{Gradients({loss}, {x[0]})[0]};
                             },
                         .reference =
                             [](const Arrays& x) {
                               return Arrays{{{2, 2}, std::vector<double>(4, 3)}};
                             },
                         .derivatives = 0,
                         .symbolic = false});
  }
  all.errors = {
      {"LogicalAnd",
       "bfloat16",
       [](Scope& s) {
         const Value x = s.Input("x", kBFloat16, {2});
         LogicalAnd(x, x);
       },
       {"LogicalAnd: operand 0 (a) is bfloat16 and has to be bool; Cast converts"}},
      {"BitAnd",
       "float16",
       [](Scope& s) {
         const Value x = s.Input("x", kFloat16, {2});
         BitAnd(x, x);
       },
       {"BitAnd: operand 0 (a) is float16 and has to be int32 or int64 or uint8; Cast converts"}},
      {"MatMul",
       "float16_and_float32",
       [](Scope& s) {
         MatMul(s.Input("x", kFloat16, {2, 2}), s.Input("y", kFloat32, {2, 2}));
       },
       {"MatMul: operands have different dtypes, float16 and float32", "Cast converts"}},
      {"Sum",
       "int8",
       [](Scope& s) { Sum(s.Input("x", kInt8, {2})); },
       {"is int8 and has to be float32", "Cast converts"}},
      {"Scatter",
       "reduction_of_bfloat16",
       [](Scope& s) {
         const Value x = s.Input("x", kBFloat16, {2});
         Scatter(x, s.Input("i", kInt32, {1}), s.Input("u", kBFloat16, {1}), {.reduction = ScatterReduction::kMax});
       },
       {"Scatter: x is bfloat16, and the reduction max needs float32", "Cast converts"}},
      {"Pad",
       "int8",
       [](Scope& s) { Pad(s.Input("x", kInt8, {2}), {.low = {1}, .high = {0}, .value = 128}); },
       {"the value is 128 and has to be a number that int8 has"}},
      {"OneHot",
       "float16",
       [](Scope& s) { OneHot(s.Input("i", kInt32, {2}), 3, kFloat16); },
       {"OneHot: the dtype is float16 and has to be float32", "Cast converts"}},
  };
  return all;
}

}  // namespace gradweave
