#include "gradweave/runtime/plan/shared_memory.h"

namespace gradweave {
namespace {

// Growing memory takes an eighth more than necessary, so plans that grow in small steps rarely move
// it.
constexpr size_t kReserve = 8;

}  // namespace

void SharedMemory::Free() {
  memory_ = nullptr;
  capacity_ = 0;
}

void SharedMemory::Trim() {
  if (capacity_ > largest()) Free();
}

absl::Status SharedMemory::Fit(size_t bytes) {
  const size_t wanted = largest();
  const bool grows = capacity_ > 0 && wanted > capacity_;
  // Old and new memory never exist side by side.
  Free();
  absl::Status status;
  size_t tried = 0;
  for (size_t size : {grows ? wanted + wanted / kReserve : wanted, wanted, bytes}) {
    if (size == tried) continue;
    tried = size;
    absl::StatusOr<std::shared_ptr<std::byte>> memory = allocate_(size);
    status = memory.status();
    if (memory.ok()) {
      memory_ = *std::move(memory);
      capacity_ = size;
    }
    if (status.code() != absl::StatusCode::kResourceExhausted) break;
  }
  return status;
}

MemoryClaim::MemoryClaim(std::shared_ptr<SharedMemory> memory, size_t bytes)
    : memory_(std::move(memory)), bytes_(bytes) {
  memory_->claims_.insert(bytes_);
}

MemoryClaim::~MemoryClaim() {
  if (memory_ == nullptr) return;
  memory_->claims_.erase(memory_->claims_.find(bytes_));
  // The others may be in use.
  if (memory_->claims_.empty()) memory_->Free();
}

MemoryClaim& MemoryClaim::operator=(MemoryClaim&& other) noexcept {
  std::swap(memory_, other.memory_);
  std::swap(bytes_, other.bytes_);
  return *this;
}

}  // namespace gradweave
