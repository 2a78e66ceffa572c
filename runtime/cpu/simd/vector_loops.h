// Loops over contiguous elements in the processor's widest vectors.
#ifndef GRADWEAVE_RUNTIME_CPU_SIMD_VECTOR_LOOPS_H_
#define GRADWEAVE_RUNTIME_CPU_SIMD_VECTOR_LOOPS_H_

#include <algorithm>
#include <cmath>
#include <cstdint>

#include "absl/strings/string_view.h"
#include "gradweave/graph/dtype.h"
#include "gradweave/runtime/kernel/formulas.h"

namespace gradweave {

// An operand of a loop: as many elements as the result has, one after the other, or one element for
// all.
struct LoopOperand {
  const void* data = nullptr;
  bool is_vector = true;
};

// y[i] = f(the operands' elements i) for i in [0, n), with the op's numbers (NumbersOf). Truth
// values are bytes. y may be an operand that is a vector of elements of the same size. The result
// for an element does not depend on its place, so any split of a range gives the same bits.
using LoopFunction = void (*)(const LoopOperand* operands, void* y, int64_t n, const double* numbers);

struct ElementLoop {
  LoopFunction run = nullptr;  // Null where there is none.
  bool is_vector = false;      // Computes a vector of elements at a time, not one.
  explicit operator bool() const { return run != nullptr; }
};

// The loop of an elementwise op that computes in `dtype`, float32 or float64; all other operands
// and results are truth values. Every op with a formula in formulas.h has one, and so has Where.
// With dtype bool, the loop of an op of truth values alone.
ElementLoop FindElementLoop(absl::string_view op, DType dtype);

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

// Returns log(sum(e^(x - largest))) of n > 0 elements, of which `largest` is the maximum, with a
// small relative error. Where one element dominates, the sum is 1 + s, and 1 would absorb a small
// s: the result is then log1p(s).
template <typename T>
T LogSumOfShifted(const RowLoops<T>& loops, const T* x, T largest, int64_t n) {
  const T sum = loops.exp_shifted(x, largest, nullptr, n);
  if (!(sum < T(formulas::kDominatedSum))) return std::log(sum);
  const int64_t position = std::find(x, x + n, largest) - x, after = n - position - 1;
  T rest = 0;
  if (position > 0) rest += loops.exp_shifted(x, largest, nullptr, position);
  if (after > 0) rest += loops.exp_shifted(x + position + 1, largest, nullptr, after);
  return std::log1p(rest);
}

// y = softmax(x) for n > 0 elements; y may alias x.
template <typename T>
void SoftmaxRow(const RowLoops<T>& loops, const T* x, T* y, int64_t n) {
  const T sum = loops.exp_shifted(x, loops.max(x, n), y, n);
  loops.scale(y, 1 / sum, y, n);
}

}  // namespace gradweave

#endif  // GRADWEAVE_RUNTIME_CPU_SIMD_VECTOR_LOOPS_H_
