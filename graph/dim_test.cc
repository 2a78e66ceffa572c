// Dimensions: one canonical form, text that reads back, and limits that bound what files can ask for.
#include "gradweave/graph/dim.h"

#include <chrono>
#include <limits>
#include <random>
#include <string>

#include "gtest/gtest.h"

namespace gradweave {
namespace {

constexpr int64_t kMax = std::numeric_limits<int64_t>::max();

int64_t Evaluate(const Dim& dim, const DimBindings& bindings) { return dim.Substitute(bindings).size(); }

int64_t Floor(int64_t a, int64_t b) { return a / b - (a % b < 0 ? 1 : 0); }

TEST(Dim, StridesBehindEachOtherMakeOneQuotient) {
  Dim height("height");
  int64_t size = 1'234'567;
  for (int layer = 0; layer < 17; ++layer) {
    height = FloorDivide(height - 3, 2) + 1;
    size = Floor(size - 3, 2) + 1;
  }
  EXPECT_EQ(height.ToString(), "floor((height + 1)/131072) - 1");
  EXPECT_EQ(Evaluate(height, {{"height", 1'234'567}}), size);
}

// Random expressions have the value that integers give, and their text reads back.
TEST(Dim, ValuesAndTextAgree) {
  std::mt19937 random(3);
  auto pick = [&](int64_t low, int64_t high) { return std::uniform_int_distribution<int64_t>(low, high)(random); };
  int symbolic = 0;
  for (int round = 0; round < 2000; ++round) {
    const DimBindings bindings = {{"a", pick(0, 50)}, {"b", pick(0, 50)}};
    Dim dim("a");
    int64_t value = bindings.find("a")->second;
    for (int i = 0; i < 6; ++i) {
      const bool is_b = pick(0, 1) == 1;
      const int64_t number = pick(-5, 5), other = is_b ? bindings.find("b")->second : number;
      const Dim operand = is_b ? Dim("b") : Dim(number);
      switch (pick(0, 3)) {
        case 0:
          dim = dim + operand, value += other;
          break;
        case 1:
          dim = dim - operand, value -= other;
          break;
        case 2:
          dim = dim * operand, value *= other;
          break;
        default: {
          const int64_t divisor = pick(1, 7);
          dim = FloorDivide(dim, divisor), value = Floor(value, divisor);
        }
      }
    }
    EXPECT_EQ(Evaluate(dim, bindings), value) << dim.ToString();
    const std::optional<Dim> read = DimFromString(dim.ToString());
    ASSERT_TRUE(read.has_value()) << dim.ToString();
    EXPECT_EQ(*read, dim) << dim.ToString();
    symbolic += dim.is_known() ? 0 : 1;
  }
  EXPECT_GT(symbolic, 1000);
}

// Expressions beyond the limits become the largest number, which the builder refuses.
TEST(Dim, LargeExpressionsTakeNoTime) {
  const auto start = std::chrono::steady_clock::now();
  std::string bomb;
  for (int i = 0; i < 60; ++i) bomb += (i == 0 ? "" : "*") + ("floor((a" + std::to_string(i) + " + b)/1)");
  EXPECT_EQ(*DimFromString(bomb.substr(0, bomb.rfind("*floor((a40"))), Dim(kMax));
  Dim product(1), nested("n"), sum(0);
  for (int i = 0; i < 1000; ++i) {
    product = product * (Dim("a" + std::to_string(i)) + Dim("b" + std::to_string(i)));
    nested = FloorDivide(nested * nested + 1, 3);
    sum = sum + Dim("symbol_" + std::to_string(i));
  }
  EXPECT_EQ(product, Dim(kMax));
  EXPECT_EQ(sum, Dim(kMax));
  EXPECT_LE(nested.ToString().size(), 1024u);
  EXPECT_LT(std::chrono::steady_clock::now() - start, std::chrono::seconds(1));
}

TEST(Dim, WhatItHoldsReadsBackUpToItsLimits) {
  Dim sum(0), last(0);
  for (int i = 0; i < 1000 && !(sum == Dim(kMax)); ++i) {
    last = sum;
    sum = sum + Dim("symbol_" + std::to_string(i));
  }
  EXPECT_GT(last.ToString().size(), 1000u);
  EXPECT_EQ(*DimFromString(last.ToString()), last);
  Dim nested("n");
  for (int i = 0; i < 100 && !(nested == Dim(kMax)); ++i) {
    last = nested;
    nested = FloorDivide(Dim(2) * nested + Dim("k"), 3);
  }
  EXPECT_EQ(nested, Dim(kMax));
  EXPECT_EQ(*DimFromString(last.ToString()), last);
}

TEST(Dim, DividesTheSmallestNumbers) {
  const int64_t smallest = 1 - kMax;
  EXPECT_EQ(Evaluate(FloorDivide(Dim("n") * smallest, 3), {{"n", 1}}), Floor(smallest, 3));
  EXPECT_EQ(FloorDivide(Dim(smallest), 3).size(), Floor(smallest, 3));
  EXPECT_EQ(Evaluate(FloorDivide(Dim("n") + smallest, kMax), {{"n", 0}}), -1);
}

}  // namespace
}  // namespace gradweave
