// A CUDA device that isn't there, for tests: it runs kernels that were compiled for emulation on the CPU.
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

// A generated kernel that was compiled for the emulated device when the program was built.
struct EmulatedKernel {
  uint64_t source_hash;    // HashOfText of its source.
  size_t parameter_bytes;  // Of its one parameter.
  void (*run)(const void* parameter);
};

// What stands for a compiler of kernels: it has those of the table, which lives as long as the compiler and the images
// that it makes; any other source is an Internal error.
KernelCompiler EmulatedKernelCompiler(absl::Span<const EmulatedKernel> kernels);

struct EmulatedCudaOptions {
  int devices = 1;                                // 0: as on a machine without a GPU.
  size_t memory_bytes = size_t{1} << 30;          // Of device memory.
  uint64_t seed = 1;                              // Of the order of threads between barriers, and of streams.
  absl::Span<const EmulatedKernel> kernels = {};  // Images of these can be loaded.
  bool reads_host_memory = false;                 // Of its own accord and late, pinned or not, as on Grace Hopper.
  size_t workspace_bytes = 0;                     // That each stream has to be given before products; 0: none.
};

// Work waits in its stream until something waits for it: a result that is read too early, or a buffer that is reused
// too early, shows. What streams and events leave open happens in any order (EmulatedStreams), in graphs too, so that a
// missing wait between streams shows. Device memory is host memory with known bounds: copies and fills outside of it
// are errors, writes of kernels just beyond it are found when a stream is synchronized or the memory freed, and it
// holds NaN until it is written. A capture records work, and its graph repeats it. Times are the host's.
class EmulatedCudaApi : public CudaApi {
 public:
  explicit EmulatedCudaApi(const EmulatedCudaOptions& options = {});
  ~EmulatedCudaApi() override;

  // Memory that products on the stream write to, for CudaBackend::give_workspace. A product on a stream that has none,
  // or no longer has it, is an error.
  void GiveWorkspace(CudaStream stream, void* memory);

  // The names of calls, as in CudaApi, for FailCall and CountCalls.
  // Lets the n-th next call of that name fail with the status, 1 being the very next.
  void FailCall(const std::string& name, int n, absl::Status status);
  // Whether there are failures that have not come yet.
  bool HasFailuresAhead() const;
  // Takes back those failures.
  void ForgetFailures();
  // The n-th next call of WaitEvent, 1 being the very next, does nothing: a dependence that was forgotten.
  void DropWait(int n);
  // Calls of that name so far, those that failed too.
  int CountCalls(const std::string& name) const;
  // Bytes allocated and not yet freed, and the most that ever were.
  size_t allocated_bytes() const;
  size_t peak_bytes() const;
  // Of LoadKernel, not yet unloaded.
  int loaded_kernels() const;
  // The names of kernels in the order in which they ran since the last call of this, those of graphs too; "gemm" for
  // products, "gemm in tf32" and "gemm in bf16" for those whose factors may be rounded, though none are here.
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
