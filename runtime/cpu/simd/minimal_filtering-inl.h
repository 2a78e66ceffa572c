// Transforms of minimal filtering in one dimension on vectors in registers (Winograd, "Arithmetic
// Complexity of Computations", 1980, section IV). Included once for each target, behind
// hwy/foreach_target.h.
//
// A template with P pairs has 2*P + 2 points: 0, infinity and `pairs` pairs of opposite numbers, in
// the order 0, p0, -p0, p1, -p1, ..., infinity. Arrays are indexed by constants alone, so that they
// stay in registers.
#if defined(GRADWEAVE_RUNTIME_CPU_SIMD_MINIMAL_FILTERING_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef GRADWEAVE_RUNTIME_CPU_SIMD_MINIMAL_FILTERING_INL_H_
#undef GRADWEAVE_RUNTIME_CPU_SIMD_MINIMAL_FILTERING_INL_H_
#else
#define GRADWEAVE_RUNTIME_CPU_SIMD_MINIMAL_FILTERING_INL_H_
#endif

#include <array>
#include <cstddef>
#include <type_traits>
#include <utility>

#include "gradweave/runtime/cpu/simd/filtering_points.h"
#include "gradweave/runtime/cpu/simd/vector_registers-inl.h"
#include "hwy/highway.h"

HWY_BEFORE_NAMESPACE();
namespace gradweave {
namespace HWY_NAMESPACE {

// Returns the coefficients, lowest first, of the product of x - p*p over all pairs except
// `left_out`.
template <int P>
constexpr std::array<float, P + 1> SquaresPolynomial(int left_out) {
  double product[P + 2] = {1};
  int degree = 0;
  for (int i = 0; i < P; ++i) {
    if (i == left_out) continue;
    const double root = FilteringPoint(P, i) * FilteringPoint(P, i);
    for (int k = ++degree; k > 0; --k) product[k] = product[k - 1] - root * product[k];
    product[0] *= -root;
  }
  std::array<float, P + 1> result = {};
  for (int k = 0; k <= P; ++k) result[k] = static_cast<float>(product[k]);
  return result;
}

// Returns the sum of coefficients[k] * x[first + 2*k] over k < Terms. The last coefficient is 1.
template <int Terms, size_t N>
HWY_INLINE V EveryOther(const std::array<float, N>& coefficients, const V* x, int first) {
  namespace hn = hwy::HWY_NAMESPACE;
  const D d;
  V sum = x[first + 2 * (Terms - 1)];
  for (int k = 0; k < Terms - 1; ++k) sum = hn::MulAdd(hn::Set(d, coefficients[k]), x[first + 2 * k], sum);
  return sum;
}

// Transforms x[0..2P+2) and passes each result on: put(point, vector). The result at a point a uses
// the coefficients of the product of x - b over the other points b. For the pair p and -p they
// differ only in the sign of every second coefficient.
template <int P, typename Put, int... i>
HWY_INLINE void TransformInput(const V* x, Put put, std::integer_sequence<int, i...>) {
  namespace hn = hwy::HWY_NAMESPACE;
  const D d;
  constexpr std::array<float, P + 1> all = SquaresPolynomial<P>(P);
  put(0, EveryOther<P + 1>(all, x, 0));
  put(2 * P + 1, EveryOther<P + 1>(all, x, 1));
  auto pair = [&](auto index) HWY_ATTR {
    constexpr int at = decltype(index)::value;
    constexpr std::array<float, P + 1> others = SquaresPolynomial<P>(at);
    const V point = hn::Set(d, static_cast<float>(FilteringPoint(P, at)));
    const V even = EveryOther<P>(others, x, 2), odd = EveryOther<P>(others, x, 1);
    put(2 * at + 1, hn::MulAdd(point, odd, even));
    put(2 * at + 2, hn::NegMulAdd(point, odd, even));
  };
  (pair(std::integral_constant<int, i>()), ...);
}

constexpr float PowerOf(double base, int exponent) {
  double result = 1;
  for (int i = 0; i < exponent; ++i) result *= base;
  return static_cast<float>(result);
}

// Passes on `start` + the inverse transform of products[0..2P+2): put(column, vector) for each
// column below M, which is the sum over points p of p^column * products of p. The points of a pair
// share their powers, except for the sign of odd ones.
template <int P, int M, typename Put, int... i, int... c>
HWY_INLINE void TransformOutput(const V* products, V start, Put put, std::integer_sequence<int, i...>,
                                std::integer_sequence<int, c...>) {
  namespace hn = hwy::HWY_NAMESPACE;
  const D d;
  V sums[P], differences[P];
  ((sums[i] = hn::Add(products[2 * i + 1], products[2 * i + 2]),
    differences[i] = hn::Sub(products[2 * i + 1], products[2 * i + 2])),
   ...);
  auto column = [&](auto index) HWY_ATTR {
    constexpr int at = decltype(index)::value;
    V sum = start;
    if constexpr (at == 0) sum = hn::Add(sum, products[0]);
    if constexpr (at == M - 1) sum = hn::Add(sum, products[2 * P + 1]);
    ((sum = hn::MulAdd(hn::Set(d, PowerOf(FilteringPoint(P, i), at)), at % 2 == 0 ? sums[i] : differences[i], sum)),
     ...);
    put(at, sum);
  };
  (column(std::integral_constant<int, c>()), ...);
}

// Evaluates the polynomial with coefficients x[0..M) at all points: put(point, vector).
template <int P, int M, typename Put, int... i>
HWY_INLINE void Evaluate(const V* x, Put put, std::integer_sequence<int, i...>) {
  static_assert(M >= 2 && M <= 4);
  namespace hn = hwy::HWY_NAMESPACE;
  const D d;
  put(0, x[0]);
  put(2 * P + 1, x[M - 1]);
  auto pair = [&](auto index) HWY_ATTR {
    constexpr int at = decltype(index)::value;
    const V point = hn::Set(d, static_cast<float>(FilteringPoint(P, at)));
    const V square = hn::Set(d, PowerOf(FilteringPoint(P, at), 2));
    V even = x[0], odd = x[1];
    if constexpr (M > 2) even = hn::MulAdd(square, x[2], even);
    if constexpr (M > 3) odd = hn::MulAdd(square, x[3], odd);
    put(2 * at + 1, hn::MulAdd(point, odd, even));
    put(2 * at + 2, hn::NegMulAdd(point, odd, even));
  };
  (pair(std::integral_constant<int, i>()), ...);
}

}  // namespace HWY_NAMESPACE
}  // namespace gradweave
HWY_AFTER_NAMESPACE();

#endif  // GRADWEAVE_RUNTIME_CPU_SIMD_MINIMAL_FILTERING_INL_H_
