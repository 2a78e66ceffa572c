// What the CUDA device needs of the machine, behind one interface: the CUDA runtime, or an emulation of it for tests.
#ifndef GRADWEAVE_RUNTIME_CUDA_API_API_H_
#define GRADWEAVE_RUNTIME_CUDA_API_API_H_

#include <cstddef>
#include <cstdint>
#include <functional>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "gradweave/graph/dtype.h"
#include "gradweave/runtime/cuda/api/product_precision.h"

namespace gradweave {

// Sizes of a grid in blocks, or of a block in threads.
struct CudaDim3 {
  unsigned x = 1, y = 1, z = 1;
};

// One kernel launch. Code that nvcc compiled sets kernel and arguments, code that was compiled for emulation sets
// emulated; launch.h makes either.
struct CudaLaunch {
  const char* name = "";         // Of the kernel, for messages.
  const void* kernel = nullptr;  // The __global__ function, or that of a CudaLoadedKernel.
  CudaDim3 grid, block;
  size_t shared_bytes =
      0;  // Dynamic shared memory of a block. Above 48 KiB, the launch first allows the kernel as much.
  void** arguments = nullptr;  // Addresses of the arguments, valid during the call.
  std::function<absl::Status()> emulated =
      nullptr;  // Runs the whole grid on the calling thread; holds the arguments by value.
};

// Matrix products in a batch: c[i] [m, n] = alpha * op(a[i]) [m, k] * op(b[i]) [k, n] + beta * c[i], row-major, where
// op exchanges rows and columns if asked to. Leading dimensions are the distances between rows as stored, strides those
// between matrices of the batch, all in elements. A stride of 0 uses one matrix for all of the batch.
struct CudaGemm {
  DType dtype = kFloat32;  // float32 or float64.
  bool transpose_a = false, transpose_b = false;
  int64_t m = 0, n = 0, k = 0;
  const void* a = nullptr;
  int64_t lda = 0;
  const void* b = nullptr;
  int64_t ldb = 0;
  void* c = nullptr;  // Need not be initialised where beta is 0.
  int64_t ldc = 0;
  int64_t batch = 1;
  int64_t stride_a = 0, stride_b = 0, stride_c = 0;
  double alpha = 1, beta = 0;
  ProductPrecision precision = ProductPrecision::kIeee;  // Of float32 products.
};

struct CudaDeviceProperties {
  std::string name;
  int major = 0, minor = 0;  // Compute capability.
  int multiprocessors = 0;
  size_t shared_bytes_per_block = 0;       // The most that a launch may ask for.
  size_t total_bytes = 0, free_bytes = 0;  // Of device memory.
};

// A kernel that was compiled at run time.
struct CudaLoadedKernel {
  void* library = nullptr;
  const void* function = nullptr;  // For CudaLaunch::kernel.
};

enum class CudaCopyKind { kHostToDevice, kDeviceToHost, kDeviceToDevice };

// Opaque handles; each belongs to the CudaApi that made it.
using CudaStream = void*;
using CudaEvent = void*;
using CudaGraph = void*;

// Errors hold what CUDA said: Unavailable where there is no device or driver, ResourceExhausted where memory ran out,
// Internal for the rest. A call may report the failure of work that was enqueued before it. Calls may come from any
// thread; those on one stream are the caller's to order.
class CudaApi {
 public:
  virtual ~CudaApi() = default;

  // 0, or Unavailable with the reason, on a machine without a device.
  virtual absl::StatusOr<int> DeviceCount() = 0;
  virtual absl::StatusOr<CudaDeviceProperties> DeviceProperties(int device) = 0;
  // The device that the calling thread's further calls go to.
  virtual absl::Status SetDevice(int device) = 0;

  // Device memory, aligned to 256. Free takes null too.
  virtual absl::StatusOr<void*> Allocate(size_t bytes) = 0;
  virtual absl::Status Free(void* memory) = 0;
  // Host memory that copies reach without staging.
  virtual absl::StatusOr<void*> AllocatePinned(size_t bytes) = 0;
  virtual absl::Status FreePinned(void* memory) = 0;

