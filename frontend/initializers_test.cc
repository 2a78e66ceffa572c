// Initializers: their moments, their bounds, orthogonality, and what they refuse.
#include "gradweave/frontend/initializers.h"

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <limits>
#include <string>
#include <vector>

#include "gmock/gmock.h"
#include "gradweave/ops/scope.h"
#include "gradweave/runtime/session/session.h"
#include "gtest/gtest.h"

namespace gradweave::nn {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

// The initial value in a session of this seed.
Tensor Initial(const Initializer& initializer, DType dtype, const Shape& shape, SessionOptions options = {}) {
  Graph graph;
  Scope scope(graph);
  scope.Variable("w", InitialValue(scope, initializer, dtype, shape));
  const absl::StatusOr<Session> session = Session::Create(graph, std::move(options));
  EXPECT_TRUE(session.ok()) << session.status();
  return session.ok() ? *session->GetVariable("w") : Tensor(dtype, {0});
}

double MeanOf(const std::vector<double>& numbers, double power = 1) {
  double sum = 0;
  for (double number : numbers) sum += std::pow(number, power);
  return sum / static_cast<double>(numbers.size());
}

// A uniform distribution of variance V ends at sqrt(3 V); one that is normal has the fourth moment
// 3 V^2.
TEST(Initializers, HaveTheirVarianceAndDistribution) {
  enum Distribution { kUniform, kNormal };
  const struct {
    Initializer initializer;
    Shape shape;
    double variance;
    Distribution distribution;
  } rows[] = {
      {XavierUniform{}, {100, 300}, 2.0 / 400, kUniform},
      {XavierUniform{}, {64, 32, 3, 3}, 2.0 / (32 * 9 + 64 * 9), kUniform},
      {XavierNormal{}, {64, 32, 3, 3}, 2.0 / (32 * 9 + 64 * 9), kNormal},
      {KaimingUniform{}, {100, 300}, 2.0 / 100, kUniform},
      {KaimingUniform{}, {64, 32, 9}, 2.0 / (32 * 9), kUniform},
      {KaimingUniform{.fan = Fan::kOut}, {64, 32, 9}, 2.0 / (64 * 9), kUniform},
      {KaimingNormal{}, {64, 32, 3, 3}, 2.0 / (32 * 9), kNormal},
      {KaimingNormal{.fan = Fan::kOut}, {100, 300}, 2.0 / 300, kNormal},
      {KaimingNormal{.fan = Fan::kOut}, {64, 16, 2, 3, 4}, 2.0 / (64 * 24), kNormal},
      {KaimingNormal{.activation = Activation::kLinear}, {100, 300}, 1.0 / 100, kNormal},
      {KaimingNormal{.activation = Activation::kTanh}, {100, 300}, 25.0 / 9 / 100, kNormal},
      {KaimingUniform{.activation = Activation::kSelu}, {100, 300}, 9.0 / 16 / 100, kUniform},
      {KaimingNormal{.activation = Activation::kLeakyRelu, .slope = 0.5}, {100, 300}, 2 / 1.25 / 100, kNormal},
      {LeCunUniform{}, {100, 300}, 1.0 / 100, kUniform},
      {LeCunNormal{}, {64, 16, 2, 3, 4}, 1.0 / (16 * 24), kNormal},
      {Uniform{-0.5, 0.5}, {300, 100}, 1.0 / 12, kUniform},
      {Normal{0, 0.25}, {300, 100}, 0.0625, kNormal},
  };
  for (const auto& row : rows) {
    const std::vector<double> numbers = Initial(row.initializer, kFloat64, row.shape).ToDoubles();
    const double variance = MeanOf(numbers, 2);
    EXPECT_NEAR(MeanOf(numbers), 0, 0.03 * std::sqrt(row.variance)) << row.shape.ToString();
    EXPECT_NEAR(variance, row.variance, 0.05 * row.variance) << row.shape.ToString();
    const double largest = *std::max_element(numbers.begin(), numbers.end()) / std::sqrt(row.variance);
    if (row.distribution == kUniform) {
      EXPECT_LE(largest, std::sqrt(3)) << row.shape.ToString();
      EXPECT_GT(largest, std::sqrt(3) * 0.99) << row.shape.ToString();
    } else {
      EXPECT_GT(largest, 3) << row.shape.ToString();
      EXPECT_NEAR(MeanOf(numbers, 4), 3 * row.variance * row.variance, 0.3 * row.variance * row.variance);
    }
  }
  EXPECT_THAT(Initial(Constant{3}, kInt32, {2, 2}).ToDoubles(), ElementsAre(3, 3, 3, 3));
}

// PyTorch's torch.nn.init.calculate_gain.
TEST(Gain, IsPyTorchs) {
  EXPECT_EQ(Gain(Activation::kLinear), 1);
  EXPECT_EQ(Gain(Activation::kSigmoid), 1);
  EXPECT_NEAR(Gain(Activation::kTanh), 5.0 / 3, 1e-15);
  EXPECT_NEAR(Gain(Activation::kRelu), std::sqrt(2), 1e-15);
  EXPECT_NEAR(Gain(Activation::kLeakyRelu), 1.4141428569978354, 1e-15);
  EXPECT_NEAR(Gain(Activation::kSelu), 0.75, 1e-15);
}

// The distribution function of the normal distribution truncated to [-2, 2]. The largest distance
// between it and the shares of n numbers is above 1.63/sqrt(n) in one of a hundred samples
// (Kolmogorov).
TEST(TruncatedNormal, IsTheNormalDistributionBetweenTwoDeviations) {
  for (DType dtype : {kFloat64, kFloat32}) {
    std::vector<double> numbers = Initial(TruncatedNormal{5, 0.5}, dtype, {200, 500}).ToDoubles();
    std::sort(numbers.begin(), numbers.end());
    EXPECT_GE(numbers.front(), 4);
    EXPECT_LE(numbers.back(), 6);
    EXPECT_LT(numbers.front(), 4.001);
    EXPECT_GT(numbers.back(), 5.999);
    const double n = static_cast<double>(numbers.size()), edge = std::erf(std::sqrt(2));
    double distance = 0;
    for (size_t i = 0; i < numbers.size(); ++i) {
      const double share = (std::erf((numbers[i] - 5) / 0.5 / std::sqrt(2)) / edge + 1) / 2;
      distance = std::max(distance, std::abs(share - (static_cast<double>(i) + 0.5) / n));
    }
    EXPECT_LT(distance, 1.63 / std::sqrt(n));
    double variance = 0;
    for (double number : numbers) variance += (number - 5) * (number - 5) / n;
    EXPECT_NEAR(std::sqrt(variance), 0.5 * 0.8796, 0.003);
  }
}

// The largest difference between gain^2 and 0 and the products of the rows or columns, whichever
// are fewer.
double DistanceFromOrthogonal(const Tensor& tensor, double gain) {
  const std::vector<double> w = tensor.ToDoubles();
  const int64_t rows = tensor.type().shape[0].size(), columns = static_cast<int64_t>(w.size()) / rows;
  const bool wide = rows < columns;
  const int64_t vectors = std::min(rows, columns), elements = std::max(rows, columns);
  const auto at = [&](int64_t vector, int64_t element) {
    return wide ? w[vector * columns + element] : w[element * columns + vector];
  };
  double distance = 0;
  for (int64_t i = 0; i < vectors; ++i) {
    for (int64_t j = 0; j <= i; ++j) {
      double product = 0;
      for (int64_t k = 0; k < elements; ++k) product += at(i, k) * at(j, k);
      distance = std::max(distance, std::abs(product - (i == j ? gain * gain : 0)));
    }
  }
  return distance;
}

TEST(Orthogonal, HasOrthonormalRowsOrColumns) {
  const Shape shapes[] = {{1, 1}, {1, 4},    {4, 1},     {2, 2},     {5, 5},       {8, 3},
                          {3, 8}, {64, 256}, {300, 300}, {257, 256}, {6, 2, 3, 3}, {20, 2, 3}};
  for (const Shape& shape : shapes) {
    EXPECT_LT(DistanceFromOrthogonal(Initial(Orthogonal{}, kFloat64, shape), 1), 1e-12) << shape.ToString();
    EXPECT_LT(DistanceFromOrthogonal(Initial(Orthogonal{}, kFloat32, shape), 1), 1e-6) << shape.ToString();
    EXPECT_LT(DistanceFromOrthogonal(Initial(Orthogonal{.gain = 3}, kFloat64, shape), 3), 1e-11) << shape.ToString();
  }
}

TEST(Orthogonal, IsTheSameBitsForAnyNumberOfThreads) {
  const Tensor one = Initial(Orthogonal{}, kFloat32, {300, 280}, {.threads = 1});
  EXPECT_TRUE(SameBits(one, Initial(Orthogonal{}, kFloat32, {300, 280}, {.threads = 2})));
  EXPECT_TRUE(SameBits(one, Initial(Orthogonal{}, kFloat32, {300, 280}, {.threads = 3})));
  EXPECT_FALSE(SameBits(one, Initial(Orthogonal{}, kFloat32, {300, 280}, {.threads = 1, .seed = 1})));
}

// The trace of a uniformly distributed orthogonal matrix [4, 4] has the moments 0, 1, 0, 3, as a
// normal number has (Diaconis and Shahshahani, "On the eigenvalues of random matrices", 1994). Half
// of the matrices reflect: their determinant is -1, which for 4 by 4 makes the trace's distribution
// symmetric.
TEST(Orthogonal, IsUniformlyDistributed) {
  std::vector<double> traces, corners;
  for (uint64_t seed = 0; seed < 400; ++seed) {
    const std::vector<double> w = Initial(Orthogonal{}, kFloat64, {4, 4}, {.threads = 1, .seed = seed}).ToDoubles();
    traces.push_back(w[0] + w[5] + w[10] + w[15]);
    corners.push_back(w[15]);
  }
  EXPECT_NEAR(MeanOf(traces), 0, 0.2);
  EXPECT_NEAR(MeanOf(traces, 2), 1, 0.3);
  EXPECT_NEAR(MeanOf(traces, 4), 3, 1.2);
  EXPECT_NEAR(MeanOf(corners), 0, 0.1);
  EXPECT_NEAR(MeanOf(corners, 2), 0.25, 0.05);
}

TEST(Identity, HasOnesOnItsDiagonal) {
  EXPECT_THAT(Initial(Identity{}, kFloat32, {2, 2}).ToDoubles(), ElementsAre(1, 0, 0, 1));
  EXPECT_THAT(Initial(Identity{.gain = 0.5}, kFloat64, {2, 3}).ToDoubles(), ElementsAre(0.5, 0, 0, 0, 0.5, 0));
  EXPECT_THAT(Initial(Identity{}, kInt64, {3, 1}).ToDoubles(), ElementsAre(1, 0, 0));
}

// A size that fits in no memory is an error of the session and not the end of the program.
TEST(Initializers, TakeSizesThatNoMemoryHas) {
  for (const Initializer& initializer : {Initializer(Identity{}), Initializer(Orthogonal{})}) {
    Graph graph;
    Scope scope(graph);
    scope.Variable("w", InitialValue(scope, initializer, kFloat32, {int64_t{1} << 40, 2}));
    EXPECT_EQ(Session::Create(graph, {.threads = 1}).status().code(), absl::StatusCode::kResourceExhausted);
  }
}

TEST(Initializers, RefuseWhatMakesNoNumbersAtTheCallersLine) {
  constexpr double kNaN = std::numeric_limits<double>::quiet_NaN(), kInfinity = std::numeric_limits<double>::infinity();
  const struct {
    Initializer initializer;
    Shape shape;
    DType dtype;
    const char* message;
  } rows[] = {
      {Constant{kNaN}, {2}, kFloat32, "Constant: value is nan"},
      {Uniform{kNaN, 1}, {2}, kFloat32, "Uniform: low is nan"},
      {Uniform{0, kInfinity}, {2}, kFloat32, "Uniform: high is inf"},
      {Uniform{1, 0.5}, {2}, kFloat32, "low is 1 and high is 0.5; low has to be below high"},
      {Normal{kInfinity, 1}, {2}, kFloat32, "Normal: mean is inf"},
      {Normal{0, -1}, {2}, kFloat32, "Normal: standard_deviation is -1 and must be finite and at least 0"},
      {TruncatedNormal{0, kNaN}, {2}, kFloat32, "TruncatedNormal: standard_deviation is nan"},
      {TruncatedNormal{}, {2}, kInt32, "the dtype is int32"},
      {KaimingNormal{.activation = Activation::kLeakyRelu, .slope = kNaN}, {2, 2}, kFloat32, "slope is nan"},
      {KaimingUniform{.slope = kInfinity}, {2, 2}, kFloat32, "KaimingUniform: slope is inf"},
      {Orthogonal{kNaN}, {2, 2}, kFloat32, "Orthogonal: gain is nan"},
      {Orthogonal{}, {2, 2}, kInt32, "Orthogonal is for floating variables"},
      {Orthogonal{}, {2, 0}, kFloat32, "Orthogonal needs elements, and the shape is [2,0]"},
      {Orthogonal{}, {2}, kFloat32, "need at least two axes, and the shape is [2]"},
      {LeCunNormal{}, {}, kFloat32, "need at least two axes, and the shape is []"},
      {Identity{kInfinity}, {2, 2}, kFloat32, "Identity: gain is inf"},
      {Identity{}, {2, 2, 2}, kFloat32, "Identity is for matrices, and the shape is [2,2,2]"},
      {Normal{}, {Dim("n"), 2}, kFloat32, "a variable's shape has to be known, and the shape is [n,2]"},
  };
  for (const auto& row : rows) {
    Graph graph;
    Scope scope(graph);
    const int line = __LINE__ + 1;
    EXPECT_FALSE(InitialValue(scope, row.initializer, row.dtype, row.shape).valid());
    const std::string message(graph.status().message());
    EXPECT_THAT(message, HasSubstr(row.message));
    EXPECT_THAT(message, HasSubstr("initializers_test.cc:" + std::to_string(line)));
  }
}

}  // namespace
}  // namespace gradweave::nn
