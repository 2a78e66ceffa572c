// Products of bfloat16 matrices: the documented order of the sums, by every kernel, for every
// layout and for sizes around those of tiles.
#include "gradweave/runtime/cpu/product/bfloat16_product.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstring>
#include <limits>
#include <random>
#include <utility>
#include <vector>

#include "gradweave/graph/half.h"
#include "gradweave/runtime/kernel/float_state.h"
#include "gtest/gtest.h"

namespace gradweave {
namespace {

float Rounded(float x) { return static_cast<float>(BFloat16(x)); }

std::vector<float> RandomNumbers(int64_t count, std::mt19937& generator, int exponents) {
  std::normal_distribution<float> normal;
  std::uniform_int_distribution<int> exponent(-exponents, exponents);
  std::vector<float> numbers(count);
  for (float& number : numbers) number = std::ldexp(normal(generator), exponent(generator));
  return numbers;
}

// The matrices of a product, and its operands as they are stored.
struct Matrices {
  int64_t rows, columns, terms;
  bool transpose_a, transpose_b;
  std::vector<float> a, b;

  float left(int64_t row, int64_t term) const { return a[transpose_a ? term * rows + row : row * terms + term]; }
  float right(int64_t term, int64_t column) const {
    return b[transpose_b ? column * terms + term : term * columns + column];
  }
  MatMulSizes sizes() const { return MatMulSizes(rows, columns, terms, transpose_a, transpose_b); }
};

// The sums in the documented order.
std::vector<float> Expected(const Matrices& m) {
  std::vector<float> y;
  for (int64_t row = 0; row < m.rows; ++row) {
    for (int64_t column = 0; column < m.columns; ++column) {
      float sum = 0;
      for (int64_t first = 0; first < m.terms; first += kTileTerms) {
        float parts[2] = {0, 0};
        for (int64_t term = first; term < std::min(first + kTileTerms, m.terms); ++term)
          parts[term % 2] = std::fma(Rounded(m.left(row, term)), Rounded(m.right(term, column)), parts[term % 2]);
        sum += parts[0] + parts[1];
      }
      y.push_back(sum);
    }
  }
  return y;
}

// True if both have the same bits or are NaN.
bool Same(const std::vector<float>& x, const std::vector<float>& y) {
  if (x.size() != y.size()) return false;
  for (size_t i = 0; i < x.size(); ++i) {
    if (std::memcmp(&x[i], &y[i], sizeof(float)) != 0 && !(std::isnan(x[i]) && std::isnan(y[i]))) return false;
  }
  return true;
}

std::vector<float> RunKernel(const Kernel& kernel, const Matrices& m, int threads,
                             std::vector<std::byte>* kept = nullptr, bool is_current = false) {
  std::vector<float> y(m.rows * m.columns, std::numeric_limits<float>::quiet_NaN());
  const void* const operands[] = {m.a.data(), m.b.data()};
  void* const outputs[] = {y.data()};
  ThreadPool pool(threads);
  std::vector<std::byte> scratch(kernel.scratch_bytes + 64);
  KernelArguments arguments{.operands = operands, .outputs = outputs, .scratch = scratch.data(), .pool = &pool};
  if (kept != nullptr) {
    arguments.kept = kept->data();
    arguments.kept_is_current = is_current;
  }
  EXPECT_TRUE(kernel.run(arguments).ok());
  return y;
}

struct Case {
  int64_t rows, columns, terms;
};
constexpr Case kCases[] = {{1, 1, 1},   {16, 16, 32}, {17, 33, 31}, {32, 32, 64},  {33, 16, 65},  {3, 70, 100},
                           {64, 1, 33}, {1, 64, 300}, {5, 7, 0},    {48, 80, 129}, {600, 40, 90}, {40, 600, 90}};

TEST(BFloat16Product, SumsInTheDocumentedOrder) {
  std::mt19937 generator(1);
  for (const Case& c : kCases) {
    for (int layout = 0; layout < 4; ++layout) {
      SCOPED_TRACE(testing::Message() << c.rows << " x " << c.terms << " x " << c.columns << ", layout " << layout);
      Matrices m{c.rows,
                 c.columns,
                 c.terms,
                 (layout & 1) != 0,
                 (layout & 2) != 0,
                 RandomNumbers(c.rows * c.terms, generator, 3),
                 RandomNumbers(c.terms * c.columns, generator, 3)};
      const std::vector<float> expected = Expected(m);
      for (int threads : {1, 3}) {
        const Kernel kernel = BFloat16ProductKernel(m.sizes(), threads);
        EXPECT_TRUE(Same(RunKernel(kernel, m, threads), expected));
        std::vector<std::byte> kept(kernel.kept_bytes);
        EXPECT_TRUE(Same(RunKernel(kernel, m, threads, &kept), expected));
        // Packed weights are not read again.
        Matrices other = m;
        other.b.assign(other.b.size(), 7.0f);
        EXPECT_TRUE(Same(RunKernel(kernel, other, threads, &kept, true), expected));
      }
    }
  }
}

// Calls `multiply` with packed operands. A second call adds the same product.
std::vector<float> Multiply(void (*multiply)(const BFloat16Block&), const std::vector<uint16_t>& a,
                            const std::vector<uint16_t>& b, int64_t term_tiles, int64_t rows, int64_t columns) {
  std::vector<float> y(rows * columns);
  for (bool add : {false, true})
    multiply({a.data(), term_tiles * kTileElements, b.data(), term_tiles, rows, columns, add, y.data(), columns});
  return y;
}

TEST(BFloat16Kernels, AmxGivesTheBitsOfVectors) {
  if (AmxMultiply() == nullptr) GTEST_SKIP() << "this processor or system has no AMX, so its kernel did not run";
  std::mt19937 generator(2);
  // Numbers of all exponents: sums overflow, and small numbers count as 0.
  for (int exponents : {0, 20, 60, 120}) {
    for (const auto& [rows, columns] : {std::pair<int64_t, int64_t>{32, 32}, {16, 48}, {31, 17}, {1, 1}, {70, 90}}) {
      SCOPED_TRACE(testing::Message() << rows << " x " << columns << ", exponents to " << exponents);
      constexpr int64_t kTermTiles = 5;
      const auto bits = [&](int64_t tiles) {
        std::vector<uint16_t> made;
        for (float x : RandomNumbers(tiles * kTermTiles * kTileElements, generator, exponents))
          made.push_back(std::bit_cast<uint16_t>(BFloat16(x)));
        return made;
      };
      const std::vector<uint16_t> a = bits((rows + 15) / 16), b = bits((columns + 15) / 16);
      std::vector<float> vectors;
      {
        const KernelFloatState flush;
        vectors = Multiply(GetVectorBFloat16Kernels().multiply, a, b, kTermTiles, rows, columns);
      }
      EXPECT_TRUE(Same(Multiply(AmxMultiply(), a, b, kTermTiles, rows, columns), vectors));
    }
  }
}

TEST(BFloat16Kernels, PackingRoundsLikeTheDtype) {
  std::mt19937 generator(3);
  std::vector<float> x = RandomNumbers(kTileElements, generator, 100);
  const float special[] = {0.0f, -0.0f, INFINITY, -INFINITY, NAN, 1.00390625f, 1.01171875f, 3.4e38f, 1e-40f};
  std::copy(std::begin(special), std::end(special), x.begin());
  std::vector<uint16_t> left(kTileElements), right(kTileElements);
  GetBFloat16Kernels().pack_left(x.data(), kTileTerms, left.data());
  GetBFloat16Kernels().pack_right(x.data(), kTileColumns, right.data());
  const auto same = [](uint16_t bits, float number) {
    uint32_t wide = static_cast<uint32_t>(bits) << 16;
    float back;
    std::memcpy(&back, &wide, sizeof back);
    return std::isnan(number) ? std::isnan(back) : bits == std::bit_cast<uint16_t>(BFloat16(number));
  };
  for (int64_t i = 0; i < kTileElements; ++i) {
    EXPECT_TRUE(same(left[i], x[i])) << x[i];
    const int64_t term = i / kTileColumns, column = i % kTileColumns;
    EXPECT_TRUE(same(right[(term / 2 * kTileColumns + column) * 2 + term % 2], x[i])) << x[i];
  }
}

}  // namespace
}  // namespace gradweave
