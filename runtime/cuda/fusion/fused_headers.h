// The text of the headers that generated kernels are compiled with; written by the build from the headers themselves.
#ifndef GRADWEAVE_RUNTIME_CUDA_FUSION_FUSED_HEADERS_H_
#define GRADWEAVE_RUNTIME_CUDA_FUSION_FUSED_HEADERS_H_

namespace gradweave {

extern const char kFormulasText[];     // runtime/kernel/formulas.h
extern const char kPackText[];         // runtime/cuda/ops/pack.h
extern const char kWarpText[];         // runtime/cuda/ops/warp.h
extern const char kFusedKernelText[];  // runtime/cuda/fusion/fused_kernel.h

// Where there are reductions, after those.
extern const char kReductionPassText[];  // runtime/cuda/ops/reduction_pass.h
extern const char kReduceText[];         // runtime/cuda/ops/reduce.h

// Of chains that end in reductions, and of rows.
extern const char kFusedReductionText[];  // runtime/cuda/fusion/fused_reduction.h
extern const char kRowKernelText[];       // runtime/cuda/fusion/row_kernel.h

// Of convolutions.
extern const char kMultiplyAddText[];  // runtime/cuda/ops/multiply_add.h
extern const char kConvKernelText[];   // runtime/cuda/fusion/conv_kernel.h

}  // namespace gradweave

#endif  // GRADWEAVE_RUNTIME_CUDA_FUSION_FUSED_HEADERS_H_
