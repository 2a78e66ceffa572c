#include "gradweave/runtime/cuda/plan/cuda_device.h"

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "gradweave/graph/check.h"

namespace gradweave {

absl::StatusOr<std::shared_ptr<CudaDevice>> CudaDevice::Open(int index, const CudaDeviceOptions& options) {
  const CudaBackend backend = GetCudaBackend();
  GW_RETURN_IF_ERROR(CheckCudaDevice(backend, index));
  std::shared_ptr<CudaDevice> device(new CudaDevice());
  device->backend_ = backend;
  device->index_ = index;
  device->memory_limit_ = options.memory_limit;
  device->kernels_ = std::make_unique<KernelStore>(*backend.api, index, backend.compiler, options.kernels);
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
    if (workspace != nullptr) Free(workspace, backend_.workspace_bytes);
  }
}

std::string CudaDevice::name() const { return absl::StrCat("cuda:", index_); }

absl::Status CudaDevice::Synchronize() const {
  absl::Status status = api().Synchronize(copy_stream_);
  for (CudaStream stream : streams_) status.Update(api().Synchronize(stream));
  return status;
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

absl::StatusOr<int64_t> CudaDevice::AvailableBytes() const {
  GW_ASSIGN_OR_RETURN(const CudaDeviceProperties properties, api().DeviceProperties(index_));
  const int64_t free = static_cast<int64_t>(properties.free_bytes);
  return memory_limit_ > 0 ? std::min(free, memory_limit_ - allocated_) : free;
}

absl::StatusOr<void*> CudaDevice::Take(size_t bytes) {
  if (memory_limit_ > 0 && static_cast<int64_t>(bytes) > memory_limit_ - allocated_) {
    return absl::ResourceExhaustedError(absl::StrCat(bytes, " bytes are wanted on ", name(), ", and of ",
                                                     "device_memory_limit, ", memory_limit_, " bytes, ", allocated_,
                                                     " are taken"));
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

absl::StatusOr<CudaMemory> CudaDevice::Allocate(size_t bytes) {
  CudaMemory memory;
  if (bytes == 0) return memory;
  GW_ASSIGN_OR_RETURN(void* data, Take(bytes));
  memory.device_ = shared_from_this();
  memory.data_ = static_cast<std::byte*>(data);
  memory.bytes_ = bytes;
  return memory;
}

absl::Status CudaDevice::GiveWorkspaces(absl::Span<const int> streams) {
  std::vector<std::pair<int, void*>> taken;
  for (int stream : streams) {
    if (has_workspace(stream) || backend_.workspace_bytes == 0) continue;
    absl::StatusOr<void*> memory = Take(backend_.workspace_bytes);
    if (!memory.ok()) {
      for (const auto& [unused, before] : taken) Free(before, backend_.workspace_bytes);
      return memory.status();
    }
    taken.push_back({stream, *memory});
  }
  for (const auto& [stream, memory] : taken) {
    workspaces_[stream] = memory;
    backend_.give_workspace(api(), streams_[stream], memory);
  }
  return absl::OkStatus();
}

absl::StatusOr<CudaMemory> CudaDevice::AllocatePinned(size_t bytes) {
  CudaMemory memory;
  if (bytes == 0) return memory;
  GW_ASSIGN_OR_RETURN(void* data, api().AllocatePinned(bytes));
  memory.device_ = shared_from_this();
  memory.data_ = static_cast<std::byte*>(data);
  memory.bytes_ = bytes;
  memory.pinned_ = true;
  return memory;
}

CudaMemory& CudaMemory::operator=(CudaMemory&& other) noexcept {
  std::swap(device_, other.device_);
  std::swap(data_, other.data_);
  std::swap(bytes_, other.bytes_);
  std::swap(pinned_, other.pinned_);
  return *this;
}

CudaMemory::~CudaMemory() {
  if (device_ == nullptr) return;
  (void)device_->MakeCurrent();
  if (pinned_) {
    (void)device_->api().FreePinned(data_);
    return;
  }
  device_->Free(data_, bytes_);
}

CudaVariables::CudaVariables(std::shared_ptr<CudaDevice> device, const VariableStorage& host)
    : device_(std::move(device)) {
  for (const auto& [name, variable] : host) Add(name, variable.tensor);
}

void CudaVariables::Add(absl::string_view name, const Tensor& host) {
  variables_[name] = std::make_unique<Variable>(Variable{.name = std::string(name), .host = host});
}

CudaVariables::Variable& CudaVariables::Find(absl::string_view name) {
  auto found = variables_.find(name);
  GW_CHECK(found != variables_.end(), name);
  return *found->second;
}

absl::Status CudaVariables::Reserve(Variable& variable) {
  if (variable.device.data() != nullptr || variable.host.byte_size() == 0) return absl::OkStatus();
  GW_ASSIGN_OR_RETURN(variable.device, device_->Allocate(variable.host.byte_size()));
  return absl::OkStatus();
}

absl::Status CudaVariables::ReleaseUnused() {
  for (auto& [name, variable] : variables_) {
    if (variable->plans > 0 || variable->device.data() == nullptr) continue;
    if (variable->device_current) GW_RETURN_IF_ERROR(ToHost(*variable));
    variable->device_current = false;
    variable->device = CudaMemory();
  }
  return absl::OkStatus();
}

absl::Status CudaVariables::CheckHasValue(const Variable& variable) const {
  if (variable.host_current || variable.device_current) return absl::OkStatus();
  return absl::DataLossError(
      absl::StrCat("variable '", variable.name, "' was on ", device_->name(),
                   " alone, and its value was lost when the device failed; give it one with SetVariable, or load a "
                   "saved model into a new session"));
}

absl::Status CudaVariables::ToDevice(Variable& variable) {
  if (variable.device_current) return absl::OkStatus();
  GW_RETURN_IF_ERROR(CheckHasValue(variable));
  GW_RETURN_IF_ERROR(Reserve(variable));
  if (variable.host.byte_size() > 0) {
    GW_RETURN_IF_ERROR(device_->api().CopyAsync(variable.device.data(), variable.host.raw_data(),
                                                variable.host.byte_size(), CudaCopyKind::kHostToDevice,
                                                device_->stream()));
    GW_RETURN_IF_ERROR(device_->api().Synchronize(device_->stream()));
  }
  variable.device_current = true;
  return absl::OkStatus();
}

absl::Status CudaVariables::ToHost(Variable& variable) {
  if (variable.host_current) return absl::OkStatus();
  GW_RETURN_IF_ERROR(CheckHasValue(variable));
  if (variable.host.byte_size() > 0) {
    GW_RETURN_IF_ERROR(device_->api().CopyAsync(variable.host.mutable_raw_data(), variable.device.data(),
                                                variable.host.byte_size(), CudaCopyKind::kDeviceToHost,
                                                device_->stream()));
    GW_RETURN_IF_ERROR(device_->api().Synchronize(device_->stream()));
  }
  variable.host_current = true;
  return absl::OkStatus();
}

}  // namespace gradweave
