// Helpers for loops that hold vectors in registers. Included once for each target, behind
// hwy/foreach_target.h.
#if defined(GRADWEAVE_RUNTIME_CPU_SIMD_VECTOR_REGISTERS_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef GRADWEAVE_RUNTIME_CPU_SIMD_VECTOR_REGISTERS_INL_H_
#undef GRADWEAVE_RUNTIME_CPU_SIMD_VECTOR_REGISTERS_INL_H_
#else
#define GRADWEAVE_RUNTIME_CPU_SIMD_VECTOR_REGISTERS_INL_H_
#endif

#include "hwy/highway.h"

HWY_BEFORE_NAMESPACE();
namespace gradweave {
namespace HWY_NAMESPACE {

using D = hwy::HWY_NAMESPACE::ScalableTag<float>;
using V = hwy::HWY_NAMESPACE::Vec<D>;

// Keeps a loaded vector in a register. Otherwise, GCC repeats the load in each instruction that
// uses it.
template <class Vector>
HWY_INLINE void Pin(Vector& v) {
#if HWY_ARCH_X86 && HWY_COMPILER_GCC_ACTUAL
#if HWY_TARGET <= HWY_AVX3
  asm("" : "+v"(v.raw));
#else
  asm("" : "+x"(v.raw));
#endif
#endif
  (void)v;
}

}  // namespace HWY_NAMESPACE
}  // namespace gradweave
HWY_AFTER_NAMESPACE();

#endif  // GRADWEAVE_RUNTIME_CPU_SIMD_VECTOR_REGISTERS_INL_H_
