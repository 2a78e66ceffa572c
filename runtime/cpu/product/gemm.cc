#include "gradweave/runtime/cpu/product/gemm.h"

#include <cblas.h>

#include <algorithm>
#include <atomic>
#include <mutex>

#include "gradweave/runtime/kernel/forks.h"

namespace gradweave {
namespace {

// How many objects of this process want OpenBLAS to use one thread, and the number of threads
// before.
struct Users {
  const uint64_t forks = ForksSoFar();
  std::mutex mutex;
  int objects = 0, threads_of_program = 1;
  bool is_known = false;  // The program's number is known, though OpenBLAS has one thread.
};

Users& UsersOfProcess() {
  static std::atomic<Users*> users{new Users()};
  Users* current = users.load(std::memory_order_acquire);
  if (current->forks == ForksSoFar()) return *current;
  // This is a child. A thread that it lacks may hold the mutex, and have left OpenBLAS with one
  // thread.
  auto* own = new Users();
  own->threads_of_program = current->threads_of_program;
  own->is_known = current->objects > 0;
  if (users.compare_exchange_strong(current, own, std::memory_order_acq_rel)) return *own;
  delete own;  // Another thread of the child was faster.
  return *current;
}

// OpenBLAS never uses threads for so few multiplications: its least threshold is 2304 *
// GEMM_MULTITHREAD_THRESHOLD, for a matrix and a vector. The number of threads would take a tenth
// of the time of such a product.
constexpr double kMostWithoutThreads = 2048;

// Minimum size of a one-row product for which OpenBLAS's vector kernels pay.
constexpr int64_t kLeastVector = 32;

CBLAS_TRANSPOSE Transposition(bool transpose) { return transpose ? CblasTrans : CblasNoTrans; }

// Sizes and distances that OpenBLAS's int has.
struct IntSizes {
  int m, n, k, lda, ldb, ldc;
};

void CallBlas(bool transpose_a, bool transpose_b, const IntSizes& s, float alpha, const float* a, const float* b,
              float beta, float* c) {
  if (s.m == 1 && !transpose_a && s.n >= kLeastVector) {
    cblas_sgemv(CblasRowMajor, Transposition(!transpose_b), transpose_b ? s.n : s.k, transpose_b ? s.k : s.n, alpha, b,
                s.ldb, a, 1, beta, c, 1);
    return;
  }
  cblas_sgemm(CblasRowMajor, Transposition(transpose_a), Transposition(transpose_b), s.m, s.n, s.k, alpha, a, s.lda, b,
              s.ldb, beta, c, s.ldc);
}

void CallBlas(bool transpose_a, bool transpose_b, const IntSizes& s, double alpha, const double* a, const double* b,
              double beta, double* c) {
  cblas_dgemm(CblasRowMajor, Transposition(transpose_a), Transposition(transpose_b), s.m, s.n, s.k, alpha, a, s.lda, b,
              s.ldb, beta, c, s.ldc);
}

// Where rows are further apart than OpenBLAS's int can say, they are multiplied one by one: then no
// distance counts.
template <typename T>
void MultiplyInBlocks(bool transpose_a, bool transpose_b, int64_t m, int64_t n, int64_t k, T alpha, const T* a,
                      int64_t lda, const T* b, int64_t ldb, T beta, T* c, int64_t ldc, int64_t most) {
  int64_t rows = std::min(m, most), columns = std::min(n, most), terms = std::min(k, most);
  if (lda > most) (transpose_a ? terms : rows) = 1;
  if (ldb > most) (transpose_b ? columns : terms) = 1;
  if (ldc > most) rows = 1;
  for (int64_t row = 0; row < m; row += rows) {
    for (int64_t column = 0; column < n; column += columns) {
      int64_t term = 0;
      do {
        IntSizes s;
        s.m = static_cast<int>(std::min(rows, m - row));
        s.n = static_cast<int>(std::min(columns, n - column));
        s.k = static_cast<int>(std::min(terms, k - term));
        s.lda = lda > most ? (transpose_a ? s.m : s.k) : static_cast<int>(lda);
        s.ldb = ldb > most ? (transpose_b ? s.k : s.n) : static_cast<int>(ldb);
        s.ldc = ldc > most ? s.n : static_cast<int>(ldc);
        CallBlas(transpose_a, transpose_b, s, alpha, a + (transpose_a ? term * lda + row : row * lda + term),
                 b + (transpose_b ? column * ldb + term : term * ldb + column), term == 0 ? beta : T(1),
                 c + row * ldc + column);
        term += terms;
      } while (term < k);
    }
  }
}

}  // namespace

OneBlasThread::OneBlasThread(int64_t m, int64_t n, int64_t k)
    : may_use_threads_(static_cast<double>(m) * static_cast<double>(n) * static_cast<double>(k) > kMostWithoutThreads) {
  if (!may_use_threads_) return;
  Users& users = UsersOfProcess();
  std::lock_guard lock(users.mutex);
  const int threads = openblas_get_num_threads();
  // The program may also have changed the number since the first object was made.
  if (threads != 1 || (users.objects == 0 && !users.is_known)) users.threads_of_program = threads;
  users.is_known = false;
  ++users.objects;
  if (threads != 1) openblas_set_num_threads(1);
}

OneBlasThread::~OneBlasThread() {
  if (!may_use_threads_) return;
  Users& users = UsersOfProcess();
  std::lock_guard lock(users.mutex);
  if (--users.objects > 0 || users.threads_of_program == 1 || openblas_get_num_threads() != 1) return;
  openblas_set_num_threads(users.threads_of_program);
}

void Gemm(const OneBlasThread&, bool transpose_a, bool transpose_b, int64_t m, int64_t n, int64_t k, float alpha,
          const float* a, int64_t lda, const float* b, int64_t ldb, float beta, float* c, int64_t ldc, int64_t most) {
  MultiplyInBlocks(transpose_a, transpose_b, m, n, k, alpha, a, lda, b, ldb, beta, c, ldc, most);
}

void Gemm(const OneBlasThread&, bool transpose_a, bool transpose_b, int64_t m, int64_t n, int64_t k, double alpha,
          const double* a, int64_t lda, const double* b, int64_t ldb, double beta, double* c, int64_t ldc,
          int64_t most) {
  MultiplyInBlocks(transpose_a, transpose_b, m, n, k, alpha, a, lda, b, ldb, beta, c, ldc, most);
}

}  // namespace gradweave
