// The generator gives the numbers that its authors publish, and every counter and key has its
// place.
#include "gradweave/runtime/kernel/philox.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <numbers>

#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace gradweave::philox {
namespace {

using ::testing::ElementsAre;

// The known answers of philox4x32-10 in Random123 1.14 (examples/kat_vectors). The last row has
// digits of pi.
TEST(Philox, GivesThePublishedNumbers) {
  const struct {
    Words counter;
    Key key;
    Words expected;
  } rows[] = {
      {{{0, 0, 0, 0}}, {{0, 0}}, {{0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8}}},
      {{{0xffffffff, 0xffffffff, 0xffffffff, 0xffffffff}},
       {{0xffffffff, 0xffffffff}},
       {{0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd}}},
      {{{0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344}},
       {{0xa4093822, 0x299f31d0}},
       {{0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1}}},
  };
  for (const auto& row : rows) {
    EXPECT_THAT(Generate(row.counter, row.key).values, ::testing::ElementsAreArray(row.expected.values));
  }
}

// The first number that SplitMix64 gives for seed 0, and the first for seed 1234567; both are in
// the test vectors of other implementations (java.util.SplittableRandom, Rosetta Code).
TEST(Philox, MixesSeedsAsSplitMix64Does) {
  EXPECT_EQ(Mix(0), 0xE220A8397B1DCDAFu);
  EXPECT_EQ(Mix(1234567), 6457827717110365317u);
}

TEST(Philox, BlocksAndRunsAreTheCounter) {
  const Key key = {{0xa4093822, 0x299f31d0}};
  const uint64_t block = 0x85a308d3'243f6a88, run = 0x03707344'13198a2e;
  EXPECT_THAT(WordsOf(key, run, block).values, ElementsAre(0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1));
}

// The numbers come from tests/ops/make_random_reference.py.
TEST(Philox, KeysDependOnBothSeeds) {
  EXPECT_THAT(KeyOf(7, 3).values, ElementsAre(0x1a99f995u, 0x6baa7868u));
  EXPECT_THAT(KeyOf(3, 7).values, ElementsAre(0xbcff6547u, 0xe880a903u));
}

TEST(Philox, BitsBecomeNumbersBelowOne) {
  const uint32_t none[] = {0, 0}, one[] = {0x100, 0x800}, all[] = {0xffffffff, 0xffffffff};
  EXPECT_EQ(Unit(none, float()), 0);
  EXPECT_EQ(Unit(one, float()), 0x1p-24f);
  EXPECT_EQ(Unit(all, float()), 1 - 0x1p-24f);
  EXPECT_EQ(Unit(none, double()), 0);
  EXPECT_EQ(Unit(one, double()), 0x1p-32 * 0x100 + 0x1p-53);
  EXPECT_EQ(Unit(all, double()), 1 - 0x1p-53);
}

// Where low + width*u rounds to high, the result is the number before it.
TEST(Philox, UniformNumbersStayBelowTheUpperBound) {
  const Words all = {{0xffffffff, 0xffffffff, 0xffffffff, 0xffffffff}};
  float floats[4];
  UniformBetween<float>(0x1p24, 0x1p24 + 4)(all, floats);
  EXPECT_THAT(floats, ::testing::Each(0x1p24f + 2));
  double doubles[2];
  UniformBetween<double>(0x1p53, 0x1p53 + 4)(all, doubles);
  EXPECT_THAT(doubles, ::testing::Each(0x1p53 + 2));
}

// The noise of RandomCategorical begins with these numbers: none is 0, and the others are those
// from 0 on.
TEST(Philox, ATinyLowerBoundChangesZeroAlone) {
  const double least = std::numeric_limits<float>::min();
  const Words words = {{0, 0, 0x100, 0xffffffff}};
  float floats[4];
  UniformBetween<float>(least, 1)(words, floats);
  EXPECT_THAT(floats, ::testing::ElementsAre(std::numeric_limits<float>::min(), std::numeric_limits<float>::min(),
                                             0x1p-24f, 1 - 0x1p-24f));
  double doubles[2];
  UniformBetween<double>(least, 1)(words, doubles);
  EXPECT_THAT(doubles, ::testing::ElementsAre(least, Unit(&words.values[2], double())));
}

// Each number has words of its own: one for a float, two for a double. Two uniform numbers u and v
// make two normal ones, with radius sqrt(-2*log(1 - u)) and angle 2*pi*v.
template <typename T>
void CheckDistributions(double tolerance) {
  constexpr int kCount = kPerBlock<T>;
  const Words words = {{0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344}};
  double units[kCount];
  for (int i = 0; i < kCount; ++i) units[i] = static_cast<double>(Unit(&words.values[i * 4 / kCount], T()));
  T numbers[kCount + 2];
  numbers[kCount] = numbers[kCount + 1] = 77;
  UniformBetween<T>(-1, 4)(words, numbers);
  for (int i = 0; i < kCount; ++i) EXPECT_NEAR(numbers[i], -1 + 5 * units[i], tolerance) << i;
  Normal<T>{3, 2}(words, numbers);
  for (int i = 0; i < kCount; i += 2) {
    const double radius = std::sqrt(-2 * std::log(1 - units[i])), angle = 2 * M_PI * units[i + 1];
    EXPECT_NEAR(numbers[i], 3 + 2 * radius * std::cos(angle), tolerance) << i;
    EXPECT_NEAR(numbers[i + 1], 3 + 2 * radius * std::sin(angle), tolerance) << i + 1;
  }
  EXPECT_TRUE(numbers[kCount] == 77 && numbers[kCount + 1] == 77) << "there are too many numbers";
}

TEST(Philox, WordsBecomeUniformAndNormalNumbers) {
  CheckDistributions<float>(1e-6);
  CheckDistributions<double>(1e-14);
}

template <typename T>
void CheckAgainstTheStandardLibrary() {
  constexpr T kEpsilon = std::numeric_limits<T>::epsilon();
  for (double x : {0x1p-53, 1e-10, 0.001, 0.3, 0.7, 0.70711, 0.9, 1.0, 1.5}) {
    const T number = static_cast<T>(x);
    EXPECT_NEAR(LogOf(number), std::log(number), 2 * kEpsilon * std::max<T>(std::abs(std::log(number)), T(0.01))) << x;
  }
  for (int i = 0; i < 1000; ++i) {
    const T turns = static_cast<T>(i) / 1000;
    const long double angle = 2 * std::numbers::pi_v<long double> * turns;
    T cosine = 0, sine = 0;
    CosSinOfTurns(turns, cosine, sine);
    EXPECT_NEAR(cosine, static_cast<double>(std::cos(angle)), kEpsilon) << turns;
    EXPECT_NEAR(sine, static_cast<double>(std::sin(angle)), kEpsilon) << turns;
  }
}

TEST(Philox, LogarithmAndCircleAreThoseOfTheStandardLibrary) {
  CheckAgainstTheStandardLibrary<float>();
  CheckAgainstTheStandardLibrary<double>();
}

}  // namespace
}  // namespace gradweave::philox
