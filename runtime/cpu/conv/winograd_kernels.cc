#include "gradweave/runtime/cpu/conv/winograd_kernels.h"

#include <array>
#include <type_traits>
#include <utility>

#include "gradweave/runtime/cpu/simd/filtering_points.h"
#include "gradweave/runtime/cpu/simd/vector_targets.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "runtime/cpu/conv/winograd_kernels.cc"
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

// Returns 1 / the product of the distances of a pair's points from all other points, or of the
// point 0 if `pair` is -1. Both points of a pair have the same product.
template <int P>
constexpr float InverseDistance(int pair) {
  const double point = pair < 0 ? 0 : FilteringPoint(P, pair);
  double distance = pair < 0 ? 1 : 2 * point * point;
  for (int i = 0; i < P; ++i) {
    const double other = FilteringPoint(P, i);
    if (i != pair) distance *= point * point - other * other;
  }
  return static_cast<float>(1 / distance);
}

// Evaluates the polynomial with three coefficients w at the points, each divided by its distances
// from the others: put(point, vector).
template <int P, typename Put, int... i>
HWY_INLINE void TransformFilter(const V* w, Put put, std::integer_sequence<int, i...>) {
  const D d;
  put(0, hn::Mul(hn::Set(d, InverseDistance<P>(-1)), w[0]));
  put(2 * P + 1, w[2]);
  auto pair = [&](auto index) HWY_ATTR {
    constexpr int at = decltype(index)::value;
    constexpr double point = FilteringPoint(P, at);
    const V inverse = hn::Set(d, InverseDistance<P>(at));
    const V even = hn::Mul(inverse, hn::MulAdd(hn::Set(d, PowerOf(point, 2)), w[2], w[0]));
    const V odd = hn::Mul(hn::Set(d, static_cast<float>(point) * InverseDistance<P>(at)), w[1]);
    put(2 * at + 1, hn::Add(even, odd));
    put(2 * at + 2, hn::Sub(even, odd));
  };
  (pair(std::integral_constant<int, i>()), ...);
}

// Transforms of vectors x to values at the N points: Run(x, put) calls put(point, vector).
template <int P>
struct InputTransform {
  static constexpr int kVectors = 2 * P + 2;
  template <typename Put>
  static HWY_INLINE void Run(const V* x, Put put) {
    TransformInput<P>(x, put, std::make_integer_sequence<int, P>());
  }
};
template <int P>
struct EvaluationTransform {
  static constexpr int kVectors = 2 * P;
  template <typename Put>
  static HWY_INLINE void Run(const V* x, Put put) {
    Evaluate<P, 2 * P>(x, put, std::make_integer_sequence<int, P>());
  }
};

// Transforms a strip along its columns, in place, and then along the rows of each tile. Input tiles
// that are neighbours share columns, which are transformed once.
template <int P, class Transform, int... n>
HWY_INLINE void TransformStrip(const WinogradStrip& g, std::integer_sequence<int, n...>) {
  constexpr int64_t M = 2 * P, N = M + 2, kSize = Transform::kVectors;
  const D d;
  const int64_t lanes = hn::Lanes(d), row = (M * g.tiles + kSize - M) * lanes;
  for (float* column = g.strip; column < g.strip + row; column += lanes) {
    const V x[kSize] = {hn::Load(d, column + n * row)...};
    Transform::Run(x, [&](int point, V v) HWY_ATTR { hn::Store(v, d, column + point * row); });
  }
  for (int64_t t = 0; t < g.tiles; ++t) {
    float* const to = g.v + t * g.v_tile;
    for (int64_t i = 0; i < N; ++i) {
      const float* const from = g.strip + i * row + t * M * lanes;
      const V x[kSize] = {hn::Load(d, from + n * lanes)...};
      Transform::Run(x, [&](int point, V v) HWY_ATTR { hn::Store(v, d, to + (i * N + point) * g.v_point); });
    }
  }
}
template <int P>
void Input(const WinogradStrip& g) {
  TransformStrip<P, InputTransform<P>>(g, std::make_integer_sequence<int, 2 * P + 2>());
}
template <int P>
void Evaluation(const WinogradStrip& g) {
  TransformStrip<P, EvaluationTransform<P>>(g, std::make_integer_sequence<int, 2 * P>());
}

