#include "gradweave/runtime/cuda/plan/platform.h"

#include <mutex>

#include "absl/strings/str_cat.h"
#include "gradweave/graph/check.h"
#include "gradweave/runtime/cuda/backend.h"
#ifdef GRADWEAVE_CUDA
#include "gradweave/runtime/cuda/api/cublas.h"
#include "gradweave/runtime/cuda/api/nvrtc.h"
#include "gradweave/runtime/cuda/ops/kernels.h"
#endif

namespace gradweave {
namespace {

std::mutex& Mutex() {
  static auto* const mutex = new std::mutex();
  return *mutex;
}

std::optional<CudaPlatform>& OfTest() {
  static auto* const backend = new std::optional<CudaPlatform>();
  return *backend;
}

}  // namespace

CudaPlatform GetCudaPlatform() {
  {
    std::lock_guard<std::mutex> lock(Mutex());
    if (OfTest().has_value()) return *OfTest();
  }
#ifdef GRADWEAVE_CUDA
  constexpr size_t kAllocationUnit = 2 << 20, kReservedBytes = 128 << 20;
  return {
      .api = GetCudaApi(),
      .kernels = &cuda::CudaKernels(),
      .commit = cuda::Commit,
      .make_fused = cuda::MakeFusedKernel,
      .compiler = NvrtcCompiler(),
      .workspace_bytes = kCublasWorkspaceBytes,
      .give_workspace = [](CudaApi&, CudaStream stream, void* memory) { Cublas::Get().GiveWorkspace(stream, memory); },
      .allocation_unit = kAllocationUnit,
      .reserved_bytes = kReservedBytes};
#else
  return {};
#endif
}

#ifndef GRADWEAVE_CUDA
CudaApi* GetCudaApi() { return nullptr; }
#endif

void SetCudaPlatformForTest(std::optional<CudaPlatform> backend) {
  std::lock_guard<std::mutex> lock(Mutex());
  OfTest() = backend;
}

absl::Status CheckCudaDevice(const CudaPlatform& platform, int index) {
  const std::string what = absl::StrCat("the device cuda(", index, ") is not available: ");
  if (platform.api == nullptr) return NoCudaSupport(index);
  const absl::StatusOr<int> count = platform.api->DeviceCount();
  if (!count.ok()) {
    return absl::UnavailableError(absl::StrCat(what, count.status().message(), "; use cpu, or mend the driver"));
  }
  if (*count == 0) return absl::UnavailableError(absl::StrCat(what, "this machine has no NVIDIA GPU; use cpu"));
  if (index < 0 || index >= *count) {
    return absl::UnavailableError(absl::StrCat(
        what, "there ",
        *count == 1 ? "is one CUDA device, cuda:0" : absl::StrCat("are the CUDA devices cuda:0 to cuda:", *count - 1)));
  }
  return absl::OkStatus();
}

}  // namespace gradweave
