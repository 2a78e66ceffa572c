#include "gradweave/runtime/cuda/plan/cuda_device.h"

#include <algorithm>
#include <numeric>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "gradweave/graph/alignment.h"
#include "gradweave/graph/check.h"
#include "gradweave/runtime/cuda/api/kernel_cache.h"
#include "gradweave/runtime/cuda/backend.h"
#include "gradweave/runtime/cuda/plan/cuda_executable.h"
#include "gradweave/runtime/cuda/plan/cuda_steps.h"

namespace gradweave {

namespace {

[[maybe_unused]] const bool kSupplied = [] {
  SupplyCudaDevices(
      {.check_available = [](int index) { return CheckCudaDevice(GetCudaPlatform(), index); },
       .open = [](int index, const CudaOptions& options) -> absl::StatusOr<std::shared_ptr<BackendDevice>> {
         return CudaDevice::Open(index, options);
       }});
  return true;
}();

}  // namespace

CudaDevice::CudaDevice(int index) : BackendDevice(absl::StrCat("cuda:", index)), index_(index) {}

absl::StatusOr<std::shared_ptr<CudaDevice>> CudaDevice::Open(int index, const CudaOptions& options) {
  const CudaPlatform platform = GetCudaPlatform();
  GW_RETURN_IF_ERROR(CheckCudaDevice(platform, index));
  std::shared_ptr<CudaDevice> device(new CudaDevice(index));
  device->platform_ = platform;
  device->options_ = options;
  const std::string cache = options.kernel_cache.empty() ? KernelCache::DefaultFolder() : options.kernel_cache;
  device->kernels_ = std::make_unique<KernelStore>(*platform.api, index, platform.compiler,
                                                   KernelStoreOptions{options.generated_kernels, cache});
  device->pinned_ =
      std::make_shared<SharedMemory>([device = device.get()](size_t bytes) { return device->AllocatePinned(bytes); });
  GW_RETURN_IF_ERROR(device->MakeCurrent());
  for (int i = 0; i < options.streams; ++i) {
    GW_ASSIGN_OR_RETURN(const CudaStream stream, device->api().CreateStream());
    device->streams_.push_back(stream);
    device->workspaces_.push_back(nullptr);
  }
  GW_ASSIGN_OR_RETURN(device->copy_stream_, device->api().CreateStream());
  GW_ASSIGN_OR_RETURN(device->joined_, device->api().CreateEvent());
  return device;
}

CudaDevice::~CudaDevice() {
  // Nothing can be done about a failure here.
  (void)MakeCurrent();
  for (CudaStream stream : streams_) (void)api().DestroyStream(stream);
  if (copy_stream_ != nullptr) (void)api().DestroyStream(copy_stream_);
  if (joined_ != nullptr) (void)api().DestroyEvent(joined_);
  for (void* workspace : workspaces_) {
    if (workspace != nullptr) Free(workspace, platform_.workspace_bytes);
  }
}

absl::Status CudaDevice::CheckSupports(const Graph& graph, const Node& node) const {
  const KernelFactory* factory = platform_.kernels->Find(node.op->name);
  if (factory == nullptr) return absl::UnimplementedError("there is no kernel for it");
  const absl::StatusOr<Kernel> kernel = (*factory)({node, graph.OperandTypes(node), 1});
  // Other errors are reported when the kernel is made for a plan.
  return kernel.status().code() == absl::StatusCode::kUnimplemented ? kernel.status() : absl::OkStatus();
}

absl::StatusOr<std::vector<PartSteps>> CudaDevice::MakeSteps(const Graph& graph,
                                                             absl::Span<const DevicePart* const> parts,
                                                             const StepOptions& options) {
  return MakeCudaSteps(*this, graph, parts, options);
}

Kernel CudaDevice::MakeCopyKernel(size_t bytes) {
  return {.name = "copy", .run = [bytes](const KernelArguments& arguments) {
            const CudaContext& context = arguments.device<CudaContext>();
            return context.api->CopyAsync(arguments.outputs[0], arguments.operands[0], bytes,
                                          CudaCopyKind::kDeviceToDevice, context.stream);
          }};
}

absl::StatusOr<std::unique_ptr<CompiledGraph>> CudaDevice::Compile(std::unique_ptr<Plan> plan) {
  return CudaExecutable::Create(std::move(plan), shared_from_this());
}

absl::Status CudaDevice::Copy(void* to, const void* from, size_t bytes, CopyDirection direction) {
  const CudaCopyKind kind = direction == CopyDirection::kToDevice ? CudaCopyKind::kHostToDevice
                            : direction == CopyDirection::kToHost ? CudaCopyKind::kDeviceToHost
                                                                  : CudaCopyKind::kDeviceToDevice;
  GW_RETURN_IF_ERROR(MakeCurrent());
  GW_RETURN_IF_ERROR(api().CopyAsync(to, from, bytes, kind, stream()));
  return api().Synchronize(stream());
}

absl::Status CudaDevice::Synchronize() const {
  absl::Status status = api().Synchronize(copy_stream_);
  for (CudaStream stream : streams_) status.Update(api().Synchronize(stream));
  return status;
}

absl::Status CudaDevice::SettleOthers(const void* plan) {
  if (busy_with_ == nullptr || busy_with_ == plan) return absl::OkStatus();
  GW_RETURN_IF_ERROR(Synchronize());
  busy_with_ = nullptr;
  return absl::OkStatus();
}

absl::Status CudaDevice::JoinStreams() const {
  absl::Status status;
  for (CudaStream stream : streams_) {
    if (stream == streams_[0]) continue;
    status.Update(api().RecordEvent(joined_, stream));
    status.Update(api().WaitEvent(joined_, streams_[0]));
  }
  return status;
}

// The driver rounds large allocations up to the unit, and cuts small ones from units that they share.
// All of these units but the last are more than half full, as the next allocation did not fit.
int64_t CudaDevice::BytesTaken(absl::Span<const size_t> sizes) const {
  const size_t unit = platform_.allocation_unit;
  size_t large = 0, small = 0;
  for (const size_t size : sizes) {
    if (size < unit / 2) {
      small += RoundUp(size, kCudaAlignment);
    } else {
      large += RoundUp(size, unit);
    }
  }
  return static_cast<int64_t>(large + (small > 0 ? (2 * small / unit + 1) * unit : 0));
}

absl::StatusOr<int64_t> CudaDevice::RoomBeside(absl::Span<const size_t> sizes, size_t freed) const {
  GW_ASSIGN_OR_RETURN(const CudaDeviceProperties properties, api().DeviceProperties(index_));
  const int64_t unit = static_cast<int64_t>(platform_.allocation_unit);
  int64_t room = std::max(static_cast<int64_t>(properties.free_bytes) - static_cast<int64_t>(platform_.reserved_bytes),
                          int64_t{0});
  // A small allocation that ends may leave its unit to others.
  room += static_cast<int64_t>(freed) < unit / 2 ? 0 : BytesTaken({freed});
  room -= BytesTaken(sizes);
  room -= room % unit;
  if (options_.device_memory_limit > 0) {
    const size_t wanted = std::accumulate(sizes.begin(), sizes.end(), size_t{0});
    const int64_t beside = allocated_ - static_cast<int64_t>(freed) + static_cast<int64_t>(wanted);
    room = std::min(room, options_.device_memory_limit - beside);
  }
  return std::max(room, int64_t{0});
}

absl::StatusOr<void*> CudaDevice::Take(size_t bytes) {
  if (options_.device_memory_limit > 0 && static_cast<int64_t>(bytes) > options_.device_memory_limit - allocated_) {
    return absl::ResourceExhaustedError(absl::StrCat(bytes, " bytes are wanted on ", name(), ", and of ",
                                                     "device_memory_limit, ", options_.device_memory_limit, " bytes, ",
                                                     allocated_, " are taken"));
  }
  absl::StatusOr<void*> memory = api().Allocate(bytes);
  if (!memory.ok()) {
    if (memory.status().code() != absl::StatusCode::kResourceExhausted) return memory.status();
    std::string text = absl::StrCat(bytes, " bytes are wanted on ", name(), ", of which this session has ", allocated_);
    if (absl::StatusOr<CudaDeviceProperties> properties = api().DeviceProperties(index_); properties.ok()) {
      absl::StrAppend(&text, " and ", properties->free_bytes, " of ", properties->total_bytes, " are free");
    }
    return absl::ResourceExhaustedError(absl::StrCat(text, " (", memory.status().message(), ")"));
  }
  allocated_ += static_cast<int64_t>(bytes);
  return memory;
}

// Nothing can be done about a failure here.
void CudaDevice::Free(void* memory, size_t bytes) {
  (void)api().Free(memory);
  allocated_ -= static_cast<int64_t>(bytes);
}

absl::StatusOr<std::shared_ptr<std::byte>> CudaDevice::Allocate(size_t bytes) {
  if (bytes == 0) return nullptr;
  GW_RETURN_IF_ERROR(MakeCurrent());
  GW_ASSIGN_OR_RETURN(void* memory, Take(bytes));
  return std::shared_ptr<std::byte>(static_cast<std::byte*>(memory),
                                    [device = shared_from_this(), bytes](std::byte* data) mutable {
                                      (void)device->MakeCurrent();
                                      device->Free(data, bytes);
                                      // The device's weak pointer to the memory keeps this
                                      // function, and would keep the device with it.
                                      device = nullptr;
                                    });
}

absl::StatusOr<std::shared_ptr<std::byte>> CudaDevice::AllocatePinned(size_t bytes) {
  if (bytes == 0) return nullptr;
  GW_RETURN_IF_ERROR(MakeCurrent());
  absl::StatusOr<void*> memory = api().AllocatePinned(bytes);
  if (memory.status().code() == absl::StatusCode::kResourceExhausted) {
    return absl::ResourceExhaustedError(
        absl::StrCat("the host has too little memory that it can pin for copies to and from ", name(), ": ", bytes,
                     " bytes are wanted (", memory.status().message(), "); smaller feeds and fetches take less"));
  }
  GW_RETURN_IF_ERROR(memory.status());
  return std::shared_ptr<std::byte>(static_cast<std::byte*>(*memory), [device = shared_from_this()](std::byte* data) {
    (void)device->MakeCurrent();
    (void)device->api().FreePinned(data);
  });
}

bool CudaDevice::has_constant(const Tensor& value) const {
  const auto found = constants_.find(value.raw_data());
  return found != constants_.end() && !found->second.expired();
}

absl::StatusOr<std::shared_ptr<std::byte>> CudaDevice::AllocateConstant(const Tensor& value) {
  if (has_constant(value)) return constants_[value.raw_data()].lock();
  absl::erase_if(constants_, [](const auto& entry) { return entry.second.expired(); });
  GW_ASSIGN_OR_RETURN(std::shared_ptr<std::byte> memory, Allocate(value.byte_size()));
  GW_RETURN_IF_ERROR(Copy(memory.get(), value.raw_data(), value.byte_size(), CopyDirection::kToDevice));
  constants_[value.raw_data()] = memory;
  return memory;
}

absl::Status CudaDevice::GiveWorkspaces(absl::Span<const int> streams) {
  std::vector<std::pair<int, void*>> taken;
  for (int stream : streams) {
    if (has_workspace(stream) || platform_.workspace_bytes == 0) continue;
    absl::StatusOr<void*> memory = Take(platform_.workspace_bytes);
    if (!memory.ok()) {
      for (const auto& [unused, before] : taken) Free(before, platform_.workspace_bytes);
      return memory.status();
    }
    taken.push_back({stream, *memory});
  }
  for (const auto& [stream, memory] : taken) {
    workspaces_[stream] = memory;
    platform_.give_workspace(api(), streams_[stream], memory);
  }
  return absl::OkStatus();
}

}  // namespace gradweave