template <int P, int... n>
HWY_INLINE void OutputStrip(const WinogradOutput& g, std::integer_sequence<int, n...>) {
  constexpr int M = 2 * P, N = M + 2;
  const D d;
  const int64_t lanes = hn::Lanes(d), row = M * g.tiles * lanes;
  constexpr std::make_integer_sequence<int, P> pairs;
  constexpr std::make_integer_sequence<int, M> outputs;
  const V bias = hn::Load(d, g.bias);
  HWY_ALIGN float rows[N * M * hn::MaxLanes(D())];  // Rows at the points, columns of the output.
  for (int64_t t = 0; t < g.tiles; ++t) {
    const float* from = g.sums + t * g.tile_step;
    for (int i = 0; i < N; ++i, from += N * g.point_step) {
      const V x[N] = {hn::Load(d, from + n * g.point_step)...};
      TransformOutput<P, M>(
          x, hn::Zero(d), [&](int column, V y) HWY_ATTR { hn::Store(y, d, rows + (column * N + i) * lanes); }, pairs,
          outputs);
    }
    for (int j = 0; j < M; ++j) {
      const V x[N] = {hn::Load(d, rows + (j * N + n) * lanes)...};
      float* const to = g.strip + (t * M + j) * lanes;
      TransformOutput<P, M>(
          x, bias, [&](int i, V y) HWY_ATTR { hn::Store(y, d, to + i * row); }, pairs, outputs);
    }
  }
}
template <int P>
void Output(const WinogradOutput& g) {
  OutputStrip<P>(g, std::make_integer_sequence<int, 2 * P + 2>());
}

template <int P>
void Filter(const WinogradFilter& g) {
  constexpr int N = 2 * P + 2;
  const D d;
  const int64_t lanes = hn::Lanes(d);
  constexpr std::make_integer_sequence<int, P> pairs;
  HWY_ALIGN float columns[N * 3 * hn::MaxLanes(D())];  // Rows at the points, columns of the filter.
  for (int l = 0; l < 3; ++l) {
    const V w[3] = {hn::Load(d, g.w + l * lanes), hn::Load(d, g.w + (3 + l) * lanes),
                    hn::Load(d, g.w + (6 + l) * lanes)};
    TransformFilter<P>(
        w, [&](int point, V u) HWY_ATTR { hn::Store(u, d, columns + (point * 3 + l) * lanes); }, pairs);
  }
  for (int i = 0; i < N; ++i) {
    const float* const from = columns + i * 3 * lanes;
    const V w[3] = {hn::Load(d, from), hn::Load(d, from + lanes), hn::Load(d, from + 2 * lanes)};
    TransformFilter<P>(
        w, [&](int point, V u) HWY_ATTR { hn::Store(u, d, g.u + (i * N + point) * g.u_point); }, pairs);
  }
}

// Computes the three coefficients of a filter from sums at the points: put(column, vector).
template <int P, typename Put, int... n>
HWY_INLINE void FilterCoefficients(const V* sums, Put put, std::integer_sequence<int, n...>) {
  const D d;
  constexpr int kLast = 2 * P + 1;
  const V scaled[] = {
      (n == kLast ? sums[n] : hn::Mul(hn::Set(d, InverseDistance<P>(n == 0 ? -1 : (n - 1) / 2)), sums[n]))...};
  TransformOutput<P, 3>(scaled, hn::Zero(d), put, std::make_integer_sequence<int, P>(),
                        std::make_integer_sequence<int, 3>());
}

template <int P, int... n>
HWY_INLINE void TransformFilterSums(const WinogradFilterSums& g, std::integer_sequence<int, n...> points) {
  constexpr int N = 2 * P + 2;
  const D d;
  const int64_t lanes = hn::Lanes(d);
  HWY_ALIGN float rows[N * 3 * hn::MaxLanes(D())];  // Rows at the points, columns of the filter.
  for (int i = 0; i < N; ++i) {
    const float* const from = g.sums + i * N * g.point_step;
    const V x[N] = {hn::Load(d, from + n * g.point_step)...};
    FilterCoefficients<P>(
        x, [&](int column, V w) HWY_ATTR { hn::Store(w, d, rows + (column * N + i) * lanes); }, points);
  }
  for (int l = 0; l < 3; ++l) {
    const V x[N] = {hn::Load(d, rows + (l * N + n) * lanes)...};
    FilterCoefficients<P>(
        x, [&](int k, V w) HWY_ATTR { hn::Store(w, d, g.dw + (k * 3 + l) * lanes); }, points);
  }
}
template <int P>
void FilterSums(const WinogradFilterSums& g) {
  TransformFilterSums<P>(g, std::make_integer_sequence<int, 2 * P + 2>());
}

const WinogradKernels* MakeWinogradKernels() {
  static constexpr WinogradKernels kKernels = {.input = {nullptr, Input<1>, Input<2>},
                                               .output = {nullptr, Output<1>, Output<2>},
                                               .filter = {nullptr, Filter<1>, Filter<2>},
                                               .evaluation = {nullptr, Evaluation<1>, Evaluation<2>},
                                               .filter_sums = {nullptr, FilterSums<1>, FilterSums<2>}};
  return &kKernels;
}

}  // namespace HWY_NAMESPACE
}  // namespace gradweave
HWY_AFTER_NAMESPACE();

#if HWY_ONCE

namespace gradweave {
namespace {
HWY_EXPORT(MakeWinogradKernels);
}  // namespace

const WinogradKernels& GetWinogradKernels() { return *HWY_DYNAMIC_DISPATCH(MakeWinogradKernels)(); }

}  // namespace gradweave

#endif  // HWY_ONCE
