#include "gradweave/runtime/cpu/simd/vector_loops.h"

#include <cstring>
#include <limits>

#include "gradweave/runtime/cpu/simd/vector_targets.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "runtime/cpu/simd/vector_loops.cc"
// foreach_target.h comes first.
// clang-format off
#include "hwy/foreach_target.h"  // IWYU pragma: keep
#include "hwy/highway.h"
#include "gradweave/runtime/cpu/simd/vector_formulas-inl.h"
// clang-format on

HWY_BEFORE_NAMESPACE();
namespace gradweave {
namespace HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;

// ---- Loops ----

// The last elements go through a buffer of one vector. They use the same formula at the same width,
// so they get the same bits.
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
  auto sum = hn::Zero(d);  // NaN if an element is NaN, or if there are infinities of both signs.
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

// Four independent sums hide the latency of additions.
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

// Same order as the tables above.
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
