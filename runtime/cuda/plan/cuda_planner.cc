// The layout of the device's memory, and its allocation.
#include "gradweave/runtime/cuda/plan/cuda_planner.h"

#include <algorithm>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "gradweave/graph/check.h"

namespace gradweave {

namespace {

// Formats a size in bytes, and in units that are easy to compare.
std::string Mebibytes(int64_t bytes) { return absl::StrCat(bytes, " bytes (", bytes >> 20, " MiB)"); }

}  // namespace

CudaPlanner::CudaPlanner(CudaExecutable& executable)
    : out_(executable), plan_(*executable.plan_), arena_(plan_.arenas[kDevice]) {}

void CudaPlanner::PlanDevice() {
  MeasureSources();
  MakeSegments();
  PlanDeviceArena();
}

// The memory of the inputs and constants that the device reads.
void CudaPlanner::MeasureSources() {
  for (Port port : arena_.constants) {
    constant_bytes_ += Aligned(Bytes(port));
    if (IsSmallConstant(port)) small_constant_bytes_ += Aligned(Bytes(port));
  }
  // Feeds that are copied with the run state come first.
  std::stable_partition(arena_.inputs.begin(), arena_.inputs.end(), [&](Port port) { return IsSmallFeed(port); });
  out_.staged_bytes_ = kCudaAlignment;
  for (Port port : arena_.inputs) (IsSmallFeed(port) ? out_.staged_bytes_ : large_feed_bytes_) += Aligned(Bytes(port));
  out_.uses_device_ = plan_.UsesDevices();
}

// If the device is used, the last segment belongs to it and copies the results.
void CudaPlanner::MakeSegments() {
  const int count = static_cast<int>(plan_.steps.size());
  auto& segments = out_.segments_;
  for (int step = 0; step < count; ++step) {
    if (!plan_.steps[step].is_on(kDevice)) {
      segments.push_back({step, step + 1, false});
    } else if (segments.empty() || !segments.back().on_device) {
      segments.push_back({step, step + 1, true});
    } else {
      segments.back().last = step + 1;
    }
  }
  if (out_.uses_device_ && (segments.empty() || !segments.back().on_device)) segments.push_back({count, count, true});
}

absl::Status CudaPlanner::OutOfMemory(const absl::Status& status) const {
  if (status.code() != absl::StatusCode::kResourceExhausted) return status;
  std::vector<int> order;
  for (int i = 0; i < static_cast<int>(arena_.owners.size()); ++i) order.push_back(i);
  std::stable_sort(order.begin(), order.end(),
                   [&](int a, int b) { return arena_.buffers[a].bytes > arena_.buffers[b].bytes; });
  constexpr size_t kNamed = 3;
  if (order.size() > kNamed) order.resize(kNamed);
  const std::string largest = absl::StrJoin(order, ", ", [&](std::string* text, int buffer) {
    const Port port = arena_.owners[buffer];
    absl::StrAppend(text, plan_.graph.node(port.node).display_name(), " ", plan_.graph.type(port).ToString(), " of ",
                    Bytes(port), " bytes");
  });
  const size_t workspaces = StreamsOfProducts().size() * out_.device_->platform().workspace_bytes;
  return absl::ResourceExhaustedError(
      absl::StrCat("the plan does not fit in the memory of ", out_.device_->name(), ": its values and scratch take ",
                   Mebibytes(arena_.bytes()), " at the peak, constants ", constant_bytes_, ", feeds ",
                   out_.staged_bytes_ + 2 * large_feed_bytes_, " and the workspaces of matrix products ", workspaces,
                   "; ", status.message(), largest.empty() ? "" : absl::StrCat("; the largest values are ", largest),
                   "; a smaller batch or SessionOptions::memory_budget takes less"));
}

absl::StatusOr<int64_t> CudaPlanner::ArenaRoom() const {
  std::vector<size_t> sizes = {OwnBytes()};
  sizes.insert(sizes.end(), MissingWorkspaces(), out_.device_->platform().workspace_bytes);
  for (Port port : arena_.constants) {
    if (!IsSmallConstant(port) && !out_.device_->has_constant(ValueOf(port))) sizes.push_back(Bytes(port));
  }
  for (const VariableUse& used : plan_.variables) {
    if (used.device == kDevice && used.variable->device == nullptr) sizes.push_back(used.variable->host.byte_size());
  }
  // The shared memory is freed before it grows.
  GW_ASSIGN_OR_RETURN(const int64_t room, out_.device_->RoomBeside(sizes, plan_.memory->arenas[kDevice]->capacity()));
  return room - static_cast<int64_t>(ArenaAt() + kCudaAlignment);
}

absl::Status CudaPlanner::Allocate() {
  GW_RETURN_IF_ERROR(AllocateKept(plan_));
  out_.host_claim_ =
      MemoryClaim(plan_.memory->arenas[0], static_cast<size_t>(std::max<int64_t>(plan_.arenas[0].run_bytes(), 1)));
  if (out_.uses_device_) {
    absl::Status status = AllocatePinned();
    if (status.ok()) {
      status = AllocateOnDevice();
      if (!status.ok()) status = OutOfMemory(status);
    }
    if (!status.ok()) {
      out_.memory_ = nullptr;
      out_.constants_.clear();
      out_.shared_claim_ = MemoryClaim();
      out_.pinned_claim_ = MemoryClaim();
      // The memory of variables that other plans do not use.
      (void)plan_.session_variables->ReleaseUnused();
      return status;
    }
  }
  GW_RETURN_IF_ERROR(out_.HoldMemory());
  if (out_.uses_device_) GW_RETURN_IF_ERROR(PrepareDevice());
  for (const VariableUse& used : plan_.variables) used.variable->plans += used.device == kDevice ? 1 : 0;
  return absl::OkStatus();
}

absl::Status CudaPlanner::AllocatePinned() {
  GW_RETURN_IF_ERROR(out_.device_->MakeCurrent());
  GW_RETURN_IF_ERROR(out_.device_->SettleOthers(&out_));
  out_.pinned_claim_ = MemoryClaim(out_.device_->pinned(), PinnedBytes());
  return out_.pinned_claim_.Hold().status();
}

absl::Status CudaPlanner::AllocateOnDevice() {
  for (const VariableUse& used : plan_.variables) {
    if (used.device == kDevice) GW_RETURN_IF_ERROR(plan_.session_variables->Reserve(*used.variable));
  }
  out_.shared_claim_ = MemoryClaim(plan_.memory->arenas[kDevice], SharedBytes());
  GW_RETURN_IF_ERROR(out_.shared_claim_.Hold().status());
  GW_ASSIGN_OR_RETURN(out_.memory_, out_.device_->Allocate(OwnBytes()));
  for (Port constant : arena_.constants) {
    if (IsSmallConstant(constant)) continue;
    GW_ASSIGN_OR_RETURN(out_.constants_.emplace_back(), out_.device_->AllocateConstant(ValueOf(constant)));
  }
  return out_.device_->GiveWorkspaces(StreamsOfProducts());
}

// The error flag comes first, then two slots, then the fetched values.
size_t CudaPlanner::PinnedBytes() const {
  size_t bytes = kCudaAlignment + 2 * SlotBytes();
  if (auto fetches = plan_.graph.outputs().find(kFetches); fetches != plan_.graph.outputs().end()) {
    for (Port port : fetches->second) bytes += Aligned(Bytes(port));
  }
  return bytes;
}

void CudaPlanner::PlaceFeedsAndConstants() {
  out_.pinned_error_ = reinterpret_cast<int32_t*>(out_.pinned_);
  for (int i : {0, 1}) out_.slots_[i].data = out_.pinned_ + kCudaAlignment + i * SlotBytes();
  std::byte* small = out_.memory_.get() + 2 * kCudaAlignment;
  std::byte* large = out_.shared_;
  size_t offset = kCudaAlignment;
  out_.device_feeds_.clear();
  for (Port input : arena_.inputs) {
    const size_t size = Bytes(input);
    const bool is_small = IsSmallFeed(input);
    std::byte*& device = is_small ? small : large;
    out_.device_feeds_.push_back(
        {plan_.PlaceOf(input).index, size, offset, device, is_small ? nullptr : device + large_feed_bytes_});
    sources_[input] = device;
    device += Aligned(size);
    offset += Aligned(size);
  }
  std::byte* constants = out_.memory_.get() + ConstantsAt();
  auto large_constant = out_.constants_.begin();
  for (Port constant : arena_.constants) {
    sources_[constant] = IsSmallConstant(constant) ? constants : (large_constant++)->get();
    if (IsSmallConstant(constant)) constants += Aligned(Bytes(constant));
  }
}

// Copies constants, creates events and clears the error flag.
absl::Status CudaPlanner::PrepareDevice() {
  CudaDevice& device = *out_.device_;
  for (Port constant : arena_.constants) {
    const Tensor& value = ValueOf(constant);
    if (value.byte_size() == 0 || !IsSmallConstant(constant)) continue;
    GW_RETURN_IF_ERROR(device.api().CopyAsync(sources_[constant], value.raw_data(), value.byte_size(),
                                              CudaCopyKind::kHostToDevice, device.stream()));
  }
  GW_RETURN_IF_ERROR(device.api().FillAsync(out_.memory_.get(), 0, sizeof(int32_t), device.stream()));
  GW_RETURN_IF_ERROR(device.api().Synchronize(device.stream()));
  for (CudaExecutable::Slot& slot : out_.slots_) {
    GW_ASSIGN_OR_RETURN(slot.taken, device.api().CreateEvent());
  }
  if (large_feed_bytes_ > 0) {
    GW_ASSIGN_OR_RETURN(out_.feeds_ready_, device.api().CreateEvent());
  }
  for (const CudaExecutable::Segment& segment : out_.segments_) {
    while (static_cast<int>(out_.events_.size()) < segment.schedule.num_events) {
      GW_ASSIGN_OR_RETURN(const CudaEvent event, device.api().CreateEvent());
      out_.events_.push_back(event);
    }
  }
  return absl::OkStatus();
}

// The address of the root's elements on the device.
void* CudaPlanner::DeviceAddress(Port root) const {
  const ValuePlace& place = plan_.PlaceOf(root);
  if (place.is_everywhere()) return sources_.at(root);
  GW_CHECK(place.device == kDevice,
           "a value is read on the wrong device: ", DescribeNode(plan_.graph, plan_.graph.node(root.node)));
  if (place.kind == ValuePlace::kVariable) return place.variable->device.get();
  return out_.device_arena_ + arena_.memory.offsets[place.index];
}

void CudaPlanner::Bind() {
  if (out_.uses_device_) {
    PlaceFeedsAndConstants();
    out_.device_arena_ = out_.shared_ + ArenaAt();
  }
  out_.binding_ = BindPlan(plan_, [&](Port root, int device) {
    return device == kDevice ? DeviceAddress(root) : HostAddress(plan_, root, out_.host_arena_);
  });
  const Binding& binding = out_.binding_;
  out_.result_copies_.clear();
  out_.device_fetches_.clear();
  out_.variable_copies_.clear();
  out_.commits_.clear();
  std::byte* pinned = out_.uses_device_ ? out_.pinned_ + kCudaAlignment + 2 * SlotBytes() : nullptr;
  for (const Binding::Result& result : binding.results) {
    if (result.device != kDevice) {
      out_.result_copies_.push_back({nullptr, result.pointer, result.bytes});
      continue;
    }
    if (result.bytes > 0) out_.device_fetches_.push_back({binding.pointers[result.pointer], pinned, result.bytes});
    out_.result_copies_.push_back({pinned, -1, result.bytes});
    pinned += Aligned(result.bytes);
  }
  for (const Binding::Update& update : binding.updates) {
    if (update.device != kDevice) {
      out_.variable_copies_.push_back(update);
    } else if (update.bytes > 0) {
      out_.commits_.push_back({update.to, binding.pointers[update.pointer], update.bytes});
    }
  }
}

}  // namespace gradweave
