#include "gradweave/runtime/cuda/emulated_api.h"

#include <algorithm>
#include <chrono>
#include <cstdlib>
#include <cstring>
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <set>
#include <thread>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "gradweave/graph/check.h"
#include "gradweave/runtime/cpu/gemm.h"
#include "gradweave/runtime/cuda/emulation.h"
#include "gradweave/runtime/cuda/kernel_cache.h"

#ifdef __SANITIZE_ADDRESS__
#include <sanitizer/asan_interface.h>
#else
#define ASAN_POISON_MEMORY_REGION(address, bytes) ((void)(address), (void)(bytes))
#define ASAN_UNPOISON_MEMORY_REGION(address, bytes) ((void)(address), (void)(bytes))
#endif

namespace gradweave {
namespace {

constexpr size_t kCanaryBytes = 256;  // On either side of an allocation.
constexpr uint8_t kCanary = 0xa5;
constexpr uint8_t kUnwritten = 0xff;  // NaN in every floating dtype.
constexpr size_t kAlignment = 256;

struct Stream;

struct Event {
  Stream* stream = nullptr;  // Where it was last recorded.
  int64_t position = 0;      // Work of that stream before it.
  bool timed = false;
  std::optional<double> microseconds = std::nullopt;  // When a timed event happened.
};

using Work = std::function<absl::Status()>;

// What waits in a stream, or is recorded in a graph.
struct Item {
  Work work;                // Null: only waits.
  Stream* other = nullptr;  // Waits until this stream has done as much.
  int64_t position = 0;
};

struct Stream {
  std::deque<Item> pending;
  int64_t done = 0;    // Items taken from pending.
  absl::Status error;  // The first of its work.
  bool capturing = false;
  std::thread::id capturing_thread;
  std::vector<Work> captured;

  int64_t end() const { return done + static_cast<int64_t>(pending.size()); }
};

struct CapturedGraph {
  std::vector<Work> work;
};

struct Block {
  size_t bytes;
  bool pinned;
};

template <typename T>
void RunGemm(const CudaGemm& g) {
  for (int64_t i = 0; i < g.batch; ++i) {
    gradweave::Gemm(g.transpose_a, g.transpose_b, g.m, g.n, g.k, static_cast<T>(g.alpha),
                    static_cast<const T*>(g.a) + i * g.stride_a, g.lda, static_cast<const T*>(g.b) + i * g.stride_b,
                    g.ldb, static_cast<T>(g.beta), static_cast<T*>(g.c) + i * g.stride_c, g.ldc);
  }
}

// Elements from the first to behind the last that a matrix of a batch takes.
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
  explicit State(const EmulatedCudaOptions& emulated) : options(emulated) {}

  const EmulatedCudaOptions options;
  mutable std::mutex mutex;
  std::map<const std::byte*, Block> blocks;  // By first byte.
  size_t allocated = 0, peak = 0;
  std::set<Stream*> streams;
  std::set<Event*> events;
  std::set<CapturedGraph*> graphs;
  std::multiset<const void*> loaded;  // Elements of options.kernels.
  std::map<std::string, int> calls;
  struct Failure {
    int call;
    absl::Status status;
  };
  std::multimap<std::string, Failure> failures;
  std::vector<std::string> kernel_names;

