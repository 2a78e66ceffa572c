// Dimensions: one canonical form, text that reads back, and limits that bound what files can ask
// for.
#include "gradweave/graph/dim.h"

#include <chrono>
#include <limits>
#include <optional>
#include <random>
#include <set>
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

// SECURITY.md has the numbers.
TEST(Dim, HasItsLimitsToTheCharacter) {
  const Dim longest = Dim(std::string(1020, 'n')) + 1;
  EXPECT_EQ(longest.ToString().size(), 1024u);
  EXPECT_EQ(DimFromString(longest.ToString()), longest);
  EXPECT_EQ(Dim(std::string(1021, 'n')) + 1, Dim(kMax));
  EXPECT_TRUE(DimFromString(std::string(1024, 'n')).has_value());
  EXPECT_FALSE(DimFromString(std::string(1025, 'n')).has_value());

  Dim nested("n");
  for (int quotients = 1; quotients <= 16; ++quotients) {
    nested = FloorDivide(nested * 2 + Dim("k"), 3);
    ASSERT_FALSE(nested.is_known()) << quotients;
  }
  const std::string text = nested.ToString();
  EXPECT_EQ(DimFromString(text), nested);
  EXPECT_EQ(FloorDivide(nested * 2 + Dim("k"), 3), Dim(kMax));
  EXPECT_FALSE(DimFromString("floor((" + text + ")/5)").has_value());
}

TEST(Dim, DividesTheSmallestNumbers) {
  const int64_t smallest = 1 - kMax;
  EXPECT_EQ(Evaluate(FloorDivide(Dim("n") * smallest, 3), {{"n", 1}}), Floor(smallest, 3));
  EXPECT_EQ(FloorDivide(Dim(smallest), 3).size(), Floor(smallest, 3));
  EXPECT_EQ(Evaluate(FloorDivide(Dim("n") + smallest, kMax), {{"n", 0}}), -1);
}

TEST(Dim, TextIsCanonical) {
  const Dim m("m"), n("n");
  const struct {
    Dim dim;
    const char* text;
  } rows[] = {
      {Dim(-3), "-3"},
      {n, "n"},
      {Dim(-1) * n, "-n"},
      {n * 2 - 3, "2*n - 3"},
      {Dim(3) - n, "-n + 3"},
      {m - m * n * 2, "m - 2*m*n"},
      {n * m - m * n + 7, "7"},
      {(n + 1) * (n - 1), "n*n - 1"},
      {FloorDivide(n - 3, 2) + 1, "floor((n + 1)/2) - 1"},
      {FloorDivide(n * 4 + m * 2 + 5, 2), "m + 2*n + 2"},
      {FloorDivide(FloorDivide(n, 2) + 5, 3), "floor((n + 4)/6) + 1"},
      {FloorDivide(FloorDivide(n, 2) * m, 3), "floor((floor((n)/2)*m)/3)"},
  };
  for (const auto& row : rows) {
    EXPECT_EQ(row.dim.ToString(), row.text);
    EXPECT_EQ(DimFromString(row.text), row.dim) << row.text;
  }
}

TEST(Dim, OtherTextIsRefused) {
  for (const char* text : {"",
                           " ",
                           "-",
                           "a b",
                           "a +b",
                           "a + ",
                           "a+b",
                           "+a",
                           "- a",
                           "2**n",
                           "2n",
                           "a*",
                           "*a",
                           "floor",
                           "floor(a/2)",
                           "floor((a)/0)",
                           "floor((a)/-1)",
                           "floor((a)/b)",
                           "floor((a)/2",
                           "floor((a)/)",
                           "floor(()/2)",
                           "(a)",
                           "n\n",
                           "\xc3\xa4"}) {
    EXPECT_FALSE(DimFromString(text).has_value()) << text;
  }
}

TEST(Dim, SymbolsHaveNamesAsInPrograms) {
  for (const char* name : {"n", "_", "batch_2", "Height", "floors"}) EXPECT_TRUE(IsSymbolName(name)) << name;
  for (const char* name : {"", "floor", "2n", "a b", "a-b", "a*b", "\xc3\xa4"})
    EXPECT_FALSE(IsSymbolName(name)) << name;
}

TEST(Dim, SymbolsInQuotientsAreFoundAndReplaced) {
  const Dim k("k"), m("m"), n("n"), dim = FloorDivide(n * m + k, 3) + n;
  std::set<std::string> symbols;
  dim.CollectSymbols(symbols);
  EXPECT_EQ(symbols, (std::set<std::string>{"k", "m", "n"}));
  EXPECT_EQ(dim.Substitute({{"m", 3}}).ToString(), "floor((k)/3) + 2*n");
  EXPECT_EQ(dim.Substitute({{"m", 3}, {"k", 7}, {"n", -2}}), Dim(-2));
  EXPECT_EQ(n.AsSymbol(), "n");
  for (const Dim& other : {Dim(5), n * 2, n + 1, n * m, FloorDivide(n, 2)}) {
    EXPECT_FALSE(other.AsSymbol().has_value()) << other.ToString();
  }
}

TEST(Dim, DividesWithoutARest) {
  const Dim m("m"), n("n");
  const struct {
    Dim a, b;
    std::optional<Dim> quotient;
  } rows[] = {
      {Dim(12), Dim(4), Dim(3)},
      {Dim(12), Dim(5), std::nullopt},
      {Dim(12), Dim(0), std::nullopt},
      {Dim(0), n, Dim(0)},
      {n * 6, Dim(2), n * 3},
      {n * 6, n * 3, Dim(2)},
      {n * m * 6, n * 2, m * 3},
      {n * n, n, n},
      {n * 4 + 2, Dim(2), n * 2 + 1},
      {n * m - n, n, m - 1},
      {n * 5, Dim(2), std::nullopt},
      {n * 4 + 1, Dim(2), std::nullopt},
      {n, m, std::nullopt},
      {n, n * n, std::nullopt},
      {n + 1, n, std::nullopt},
      {n + 1, n + 1, Dim(1)},
      {n * n - 1, n + 1, std::nullopt},
  };
  for (const auto& row : rows) {
    EXPECT_EQ(DivideExactly(row.a, row.b), row.quotient) << row.a.ToString() << " by " << row.b.ToString();
  }
}

TEST(Dim, ArithmeticSaturates) {
  const Dim n("n"), most(kMax), least(-kMax);
  EXPECT_EQ(most + 1, most);
  EXPECT_EQ(least - 2, least);
  EXPECT_EQ(most * 2, most);
  EXPECT_EQ(most * -2, least);
  EXPECT_EQ(least * -2, most);
  EXPECT_EQ(n * kMax, most);
  EXPECT_EQ(n * -kMax, most);
  EXPECT_EQ(n * (kMax - 1) + n * 2, most);
  EXPECT_EQ((n * (kMax - 1)).Substitute({{"n", 1}}), Dim(kMax - 1));
}

// -2^63 has no negative, and the processor traps where it is divided by -1.
TEST(Dim, SaturatesAboveTheLeastNumber) {
  EXPECT_EQ(Dim(-kMax) - 1, Dim(-kMax));
  EXPECT_EQ(Dim(int64_t{1} << 62) * -2, Dim(-kMax));
  const Dim n("n");
  const Dim least = n * -kMax - n;
  EXPECT_EQ(least, Dim(kMax));  // An expression that saturates.
  EXPECT_FALSE(DivideExactly(least, n * -1).has_value());
  const Dim near = n * (1 - kMax) - n;
  EXPECT_EQ(near, Dim(kMax));
}

}  // namespace
}  // namespace gradweave
