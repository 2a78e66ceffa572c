// CudaApi on the CUDA runtime. The runtime is linked statically and opens the driver's library on
// its first call.
#include <cuda_runtime_api.h>

#include <map>
#include <mutex>
#include <string>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "gradweave/graph/check.h"
#include "gradweave/runtime/cuda/api/api.h"
#include "gradweave/runtime/cuda/api/cublas.h"

namespace gradweave {
namespace {

// Dynamic shared memory that a launch may use without raising the kernel's limit.
constexpr size_t kSharedWithoutAsking = 48 << 10;

std::string Version(int version) { return absl::StrFormat("%d.%d", version / 1000, version % 1000 / 10); }

// Returns advice on how to mend an error.
std::string Advice(cudaError_t error) {
  switch (error) {
    case cudaErrorInsufficientDriver: {
      int driver = 0, runtime = 0;
      (void)cudaDriverGetVersion(&driver);
      (void)cudaRuntimeGetVersion(&runtime);
      if (driver == 0) return "; no NVIDIA driver is installed";
      return absl::StrCat("; the driver is for CUDA ", Version(driver), ", and this build needs ", Version(runtime),
                          ": update the driver");
    }
    case cudaErrorNoDevice:
      return "; this machine has no NVIDIA GPU, or CUDA_VISIBLE_DEVICES hides it";
    case cudaErrorNoKernelImageForDevice:
      return "; this build has no code for this GPU: build with --config=portable";
    case cudaErrorUnsupportedPtxVersion:
      return "; this build has no code for this GPU, only PTX, which the driver is too old to compile: update the "
             "driver, or build with --config=portable";
    case cudaErrorMemoryAllocation:
      return "; a smaller batch takes less";
    case cudaErrorIllegalAddress:
    case cudaErrorMisalignedAddress:
    case cudaErrorInvalidAddressSpace:
    case cudaErrorInvalidPc:
    case cudaErrorIllegalInstruction:
    case cudaErrorHardwareStackError:
    case cudaErrorAssert:
    case cudaErrorLaunchTimeout:
    case cudaErrorLaunchFailure:
    case cudaErrorECCUncorrectable:
      return "; the device can't be used by this process any more: start the program again";
    default:
      return "";
  }
}

absl::Status ToStatus(cudaError_t error, absl::string_view call) {
  if (error == cudaSuccess) return absl::OkStatus();
  // Clear the error; otherwise the next call would report it again.
  (void)cudaGetLastError();
  const std::string text =
      absl::StrCat(call, ": ", cudaGetErrorString(error), " (", cudaGetErrorName(error), ")", Advice(error));
  switch (error) {
    case cudaErrorMemoryAllocation:
      return absl::ResourceExhaustedError(text);
    case cudaErrorInsufficientDriver:
    case cudaErrorNoDevice:
    case cudaErrorSystemDriverMismatch:
    case cudaErrorCompatNotSupportedOnDevice:
    case cudaErrorInitializationError:
    case cudaErrorDevicesUnavailable:
      return absl::UnavailableError(text);
    default:
      return absl::InternalError(text);
  }
}

cudaStream_t Stream(CudaStream stream) { return static_cast<cudaStream_t>(stream); }
cudaEvent_t Event(CudaEvent event) { return static_cast<cudaEvent_t>(event); }

class RuntimeApi : public CudaApi {
 public:
  absl::StatusOr<int> DeviceCount() override {
    int count = 0;
    GW_RETURN_IF_ERROR(ToStatus(cudaGetDeviceCount(&count), "cudaGetDeviceCount"));
    return count;
  }

  absl::StatusOr<CudaDeviceProperties> DeviceProperties(int device) override {
    CudaDeviceProperties result;
    {
      // The query is slow, and everything except the free memory is constant.
      std::lock_guard<std::mutex> lock(mutex_);
      auto known = properties_.find(device);
      if (known == properties_.end()) {
        cudaDeviceProp properties;
        GW_RETURN_IF_ERROR(ToStatus(cudaGetDeviceProperties(&properties, device), "cudaGetDeviceProperties"));
        known = properties_
                    .insert({device,
                             {.name = properties.name,
                              .major = properties.major,
                              .minor = properties.minor,
                              .multiprocessors = properties.multiProcessorCount,
                              .shared_bytes_per_block = properties.sharedMemPerBlockOptin}})
                    .first;
      }
      result = known->second;
    }
    GW_RETURN_IF_ERROR(SetDevice(device));
    GW_RETURN_IF_ERROR(ToStatus(cudaMemGetInfo(&result.free_bytes, &result.total_bytes), "cudaMemGetInfo"));
    return result;
  }

  absl::Status SetDevice(int device) override { return ToStatus(cudaSetDevice(device), "cudaSetDevice"); }

