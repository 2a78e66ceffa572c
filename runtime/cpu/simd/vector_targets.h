// Instruction sets that vector code is compiled for. Include this before Highway's headers.
#ifndef GRADWEAVE_RUNTIME_CPU_SIMD_VECTOR_TARGETS_H_
#define GRADWEAVE_RUNTIME_CPU_SIMD_VECTOR_TARGETS_H_

// Each target compiles every file once more. On x86, AVX-512, AVX2 and SSE4 suffice. On Arm, NEON
// suffices: the length of SVE vectors is not known when code is compiled, so they cannot be
// elements of arrays, and kernels keep their sums in arrays of vectors.
#define HWY_DISABLED_TARGETS (HWY_SSSE3 | HWY_AVX3_DL | HWY_SVE | HWY_SVE2 | HWY_SVE_256 | HWY_SVE2_128)

#endif  // GRADWEAVE_RUNTIME_CPU_SIMD_VECTOR_TARGETS_H_
