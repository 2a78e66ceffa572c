#include "gradweave/runtime/cpu/tile/toom_cook_kernels.h"

#include <array>
#include <type_traits>
#include <utility>

#include "gradweave/runtime/cpu/simd/filtering_points.h"
#include "gradweave/runtime/cpu/simd/vector_targets.h"
#include "gradweave/runtime/cpu/tile/tile_kernels.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "runtime/cpu/tile/toom_cook_kernels.cc"
// foreach_target.h comes first.
// clang-format off
#include "hwy/foreach_target.h"  // IWYU pragma: keep
#include "hwy/highway.h"
#include "gradweave/runtime/cpu/simd/minimal_filtering-inl.h"
#include "gradweave/runtime/cpu/simd/vector_registers-inl.h"
// clang-format on

HWY_BEFORE_NAMESPACE();
namespace gradweave {
namespace HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;

// Transforms x[0..2P+2), the columns of a tile.
template <int P, int... n>
HWY_INLINE void TransformColumns(const float* from, float* v, int64_t v_step, std::integer_sequence<int, n...>) {
  const D d;
  const int64_t lanes = hn::Lanes(d);
  const V x[2 * P + 2] = {hn::Load(d, from + n * lanes)...};
  TransformInput<P>(
      x, [&](int point, V value) HWY_ATTR { hn::Store(value, d, v + point * v_step); },
      std::make_integer_sequence<int, P>());
}

template <int P>
void InputRow(const ToomCookInput& g) {
  const D d;
  const int64_t lanes = hn::Lanes(d);
  constexpr int64_t kPoints = 2 * P + 2;
  HWY_ALIGN float edge[kPoints * hn::MaxLanes(D())];
  for (int64_t channel = 0; channel < g.channels; ++channel) {
    const float* x = g.x + channel * g.x_step;
    for (int64_t t = 0; t < g.tiles; ++t) {
      const int64_t column = g.first + t * g.step;
      const float* from = x + column * lanes;
      if (column < 0 || column + kPoints > g.columns) {
        for (int64_t k = 0; k < kPoints; ++k) {
          const bool inside = column + k >= 0 && column + k < g.columns;
          hn::Store(inside ? hn::Load(d, from + k * lanes) : hn::Zero(d), d, edge + k * lanes);
        }
        from = edge;
      }
      TransformColumns<P>(from, g.v + (channel * g.tiles + t) * lanes, g.v_step,
                          std::make_integer_sequence<int, 2 * P + 2>());
    }
  }
}

// Transforms the sums of a tile back to its columns of y.
template <int P, int M, int... n>
HWY_INLINE void InverseTransform(const float* products, int64_t step, V bias, float* y, int64_t columns,
                                 std::integer_sequence<int, n...>) {
  const D d;
  const int64_t lanes = hn::Lanes(d);
  const V sums[2 * P + 2] = {hn::Load(d, products + n * step)...};
  auto put = [&](int column, V value) HWY_ATTR {
    if (column < columns) hn::Store(value, d, y + column * lanes);
  };
  TransformOutput<P, M>(sums, bias, put, std::make_integer_sequence<int, P>(), std::make_integer_sequence<int, M>());
}

template <int P, int M>
void OutputRow(const ToomCookOutput& g) {
  const D d;
  const int64_t lanes = hn::Lanes(d);
  const float* products = g.products;
  for (int64_t channel = 0; channel < g.channels; ++channel) {
    const V bias = g.bias == nullptr ? hn::Zero(d) : hn::Set(d, g.bias[channel]);
    float* y = g.y + channel * g.y_step;
    for (int64_t column = 0; column < g.columns; column += M, products += lanes) {
      InverseTransform<P, M>(products, g.products_step, bias, y + column * lanes, g.columns - column,
                             std::make_integer_sequence<int, 2 * P + 2>());
    }
  }
}

template <int P, int M, int... k>
HWY_INLINE void EvaluateRow(const float* x, int64_t columns, float* v, int64_t v_step,
                            std::integer_sequence<int, k...>) {
  const D d;
  const int64_t lanes = hn::Lanes(d);
  V coefficients[M];
  auto put = [&](int point, V value) HWY_ATTR { hn::Store(value, d, v + point * v_step); };
  int64_t column = 0;
  for (; column + M <= columns; column += M, v += lanes) {
    ((coefficients[k] = hn::Load(d, x + (column + k) * lanes)), ...);
    Evaluate<P, M>(coefficients, put, std::make_integer_sequence<int, P>());
  }
  if (column < columns) {
    ((coefficients[k] = column + k < columns ? hn::Load(d, x + (column + k) * lanes) : hn::Zero(d)), ...);
    Evaluate<P, M>(coefficients, put, std::make_integer_sequence<int, P>());
  }
}

template <int P, int M>
void EvaluateRows(const ToomCookEvaluation& g) {
  const int64_t row_size = (g.columns + M - 1) / M * hn::Lanes(D());
  float* v = g.v;
  for (int64_t channel = 0; channel < g.channels; ++channel) {
    for (int64_t row = 0; row < g.rows; ++row, v += row_size) {
      EvaluateRow<P, M>(g.x + channel * g.x_step + row * g.x_row, g.columns, v, g.v_step,
                        std::make_integer_sequence<int, M>());
    }
  }
}

// Adds to sums[0..2P+2) the coefficients of the polynomial with the given values at the points.
// This is the transpose of TransformColumns.
template <int P, int... i, int... k>
HWY_INLINE void AddCoefficients(const float* products, int64_t step, V* sums, std::integer_sequence<int, i...>,
                                std::integer_sequence<int, k...>) {
  const D d;
  // Adds the coefficients times `value` to every second sum, starting at `from`. The last
  // coefficient is 1.
  auto add = [&](auto index, const auto& coefficients, V value, V* from) HWY_ATTR {
    constexpr int terms = decltype(index)::value;
    ((k + 1 < terms    ? (void)(from[2 * k] = hn::MulAdd(hn::Set(d, coefficients[k]), value, from[2 * k]))
      : k + 1 == terms ? (void)(from[2 * k] = hn::Add(from[2 * k], value))
                       : (void)0),
     ...);
  };
  constexpr std::array<float, P + 1> all = SquaresPolynomial<P>(P);
  add(std::integral_constant<int, P + 1>(), all, hn::Load(d, products), sums);
  add(std::integral_constant<int, P + 1>(), all, hn::Load(d, products + (2 * P + 1) * step), sums + 1);
  auto pair = [&](auto index) HWY_ATTR {
    constexpr int at = decltype(index)::value;
    constexpr std::array<float, P + 1> others = SquaresPolynomial<P>(at);
    const V plus = hn::Load(d, products + (2 * at + 1) * step), minus = hn::Load(d, products + (2 * at + 2) * step);
    const V point = hn::Set(d, static_cast<float>(FilteringPoint(P, at)));
    add(std::integral_constant<int, P>(), others, hn::Add(plus, minus), sums + 2);
    add(std::integral_constant<int, P>(), others, hn::Mul(point, hn::Sub(plus, minus)), sums + 1);
  };
  (pair(std::integral_constant<int, i>()), ...);
}

// Coefficients to which the next tiles add stay in registers.
template <int P, int M, int... k>
HWY_INLINE void InterpolateChannel(const ToomCookInterpolation& g, const float* products, V bias, float* y,
                                   std::integer_sequence<int, k...>) {
  const D d;
  const int64_t lanes = hn::Lanes(d);
  constexpr int kPoints = 2 * P + 2;
  V sums[kPoints];
  ((sums[k] = bias), ...);
  int64_t column = g.first;
  for (int64_t t = 0; t < g.tiles; ++t, column += M, products += lanes) {
    AddCoefficients<P>(products, g.products_step, sums, std::make_integer_sequence<int, P>(),
                       std::make_integer_sequence<int, P + 1>());
    float* to = y + column * lanes;
    if (column >= 0 && column + M <= g.columns) {
      ((k < M ? hn::Store(sums[k], d, to + k * lanes) : (void)0), ...);
    } else {
      ((k < M && column + k >= 0 && column + k < g.columns ? hn::Store(sums[k], d, to + k * lanes) : (void)0), ...);
    }
    ((sums[k] = k + M < kPoints ? sums[k + M < kPoints ? k + M : 0] : bias), ...);
  }
  float* to = y + column * lanes;
  ((column + k >= 0 && column + k < g.columns ? hn::Store(sums[k], d, to + k * lanes) : (void)0), ...);
}

template <int P, int M>
void Interpolate(const ToomCookInterpolation& g) {
  const D d;
  for (int64_t channel = 0; channel < g.channels; ++channel) {
    const V bias = g.bias == nullptr ? hn::Zero(d) : hn::Set(d, g.bias[channel]);
    InterpolateChannel<P, M>(g, g.products + channel * g.tiles * hn::Lanes(d), bias, g.y + channel * g.y_step,
                             std::make_integer_sequence<int, 2 * P + 2>());
  }
}

template <int P, int M>
void AddLoops(ToomCookKernels& kernels) {
  kernels.input[P] = InputRow<P>;
  // A kernel is at least two wide, which limits the columns.
  if constexpr (M <= 2 * P + 1) {
    kernels.output[P][M] = OutputRow<P, M>;
    kernels.evaluation[P][M] = EvaluateRows<P, M>;
    kernels.interpolation[P][M] = Interpolate<P, M>;
  }
  if constexpr (M < kMostToomCookOutputs) {
    AddLoops<P, M + 1>(kernels);
  } else if constexpr (P < kMostToomCookPairs) {
    AddLoops<P + 1, 2>(kernels);
  }
}

const ToomCookKernels* MakeToomCookKernels() {
  static const ToomCookKernels kernels = [] {
    ToomCookKernels made = {};
    AddLoops<1, 2>(made);
    return made;
  }();
  return &kernels;
}

}  // namespace HWY_NAMESPACE
}  // namespace gradweave
HWY_AFTER_NAMESPACE();

#if HWY_ONCE

namespace gradweave {
namespace {
HWY_EXPORT(MakeToomCookKernels);
}  // namespace

const ToomCookKernels& GetToomCookKernels(int lanes) {
#if HWY_TARGETS & HWY_AVX2
  if (lanes == kLanesOfAvx2) return *N_AVX2::MakeToomCookKernels();
#endif
  static const ToomCookKernels& kernels = *HWY_DYNAMIC_DISPATCH(MakeToomCookKernels)();
  return kernels;
}

}  // namespace gradweave

#endif  // HWY_ONCE
