#include "gradweave/runtime/cuda/emulation/emulated_memory.h"

#include <algorithm>
#include <cstdlib>
#include <iterator>

#include "absl/strings/str_cat.h"
#include "gradweave/graph/alignment.h"
#include "gradweave/graph/check.h"
#include "gradweave/runtime/cuda/api/api.h"

#ifdef __SANITIZE_ADDRESS__
#include <sanitizer/asan_interface.h>
#else
#define ASAN_POISON_MEMORY_REGION(address, bytes) ((void)(address), (void)(bytes))
#define ASAN_UNPOISON_MEMORY_REGION(address, bytes) ((void)(address), (void)(bytes))
#endif

namespace gradweave {
namespace {

constexpr size_t kCanaryBytes = 256;  // Guard bytes on either side of an allocation.
constexpr uint8_t kCanary = 0xa5;
constexpr uint8_t kUnwritten = 0xff;  // NaN in every floating dtype.

}  // namespace

EmulatedMemory::~EmulatedMemory() {
  while (!blocks_.empty()) {
    const auto& [memory, block] = *blocks_.begin();
    (void)Free("~EmulatedMemory", const_cast<std::byte*>(memory), block.device == kPinned);
  }
}

size_t EmulatedMemory::allocated(int device) const {
  const auto found = allocated_.find(device);
  return found == allocated_.end() ? 0 : found->second;
}

size_t EmulatedMemory::allocated() const {
  size_t sum = 0;
  for (const auto& [device, bytes] : allocated_) sum += bytes;
  return sum;
}

absl::Status EmulatedMemory::Take(const char* call, int device, size_t bytes) {
  const size_t free = device_bytes_ - allocated(device);
  if (bytes > free) {
    return absl::ResourceExhaustedError(
        absl::StrCat(call, ": out of memory: ", bytes, " bytes are wanted, and ", free, " are free"));
  }
  allocated_[device] += bytes;
  peak_ = std::max(peak_, allocated());
  return absl::OkStatus();
}

absl::StatusOr<void*> EmulatedMemory::Allocate(int device, size_t bytes) {
  if (bytes >= unit_ / 2) {
    GW_RETURN_IF_ERROR(Take("Allocate", device, RoundUp(bytes, unit_)));
    return NewBlock(bytes, device);
  }
  const size_t padded = RoundUp(bytes, kCudaAlignment);
  std::list<SharedUnit>& units = shared_units_[device];
  auto unit =
      std::find_if(units.begin(), units.end(), [&](const SharedUnit& shared) { return shared.used + padded <= unit_; });
  if (unit == units.end()) {
    GW_RETURN_IF_ERROR(Take("Allocate", device, unit_));
    unit = units.emplace(units.end());
  }
  unit->used += padded;
  ++unit->blocks;
  return NewBlock(bytes, device, &*unit);
}

void* EmulatedMemory::AllocatePinned(size_t bytes) { return NewBlock(bytes, kPinned); }

void* EmulatedMemory::NewBlock(size_t bytes, int device, SharedUnit* unit) {
  const size_t padded = RoundUp(bytes, kCudaAlignment);
  auto* memory = static_cast<std::byte*>(std::aligned_alloc(kCudaAlignment, padded + 2 * kCanaryBytes));
  GW_CHECK(memory != nullptr, "no host memory for emulated device memory");
  std::fill_n(memory, padded + 2 * kCanaryBytes, std::byte{kCanary});
  std::fill_n(memory + kCanaryBytes, bytes, std::byte{kUnwritten});
  ASAN_POISON_MEMORY_REGION(memory, kCanaryBytes);
  ASAN_POISON_MEMORY_REGION(memory + kCanaryBytes + bytes, padded - bytes + kCanaryBytes);
  blocks_[memory + kCanaryBytes] = {bytes, device, unit};
  return memory + kCanaryBytes;
}

absl::Status EmulatedMemory::Free(const char* call, void* memory, bool pinned) {
  if (memory == nullptr) return absl::OkStatus();
  auto found = blocks_.find(static_cast<const std::byte*>(memory));
  if (found == blocks_.end() || (found->second.device == kPinned) != pinned)
    return absl::InternalError(absl::StrCat(call, ": the address is not that of an allocation"));
  const Block block = found->second;
  const absl::Status status = CheckBounds(found->first, block);
  if (block.unit != nullptr && --block.unit->blocks == 0) {
    allocated_[block.device] -= unit_;
    shared_units_[block.device].remove_if([&](const SharedUnit& shared) { return &shared == block.unit; });
  } else if (block.unit == nullptr && !pinned) {
    allocated_[block.device] -= RoundUp(block.bytes, unit_);
  }
  std::byte* start = static_cast<std::byte*>(memory) - kCanaryBytes;
  ASAN_UNPOISON_MEMORY_REGION(start, block.bytes + kCudaAlignment + 2 * kCanaryBytes);
  std::free(start);
  blocks_.erase(found);
  return status;
}

EmulatedMemory::Blocks::const_iterator EmulatedMemory::FindBlock(const void* memory, size_t bytes) const {
  const std::byte* address = static_cast<const std::byte*>(memory);
  auto after = blocks_.upper_bound(address);
  if (after == blocks_.begin()) return blocks_.end();
  auto block = std::prev(after);
  const size_t offset = address - block->first;
  return offset <= block->second.bytes && bytes <= block->second.bytes - offset ? block : blocks_.end();
}

absl::Status EmulatedMemory::CheckDevice(const char* call, const char* what, int device, const void* memory,
                                         size_t bytes) const {
  if (bytes == 0) return absl::OkStatus();
  auto block = FindBlock(memory, bytes);
  if (block != blocks_.end() && block->second.device == device) return absl::OkStatus();
  const bool is_elsewhere = block != blocks_.end() && block->second.device != kPinned;
  return absl::InternalError(
      absl::StrCat(call, ": ", bytes, " bytes ", what, " are not all inside one allocation of device memory",
                   is_elsewhere ? absl::StrCat(" of device ", device, ", but of device ", block->second.device) : ""));
}

bool EmulatedMemory::IsPinned(const void* memory, size_t bytes) const {
  auto block = FindBlock(memory, bytes);
  return block != blocks_.end() && block->second.device == kPinned;
}

absl::Status EmulatedMemory::CheckBounds() const {
  for (const auto& [memory, block] : blocks_) GW_RETURN_IF_ERROR(CheckBounds(memory, block));
  return absl::OkStatus();
}

absl::Status EmulatedMemory::CheckBounds(const std::byte* memory, const Block& block) {
  auto broken = [](const std::byte* begin, size_t count) {
#ifdef __SANITIZE_ADDRESS__
    return false;
#endif
    return std::any_of(begin, begin + count, [](std::byte b) { return b != std::byte{kCanary}; });
  };
  if (broken(memory - kCanaryBytes, kCanaryBytes) ||
      broken(memory + block.bytes, RoundUp(block.bytes, kCudaAlignment) - block.bytes + kCanaryBytes)) {
    return absl::InternalError(
        absl::StrCat("a kernel or a product wrote outside an allocation of ", block.bytes, " bytes"));
  }
  return absl::OkStatus();
}

}  // namespace gradweave
