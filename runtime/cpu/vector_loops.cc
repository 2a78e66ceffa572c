#include "gradweave/runtime/cpu/vector_loops.h"

#include <cstring>
#include <limits>

#include "gradweave/runtime/cpu/vector_targets.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "runtime/cpu/vector_loops.cc"
// foreach_target.h comes first.
// clang-format off
#include "hwy/foreach_target.h"  // IWYU pragma: keep
#include "hwy/highway.h"
#include "hwy/contrib/math/math-inl.h"
// clang-format on

HWY_BEFORE_NAMESPACE();
namespace gradweave {
namespace HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;

// ---- Formulas, on a vector of any width ----

template <class D, class V>
HWY_INLINE V KeepNaN(D, V x, V y) {
  return hn::IfThenElse(hn::IsNaN(x), x, y);
}

// Highway's Exp takes arguments up to a little above where the result overflows; beyond, it is infinite.
template <class D, class V>
HWY_INLINE V SafeExp(D d, V x) {
  using T = hn::TFromD<D>;
  return KeepNaN(d, x, hn::Exp(d, hn::Min(x, hn::Set(d, static_cast<T>(sizeof(T) == 4 ? 104 : 710)))));
}

// x between the bounds; a NaN stays, with no instruction of its own where the second operand of a minimum or maximum is
// what comes of a NaN (x86) or any NaN is (NEON).
template <class D, class V>
HWY_INLINE V ClampNumber(D d, V x, hn::TFromD<D> least, hn::TFromD<D> most) {
  const V y = hn::Min(hn::Set(d, most), hn::Max(hn::Set(d, least), x));
#if HWY_TARGET != HWY_SCALAR && (HWY_ARCH_X86 || HWY_ARCH_ARM)
  return y;
#else
  return KeepNaN(d, x, y);
#endif
}

// e^x of float32 for x from -87 to 89, to 1e-7 of the result; shorter than a full Exp, which also has to give what is
// below 1e-38. e^x = 2^n * e^r with |r| <= ln(2)/2 (Cody and Waite, "Software manual for the elementary functions",
// 1980, chapter 6), and e^r = 1 + r + r^2*P(r) with a minimax polynomial P (Lawson's iteration on least squares).
// N vectors side by side, operation by operation: one alone waits for its own results, and a processor holds too few
// operations to get on with others.
template <int N, class D, class V>
HWY_INLINE void ShortExp(D d, V* x) {
  const hn::RebindToSigned<D> di;
  const V one = hn::Set(d, 1.0f);
  // Between 2^23 and 2^24 numbers are whole, so that the sum rounds, and its last bits are n with the exponent's bias.
  const V whole = hn::Set(d, 12582912.0f + 127.0f);
  V biased[N], n[N], r[N], p[N];
  auto each = [](auto step) HWY_ATTR {
    step(0);
    if constexpr (N > 1) step(1);
    static_assert(N <= 2);
  };
  auto coefficient = [&](float c)
                         HWY_ATTR { each([&](int k) HWY_ATTR { p[k] = hn::MulAdd(p[k], r[k], hn::Set(d, c)); }); };
  each([&](int k) HWY_ATTR { biased[k] = hn::MulAdd(x[k], hn::Set(d, 1.44269504088896341f), whole); });
  each([&](int k) HWY_ATTR { n[k] = hn::Sub(biased[k], whole); });
  each([&](int k) HWY_ATTR { r[k] = hn::NegMulAdd(n[k], hn::Set(d, 0.693359375f), x[k]); });
  each([&](int k) HWY_ATTR { r[k] = hn::NegMulAdd(n[k], hn::Set(d, -2.12194440e-4f), r[k]); });
  each([&](int k) HWY_ATTR { p[k] = hn::Set(d, 1.38145978e-3f); });
  coefficient(8.36871695e-3f);
  coefficient(4.16683881e-2f);
  coefficient(1.66665206e-1f);
  coefficient(4.99999934e-1f);
  coefficient(1.0f);
  each([&](int k) HWY_ATTR { p[k] = hn::MulAdd(p[k], r[k], one); });
  each([&](int k) HWY_ATTR { x[k] = hn::Mul(p[k], hn::BitCast(d, hn::ShiftLeft<23>(hn::BitCast(di, biased[k])))); });
}

// e^x for x not above zero, as softmax needs it: results that are nothing beside one are zero.
template <class D, class V>
HWY_INLINE V ExpOfNegative(D d, V x) {
  if constexpr (sizeof(hn::TFromD<D>) == 8) {
    return SafeExp(d, x);
  } else {
    V e[1] = {ClampNumber(d, x, -87.0f, 0.0f)};
    ShortExp<1>(d, e);
    return hn::IfThenZeroElse(hn::Lt(x, hn::Set(d, -87.0f)), e[0]);
  }
}

#define GRADWEAVE_FORMULA1(name, expression)  \
  struct name {                               \
    template <class D, class V>               \
    HWY_INLINE V operator()(D d, V x) const { \
      using T = hn::TFromD<D>;                \
      (void)d;                                \
      (void)sizeof(T);                        \
      return expression;                      \
    }                                         \
  };
#define GRADWEAVE_FORMULA2(name, expression)       \
  struct name {                                    \
    template <class D, class V>                    \
    HWY_INLINE V operator()(D d, V a, V b) const { \
      using T = hn::TFromD<D>;                     \
      (void)d;                                     \
      (void)sizeof(T);                             \
      return expression;                           \
    }                                              \
  };

#define GRADWEAVE_ONE hn::Set(d, static_cast<T>(1))
#define GRADWEAVE_ZERO hn::Zero(d)

GRADWEAVE_FORMULA1(NegFormula, hn::Neg(x))
GRADWEAVE_FORMULA1(AbsFormula, hn::Abs(x))
GRADWEAVE_FORMULA1(ExpFormula, SafeExp(d, x))
GRADWEAVE_FORMULA1(SqrtFormula, hn::Sqrt(x))
GRADWEAVE_FORMULA1(RsqrtFormula, hn::Div(GRADWEAVE_ONE, hn::Sqrt(x)))
GRADWEAVE_FORMULA1(ReciprocalFormula, hn::Div(GRADWEAVE_ONE, x))
GRADWEAVE_FORMULA1(SquareFormula, hn::Mul(x, x))
GRADWEAVE_FORMULA1(TanhFormula, KeepNaN(d, x, hn::Tanh(d, x)))

// e^-x overflows to infinity for very negative x, and the quotient is then 0, as it has to be.
struct SigmoidFormula {
  static constexpr int kSideBySide = 2;
  template <int N, class D, class V>
  HWY_INLINE void Apply(D d, V* x) const {
    using T = hn::TFromD<D>;
    if constexpr (sizeof(T) == 8) {
      for (int k = 0; k < N; ++k) x[k] = hn::Div(GRADWEAVE_ONE, hn::Add(GRADWEAVE_ONE, SafeExp(d, hn::Neg(x[k]))));
    } else {
      // What is below e^-87 is lost in the sum, and above 2^128 makes the result 0.
      for (int k = 0; k < N; ++k) x[k] = ClampNumber(d, hn::Neg(x[k]), T(-87), T(89));
      ShortExp<N>(d, x);
      for (int k = 0; k < N; ++k) x[k] = hn::Div(GRADWEAVE_ONE, hn::Add(GRADWEAVE_ONE, x[k]));
    }
  }
  template <class D, class V>
  HWY_INLINE V operator()(D d, V x) const {
    Apply<1>(d, &x);
    return x;
  }
};
GRADWEAVE_FORMULA1(ReluFormula, KeepNaN(d, x, hn::Max(x, GRADWEAVE_ZERO)))
GRADWEAVE_FORMULA1(FloorFormula, hn::Floor(x))
GRADWEAVE_FORMULA1(CeilFormula, hn::Ceil(x))
GRADWEAVE_FORMULA1(RoundFormula, hn::Round(x))

GRADWEAVE_FORMULA2(AddFormula, hn::Add(a, b))
GRADWEAVE_FORMULA2(SubFormula, hn::Sub(a, b))
GRADWEAVE_FORMULA2(MulFormula, hn::Mul(a, b))
GRADWEAVE_FORMULA2(DivFormula, hn::Div(a, b))
GRADWEAVE_FORMULA2(MinimumFormula, KeepNaN(d, a, KeepNaN(d, b, hn::Min(a, b))))
GRADWEAVE_FORMULA2(MaximumFormula, KeepNaN(d, a, KeepNaN(d, b, hn::Max(a, b))))
// The gradient ops: a is dy and b is y.
GRADWEAVE_FORMULA2(SigmoidGradFormula, hn::Mul(hn::Mul(a, b), hn::Sub(GRADWEAVE_ONE, b)))
GRADWEAVE_FORMULA2(TanhGradFormula, hn::Mul(a, hn::Sub(GRADWEAVE_ONE, hn::Mul(b, b))))
GRADWEAVE_FORMULA2(ReluGradFormula, hn::IfThenElseZero(hn::Gt(b, GRADWEAVE_ZERO), a))

// Of float32 alone; float64 goes through the C library. erf(x) = x*P(x^2)/Q(x^2) up to 4, from where on it is one, to
// 4e-7, with P and Q fitted to the least largest error (Lawson's iteration on least squares).
template <class D, class V>
HWY_INLINE V ErfOfNumber(D d, V x) {
  const V z = hn::Min(hn::Max(x, hn::Set(d, -4.0f)), hn::Set(d, 4.0f));
  const V s = hn::Mul(z, z);
  V p = hn::Set(d, 1.98675093e-6f);
  V q = hn::Set(d, 3.74198717e-5f);
  p = hn::MulAdd(p, s, hn::Set(d, 2.84566428e-4f));
  q = hn::MulAdd(q, s, hn::Set(d, 1.18558854e-3f));
  p = hn::MulAdd(p, s, hn::Set(d, 3.88342724e-3f));
  q = hn::MulAdd(q, s, hn::Set(d, 1.52074229e-2f));
  p = hn::MulAdd(p, s, hn::Set(d, 5.3102009e-2f));
  q = hn::MulAdd(q, s, hn::Set(d, 0.115350865f));
  p = hn::MulAdd(p, s, hn::Set(d, 0.193547204f));
  q = hn::MulAdd(q, s, hn::Set(d, 0.504859269f));
  p = hn::MulAdd(p, s, hn::Set(d, 1.12837911f));
  q = hn::MulAdd(q, s, hn::Set(d, 1.0f));
  const V y = hn::Div(hn::Mul(p, z), q);
  return hn::Min(hn::Max(y, hn::Set(d, -1.0f)), hn::Set(d, 1.0f));
}
struct ErfFormula {
  template <class D, class V>
  HWY_INLINE V operator()(D d, V x) const {
    return KeepNaN(d, x, ErfOfNumber(d, x));
  }
};
constexpr float kSqrtHalf = 0.707106781186547524f;
// x/2 * (1 + erf(x/sqrt(2))).
struct GeluFormula {
  template <class D, class V>
  HWY_INLINE V operator()(D d, V x) const {
    const V half = hn::Mul(x, hn::Set(d, 0.5f));
    return hn::MulAdd(half, ErfOfNumber(d, hn::Mul(x, hn::Set(d, kSqrtHalf))), half);
  }
};
// b is x: dy * (1/2 + erf(x/sqrt(2))/2 + x * e^(-x^2/2)/sqrt(2*pi)).
struct GeluGradFormula {
  template <class D, class V>
  HWY_INLINE V operator()(D d, V dy, V x) const {
    const V half = hn::Set(d, 0.5f);
    const V distribution = hn::MulAdd(ErfOfNumber(d, hn::Mul(x, hn::Set(d, kSqrtHalf))), half, half);
    // Zero where x is so large that its square, or its product with what is left, would say something else.
    const V density =
        hn::Mul(ExpOfNegative(d, hn::Mul(hn::Mul(x, hn::Neg(half)), x)), hn::Set(d, 0.398942280401432678f));
    return hn::Mul(dy, hn::MulAdd(x, density, distribution));
  }
};

#undef GRADWEAVE_FORMULA1
#undef GRADWEAVE_FORMULA2

// ---- Loops ----

// The last elements go through a buffer of one vector: the same formula in the same width, so the same bits.
template <class Formula, typename T>
HWY_NOINLINE void MapUnary(const T* x, T* y, int64_t n) {
  const hn::ScalableTag<T> d;
  const int64_t width = hn::Lanes(d);
  const Formula formula;
  int64_t i = 0;
  if constexpr (requires { Formula::kSideBySide; }) {
    static_assert(Formula::kSideBySide == 2);
    for (; i + 2 * width <= n; i += 2 * width) {
      hn::Vec<decltype(d)> pair[2] = {hn::LoadU(d, x + i), hn::LoadU(d, x + i + width)};
      formula.template Apply<2>(d, pair);
      hn::StoreU(pair[0], d, y + i);
      hn::StoreU(pair[1], d, y + i + width);
    }
  }
  for (; i + width <= n; i += width) hn::StoreU(formula(d, hn::LoadU(d, x + i)), d, y + i);
  if (i == n) return;
  HWY_ALIGN T buffer[hn::MaxLanes(d)] = {};
  std::memcpy(buffer, x + i, (n - i) * sizeof(T));
  hn::Store(formula(d, hn::Load(d, buffer)), d, buffer);
  std::memcpy(y + i, buffer, (n - i) * sizeof(T));
}

template <class Formula, typename T>
HWY_NOINLINE void MapBinary(const T* a, bool a_is_vector, const T* b, bool b_is_vector, T* y, int64_t n) {
  const hn::ScalableTag<T> d;
  const int64_t width = hn::Lanes(d);
  const Formula formula;
  if (n == 0) return;
  const auto a0 = hn::Set(d, a[0]), b0 = hn::Set(d, b[0]);
  int64_t i = 0;
  if (a_is_vector && b_is_vector) {
    for (; i + width <= n; i += width) hn::StoreU(formula(d, hn::LoadU(d, a + i), hn::LoadU(d, b + i)), d, y + i);
  } else if (a_is_vector) {
    for (; i + width <= n; i += width) hn::StoreU(formula(d, hn::LoadU(d, a + i), b0), d, y + i);
  } else {
    for (; i + width <= n; i += width) hn::StoreU(formula(d, a0, b_is_vector ? hn::LoadU(d, b + i) : b0), d, y + i);
  }
  if (i == n) return;
  HWY_ALIGN T buffer_a[hn::MaxLanes(d)] = {};
  HWY_ALIGN T buffer_b[hn::MaxLanes(d)] = {};
  if (a_is_vector) std::memcpy(buffer_a, a + i, (n - i) * sizeof(T));
  if (b_is_vector) std::memcpy(buffer_b, b + i, (n - i) * sizeof(T));
  const auto va = a_is_vector ? hn::Load(d, buffer_a) : a0;
  const auto vb = b_is_vector ? hn::Load(d, buffer_b) : b0;
  hn::Store(formula(d, va, vb), d, buffer_a);
  std::memcpy(y + i, buffer_a, (n - i) * sizeof(T));
}

template <typename T>
T RowMax(const T* x, int64_t n) {
  const hn::ScalableTag<T> d;
  const int64_t width = hn::Lanes(d);
  auto best = hn::Set(d, x[0]);
  auto sum = hn::Zero(d);  // NaN where there was one, or opposite infinities.
  int64_t i = 0;
  for (; i + width <= n; i += width) {
    const auto v = hn::LoadU(d, x + i);
    best = hn::Max(best, v);
    sum = hn::Add(sum, v);
  }
  T result = hn::GetLane(hn::MaxOfLanes(d, best));
  bool ordered = hn::AllFalse(d, hn::IsNaN(sum));
  for (; i < n; ++i) {
    result = std::max(result, x[i]);
    ordered &= x[i] == x[i];
  }
  if (HWY_LIKELY(ordered)) return result;
  result = x[0];
  for (i = 1; i < n; ++i) {
    if (!(x[i] <= result)) result = x[i];
    if (result != result) break;
  }
  return result;
}

template <typename T>
T ExpShifted(const T* x, T shift, T* y, int64_t n) {
  const hn::ScalableTag<T> d;
  const int64_t width = hn::Lanes(d);
  const auto shifts = hn::Set(d, shift);
  auto sum = hn::Zero(d);
  int64_t i = 0;
  for (; i + width <= n; i += width) {
    const auto e = ExpOfNegative(d, hn::Sub(hn::LoadU(d, x + i), shifts));
    sum = hn::Add(sum, e);
    if (y != nullptr) hn::StoreU(e, d, y + i);
  }
  if (i < n) {
    HWY_ALIGN T buffer[hn::MaxLanes(d)] = {};
    std::memcpy(buffer, x + i, (n - i) * sizeof(T));
    auto e = ExpOfNegative(d, hn::Sub(hn::Load(d, buffer), shifts));
    e = hn::IfThenElseZero(hn::FirstN(d, static_cast<size_t>(n - i)), e);
    sum = hn::Add(sum, e);
    hn::Store(e, d, buffer);
    if (y != nullptr) std::memcpy(y + i, buffer, (n - i) * sizeof(T));
  }
  return hn::GetLane(hn::SumOfLanes(d, sum));
}

template <typename T>
void Scale(const T* x, T factor, T* y, int64_t n) {
  MapBinary<MulFormula, T>(x, true, &factor, false, y, n);
}

// Four sums side by side hide the additions' latency.
template <typename T>
T SumOfRow(const T* x, int64_t n) {
  const hn::ScalableTag<T> d;
  const int64_t width = hn::Lanes(d);
  auto s0 = hn::Zero(d), s1 = hn::Zero(d), s2 = hn::Zero(d), s3 = hn::Zero(d);
  int64_t i = 0;
  for (; i + 4 * width <= n; i += 4 * width) {
    s0 = hn::Add(s0, hn::LoadU(d, x + i));
    s1 = hn::Add(s1, hn::LoadU(d, x + i + width));
    s2 = hn::Add(s2, hn::LoadU(d, x + i + 2 * width));
    s3 = hn::Add(s3, hn::LoadU(d, x + i + 3 * width));
  }
  for (; i + width <= n; i += width) s0 = hn::Add(s0, hn::LoadU(d, x + i));
  T rest = 0;
  for (; i < n; ++i) rest += x[i];
  return hn::GetLane(hn::SumOfLanes(d, hn::Add(hn::Add(s0, s1), hn::Add(s2, s3)))) + rest;
}

template <typename T>
void Accumulate(const T* x, T* y, int64_t n) {
  MapBinary<AddFormula, T>(y, true, x, true, y, n);
}

template <typename T>
void MultiplyAdd(const T* x, T factor, T* y, int64_t n) {
  const hn::ScalableTag<T> d;
  const int64_t width = hn::Lanes(d);
  const auto factors = hn::Set(d, factor);
  int64_t i = 0;
  for (; i + width <= n; i += width)
    hn::StoreU(hn::Add(hn::LoadU(d, y + i), hn::Mul(hn::LoadU(d, x + i), factors)), d, y + i);
  for (; i < n; ++i) y[i] += x[i] * factor;
}

// ---- Tables ----

template <typename T>
UnaryLoop<T> Unary(int index) {
  static constexpr UnaryLoop<T> kLoops[] = {
      MapUnary<NegFormula, T>,     MapUnary<AbsFormula, T>,        MapUnary<ExpFormula, T>,    MapUnary<SqrtFormula, T>,
      MapUnary<RsqrtFormula, T>,   MapUnary<ReciprocalFormula, T>, MapUnary<SquareFormula, T>, MapUnary<TanhFormula, T>,
      MapUnary<SigmoidFormula, T>, MapUnary<ReluFormula, T>,       MapUnary<FloorFormula, T>,  MapUnary<CeilFormula, T>,
      MapUnary<RoundFormula, T>};
  static constexpr UnaryLoop<float> kFloatLoops[] = {MapUnary<ErfFormula, float>, MapUnary<GeluFormula, float>};
  constexpr int kCommon = sizeof kLoops / sizeof kLoops[0];
  if (index < kCommon) return kLoops[index];
  if constexpr (sizeof(T) == 4) return kFloatLoops[index - kCommon];
  return nullptr;
}

template <typename T>
BinaryLoop<T> Binary(int index) {
  static constexpr BinaryLoop<T> kLoops[] = {
      MapBinary<AddFormula, T>,         MapBinary<SubFormula, T>,      MapBinary<MulFormula, T>,
      MapBinary<DivFormula, T>,         MapBinary<MinimumFormula, T>,  MapBinary<MaximumFormula, T>,
      MapBinary<SigmoidGradFormula, T>, MapBinary<TanhGradFormula, T>, MapBinary<ReluGradFormula, T>};
  constexpr int kCommon = sizeof kLoops / sizeof kLoops[0];
  if (index < kCommon) return kLoops[index];
  if constexpr (sizeof(T) == 4) return MapBinary<GeluGradFormula, float>;
  return nullptr;
}

template <typename T>
const RowLoops<T>* Rows() {
  static constexpr RowLoops<T> kLoops = {RowMax<T>,   ExpShifted<T>, Scale<T>,
                                         SumOfRow<T>, Accumulate<T>, MultiplyAdd<T>};
  return &kLoops;
}

UnaryLoop<float> UnaryFloat(int index) { return Unary<float>(index); }
UnaryLoop<double> UnaryDouble(int index) { return Unary<double>(index); }
BinaryLoop<float> BinaryFloat(int index) { return Binary<float>(index); }
BinaryLoop<double> BinaryDouble(int index) { return Binary<double>(index); }
const RowLoops<float>* RowsFloat() { return Rows<float>(); }
const RowLoops<double>* RowsDouble() { return Rows<double>(); }

}  // namespace HWY_NAMESPACE
}  // namespace gradweave
HWY_AFTER_NAMESPACE();

