// CudaApi, the interface between the CUDA device and the machine. The CUDA runtime implements it,
// and so does an emulation for tests.
#ifndef GRADWEAVE_RUNTIME_CUDA_API_API_H_
#define GRADWEAVE_RUNTIME_CUDA_API_API_H_

#include <cstddef>
#include <cstdint>
#include <functional>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "gradweave/graph/dtype.h"
#include "gradweave/runtime/cuda/options.h"

namespace gradweave {

// Size of a grid in blocks, or of a block in threads.
struct CudaDim3 {
  unsigned x = 1, y = 1, z = 1;
};

// The alignment of device memory in bytes.
inline constexpr size_t kCudaAlignment = 256;

// One kernel launch. Code that nvcc compiles sets `kernel` and `arguments`; code compiled for
// emulation sets `emulated`. launch.h makes either kind.
struct CudaLaunch {
  const char* name = "";         // The kernel's name in messages and profiles.
  const void* kernel = nullptr;  // A __global__ function, or CudaLoadedKernel::function.
  CudaDim3 grid, block;
  // Dynamic shared memory of a block in bytes. Above 48 KiB, Launch first raises the kernel's
  // limit.
  size_t shared_bytes = 0;
  void** arguments = nullptr;  // Addresses of the arguments. They must be valid during the call.
  // Runs the whole grid on the calling thread. It holds the arguments by value.
  std::function<absl::Status()> emulated = nullptr;
};

// A batch of matrix products: c[i] [m, n] = alpha * op(a[i]) [m, k] * op(b[i]) [k, n] + beta *
// c[i], row-major, where op transposes if asked to. A leading dimension is the distance between
// stored rows, a stride the distance between matrices of the batch, both in elements. A stride of 0
// uses one matrix for the whole batch.
struct CudaGemm {
  DType dtype = kFloat32;  // float32 or float64.
  bool transpose_a = false, transpose_b = false;
  int64_t m = 0, n = 0, k = 0;
  const void* a = nullptr;
  int64_t lda = 0;
  const void* b = nullptr;
  int64_t ldb = 0;
  void* c = nullptr;  // May be uninitialised if beta is 0.
  int64_t ldc = 0;
  int64_t batch = 1;
  int64_t stride_a = 0, stride_b = 0, stride_c = 0;
  double alpha = 1, beta = 0;
  ProductPrecision precision = ProductPrecision::kIeee;  // Applies to float32 products.
};

// Properties of one device.
struct CudaDeviceProperties {
  std::string name;
  int major = 0, minor = 0;  // Compute capability.
  int multiprocessors = 0;
  size_t shared_bytes_per_block = 0;       // Upper limit for a launch.
  size_t total_bytes = 0, free_bytes = 0;  // Device memory.
};

// A kernel compiled at run time.
struct CudaLoadedKernel {
  void* library = nullptr;
  const void* function = nullptr;  // Goes into CudaLaunch::kernel.
};

// Direction of a copy. "Host" memory may be pinned or pageable.
enum class CudaCopyKind { kHostToDevice, kDeviceToHost, kDeviceToDevice };

// Opaque handles. Each belongs to the CudaApi that created it.
using CudaStream = void*;
using CudaEvent = void*;
using CudaGraph = void*;

// Errors hold CUDA's own message: Unavailable if there is no device or driver, ResourceExhausted if
// memory ran out, Internal otherwise. A call may report the failure of work that was enqueued
// earlier. Any thread may make calls; the caller orders the calls on one stream.
class CudaApi {
 public:
  virtual ~CudaApi() = default;

  // Returns the number of devices. On a machine without a device, returns 0, or Unavailable with
  // the reason.
  virtual absl::StatusOr<int> DeviceCount() = 0;
  virtual absl::StatusOr<CudaDeviceProperties> DeviceProperties(int device) = 0;
  // Selects the device for further calls of the calling thread.
  virtual absl::Status SetDevice(int device) = 0;

  // Device memory, aligned to kCudaAlignment. Free accepts null.
  virtual absl::StatusOr<void*> Allocate(size_t bytes) = 0;
  virtual absl::Status Free(void* memory) = 0;
  // Pinned host memory: copies reach it without staging.
  virtual absl::StatusOr<void*> AllocatePinned(size_t bytes) = 0;
  virtual absl::Status FreePinned(void* memory) = 0;

  // Creates or destroys a stream. Destroying one first waits for its work.
  virtual absl::StatusOr<CudaStream> CreateStream() = 0;
  virtual absl::Status DestroyStream(CudaStream stream) = 0;
  // Waits until all work enqueued on the stream is done. Returns the first failure of that work, if
  // any.
  virtual absl::Status Synchronize(CudaStream stream) = 0;

