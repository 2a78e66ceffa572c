// The memory of an emulated CUDA device.
#ifndef GRADWEAVE_RUNTIME_CUDA_EMULATION_EMULATED_MEMORY_H_
#define GRADWEAVE_RUNTIME_CUDA_EMULATION_EMULATED_MEMORY_H_

#include <cstddef>
#include <cstdint>
#include <list>
#include <map>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

namespace gradweave {

// Host memory with known bounds that holds NaN until it is written, as the memory of devices. Errors
// are Internal and name the call.
class EmulatedMemory {
 public:
  // Each device has `device_bytes` and hands them out in units of `unit` bytes, as a driver does. An
  // allocation of less than half a unit shares its unit with others; a larger one takes whole units.
  EmulatedMemory(size_t device_bytes, size_t unit) : device_bytes_(device_bytes), unit_(unit) {}
  ~EmulatedMemory();
  EmulatedMemory(const EmulatedMemory&) = delete;
  EmulatedMemory& operator=(const EmulatedMemory&) = delete;

  // Returns memory of the device, aligned to 256 bytes, or ResourceExhausted if it has too little
  // free.
  absl::StatusOr<void*> Allocate(int device, size_t bytes);
  void* AllocatePinned(size_t bytes);
  // Takes memory of the device that nobody can free, as the driver does for code. ResourceExhausted
  // if it has too little free.
  absl::Status Take(const char* call, int device, size_t bytes);
  // Frees memory that an allocation of that kind returned, or null. Returns the error of
  // CheckBounds too; the memory is freed even then.
  absl::Status Free(const char* call, void* memory, bool pinned);

  // Returns an error unless all bytes lie in one allocation of the device's memory. `what` says in
  // the error what they are for.
  absl::Status CheckDevice(const char* call, const char* what, int device, const void* memory, size_t bytes) const;
  // Returns true if all bytes lie in one allocation of pinned memory.
  bool IsPinned(const void* memory, size_t bytes) const;
  // Returns an error if something has written just before or behind an allocation. AddressSanitizer
  // reports such writes itself.
  absl::Status CheckBounds() const;

  // Bytes of device memory: in use on a device, in use on all, the maximum of that so far, and what
  // a device has.
  size_t allocated(int device) const;
  size_t allocated() const;
  size_t peak() const { return peak_; }
  size_t device_bytes() const { return device_bytes_; }

 private:
  // A unit that small allocations share. Memory of one that ended is free when all have ended.
  struct SharedUnit {
    size_t used = 0;
    int blocks = 0;
  };
  struct Block {
    size_t bytes;
    int device;                  // kPinned for pinned memory.
    SharedUnit* unit = nullptr;  // Null if the block has units of its own.
  };
  static constexpr int kPinned = -1;
  using Blocks = std::map<const std::byte*, Block>;  // Indexed by address of the first byte.

  void* NewBlock(size_t bytes, int device, SharedUnit* unit = nullptr);
  Blocks::const_iterator FindBlock(const void* memory, size_t bytes) const;
  static absl::Status CheckBounds(const std::byte* memory, const Block& block);

  const size_t device_bytes_, unit_;
  Blocks blocks_;
  std::map<int, size_t> allocated_;                    // By device.
  std::map<int, std::list<SharedUnit>> shared_units_;  // By device.
  size_t peak_ = 0;
};

}  // namespace gradweave

#endif  // GRADWEAVE_RUNTIME_CUDA_EMULATION_EMULATED_MEMORY_H_
