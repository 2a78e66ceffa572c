// The common part of the loops over windows: parts of vectors, split rows, and shared loads.
// Included once for each target, behind hwy/foreach_target.h.
#if defined(GRADWEAVE_RUNTIME_CPU_CONV_WINDOW_LOOPS_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef GRADWEAVE_RUNTIME_CPU_CONV_WINDOW_LOOPS_INL_H_
#undef GRADWEAVE_RUNTIME_CPU_CONV_WINDOW_LOOPS_INL_H_
#else
#define GRADWEAVE_RUNTIME_CPU_CONV_WINDOW_LOOPS_INL_H_
#endif

#include <algorithm>
#include <cstdint>

#include "gradweave/runtime/cpu/simd/vector_registers-inl.h"
#include "hwy/highway.h"

HWY_BEFORE_NAMESPACE();
namespace gradweave {
namespace HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;

template <typename T>
using DV = hn::ScalableTag<T>;
template <typename T>
using VV = hn::Vec<DV<T>>;

// True where loads and stores with a mask touch nothing else.
#undef GRADWEAVE_MASKS
#if HWY_ARCH_X86 && HWY_TARGET <= HWY_AVX2
#define GRADWEAVE_MASKS 1
#else
#define GRADWEAVE_MASKS 0
#endif

// LoadPart and StorePart load and store n elements, fewer than a vector has. The other lanes are
// zeros.
template <class D, typename T = hn::TFromD<D>>
HWY_INLINE hn::Vec<D> LoadPart(D d, const T* from, int64_t n) {
#if GRADWEAVE_MASKS
  return hn::MaskedLoad(hn::FirstN(d, n), d, from);
#else
  HWY_ALIGN T part[hn::MaxLanes(D())] = {};
  std::copy_n(from, n, part);
  return hn::Load(d, part);
#endif
}
template <class D, typename T = hn::TFromD<D>>
HWY_INLINE void StorePart(hn::Vec<D> v, D d, T* to, int64_t n) {
#if GRADWEAVE_MASKS
  hn::BlendedStore(v, hn::FirstN(d, n), d, to);
#else
  HWY_ALIGN T part[hn::MaxLanes(D())];
  hn::Store(v, d, part);
  std::copy_n(part, n, to);
#endif
}
template <class D, typename T = hn::TFromD<D>>
HWY_INLINE hn::Vec<D> LoadUpTo(D d, const T* from, int64_t n) {
  return n >= static_cast<int64_t>(hn::Lanes(d)) ? hn::LoadU(d, from) : n > 0 ? LoadPart(d, from, n) : hn::Zero(d);
}
template <class D, typename T = hn::TFromD<D>>
HWY_INLINE void StoreUpTo(hn::Vec<D> v, D d, T* to, int64_t n) {
  if (n >= static_cast<int64_t>(hn::Lanes(d))) {
    hn::StoreU(v, d, to);
  } else if (n > 0) {
    StorePart(v, d, to, n);
  }
}

// ---- Split rows (SplitRow) ----

template <class D>
HWY_INLINE void Deinterleave(D d, hn::Vec<D> first, hn::Vec<D> second, hn::Vec<D>& even, hn::Vec<D>& odd) {
#if HWY_TARGET == HWY_SCALAR
  even = first;
  odd = second;
#else
  even = hn::ConcatEven(d, second, first);
  odd = hn::ConcatOdd(d, second, first);
#endif
}

// Returns where column i is in a split row.
HWY_INLINE int64_t PlaceOf(int64_t i, int64_t left, int64_t stride, int64_t step) {
  return (i + left) % stride * step + (i + left) / stride;
}

template <typename T>
HWY_INLINE void SplitOne(const T* x, int64_t n, int64_t left, int64_t stride, int64_t step, T* to) {
  const DV<T> d;
  const int64_t lanes = hn::Lanes(d);
  if (stride == 1) {
    for (int64_t i = 0; i < n; i += lanes) hn::StoreU(LoadUpTo(d, x + i, n - i), d, to + left + i);
  } else if (stride == 2) {
    T* const evens = to + PlaceOf(0, left, stride, step);
    T* const odds = to + PlaceOf(1, left, stride, step);
    for (int64_t i = 0; i < n; i += 2 * lanes) {
      VV<T> even, odd;
      Deinterleave(d, LoadUpTo(d, x + i, n - i), LoadUpTo(d, x + i + lanes, n - i - lanes), even, odd);
      hn::StoreU(even, d, evens + i / 2);
      hn::StoreU(odd, d, odds + i / 2);
    }
  } else {
    for (int64_t first = 0; first < std::min(stride, n); ++first) {
      T* part = to + PlaceOf(first, left, stride, step);
      for (int64_t i = first; i < n; i += stride) *part++ = x[i];
    }
  }
}

// ---- Shared loads ----

// The order of loads and products in a block of R rows of results and B vectors, for one column of
// a filter. Each load of x is followed by the steps that use it. Step s is for result row s % R,
// and tap(s) is the row of the filter there.
template <int kHeight, int kStride, int R, int B>
struct SharedLoads {
  static constexpr int kSteps = ((R - 1) * kStride + kHeight) * B * R;
  static constexpr bool loads(int s) { return s % R == 0; }
  static constexpr int row(int s) { return s / R / B; }
  static constexpr int vector(int s) { return s / R % B; }
  static constexpr int result(int s) { return s % R * B + vector(s); }
  static constexpr bool uses(int s) { return row(s) >= s % R * kStride && row(s) < s % R * kStride + kHeight; }
  static constexpr int tap(int s) { return uses(s) ? row(s) - s % R * kStride : 0; }
};

}  // namespace HWY_NAMESPACE
}  // namespace gradweave
HWY_AFTER_NAMESPACE();

#endif  // GRADWEAVE_RUNTIME_CPU_CONV_WINDOW_LOOPS_INL_H_
