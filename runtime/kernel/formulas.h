// Formulas of elementwise ops, defined once for all devices. Each function object has the name of
// its op.
//
// The lists below hold one row for each op: the dtypes that it takes (see Takes), its name, and its
// formula. The function objects, the kernels of both devices, the CPU's loops over rows and tiles,
// and the instructions of fused CUDA kernels are all made of these rows. A list is a macro that
// applies X to each row.
//
// Compiled by C++ compilers, by nvcc, and by NVRTC, which has no standard library: so this includes
// nothing there.
#ifndef GRADWEAVE_RUNTIME_KERNEL_FORMULAS_H_
#define GRADWEAVE_RUNTIME_KERNEL_FORMULAS_H_

#ifdef __CUDACC_RTC__
using int32_t = int;
using int64_t = long long;
using uint8_t = unsigned char;
using uint32_t = unsigned int;
using uint64_t = unsigned long long;
#else
#include <cmath>
#include <cstdint>
#include <cstring>
#endif

#ifdef __CUDACC__
#define GRADWEAVE_HOST_DEVICE __host__ __device__
#else
#define GRADWEAVE_HOST_DEVICE
#endif

namespace gradweave::formulas {

// ---- Types ----

// Properties of a dtype's C++ type: its bounds, and the type for sums and products. Integers use an
// unsigned type, which wraps around where signed arithmetic would be undefined.
template <typename T>
struct TypeTraits;
template <>
struct TypeTraits<float> {
  static constexpr bool kFloating = true;
  using Wrapping = float;
};
template <>
struct TypeTraits<double> {
  static constexpr bool kFloating = true;
  using Wrapping = double;
};
template <>
struct TypeTraits<int32_t> {
  static constexpr bool kFloating = false;
  using Wrapping = uint32_t;
  static constexpr int32_t kLowest = -2147483647 - 1, kHighest = 2147483647;
  static constexpr double kAbove = 2147483648.0;  // The smallest number that is too large.
};
template <>
struct TypeTraits<int64_t> {
  static constexpr bool kFloating = false;
  using Wrapping = uint64_t;
  static constexpr int64_t kLowest = -9223372036854775807 - 1, kHighest = 9223372036854775807;
  static constexpr double kAbove = 9223372036854775808.0;
};
template <>
struct TypeTraits<uint8_t> {
  static constexpr bool kFloating = false;
  using Wrapping = uint8_t;
  static constexpr uint8_t kLowest = 0, kHighest = 255;
  static constexpr double kAbove = 256.0;
};
template <>
struct TypeTraits<bool> {
  static constexpr bool kFloating = false;
  using Wrapping = uint8_t;
};

template <typename T>
constexpr bool kIsFloating = TypeTraits<T>::kFloating;
template <typename T>
using Wrapping = typename TypeTraits<T>::Wrapping;

template <typename A, typename B>
constexpr bool kIsSame = false;
template <typename A>
constexpr bool kIsSame<A, A> = true;

// ---- The C library's functions by precision ----

#define GRADWEAVE_LIBRARY_FUNCTION(name, float_function, double_function)              \
  GRADWEAVE_HOST_DEVICE inline float name##Of(float x) { return ::float_function(x); } \
  GRADWEAVE_HOST_DEVICE inline double name##Of(double x) { return ::double_function(x); }
GRADWEAVE_LIBRARY_FUNCTION(Abs, fabsf, fabs)
GRADWEAVE_LIBRARY_FUNCTION(Exp, expf, exp)
GRADWEAVE_LIBRARY_FUNCTION(Log, logf, log)
GRADWEAVE_LIBRARY_FUNCTION(Log1p, log1pf, log1p)
GRADWEAVE_LIBRARY_FUNCTION(Sqrt, sqrtf, sqrt)
GRADWEAVE_LIBRARY_FUNCTION(Sin, sinf, sin)
GRADWEAVE_LIBRARY_FUNCTION(Cos, cosf, cos)
GRADWEAVE_LIBRARY_FUNCTION(Atan, atanf, atan)
GRADWEAVE_LIBRARY_FUNCTION(Tan, tanf, tan)
GRADWEAVE_LIBRARY_FUNCTION(Asin, asinf, asin)
GRADWEAVE_LIBRARY_FUNCTION(Acos, acosf, acos)
GRADWEAVE_LIBRARY_FUNCTION(Sinh, sinhf, sinh)
GRADWEAVE_LIBRARY_FUNCTION(Cosh, coshf, cosh)
GRADWEAVE_LIBRARY_FUNCTION(Tanh, tanhf, tanh)
GRADWEAVE_LIBRARY_FUNCTION(Asinh, asinhf, asinh)
GRADWEAVE_LIBRARY_FUNCTION(Acosh, acoshf, acosh)
GRADWEAVE_LIBRARY_FUNCTION(Atanh, atanhf, atanh)
GRADWEAVE_LIBRARY_FUNCTION(Erfc, erfcf, erfc)
GRADWEAVE_LIBRARY_FUNCTION(Floor, floorf, floor)
GRADWEAVE_LIBRARY_FUNCTION(Ceil, ceilf, ceil)
GRADWEAVE_LIBRARY_FUNCTION(Round, rintf, rint)
#undef GRADWEAVE_LIBRARY_FUNCTION
GRADWEAVE_HOST_DEVICE inline float PowOf(float a, float b) { return ::powf(a, b); }
GRADWEAVE_HOST_DEVICE inline double PowOf(double a, double b) { return ::pow(a, b); }
GRADWEAVE_HOST_DEVICE inline float FmodOf(float a, float b) { return ::fmodf(a, b); }
GRADWEAVE_HOST_DEVICE inline double FmodOf(double a, double b) { return ::fmod(a, b); }

// ---- Functions of our own ----
//
// The polynomials of expm1f and erff differ from one version of CUDA to another, and a program may
// have kernels of two versions: its own, and those that NVRTC compiles. The functions here give the
// same bits on every device and with every compiler. They use only operations that IEEE 754 rounds
// in one way. Their coefficients minimise the largest relative error (Lawson's iteration on least
// squares).

// e^x - 1. The largest error is 1.44 units in the last place.
GRADWEAVE_HOST_DEVICE inline float Expm1Of(float x) {
  // x = n*log(2) + f with |f| <= log(2)/2, and e^x - 1 = 2^n*(e^f - 1) + (2^n - 1). Beyond the
  // bounds the result is infinite, or it rounds to -1. The sum with kRound has n + 126 in its
  // lowest bits.
  constexpr float kRound = 12582912.0f + 126.0f;  // 1.5 * 2^23 + 126
  const float bounded = x > 89.0f ? 89.0f : x < -30.0f ? -30.0f : x;
  const float rounded = ::fmaf(bounded, 1.44269504f, kRound);
  const float n = rounded - kRound;
  const float f = ::fmaf(n, -1.42860677e-6f, ::fmaf(n, -0.693145752f, bounded));
  float p = 1.98459558e-4f;
  p = ::fmaf(p, f, 1.39416417e-3f);
  p = ::fmaf(p, f, 8.33339151e-3f);
  p = ::fmaf(p, f, 4.16663475e-2f);
  p = ::fmaf(p, f, 0.166666657f);
  p = ::fmaf(p, f, 0.5f);
  const float of_f = ::fmaf(p, f * f, f);
  // 2^(n - 1), since 2^n may overflow where the result does not.
  uint32_t bits;
  memcpy(&bits, &rounded, sizeof bits);
  bits <<= 23;
  float half;
  memcpy(&half, &bits, sizeof half);
  const float result = 2 * ::fmaf(of_f, half, half - 0.5f);
  return x == 0 ? x : n == 0 ? of_f : result;
}
GRADWEAVE_HOST_DEVICE inline double Expm1Of(double x) { return ::expm1(x); }

// The error function. The largest error is 0.99 units in the last place.
GRADWEAVE_HOST_DEVICE inline float ErfOf(float x) {
  const float size = ::fabsf(x);
  if (!(size >= 0.93f)) {  // x + x*P(x^2)
    const float s = x * x;
    float p = 8.19377674e-5f;
    p = ::fmaf(p, s, -8.09987658e-4f);
    p = ::fmaf(p, s, 5.19715482e-3f);
    p = ::fmaf(p, s, -2.68577915e-2f);
    p = ::fmaf(p, s, 0.112836659f);
    p = ::fmaf(p, s, -0.376126319f);
    p = ::fmaf(p, s, 0.128379166f);
    return ::fmaf(p, x, x);
  }
  // 1 - e^Q(|x|), where Q is the logarithm of 1 - erf. From 4 on the result rounds to 1.
  const float t = size > 4.0f ? 4.0f : size;
  float q = 1.94778651e-4f;
  q = ::fmaf(q, t, -3.03182867e-3f);
  q = ::fmaf(q, t, 2.21814178e-2f);
  q = ::fmaf(q, t, -0.103836961f);
  q = ::fmaf(q, t, -0.637290359f);
  q = ::fmaf(q, t, -1.12761128f);
  q = ::fmaf(q, t, -2.11272622e-4f);
  const float y = Expm1Of(q);
  return x < 0 ? y : -y;
}
GRADWEAVE_HOST_DEVICE inline double ErfOf(double x) { return ::erf(x); }

// x rounded to a number of a half type: to the nearest, to even if two are equally near. A NaN stays
// a NaN. `least` is the smallest number with all digits of the type, below which the unit of its
// last digit stays the same; from `above` on the result is infinite. |x| + round has no place for
// parts of a unit, so the sum rounds.
template <typename T, typename Bits>
GRADWEAVE_HOST_DEVICE inline T RoundedToHalf(T x, Bits exponent_mask, T least, T above, T round) {
  constexpr T kHuge = static_cast<T>(sizeof(T) == 4 ? 3e38 : 1e308);  // Times `above` it is infinite.
  T size = AbsOf(x);
  if (!(size < above)) return x * kHuge;
  Bits bits;
  memcpy(&bits, &size, sizeof bits);
  bits &= exponent_mask;
  T power;
  memcpy(&power, &bits, sizeof power);
  if (power < least) power = least;
  size = (size + power * round) - power * round;
  if (!(size < above)) return x * kHuge;
  return x < 0 ? -size : x == 0 ? x : size;
}
GRADWEAVE_HOST_DEVICE inline float RoundedToFloat16(float x) {
  return RoundedToHalf<float, uint32_t>(x, 0x7F800000u, 6.103515625e-5f, 65536.0f, 12288.0f);  // 1.5 * 2^(24 - 11)
}
GRADWEAVE_HOST_DEVICE inline double RoundedToFloat16(double x) {
  return RoundedToHalf<double, uint64_t>(x, 0x7FF0000000000000u, 6.103515625e-5, 65536.0, 6597069766656.0);
}
GRADWEAVE_HOST_DEVICE inline float RoundedToBFloat16(float x) {
  uint32_t bits;
  memcpy(&bits, &x, sizeof bits);
  if ((bits & 0x7FFFFFFFu) > 0x7F800000u) return x;
  bits = (bits + 0x7FFFu + (bits >> 16 & 1)) & 0xFFFF0000u;
  memcpy(&x, &bits, sizeof x);
  return x;
}
// 2^-126, 2^128, and 1.5 * 2^(53 - 8).
GRADWEAVE_HOST_DEVICE inline double RoundedToBFloat16(double x) {
  return RoundedToHalf<double, uint64_t>(x, 0x7FF0000000000000u, 1.1754943508222875e-38, 3.4028236692093846e38,
                                         52776558133248.0);
}

template <typename T>
GRADWEAVE_HOST_DEVICE bool IsNaN(T x) {
  return x != x;
}

template <typename T>
GRADWEAVE_HOST_DEVICE T Negated(T x) {
  if constexpr (kIsFloating<T>) return -x;
  return static_cast<T>(Wrapping<T>(0) - static_cast<Wrapping<T>>(x));
}

// The remainder of a / b, rounded toward zero. For integers it is 0 if b is 0, and if b is -1,
// since that quotient may overflow.
template <typename T>
GRADWEAVE_HOST_DEVICE T Remainder(T a, T b) {
  if constexpr (kIsFloating<T>) {
    return FmodOf(a, b);
  } else {
    return b == 0 || (T(-1) < T(0) && b == T(-1)) ? T(0) : static_cast<T>(a % b);
  }
}

// Converts x to another dtype. Cases that static_cast leaves undefined are defined here.
template <typename To, typename From>
GRADWEAVE_HOST_DEVICE To Converted(From x) {
  if constexpr (kIsSame<To, bool>) {
    return x != From(0);
  } else if constexpr (kIsFloating<From> && !kIsFloating<To>) {
    if (IsNaN(x)) return 0;
    // A floating type may be unable to represent the largest integer. From the power of two above
    // it on, and below the smallest integer, the result is the nearest bound.
    if (x >= static_cast<From>(TypeTraits<To>::kAbove)) return TypeTraits<To>::kHighest;
    if (x < static_cast<From>(TypeTraits<To>::kLowest)) return TypeTraits<To>::kLowest;
    return static_cast<To>(x);
  } else {
    return static_cast<To>(x);
  }
}

// The logarithm of a sum e^0 + e^-a + e^-b + ... = 1 + s is log1p(s) if the sum is below this, and
// s is summed by itself: else a small s is lost. From here on, log(sum) is as accurate.
constexpr double kDominatedSum = 1.5;

// clang-format off

// ---- Ops of one operand ----
//
// Abs clears the sign bit of floating numbers: -0 becomes 0. In Sigmoid, e^-x overflows to infinity
// for very negative x, and the quotient is then 0, as it has to be. Softplus is log(1 + e^x) =
// max(x, 0) + log(1 + e^-|x|), of which neither term overflows.
#define GRADWEAVE_UNARY_FORMULAS(X)                                                                              \
  X(kNumeric, Neg, return Negated(x);)                                                                           \
  X(kNumeric, Abs, if constexpr (kIsFloating<T>) return AbsOf(x); else return x < 0 ? Negated(x) : x;)           \
  X(kNumeric, Sign, if (IsNaN(x)) return x; return static_cast<T>((x > T(0)) - (x < T(0)));)                     \
  X(kNumeric, Square, return static_cast<T>(static_cast<Wrapping<T>>(x) * static_cast<Wrapping<T>>(x));)         \
  X(kNumeric, Relu, return x < T(0) ? T(0) : x;)                                                                 \
  X(kFloating, Exp, return ExpOf(x);)                                                                            \
  X(kFloating, Expm1, return Expm1Of(x);)                                                                        \
  X(kFloating, Log, return LogOf(x);)                                                                            \
  X(kFloating, Log1p, return Log1pOf(x);)                                                                        \
  X(kFloating, Sqrt, return SqrtOf(x);)                                                                          \
  X(kFloating, Rsqrt, return 1 / SqrtOf(x);)                                                                     \
  X(kFloating, Reciprocal, return 1 / x;)                                                                        \
  X(kFloating, Sin, return SinOf(x);)                                                                            \
  X(kFloating, Cos, return CosOf(x);)                                                                            \
  X(kFloating, Tan, return TanOf(x);)                                                                            \
  X(kFloating, Asin, return AsinOf(x);)                                                                          \
  X(kFloating, Acos, return AcosOf(x);)                                                                          \
  X(kFloating, Atan, return AtanOf(x);)                                                                          \
  X(kFloating, Sinh, return SinhOf(x);)                                                                          \
  X(kFloating, Cosh, return CoshOf(x);)                                                                          \
  X(kFloating, Tanh, return TanhOf(x);)                                                                          \
  X(kFloating, Asinh, return AsinhOf(x);)                                                                        \
  X(kFloating, Acosh, return AcoshOf(x);)                                                                        \
  X(kFloating, Atanh, return AtanhOf(x);)                                                                        \
  X(kFloating, Sigmoid, return 1 / (1 + ExpOf(-x));)                                                             \
  X(kFloating, Selu, return T(1.0507009873554805) * (x > 0 ? x : T(1.6732632423543772) * Expm1Of(x));)           \
  X(kFloating, Gelu, return x * ErfcOf(-x * T(0.70710678118654752)) / 2;)                                        \
  X(kFloating, Softplus, return (x > 0 ? x : (x <= 0 ? T(0) : x)) + Log1pOf(ExpOf(-AbsOf(x)));)                  \
  X(kFloating, Erf, return ErfOf(x);)                                                                            \
  X(kFloating, Floor, return FloorOf(x);)                                                                        \
  X(kFloating, Ceil, return CeilOf(x);)                                                                          \
  X(kFloating, Round, return RoundOf(x);)                                                                        \
  X(kFloating, RoundToFloat16, return RoundedToFloat16(x);)                                                      \
  X(kFloating, RoundToBFloat16, return RoundedToBFloat16(x);)

#define GRADWEAVE_LOGICAL_UNARY_FORMULAS(X) X(kBool, LogicalNot, return !x;)

// ---- Ops of two operands ----
//
// Div of integers: x / 0 is 0, and the smallest integer over -1 has no place in the dtype and wraps
// around. Minimum and Maximum are NaN where one operand is. In SigmoidCrossEntropy, infinity times
// a weight of 0 is 0. Of the gradient ops, a is dy and b is y; of GeluGrad, b is x: dy times the
// normal distribution's function and x times its density.
#define GRADWEAVE_BINARY_FORMULAS(X)                                                                             \
  X(kNumeric, Add, return static_cast<T>(static_cast<Wrapping<T>>(a) + static_cast<Wrapping<T>>(b));)            \
  X(kNumeric, Sub, return static_cast<T>(static_cast<Wrapping<T>>(a) - static_cast<Wrapping<T>>(b));)            \
  X(kNumeric, Mul, return static_cast<T>(static_cast<Wrapping<T>>(a) * static_cast<Wrapping<T>>(b));)            \
  X(kNumeric, Div,                                                                                               \
    if constexpr (kIsFloating<T>) { return a / b; } else {                                                       \
      if (b == 0) return 0;                                                                                      \
      if (T(-1) < T(0) && b == T(-1)) return Negated(a);                                                         \
      return static_cast<T>(a / b);                                                                              \
    })                                                                                                           \
  X(kNumeric, Fmod, return Remainder(a, b);)                                                                     \
  X(kNumeric, Mod,                                                                                               \
    const T rest = Remainder(a, b);                                                                              \
    return rest != 0 && (rest < 0) != (b < 0) ? static_cast<T>(rest + b) : rest;)                                \
  X(kFloating, Pow, return PowOf(a, b);)                                                                         \
  X(kNumeric, Minimum, return IsNaN(a) ? a : (IsNaN(b) ? b : (a < b ? a : b));)                                  \
  X(kNumeric, Maximum, return IsNaN(a) ? a : (IsNaN(b) ? b : (a > b ? a : b));)                                  \
  X(kFloating, SigmoidCrossEntropy,                                                                              \
    const T weight = a > 0 ? 1 - b : b;                                                                          \
    return (weight == 0 ? weight : weight * AbsOf(a)) + Log1pOf(ExpOf(-AbsOf(a)));)                              \
  X(kFloating, SigmoidGrad, return a * b * (1 - b);)                                                             \
  X(kFloating, TanhGrad, return a * (1 - b * b);)                                                                \
  X(kNumeric, ReluGrad, return b > T(0) ? a : T(0);)                                                             \
  X(kFloating, GeluGrad, return a * (ErfcOf(-b * T(0.70710678118654752)) / 2 +                                   \
                                     b * (ExpOf(b * b / -2) * T(0.39894228040143268)));)

// Shifts by a negative number, or by as many bits as there are or more, move all bits out. A right
// shift copies the sign.
#define GRADWEAVE_INTEGER_BINARY_FORMULAS(X)                                                                     \
  X(kInteger, BitAnd, return static_cast<T>(a & b);)                                                             \
  X(kInteger, BitOr, return static_cast<T>(a | b);)                                                              \
  X(kInteger, BitXor, return static_cast<T>(a ^ b);)                                                             \
  X(kInteger, ShiftLeft,                                                                                         \
    return b < 0 || b >= T(8 * sizeof(T)) ? T(0) : static_cast<T>(static_cast<Wrapping<T>>(a) << b);)            \
  X(kInteger, ShiftRight,                                                                                        \
    return b < 0 || b >= T(8 * sizeof(T)) ? static_cast<T>(a < 0 ? -1 : 0) : static_cast<T>(a >> b);)

// The result is a truth value.
#define GRADWEAVE_COMPARISON_FORMULAS(X)        \
  X(kAny, Equal, return a == b;)                \
  X(kAny, NotEqual, return a != b;)             \
  X(kNumeric, Less, return a < b;)              \
  X(kNumeric, LessEqual, return a <= b;)        \
  X(kNumeric, Greater, return a > b;)           \
  X(kNumeric, GreaterEqual, return a >= b;)

#define GRADWEAVE_LOGICAL_BINARY_FORMULAS(X)    \
  X(kBool, LogicalAnd, return a && b;)          \
  X(kBool, LogicalOr, return a || b;)           \
  X(kBool, LogicalXor, return a != b;)

// ---- Ops of one operand with numbers ----
//
// The op's real attributes, in their order, are the members of the function object: numbers[0] and
// on. In Clip, comparisons with NaN fail, so it passes through.
#define GRADWEAVE_NUMBERED_FORMULAS(X)                                                                           \
  X(kFloating, LeakyRelu, 1, return x > 0 ? x : static_cast<T>(numbers[0] * x);)                                 \
  X(kFloating, Elu, 1, return x > 0 ? x : static_cast<T>(numbers[0] * Expm1Of(x));)                              \
  X(kNumeric, Clip, 2, return x < numbers[0] ? numbers[0] : (x > numbers[1] ? numbers[1] : x);)

// clang-format on

#define GRADWEAVE_UNARY(takes, name, ...)           \
  struct name {                                     \
    template <typename T>                           \
    GRADWEAVE_HOST_DEVICE T operator()(T x) const { \
      __VA_ARGS__                                   \
    }                                               \
  };
GRADWEAVE_UNARY_FORMULAS(GRADWEAVE_UNARY)
GRADWEAVE_LOGICAL_UNARY_FORMULAS(GRADWEAVE_UNARY)
GRADWEAVE_UNARY(kAny, StopGradient, return x;)
#undef GRADWEAVE_UNARY

#define GRADWEAVE_BINARY(takes, name, ...)               \
  struct name {                                          \
    template <typename T>                                \
    GRADWEAVE_HOST_DEVICE T operator()(T a, T b) const { \
      __VA_ARGS__                                        \
    }                                                    \
  };
GRADWEAVE_BINARY_FORMULAS(GRADWEAVE_BINARY)
GRADWEAVE_INTEGER_BINARY_FORMULAS(GRADWEAVE_BINARY)
GRADWEAVE_LOGICAL_BINARY_FORMULAS(GRADWEAVE_BINARY)
#undef GRADWEAVE_BINARY

#define GRADWEAVE_COMPARISON(takes, name, ...)              \
  struct name {                                             \
    template <typename T>                                   \
    GRADWEAVE_HOST_DEVICE bool operator()(T a, T b) const { \
      __VA_ARGS__                                           \
    }                                                       \
  };
GRADWEAVE_COMPARISON_FORMULAS(GRADWEAVE_COMPARISON)
#undef GRADWEAVE_COMPARISON

#define GRADWEAVE_NUMBERED(takes, name, count, ...)               \
  template <typename T>                                           \
  struct name {                                                   \
    T numbers[count];                                             \
    GRADWEAVE_HOST_DEVICE T operator()(T x) const { __VA_ARGS__ } \
  };
GRADWEAVE_NUMBERED_FORMULAS(GRADWEAVE_NUMBERED)
#undef GRADWEAVE_NUMBERED

template <typename From, typename To>
struct Cast {
  GRADWEAVE_HOST_DEVICE To operator()(From x) const { return Converted<To>(x); }
};

struct Where {
  template <typename T>
  GRADWEAVE_HOST_DEVICE T operator()(bool condition, T if_true, T if_false) const {
    return condition ? if_true : if_false;
  }
};

// The function object of an op with numbers, of its numbers.
template <typename Formula, typename T, typename Number>
GRADWEAVE_HOST_DEVICE Formula WithNumbers(const Number* numbers) {
  Formula formula;
  for (T& number : formula.numbers) number = Converted<T>(*numbers++);
  return formula;
}

// ---- Which ops there are ----

#ifndef __CUDACC_RTC__

// The dtypes that an op's operands may have.
enum class Takes { kFloating, kNumeric, kInteger, kBool, kAny };

template <Takes takes, typename T>
constexpr bool kAccepted = takes == Takes::kAny || (takes == Takes::kBool && kIsSame<T, bool>) ||
                           (takes == Takes::kNumeric && !kIsSame<T, bool>) ||
                           (takes == Takes::kInteger && !kIsFloating<T> && !kIsSame<T, bool>) ||
                           (takes == Takes::kFloating && kIsFloating<T>);

// A row of the lists above: the op, its formula, and what that takes.
template <Takes takes_, typename Formula_>
struct Row {
  static constexpr Takes kTakes = takes_;
  using Formula = Formula_;
  const char* op;
};
// The same of an op with numbers, whose function object depends on the dtype.
template <Takes takes_, template <typename T> typename Formula_>
struct NumberedRow {
  static constexpr Takes kTakes = takes_;
  template <typename T>
  using Formula = Formula_<T>;
  const char* op;
};

#define GRADWEAVE_VISIT(takes, name, ...) visit(Row<Takes::takes, name>{#name});
#define GRADWEAVE_VISIT_NUMBERED(takes, name, ...) visit(NumberedRow<Takes::takes, name>{#name});

// Calls visit(row) for each op of the kind.
template <typename Visit>
void ForUnaryFormulas(Visit visit) {
  GRADWEAVE_UNARY_FORMULAS(GRADWEAVE_VISIT)
  GRADWEAVE_LOGICAL_UNARY_FORMULAS(GRADWEAVE_VISIT)
}
template <typename Visit>
void ForBinaryFormulas(Visit visit) {
  GRADWEAVE_BINARY_FORMULAS(GRADWEAVE_VISIT)
  GRADWEAVE_INTEGER_BINARY_FORMULAS(GRADWEAVE_VISIT)
  GRADWEAVE_LOGICAL_BINARY_FORMULAS(GRADWEAVE_VISIT)
}
template <typename Visit>
void ForComparisonFormulas(Visit visit) {
  GRADWEAVE_COMPARISON_FORMULAS(GRADWEAVE_VISIT)
}
template <typename Visit>
void ForNumberedFormulas(Visit visit) {
  GRADWEAVE_NUMBERED_FORMULAS(GRADWEAVE_VISIT_NUMBERED)
}

#undef GRADWEAVE_VISIT
#undef GRADWEAVE_VISIT_NUMBERED

#endif  // __CUDACC_RTC__

}  // namespace gradweave::formulas

#endif  // GRADWEAVE_RUNTIME_KERNEL_FORMULAS_H_
