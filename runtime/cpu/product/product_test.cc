// Matrix products with the engine's own loops: every layout, and sizes around each limit of the
// algorithm.
#include "gradweave/runtime/cpu/product/product.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <memory>
#include <new>
#include <random>
#include <vector>

#include "gtest/gtest.h"

namespace gradweave {
namespace {

struct Case {
  int64_t rows, columns, terms;
};

// A block has up to 320 terms, and 65,536 floats are packed at a time. The largest register blocks
// have 12 rows and 32 columns.
constexpr Case kCases[] = {{2, 4, 1},       {2, 8, 3},      {6, 16, 8},     {13, 33, 7},   {12, 32, 320},
                           {25, 65, 321},   {64, 64, 32},   {103, 10, 784}, {1, 48, 129},  {24, 31, 1024},
                           {110, 200, 700}, {12, 300, 641}, {7, 520, 322},  {5, 64, 1024}, {30, 128, 2048}};

std::vector<float> RandomNumbers(int64_t count, std::mt19937& generator) {
  std::uniform_real_distribution<float> uniform(-1, 1);
  std::vector<float> numbers(count);
  for (float& number : numbers) number = uniform(generator);
  return numbers;
}

// Computes y with one product, divided into `wanted` parts. Rows of y are y_step apart.
std::vector<float> Multiply(const Product& product, const std::vector<float>& a, const std::vector<float>& b,
                            int64_t wanted, bool add, std::vector<float> y, int64_t y_step) {
  const Product::Parts parts = product.Split(wanted, 2);
  const size_t bytes = product.workspace_bytes(parts, false);
  const std::align_val_t alignment{64};
  void* memory = ::operator new(bytes, alignment);
  auto* workspace = new (memory) Product::Workspace();
  for (int64_t part = 0; part < parts.number(); ++part)
    product.Run(a.data(), b.data(), parts, part, add, y.data(), y_step, *workspace);
  ::operator delete(memory, alignment);
  return y;
}

TEST(Product, IsTheSumOfProductsForEveryLayoutAndSize) {
  std::mt19937 generator(1);
  for (const Case& c : kCases) {
    for (int layout = 0; layout < 4; ++layout) {
      SCOPED_TRACE(testing::Message() << c.rows << " x " << c.terms << " x " << c.columns << ", layout " << layout);
      const MatrixLayout a_layout = layout & 1 ? MatrixLayout{1, c.rows} : MatrixLayout{c.terms, 1};
      const MatrixLayout b_layout = layout & 2 ? MatrixLayout{1, c.terms} : MatrixLayout{c.columns, 1};
      const std::vector<float> a = RandomNumbers(c.rows * c.terms, generator);
      const std::vector<float> b = RandomNumbers(c.terms * c.columns, generator);
      const int64_t y_step = c.columns + 3;
      const std::vector<float> before = RandomNumbers(c.rows * y_step, generator);
      const Product product(c.rows, c.columns, c.terms, a_layout, b_layout);
      const std::vector<float> y = Multiply(product, a, b, 1, false, before, y_step);
      const std::vector<float> added = Multiply(product, a, b, 1, true, before, y_step);
      for (int64_t i = 0; i < c.rows; ++i) {
        for (int64_t j = 0; j < y_step; ++j) {
          const int64_t at = i * y_step + j;
          if (j >= c.columns) {
            ASSERT_EQ(y[at], before[at]) << "beside the result, row " << i;
            continue;
          }
          double sum = 0, size = 0;
          for (int64_t t = 0; t < c.terms; ++t) {
            const double term = static_cast<double>(a[i * a_layout.row_step + t * a_layout.column_step]) *
                                b[t * b_layout.row_step + j * b_layout.column_step];
            sum += term;
            size += std::abs(term);
          }
          // Each of `terms` sums has an error of at most half a unit in the last place.
          const double bound = 6e-8 * (c.terms + 2) * (size + std::abs(before[at]));
          ASSERT_NEAR(y[at], sum, bound) << "row " << i << ", column " << j;
          ASSERT_NEAR(added[at], before[at] + sum, bound) << "row " << i << ", column " << j;
        }
      }
    }
  }
}

TEST(Product, IsTheSameBitsInAnyNumberOfParts) {
  std::mt19937 generator(2);
  for (const Case& c : kCases) {
    const std::vector<float> a = RandomNumbers(c.rows * c.terms, generator);
    const std::vector<float> b = RandomNumbers(c.terms * c.columns, generator);
    const Product product(c.rows, c.columns, c.terms, {1, c.rows}, {c.columns, 1});
    const std::vector<float> zeros(c.rows * c.columns);
    const std::vector<float> whole = Multiply(product, a, b, 1, false, zeros, c.columns);
    for (int64_t wanted : {2, 3, 8, 64}) {
      const std::vector<float> y = Multiply(product, a, b, wanted, false, zeros, c.columns);
      EXPECT_EQ(std::memcmp(y.data(), whole.data(), y.size() * sizeof(float)), 0)
          << c.rows << " x " << c.terms << " x " << c.columns << " in " << wanted << " parts";
    }
  }
}

// Every element occurs exactly once and has the same bits as without blocks.
TEST(Product, IsTheSameBitsInBlocks) {
  std::mt19937 generator(3);
  int made = 0;
  for (const Case& c : kCases) {
    for (int64_t wanted : {1, 3}) {
      const std::vector<float> a = RandomNumbers(c.rows * c.terms, generator);
      const std::vector<float> b = RandomNumbers(c.terms * c.columns, generator);
      const Product product(c.rows, c.columns, c.terms, {c.terms, 1}, {1, c.terms});
      if (!product.MakesBlocks()) continue;
      ++made;
      const Product::Parts parts = product.Split(wanted, 2);
      const std::align_val_t alignment{64};
      void* memory = ::operator new(product.workspace_bytes(parts, true), alignment);
      auto* workspace = new (memory) Product::Workspace();
      std::vector<float> y(c.rows * c.columns);
      std::vector<int> times(y.size(), 0);
      for (int64_t part = 0; part < parts.number(); ++part) {
        product.RunInBlocks(a.data(), b.data(), parts, part, *workspace,
                            [&](const Product::Block& block, float* from, int64_t step) {
                              EXPECT_LE(block.columns, product.block_columns(parts));
                              for (int64_t i = 0; i < block.rows; ++i) {
                                for (int64_t j = 0; j < block.columns; ++j) {
                                  const int64_t at = (block.row + i) * c.columns + block.column + j;
                                  y[at] = from[i * step + j];
                                  ++times[at];
                                }
                              }
                            });
      }
      ::operator delete(memory, alignment);
      const std::vector<float> whole = Multiply(product, a, b, 1, false, std::vector<float>(y.size()), c.columns);
      EXPECT_EQ(std::memcmp(y.data(), whole.data(), y.size() * sizeof(float)), 0)
          << c.rows << " x " << c.terms << " x " << c.columns << " in " << wanted << " parts";
      EXPECT_EQ(std::count(times.begin(), times.end(), 1), static_cast<int64_t>(times.size()));
    }
  }
  EXPECT_GE(made, 20);
}

}  // namespace
}  // namespace gradweave
