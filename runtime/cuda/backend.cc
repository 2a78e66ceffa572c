#include "gradweave/runtime/cuda/backend.h"

#include <any>

#include "absl/strings/str_cat.h"

namespace gradweave {
namespace {

constinit CudaDevices supplied;

}  // namespace

Backend MakeCudaBackend() {
  return {.name = "cuda",
          .check_options = [](const std::any& options) { return std::any_cast<const CudaOptions&>(options).Check(); },
          .check_available =
              [](int index) {
                return supplied.check_available == nullptr ? NoCudaSupport(index) : supplied.check_available(index);
              },
          .open = [](int index, const std::any& options) -> absl::StatusOr<std::shared_ptr<BackendDevice>> {
            if (supplied.open == nullptr) return NoCudaSupport(index);
            return supplied.open(index,
                                 options.has_value() ? std::any_cast<const CudaOptions&>(options) : CudaOptions());
          }};
}

void SupplyCudaDevices(const CudaDevices& devices) { supplied = devices; }

absl::Status NoCudaSupport(int index) {
  return absl::UnavailableError(
      absl::StrCat("the device cuda(", index,
                   ") is not available: this build has no CUDA support; build it with --config=cuda, which needs a "
                   "CUDA toolkit of version 12 or newer, or use cpu"));
}

}  // namespace gradweave
