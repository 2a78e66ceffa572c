#include "gradweave/runtime/cuda/emulation/emulated_api.h"

#include <algorithm>
#include <cstring>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <set>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "gradweave/graph/check.h"
#include "gradweave/runtime/cpu/product/gemm.h"
#include "gradweave/runtime/cuda/api/kernel_cache.h"
#include "gradweave/runtime/cuda/emulation/emulated_memory.h"
#include "gradweave/runtime/cuda/emulation/emulated_streams.h"
#include "gradweave/runtime/cuda/emulation/emulation.h"

namespace gradweave {
namespace {

using Work = EmulatedStreams::Work;

// Upper limit for the parameters of a kernel (CUDA C++ Programming Guide, section 10.1).
constexpr size_t kMostParameterBytes = 4096;

template <typename T>
void RunGemm(const CudaGemm& g) {
  const gradweave::OneBlasThread one_thread(g.m, g.n, g.k);
  for (int64_t i = 0; i < g.batch; ++i) {
    gradweave::Gemm(one_thread, g.transpose_a, g.transpose_b, g.m, g.n, g.k, static_cast<T>(g.alpha),
                    static_cast<const T*>(g.a) + i * g.stride_a, g.lda, static_cast<const T*>(g.b) + i * g.stride_b,
                    g.ldb, static_cast<T>(g.beta), static_cast<T*>(g.c) + i * g.stride_c, g.ldc);
  }
}

// Returns the number of elements between the first and the end of the last that a batch of matrices
// occupies.
int64_t Extent(int64_t rows, int64_t columns, int64_t leading, int64_t batch, int64_t stride) {
  return rows == 0 || columns == 0 ? 0 : (batch - 1) * stride + (rows - 1) * leading + columns;
}

std::string ImageOf(const EmulatedKernel& kernel) { return absl::StrCat("emulated ", absl::Hex(kernel.source_hash)); }

}  // namespace

KernelCompiler EmulatedKernelCompiler(absl::Span<const EmulatedKernel> kernels) {
  return {.describe = [](int) -> absl::StatusOr<std::string> { return "emulation"; },
          .compile = [kernels](const std::string& source, int) -> absl::StatusOr<std::string> {
            for (const EmulatedKernel& kernel : kernels) {
              if (kernel.source_hash == HashOfText(source)) return ImageOf(kernel);
            }
            return absl::InternalError("the kernel was not compiled for the emulated device when this was built");
          }};
}

struct EmulatedCudaApi::State {
  explicit State(const EmulatedCudaOptions& emulated)
      : options(emulated), memory(emulated.memory_bytes, emulated.allocation_unit), streams(emulated.seed) {}

  const EmulatedCudaOptions options;
  mutable std::mutex mutex;
  EmulatedMemory memory;
  EmulatedStreams streams;
  std::multiset<std::pair<const void*, int>> loaded;  // Elements of options.kernels, and the device of each.
  std::map<int, std::set<std::pair<std::string, const void*>>> used;  // Products and kernels that ran, by device.
  absl::Status broken;                                                // Every call returns it, if it is not OK.
  std::map<CudaStream, void*> workspaces;
  std::map<std::string, int> calls;
  struct Failure {
    int call;
    absl::Status status;
  };
  std::multimap<std::string, Failure> failures;
  int dropped_wait = 0;  // The call of WaitEvent to drop; 0 means none.
  std::vector<std::string> kernel_names;

  // Makes a call: counts it, and fails or does what `body` does. A call that fails invalidates the
  // captures of the thread.
  template <typename Body>
  auto Call(const char* name, Body body) -> decltype(body()) {
    std::lock_guard<std::mutex> lock(mutex);
    const absl::Status failure = FailureOf(name);
    auto result = failure.ok() ? body() : decltype(body())(failure);
    if (!result.ok()) streams.InvalidateCapture();
    return result;
  }

  // Makes a call that a thread must not make while it captures.
  template <typename Body>
  auto CallOutsideCapture(const char* name, Body body) -> decltype(body()) {
    return Call(name, [&]() -> decltype(body()) {
      if (!streams.ThisThreadCaptures()) return body();
      return absl::InternalError(absl::StrCat(name, ": operation not permitted while the thread captures a stream"));
    });
  }

