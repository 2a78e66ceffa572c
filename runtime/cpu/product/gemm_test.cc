// Products with OpenBLAS whose sizes its int does not have, for which the tests pass a smaller
// limit; and its threads.
#include "gradweave/runtime/cpu/product/gemm.h"

#include <cblas.h>
#include <sys/wait.h>
#include <unistd.h>

#include <vector>

#include "gtest/gtest.h"

namespace gradweave {
namespace {

constexpr float kOutside = -1000;  // Between rows and behind the last one.

template <typename T>
struct Matrix {
  int64_t rows, columns, step;
  std::vector<T> numbers;

  Matrix(int64_t rows, int64_t columns, int64_t gap, int64_t seed)
      : rows(rows), columns(columns), step(columns + gap), numbers(rows * step, T(kOutside)) {
    for (int64_t i = 0; i < rows; ++i) {
      for (int64_t j = 0; j < columns; ++j) at(i, j) = static_cast<T>((i * 7 + j * 3 + seed) % 11 - 5);
    }
  }
  T& at(int64_t i, int64_t j) { return numbers[i * step + j]; }
};

// Sums of small integers are exact in any order.
template <typename T>
void ExpectProductInBlocks(bool transpose_a, bool transpose_b, int64_t m, int64_t n, int64_t k, int64_t gap, T beta,
                           int64_t most) {
  SCOPED_TRACE(testing::Message() << transpose_a << transpose_b << " " << m << " x " << k << " x " << n << ", gap "
                                  << gap << ", beta " << beta << ", most " << most);
  Matrix<T> a = transpose_a ? Matrix<T>(k, m, gap, 1) : Matrix<T>(m, k, gap, 1);
  Matrix<T> b = transpose_b ? Matrix<T>(n, k, gap, 2) : Matrix<T>(k, n, gap, 2);
  Matrix<T> c(m, n, gap, 3), expected = c;
  for (int64_t i = 0; i < m; ++i) {
    for (int64_t j = 0; j < n; ++j) {
      T sum = beta * c.at(i, j);
      for (int64_t t = 0; t < k; ++t)
        sum += T(2) * (transpose_a ? a.at(t, i) : a.at(i, t)) * (transpose_b ? b.at(j, t) : b.at(t, j));
      expected.at(i, j) = sum;
    }
  }
  Gemm(OneBlasThread(m, n, k), transpose_a, transpose_b, m, n, k, T(2), a.numbers.data(), a.step, b.numbers.data(),
       b.step, beta, c.numbers.data(), c.step, most);
  EXPECT_EQ(c.numbers, expected.numbers);
}

TEST(Gemm, TakesSizesAndDistancesBeyondTheLimitInBlocks) {
  const struct {
    int64_t m, n, k, gap;
  } cases[] = {{1, 40, 5, 0}, {1, 100, 70, 2}, {5, 1, 64, 0},   {9, 7, 8, 0}, {3, 4, 5, 60},
               {50, 3, 2, 0}, {2, 3, 50, 1},   {33, 35, 34, 0}, {4, 4, 0, 0}};
  for (const auto& c : cases) {
    for (int64_t most : {1, 2, 3, 7, 32, 33, 64, 1000}) {
      for (int layout = 0; layout < 4; ++layout) {
        for (int beta : {0, 1, 3}) {
          ExpectProductInBlocks<float>(layout & 1, layout & 2, c.m, c.n, c.k, c.gap, static_cast<float>(beta), most);
          ExpectProductInBlocks<double>(layout & 1, layout & 2, c.m, c.n, c.k, c.gap, beta, most);
        }
      }
    }
  }
}

#if !defined(__SANITIZE_THREAD__)  // ThreadSanitizer stops children of programs with threads.

// The child has neither the thread that holds the object of the parent nor the parent's lock.
TEST(OneBlasThread, AChildThatIsMadeMeanwhileSetsTheProgramsNumberAgain) {
  const int at_first = openblas_get_num_threads();
  openblas_set_num_threads(2);
  int status = -1;
  {
    const OneBlasThread of_parent(64, 64, 64);
    EXPECT_EQ(openblas_get_num_threads(), 1);
    const pid_t child = fork();
    if (child == 0) {
      alarm(20);
      for (int i = 0; i < 2; ++i) {
        {
          const OneBlasThread own(64, 64, 64);
          if (openblas_get_num_threads() != 1) _exit(1);
        }
        if (openblas_get_num_threads() != 2) _exit(2);
      }
      _exit(0);
    }
    EXPECT_EQ(waitpid(child, &status, 0), child);
    EXPECT_EQ(openblas_get_num_threads(), 1);
  }
  EXPECT_TRUE(WIFEXITED(status) && WEXITSTATUS(status) == 0) << status;
  EXPECT_EQ(openblas_get_num_threads(), 2);
  openblas_set_num_threads(at_first);
}

#endif

}  // namespace
}  // namespace gradweave
