// Vector formulas of elementwise ops for float32 and float64, as functors of a Highway tag and
// vectors. Included once for each target, behind hwy/foreach_target.h.
#if defined(GRADWEAVE_RUNTIME_CPU_SIMD_VECTOR_FORMULAS_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef GRADWEAVE_RUNTIME_CPU_SIMD_VECTOR_FORMULAS_INL_H_
#undef GRADWEAVE_RUNTIME_CPU_SIMD_VECTOR_FORMULAS_INL_H_
#else
#define GRADWEAVE_RUNTIME_CPU_SIMD_VECTOR_FORMULAS_INL_H_
#endif

#include <limits>

#include "gradweave/runtime/kernel/formulas.h"
#include "hwy/contrib/math/math-inl.h"
#include "hwy/highway.h"

HWY_BEFORE_NAMESPACE();
namespace gradweave {
namespace HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;

template <class D, class V>
HWY_INLINE V KeepNaN(D, V x, V y) {
  return hn::IfThenElse(hn::IsNaN(x), x, y);
}

// Highway's Exp is valid up to arguments slightly above the overflow of the result. Clamping there
// gives infinity.
template <class D, class V>
HWY_INLINE V SafeExp(D d, V x) {
  using T = hn::TFromD<D>;
  return KeepNaN(d, x, hn::Exp(d, hn::Min(x, hn::Set(d, static_cast<T>(sizeof(T) == 4 ? 104 : 710)))));
}

// a where a < b, else b, so b too where one of them is NaN. The minimum instruction of x86 does
// this. NEON's minimum takes the number instead, and of two zeros the negative one.
template <class D, class V>
HWY_INLINE V Lesser(D, V a, V b) {
#if HWY_TARGET != HWY_SCALAR && HWY_ARCH_X86
  return hn::Min(a, b);
#else
  return hn::IfThenElse(hn::Lt(a, b), a, b);
#endif
}
// a where a > b, else b.
template <class D, class V>
HWY_INLINE V Larger(D, V a, V b) {
#if HWY_TARGET != HWY_SCALAR && HWY_ARCH_X86
  return hn::Max(a, b);
#else
  return hn::IfThenElse(hn::Gt(a, b), a, b);
#endif
}

// Clamps x to the bounds and keeps NaN.
template <class D, class V>
HWY_INLINE V ClampNumber(D d, V x, hn::TFromD<D> least, hn::TFromD<D> most) {
  return Lesser(d, hn::Set(d, most), Larger(d, hn::Set(d, least), x));
}

// e^x of float32 for x in [-87, 89], with a relative error of 1e-7. It is shorter than a full Exp,
// which must also handle results below 1e-38. e^x = 2^n * e^r with |r| <= ln(2)/2 (Cody and Waite,
// "Software manual for the elementary functions", 1980, chapter 6), and e^r = 1 + r + r^2*P(r) with
// a minimax polynomial P (Lawson's iteration on least squares). It computes N vectors side by side,
// operation by operation, because a single one would wait for its own results.
template <int N, class D, class V>
HWY_INLINE void ShortExp(D d, V* x) {
  const hn::RebindToSigned<D> di;
  const V one = hn::Set(d, 1.0f);
  // Floats between 2^23 and 2^24 are integers, so the sum rounds, and its low bits are n plus the
  // exponent's bias.
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

// e^x for x <= 0, as softmax needs it. Results that are negligible beside 1 are zero.
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

// Highway's Sin and Cos reduce arguments up to this; beyond, elements go through the C library one
// by one.
constexpr double kMostRadians = 39000;

template <class Scalar, class D, class V>
HWY_INLINE V FarRadians(D d, V x, V near) {
  using T = hn::TFromD<D>;
  const auto is_near = hn::Le(hn::Abs(x), hn::Set(d, static_cast<T>(kMostRadians)));
  if (HWY_LIKELY(hn::AllTrue(d, is_near))) return near;
  HWY_ALIGN T lanes[hn::MaxLanes(d)];
  hn::Store(x, d, lanes);
  for (size_t i = 0; i < hn::Lanes(d); ++i) lanes[i] = Scalar()(lanes[i]);
  return hn::IfThenElse(is_near, near, hn::Load(d, lanes));
}

template <class D, class V>
HWY_INLINE V Infinity(D d) {
  return hn::Set(d, std::numeric_limits<hn::TFromD<D>>::infinity());
}

// Highway's Log takes positive finite numbers; so does its Log1p of x > -1. At the pole the result
// is -infinity, below it NaN, of infinity infinity.
template <class D, class V>
HWY_INLINE V MendLog(D d, V x, V pole, V log) {
  const V nan = hn::Set(d, std::numeric_limits<hn::TFromD<D>>::quiet_NaN());
  const V infinity = Infinity<D, V>(d);
  const V below = hn::IfThenElse(hn::Eq(x, pole), hn::Neg(infinity), nan);
  return hn::IfThenElse(hn::Gt(x, pole), hn::IfThenElse(hn::Eq(x, infinity), x, log), below);
}

// Highway's Expm1 takes arguments up to a little above where the result overflows; beyond, it is
// infinite.
template <class D, class V>
HWY_INLINE V SafeExpm1(D d, V x) {
  using T = hn::TFromD<D>;
  return KeepNaN(d, x, hn::Expm1(d, hn::Min(x, hn::Set(d, static_cast<T>(sizeof(T) == 4 ? 104 : 710)))));
}

// alpha * (e^x - 1) where x is not positive, else x.
template <class D, class V>
HWY_INLINE V ExpBelowZero(D d, V x, V alpha) {
  const V zero = hn::Zero(d);
  const V below = hn::Mul(alpha, SafeExpm1(d, hn::IfThenElse(hn::Gt(x, zero), zero, x)));
  return hn::IfThenElse(hn::Gt(x, zero), x, below);
}

// e^|x| / 2, which is finite where cosh(x) is: e^(|x|/2) is.
template <class D, class V>
HWY_INLINE V HalfExpOfSize(D d, V x) {
  const V half = hn::Set(d, static_cast<hn::TFromD<D>>(0.5));
  const V root = SafeExp(d, hn::Mul(hn::Abs(x), half));
  return hn::Mul(hn::Mul(root, half), root);
}

template <class D, class V>
HWY_INLINE V CoshOfNumber(D d, V x) {
  const V e = HalfExpOfSize(d, x);
  return hn::Add(e, hn::Div(hn::Set(d, static_cast<hn::TFromD<D>>(0.25)), e));
}

// Near 0, the difference of the two exponentials would lose its digits: with u = e^|x| - 1, it is u
// + u/(u + 1).
template <class D, class V>
HWY_INLINE V SinhOfNumber(D d, V x) {
  using T = hn::TFromD<D>;
  const V one = hn::Set(d, static_cast<T>(1)), size = hn::Abs(x);
  const V e = HalfExpOfSize(d, x), far = hn::Sub(e, hn::Div(hn::Set(d, static_cast<T>(0.25)), e));
  const V u = hn::Expm1(d, hn::Min(size, one));
  const V near = hn::Mul(hn::Set(d, static_cast<T>(0.5)), hn::Add(u, hn::Div(u, hn::Add(u, one))));
  return KeepNaN(d, x, hn::CopySign(hn::IfThenElse(hn::Lt(size, one), near, far), x));
}

// Highway's inverse hyperbolic functions take finite numbers inside of the domain.
template <class D, class V>
HWY_INLINE V SafeAsinh(D d, V x) {
  return hn::IfThenElse(hn::Eq(hn::Abs(x), Infinity<D, V>(d)), x, KeepNaN(d, x, hn::Asinh(d, x)));
}
template <class D, class V>
HWY_INLINE V SafeAcosh(D d, V x) {
  using T = hn::TFromD<D>;
  const V nan = hn::Set(d, std::numeric_limits<T>::quiet_NaN());
  const V inside = hn::IfThenElse(hn::Eq(x, Infinity<D, V>(d)), x, hn::Acosh(d, x));
  return hn::IfThenElse(hn::Ge(x, hn::Set(d, static_cast<T>(1))), inside, nan);
}
template <class D, class V>
HWY_INLINE V SafeAtanh(D d, V x) {
  using T = hn::TFromD<D>;
  const V nan = hn::Set(d, std::numeric_limits<T>::quiet_NaN()), one = hn::Set(d, static_cast<T>(1));
  const V size = hn::Abs(x);
  const V border = hn::IfThenElse(hn::Eq(size, one), hn::CopySign(Infinity<D, V>(d), x), nan);
  return hn::IfThenElse(hn::Lt(size, one), hn::Atanh(d, x), border);
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
#define GRADWEAVE_FORMULA2(name, expression)          \
  struct name {                                       \
    template <class D, class V>                       \
    HWY_INLINE auto operator()(D d, V a, V b) const { \
      using T = hn::TFromD<D>;                        \
      (void)d;                                        \
      (void)sizeof(T);                                \
      return expression;                              \
    }                                                 \
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
GRADWEAVE_FORMULA1(SignFormula, KeepNaN(d, x,
                                        hn::Sub(hn::IfThenElseZero(hn::Gt(x, GRADWEAVE_ZERO), GRADWEAVE_ONE),
                                                hn::IfThenElseZero(hn::Lt(x, GRADWEAVE_ZERO), GRADWEAVE_ONE))))
GRADWEAVE_FORMULA1(Expm1Formula, SafeExpm1(d, x))
GRADWEAVE_FORMULA1(LogFormula, MendLog(d, x, GRADWEAVE_ZERO, hn::Log(d, x)))
GRADWEAVE_FORMULA1(Log1pFormula, MendLog(d, x, hn::Neg(GRADWEAVE_ONE), hn::Log1p(d, x)))
GRADWEAVE_FORMULA1(SinFormula, FarRadians<formulas::Sin>(d, x, hn::Sin(d, x)))
GRADWEAVE_FORMULA1(CosFormula, FarRadians<formulas::Cos>(d, x, hn::Cos(d, x)))
GRADWEAVE_FORMULA1(AsinFormula, hn::Asin(d, x))
GRADWEAVE_FORMULA1(AcosFormula, hn::Acos(d, x))
GRADWEAVE_FORMULA1(AtanFormula, hn::Atan(d, x))
GRADWEAVE_FORMULA1(SinhFormula, SinhOfNumber(d, x))
GRADWEAVE_FORMULA1(CoshFormula, KeepNaN(d, x, CoshOfNumber(d, x)))
GRADWEAVE_FORMULA1(AsinhFormula, SafeAsinh(d, x))
GRADWEAVE_FORMULA1(AcoshFormula, SafeAcosh(d, x))
GRADWEAVE_FORMULA1(AtanhFormula, SafeAtanh(d, x))
GRADWEAVE_FORMULA1(SeluFormula, hn::Mul(hn::Set(d, static_cast<T>(1.0507009873554805)),
                                        ExpBelowZero(d, x, hn::Set(d, static_cast<T>(1.6732632423543772)))))
// log(1 + e^x) = max(x, 0) + log(1 + e^-|x|): neither term overflows.
GRADWEAVE_FORMULA1(SoftplusFormula,
                   hn::Add(KeepNaN(d, x, hn::Max(x, GRADWEAVE_ZERO)), hn::Log1p(d, SafeExp(d, hn::Neg(hn::Abs(x))))))

// For very negative x, e^-x overflows to infinity, and the quotient is 0 as required.
struct SigmoidFormula {
  static constexpr int kSideBySide = 2;
  template <int N, class D, class V>
  HWY_INLINE void Apply(D d, V* x) const {
    using T = hn::TFromD<D>;
    if constexpr (sizeof(T) == 8) {
      for (int k = 0; k < N; ++k) x[k] = hn::Div(GRADWEAVE_ONE, hn::Add(GRADWEAVE_ONE, SafeExp(d, hn::Neg(x[k]))));
    } else {
      // The clamps do not change the result: e^-87 is lost in the sum, and e^89 makes the result 0.
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
GRADWEAVE_FORMULA2(MinimumFormula, KeepNaN(d, a, Lesser(d, a, b)))
GRADWEAVE_FORMULA2(MaximumFormula, KeepNaN(d, a, Larger(d, a, b)))
GRADWEAVE_FORMULA2(EqualFormula, hn::Eq(a, b))
// Highway's Ne is false for NaN on some targets; NaN differs from everything.
GRADWEAVE_FORMULA2(NotEqualFormula, hn::Not(hn::Eq(a, b)))
GRADWEAVE_FORMULA2(LessFormula, hn::Lt(a, b))
GRADWEAVE_FORMULA2(LessEqualFormula, hn::Le(a, b))
GRADWEAVE_FORMULA2(GreaterFormula, hn::Gt(a, b))
GRADWEAVE_FORMULA2(GreaterEqualFormula, hn::Ge(a, b))
// a is the logit and b the target.
struct SigmoidCrossEntropyFormula {
  template <class D, class V>
  HWY_INLINE V operator()(D d, V a, V b) const {
    using T = hn::TFromD<D>;
    const V size = hn::Abs(a);
    const V weight = hn::IfThenElse(hn::Gt(a, GRADWEAVE_ZERO), hn::Sub(GRADWEAVE_ONE, b), b);
    const V linear = hn::IfThenZeroElse(hn::Eq(weight, GRADWEAVE_ZERO), hn::Mul(weight, size));
    return KeepNaN(d, a, hn::Add(linear, hn::Log1p(d, SafeExp(d, hn::Neg(size)))));
  }
};
// The gradient ops: a is dy and b is y.
GRADWEAVE_FORMULA2(SigmoidGradFormula, hn::Mul(hn::Mul(a, b), hn::Sub(GRADWEAVE_ONE, b)))
GRADWEAVE_FORMULA2(TanhGradFormula, hn::Mul(a, hn::Sub(GRADWEAVE_ONE, hn::Mul(b, b))))
GRADWEAVE_FORMULA2(ReluGradFormula, hn::IfThenElseZero(hn::Gt(b, GRADWEAVE_ZERO), a))

// For float32 only; float64 uses the C library. erf(x) = x*P(x^2)/Q(x^2) up to |x| = 4, and +-1
// beyond, with an error of 4e-7. P and Q minimise the largest error (Lawson's iteration on least
// squares).
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
    // Exactly zero for large |x|, where x^2 may overflow.
    const V density =
        hn::Mul(ExpOfNegative(d, hn::Mul(hn::Mul(x, hn::Neg(half)), x)), hn::Set(d, 0.398942280401432678f));
    return hn::Mul(dy, hn::MulAdd(x, density, distribution));
  }
};

// Rounds as formulas::RoundedToHalf does.
struct RoundToFloat16Formula {
  template <class D, class V>
  HWY_INLINE V operator()(D d, V x) const {
    const hn::RebindToUnsigned<D> du;
    const V size = hn::Abs(x), above = hn::Set(d, 65536.0f), least = hn::Set(d, 6.103515625e-5f);
    const V power = hn::BitCast(d, hn::And(hn::BitCast(du, size), hn::Set(du, 0x7F800000u)));
    const V round = hn::Mul(hn::IfThenElse(hn::Lt(power, least), least, power), hn::Set(d, 12288.0f));
    const V rounded = hn::Sub(hn::Add(size, round), round);
    // Beyond `above`, the product is infinite, or NaN.
    return hn::IfThenElse(hn::And(hn::Lt(size, above), hn::Lt(rounded, above)), hn::CopySignToAbs(rounded, x),
                          hn::Mul(x, hn::Set(d, 3e38f)));
  }
};
struct RoundToBFloat16Formula {
  template <class D, class V>
  HWY_INLINE V operator()(D d, V x) const {
    const hn::RebindToUnsigned<D> du;
    const auto bits = hn::BitCast(du, x);
    const auto last = hn::And(hn::ShiftRight<16>(bits), hn::Set(du, 1u));
    const auto rounded = hn::Add(bits, hn::Add(last, hn::Set(du, 0x7FFFu)));
    return KeepNaN(d, x, hn::BitCast(d, hn::And(rounded, hn::Set(du, 0xFFFF0000u))));
  }
};

// The ops with numbers.
struct LeakyReluFormula {
  const double* numbers;
  template <class D, class V>
  HWY_INLINE V operator()(D d, V x) const {
    const V slope = hn::Set(d, static_cast<hn::TFromD<D>>(numbers[0]));
    return hn::IfThenElse(hn::Gt(x, hn::Zero(d)), x, hn::Mul(slope, x));
  }
};
struct EluFormula {
  const double* numbers;
  template <class D, class V>
  HWY_INLINE V operator()(D d, V x) const {
    return ExpBelowZero(d, x, hn::Set(d, static_cast<hn::TFromD<D>>(numbers[0])));
  }
};
struct ClipFormula {
  const double* numbers;
  template <class D, class V>
  HWY_INLINE V operator()(D d, V x) const {
    const V low = hn::Set(d, static_cast<hn::TFromD<D>>(numbers[0]));
    const V high = hn::Set(d, static_cast<hn::TFromD<D>>(numbers[1]));
    return hn::IfThenElse(hn::Lt(x, low), low, hn::IfThenElse(hn::Gt(x, high), high, x));
  }
};

// ---- Which formula an op has ----

// The vector form of a formula of formulas.h, for vectors of T; void where there is none, and
// elements go one by one.
template <class Formula, typename T>
struct VectorForm {
  using Type = void;
};
#define GRADWEAVE_VECTOR_FORM(name)      \
  template <typename T>                  \
  struct VectorForm<formulas::name, T> { \
    using Type = name##Formula;          \
  };
#define GRADWEAVE_FLOAT_VECTOR_FORM(name)    \
  template <>                                \
  struct VectorForm<formulas::name, float> { \
    using Type = name##Formula;              \
  };
#define GRADWEAVE_NUMBERED_VECTOR_FORM(name) \
  template <typename T>                      \
  struct VectorForm<formulas::name<T>, T> {  \
    using Type = name##Formula;              \
  };
GRADWEAVE_VECTOR_FORM(Neg)
GRADWEAVE_VECTOR_FORM(Abs)
GRADWEAVE_VECTOR_FORM(Sign)
GRADWEAVE_VECTOR_FORM(Square)
GRADWEAVE_VECTOR_FORM(Relu)
GRADWEAVE_VECTOR_FORM(Exp)
GRADWEAVE_VECTOR_FORM(Expm1)
GRADWEAVE_VECTOR_FORM(Log)
GRADWEAVE_VECTOR_FORM(Log1p)
GRADWEAVE_VECTOR_FORM(Sqrt)
GRADWEAVE_VECTOR_FORM(Rsqrt)
GRADWEAVE_VECTOR_FORM(Reciprocal)
GRADWEAVE_VECTOR_FORM(Sin)
GRADWEAVE_VECTOR_FORM(Cos)
GRADWEAVE_VECTOR_FORM(Asin)
GRADWEAVE_VECTOR_FORM(Acos)
GRADWEAVE_VECTOR_FORM(Atan)
GRADWEAVE_VECTOR_FORM(Sinh)
GRADWEAVE_VECTOR_FORM(Cosh)
GRADWEAVE_VECTOR_FORM(Tanh)
GRADWEAVE_VECTOR_FORM(Asinh)
GRADWEAVE_VECTOR_FORM(Acosh)
GRADWEAVE_VECTOR_FORM(Atanh)
GRADWEAVE_VECTOR_FORM(Sigmoid)
GRADWEAVE_VECTOR_FORM(Selu)
GRADWEAVE_VECTOR_FORM(Softplus)
GRADWEAVE_VECTOR_FORM(Floor)
GRADWEAVE_VECTOR_FORM(Ceil)
GRADWEAVE_VECTOR_FORM(Round)
GRADWEAVE_FLOAT_VECTOR_FORM(Gelu)
GRADWEAVE_FLOAT_VECTOR_FORM(RoundToFloat16)
GRADWEAVE_FLOAT_VECTOR_FORM(RoundToBFloat16)
GRADWEAVE_FLOAT_VECTOR_FORM(Erf)
GRADWEAVE_VECTOR_FORM(Add)
GRADWEAVE_VECTOR_FORM(Sub)
GRADWEAVE_VECTOR_FORM(Mul)
GRADWEAVE_VECTOR_FORM(Div)
GRADWEAVE_VECTOR_FORM(Minimum)
GRADWEAVE_VECTOR_FORM(Maximum)
GRADWEAVE_VECTOR_FORM(SigmoidCrossEntropy)
GRADWEAVE_VECTOR_FORM(SigmoidGrad)
GRADWEAVE_VECTOR_FORM(TanhGrad)
GRADWEAVE_VECTOR_FORM(ReluGrad)
GRADWEAVE_FLOAT_VECTOR_FORM(GeluGrad)
GRADWEAVE_VECTOR_FORM(Equal)
GRADWEAVE_VECTOR_FORM(NotEqual)
GRADWEAVE_VECTOR_FORM(Less)
GRADWEAVE_VECTOR_FORM(LessEqual)
GRADWEAVE_VECTOR_FORM(Greater)
GRADWEAVE_VECTOR_FORM(GreaterEqual)
GRADWEAVE_NUMBERED_VECTOR_FORM(LeakyRelu)
GRADWEAVE_NUMBERED_VECTOR_FORM(Elu)
GRADWEAVE_NUMBERED_VECTOR_FORM(Clip)
#undef GRADWEAVE_VECTOR_FORM
#undef GRADWEAVE_FLOAT_VECTOR_FORM
#undef GRADWEAVE_NUMBERED_VECTOR_FORM

#undef GRADWEAVE_FORMULA1
#undef GRADWEAVE_FORMULA2
#undef GRADWEAVE_ONE
#undef GRADWEAVE_ZERO

}  // namespace HWY_NAMESPACE
}  // namespace gradweave
HWY_AFTER_NAMESPACE();

#endif  // GRADWEAVE_RUNTIME_CPU_SIMD_VECTOR_FORMULAS_INL_H_
