// Loops over contiguous elements in the widest vectors that the processor has.
#ifndef GRADWEAVE_RUNTIME_CPU_SIMD_VECTOR_LOOPS_H_
#define GRADWEAVE_RUNTIME_CPU_SIMD_VECTOR_LOOPS_H_

#include <algorithm>
#include <cstdint>

#include "absl/strings/string_view.h"

namespace gradweave {

// y[i] = f(x[i]) for i in [0, n); y may be x. What f gives for an element does not depend on its place, so any split of
// a range gives the same bits.
template <typename T>
using UnaryLoop = void (*)(const T* x, T* y, int64_t n);

// y[i] = f(a[i], b[i]), where an operand that is not a vector is one number; y may be a or b.
template <typename T>
using BinaryLoop = void (*)(const T* a, bool a_is_vector, const T* b, bool b_is_vector, T* y, int64_t n);

// The loop of the op of that name for float or double; null where there is none.
template <typename T>
UnaryLoop<T> FindUnaryLoop(absl::string_view op);
template <typename T>
BinaryLoop<T> FindBinaryLoop(absl::string_view op);

// What softmax does to rows of n > 0 elements.
template <typename T>
struct RowLoops {
  T (*max)(const T* x, int64_t n);  // NaN where there is one.
  T(*exp_shifted)
  (const T* x, T shift, T* y,
   int64_t n);  // y[i] = e^(x[i] - shift); returns the sum. y may be x, or null for the sum alone.
  void (*scale)(const T* x, T factor, T* y, int64_t n);  // y[i] = x[i] * factor.
  T (*sum)(const T* x, int64_t n);
  void (*accumulate)(const T* x, T* y, int64_t n);              // y[i] += x[i].
  void (*multiply_add)(const T* x, T factor, T* y, int64_t n);  // y[i] += x[i] * factor.
};
template <typename T>
const RowLoops<T>& GetRowLoops();

// The sum of n elements; blocks bound the growth of rounding errors by the square root of n's.
template <typename T>
T RowSum(const RowLoops<T>& loops, const T* x, int64_t n) {
  constexpr int64_t kBlock = 4096;
  T sum = 0;
  for (int64_t i = 0; i < n; i += kBlock) sum += loops.sum(x + i, std::min(kBlock, n - i));
  return sum;
}

// y = softmax(x) of n elements; y may be x.
template <typename T>
void SoftmaxRow(const RowLoops<T>& loops, const T* x, T* y, int64_t n) {
  const T sum = loops.exp_shifted(x, loops.max(x, n), y, n);
  loops.scale(y, 1 / sum, y, n);
}

}  // namespace gradweave

#endif  // GRADWEAVE_RUNTIME_CPU_SIMD_VECTOR_LOOPS_H_