  // Creates or destroys an event. An event that was never recorded counts as completed.
  virtual absl::StatusOr<CudaEvent> CreateEvent() = 0;
  virtual absl::Status DestroyEvent(CudaEvent event) = 0;
  // Records the event behind the work enqueued on the stream so far. It completes when that work is
  // done.
  virtual absl::Status RecordEvent(CudaEvent event, CudaStream stream) = 0;
  // Makes later work on the stream wait for the event as it was last recorded.
  virtual absl::Status WaitEvent(CudaEvent event, CudaStream stream) = 0;

  // Blocks until the event, as it was last recorded, has completed.
  virtual absl::Status SynchronizeEvent(CudaEvent event) = 0;

  // Creates an event that stores the device's time when it completes.
  virtual absl::StatusOr<CudaEvent> CreateTimedEvent() = 0;
  // Like RecordEvent, for a timed event that nothing waits for. In a capture the event becomes a
  // node of the graph, and each launch of the graph records it anew.
  virtual absl::Status RecordTime(CudaEvent event, CudaStream stream) = 0;
  // Returns the time between two timed events. Both must have completed on the same device.
  virtual absl::StatusOr<double> ElapsedMicroseconds(CudaEvent begin, CudaEvent end) = 0;

  // Enqueue a copy, fill, launch or product on the stream. Memory must live until the work is done.
  // A copy to or from pageable host memory blocks until it is done.
  virtual absl::Status CopyAsync(void* to, const void* from, size_t bytes, CudaCopyKind kind, CudaStream stream) = 0;
  virtual absl::Status FillAsync(void* to, uint8_t byte, size_t bytes, CudaStream stream) = 0;
  virtual absl::Status Launch(const CudaLaunch& launch, CudaStream stream) = 0;
  virtual absl::Status Gemm(const CudaGemm& gemm, CudaStream stream) = 0;

  // Returns OK if LoadKernel can work in this build, and Unavailable with the reason otherwise.
  virtual absl::Status CheckLoadsKernels() = 0;
  // Loads the kernel of that name from an image that a KernelCompiler made for this architecture,
  // on the thread's current device. Returns Internal if the driver rejects the image.
  virtual absl::StatusOr<CudaLoadedKernel> LoadKernel(const std::string& image, const char* name) = 0;
  // Unloads a kernel. It must not be running, and neither it nor a graph that holds it may be
  // launched again.
  virtual absl::Status UnloadKernel(const CudaLoadedKernel& kernel) = 0;

  // Between BeginCapture and EndCapture, work on the stream is recorded instead of run. A stream
  // that waits for an event of the capture joins it, and the stream that began the capture must
  // have waited for all work of the joined streams before EndCapture. The graph can be launched
  // many times with the same pointers and sizes, and its work keeps the order that streams and
  // events imposed. A call that cannot be captured fails, such as an allocation or a
  // synchronization of a capturing stream; EndCapture must be called even then.
  virtual absl::Status BeginCapture(CudaStream stream) = 0;
  virtual absl::StatusOr<CudaGraph> EndCapture(CudaStream stream) = 0;
  virtual absl::Status LaunchGraph(CudaGraph graph, CudaStream stream) = 0;
  virtual absl::Status DestroyGraph(CudaGraph graph) = 0;
};

// Values that change from run to run. They lie in device memory, so a replayed graph reads them
// afresh.
struct CudaRunState {
  uint64_t seed;        // The session's seed.
  uint64_t run_number;  // The number of this run within the session.
};

// Where a kernel enqueues its work (KernelArguments::cuda).
struct CudaContext {
  CudaApi* api = nullptr;
  CudaStream stream = nullptr;
  const CudaRunState* run_state = nullptr;  // In device memory, rewritten before each run.
  // Error flag in device memory, zero at the start of a run. A kernel that meets bad data, such as
  // a label outside the classes, sets it to its node's id + 1. Such a kernel neither reads nor
  // writes out of bounds, and writes no element that depends on the bad data.
  int32_t* error = nullptr;
  ProductPrecision product_precision = ProductPrecision::kIeee;  // CudaGemm::precision of products.
};

// Returns the CUDA runtime of this process, or null if this build has no CUDA support. The first
// product opens cuBLASLt. On a machine without a device or driver the result is not null, and
// DeviceCount returns the error.
CudaApi* GetCudaApi();

}  // namespace gradweave

#endif  // GRADWEAVE_RUNTIME_CUDA_API_API_H_
