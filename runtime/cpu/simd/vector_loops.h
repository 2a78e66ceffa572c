// Loops over contiguous elements in the processor's widest vectors.
#ifndef GRADWEAVE_RUNTIME_CPU_SIMD_VECTOR_LOOPS_H_
#define GRADWEAVE_RUNTIME_CPU_SIMD_VECTOR_LOOPS_H_

#include <algorithm>
#include <cstdint>

#include "absl/strings/string_view.h"

namespace gradweave {

// y[i] = f(x[i]) for i in [0, n); y may alias x. The result for an element does not depend on its
// position, so every split of a range gives the same bits.
template <typename T>
using UnaryLoop = void (*)(const T* x, T* y, int64_t n);

// y[i] = f(a[i], b[i]) for i in [0, n). An operand that is not a vector is a single element; y may
// alias a or b.
template <typename T>
using BinaryLoop = void (*)(const T* a, bool a_is_vector, const T* b, bool b_is_vector, T* y, int64_t n);

// Returns the loop of the op of that name for float or double, or null if the op has none.
template <typename T>
UnaryLoop<T> FindUnaryLoop(absl::string_view op);
template <typename T>
BinaryLoop<T> FindBinaryLoop(absl::string_view op);

// Loops of softmax and reductions over rows of n elements. `max` and `exp_shifted` require n > 0.
template <typename T>
struct RowLoops {
  T (*max)(const T* x, int64_t n);  // NaN if any element is.
  // y[i] = e^(x[i] - shift); returns the sum of y. y may alias x, or be null if only the sum is
  // wanted.
  T (*exp_shifted)(const T* x, T shift, T* y, int64_t n);
  void (*scale)(const T* x, T factor, T* y, int64_t n);  // y[i] = x[i] * factor.
  T (*sum)(const T* x, int64_t n);
  void (*accumulate)(const T* x, T* y, int64_t n);              // y[i] += x[i].
  void (*multiply_add)(const T* x, T factor, T* y, int64_t n);  // y[i] += x[i] * factor.
};
template <typename T>
const RowLoops<T>& GetRowLoops();

// Returns the sum of n elements. Summing in blocks bounds the growth of rounding errors.
template <typename T>
T RowSum(const RowLoops<T>& loops, const T* x, int64_t n) {
  constexpr int64_t kBlock = 4096;
  T sum = 0;
  for (int64_t i = 0; i < n; i += kBlock) sum += loops.sum(x + i, std::min(kBlock, n - i));
  return sum;
}

// y = softmax(x) for n > 0 elements; y may alias x.
template <typename T>
void SoftmaxRow(const RowLoops<T>& loops, const T* x, T* y, int64_t n) {
  const T sum = loops.exp_shifted(x, loops.max(x, n), y, n);
  loops.scale(y, 1 / sum, y, n);
}

}  // namespace gradweave

#endif  // GRADWEAVE_RUNTIME_CPU_SIMD_VECTOR_LOOPS_H_
