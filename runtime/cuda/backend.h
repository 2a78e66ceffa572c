// CUDA as a backend. Every build has it; its devices are in runtime/cuda/plan, which builds without
// CUDA do not compile.
#ifndef GRADWEAVE_RUNTIME_CUDA_BACKEND_H_
#define GRADWEAVE_RUNTIME_CUDA_BACKEND_H_

#include <memory>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "gradweave/runtime/cuda/options.h"
#include "gradweave/runtime/plan/backend.h"

namespace gradweave {

// The devices cuda:0, cuda:1 and so on, with CudaOptions.
Backend MakeCudaBackend();

// The functions that find and open devices. runtime/cuda/plan registers them before main, if it is
// linked.
struct CudaDevices {
  absl::Status (*check_available)(int index) = nullptr;
  absl::StatusOr<std::shared_ptr<BackendDevice>> (*open)(int index, const CudaOptions& options) = nullptr;
};
void SupplyCudaDevices(const CudaDevices& devices);

// The Unavailable error of a build without CUDA.
absl::Status NoCudaSupport(int index);

}  // namespace gradweave

#endif  // GRADWEAVE_RUNTIME_CUDA_BACKEND_H_
