// Where things are in memory on both sides, and how it is allocated.
#include <algorithm>
#include <cstdlib>
#include <string>

#include "absl/container/flat_hash_set.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "gradweave/graph/check.h"
#include "gradweave/runtime/cuda/plan/cuda_planner.h"

namespace gradweave {

namespace {

// As bytes, and in units that a reader can compare.
std::string Mebibytes(int64_t bytes) { return absl::StrCat(bytes, " bytes (", bytes >> 20, " MiB)"); }

}  // namespace

// The inputs and constants that steps of the device, or its variables, read.
void CudaPlanner::FindSources() {
  absl::flat_hash_set<Port> seen;
  auto add = [&](Port root) {
    if (!IsEverywhere(root) || !seen.insert(root).second) return;
    (IsInput(graph_.node(root.node)) ? device_inputs_ : device_constants_).push_back(root);
  };
  for (const Step& step : out_.steps_) {
    if (step.operand_side() != kDevice) continue;
    for (Port operand : step.operands) add(Root(operand));
  }
  for (const Assignment& assignment : assignments_) {
    if (PlaceOf(assignment.variable).side == kDevice) add(assignment.value);
  }
  for (Port port : device_constants_) constant_bytes_ += RoundUp(Bytes(port));
  // Those that come with the run state first.
  std::stable_partition(device_inputs_.begin(), device_inputs_.end(), [&](Port port) { return IsSmallFeed(port); });
  out_.staged_bytes_ = kAlignment;
  for (Port port : device_inputs_) (IsSmallFeed(port) ? out_.staged_bytes_ : large_feed_bytes_) += RoundUp(Bytes(port));
  out_.uses_device_ = UsesDevice();
}

absl::Status CudaPlanner::OutOfMemory(const absl::Status& status) const {
  if (status.code() != absl::StatusCode::kResourceExhausted) return status;
  std::vector<int> order;
  for (int i = 0; i < static_cast<int>(owners_[kDevice].size()); ++i) order.push_back(i);
  std::stable_sort(order.begin(), order.end(),
                   [&](int a, int b) { return buffers_[kDevice][a].bytes > buffers_[kDevice][b].bytes; });
  constexpr size_t kNamed = 3;
  if (order.size() > kNamed) order.resize(kNamed);
  const std::string largest = absl::StrJoin(order, ", ", [&](std::string* text, int buffer) {
    const Port port = owners_[kDevice][buffer];
    absl::StrAppend(text, graph_.node(port.node).display_name(), " ", graph_.type(port).ToString(), " of ", Bytes(port),
                    " bytes");
  });
  const size_t workspaces = StreamsOfProducts().size() * out_.device_->backend().workspace_bytes;
  return absl::ResourceExhaustedError(
      absl::StrCat("the plan does not fit in the memory of ", out_.device_->name(), ": its values and scratch take ",
                   Mebibytes(plans_[kDevice].arena_bytes), " at the peak, constants ", constant_bytes_, ", feeds ",
                   out_.staged_bytes_ + 2 * large_feed_bytes_, " and the workspaces of matrix products ", workspaces,
                   "; ", status.message(), largest.empty() ? "" : absl::StrCat("; the largest values are ", largest),
                   "; a smaller batch or SessionOptions::memory_budget takes less"));
}

void CudaPlanner::PlanArenas() {
  plans_[kHost] = PlanMemory(buffers_[kHost]);
  plans_[kDevice] = PlanDeviceArena();
  for (Side side : {kHost, kDevice}) {
    out_.arena_bytes_[side] = plans_[side].arena_bytes;
    out_.lower_bound_bytes_[side] = plans_[side].lower_bound_bytes;
  }
}

int64_t CudaPlanner::BytesBesideArena() const {
  if (!out_.uses_device_) return 0;
  // Rounding the arena up takes less than the last one.
  size_t bytes = ArenaAt() + kAlignment + static_cast<size_t>(BytesOfWorkspaces());
  for (const auto& used : out_.used_variables_) {
    if (used.side == kDevice && used.variable->device.data() == nullptr) bytes += used.variable->host.byte_size();
  }
  return static_cast<int64_t>(bytes);
}

absl::Status CudaPlanner::Allocate() {
  const size_t host_bytes = RoundUp(std::max<size_t>(out_.arena_bytes_[kHost], 1));
  void* host = std::aligned_alloc(kAlignment, host_bytes);
  if (host == nullptr) {
    return absl::ResourceExhaustedError(
        absl::StrCat("no memory for the plan's ", host_bytes, " bytes on the CPU; a smaller batch needs less"));
  }
  out_.host_arena_ = std::shared_ptr<std::byte>(static_cast<std::byte*>(host), std::free);
  if (out_.uses_device_) {
    if (absl::Status status = AllocateOnDevice(); !status.ok()) {
      out_.memory_ = CudaMemory();
      out_.pinned_ = CudaMemory();
      // The places of variables that other plans don't use.
      (void)out_.variables_->ReleaseUnused();
      return OutOfMemory(status);
    }
    PlaceFeedsAndConstants();
    GW_RETURN_IF_ERROR(PrepareDevice());
  }
  GW_RETURN_IF_ERROR(Bind());
  for (auto& used : out_.used_variables_) used.variable->plans += used.side == kDevice ? 1 : 0;
  return absl::OkStatus();
}

absl::Status CudaPlanner::AllocateOnDevice() {
  GW_RETURN_IF_ERROR(out_.device_->MakeCurrent());
  for (auto& used : out_.used_variables_) {
    if (used.side == kDevice) GW_RETURN_IF_ERROR(out_.variables_->Reserve(*used.variable));
  }
  size_t pinned_bytes = kAlignment + 2 * SlotBytes();
  if (auto fetches = graph_.outputs().find(kFetches); fetches != graph_.outputs().end()) {
    for (Port port : fetches->second) pinned_bytes += RoundUp(Bytes(port));
  }
  GW_ASSIGN_OR_RETURN(out_.pinned_, out_.device_->AllocatePinned(pinned_bytes));
  GW_ASSIGN_OR_RETURN(out_.memory_, out_.device_->Allocate(ArenaAt() + RoundUp(out_.arena_bytes_[kDevice])));
  return out_.device_->GiveWorkspaces(StreamsOfProducts());
}

// In pinned memory the error flag comes first, then two slots, then what is fetched.
void CudaPlanner::PlaceFeedsAndConstants() {
  std::byte* device = out_.memory_.data() + 2 * kAlignment;
  out_.pinned_error_ = reinterpret_cast<int32_t*>(out_.pinned_.data());
  for (int i : {0, 1}) out_.slots_[i].data = out_.pinned_.data() + kAlignment + i * SlotBytes();
  size_t offset = kAlignment;
  out_.device_feeds_.clear();
  for (Port input : device_inputs_) {
    const size_t size = Bytes(input);
    out_.device_feeds_.push_back(
        {feeds_.at(input.node), size, offset, device, IsSmallFeed(input) ? nullptr : device + large_feed_bytes_});
    sources_[input] = device;
    device += RoundUp(size);
    offset += RoundUp(size);
  }
  std::byte* constants = out_.memory_.data() + ConstantsAt();
  for (Port constant : device_constants_) {
    sources_[constant] = constants;
    constants += RoundUp(Bytes(constant));
  }
}

// Constants, events, and no error.
absl::Status CudaPlanner::PrepareDevice() {
  CudaDevice& device = *out_.device_;
  for (Port constant : device_constants_) {
    const Tensor& value = graph_.node(constant.node).attribute<Tensor>("value");
    if (value.byte_size() == 0) continue;
    GW_RETURN_IF_ERROR(device.api().CopyAsync(sources_[constant], value.raw_data(), value.byte_size(),
                                              CudaCopyKind::kHostToDevice, device.stream()));
  }
  GW_RETURN_IF_ERROR(device.api().FillAsync(out_.memory_.data(), 0, sizeof(int32_t), device.stream()));
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

// Where the root's elements are on that side; null for a feed of the CPU, which each run brings along.
void* CudaPlanner::Address(Port root, Side side) {
  const Node& node = graph_.node(root.node);
  if (IsEverywhere(root)) {
    if (side == kDevice) return sources_.at(root);
    return IsInput(node) ? nullptr : const_cast<void*>(node.attribute<Tensor>("value").raw_data());
  }
  const Place& place = PlaceOf(root);
  GW_CHECK(place.side == side, "a value is read on the wrong device: ", DescribeNode(graph_, node));
  if (place.kind == Place::kVariable) {
    return side == kDevice ? static_cast<void*>(place.variable->device.data())
                           : place.variable->host.mutable_raw_data();
  }
  GW_CHECK(place.kind == Place::kArena, "a value has no place: ", DescribeNode(graph_, node));
  return BufferAddress(place.buffer, side);
}

std::byte* CudaPlanner::BufferAddress(int buffer, Side side) const {
  std::byte* arena = side == kHost ? out_.host_arena_.get() : out_.memory_.data() + ArenaAt();
  return arena + plans_[side].offsets[buffer];
}

// Adds the address of a value, or a note to put the feed's there.
int CudaPlanner::AddPointer(Port port, Side side) {
  const Port root = Root(port);
  const int index = static_cast<int>(out_.pointers_.size());
  out_.pointers_.push_back(Address(root, side));
  if (side == kHost && IsInput(graph_.node(root.node))) out_.feed_patches_.push_back({index, feeds_.at(root.node)});
  return index;
}

absl::Status CudaPlanner::Bind() {
  for (int i = 0; i < static_cast<int>(out_.steps_.size()); ++i) {
    Step& step = out_.steps_[i];
    if (scratch_[i] >= 0) step.scratch = BufferAddress(scratch_[i], step.operand_side());
    step.first_operand = static_cast<int>(out_.pointers_.size());
    for (Port operand : step.operands) AddPointer(operand, step.operand_side());
    for (Port output : step.outputs) AddPointer(output, step.output_side());
  }
  auto side_of = [&](Port root) { return IsEverywhere(root) ? kHost : PlaceOf(root).side; };
  std::byte* pinned = out_.pinned_.data() + kAlignment + 2 * SlotBytes();
  if (auto fetches = graph_.outputs().find(kFetches); fetches != graph_.outputs().end()) {
    int result = 0;
    for (Port port : fetches->second) {
      const size_t bytes = Bytes(port);
      if (side_of(Root(port)) == kHost) {
        out_.result_copies_.push_back({nullptr, AddPointer(port, kHost), nullptr, result, bytes});
      } else {
        if (bytes > 0) out_.device_fetches_.push_back({Address(Root(port), kDevice), pinned, bytes});
        out_.result_copies_.push_back({pinned, -1, nullptr, result, bytes});
        pinned += RoundUp(bytes);
      }
      ++result;
    }
  }
  for (const Assignment& assignment : assignments_) {
    if (assignment.in_place) continue;
    const size_t bytes = Bytes(assignment.variable);
    const Side side = PlaceOf(assignment.variable).side;
    void* const to = Address(assignment.variable, side);
    if (side == kHost) {
      out_.variable_copies_.push_back({nullptr, AddPointer(assignment.value, kHost), to, -1, bytes});
    } else if (bytes > 0) {
      out_.commits_.push_back({to, Address(assignment.value, kDevice), bytes});
    }
  }
  return absl::OkStatus();
}

}  // namespace gradweave