  virtual absl::StatusOr<CudaStream> CreateStream() = 0;
  virtual absl::Status DestroyStream(CudaStream stream) = 0;
  // Waits until all work enqueued on the stream is done; the first failure of that work, if any.
  virtual absl::Status Synchronize(CudaStream stream) = 0;

  virtual absl::StatusOr<CudaEvent> CreateEvent() = 0;
  virtual absl::Status DestroyEvent(CudaEvent event) = 0;
  // The event happens when the work enqueued on the stream so far is done.
  virtual absl::Status RecordEvent(CudaEvent event, CudaStream stream) = 0;
  // Later work on the stream waits for the event as it was last recorded.
  virtual absl::Status WaitEvent(CudaEvent event, CudaStream stream) = 0;

  // Waits until the event, as it was last recorded, has happened.
  virtual absl::Status SynchronizeEvent(CudaEvent event) = 0;

  // An event that takes the time, by the device's clock, when it happens.
  virtual absl::StatusOr<CudaEvent> CreateTimedEvent() = 0;
  // As RecordEvent, for a timed event that nothing waits for. In a capture it becomes part of the graph: it happens
  // anew each time the graph comes to this place.
  virtual absl::Status RecordTime(CudaEvent event, CudaStream stream) = 0;
  // From one timed event to another; both have happened, on the same device.
  virtual absl::StatusOr<double> ElapsedMicroseconds(CudaEvent begin, CudaEvent end) = 0;

  // Enqueued; memory must live until the work is done. Host memory that isn't pinned makes a copy wait.
  virtual absl::Status CopyAsync(void* to, const void* from, size_t bytes, CudaCopyKind kind, CudaStream stream) = 0;
  virtual absl::Status FillAsync(void* to, uint8_t byte, size_t bytes, CudaStream stream) = 0;
  virtual absl::Status Launch(const CudaLaunch& launch, CudaStream stream) = 0;
  virtual absl::Status Gemm(const CudaGemm& gemm, CudaStream stream) = 0;

  // The kernel of that name in an image that a KernelCompiler has made for this kind of device. Internal where the
  // driver refuses it.
  virtual absl::StatusOr<CudaLoadedKernel> LoadKernel(const std::string& image, const char* name) = 0;
  // The kernel is not running, and neither it nor a graph that holds it is launched again.
  virtual absl::Status UnloadKernel(const CudaLoadedKernel& kernel) = 0;

  // Between the two, work on the stream is recorded and not run. A stream that waits for an event of the capture takes
  // part in it from there, and the one that began it has to have waited for all its work when the capture ends. What
  // EndCapture gives can be launched many times, with the same pointers and sizes; of its work, each piece waits for
  // what streams and events say. A call that cannot be captured (an allocation, a synchronization of such a stream)
  // fails; EndCapture is called all the same.
  virtual absl::Status BeginCapture(CudaStream stream) = 0;
  virtual absl::StatusOr<CudaGraph> EndCapture(CudaStream stream) = 0;
  virtual absl::Status LaunchGraph(CudaGraph graph, CudaStream stream) = 0;
  virtual absl::Status DestroyGraph(CudaGraph graph) = 0;
};

// What changes from run to run, in device memory, so that a replayed graph reads it afresh.
struct CudaRunState {
  uint64_t seed;        // Of the session.
  uint64_t run_number;  // Counts the session's runs.
};

// Where kernels put their work (KernelArguments::cuda).
struct CudaContext {
  CudaApi* api = nullptr;
  CudaStream stream = nullptr;
  const CudaRunState* run_state = nullptr;  // In device memory; rewritten before each run.
  // In device memory, zero at the start of a run. A kernel that meets bad data (a label outside the classes) sets it to
  // its node's id + 1, writes no element because of it, and reads and writes nothing out of bounds.
  int32_t* error = nullptr;
  ProductPrecision product_precision = ProductPrecision::kIeee;  // CudaGemm::precision of products.
};

// The CUDA runtime of this process, with cuBLASLt opened when the first product is asked for. Null where this build has
// no CUDA support. It may be there on machines without a device or a driver: then DeviceCount says so.
CudaApi* GetCudaApi();

}  // namespace gradweave

#endif  // GRADWEAVE_RUNTIME_CUDA_API_API_H_
