// Formulas of elementwise ops, defined once for all devices. Each function object has the name of
// its op.
//
// Compiled by C++ compilers, by nvcc, and by NVRTC, which has no standard library: so this includes nothing there.
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
GRADWEAVE_LIBRARY_FUNCTION(Expm1, expm1f, expm1)
GRADWEAVE_LIBRARY_FUNCTION(Log, logf, log)
GRADWEAVE_LIBRARY_FUNCTION(Log1p, log1pf, log1p)
GRADWEAVE_LIBRARY_FUNCTION(Sqrt, sqrtf, sqrt)
GRADWEAVE_LIBRARY_FUNCTION(Sin, sinf, sin)
GRADWEAVE_LIBRARY_FUNCTION(Cos, cosf, cos)
GRADWEAVE_LIBRARY_FUNCTION(Tanh, tanhf, tanh)
GRADWEAVE_LIBRARY_FUNCTION(Erf, erff, erf)
GRADWEAVE_LIBRARY_FUNCTION(Erfc, erfcf, erfc)
GRADWEAVE_LIBRARY_FUNCTION(Floor, floorf, floor)
GRADWEAVE_LIBRARY_FUNCTION(Ceil, ceilf, ceil)
GRADWEAVE_LIBRARY_FUNCTION(Round, rintf, rint)
#undef GRADWEAVE_LIBRARY_FUNCTION
GRADWEAVE_HOST_DEVICE inline float PowOf(float a, float b) { return ::powf(a, b); }
GRADWEAVE_HOST_DEVICE inline double PowOf(double a, double b) { return ::pow(a, b); }

template <typename T>
GRADWEAVE_HOST_DEVICE bool IsNaN(T x) {
  return x != x;
}

