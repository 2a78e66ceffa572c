// Dtypes, the half types with all their values, and conversions between all dtypes.
#include "gradweave/graph/dtype.h"

#if defined(__x86_64__)
#include <xmmintrin.h>
#endif

#include <bit>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <limits>
#include <set>
#include <string>
#include <vector>

#include "gradweave/graph/half.h"
#include "gradweave/graph/tensor.h"
#include "gtest/gtest.h"

namespace gradweave {
namespace {

constexpr DType kAll[] = {kFloat32,  kFloat64, kInt32, kInt64,  kUint8,  kBool,  kFloat16,
                          kBFloat16, kInt8,    kInt16, kUint16, kUint32, kUint64};
constexpr float kInfinity = std::numeric_limits<float>::infinity();

TEST(DType, HasANumberANameASizeAndAType) {
  std::set<std::string> names;
  for (size_t i = 0; i < std::size(kAll); ++i) {
    const DType dtype = kAll[i];
    EXPECT_EQ(static_cast<size_t>(dtype), i) << "files and C programs know the numbers";
    EXPECT_TRUE(names.emplace(DTypeName(dtype)).second);
    EXPECT_EQ(DTypeFromName(DTypeName(dtype)), dtype);
    EXPECT_TRUE(kAnyDType.Contains(dtype));
    VisitAnyDType(dtype, [&](auto zero) {
      EXPECT_EQ(DTypeOf<decltype(zero)>, dtype);
      EXPECT_EQ(DTypeSize(dtype), sizeof(zero));
    });
  }
  EXPECT_EQ(DTypeFromName("float8"), std::nullopt);
  EXPECT_EQ(DTypeName(kBFloat16), "bfloat16");
}

TEST(DType, NewOnesStoreNumbersAndAreNotComputedWith) {
  for (DType dtype : kAll) {
    const bool computed = dtype <= kBool;
    EXPECT_EQ(kComputed.Contains(dtype), computed);
    EXPECT_EQ(kNumeric.Contains(dtype), computed && dtype != kBool);
    EXPECT_EQ(IsFloating(dtype), dtype == kFloat32 || dtype == kFloat64);
    EXPECT_EQ(IsHalf(dtype), kHalves.Contains(dtype));
  }
}

TEST(DTypeDeathTest, ComputingWithAStoredDTypeIsABug) {
  EXPECT_DEATH(VisitDType(kBFloat16, [](auto) {}), "bfloat16");
}

// A half type, as IEEE 754 defines it by its numbers of bits.
template <typename T>
struct Format;
template <>
struct Format<Float16> {
  static constexpr int kFraction = 10, kExponent = 5;
};
template <>
struct Format<BFloat16> {
  static constexpr int kFraction = 7, kExponent = 8;
};

// The value of the bits by the definition (IEEE 754-2019, section 3.4).
template <typename T>
double ValueOf(uint16_t bits) {
  constexpr int kFraction = Format<T>::kFraction, kMost = (1 << Format<T>::kExponent) - 1, kBias = kMost / 2;
  const int exponent = bits >> kFraction & kMost, fraction = bits & ((1 << kFraction) - 1);
  const double sign = bits >> 15 != 0 ? -1 : 1;
  if (exponent == kMost) return fraction == 0 ? sign * kInfinity : std::numeric_limits<double>::quiet_NaN();
  if (exponent == 0) return sign * std::ldexp(fraction, 1 - kBias - kFraction);
  return sign * std::ldexp(fraction + (1 << kFraction), exponent - kBias - kFraction);
}

template <typename T>
class HalfTest : public testing::Test {};
using Halves = testing::Types<Float16, BFloat16>;
TYPED_TEST_SUITE(HalfTest, Halves);

TYPED_TEST(HalfTest, AllValuesConvertToFloatAndBack) {
  using T = TypeParam;
  constexpr uint16_t kQuiet = 1 << (Format<T>::kFraction - 1);
  for (int i = 0; i < 65536; ++i) {
    const uint16_t bits = static_cast<uint16_t>(i);
    const T half = T::FromBits(bits);
    const double expected = ValueOf<T>(bits);
    const float x = static_cast<float>(half);
    if (std::isnan(expected)) {
      EXPECT_TRUE(std::isnan(x)) << i;
      EXPECT_EQ(T(x).bits(), bits | kQuiet) << i;
      EXPECT_EQ(T(static_cast<double>(x)).bits(), bits | kQuiet) << i;
      EXPECT_FALSE(half == half);
      continue;
    }
    ASSERT_EQ(static_cast<double>(x), expected) << i;
    ASSERT_EQ(std::signbit(x), bits >> 15 != 0) << i;
    ASSERT_EQ(T(x).bits(), bits);
    ASSERT_EQ(T(static_cast<double>(x)).bits(), bits);
  }
  EXPECT_EQ(T(0.f), T(-0.f));
  EXPECT_LT(T(-1.f), T(0.5f));
}

// Between two neighbours lies a number that is as near to both. It becomes the one with an even
// last bit, and the floats and doubles beside it become the nearer one.
TYPED_TEST(HalfTest, NumbersBetweenTwoRoundToTheNearestOne) {
  using T = TypeParam;
  const uint16_t infinity = T(kInfinity).bits();
  for (uint16_t low = 0; low < infinity; ++low) {
    const uint16_t high = low + 1;
    // The largest number's neighbour is the power of two that the exponent has no room for.
    const double above = high == infinity ? std::ldexp(1.0, Format<T>::kExponent == 5 ? 16 : 128) : ValueOf<T>(high);
    const double middle = (ValueOf<T>(low) + above) / 2;
    const uint16_t even = low % 2 == 0 ? low : high;
    for (const double sign : {1.0, -1.0}) {
      const uint16_t bit = sign < 0 ? 0x8000 : 0;
      ASSERT_EQ(T(sign * middle).bits(), even | bit) << low;
      ASSERT_EQ(T(sign * std::nextafter(middle, 0)).bits(), low | bit) << low;
      ASSERT_EQ(T(sign * std::nextafter(middle, 1e300)).bits(), high | bit) << low;
      // Half the smallest bfloat16 is a float, as are all other middles.
      const float x = static_cast<float>(sign * middle);
      if (static_cast<double>(x) != sign * middle) continue;
      ASSERT_EQ(T(x).bits(), even | bit) << low;
      ASSERT_EQ(T(std::nextafterf(x, 0)).bits(), low | bit) << low;
      ASSERT_EQ(T(std::nextafterf(x, static_cast<float>(sign) * kInfinity)).bits(), high | bit) << low;
    }
  }
}

TYPED_TEST(HalfTest, LargeAndSmallDoublesRoundOnce) {
  using T = TypeParam;
  for (const double sign : {1.0, -1.0}) {
    EXPECT_EQ(static_cast<double>(T(sign * std::numeric_limits<double>::max())), sign * kInfinity);
    const T tiny(sign * std::numeric_limits<double>::denorm_min());
    EXPECT_EQ(tiny.bits(), sign < 0 ? 0x8000 : 0);
  }
  // A conversion through a float would make this a tie, and then 1.
  const double unit = std::ldexp(1.0, -Format<T>::kFraction);
  EXPECT_EQ(static_cast<double>(T(1 + unit / 2 + 0x1p-40)), 1 + unit);
  EXPECT_EQ(static_cast<double>(T(1 + 1.5 * unit - 0x1p-40)), 1 + unit);
}

TEST(BFloat16, LargeIntegersRoundOnce) {
  // 2^62 + 2^54 is a tie between 2^62 and 2^62 + 2^55.
  const int64_t tie = (int64_t{1} << 62) + (int64_t{1} << 54);
  EXPECT_EQ(static_cast<double>(BFloat16(tie)), 0x1p62);
  EXPECT_EQ(static_cast<double>(BFloat16(tie + 1)), 0x1p62 + 0x1p55);
  EXPECT_EQ(static_cast<double>(BFloat16(-tie - 1)), -0x1p62 - 0x1p55);
  EXPECT_EQ(static_cast<double>(BFloat16(std::numeric_limits<uint64_t>::max())), 0x1p64);
  EXPECT_EQ(static_cast<double>(BFloat16(std::numeric_limits<int64_t>::min())), -0x1p63);
  EXPECT_EQ(static_cast<double>(Float16(65519)), 65504);
  EXPECT_EQ(static_cast<double>(Float16(65520)), kInfinity);
}

// ---- Conversions of tensors ----

Tensor Numbers() {
  return Tensor::Of<double>(
      {12}, {0, -0.0, 1, -1.5, 2.5, 127.9, -128.9, 255.5, 70000, -3e9, 1e30, std::numeric_limits<double>::quiet_NaN()});
}

TEST(Tensor, FloatingToIntegerRoundsTowardZeroAndSaturates) {
  const struct {
    DType dtype;
    std::vector<double> expected;
  } rows[] = {
      {kInt8, {0, 0, 1, -1, 2, 127, -128, 127, 127, -128, 127, 0}},
      {kUint8, {0, 0, 1, 0, 2, 127, 0, 255, 255, 0, 255, 0}},
      {kInt16, {0, 0, 1, -1, 2, 127, -128, 255, 32767, -32768, 32767, 0}},
      {kUint16, {0, 0, 1, 0, 2, 127, 0, 255, 65535, 0, 65535, 0}},
      {kUint32, {0, 0, 1, 0, 2, 127, 0, 255, 70000, 0, 4294967295.0, 0}},
      {kUint64, {0, 0, 1, 0, 2, 127, 0, 255, 70000, 0, 18446744073709551615.0, 0}},
      {kBool, {0, 0, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1}},
  };
  for (const auto& row : rows) {
    EXPECT_EQ(Numbers().Cast(row.dtype).ToDoubles(), row.expected) << DTypeName(row.dtype);
    EXPECT_EQ(Numbers().Cast(kFloat32).Cast(row.dtype).ToDoubles(), row.expected) << DTypeName(row.dtype);
  }
  const Tensor halves = Tensor::Of<Float16>({4}, {Float16(kInfinity), Float16(-1.5), Float16(300), Float16(-0.f)});
  EXPECT_EQ(halves.Cast(kInt8).ToDoubles(), (std::vector<double>{127, -1, 127, 0}));
  EXPECT_EQ(halves.Cast(kUint16).ToDoubles(), (std::vector<double>{65535, 0, 300, 0}));
  EXPECT_EQ(halves.Cast(kBool).ToDoubles(), (std::vector<double>{1, 1, 1, 0}));
}

TEST(Tensor, IntegersWrapAround) {
  const Tensor wide = Tensor::Of<int64_t>({4}, {-1, 128, 65536 + 7, -129});
  EXPECT_EQ(wide.Cast(kInt8).ToDoubles(), (std::vector<double>{-1, -128, 7, 127}));
  EXPECT_EQ(wide.Cast(kUint16).ToDoubles(), (std::vector<double>{65535, 128, 7, 65407}));
  EXPECT_EQ(wide.Cast(kUint64).Cast(kInt64).ToDoubles(), wide.ToDoubles());
}

TEST(Tensor, CastsBetweenHalves) {
  const Tensor x =
      Tensor::Of<BFloat16>({4}, {BFloat16(1e6f), BFloat16(-2.f), BFloat16(1e-30f), BFloat16::FromBits(0x7FC1)});
  const Tensor y = x.Cast(kFloat16);
  EXPECT_EQ(static_cast<float>(y.values<Float16>()[0]), kInfinity);
  EXPECT_EQ(static_cast<float>(y.values<Float16>()[1]), -2);
  EXPECT_EQ(static_cast<float>(y.values<Float16>()[2]), 0);
  EXPECT_TRUE(std::isnan(static_cast<float>(y.values<Float16>()[3])));
}

// Kernels run on threads that take denormal numbers as zeros. Conversions of half types give the
// same there.
TEST(Tensor, HalvesConvertAlikeWhereDenormalsAreZeros) {
#if defined(__x86_64__)
  for (DType half : {kFloat16, kBFloat16}) {
    Tensor all(half, {65536});
    uint16_t* const bits = static_cast<uint16_t*>(all.mutable_raw_data());
    for (int i = 0; i < 65536; ++i) bits[i] = static_cast<uint16_t>(i);
    for (DType to : {kFloat32, kFloat64, kBool, kInt32, kFloat16, kBFloat16}) {
      const Tensor expected = all.Cast(to), back = expected.Cast(half);
      const unsigned state = _mm_getcsr();
      _mm_setcsr(state | 0x8040);
      const Tensor there = all.Cast(to), back_there = expected.Cast(half);
      _mm_setcsr(state);
      EXPECT_TRUE(SameBits(there, expected)) << DTypeName(half) << " to " << DTypeName(to);
      EXPECT_TRUE(SameBits(back_there, back)) << DTypeName(to) << " to " << DTypeName(half);
    }
  }
#endif
}

TEST(Tensor, PrintsAndMakesStoredNumbers) {
  EXPECT_EQ(Tensor::Of<BFloat16>({2}, {BFloat16(0.5f), BFloat16(-2.f)}).ToString(), "bfloat16[2] {0.5, -2}");
  EXPECT_EQ(Tensor::Of<int8_t>({2}, {-1, 65}).ToString(), "int8[2] {-1, 65}");
  EXPECT_EQ(Tensor::ScalarOf(kFloat16, 0.1).ToString(), "float16[] {0.0999756}");
  EXPECT_EQ(Tensor::ScalarOf(kUint64, 3).ToDouble(), 3);
  EXPECT_EQ(Tensor(kUint16, {3}).byte_size(), 6u);
}

TEST(Represents, KnowsTheBoundsOfEachDType) {
  EXPECT_TRUE(Represents(kBFloat16, 0.1));
  EXPECT_TRUE(Represents(kInt8, -128));
  EXPECT_FALSE(Represents(kInt8, 128));
  EXPECT_FALSE(Represents(kUint16, -1));
  EXPECT_TRUE(Represents(kUint64, 0x1p63));
  EXPECT_FALSE(Represents(kUint64, 0x1p64));
  EXPECT_FALSE(Represents(kInt16, 0.5));
}

}  // namespace
}  // namespace gradweave
