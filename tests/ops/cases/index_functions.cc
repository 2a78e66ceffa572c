// Functions of ops/index_functions.h and of single elements, each as a row of an op that it uses.
#include "gradweave/ops/index_functions.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <string>

#include "gradweave/ops/elementwise.h"
#include "gradweave/ops/functions.h"
#include "gradweave/ops/padding.h"
#include "gradweave/ops/pool_nd.h"
#include "gradweave/ops/reduction.h"
#include "gradweave/ops/resize.h"
#include "gradweave/ops/spectral.h"
#include "tests/ops/op_case.h"

namespace gradweave {
namespace {

constexpr double kNaN = std::numeric_limits<double>::quiet_NaN();
constexpr double kInfinity = std::numeric_limits<double>::infinity();

using Values = std::vector<Value>;

Array CumProdOf(const Array& x, int axis, bool exclusive, bool reverse) {
  Array y = x;
  ForIndices(x.sizes, [&](const std::vector<int64_t>& to) {
    std::vector<int64_t> from = to;
    y.at(to) = 1;
    for (from[axis] = 0; from[axis] < x.sizes[axis]; ++from[axis]) {
      const int64_t distance = reverse ? from[axis] - to[axis] : to[axis] - from[axis];
      if (distance > 0 || (distance == 0 && !exclusive)) y.at(to) *= x.at(from);
    }
  });
  return y;
}

// A row without derivatives, whose results are known.
OpCase Known(const char* op, const char* name, std::vector<OperandCase> operands,
             std::function<Values(const Values&)> build, std::vector<Array> results) {
  return {op, name, std::move(operands), std::move(build), [results](const std::vector<Array>&) { return results; }, 0};
}

}  // namespace

OpCases IndexFunctionCases() {
  OpCases all;
  for (int axis : {0, 1, 2}) {
    for (bool exclusive : {false, true}) {
      for (bool reverse : {false, true}) {
        all.cases.push_back(
            {"ExclusiveProd",
             "cum_prod_axis_" + std::to_string(axis) + (exclusive ? "_exclusive" : "") + (reverse ? "_reverse" : ""),
             {{{2, 4, 3}}},
             [=](const auto& x) {
               return Values{CumProd(x[0], {axis - 3, exclusive, reverse})};
             },
             [=](const std::vector<Array>& x) {
               return std::vector<Array>{CumProdOf(x[0], axis, exclusive, reverse)};
             }});
      }
    }
  }
  // One element is 0: the derivative for it is the product of the others.
  all.cases.push_back({"ExclusiveProd",
                       "cum_prod_zero",
                       {{{4}, kFloat64, 0, 0, {2, 0, 3, -1}}},
                       [](const auto& x) { return Values{CumProd(x[0])}; },
                       [](const std::vector<Array>&) {
                         return std::vector<Array>{{{4}, {2, 0, 0, 0}}};
                       }});
  const OperandCase special = {{5}, kFloat64, 0, 0, {kNaN, 1, kInfinity, -kInfinity, 0}};
  all.cases.push_back(Known("NotEqual", "is_nan", {special}, [](const auto& x) { return Values{IsNaN(x[0])}; },
                            {{{5}, {1, 0, 0, 0, 0}}}));
  all.cases.push_back(
      Known("Equal", "is_inf", {special},
            [](const auto& x) {
              return Values{IsInf(x[0]), IsInf(x[0], {.negative = false}), IsInf(x[0], {.positive = false}),
                            IsInf(x[0], {.positive = false, .negative = false})};
            },
            {{{5}, {0, 0, 1, 1, 0}}, {{5}, {0, 0, 1, 0, 0}}, {{5}, {0, 0, 0, 1, 0}}, {{5}, {0, 0, 0, 0, 0}}}));
  all.cases.push_back(Known("BitXor", "bit_not", {{{3}, kInt32, 0, 0, {0, 5, -1}}, {{2}, kUint8, 0, 0, {0, 5}}},
                            [](const auto& x) {
                              return Values{BitNot(x[0]), BitNot(x[1])};
                            },
                            {{{3}, {-1, -6, 0}}, {{2}, {255, 250}}}));
  all.cases.push_back(Known("ArgMax", "last_of_equal", {{{2, 4}, kFloat64, 0, 0, {1, 3, 3, 2, 5, 0, 0, 5}}},
                            [](const auto& x) {
                              return Values{
                                  ArgMax(x[0], {.axis = 1, .last = true}),
                                  ArgMin(x[0], {.axis = -1, .keep_dims = true, .dtype = kInt32, .last = true}),
                                  ArgMax(x[0], {.axis = 0, .last = true})};
                            },
                            {{{2}, {2, 3}}, {{2, 1}, {0, 2}}, {{4}, {1, 0, 0, 1}}}));
  // More elements than single passes take, the smallest ones, and an axis of unknown size.
  all.cases.push_back(Known(
      "ArgSort", "top_k_options", {{{12}, kInt32, 0, 0, {3, 9, 1, 7, 9, 0, 5, 2, 8, 6, 4, 1}}},
      [](const auto& x) {
        const TopKResult largest = TopK(x[0], 9), smallest = TopK(x[0], 3, {.largest = false});
        return Values{largest.values, largest.indices, smallest.values, smallest.indices};
      },
      {{{9}, {9, 9, 8, 7, 6, 5, 4, 3, 2}}, {{9}, {1, 4, 8, 3, 9, 6, 10, 0, 7}}, {{3}, {0, 1, 1}}, {{3}, {5, 2, 11}}}));
  all.cases.push_back(Known("Equal", "one_hot",
                            {{{3}, kInt32, 0, 0, {1, -1, 7}}, {{}, kFloat64, 0, 0, {5}}, {{}, kFloat64, 0, 0, {-2}}},
                            [](const auto& x) {
                              return Values{OneHot(x[0], 3, x[1], x[2]), OneHot(x[0], 2, x[1], 0, {.axis = 0})};
                            },
                            {{{3, 3}, {-2, 5, -2, -2, -2, 5, -2, -2, -2}}, {{2, 3}, {0, 0, 0, 5, 5, 0}}}));
  all.cases.push_back(Known("ArgMax", "hardmax", {{{2, 3}, kFloat64, 0, 0, {1, 4, 4, 3, -1, 2}}},
                            [](const auto& x) {
                              return Values{Hardmax(x[0]), Hardmax(x[0], 0)};
                            },
                            {{{2, 3}, {0, 1, 0, 1, 0, 0}}, {{2, 3}, {0, 1, 1, 1, 0, 0}}}));
  all.cases.push_back(Known("Equal", "eye", {{{2, 3}}},
                            [](const auto& x) {
                              return Values{EyeLike(x[0]), EyeLike(x[0], {.diagonal = -1, .dtype = kInt32})};
                            },
                            {{{2, 3}, {1, 0, 0, 0, 1, 0}}, {{2, 3}, {0, 0, 0, 1, 0, 0}}}));
  all.cases.push_back({"Sum",
                       "sums_of_functions",
                       {{{2, 3}, kFloat64, 0.5, 2}},
                       [](const auto& x) {
                         return Values{SumOfSizes(Neg(x[0]), {.axes = {1}}), SumOfSquares(x[0], {.axes = {0}}),
                                       LogSum(x[0], {.axes = {-1}, .keep_dims = true})};
                       },
                       [](const std::vector<Array>& x) {
                         std::vector<Array> y = {Array::Zeros({2}), Array::Zeros({3}), Array::Zeros({2, 1})};
                         ForIndices({2, 3}, [&](const auto& i) {
                           y[0].at({i[0]}) += x[0].at(i);
                           y[1].at({i[1]}) += x[0].at(i) * x[0].at(i);
                           y[2].at({i[0], 0}) += x[0].at(i);
                         });
                         for (double& sum : y[2].values) sum = std::log(sum);
                         return y;
                       }});
  auto wrong = [&](const char* op, const char* name, std::function<void(Scope&)> build, const char* message) {
    all.errors.push_back({op, name, std::move(build), {message}});
  };
  wrong(
      "GatherElements", "sizes",
      [](Scope& s) {
        GatherElements(s.Input("x", kFloat32, {2, 3}), s.Input("i", kInt32, {3, 3}), 1);
      },
      "GatherElements: the indices need the rank of x, and at most its sizes on all axes but axis 1");
  wrong(
      "ScatterND", "updates",
      [](Scope& s) {
        ScatterND(s.Input("x", kFloat32, {2, 3}), s.Input("i", kInt32, {4, 1}), s.Input("u", kFloat32, {4, 2}));
      },
      "ScatterND: the updates have to be float32[4,3]");
  wrong(
      "GatherND", "rank",
      [](Scope& s) {
        GatherND(s.Input("x", kFloat32, {2}), s.Input("i", kInt32, {4, 2}));
      },
      "GatherND: the indices have to be [..., k]");
  wrong(
      "PadBorder", "empty", [](Scope& s) { PadBorder(s.Input("x", kFloat32, {0}), {.low = {1}, .high = {0}}); },
      "axis 0 has to have an element");
  wrong(
      "Resize", "both",
      [](Scope& s) { Resize(s.Input("x", kFloat32, {4}), {.axes = {0}, .sizes = {2}, .scales = {2}}); },
      "either sizes or scales have to be given");
  wrong(
      "Resize", "symbol", [](Scope& s) { Resize(s.Input("x", kFloat32, {Dim("n")}), {.axes = {0}, .sizes = {2}}); },
      "axis 0 has to have a known size");
  wrong(
      "MaxPoolND", "window",
      [](Scope& s) {
        MaxPoolND(s.Input("x", kFloat32, {1, 1, 3}), {.window = {2}, .dilation = {3}});
      },
      "reach over 4 elements");
  wrong(
      "Dft", "axis",
      [](Scope& s) {
        Dft(s.Input("x", kFloat32, {3, 3}));
      },
      "a last axis of size 1 or 2");
  return all;
}

}  // namespace gradweave
