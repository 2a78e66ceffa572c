// The shared memory of the block that runs on the emulated device: its arrays, and who has accessed
// what since which barrier.
#ifndef GRADWEAVE_RUNTIME_CUDA_EMULATION_BLOCK_MEMORY_H_
#define GRADWEAVE_RUNTIME_CUDA_EMULATION_BLOCK_MEMORY_H_

#include <array>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "gradweave/runtime/cuda/emulation/bank_counter.h"

namespace gradweave::emulation {

// The shared memory of a launch on the GPUs that allow the most.
inline constexpr size_t kMostSharedBytes = 227 << 10;

// Errors are messages; an empty one is success.
class BlockMemory {
 public:
  BlockMemory();

  // Begins a block with `dynamic_bytes` of dynamic shared memory, where no array exists yet.
  void StartBlock(size_t dynamic_bytes);
  // The threads of the block, or all of a warp, have met at a barrier.
  void MeetInBlock();
  void MeetInWarp(int warp);

  // Sets *memory to the array for a key. The first call of a block makes it and fills it with NaN.
  std::string Find(const void* key, size_t bytes, size_t alignment, void** memory);
  void* dynamic_memory() const { return memory_.get(); }

  // An access by a thread. See RecordSharedAccess of shared_memory.h.
  std::string Record(const void* instruction, int thread, const void* address, size_t bytes, size_t alignment,
                     bool writes);

  // Counts bank conflicts while it is set.
  BankCounter* banks = nullptr;

 private:
  struct Array {
    const void* key;  // Null for dynamic memory.
    size_t offset, bytes;
  };
  // A thread's access at a time, which is the number of barriers before it.
  struct Access {
    uint64_t time : 48 = 0;
    uint64_t thread : 16 = 0;
  };
  // The last write of an element, and two reads since then. The reads are of different threads, and
  // of different warps if possible, so whoever races with any reader races with one of these.
  struct Element {
    Access write;
    std::array<Access, 2> reads;
  };

  bool IsOrdered(const Access& access, int thread) const;
  void NoteRead(Element& element, int thread) const;
  std::string Race(size_t offset, const char* earlier, const Access& access, int thread, bool writes) const;
  std::string Place(size_t offset) const;

  std::unique_ptr<std::byte[]> memory_;
  // Elements by offset / 4, in one plane for each offset % 4. An element of more than 4 bytes has
  // an entry for each word. This takes the elements of an array to have one size.
  std::vector<Element> elements_;
  std::vector<Array> arrays_;
  size_t used_ = 0;
  // The number of barriers so far, and the numbers of the last ones of the block and of each warp.
  uint64_t clock_ = 0, block_time_ = 0;
  std::array<uint64_t, 32> warp_times_ = {};
};

}  // namespace gradweave::emulation

#endif  // GRADWEAVE_RUNTIME_CUDA_EMULATION_BLOCK_MEMORY_H_
