// The gradient of a row of softmax, in vectors.
#ifndef GRADWEAVE_RUNTIME_CPU_SIMD_SOFTMAX_GRADIENT_H_
#define GRADWEAVE_RUNTIME_CPU_SIMD_SOFTMAX_GRADIENT_H_

#include <cstdint>

namespace gradweave {

// With p = p * factor, replaces dp by scale * p * (dp - sum(p * dp)): the gradient of scale *
// softmax with respect to its logits, where dp is that of its results. p is the exponentials of the
// logits and the factor 1 over their sum. Both have n elements.
template <typename T>
using SoftmaxGradientRow = void (*)(T* p, T factor, T* dp, T scale, int64_t n);
template <typename T>
SoftmaxGradientRow<T> GetSoftmaxGradientRow();

}  // namespace gradweave

#endif  // GRADWEAVE_RUNTIME_CPU_SIMD_SOFTMAX_GRADIENT_H_
