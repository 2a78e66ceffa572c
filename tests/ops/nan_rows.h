// NaN in, NaN out: ops on rows with a NaN at every place. Losing one hides a training that has gone
// wrong.
#ifndef GRADWEAVE_TESTS_OPS_NAN_ROWS_H_
#define GRADWEAVE_TESTS_OPS_NAN_ROWS_H_

#include <cmath>
#include <cstdint>
#include <iterator>
#include <limits>
#include <random>
#include <vector>

#include "gradweave/gradweave.h"
#include "gtest/gtest.h"

namespace gradweave {

struct RowOp {
  const char* name;
  Value (*apply)(const Value& x);  // [rows, n] -> [rows, ...].
  // If true, the whole result of a row with a NaN is NaN, else only the element at its place.
  bool whole_row = true;
};

inline const RowOp kRowOps[] = {
    {"Sum", [](const Value& x) { return Sum(x, {.axes = {1}}); }},
    {"Mean", [](const Value& x) { return Mean(x, {.axes = {1}}); }},
    {"Prod", [](const Value& x) { return Prod(x, {.axes = {1}}); }},
    {"Max", [](const Value& x) { return Max(x, {.axes = {1}}); }},
    {"Min", [](const Value& x) { return Min(x, {.axes = {1}}); }},
    {"LogSumExp", [](const Value& x) { return LogSumExp(x, {.axes = {1}}); }},
    {"Max of a fused row", [](const Value& x) { return Max(x * 2 + 1, {.axes = {1}}) * 3; }},
    {"Softmax", [](const Value& x) { return Softmax(x); }},
    {"LogSoftmax", [](const Value& x) { return LogSoftmax(x); }},
    {"Softmax of a fused row", [](const Value& x) { return Softmax(x * 2 + 1) * 3; }},
    {"Max over the other axis", [](const Value& x) { return Max(Transpose(x), {.axes = {0}}); }},
    {"MaxPool2D",
     [](const Value& x) {
       const Dim n = x.shape()[1];
       return MaxPool2D(Reshape(x, {x.shape()[0], 1, 1, n}), {.window = {1, n.size()}});
     }},
    {"AvgPool2D",
     [](const Value& x) {
       const Dim n = x.shape()[1];
       return AvgPool2D(Reshape(x, {x.shape()[0], 1, 1, n}), {.window = {1, n.size()}});
     }},
    {"Neg", [](const Value& x) { return Neg(x); }, false},
    {"Abs", [](const Value& x) { return Abs(x); }, false},
    {"Sign", [](const Value& x) { return Sign(x); }, false},
    {"Exp", [](const Value& x) { return Exp(x); }, false},
    {"Expm1", [](const Value& x) { return Expm1(x); }, false},
    {"Log", [](const Value& x) { return Log(x + 4); }, false},
    {"Log1p", [](const Value& x) { return Log1p(x + 4); }, false},
    {"Sqrt", [](const Value& x) { return Sqrt(x + 4); }, false},
    {"Rsqrt", [](const Value& x) { return Rsqrt(x + 4); }, false},
    {"Sin", [](const Value& x) { return Sin(x); }, false},
    {"Cos", [](const Value& x) { return Cos(x); }, false},
    {"Tan", [](const Value& x) { return Tan(x); }, false},
    {"Asin", [](const Value& x) { return Asin(x / 4); }, false},
    {"Acos", [](const Value& x) { return Acos(x / 4); }, false},
    {"Sinh", [](const Value& x) { return Sinh(x); }, false},
    {"Cosh", [](const Value& x) { return Cosh(x); }, false},
    {"Asinh", [](const Value& x) { return Asinh(x); }, false},
    {"Acosh", [](const Value& x) { return Acosh(x + 4.5); }, false},
    {"Atanh", [](const Value& x) { return Atanh(x / 4); }, false},
    {"Tanh", [](const Value& x) { return Tanh(x); }, false},
    {"Sigmoid", [](const Value& x) { return Sigmoid(x); }, false},
    {"Relu", [](const Value& x) { return Relu(x); }, false},
    {"LeakyRelu", [](const Value& x) { return LeakyRelu(x); }, false},
    {"Elu", [](const Value& x) { return Elu(x); }, false},
    {"Selu", [](const Value& x) { return Selu(x); }, false},
    {"Gelu", [](const Value& x) { return Gelu(x); }, false},
    {"Softplus", [](const Value& x) { return Softplus(x); }, false},
    {"Erf", [](const Value& x) { return Erf(x); }, false},
    {"Floor", [](const Value& x) { return Floor(x); }, false},
    {"Round", [](const Value& x) { return Round(x); }, false},
    {"RoundToFloat16", [](const Value& x) { return RoundToFloat16(x); }, false},
    {"RoundToBFloat16", [](const Value& x) { return RoundToBFloat16(x); }, false},
    {"Clip", [](const Value& x) { return Clip(x, -1, 1); }, false},
    {"Minimum", [](const Value& x) { return Minimum(x, 1); }, false},
    {"Minimum, second", [](const Value& x) { return Minimum(1, x); }, false},
    {"Maximum", [](const Value& x) { return Maximum(x, 1); }, false},
    {"Maximum, second", [](const Value& x) { return Maximum(-1, x); }, false},
    {"Mod", [](const Value& x) { return Mod(x, 1.5); }, false},
    {"Fmod", [](const Value& x) { return Fmod(x, 1.5); }, false},
    {"Pow", [](const Value& x) { return Pow(x + 4, 1.5); }, false},
};

// The place of the NaN in a row, of `rows` rows of n elements. With as many rows as elements it
// comes to every place.
inline int64_t PlaceOfNan(int64_t row, int64_t rows, int64_t n) { return row * n / rows; }

// Such rows, with numbers in [-3, 3] elsewhere.
inline Tensor Rows(DType dtype, int64_t count, int64_t n) {
  std::mt19937 random(static_cast<unsigned>(n));
  std::uniform_real_distribution<double> uniform(-3, 3);
  Tensor rows(dtype, {count, n});
  for (int64_t i = 0; i < count * n; ++i) {
    const double value =
        i % n == PlaceOfNan(i / n, count, n) ? std::numeric_limits<double>::quiet_NaN() : uniform(random);
    if (dtype == kFloat32) {
      rows.mutable_values<float>()[i] = static_cast<float>(value);
    } else {
      rows.mutable_values<double>()[i] = value;
    }
  }
  return rows;
}

// Runs all ops of the table on these rows.
inline void ExpectNansStay(DType dtype, int64_t rows, int64_t n, SessionOptions options) {
  Graph graph;
  Scope scope(graph);
  const Value x = scope.Input("x", dtype, {Dim("rows"), n});
  std::vector<Fetch> fetches;
  for (const RowOp& op : kRowOps) fetches.push_back(op.apply(x));
  options.threads = 1;
  absl::StatusOr<Session> session = Session::Create(graph, options);
  ASSERT_TRUE(session.ok()) << session.status();
  const absl::StatusOr<std::vector<Tensor>> results = session->Run({{x, Rows(dtype, rows, n)}}, fetches);
  ASSERT_TRUE(results.ok()) << results.status();
  for (size_t k = 0; k < std::size(kRowOps); ++k) {
    const std::vector<double> values = (*results)[k].ToDoubles();
    const int64_t per_row = static_cast<int64_t>(values.size()) / rows;
    for (int64_t i = 0; i < static_cast<int64_t>(values.size()); ++i) {
      const int64_t place = PlaceOfNan(i / per_row, rows, n);
      const bool expected = kRowOps[k].whole_row || i % per_row == place;
      ASSERT_EQ(std::isnan(values[i]), expected)
          << kRowOps[k].name << " of " << DTypeName(dtype) << ", " << n << " long, NaN at " << place << ", element "
          << i % per_row << " is " << values[i];
    }
  }
}

// The first NaN counts as the largest and the smallest element.
inline void ExpectNansAreFound(SessionOptions options) {
  options.threads = 1;
  for (int64_t n : {1, 2, 5, 16, 33}) {
    Graph graph;
    Scope scope(graph);
    const Value x = scope.Input("x", kFloat32, {Dim("rows"), n});
    const Value largest = ArgMax(x, {.axis = 1}), smallest = ArgMin(x, {.axis = 1});
    absl::StatusOr<Session> session = Session::Create(graph, options);
    ASSERT_TRUE(session.ok()) << session.status();
    const absl::StatusOr<std::vector<Tensor>> results = session->Run({{x, Rows(kFloat32, n, n)}}, {largest, smallest});
    ASSERT_TRUE(results.ok()) << results.status();
    for (const Tensor& places : *results) {
      for (int64_t i = 0; i < n; ++i) EXPECT_EQ(places.values<int64_t>()[i], i);
    }
  }
}

inline void ExpectNansCompareUnequal(SessionOptions options) {
  options.threads = 1;
  Graph graph;
  Scope scope(graph);
  const Value x = scope.Input("x", kFloat32, {Dim("n")});
  const std::vector<Value> comparisons = {Equal(x, x),     Less(x, 1.0),       LessEqual(x, x),
                                          Greater(1.0, x), GreaterEqual(x, x), NotEqual(x, x)};
  absl::StatusOr<Session> session = Session::Create(graph, options);
  ASSERT_TRUE(session.ok()) << session.status();
  for (int64_t n : {1, 3, 16, 19}) {
    Tensor nans(kFloat32, {n});
    for (float& value : nans.mutable_values<float>()) value = std::numeric_limits<float>::quiet_NaN();
    const absl::StatusOr<std::vector<Tensor>> results =
        session->Run({{x, nans}}, std::vector<Fetch>(comparisons.begin(), comparisons.end()));
    ASSERT_TRUE(results.ok()) << results.status();
    for (size_t k = 0; k < comparisons.size(); ++k) {
      for (double holds : (*results)[k].ToDoubles()) EXPECT_EQ(holds, k == 5 ? 1 : 0) << "comparison " << k;
    }
  }
}

// Lengths of rows with and without a remainder in vectors and in warps.
inline constexpr int kRowLengths[] = {1, 2, 3, 4, 5, 7, 8, 9, 15, 16, 17, 31, 33, 64, 100};

}  // namespace gradweave

#endif  // GRADWEAVE_TESTS_OPS_NAN_ROWS_H_