template <typename T>
GRADWEAVE_HOST_DEVICE T Negated(T x) {
  if constexpr (kIsFloating<T>) return -x;
  return static_cast<T>(Wrapping<T>(0) - static_cast<Wrapping<T>>(x));
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

// ---- Ops of one operand ----

#define GRADWEAVE_UNARY(name, ...)                  \
  struct name {                                     \
    template <typename T>                           \
    GRADWEAVE_HOST_DEVICE T operator()(T x) const { \
      __VA_ARGS__                                   \
    }                                               \
  };

GRADWEAVE_UNARY(Neg, return Negated(x);)
// Of floating numbers, the sign's bit goes: -0 becomes 0.
GRADWEAVE_UNARY(Abs, if constexpr (kIsFloating<T>) return AbsOf(x); else return x < 0 ? Negated(x) : x;)
GRADWEAVE_UNARY(Sign, if (IsNaN(x)) return x; return static_cast<T>((x > T(0)) - (x < T(0)));)
GRADWEAVE_UNARY(Square, return static_cast<T>(static_cast<Wrapping<T>>(x) * static_cast<Wrapping<T>>(x));)
GRADWEAVE_UNARY(Relu, return x < T(0) ? T(0) : x;)
GRADWEAVE_UNARY(Exp, return ExpOf(x);)
GRADWEAVE_UNARY(Expm1, return Expm1Of(x);)
GRADWEAVE_UNARY(Log, return LogOf(x);)
GRADWEAVE_UNARY(Log1p, return Log1pOf(x);)
GRADWEAVE_UNARY(Sqrt, return SqrtOf(x);)
GRADWEAVE_UNARY(Rsqrt, return 1 / SqrtOf(x);)
GRADWEAVE_UNARY(Reciprocal, return 1 / x;)
GRADWEAVE_UNARY(Sin, return SinOf(x);)
GRADWEAVE_UNARY(Cos, return CosOf(x);)
GRADWEAVE_UNARY(Tanh, return TanhOf(x);)
// e^-x overflows to infinity for very negative x, and the quotient is then 0, as it has to be.
GRADWEAVE_UNARY(Sigmoid, return 1 / (1 + ExpOf(-x));)
GRADWEAVE_UNARY(Selu, return T(1.0507009873554805) * (x > 0 ? x : T(1.6732632423543772) * Expm1Of(x));)
GRADWEAVE_UNARY(Gelu, return x * ErfcOf(-x * T(0.70710678118654752)) / 2;)
// log(1 + e^x) = max(x, 0) + log(1 + e^-|x|): neither term overflows.
GRADWEAVE_UNARY(Softplus, return (x > 0 ? x : (x <= 0 ? T(0) : x)) + Log1pOf(ExpOf(-AbsOf(x)));)
GRADWEAVE_UNARY(Erf, return ErfOf(x);)
GRADWEAVE_UNARY(Floor, return FloorOf(x);)
GRADWEAVE_UNARY(Ceil, return CeilOf(x);)
GRADWEAVE_UNARY(Round, return RoundOf(x);)
GRADWEAVE_UNARY(LogicalNot, return !x;)
GRADWEAVE_UNARY(StopGradient, return x;)

#undef GRADWEAVE_UNARY

template <typename From, typename To>
struct Cast {
  GRADWEAVE_HOST_DEVICE To operator()(From x) const { return Converted<To>(x); }
};
template <typename T>
struct LeakyRelu {
  T slope;
  GRADWEAVE_HOST_DEVICE T operator()(T x) const { return x > 0 ? x : static_cast<T>(slope * x); }
};
template <typename T>
struct Elu {
  T alpha;
  GRADWEAVE_HOST_DEVICE T operator()(T x) const { return x > 0 ? x : static_cast<T>(alpha * Expm1Of(x)); }
};
template <typename T>
struct Clip {
  T low, high;
  // Comparisons with NaN fail, so it passes through.
  GRADWEAVE_HOST_DEVICE T operator()(T x) const { return x < low ? low : (x > high ? high : x); }
};

// ---- Ops of two and three operands ----

#define GRADWEAVE_BINARY(name, result, ...)                   \
  struct name {                                               \
    template <typename T>                                     \
    GRADWEAVE_HOST_DEVICE result operator()(T a, T b) const { \
      __VA_ARGS__                                             \
    }                                                         \
  };

GRADWEAVE_BINARY(Add, T, return static_cast<T>(static_cast<Wrapping<T>>(a) + static_cast<Wrapping<T>>(b));)
GRADWEAVE_BINARY(Sub, T, return static_cast<T>(static_cast<Wrapping<T>>(a) - static_cast<Wrapping<T>>(b));)
GRADWEAVE_BINARY(Mul, T, return static_cast<T>(static_cast<Wrapping<T>>(a) * static_cast<Wrapping<T>>(b));)
GRADWEAVE_BINARY(
    Div, T, if constexpr (kIsFloating<T>) { return a / b; } else {
      if (b == 0) return 0;
      // The smallest integer over -1 has no place in the dtype; it wraps around.
      if (T(-1) < T(0) && b == T(-1)) return Negated(a);
      return static_cast<T>(a / b);
    })
GRADWEAVE_BINARY(Pow, T, return PowOf(a, b);)
// NaN where one operand is.
GRADWEAVE_BINARY(Minimum, T, return IsNaN(a) ? a : (IsNaN(b) ? b : (a < b ? a : b));)
GRADWEAVE_BINARY(Maximum, T, return IsNaN(a) ? a : (IsNaN(b) ? b : (a > b ? a : b));)
GRADWEAVE_BINARY(Equal, bool, return a == b;)
GRADWEAVE_BINARY(NotEqual, bool, return a != b;)
GRADWEAVE_BINARY(Less, bool, return a < b;)
GRADWEAVE_BINARY(LessEqual, bool, return a <= b;)
GRADWEAVE_BINARY(Greater, bool, return a > b;)
GRADWEAVE_BINARY(GreaterEqual, bool, return a >= b;)
GRADWEAVE_BINARY(LogicalAnd, bool, return a && b;)
GRADWEAVE_BINARY(LogicalOr, bool, return a || b;)
GRADWEAVE_BINARY(LogicalXor, bool, return a != b;)
// The gradient ops: a is dy and b is y.
GRADWEAVE_BINARY(SigmoidGrad, T, return a * b * (1 - b);)
GRADWEAVE_BINARY(TanhGrad, T, return a * (1 - b * b);)
GRADWEAVE_BINARY(ReluGrad, T, return b > T(0) ? a : T(0);)
// b is x: dy times the normal distribution's function and x times its density.
GRADWEAVE_BINARY(GeluGrad, T,
                 return a *
                        (ErfcOf(-b * T(0.70710678118654752)) / 2 + b * (ExpOf(b * b / -2) * T(0.39894228040143268)));)

#undef GRADWEAVE_BINARY

struct Where {
  template <typename T>
  GRADWEAVE_HOST_DEVICE T operator()(bool condition, T if_true, T if_false) const {
    return condition ? if_true : if_false;
  }
};

// ---- Which ops there are ----

#ifndef __CUDACC_RTC__

// The dtypes that an op's operands may have.
enum class Takes { kFloating, kNumeric, kBool, kAny };

template <Takes takes, typename T>
constexpr bool kAccepted = takes == Takes::kAny || (takes == Takes::kBool && kIsSame<T, bool>) ||
                           (takes == Takes::kNumeric && !kIsSame<T, bool>) ||
                           (takes == Takes::kFloating && kIsFloating<T>);

// A row of the tables below: the op, its formula, and what that takes.
template <Takes takes_, typename Formula_>
struct Row {
  static constexpr Takes kTakes = takes_;
  using Formula = Formula_;
  const char* op;
};

#define GRADWEAVE_ROW(takes, name) visit(Row<Takes::takes, name>{#name});

// Calls visit(row) for each op whose formula takes one element and has no attributes.
template <typename Visit>
void ForUnaryFormulas(Visit visit) {
  GRADWEAVE_ROW(kNumeric, Neg)
  GRADWEAVE_ROW(kNumeric, Abs)
  GRADWEAVE_ROW(kNumeric, Sign)
  GRADWEAVE_ROW(kNumeric, Square)
  GRADWEAVE_ROW(kNumeric, Relu)
  GRADWEAVE_ROW(kFloating, Exp)
  GRADWEAVE_ROW(kFloating, Expm1)
  GRADWEAVE_ROW(kFloating, Log)
  GRADWEAVE_ROW(kFloating, Log1p)
  GRADWEAVE_ROW(kFloating, Sqrt)
  GRADWEAVE_ROW(kFloating, Rsqrt)
  GRADWEAVE_ROW(kFloating, Reciprocal)
  GRADWEAVE_ROW(kFloating, Sin)
  GRADWEAVE_ROW(kFloating, Cos)
  GRADWEAVE_ROW(kFloating, Tanh)
  GRADWEAVE_ROW(kFloating, Sigmoid)
  GRADWEAVE_ROW(kFloating, Selu)
  GRADWEAVE_ROW(kFloating, Gelu)
  GRADWEAVE_ROW(kFloating, Softplus)
  GRADWEAVE_ROW(kFloating, Erf)
  GRADWEAVE_ROW(kFloating, Floor)
  GRADWEAVE_ROW(kFloating, Ceil)
  GRADWEAVE_ROW(kFloating, Round)
  GRADWEAVE_ROW(kBool, LogicalNot)
}

// The same of two elements.
template <typename Visit>
void ForBinaryFormulas(Visit visit) {
  GRADWEAVE_ROW(kNumeric, Add)
  GRADWEAVE_ROW(kNumeric, Sub)
  GRADWEAVE_ROW(kNumeric, Mul)
  GRADWEAVE_ROW(kNumeric, Div)
  GRADWEAVE_ROW(kFloating, Pow)
  GRADWEAVE_ROW(kNumeric, Minimum)
  GRADWEAVE_ROW(kNumeric, Maximum)
  GRADWEAVE_ROW(kAny, Equal)
  GRADWEAVE_ROW(kAny, NotEqual)
  GRADWEAVE_ROW(kNumeric, Less)
  GRADWEAVE_ROW(kNumeric, LessEqual)
  GRADWEAVE_ROW(kNumeric, Greater)
  GRADWEAVE_ROW(kNumeric, GreaterEqual)
  GRADWEAVE_ROW(kBool, LogicalAnd)
  GRADWEAVE_ROW(kBool, LogicalOr)
  GRADWEAVE_ROW(kBool, LogicalXor)
  GRADWEAVE_ROW(kFloating, SigmoidGrad)
  GRADWEAVE_ROW(kFloating, TanhGrad)
  GRADWEAVE_ROW(kFloating, GeluGrad)
  GRADWEAVE_ROW(kNumeric, ReluGrad)
}

#undef GRADWEAVE_ROW

#endif  // __CUDACC_RTC__

}  // namespace gradweave::formulas

#endif  // GRADWEAVE_RUNTIME_KERNEL_FORMULAS_H_
