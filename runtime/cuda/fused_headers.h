// The text of the headers that generated kernels are compiled with; written by the build from the headers themselves.
#ifndef GRADWEAVE_RUNTIME_CUDA_FUSED_HEADERS_H_
#define GRADWEAVE_RUNTIME_CUDA_FUSED_HEADERS_H_

namespace gradweave {

extern const char kFormulasText[];     // runtime/formulas.h
extern const char kPackText[];         // runtime/cuda/pack.h
extern const char kWarpText[];         // runtime/cuda/warp.h
extern const char kFusedKernelText[];  // runtime/cuda/fused_kernel.h

// Where there are reductions, after those.
extern const char kReductionPassText[];  // runtime/cuda/reduction_pass.h
extern const char kReduceText[];         // runtime/cuda/reduce.h

// Of chains that end in reductions, and of rows.
extern const char kFusedReductionText[];  // runtime/cuda/fused_reduction.h
extern const char kRowKernelText[];       // runtime/cuda/row_kernel.h

// Of convolutions.
extern const char kMultiplyAddText[];  // runtime/cuda/multiply_add.h
extern const char kConvKernelText[];   // runtime/cuda/conv_kernel.h

}  // namespace gradweave

#endif  // GRADWEAVE_RUNTIME_CUDA_FUSED_HEADERS_H_
