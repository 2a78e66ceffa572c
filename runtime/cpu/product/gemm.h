// Matrix products with OpenBLAS. They run on the calling thread, because the engine's pool owns all
// threads.
#ifndef GRADWEAVE_RUNTIME_CPU_PRODUCT_GEMM_H_
#define GRADWEAVE_RUNTIME_CPU_PRODUCT_GEMM_H_

#include <cstdint>
#include <limits>

namespace gradweave {

// While one exists, OpenBLAS uses no threads of its own. OpenBLAS has one number of threads for the
// whole process, so the program's own calls of OpenBLAS run on one thread meanwhile too; the last
// object that is destroyed sets the program's number again. Any thread may have one. A kernel has
// one for its whole run, outside of its parallel loop.
class OneBlasThread {
 public:
  // For products of op(a) [m, k] and op(b) [k, n].
  OneBlasThread(int64_t m, int64_t n, int64_t k);
  ~OneBlasThread();
  OneBlasThread(const OneBlasThread&) = delete;
  OneBlasThread& operator=(const OneBlasThread&) = delete;

 private:
  const bool may_use_threads_;  // Else the products are too small for OpenBLAS's threads.
};

// Computes c [m, n] = alpha * op(a) [m, k] * op(b) [k, n] + beta * c, row-major, where op
// transposes if asked to. lda, ldb and ldc are the distances between stored rows in elements. If
// beta is 0, c may be uninitialised. OpenBLAS counts with int, so products with a size or a
// distance beyond `most` are computed in blocks; tests pass a small one.
void Gemm(const OneBlasThread&, bool transpose_a, bool transpose_b, int64_t m, int64_t n, int64_t k, float alpha,
          const float* a, int64_t lda, const float* b, int64_t ldb, float beta, float* c, int64_t ldc,
          int64_t most = std::numeric_limits<int>::max());
void Gemm(const OneBlasThread&, bool transpose_a, bool transpose_b, int64_t m, int64_t n, int64_t k, double alpha,
          const double* a, int64_t lda, const double* b, int64_t ldb, double beta, double* c, int64_t ldc,
          int64_t most = std::numeric_limits<int>::max());

}  // namespace gradweave

#endif  // GRADWEAVE_RUNTIME_CPU_PRODUCT_GEMM_H_
