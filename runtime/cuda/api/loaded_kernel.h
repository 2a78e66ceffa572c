// Ownership of a kernel compiled at run time.
#ifndef GRADWEAVE_RUNTIME_CUDA_API_LOADED_KERNEL_H_
#define GRADWEAVE_RUNTIME_CUDA_API_LOADED_KERNEL_H_

#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "gradweave/graph/check.h"
#include "gradweave/runtime/cuda/api/api.h"

namespace gradweave {

// Unloads its kernel when destroyed. Its CudaApi must outlive it.
class LoadedKernel {
 public:
  // Loads the kernel of that name from the image, and returns the errors of CudaApi::LoadKernel.
  static absl::StatusOr<std::shared_ptr<const LoadedKernel>> Load(CudaApi& api, const std::string& image,
                                                                  const char* name) {
    GW_ASSIGN_OR_RETURN(const CudaLoadedKernel loaded, api.LoadKernel(image, name));
    return std::shared_ptr<const LoadedKernel>(new LoadedKernel(api, loaded));
  }
  // A destructor cannot report a failure.
  ~LoadedKernel() { (void)api_.UnloadKernel(loaded_); }
  LoadedKernel(const LoadedKernel&) = delete;
  LoadedKernel& operator=(const LoadedKernel&) = delete;

  const void* function() const { return loaded_.function; }

 private:
  LoadedKernel(CudaApi& api, const CudaLoadedKernel& loaded) : api_(api), loaded_(loaded) {}

  CudaApi& api_;
  const CudaLoadedKernel loaded_;
};

}  // namespace gradweave

#endif  // GRADWEAVE_RUNTIME_CUDA_API_LOADED_KERNEL_H_
