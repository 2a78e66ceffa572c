// Text of the headers that generated kernels are compiled with. The build writes it from the
// headers themselves.
#ifndef GRADWEAVE_RUNTIME_CUDA_FUSION_FUSED_HEADERS_H_
#define GRADWEAVE_RUNTIME_CUDA_FUSION_FUSED_HEADERS_H_

namespace gradweave {

// Every generated kernel includes these, in this order.
extern const char kFormulasText[];     // runtime/kernel/formulas.h
extern const char kPackText[];         // runtime/cuda/ops/pack.h
extern const char kWarpText[];         // runtime/cuda/ops/warp.h
extern const char kFusedKernelText[];  // runtime/cuda/fusion/fused_kernel.h

// Kernels with reductions include these too.
extern const char kReductionPassText[];  // runtime/cuda/ops/reduction_pass.h
extern const char kReduceText[];         // runtime/cuda/ops/reduce.h

// Kernels of chains that end in reductions, and of rows.
extern const char kFusedReductionText[];  // runtime/cuda/fusion/fused_reduction.h
extern const char kRowKernelText[];       // runtime/cuda/fusion/row_kernel.h

// Kernels of convolutions.
extern const char kMultiplyAddText[];  // runtime/cuda/ops/multiply_add.h
extern const char kConvKernelText[];   // runtime/cuda/fusion/conv_kernel.h

}  // namespace gradweave

#endif  // GRADWEAVE_RUNTIME_CUDA_FUSION_FUSED_HEADERS_H_
