// Instruction sets that vector code is compiled for. Include this before Highway's headers.
#ifndef GRADWEAVE_RUNTIME_CPU_SIMD_VECTOR_TARGETS_H_
#define GRADWEAVE_RUNTIME_CPU_SIMD_VECTOR_TARGETS_H_

// On x86, AVX-512, AVX2 and SSE4 suffice: each target compiles every file once more.
#define HWY_DISABLED_TARGETS (HWY_SSSE3 | HWY_AVX3_DL)

#endif  // GRADWEAVE_RUNTIME_CPU_SIMD_VECTOR_TARGETS_H_
