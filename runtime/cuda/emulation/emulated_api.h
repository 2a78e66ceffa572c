// An emulated CUDA device for tests. It runs kernels compiled for emulation on the CPU.
#ifndef GRADWEAVE_RUNTIME_CUDA_EMULATION_EMULATED_API_H_
#define GRADWEAVE_RUNTIME_CUDA_EMULATION_EMULATED_API_H_

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "absl/types/span.h"
#include "gradweave/runtime/cuda/api/api.h"
#include "gradweave/runtime/cuda/api/kernel_compiler.h"

namespace gradweave {

// A generated kernel that was compiled for the emulated device at build time.
struct EmulatedKernel {
  uint64_t source_hash;    // HashOfText of the kernel's source.
  size_t parameter_bytes;  // Size of the kernel's one parameter.
  void (*run)(const void* parameter);
};

// Returns a stand-in for a compiler: it "compiles" the sources whose kernels are in the table, and
// returns Internal for any other source. The table must outlive the compiler and its images.
KernelCompiler EmulatedKernelCompiler(absl::Span<const EmulatedKernel> kernels);

// Options of the emulated device.
struct EmulatedCudaOptions {
  int devices = 1;                        // 0 behaves like a machine without a GPU.
  size_t memory_bytes = size_t{1} << 30;  // Size of the memory of a device.
  uint64_t seed = 1;                      // Seeds the order of threads between barriers and the order of streams.
  absl::Span<const EmulatedKernel> kernels = {};  // LoadKernel accepts images of these.
  bool reads_host_memory = false;  // Device copies read host memory late, pinned or not, as on Grace Hopper.
  size_t workspace_bytes = 0;      // Workspace that each stream must have before a product; 0 means none.
  size_t allocation_unit = 1;      // An allocation of device memory takes a multiple of this.
  size_t first_launch_bytes = 0;   // Device memory that the first launch on a device takes for good, as code does.
  bool loads_kernels = true;       // False behaves like a build with an old CUDA runtime.
};

// Work stays in its stream until something waits for it, so reading a result or reusing a buffer
// too early gives wrong results. Work that streams and events leave unordered runs in random order
// (EmulatedStreams), in graphs too, so a missing wait between streams shows. Device memory is host
// memory with known bounds. Copies and fills outside the bounds are errors; writes of kernels just
// beyond them are found when a stream is synchronized or the memory freed. Memory holds NaN until
// it is written. A capture records work, and its graph repeats it. On a thread that captures, calls
// that allocate, free, wait, load or unload are errors, and so is the first launch of a kernel or
// the first product of its sizes, for which the driver may have to load code. Any call that fails
// makes the captures of its thread fail. Streams, events, graphs and device memory belong to the
// device that was the thread's current one when they were made, and calls that mix devices are
// errors. Timed events use the host's clock.
class EmulatedCudaApi : public CudaApi {
 public:
  explicit EmulatedCudaApi(const EmulatedCudaOptions& options = {});
  ~EmulatedCudaApi() override;

  // Gives the stream a workspace that its products overwrite, for CudaPlatform::give_workspace. If
  // options ask for a workspace, a product on a stream that has none, or whose workspace was freed,
  // is an error.
  void GiveWorkspace(CudaStream stream, void* memory);

  // FailCall, CountCalls and the like take the names of calls as in CudaApi.
  // FailCall makes the n-th next call of that name fail with the status; 1 means the very next.
  void FailCall(const std::string& name, int n, absl::Status status);
  // Makes every later call fail with the status, as after a fault in a kernel: such an error stays
  // with the process.
  void Break(absl::Status status);
  // Returns true if some of those failures have not happened yet.
  bool HasFailuresAhead() const;
  // Cancels those failures.
  void ForgetFailures();
  // Makes the n-th next call of WaitEvent do nothing, which simulates a forgotten dependence; 1
  // means the very next.
  void DropWait(int n);
  // Returns the number of calls of that name so far, including those that failed.
  int CountCalls(const std::string& name) const;
  // Bytes of device memory in use, and their maximum so far.
  size_t allocated_bytes() const;
  size_t peak_bytes() const;
  // Kernels that LoadKernel loaded and nobody has unloaded yet.
  int loaded_kernels() const;
  // Returns the names of the kernels that ran since the last call, in order, including those of
  // graphs. A product appears as "gemm", or as "gemm in tf32" or "gemm in bf16" if its factors may
  // be rounded; the emulation does not round them.
  std::vector<std::string> TakeKernelNames();

  absl::StatusOr<int> DeviceCount() override;
  absl::StatusOr<CudaDeviceProperties> DeviceProperties(int device) override;
  absl::Status SetDevice(int device) override;
  absl::StatusOr<void*> Allocate(size_t bytes) override;
  absl::Status Free(void* memory) override;
  absl::StatusOr<void*> AllocatePinned(size_t bytes) override;
  absl::Status FreePinned(void* memory) override;
  absl::StatusOr<CudaStream> CreateStream() override;
  absl::Status DestroyStream(CudaStream stream) override;
  absl::Status Synchronize(CudaStream stream) override;
  absl::StatusOr<CudaEvent> CreateEvent() override;
  absl::Status DestroyEvent(CudaEvent event) override;
  absl::Status RecordEvent(CudaEvent event, CudaStream stream) override;
  absl::Status WaitEvent(CudaEvent event, CudaStream stream) override;
  absl::Status SynchronizeEvent(CudaEvent event) override;
  absl::StatusOr<CudaEvent> CreateTimedEvent() override;
  absl::Status RecordTime(CudaEvent event, CudaStream stream) override;
  absl::StatusOr<double> ElapsedMicroseconds(CudaEvent begin, CudaEvent end) override;
  absl::Status CopyAsync(void* to, const void* from, size_t bytes, CudaCopyKind kind, CudaStream stream) override;
  absl::Status FillAsync(void* to, uint8_t byte, size_t bytes, CudaStream stream) override;
  absl::Status Launch(const CudaLaunch& launch, CudaStream stream) override;
  absl::Status Gemm(const CudaGemm& gemm, CudaStream stream) override;
  absl::Status CheckLoadsKernels() override;
  absl::StatusOr<CudaLoadedKernel> LoadKernel(const std::string& image, const char* name) override;
  absl::Status UnloadKernel(const CudaLoadedKernel& kernel) override;
  absl::Status BeginCapture(CudaStream stream) override;
  absl::StatusOr<CudaGraph> EndCapture(CudaStream stream) override;
  absl::Status LaunchGraph(CudaGraph graph, CudaStream stream) override;
  absl::Status DestroyGraph(CudaGraph graph) override;

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace gradweave

#endif  // GRADWEAVE_RUNTIME_CUDA_EMULATION_EMULATED_API_H_
