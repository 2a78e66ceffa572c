// A kernel that was compiled at run time, for as long as something may launch it.
#ifndef GRADWEAVE_RUNTIME_CUDA_API_LOADED_KERNEL_H_
#define GRADWEAVE_RUNTIME_CUDA_API_LOADED_KERNEL_H_

#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "gradweave/graph/check.h"
#include "gradweave/runtime/cuda/api/api.h"

namespace gradweave {

// Lives no longer than its CudaApi.
class LoadedKernel {
 public:
  static absl::StatusOr<std::shared_ptr<const LoadedKernel>> Load(CudaApi& api, const std::string& image,
                                                                  const char* name) {
    GW_ASSIGN_OR_RETURN(const CudaLoadedKernel loaded, api.LoadKernel(image, name));
    return std::shared_ptr<const LoadedKernel>(new LoadedKernel(api, loaded));
  }
  // Nothing can be done about a failure here.
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
