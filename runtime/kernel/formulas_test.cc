// The functions that formulas.h does not take from the C library.
#include "gradweave/runtime/kernel/formulas.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstdint>
#include <limits>

#include "gtest/gtest.h"

namespace gradweave::formulas {
namespace {

constexpr float kInfinity = std::numeric_limits<float>::infinity();

// Returns the largest error in units in the last place of the function's float32 results, over
// every `step`-th bit pattern. Expects the same signs, zeros and infinities as of the exact
// results.
template <typename Function, typename Exact>
double LargestError(uint64_t step, Function function, Exact exact) {
  double largest = 0;
  for (uint64_t bits = 0; bits < uint64_t{1} << 32; bits += step) {
    const float x = std::bit_cast<float>(static_cast<uint32_t>(bits)), y = function(x);
    if (std::isnan(x)) {
      EXPECT_TRUE(std::isnan(y));
      continue;
    }
    const double want = exact(static_cast<double>(x));
    const float nearest = static_cast<float>(want);
    EXPECT_EQ(std::signbit(y), std::signbit(nearest)) << x;
    if (nearest == 0 || std::isinf(nearest) || std::isinf(y)) {
      EXPECT_EQ(y, nearest) << x;
      continue;
    }
    const float size = std::abs(nearest);
    const double unit = static_cast<double>(std::nextafter(size, kInfinity)) - static_cast<double>(size);
    largest = std::max(largest, std::abs(static_cast<double>(y) - want) / unit);
  }
  return largest;
}

// A step of 1 takes all numbers, and minutes. It finds 1.4391 and 0.9808.
TEST(Expm1, IsAccurateForAllNumbers) {
  const double error = LargestError(
      997, [](float x) { return Expm1Of(x); }, [](double x) { return std::expm1(x); });
  EXPECT_LE(error, 1.44);
  EXPECT_GT(error, 1);
}

TEST(Erf, IsAccurateForAllNumbers) {
  const double error = LargestError(
      997, [](float x) { return ErfOf(x); }, [](double x) { return std::erf(x); });
  EXPECT_LE(error, 0.99);
  EXPECT_GT(error, 0.7);
}

// The bits must not change. This code computed the numbers, on x86-64 with gcc 12.
TEST(OwnFunctions, GiveTheseBits) {
  const struct {
    float x;
    uint32_t expm1, erf;
  } rows[] = {
      {9.9999461e-41f, 0x000116c2u, 0x00013a8bu}, {-9.99999994e-09f, 0xb22bcc77u, 0xb241daa4u},
      {0.300000012f, 0x3eb320b2u, 0x3ea841c5u},   {-0.349999994f, 0xbe97331fu, 0xbec23e5du},
      {0.5f, 0x3f261299u, 0x3f053f7bu},           {0.930000007f, 0x3fc46accu, 0x3f4fc2a1u},
      {-1.0f, 0xbf21d2a7u, 0xbf57bb3du},          {1.5f, 0x405ed3feu, 0x3f7752abu},
      {-2.75f, 0xbf6fa26cu, 0xbf7ff968u},         {3.9000001f, 0x42419c1du, 0x3f800000u},
      {17.0f, 0x4bb849a4u, 0x3f800000u},          {-20.0f, 0xbf800000u, 0xbf800000u},
      {88.5f, 0x7f4cdcc4u, 0x3f800000u},
  };
  for (const auto& row : rows) {
    EXPECT_EQ(std::bit_cast<uint32_t>(Expm1Of(row.x)), row.expm1) << row.x;
    EXPECT_EQ(std::bit_cast<uint32_t>(ErfOf(row.x)), row.erf) << row.x;
  }
}

TEST(OwnFunctions, KeepZerosAndInfinities) {
  EXPECT_EQ(std::bit_cast<uint32_t>(Expm1Of(-0.0f)), 0x80000000u);
  EXPECT_EQ(std::bit_cast<uint32_t>(ErfOf(-0.0f)), 0x80000000u);
  EXPECT_EQ(Expm1Of(kInfinity), kInfinity);
  EXPECT_EQ(Expm1Of(-kInfinity), -1);
  EXPECT_EQ(ErfOf(kInfinity), 1);
  EXPECT_EQ(ErfOf(-kInfinity), -1);
  // The largest number whose result is finite, and the next one.
  EXPECT_EQ(Expm1Of(88.72283f), std::exp(88.72283f));
  EXPECT_EQ(Expm1Of(std::nextafter(88.72283f, 89.0f)), kInfinity);
}

}  // namespace
}  // namespace gradweave::formulas
