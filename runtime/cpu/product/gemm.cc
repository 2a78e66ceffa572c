#include "gradweave/runtime/cpu/product/gemm.h"

#include <cblas.h>

#include <mutex>

namespace gradweave {
namespace {

// Disables OpenBLAS's own threads, which would run inside each of the pool's.
void UseOneThread() {
  static std::once_flag once;
  std::call_once(once, [] { openblas_set_num_threads(1); });
}

// Minimum size of a one-row product for which OpenBLAS's vector kernels pay.
constexpr int64_t kLeastVector = 32;

CBLAS_TRANSPOSE Transposition(bool transpose) { return transpose ? CblasTrans : CblasNoTrans; }

}  // namespace

void Gemm(bool transpose_a, bool transpose_b, int64_t m, int64_t n, int64_t k, float alpha, const float* a, int64_t lda,
          const float* b, int64_t ldb, float beta, float* c, int64_t ldc) {
  UseOneThread();
  if (m == 1 && !transpose_a && n >= kLeastVector) {
    cblas_sgemv(CblasRowMajor, Transposition(!transpose_b), transpose_b ? n : k, transpose_b ? k : n, alpha, b, ldb, a,
                1, beta, c, 1);
    return;
  }
  cblas_sgemm(CblasRowMajor, Transposition(transpose_a), Transposition(transpose_b), m, n, k, alpha, a, lda, b, ldb,
              beta, c, ldc);
}

void Gemm(bool transpose_a, bool transpose_b, int64_t m, int64_t n, int64_t k, double alpha, const double* a,
          int64_t lda, const double* b, int64_t ldb, double beta, double* c, int64_t ldc) {
  UseOneThread();
  cblas_dgemm(CblasRowMajor, Transposition(transpose_a), Transposition(transpose_b), m, n, k, alpha, a, lda, b, ldb,
              beta, c, ldc);
}

}  // namespace gradweave