  absl::StatusOr<void*> Allocate(size_t bytes) override {
    void* memory = nullptr;
    GW_RETURN_IF_ERROR(ToStatus(cudaMalloc(&memory, bytes), absl::StrCat("cudaMalloc of ", bytes, " bytes")));
    return memory;
  }
  absl::Status Free(void* memory) override { return ToStatus(cudaFree(memory), "cudaFree"); }
  absl::StatusOr<void*> AllocatePinned(size_t bytes) override {
    void* memory = nullptr;
    GW_RETURN_IF_ERROR(ToStatus(cudaHostAlloc(&memory, bytes, cudaHostAllocDefault),
                                absl::StrCat("cudaHostAlloc of ", bytes, " bytes")));
    return memory;
  }
  absl::Status FreePinned(void* memory) override { return ToStatus(cudaFreeHost(memory), "cudaFreeHost"); }

  absl::StatusOr<CudaStream> CreateStream() override {
    cudaStream_t stream;
    // A non-blocking stream does not wait for work on the default stream, which other code may use.
    GW_RETURN_IF_ERROR(ToStatus(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking), "cudaStreamCreate"));
    return static_cast<CudaStream>(stream);
  }
  absl::Status DestroyStream(CudaStream stream) override {
    absl::Status synchronized = Synchronize(stream);
    Cublas::Get().ForgetStream(stream);
    GW_RETURN_IF_ERROR(ToStatus(cudaStreamDestroy(Stream(stream)), "cudaStreamDestroy"));
    return synchronized;
  }
  absl::Status Synchronize(CudaStream stream) override {
    return ToStatus(cudaStreamSynchronize(Stream(stream)), "cudaStreamSynchronize");
  }

  absl::StatusOr<CudaEvent> CreateEvent() override {
    cudaEvent_t event;
    GW_RETURN_IF_ERROR(ToStatus(cudaEventCreateWithFlags(&event, cudaEventDisableTiming), "cudaEventCreate"));
    return static_cast<CudaEvent>(event);
  }
  absl::Status DestroyEvent(CudaEvent event) override {
    return ToStatus(cudaEventDestroy(Event(event)), "cudaEventDestroy");
  }
  absl::Status RecordEvent(CudaEvent event, CudaStream stream) override {
    return ToStatus(cudaEventRecord(Event(event), Stream(stream)), "cudaEventRecord");
  }
  absl::Status WaitEvent(CudaEvent event, CudaStream stream) override {
    return ToStatus(cudaStreamWaitEvent(Stream(stream), Event(event), 0), "cudaStreamWaitEvent");
  }

  absl::Status SynchronizeEvent(CudaEvent event) override {
    return ToStatus(cudaEventSynchronize(Event(event)), "cudaEventSynchronize");
  }
  absl::StatusOr<CudaEvent> CreateTimedEvent() override {
    cudaEvent_t event;
    GW_RETURN_IF_ERROR(ToStatus(cudaEventCreateWithFlags(&event, cudaEventDefault), "cudaEventCreate"));
    return static_cast<CudaEvent>(event);
  }
  absl::Status RecordTime(CudaEvent event, CudaStream stream) override {
    cudaStreamCaptureStatus capture = cudaStreamCaptureStatusNone;
    GW_RETURN_IF_ERROR(ToStatus(cudaStreamIsCapturing(Stream(stream), &capture), "cudaStreamIsCapturing"));
    // An external event becomes a node of the graph. Any other event would only express a
    // dependence.
    const unsigned flags = capture == cudaStreamCaptureStatusNone ? cudaEventRecordDefault : cudaEventRecordExternal;
    return ToStatus(cudaEventRecordWithFlags(Event(event), Stream(stream), flags), "cudaEventRecord");
  }
  absl::StatusOr<double> ElapsedMicroseconds(CudaEvent begin, CudaEvent end) override {
    float milliseconds = 0;
    GW_RETURN_IF_ERROR(ToStatus(cudaEventElapsedTime(&milliseconds, Event(begin), Event(end)), "cudaEventElapsedTime"));
    return 1e3 * milliseconds;
  }

