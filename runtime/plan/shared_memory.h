// SharedMemory: memory of one device that several plans use, one after the other.
#ifndef GRADWEAVE_RUNTIME_PLAN_SHARED_MEMORY_H_
#define GRADWEAVE_RUNTIME_PLAN_SHARED_MEMORY_H_

#include <cstddef>
#include <functional>
#include <memory>
#include <set>
#include <utility>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

namespace gradweave {

// One run at a time uses it; its contents are then undefined. It has room for the largest claim.
// Not thread-safe.
class SharedMemory {
 public:
  using Allocate = std::function<absl::StatusOr<std::shared_ptr<std::byte>>(size_t bytes)>;
  explicit SharedMemory(Allocate allocate) : allocate_(std::move(allocate)) {}

  // The current size in bytes.
  size_t capacity() const { return capacity_; }
  // Frees the memory beyond the largest claim; the next Hold allocates. The memory must not be in
  // use.
  void Trim();

 private:
  friend class MemoryClaim;
  size_t largest() const { return claims_.empty() ? 0 : *claims_.rbegin(); }
  void Free();
  absl::Status Fit(size_t bytes);

  const Allocate allocate_;
  std::multiset<size_t> claims_;
  std::shared_ptr<std::byte> memory_;
  size_t capacity_ = 0;
};

// The part of a SharedMemory that one plan needs, until it is destroyed.
class MemoryClaim {
 public:
  MemoryClaim() = default;
  MemoryClaim(std::shared_ptr<SharedMemory> memory, size_t bytes);
  ~MemoryClaim();
  MemoryClaim(MemoryClaim&& other) noexcept { *this = std::move(other); }
  MemoryClaim& operator=(MemoryClaim&& other) noexcept;

  // Returns the address of the claim's bytes. It may move the memory, so every plan calls it before
  // each run, when all other runs are done. Returns ResourceExhausted if there is no room.
  absl::StatusOr<std::byte*> Hold() {
    const bool fits = bytes_ <= memory_->capacity_ && memory_->capacity_ / 2 <= memory_->largest();
    if (!fits) {
      if (absl::Status status = memory_->Fit(bytes_); !status.ok()) return status;
    }
    return memory_->memory_.get();
  }

 private:
  std::shared_ptr<SharedMemory> memory_;
  size_t bytes_ = 0;
};

}  // namespace gradweave

#endif  // GRADWEAVE_RUNTIME_PLAN_SHARED_MEMORY_H_
