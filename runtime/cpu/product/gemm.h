// Matrix products by OpenBLAS, always on the calling thread: the engine's pool owns the threads.
#ifndef GRADWEAVE_RUNTIME_CPU_PRODUCT_GEMM_H_
#define GRADWEAVE_RUNTIME_CPU_PRODUCT_GEMM_H_

#include <cstdint>

namespace gradweave {

// c [m, n] = alpha * op(a) [m, k] * op(b) [k, n] + beta * c, row-major; lda, ldb and ldc are the distances between rows
// in elements. Without beta, c need not be initialised.
void Gemm(bool transpose_a, bool transpose_b, int64_t m, int64_t n, int64_t k, float alpha, const float* a, int64_t lda,
          const float* b, int64_t ldb, float beta, float* c, int64_t ldc);
void Gemm(bool transpose_a, bool transpose_b, int64_t m, int64_t n, int64_t k, double alpha, const double* a,
          int64_t lda, const double* b, int64_t ldb, double beta, double* c, int64_t ldc);

}  // namespace gradweave

#endif  // GRADWEAVE_RUNTIME_CPU_PRODUCT_GEMM_H_