  absl::Status CopyAsync(void* to, const void* from, size_t bytes, CudaCopyKind kind, CudaStream stream) override {
    const cudaMemcpyKind kinds[] = {cudaMemcpyHostToDevice, cudaMemcpyDeviceToHost, cudaMemcpyDeviceToDevice};
    return ToStatus(cudaMemcpyAsync(to, from, bytes, kinds[static_cast<int>(kind)], Stream(stream)), "cudaMemcpyAsync");
  }
  absl::Status FillAsync(void* to, uint8_t byte, size_t bytes, CudaStream stream) override {
    return ToStatus(cudaMemsetAsync(to, byte, bytes, Stream(stream)), "cudaMemsetAsync");
  }
  absl::Status Launch(const CudaLaunch& launch, CudaStream stream) override {
    if (launch.kernel == nullptr) {
      return absl::InternalError(
          absl::StrCat("Launch: the kernel ", launch.name, " was compiled for the emulated device"));
    }
    if (launch.shared_bytes > kSharedWithoutAsking) {
      GW_RETURN_IF_ERROR(ToStatus(cudaFuncSetAttribute(launch.kernel, cudaFuncAttributeMaxDynamicSharedMemorySize,
                                                       static_cast<int>(launch.shared_bytes)),
                                  absl::StrCat("cudaFuncSetAttribute of ", launch.name)));
    }
    const dim3 grid(launch.grid.x, launch.grid.y, launch.grid.z), block(launch.block.x, launch.block.y, launch.block.z);
    return ToStatus(cudaLaunchKernel(launch.kernel, grid, block, launch.arguments, launch.shared_bytes, Stream(stream)),
                    absl::StrCat("the launch of ", launch.name));
  }
  absl::Status Gemm(const CudaGemm& gemm, CudaStream stream) override {
    int device = 0;
    GW_RETURN_IF_ERROR(ToStatus(cudaGetDevice(&device), "cudaGetDevice"));
    return Cublas::Get().Gemm(gemm, device, stream);
  }

  absl::Status CheckLoadsKernels() override {
#if CUDART_VERSION >= 12080
    return absl::OkStatus();
#else
    return absl::UnavailableError("kernels that are compiled at run time need a build with CUDA 12.8 or newer");
#endif
  }
  absl::StatusOr<CudaLoadedKernel> LoadKernel(const std::string& image, const char* name) override {
#if CUDART_VERSION >= 12080
    cudaLibrary_t library = nullptr;
    GW_RETURN_IF_ERROR(ToStatus(cudaLibraryLoadData(&library, image.c_str(), nullptr, nullptr, 0, nullptr, nullptr, 0),
                                "cudaLibraryLoadData"));
    cudaKernel_t kernel = nullptr;
    absl::Status status =
        ToStatus(cudaLibraryGetKernel(&kernel, library, name), absl::StrCat("cudaLibraryGetKernel of ", name));
    // The driver loads code lazily. Asking for attributes forces the load, so a failure shows here
    // instead of in a launch.
    cudaFuncAttributes attributes;
    if (status.ok()) {
      status = ToStatus(cudaFuncGetAttributes(&attributes, reinterpret_cast<const void*>(kernel)),
                        absl::StrCat("cudaFuncGetAttributes of ", name));
    }
    if (!status.ok()) {
      (void)cudaLibraryUnload(library);
      return status;
    }
    return CudaLoadedKernel{library, reinterpret_cast<const void*>(kernel)};
#else
    return CheckLoadsKernels();
#endif
  }
  absl::Status UnloadKernel(const CudaLoadedKernel& kernel) override {
#if CUDART_VERSION >= 12080
    return ToStatus(cudaLibraryUnload(static_cast<cudaLibrary_t>(kernel.library)), "cudaLibraryUnload");
#else
    return absl::OkStatus();
#endif
  }

  absl::Status BeginCapture(CudaStream stream) override {
    // Thread-local mode lets sessions of other threads allocate meanwhile.
    return ToStatus(cudaStreamBeginCapture(Stream(stream), cudaStreamCaptureModeThreadLocal), "cudaStreamBeginCapture");
  }
  absl::StatusOr<CudaGraph> EndCapture(CudaStream stream) override {
    cudaGraph_t graph = nullptr;
    GW_RETURN_IF_ERROR(ToStatus(cudaStreamEndCapture(Stream(stream), &graph), "cudaStreamEndCapture"));
    cudaGraphExec_t executable = nullptr;
    const absl::Status status = ToStatus(cudaGraphInstantiate(&executable, graph, 0), "cudaGraphInstantiate");
    const absl::Status destroyed = ToStatus(cudaGraphDestroy(graph), "cudaGraphDestroy");
    GW_RETURN_IF_ERROR(status);
    GW_RETURN_IF_ERROR(destroyed);
    // The first launch would upload the graph too. If the upload fails, that launch reports it.
    (void)ToStatus(cudaGraphUpload(executable, Stream(stream)), "cudaGraphUpload");
    return static_cast<CudaGraph>(executable);
  }
  absl::Status LaunchGraph(CudaGraph graph, CudaStream stream) override {
    return ToStatus(cudaGraphLaunch(static_cast<cudaGraphExec_t>(graph), Stream(stream)), "cudaGraphLaunch");
  }
  absl::Status DestroyGraph(CudaGraph graph) override {
    return ToStatus(cudaGraphExecDestroy(static_cast<cudaGraphExec_t>(graph)), "cudaGraphExecDestroy");
  }

 private:
  std::mutex mutex_;
  std::map<int, CudaDeviceProperties> properties_;  // Indexed by device, without the free memory.
};

}  // namespace

CudaApi* GetCudaApi() {
  static auto* const api = new RuntimeApi();
  return api;
}

}  // namespace gradweave
