#include "gradweave/runtime/cpu/simd/vector_loops.h"

#include <cstring>
#include <limits>
#include <type_traits>
#include <utility>

#include "absl/container/flat_hash_map.h"
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
HWY_NOINLINE void MapUnary(const T* x, T* y, int64_t n, Formula formula = {}) {
  const hn::ScalableTag<T> d;
  const int64_t width = hn::Lanes(d);
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
  for (i = 0; i < n; ++i) {
    if (x[i] != x[i]) return x[i];
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

// ---- Loops of ops ----

// One byte for each lane: 1 where the mask is set.
template <class D, class M>
HWY_INLINE void StoreTruths(D d, M mask, bool* y) {
  const auto ones = hn::IfThenElseZero(mask, hn::Set(d, static_cast<hn::TFromD<D>>(1)));
  const hn::Rebind<int32_t, D> di;
  const hn::Rebind<uint8_t, D> du;
  if constexpr (sizeof(hn::TFromD<D>) == 8) {
    hn::StoreU(hn::DemoteTo(du, hn::DemoteTo(di, ones)), du, reinterpret_cast<uint8_t*>(y));
  } else {
    hn::StoreU(hn::DemoteTo(du, hn::ConvertTo(di, ones)), du, reinterpret_cast<uint8_t*>(y));
  }
}
template <class D>
HWY_INLINE auto LoadTruths(D d, const bool* x) {
  const hn::Rebind<int32_t, D> di;
  const hn::Rebind<uint8_t, D> du;
  const auto bytes = hn::PromoteTo(di, hn::LoadU(du, reinterpret_cast<const uint8_t*>(x)));
  if constexpr (sizeof(hn::TFromD<D>) == 8) {
    return hn::Ne(hn::PromoteTo(d, bytes), hn::Zero(d));
  } else {
    return hn::Ne(hn::ConvertTo(d, bytes), hn::Zero(d));
  }
}

template <typename T>
const T* Elements(const LoopOperand& operand) {
  return static_cast<const T*>(operand.data);
}

// Elements [from, n) one by one.
template <class Formula, typename T, typename Result>
void RunPairs(const LoopOperand* operands, void* y, int64_t from, int64_t n) {
  const T *a = Elements<T>(operands[0]), *b = Elements<T>(operands[1]);
  Result* to = static_cast<Result*>(y);
  const int64_t step_a = operands[0].is_vector, step_b = operands[1].is_vector;
  for (int64_t i = from; i < n; ++i) to[i] = Formula()(a[i * step_a], b[i * step_b]);
}

template <class Formula, typename T>
void RunUnary(const LoopOperand* operands, void* y, int64_t n, const double*) {
  using Vector = typename VectorForm<Formula, T>::Type;
  const T* x = Elements<T>(operands[0]);
  T* to = static_cast<T*>(y);
  if constexpr (std::is_void_v<Vector>) {
    for (int64_t i = 0; i < n; ++i) to[i] = Formula()(x[i]);
  } else {
    MapUnary<Vector, T>(x, to, n);
  }
}

template <class Formula, typename T>
void RunNumbered(const LoopOperand* operands, void* y, int64_t n, const double* numbers) {
  using Vector = typename VectorForm<Formula, T>::Type;
  const T* x = Elements<T>(operands[0]);
  T* to = static_cast<T*>(y);
  if constexpr (std::is_void_v<Vector>) {
    const Formula formula = formulas::WithNumbers<Formula, T>(numbers);
    for (int64_t i = 0; i < n; ++i) to[i] = formula(x[i]);
  } else {
    MapUnary<Vector, T>(x, to, n, Vector{numbers});
  }
}

template <class Formula, typename T>
void RunBinary(const LoopOperand* operands, void* y, int64_t n, const double*) {
  using Vector = typename VectorForm<Formula, T>::Type;
  if constexpr (std::is_void_v<Vector>) {
    RunPairs<Formula, T, T>(operands, y, 0, n);
  } else {
    MapBinary<Vector, T>(Elements<T>(operands[0]), operands[0].is_vector, Elements<T>(operands[1]),
                         operands[1].is_vector, static_cast<T*>(y), n);
  }
}

template <class Formula, typename T>
void RunComparison(const LoopOperand* operands, void* y, int64_t n, const double*) {
  using Vector = typename VectorForm<Formula, T>::Type;
  int64_t i = 0;
  if constexpr (!std::is_void_v<Vector>) {
    const hn::ScalableTag<T> d;
    const int64_t width = hn::Lanes(d);
    const T *a = Elements<T>(operands[0]), *b = Elements<T>(operands[1]);
    const bool a_is_vector = operands[0].is_vector, b_is_vector = operands[1].is_vector;
    for (; i + width <= n; i += width) {
      const auto va = a_is_vector ? hn::LoadU(d, a + i) : hn::Set(d, *a);
      const auto vb = b_is_vector ? hn::LoadU(d, b + i) : hn::Set(d, *b);
      StoreTruths(d, Vector()(d, va, vb), static_cast<bool*>(y) + i);
    }
  }
  RunPairs<Formula, T, bool>(operands, y, i, n);
}

template <typename T>
void RunWhere(const LoopOperand* operands, void* y, int64_t n, const double*) {
  const hn::ScalableTag<T> d;
  const int64_t width = hn::Lanes(d);
  const bool* condition = Elements<bool>(operands[0]);
  const T *a = Elements<T>(operands[1]), *b = Elements<T>(operands[2]);
  T* to = static_cast<T*>(y);
  const int64_t step = operands[0].is_vector, step_a = operands[1].is_vector, step_b = operands[2].is_vector;
  int64_t i = 0;
  if (step != 0) {
    for (; i + width <= n; i += width) {
      const auto va = step_a != 0 ? hn::LoadU(d, a + i) : hn::Set(d, *a);
      const auto vb = step_b != 0 ? hn::LoadU(d, b + i) : hn::Set(d, *b);
      hn::StoreU(hn::IfThenElse(LoadTruths(d, condition + i), va, vb), d, to + i);
    }
  }
  for (; i < n; ++i) to[i] = condition[i * step] ? a[i * step_a] : b[i * step_b];
}

// ---- Tables ----

using AddLoop = void (*)(const char* op, DType dtype, ElementLoop loop);

template <typename T>
void AddLoopsOf(DType dtype, AddLoop add) {
  formulas::ForUnaryFormulas([&]<formulas::Takes takes, typename Formula>(formulas::Row<takes, Formula> row) {
    if constexpr (formulas::kAccepted<takes, T>)
      add(row.op, dtype, {RunUnary<Formula, T>, !std::is_void_v<typename VectorForm<Formula, T>::Type>});
  });
  formulas::ForBinaryFormulas([&]<formulas::Takes takes, typename Formula>(formulas::Row<takes, Formula> row) {
    if constexpr (formulas::kAccepted<takes, T>)
      add(row.op, dtype, {RunBinary<Formula, T>, !std::is_void_v<typename VectorForm<Formula, T>::Type>});
  });
  formulas::ForComparisonFormulas([&]<formulas::Takes takes, typename Formula>(formulas::Row<takes, Formula> row) {
    add(row.op, dtype, {RunComparison<Formula, T>, !std::is_void_v<typename VectorForm<Formula, T>::Type>});
  });
  formulas::ForNumberedFormulas([&](auto row) {
    using Formula = typename decltype(row)::template Formula<T>;
    add(row.op, dtype, {RunNumbered<Formula, T>, !std::is_void_v<typename VectorForm<Formula, T>::Type>});
  });
  add("Where", dtype, {RunWhere<T>, true});
}

void AddTruthLoops(AddLoop add) {
  formulas::ForUnaryFormulas([&]<formulas::Takes takes, typename Formula>(formulas::Row<takes, Formula> row) {
    if constexpr (takes == formulas::Takes::kBool) add(row.op, kBool, {RunUnary<Formula, bool>, false});
  });
  formulas::ForBinaryFormulas([&]<formulas::Takes takes, typename Formula>(formulas::Row<takes, Formula> row) {
    if constexpr (takes == formulas::Takes::kBool) add(row.op, kBool, {RunBinary<Formula, bool>, false});
  });
}

void AddLoops(AddLoop add) {
  AddTruthLoops(add);
  AddLoopsOf<float>(kFloat32, add);
  AddLoopsOf<double>(kFloat64, add);
}

template <typename T>
const RowLoops<T>* Rows() {
  static constexpr RowLoops<T> kLoops = {RowMax<T>,   ExpShifted<T>, Scale<T>,
                                         SumOfRow<T>, Accumulate<T>, MultiplyAdd<T>};
  return &kLoops;
}

const RowLoops<float>* RowsFloat() { return Rows<float>(); }
const RowLoops<double>* RowsDouble() { return Rows<double>(); }

}  // namespace HWY_NAMESPACE
}  // namespace gradweave
HWY_AFTER_NAMESPACE();

#if HWY_ONCE

namespace gradweave {
namespace {

HWY_EXPORT(AddLoops);
HWY_EXPORT(RowsFloat);
HWY_EXPORT(RowsDouble);

using LoopTable = absl::flat_hash_map<std::pair<absl::string_view, DType>, ElementLoop>;

LoopTable& MutableLoops() {
  static auto* const loops = new LoopTable();
  return *loops;
}

const LoopTable& Loops() {
  static const LoopTable& loops = [&]() -> LoopTable& {
    HWY_DYNAMIC_DISPATCH(AddLoops)
    ([](const char* op, DType dtype, ElementLoop loop) { MutableLoops()[{op, dtype}] = loop; });
    return MutableLoops();
  }();
  return loops;
}

}  // namespace

ElementLoop FindElementLoop(absl::string_view op, DType dtype) {
  auto found = Loops().find({op, dtype});
  return found == Loops().end() ? ElementLoop{} : found->second;
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
