#include "gradweave/ops/reduction.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "tests/ops/op_case.h"

namespace gradweave {
namespace {

constexpr double kNaN = std::numeric_limits<double>::quiet_NaN();

bool Contains(const Integers& axes, int64_t axis, int64_t rank) {
  return axes.empty() ||
         std::any_of(axes.begin(), axes.end(), [&](int64_t a) { return a == axis || a + rank == axis; });
}

// Collects the reduced elements of each result in order. The formula turns them into one number.
std::vector<Array> Reduce(const Array& x, const Integers& axes, bool keep_dims,
                          double (*formula)(const std::vector<double>&)) {
  std::vector<int64_t> sizes;
  const int64_t rank = static_cast<int64_t>(x.sizes.size());
  for (int64_t axis = 0; axis < rank; ++axis) {
    if (!Contains(axes, axis, rank))
      sizes.push_back(x.sizes[axis]);
    else if (keep_dims)
      sizes.push_back(1);
  }
  Array y = Array::Zeros(sizes);
  std::vector<std::vector<double>> collected(y.values.size());
  ForIndices(x.sizes, [&](const std::vector<int64_t>& indices) {
    int64_t at = 0;
    for (int64_t axis = 0; axis < rank; ++axis) {
      if (!Contains(axes, axis, rank)) at = at * x.sizes[axis] + indices[axis];
    }
    collected[at].push_back(x.at(indices));
  });
  for (size_t i = 0; i < collected.size(); ++i) y.values[i] = formula(collected[i]);
  return {y};
}

double SumAll(const std::vector<double>& x) {
  double sum = 0;
  for (double v : x) sum += v;
  return sum;
}
double ProdAll(const std::vector<double>& x) {
  double product = 1;
  for (double v : x) product *= v;
  return product;
}
double MaxAll(const std::vector<double>& x) {
  return x.empty() ? -std::numeric_limits<double>::infinity() : *std::max_element(x.begin(), x.end());
}
double MinAll(const std::vector<double>& x) {
  return x.empty() ? std::numeric_limits<double>::infinity() : *std::min_element(x.begin(), x.end());
}
double LogSumExpAll(const std::vector<double>& x) {
  const double most = MaxAll(x);
  double sum = 0;
  for (double v : x) sum += std::exp(v - most);
  return most + std::log(sum);
}
double MeanAll(const std::vector<double>& x) { return SumAll(x) / static_cast<double>(x.size()); }

struct Row {
  const char* op;
  const char* name;
  Value (*build)(Operand, ReductionOptions);
  double (*formula)(const std::vector<double>&);
};

const Row kRows[] = {
    {"Sum", "", Sum, SumAll}, {"Sum", "mean_", Mean, MeanAll}, {"Prod", "", Prod, ProdAll},
    {"Max", "", Max, MaxAll}, {"Min", "", Min, MinAll},        {"LogSumExp", "", LogSumExp, LogSumExpAll},
};

}  // namespace

OpCases ReductionCases() {
  OpCases all;
  for (const Row& row : kRows) {
    auto add = [&](const std::string& name, std::vector<OperandCase> operands, ReductionOptions options,
                   int derivatives) {
      all.cases.push_back(
          {row.op, row.name + name, std::move(operands),
           [row, options](const std::vector<Value>& x) { return std::vector<Value>{row.build(x[0], options)}; },
           [row, options](const std::vector<Array>& x) {
             return Reduce(x[0], options.axes, options.keep_dims, row.formula);
           },
           derivatives});
    };
    const OperandCase x = {{2, 3, 4}, kFloat64, 0.5, 2};
    add("all", {x}, {}, 2);
    add("last", {x}, {.axes = {-1}}, 2);
    add("first", {x}, {.axes = {0}}, 2);
    add("middle_kept", {x}, {.axes = {1}, .keep_dims = true}, 2);
    add("outer_two", {x}, {.axes = {0, 2}}, 2);
    add("alternating", {{{2, 3, 2, 2, 3}, kFloat64, 0.5, 1.5}}, {.axes = {1, 3}}, 0);
    add("scalar", {{{}, kFloat64, 0.5, 2}}, {}, 2);
    // Large enough for several threads, by either way of division.
    add("large", {{{70000}, kFloat64, 0.9999, 1.0001}}, {}, 0);
    all.cases.back().float32_tolerance = 1e-3;
    all.cases.back().float64_tolerance = 1e-9;
    add("large_columns", {{{700, 90}, kFloat64, 0.999, 1.001}}, {.axes = {0}}, 0);
    all.cases.back().float32_tolerance = 1e-3;
    all.cases.back().float64_tolerance = 1e-10;
    if (row.build != LogSumExp && row.build != Mean) add("int32", {{{3, 4}, kInt32, -3, 4}}, {.axes = {1}}, 0);
    if (row.build != Mean) add("no_elements", {{{2, 0}, kFloat64}}, {.axes = {1}}, 0);
  }
  all.cases.push_back({"Prod",
                       "zeros",
                       {{{2, 4}, kFloat64, 0, 0, {1, 0, 3, 4, 0, 2, 0, 5}}},
                       [](const auto& x) { return std::vector<Value>{Prod(x[0], {.axes = {1}})}; },
                       [](const std::vector<Array>& x) { return Reduce(x[0], {1}, false, ProdAll); }});
  all.cases.push_back({"LogSumExp",
                       "huge",
                       {{{2, 3}, kFloat64, 0, 0, {1e4, 1e4, 0, -1e4, -1e4, -1e4}}},
                       [](const auto& x) { return std::vector<Value>{LogSumExp(x[0], {.axes = {1}})}; },
                       [](const std::vector<Array>& x) { return Reduce(x[0], {1}, false, LogSumExpAll); },
                       0});
  for (bool largest : {true, false}) {
    auto arg = [&](const std::string& name, OperandCase x, ArgOptions options, std::vector<int64_t> sizes,
                   std::vector<double> expected) {
      all.cases.push_back({largest ? "ArgMax" : "ArgMin",
                           name,
                           {std::move(x)},
                           [largest, options](const std::vector<Value>& v) {
                             return std::vector<Value>{largest ? ArgMax(v[0], options) : ArgMin(v[0], options)};
                           },
                           [sizes, expected](const std::vector<Array>&) {
                             return std::vector<Array>{{sizes, expected}};
                           },
                           0});
    };
    const OperandCase x = {{2, 3}, kFloat64, 0, 0, {1, 5, 5, 7, 2, 2}};
    arg("last", x, {.axis = -1}, {2}, largest ? std::vector<double>{1, 0} : std::vector<double>{0, 1});
    arg("first_int32", x, {.axis = 0, .keep_dims = true, .dtype = kInt32}, {1, 3},
        largest ? std::vector<double>{1, 0, 0} : std::vector<double>{0, 1, 1});
    arg("nan", {{3}, kFloat64, 0, 0, {1, kNaN, 9}}, {}, {}, {1});
  }
  all.cases.push_back({"ExclusiveProd",
                       "rows",
                       {{{2, 4}, kFloat64, 0.5, 2}},
                       [](const auto& x) { return std::vector<Value>{AddOp("ExclusiveProd", {Operand(x[0])})}; },
                       [](const std::vector<Array>& x) {
                         Array y = x[0];
                         for (int64_t i = 0; i < 2; ++i) {
                           for (int64_t j = 0; j < 4; ++j)
                             y.at({i, j}) = j == 0 ? 1 : y.at({i, j - 1}) * x[0].at({i, j - 1});
                         }
                         return std::vector<Array>{y};
                       }});
  all.cases.push_back({"SuffixSum",
                       "rows",
                       {{{2, 4}}, {{2, 4}, kFloat64, 0.5, 2}},
                       [](const auto& x) {
                         return std::vector<Value>{AddOp("SuffixSum", {Operand(x[0]), Operand(x[1])})};
                       },
                       [](const std::vector<Array>& x) {
                         Array s = Array::Zeros({2, 4});
                         for (int64_t i = 0; i < 2; ++i) {
                           for (int64_t j = 2; j >= 0; --j)
                             s.at({i, j}) = x[0].at({i, j + 1}) + x[1].at({i, j + 1}) * s.at({i, j + 1});
                         }
                         return std::vector<Array>{s};
                       }});
  all.errors = {
      {"Sum",
       "axis",
       [](Scope& s) {
         Sum(s.Input("x", kFloat32, {2, 3}), {.axes = {2}});
       },
       {"Sum: axis 2 is outside [-2, 2)", "float32[2,3]"}},
      {"Sum",
       "twice",
       [](Scope& s) {
         Sum(s.Input("x", kFloat32, {2, 3}), {.axes = {1, -1}});
       },
       {"axis -1 is given twice"}},
      {"Sum", "bool", [](Scope& s) { Sum(s.Input("x", kBool, {2})); }, {"operand 0 (x) is bool"}},
      {"Mean",
       "integer",
       [](Scope& s) { Mean(s.Input("x", kInt32, {2})); },
       {"Mean: x has to be floating; Cast converts"}},
      {"ArgMax", "empty", [](Scope& s) { ArgMax(s.Input("x", kFloat32, {0})); }, {"axis 0 has no elements"}},
  };
  return all;
}

}  // namespace gradweave