#if HWY_ONCE

namespace gradweave {
namespace {

HWY_EXPORT(UnaryFloat);
HWY_EXPORT(UnaryDouble);
HWY_EXPORT(BinaryFloat);
HWY_EXPORT(BinaryDouble);
HWY_EXPORT(RowsFloat);
HWY_EXPORT(RowsDouble);

// In the order of the tables above.
constexpr const char* kUnaryNames[] = {"Neg",     "Abs",  "Exp",   "Sqrt", "Rsqrt", "Reciprocal", "Square", "Tanh",
                                       "Sigmoid", "Relu", "Floor", "Ceil", "Round", "Erf",        "Gelu"};
constexpr const char* kBinaryNames[] = {"Add",     "Sub",         "Mul",      "Div",      "Minimum",
                                        "Maximum", "SigmoidGrad", "TanhGrad", "ReluGrad", "GeluGrad"};

template <size_t n>
int IndexOf(const char* const (&names)[n], absl::string_view name) {
  for (size_t i = 0; i < n; ++i) {
    if (name == names[i]) return static_cast<int>(i);
  }
  return -1;
}

}  // namespace

template <>
UnaryLoop<float> FindUnaryLoop(absl::string_view op) {
  const int index = IndexOf(kUnaryNames, op);
  return index < 0 ? nullptr : HWY_DYNAMIC_DISPATCH(UnaryFloat)(index);
}
template <>
UnaryLoop<double> FindUnaryLoop(absl::string_view op) {
  const int index = IndexOf(kUnaryNames, op);
  return index < 0 ? nullptr : HWY_DYNAMIC_DISPATCH(UnaryDouble)(index);
}
template <>
BinaryLoop<float> FindBinaryLoop(absl::string_view op) {
  const int index = IndexOf(kBinaryNames, op);
  return index < 0 ? nullptr : HWY_DYNAMIC_DISPATCH(BinaryFloat)(index);
}
template <>
BinaryLoop<double> FindBinaryLoop(absl::string_view op) {
  const int index = IndexOf(kBinaryNames, op);
  return index < 0 ? nullptr : HWY_DYNAMIC_DISPATCH(BinaryDouble)(index);
}
template <>
const RowLoops<float>& GetRowLoops() {
  return *HWY_DYNAMIC_DISPATCH(RowsFloat)();
}
template <>
const RowLoops<double>& GetRowLoops() {
  return *HWY_DYNAMIC_DISPATCH(RowsDouble)();
}

}  // namespace gradweave

#endif  // HWY_ONCE