  // Counts a call; the error that it was told to fail with.
  absl::Status Begin(const std::string& name) {
    const int call = ++calls[name];
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

  // The allocation that holds all of the bytes.
  std::map<const std::byte*, Block>::const_iterator FindBlock(const void* memory, size_t bytes) const {
    const std::byte* address = static_cast<const std::byte*>(memory);
    auto after = blocks.upper_bound(address);
    if (after == blocks.begin()) return blocks.end();
    auto block = std::prev(after);
    const size_t offset = address - block->first;
    return offset <= block->second.bytes && bytes <= block->second.bytes - offset ? block : blocks.end();
  }

  absl::Status CheckDevice(const char* call, const char* what, const void* memory, size_t bytes) const {
    if (bytes == 0) return absl::OkStatus();
    auto block = FindBlock(memory, bytes);
    if (block != blocks.end() && !block->second.pinned) return absl::OkStatus();
    return absl::InternalError(
        absl::StrCat(call, ": ", bytes, " bytes ", what, " are not all inside one allocation of device memory"));
  }

  absl::StatusOr<void*> NewBlock(size_t bytes, bool pinned) {
    const size_t padded = (bytes + kAlignment - 1) / kAlignment * kAlignment;
    auto* memory = static_cast<std::byte*>(std::aligned_alloc(kAlignment, padded + 2 * kCanaryBytes));
    GW_CHECK(memory != nullptr, "no host memory for emulated device memory");
    std::fill_n(memory, padded + 2 * kCanaryBytes, std::byte{kCanary});
    std::fill_n(memory + kCanaryBytes, bytes, std::byte{kUnwritten});
    ASAN_POISON_MEMORY_REGION(memory, kCanaryBytes);
    ASAN_POISON_MEMORY_REGION(memory + kCanaryBytes + bytes, padded - bytes + kCanaryBytes);
    blocks[memory + kCanaryBytes] = {bytes, pinned};
    return memory + kCanaryBytes;
  }

  absl::Status CheckCanaries(const std::byte* memory, const Block& block) const {
    const size_t padded = (block.bytes + kAlignment - 1) / kAlignment * kAlignment;
    auto broken = [](const std::byte* begin, size_t count) {
#ifdef __SANITIZE_ADDRESS__
      return false;  // AddressSanitizer tells at once.
#endif
      return std::any_of(begin, begin + count, [](std::byte b) { return b != std::byte{kCanary}; });
    };
    if (broken(memory - kCanaryBytes, kCanaryBytes) ||
        broken(memory + block.bytes, padded - block.bytes + kCanaryBytes)) {
      return absl::InternalError(
          absl::StrCat("a kernel or a product wrote outside an allocation of ", block.bytes, " bytes"));
    }
    return absl::OkStatus();
  }

  absl::Status DeleteBlock(const char* call, void* memory, bool pinned) {
    if (memory == nullptr) return absl::OkStatus();
    auto found = blocks.find(static_cast<const std::byte*>(memory));
    if (found == blocks.end() || found->second.pinned != pinned)
      return absl::InternalError(absl::StrCat(call, ": the address is not that of an allocation"));
    const Block block = found->second;
    const absl::Status status = CheckCanaries(found->first, block);
    if (!pinned) allocated -= block.bytes;
    std::byte* start = static_cast<std::byte*>(memory) - kCanaryBytes;
    ASAN_UNPOISON_MEMORY_REGION(start, block.bytes + kAlignment + 2 * kCanaryBytes);
    std::free(start);
    blocks.erase(found);
    return status;
  }

  absl::StatusOr<Stream*> FindStream(const char* call, CudaStream handle) const {
    Stream* stream = static_cast<Stream*>(handle);
    if (streams.count(stream) == 0) return absl::InternalError(absl::StrCat(call, ": this is no stream"));
    return stream;
  }

  // Does a stream's work up to the position, and before it what it waits for.
  void Drain(Stream& stream, int64_t position) {
    // Streams that wait for each other, innermost last.
    std::vector<std::pair<Stream*, int64_t>> stack = {{&stream, position}};
    while (!stack.empty()) {
      auto [top, until] = stack.back();
      if (top->done >= until || top->pending.empty()) {
        stack.pop_back();
        continue;
      }
      Item& item = top->pending.front();
      if (item.other != nullptr && streams.count(item.other) > 0 && item.other->done < item.position) {
        stack.push_back({item.other, item.position});
        continue;
      }
      if (item.work != nullptr) {
        const absl::Status status = item.work();
        if (!status.ok() && top->error.ok()) top->error = status;
      }
      top->pending.pop_front();
      ++top->done;
    }
  }

  void DrainAll() {
    for (Stream* stream : streams) Drain(*stream, stream->end());
  }

  void Enqueue(Stream& stream, Work work) {
    if (stream.capturing) {
      stream.captured.push_back(std::move(work));
    } else {
      stream.pending.push_back({std::move(work)});
    }
  }

  // Captures bind the thread that began them, as with cudaStreamCaptureModeThreadLocal.
  bool ThisThreadCaptures() const {
    return std::any_of(streams.begin(), streams.end(), [](const Stream* stream) {
      return stream->capturing && stream->capturing_thread == std::this_thread::get_id();
    });
  }
};

EmulatedCudaApi::EmulatedCudaApi(const EmulatedCudaOptions& options) : state_(std::make_unique<State>(options)) {
  emulation::SetSeed(options.seed);
}

EmulatedCudaApi::~EmulatedCudaApi() {
  while (!state_->blocks.empty()) {
    const auto& [memory, block] = *state_->blocks.begin();
    (void)state_->DeleteBlock("~EmulatedCudaApi", const_cast<std::byte*>(memory), block.pinned);
  }
  for (Stream* stream : state_->streams) delete stream;
  for (Event* event : state_->events) delete event;
  for (CapturedGraph* graph : state_->graphs) delete graph;
}

void EmulatedCudaApi::FailCall(const std::string& name, int n, absl::Status status) {
  std::lock_guard<std::mutex> lock(state_->mutex);
  state_->failures.insert({name, {state_->calls[name] + n, std::move(status)}});
}

void EmulatedCudaApi::ForgetFailures() {
  std::lock_guard<std::mutex> lock(state_->mutex);
  state_->failures.clear();
}

int EmulatedCudaApi::CountCalls(const std::string& name) const {
  std::lock_guard<std::mutex> lock(state_->mutex);
  auto found = state_->calls.find(name);
  return found == state_->calls.end() ? 0 : found->second;
}

size_t EmulatedCudaApi::allocated_bytes() const {
  std::lock_guard<std::mutex> lock(state_->mutex);
  return state_->allocated;
}
size_t EmulatedCudaApi::peak_bytes() const {
  std::lock_guard<std::mutex> lock(state_->mutex);
  return state_->peak;
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
  std::lock_guard<std::mutex> lock(state_->mutex);
  GW_RETURN_IF_ERROR(state_->Begin("DeviceCount"));
  return state_->options.devices;
}

absl::StatusOr<CudaDeviceProperties> EmulatedCudaApi::DeviceProperties(int device) {
  std::lock_guard<std::mutex> lock(state_->mutex);
  GW_RETURN_IF_ERROR(state_->Begin("DeviceProperties"));
  if (device < 0 || device >= state_->options.devices)
    return absl::InternalError("DeviceProperties: invalid device ordinal");
  const size_t total = state_->options.memory_bytes;
  return CudaDeviceProperties{.name = "emulated device",
                              .major = 9,
                              .minor = 0,
                              .multiprocessors = 2,
                              .shared_bytes_per_block = 227 << 10,
                              .total_bytes = total,
                              .free_bytes = total - state_->allocated};
}

absl::Status EmulatedCudaApi::SetDevice(int device) {
  std::lock_guard<std::mutex> lock(state_->mutex);
  GW_RETURN_IF_ERROR(state_->Begin("SetDevice"));
  if (device < 0 || device >= state_->options.devices) return absl::InternalError("SetDevice: invalid device ordinal");
  return absl::OkStatus();
}

absl::StatusOr<void*> EmulatedCudaApi::Allocate(size_t bytes) {
  std::lock_guard<std::mutex> lock(state_->mutex);
  GW_RETURN_IF_ERROR(state_->Begin("Allocate"));
  if (state_->ThisThreadCaptures())
    return absl::InternalError("Allocate: operation not permitted while the thread captures a stream");
  if (bytes > state_->options.memory_bytes - state_->allocated) {
    return absl::ResourceExhaustedError(absl::StrCat("Allocate: out of memory: ", bytes, " bytes are wanted, and ",
                                                     state_->options.memory_bytes - state_->allocated, " are free"));
  }
  state_->allocated += bytes;
  state_->peak = std::max(state_->peak, state_->allocated);
  return state_->NewBlock(bytes, false);
}

absl::Status EmulatedCudaApi::Free(void* memory) {
  std::lock_guard<std::mutex> lock(state_->mutex);
  GW_RETURN_IF_ERROR(state_->Begin("Free"));
  state_->DrainAll();
  return state_->DeleteBlock("Free", memory, false);
}

absl::StatusOr<void*> EmulatedCudaApi::AllocatePinned(size_t bytes) {
  std::lock_guard<std::mutex> lock(state_->mutex);
  GW_RETURN_IF_ERROR(state_->Begin("AllocatePinned"));
  return state_->NewBlock(bytes, true);
}

absl::Status EmulatedCudaApi::FreePinned(void* memory) {
  std::lock_guard<std::mutex> lock(state_->mutex);
  GW_RETURN_IF_ERROR(state_->Begin("FreePinned"));
  state_->DrainAll();
  return state_->DeleteBlock("FreePinned", memory, true);
}

absl::StatusOr<CudaStream> EmulatedCudaApi::CreateStream() {
  std::lock_guard<std::mutex> lock(state_->mutex);
  GW_RETURN_IF_ERROR(state_->Begin("CreateStream"));
  return *state_->streams.insert(new Stream).first;
}

absl::Status EmulatedCudaApi::DestroyStream(CudaStream handle) {
  std::lock_guard<std::mutex> lock(state_->mutex);
  GW_RETURN_IF_ERROR(state_->Begin("DestroyStream"));
  GW_ASSIGN_OR_RETURN(Stream * stream, state_->FindStream("DestroyStream", handle));
  state_->Drain(*stream, stream->end());
  for (Event* event : state_->events) {
    if (event->stream == stream) event->stream = nullptr;
  }
  state_->streams.erase(stream);
  delete stream;
  return absl::OkStatus();
}

absl::Status EmulatedCudaApi::Synchronize(CudaStream handle) {
  std::lock_guard<std::mutex> lock(state_->mutex);
  GW_RETURN_IF_ERROR(state_->Begin("Synchronize"));
  GW_ASSIGN_OR_RETURN(Stream * stream, state_->FindStream("Synchronize", handle));
  if (stream->capturing)
    return absl::InternalError("Synchronize: operation not permitted while the stream is capturing");
  state_->Drain(*stream, stream->end());
  if (!stream->error.ok()) return std::exchange(stream->error, absl::OkStatus());
  for (const auto& [memory, block] : state_->blocks) GW_RETURN_IF_ERROR(state_->CheckCanaries(memory, block));
  return absl::OkStatus();
}

absl::StatusOr<CudaEvent> EmulatedCudaApi::CreateEvent() {
  std::lock_guard<std::mutex> lock(state_->mutex);
  GW_RETURN_IF_ERROR(state_->Begin("CreateEvent"));
  return *state_->events.insert(new Event).first;
}

absl::Status EmulatedCudaApi::DestroyEvent(CudaEvent event) {
  std::lock_guard<std::mutex> lock(state_->mutex);
  GW_RETURN_IF_ERROR(state_->Begin("DestroyEvent"));
  if (state_->events.erase(static_cast<Event*>(event)) == 0)
    return absl::InternalError("DestroyEvent: this is no event");
  delete static_cast<Event*>(event);
  return absl::OkStatus();
}

absl::Status EmulatedCudaApi::RecordEvent(CudaEvent event, CudaStream handle) {
  std::lock_guard<std::mutex> lock(state_->mutex);
  GW_RETURN_IF_ERROR(state_->Begin("RecordEvent"));
  GW_ASSIGN_OR_RETURN(Stream * stream, state_->FindStream("RecordEvent", handle));
  // Graphs with branches are not emulated.
  if (stream->capturing) return absl::UnimplementedError("RecordEvent: the emulated device captures one stream alone");
  static_cast<Event*>(event)->stream = stream;
  static_cast<Event*>(event)->position = stream->end();
  return absl::OkStatus();
}

absl::Status EmulatedCudaApi::WaitEvent(CudaEvent event, CudaStream handle) {
  std::lock_guard<std::mutex> lock(state_->mutex);
  GW_RETURN_IF_ERROR(state_->Begin("WaitEvent"));
  GW_ASSIGN_OR_RETURN(Stream * stream, state_->FindStream("WaitEvent", handle));
  if (stream->capturing) return absl::UnimplementedError("WaitEvent: the emulated device captures one stream alone");
  const Event& waited = *static_cast<Event*>(event);
  // One that was never recorded has happened.
  if (waited.stream != nullptr) stream->pending.push_back({nullptr, waited.stream, waited.position});
  return absl::OkStatus();
}

absl::Status EmulatedCudaApi::SynchronizeEvent(CudaEvent handle) {
  std::lock_guard<std::mutex> lock(state_->mutex);
  GW_RETURN_IF_ERROR(state_->Begin("SynchronizeEvent"));
  const Event* event = static_cast<Event*>(handle);
  if (state_->events.count(static_cast<Event*>(handle)) == 0)
    return absl::InternalError("SynchronizeEvent: this is no event");
  if (event->stream != nullptr) state_->Drain(*event->stream, event->position);
  return absl::OkStatus();
}

absl::StatusOr<CudaEvent> EmulatedCudaApi::CreateTimedEvent() {
  std::lock_guard<std::mutex> lock(state_->mutex);
  GW_RETURN_IF_ERROR(state_->Begin("CreateTimedEvent"));
  return *state_->events.insert(new Event{.timed = true}).first;
}

absl::Status EmulatedCudaApi::RecordTime(CudaEvent handle, CudaStream stream_handle) {
  std::lock_guard<std::mutex> lock(state_->mutex);
  GW_RETURN_IF_ERROR(state_->Begin("RecordTime"));
  GW_ASSIGN_OR_RETURN(Stream * stream, state_->FindStream("RecordTime", stream_handle));
  Event* event = static_cast<Event*>(handle);
  if (state_->events.count(event) == 0 || !event->timed)
    return absl::InternalError("RecordTime: this is no timed event");
  state_->Enqueue(*stream, [state = state_.get(), event] {
    // It may have been destroyed since.
    if (state->events.count(event) > 0) {
      event->microseconds =
          std::chrono::duration<double, std::micro>(std::chrono::steady_clock::now().time_since_epoch()).count();
    }
    return absl::OkStatus();
  });
  return absl::OkStatus();
}

absl::StatusOr<double> EmulatedCudaApi::ElapsedMicroseconds(CudaEvent begin, CudaEvent end) {
  std::lock_guard<std::mutex> lock(state_->mutex);
  GW_RETURN_IF_ERROR(state_->Begin("ElapsedMicroseconds"));
  for (const CudaEvent event : {begin, end}) {
    if (state_->events.count(static_cast<Event*>(event)) == 0 ||
        !static_cast<Event*>(event)->microseconds.has_value()) {
      return absl::InternalError("ElapsedMicroseconds: a timed event has not happened");
    }
  }
  return *static_cast<Event*>(end)->microseconds - *static_cast<Event*>(begin)->microseconds;
}

absl::Status EmulatedCudaApi::CopyAsync(void* to, const void* from, size_t bytes, CudaCopyKind kind,
                                        CudaStream handle) {
  std::lock_guard<std::mutex> lock(state_->mutex);
  GW_RETURN_IF_ERROR(state_->Begin("CopyAsync"));
  GW_ASSIGN_OR_RETURN(Stream * stream, state_->FindStream("CopyAsync", handle));
  if (kind != CudaCopyKind::kHostToDevice) GW_RETURN_IF_ERROR(state_->CheckDevice("CopyAsync", "to read", from, bytes));
  if (kind != CudaCopyKind::kDeviceToHost) GW_RETURN_IF_ERROR(state_->CheckDevice("CopyAsync", "to write", to, bytes));
  auto work = [=] {
    if (bytes > 0) std::memcpy(to, from, bytes);
    return absl::OkStatus();
  };
  const void* host = kind == CudaCopyKind::kHostToDevice ? from : to;
  if (kind != CudaCopyKind::kDeviceToDevice && bytes > 0) {
    auto block = state_->FindBlock(host, bytes);
    if (block == state_->blocks.end() || !block->second.pinned) {
      // A copy of host memory that isn't pinned is done when the call returns.
      if (stream->capturing) return absl::InternalError("CopyAsync: memory that is not pinned cannot be captured");
      state_->Enqueue(*stream, work);
      state_->Drain(*stream, stream->end());
      return absl::OkStatus();
    }
  }
  state_->Enqueue(*stream, work);
  return absl::OkStatus();
}

absl::Status EmulatedCudaApi::FillAsync(void* to, uint8_t byte, size_t bytes, CudaStream handle) {
  std::lock_guard<std::mutex> lock(state_->mutex);
  GW_RETURN_IF_ERROR(state_->Begin("FillAsync"));
  GW_ASSIGN_OR_RETURN(Stream * stream, state_->FindStream("FillAsync", handle));
  GW_RETURN_IF_ERROR(state_->CheckDevice("FillAsync", "to write", to, bytes));
  state_->Enqueue(*stream, [=] {
    if (bytes > 0) std::memset(to, byte, bytes);
    return absl::OkStatus();
  });
  return absl::OkStatus();
}

absl::Status EmulatedCudaApi::Launch(const CudaLaunch& launch, CudaStream handle) {
  std::lock_guard<std::mutex> lock(state_->mutex);
  GW_RETURN_IF_ERROR(state_->Begin("Launch"));
  GW_ASSIGN_OR_RETURN(Stream * stream, state_->FindStream("Launch", handle));
  Work run = launch.emulated;
  if (state_->loaded.count(launch.kernel) > 0) {
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
  state_->Enqueue(*stream, [state = state_.get(), run = std::move(run), name = std::string(launch.name)] {
    state->kernel_names.push_back(name);
    return run();
  });
  return absl::OkStatus();
}

absl::Status EmulatedCudaApi::Gemm(const CudaGemm& gemm, CudaStream handle) {
  std::lock_guard<std::mutex> lock(state_->mutex);
  GW_RETURN_IF_ERROR(state_->Begin("Gemm"));
  GW_ASSIGN_OR_RETURN(Stream * stream, state_->FindStream("Gemm", handle));
  if (gemm.dtype != kFloat32 && gemm.dtype != kFloat64)
    return absl::InternalError(absl::StrCat("Gemm: no product of ", DTypeName(gemm.dtype)));
  const int64_t size = static_cast<int64_t>(DTypeSize(gemm.dtype));
  const int64_t rows_a = gemm.transpose_a ? gemm.k : gemm.m, columns_a = gemm.transpose_a ? gemm.m : gemm.k;
  const int64_t rows_b = gemm.transpose_b ? gemm.n : gemm.k, columns_b = gemm.transpose_b ? gemm.k : gemm.n;
  if (gemm.m <= 0 || gemm.n <= 0 || gemm.k <= 0 || gemm.batch <= 0 || gemm.lda < columns_a || gemm.ldb < columns_b ||
      gemm.ldc < gemm.n) {
    return absl::InternalError("Gemm: a size is not positive, or a leading dimension is shorter than a row");
  }
  GW_RETURN_IF_ERROR(state_->CheckDevice("Gemm", "of a", gemm.a,
                                         size * Extent(rows_a, columns_a, gemm.lda, gemm.batch, gemm.stride_a)));
  GW_RETURN_IF_ERROR(state_->CheckDevice("Gemm", "of b", gemm.b,
                                         size * Extent(rows_b, columns_b, gemm.ldb, gemm.batch, gemm.stride_b)));
  GW_RETURN_IF_ERROR(
      state_->CheckDevice("Gemm", "of c", gemm.c, size * Extent(gemm.m, gemm.n, gemm.ldc, gemm.batch, gemm.stride_c)));
  state_->Enqueue(*stream, [state = state_.get(), gemm] {
    state->kernel_names.push_back("gemm");
    if (gemm.dtype == kFloat32) {
      RunGemm<float>(gemm);
    } else {
      RunGemm<double>(gemm);
    }
    return absl::OkStatus();
  });
  return absl::OkStatus();
}

absl::StatusOr<CudaLoadedKernel> EmulatedCudaApi::LoadKernel(const std::string& image, const char* name) {
  std::lock_guard<std::mutex> lock(state_->mutex);
  GW_RETURN_IF_ERROR(state_->Begin("LoadKernel"));
  for (const EmulatedKernel& kernel : state_->options.kernels) {
    if (image != ImageOf(kernel)) continue;
    state_->loaded.insert(&kernel);
    return CudaLoadedKernel{nullptr, &kernel};
  }
  return absl::InternalError(absl::StrCat("LoadKernel: the image of ", name, " is not valid for this device"));
}

absl::Status EmulatedCudaApi::UnloadKernel(const CudaLoadedKernel& kernel) {
  std::lock_guard<std::mutex> lock(state_->mutex);
  GW_RETURN_IF_ERROR(state_->Begin("UnloadKernel"));
  auto found = state_->loaded.find(kernel.function);
  if (found == state_->loaded.end()) return absl::InternalError("UnloadKernel: this is no kernel that was loaded");
  state_->loaded.erase(found);
  return absl::OkStatus();
}

absl::Status EmulatedCudaApi::BeginCapture(CudaStream handle) {
  std::lock_guard<std::mutex> lock(state_->mutex);
  GW_RETURN_IF_ERROR(state_->Begin("BeginCapture"));
  GW_ASSIGN_OR_RETURN(Stream * stream, state_->FindStream("BeginCapture", handle));
  if (stream->capturing) return absl::InternalError("BeginCapture: the stream is capturing already");
  stream->capturing = true;
  stream->capturing_thread = std::this_thread::get_id();
  return absl::OkStatus();
}

absl::StatusOr<CudaGraph> EmulatedCudaApi::EndCapture(CudaStream handle) {
  std::lock_guard<std::mutex> lock(state_->mutex);
  GW_ASSIGN_OR_RETURN(Stream * stream, state_->FindStream("EndCapture", handle));
  if (!stream->capturing) return absl::InternalError("EndCapture: the stream is not capturing");
  stream->capturing = false;
  std::vector<Work> captured = std::exchange(stream->captured, {});
  // A capture that fails has ended too.
  GW_RETURN_IF_ERROR(state_->Begin("EndCapture"));
  return *state_->graphs.insert(new CapturedGraph{std::move(captured)}).first;
}

absl::Status EmulatedCudaApi::LaunchGraph(CudaGraph handle, CudaStream stream_handle) {
  std::lock_guard<std::mutex> lock(state_->mutex);
  GW_RETURN_IF_ERROR(state_->Begin("LaunchGraph"));
  GW_ASSIGN_OR_RETURN(Stream * stream, state_->FindStream("LaunchGraph", stream_handle));
  auto found = state_->graphs.find(static_cast<CapturedGraph*>(handle));
  if (found == state_->graphs.end()) return absl::InternalError("LaunchGraph: this is no graph");
  for (const Work& work : (*found)->work) state_->Enqueue(*stream, work);
  return absl::OkStatus();
}

absl::Status EmulatedCudaApi::DestroyGraph(CudaGraph handle) {
  std::lock_guard<std::mutex> lock(state_->mutex);
  GW_RETURN_IF_ERROR(state_->Begin("DestroyGraph"));
  if (state_->graphs.erase(static_cast<CapturedGraph*>(handle)) == 0)
    return absl::InternalError("DestroyGraph: this is no graph");
  delete static_cast<CapturedGraph*>(handle);
  return absl::OkStatus();
}

}  // namespace gradweave
