// The memory of an emulated CUDA device.
#ifndef GRADWEAVE_RUNTIME_CUDA_EMULATION_EMULATED_MEMORY_H_
#define GRADWEAVE_RUNTIME_CUDA_EMULATION_EMULATED_MEMORY_H_

#include <cstddef>
#include <cstdint>
#include <map>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

namespace gradweave {

// Host memory with known bounds, which holds NaN until it is written. Calls are named in errors, which are Internal.
class EmulatedMemory {
 public:
  explicit EmulatedMemory(size_t device_bytes) : device_bytes_(device_bytes) {}
  ~EmulatedMemory();
  EmulatedMemory(const EmulatedMemory&) = delete;
  EmulatedMemory& operator=(const EmulatedMemory&) = delete;

  // Aligned to 256. ResourceExhausted where so much is not free.
  absl::StatusOr<void*> Allocate(size_t bytes);
  void* AllocatePinned(size_t bytes);
  // What an allocation of that kind gave, or null. The error of CheckBounds too; the memory is free then.
  absl::Status Free(const char* call, void* memory, bool pinned);

  // Whether all of the bytes are in one allocation of device memory; the error says what they are for.
  absl::Status CheckDevice(const char* call, const char* what, const void* memory, size_t bytes) const;
  // Whether all of the bytes are in one allocation of pinned memory.
  bool IsPinned(const void* memory, size_t bytes) const;
  // Whether something has written just before or behind an allocation. AddressSanitizer tells by itself.
  absl::Status CheckBounds() const;

  // Bytes of device memory: allocated, the most that ever were, and all.
  size_t allocated() const { return allocated_; }
  size_t peak() const { return peak_; }
  size_t device_bytes() const { return device_bytes_; }

 private:
  struct Block {
    size_t bytes;
    bool pinned;
  };
  using Blocks = std::map<const std::byte*, Block>;  // By first byte.

  void* NewBlock(size_t bytes, bool pinned);
  Blocks::const_iterator FindBlock(const void* memory, size_t bytes) const;
  static absl::Status CheckBounds(const std::byte* memory, const Block& block);

  const size_t device_bytes_;
  Blocks blocks_;
  size_t allocated_ = 0, peak_ = 0;
};

}  // namespace gradweave

#endif  // GRADWEAVE_RUNTIME_CUDA_EMULATION_EMULATED_MEMORY_H_
