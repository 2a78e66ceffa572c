// Matrix products by cuBLASLt, which is opened when the first is asked for.
#ifndef GRADWEAVE_RUNTIME_CUDA_CUBLAS_H_
#define GRADWEAVE_RUNTIME_CUDA_CUBLAS_H_

#include "absl/status/status.h"
#include "gradweave/runtime/cuda/api.h"

namespace gradweave {

// Enqueues the product on the stream of the calling thread's device. The algorithm for sizes, strides and alignment is
// looked up once and kept; a product's first call must not be captured, for it may allocate the stream's workspace.
// Unavailable, with what to install, where the library is not found.
absl::Status CublasGemm(const CudaGemm& gemm, int device, CudaStream stream);

// Frees what was allocated for products on the stream.
absl::Status CublasForgetStream(CudaStream stream);

}  // namespace gradweave

#endif  // GRADWEAVE_RUNTIME_CUDA_CUBLAS_H_
