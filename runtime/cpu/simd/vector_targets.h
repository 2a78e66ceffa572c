// The processors that vector code is compiled for. Comes before Highway's headers.
#ifndef GRADWEAVE_RUNTIME_CPU_SIMD_VECTOR_TARGETS_H_
#define GRADWEAVE_RUNTIME_CPU_SIMD_VECTOR_TARGETS_H_

// AVX-512, AVX2 and SSE4 are enough of x86: each target is one more compilation of a file.
#define HWY_DISABLED_TARGETS (HWY_SSSE3 | HWY_AVX3_DL)

#endif  // GRADWEAVE_RUNTIME_CPU_SIMD_VECTOR_TARGETS_H_
