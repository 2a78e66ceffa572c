// CUDA as a backend.
#ifndef GRADWEAVE_RUNTIME_CUDA_PLAN_CUDA_BACKEND_H_
#define GRADWEAVE_RUNTIME_CUDA_PLAN_CUDA_BACKEND_H_

#include "gradweave/runtime/plan/backend.h"

namespace gradweave {

// The devices cuda:0, cuda:1 and so on, with CudaOptions.
Backend MakeCudaBackend();

}  // namespace gradweave

#endif  // GRADWEAVE_RUNTIME_CUDA_PLAN_CUDA_BACKEND_H_