  // Begins the use of a kernel or product on the current device. The first one takes memory and
  // cannot be captured. A kernel is told by its code, because instantiations of a template share a
  // name, and a product, whose code is null, by its name.
  absl::Status Use(const char* call, const std::string& what, const void* code = nullptr) {
    const int device = streams.current_device();
    const std::pair<std::string, const void*> key(code == nullptr ? what : "", code);
    if (used[device].count(key) > 0) return absl::OkStatus();
    if (streams.ThisThreadCaptures())
      return absl::InternalError(absl::StrCat(call, ": the first use of ", what, " cannot be captured"));
    if (used[device].empty()) GW_RETURN_IF_ERROR(memory.Take(call, device, options.first_launch_bytes));
    used[device].insert(key);
    return absl::OkStatus();
  }

  absl::Status FailureOf(const std::string& name) {
    const int call = ++calls[name];
    if (!broken.ok()) return broken;
    auto [first, last] = failures.equal_range(name);
    for (auto failure = first; failure != last; ++failure) {
      if (failure->second.call != call) continue;
      const absl::Status status = failure->second.status;
      failures.erase(failure);
      return status;
    }
    if (options.devices == 0) return absl::UnavailableError(absl::StrCat(name, ": no CUDA-capable device is detected"));
    return absl::OkStatus();
  }
};

EmulatedCudaApi::EmulatedCudaApi(const EmulatedCudaOptions& options) : state_(std::make_unique<State>(options)) {
  emulation::SetSeed(options.seed);
}

EmulatedCudaApi::~EmulatedCudaApi() = default;

void EmulatedCudaApi::GiveWorkspace(CudaStream stream, void* memory) {
  std::lock_guard<std::mutex> lock(state_->mutex);
  state_->workspaces[stream] = memory;
}

void EmulatedCudaApi::FailCall(const std::string& name, int n, absl::Status status) {
  std::lock_guard<std::mutex> lock(state_->mutex);
  state_->failures.insert({name, {state_->calls[name] + n, std::move(status)}});
}

void EmulatedCudaApi::Break(absl::Status status) {
  std::lock_guard<std::mutex> lock(state_->mutex);
  state_->broken = std::move(status);
}

bool EmulatedCudaApi::HasFailuresAhead() const {
  std::lock_guard<std::mutex> lock(state_->mutex);
  return !state_->failures.empty();
}

void EmulatedCudaApi::ForgetFailures() {
  std::lock_guard<std::mutex> lock(state_->mutex);
  state_->failures.clear();
}

void EmulatedCudaApi::DropWait(int n) {
  std::lock_guard<std::mutex> lock(state_->mutex);
  state_->dropped_wait = state_->calls["WaitEvent"] + n;
}

int EmulatedCudaApi::CountCalls(const std::string& name) const {
  std::lock_guard<std::mutex> lock(state_->mutex);
  auto found = state_->calls.find(name);
  return found == state_->calls.end() ? 0 : found->second;
}

size_t EmulatedCudaApi::allocated_bytes() const {
  std::lock_guard<std::mutex> lock(state_->mutex);
  return state_->memory.allocated();
}
size_t EmulatedCudaApi::peak_bytes() const {
  std::lock_guard<std::mutex> lock(state_->mutex);
  return state_->memory.peak();
}
int EmulatedCudaApi::loaded_kernels() const {
  std::lock_guard<std::mutex> lock(state_->mutex);
  return static_cast<int>(state_->loaded.size());
}
std::vector<std::string> EmulatedCudaApi::TakeKernelNames() {
  std::lock_guard<std::mutex> lock(state_->mutex);
  return std::exchange(state_->kernel_names, {});
}

absl::StatusOr<int> EmulatedCudaApi::DeviceCount() {
  return state_->Call("DeviceCount", [&]() -> absl::StatusOr<int> { return state_->options.devices; });
}

absl::StatusOr<CudaDeviceProperties> EmulatedCudaApi::DeviceProperties(int device) {
  return state_->Call("DeviceProperties", [&]() -> absl::StatusOr<CudaDeviceProperties> {
    if (device < 0 || device >= state_->options.devices)
      return absl::InternalError("DeviceProperties: invalid device ordinal");
    const size_t total = state_->memory.device_bytes();
    return CudaDeviceProperties{.name = "emulated device",
                                .major = 9,
                                .minor = 0,
                                .multiprocessors = 2,
                                .shared_bytes_per_block = 227 << 10,
                                .total_bytes = total,
                                .free_bytes = total - state_->memory.allocated(device)};
  });
}

absl::Status EmulatedCudaApi::SetDevice(int device) {
  return state_->Call("SetDevice", [&]() -> absl::Status {
    if (device < 0 || device >= state_->options.devices)
      return absl::InternalError("SetDevice: invalid device ordinal");
    state_->streams.SetCurrentDevice(device);
    return absl::OkStatus();
  });
}

absl::StatusOr<void*> EmulatedCudaApi::Allocate(size_t bytes) {
  return state_->CallOutsideCapture("Allocate",
                                    [&] { return state_->memory.Allocate(state_->streams.current_device(), bytes); });
}

absl::Status EmulatedCudaApi::Free(void* memory) {
  return state_->CallOutsideCapture("Free", [&] {
    state_->streams.DoAll();
    return state_->memory.Free("Free", memory, false);
  });
}

absl::StatusOr<void*> EmulatedCudaApi::AllocatePinned(size_t bytes) {
  return state_->CallOutsideCapture("AllocatePinned",
                                    [&]() -> absl::StatusOr<void*> { return state_->memory.AllocatePinned(bytes); });
}

absl::Status EmulatedCudaApi::FreePinned(void* memory) {
  return state_->CallOutsideCapture("FreePinned", [&] {
    state_->streams.DoAll();
    return state_->memory.Free("FreePinned", memory, true);
  });
}

absl::StatusOr<CudaStream> EmulatedCudaApi::CreateStream() {
  return state_->Call("CreateStream", [&]() -> absl::StatusOr<CudaStream> { return state_->streams.Create(); });
}

absl::Status EmulatedCudaApi::DestroyStream(CudaStream stream) {
  return state_->Call("DestroyStream", [&] {
    state_->workspaces.erase(stream);
    return state_->streams.Destroy(stream);
  });
}

absl::Status EmulatedCudaApi::Synchronize(CudaStream stream) {
  return state_->CallOutsideCapture("Synchronize", [&]() -> absl::Status {
    GW_RETURN_IF_ERROR(state_->streams.Synchronize(stream));
    return state_->memory.CheckBounds();
  });
}

absl::StatusOr<CudaEvent> EmulatedCudaApi::CreateEvent() {
  return state_->Call("CreateEvent", [&]() -> absl::StatusOr<CudaEvent> { return state_->streams.CreateEvent(false); });
}

absl::Status EmulatedCudaApi::DestroyEvent(CudaEvent event) {
  return state_->Call("DestroyEvent", [&] { return state_->streams.DestroyEvent(event); });
}

absl::Status EmulatedCudaApi::RecordEvent(CudaEvent event, CudaStream stream) {
  return state_->Call("RecordEvent", [&] { return state_->streams.RecordEvent(event, stream); });
}

absl::Status EmulatedCudaApi::WaitEvent(CudaEvent event, CudaStream stream) {
  return state_->Call("WaitEvent", [&] {
    const bool is_dropped = state_->calls["WaitEvent"] == state_->dropped_wait;
    return is_dropped ? absl::OkStatus() : state_->streams.WaitEvent(event, stream);
  });
}

absl::Status EmulatedCudaApi::SynchronizeEvent(CudaEvent event) {
  return state_->CallOutsideCapture("SynchronizeEvent", [&] { return state_->streams.SynchronizeEvent(event); });
}

absl::StatusOr<CudaEvent> EmulatedCudaApi::CreateTimedEvent() {
  return state_->Call("CreateTimedEvent",
                      [&]() -> absl::StatusOr<CudaEvent> { return state_->streams.CreateEvent(true); });
}

absl::Status EmulatedCudaApi::RecordTime(CudaEvent event, CudaStream stream) {
  return state_->Call("RecordTime", [&] { return state_->streams.RecordTime(event, stream); });
}

absl::StatusOr<double> EmulatedCudaApi::ElapsedMicroseconds(CudaEvent begin, CudaEvent end) {
  return state_->Call("ElapsedMicroseconds", [&] { return state_->streams.ElapsedMicroseconds(begin, end); });
}

absl::Status EmulatedCudaApi::CopyAsync(void* to, const void* from, size_t bytes, CudaCopyKind kind,
                                        CudaStream stream) {
  return state_->Call("CopyAsync", [&]() -> absl::Status {
    const EmulatedMemory& memory = state_->memory;
    const int device = state_->streams.current_device();
    if (kind != CudaCopyKind::kHostToDevice)
      GW_RETURN_IF_ERROR(memory.CheckDevice("CopyAsync", "to read", device, from, bytes));
    if (kind != CudaCopyKind::kDeviceToHost)
      GW_RETURN_IF_ERROR(memory.CheckDevice("CopyAsync", "to write", device, to, bytes));
    auto work = [=] {
      if (bytes > 0) std::memcpy(to, from, bytes);
      return absl::OkStatus();
    };
    const void* host = kind == CudaCopyKind::kHostToDevice ? from : to;
    const bool reads_itself = kind == CudaCopyKind::kHostToDevice && state_->options.reads_host_memory;
    if (kind == CudaCopyKind::kDeviceToDevice || bytes == 0 || reads_itself || memory.IsPinned(host, bytes))
      return state_->streams.Enqueue("CopyAsync", stream, work);
    // A copy of pageable host memory is done when the call returns.
    GW_ASSIGN_OR_RETURN(const bool capturing, state_->streams.IsCapturing("CopyAsync", stream));
    if (capturing) return absl::InternalError("CopyAsync: memory that is not pinned cannot be captured");
    GW_RETURN_IF_ERROR(state_->streams.Enqueue("CopyAsync", stream, work));
    return state_->streams.Synchronize(stream);
  });
}

absl::Status EmulatedCudaApi::FillAsync(void* to, uint8_t byte, size_t bytes, CudaStream stream) {
  return state_->Call("FillAsync", [&]() -> absl::Status {
    GW_RETURN_IF_ERROR(
        state_->memory.CheckDevice("FillAsync", "to write", state_->streams.current_device(), to, bytes));
    return state_->streams.Enqueue("FillAsync", stream, [=] {
      if (bytes > 0) std::memset(to, byte, bytes);
      return absl::OkStatus();
    });
  });
}

absl::Status EmulatedCudaApi::Launch(const CudaLaunch& launch, CudaStream stream) {
  return state_->Call("Launch", [&]() -> absl::Status {
    Work run = launch.emulated;
    if (state_->loaded.count({launch.kernel, state_->streams.current_device()}) > 0) {
      const auto& kernel = *static_cast<const EmulatedKernel*>(launch.kernel);
      const auto* bytes = static_cast<const char*>(launch.arguments[0]);
      run = [&kernel, parameter = std::string(bytes, kernel.parameter_bytes), name = std::string(launch.name),
             grid = launch.grid, block = launch.block, shared_bytes = launch.shared_bytes] {
        return emulation::RunGrid(name.c_str(), grid, block, shared_bytes, [&] { kernel.run(parameter.data()); });
      };
    }
    if (run == nullptr) {
      return absl::InternalError(
          absl::StrCat("Launch: the kernel ", launch.name, " was compiled for GPUs, and the device is emulated"));
    }
    GW_RETURN_IF_ERROR(state_->Use("Launch", launch.name, launch.kernel));
    return state_->streams.Enqueue("Launch", stream,
                                   [state = state_.get(), run = std::move(run), name = std::string(launch.name)] {
                                     state->kernel_names.push_back(name);
                                     return run();
                                   });
  });
}

absl::Status EmulatedCudaApi::Gemm(const CudaGemm& gemm, CudaStream stream) {
  return state_->Call("Gemm", [&]() -> absl::Status {
    if (gemm.dtype != kFloat32 && gemm.dtype != kFloat64)
      return absl::InternalError(absl::StrCat("Gemm: no product of ", DTypeName(gemm.dtype)));
    const int64_t size = static_cast<int64_t>(DTypeSize(gemm.dtype));
    const int device = state_->streams.current_device();
    const int64_t rows_a = gemm.transpose_a ? gemm.k : gemm.m, columns_a = gemm.transpose_a ? gemm.m : gemm.k;
    const int64_t rows_b = gemm.transpose_b ? gemm.n : gemm.k, columns_b = gemm.transpose_b ? gemm.k : gemm.n;
    if (gemm.m <= 0 || gemm.n <= 0 || gemm.k <= 0 || gemm.batch <= 0 || gemm.lda < columns_a || gemm.ldb < columns_b ||
        gemm.ldc < gemm.n) {
      return absl::InternalError("Gemm: a size is not positive, or a leading dimension is shorter than a row");
    }
    GW_RETURN_IF_ERROR(state_->memory.CheckDevice(
        "Gemm", "of a", device, gemm.a, size * Extent(rows_a, columns_a, gemm.lda, gemm.batch, gemm.stride_a)));
    GW_RETURN_IF_ERROR(state_->memory.CheckDevice(
        "Gemm", "of b", device, gemm.b, size * Extent(rows_b, columns_b, gemm.ldb, gemm.batch, gemm.stride_b)));
    GW_RETURN_IF_ERROR(state_->memory.CheckDevice("Gemm", "of c", device, gemm.c,
                                                  size * Extent(gemm.m, gemm.n, gemm.ldc, gemm.batch, gemm.stride_c)));
    void* workspace = nullptr;
    const size_t workspace_bytes = state_->options.workspace_bytes;
    if (workspace_bytes > 0) {
      const auto found = state_->workspaces.find(stream);
      if (found == state_->workspaces.end()) return absl::InternalError("Gemm: the stream has no workspace");
      workspace = found->second;
      GW_RETURN_IF_ERROR(state_->memory.CheckDevice("Gemm", "of the workspace", device, workspace, workspace_bytes));
    }
    GW_RETURN_IF_ERROR(state_->Use(
        "Gemm", absl::StrCat("a product of ", DTypeName(gemm.dtype), " with m ", gemm.m, ", n ", gemm.n, ", k ", gemm.k,
                             ", batch ", gemm.batch, ", transposed ", gemm.transpose_a, gemm.transpose_b)));
    return state_->streams.Enqueue("Gemm", stream, [state = state_.get(), gemm, workspace, workspace_bytes] {
      const bool rounds = gemm.dtype == kFloat32 && gemm.precision != ProductPrecision::kIeee;
      state->kernel_names.push_back(rounds ? absl::StrCat("gemm in ", ProductPrecisionName(gemm.precision)) : "gemm");
      if (workspace_bytes > 0) std::memset(workspace, 0xff, workspace_bytes);
      if (gemm.dtype == kFloat32) {
        RunGemm<float>(gemm);
      } else {
        RunGemm<double>(gemm);
      }
      return absl::OkStatus();
    });
  });
}

absl::Status EmulatedCudaApi::CheckLoadsKernels() {
  return state_->options.loads_kernels ? absl::OkStatus()
                                       : absl::UnavailableError("this emulated device loads no kernels");
}

absl::StatusOr<CudaLoadedKernel> EmulatedCudaApi::LoadKernel(const std::string& image, const char* name) {
  return state_->CallOutsideCapture("LoadKernel", [&]() -> absl::StatusOr<CudaLoadedKernel> {
    for (const EmulatedKernel& kernel : state_->options.kernels) {
      if (image != ImageOf(kernel)) continue;
      if (kernel.parameter_bytes > kMostParameterBytes) {
        return absl::InternalError(absl::StrCat("LoadKernel: the parameters of ", name, " take ",
                                                kernel.parameter_bytes, " bytes, and a launch takes at most ",
                                                kMostParameterBytes));
      }
      state_->loaded.insert({&kernel, state_->streams.current_device()});
      return CudaLoadedKernel{nullptr, &kernel};
    }
    return absl::InternalError(absl::StrCat("LoadKernel: the image of ", name, " is not valid for this device"));
  });
}

absl::Status EmulatedCudaApi::UnloadKernel(const CudaLoadedKernel& kernel) {
  return state_->CallOutsideCapture("UnloadKernel", [&]() -> absl::Status {
    auto found = std::find_if(state_->loaded.begin(), state_->loaded.end(),
                              [&](const auto& loaded) { return loaded.first == kernel.function; });
    if (found == state_->loaded.end()) return absl::InternalError("UnloadKernel: this is not a loaded kernel");
    state_->loaded.erase(found);
    return absl::OkStatus();
  });
}

absl::Status EmulatedCudaApi::BeginCapture(CudaStream stream) {
  return state_->Call("BeginCapture", [&] { return state_->streams.BeginCapture(stream); });
}

absl::StatusOr<CudaGraph> EmulatedCudaApi::EndCapture(CudaStream stream) {
  std::lock_guard<std::mutex> lock(state_->mutex);
  absl::StatusOr<CudaGraph> graph = state_->streams.EndCapture(stream);
  // A failed capture has ended too.
  const absl::Status failure = state_->FailureOf("EndCapture");
  if (!failure.ok() && graph.ok()) (void)state_->streams.DestroyGraph(*graph);
  GW_RETURN_IF_ERROR(failure);
  return graph;
}

absl::Status EmulatedCudaApi::LaunchGraph(CudaGraph graph, CudaStream stream) {
  return state_->Call("LaunchGraph", [&] { return state_->streams.LaunchGraph(graph, stream); });
}

absl::Status EmulatedCudaApi::DestroyGraph(CudaGraph graph) {
  return state_->Call("DestroyGraph", [&] { return state_->streams.DestroyGraph(graph); });
}

}  // namespace gradweave
