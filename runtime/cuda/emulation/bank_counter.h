// Counts conflicts of banks of shared memory on the emulated device.
#ifndef GRADWEAVE_RUNTIME_CUDA_EMULATION_BANK_COUNTER_H_
#define GRADWEAVE_RUNTIME_CUDA_EMULATION_BANK_COUNTER_H_

#include <compare>
#include <cstddef>
#include <cstdint>
#include <map>
#include <utility>
#include <vector>

namespace gradweave::emulation {

// Accesses of whole warps to shared memory, and conflicts: the turns that banks take beyond those
// of an access without conflicts.
struct BankCounts {
  uint64_t accesses = 0, conflicts = 0;
};

// Shared memory has 32 banks with words of 4 bytes. An access takes as many turns as the bank with
// the most different words (CUDA C++ Programming Guide, shared memory of compute capability 5.0 and
// newer). Accesses of 8 and 16 bytes per thread go by halves and quarters of a warp, each as an
// access of its own.
class BankCounter {
 public:
  // An instruction, and the number of the piece if several instructions at one address make up an
  // access.
  struct Instruction {
    const void* address;
    size_t piece;
    auto operator<=>(const Instruction&) const = default;
  };

  // Notes that a thread runs an instruction that accesses `bytes` bytes at an offset. The n-th time
  // that a thread runs it after a barrier is one access with the n-th time of its warp's other
  // threads.
  void Note(Instruction instruction, int thread, size_t offset, size_t bytes);
  // Counts what is noted and forgets it, at a barrier and at the end of a block.
  void Flush();
  const BankCounts& counts() const { return counts_; }

 private:
  struct Key {
    int warp;
    Instruction instruction;
    uint32_t time;  // The number of times that the thread had run the instruction.
    int part;       // The part of the warp.
    auto operator<=>(const Key&) const = default;
  };
  std::map<std::pair<int, Instruction>, uint32_t> times_;         // Indexed by thread and instruction.
  std::vector<std::pair<Key, std::pair<size_t, size_t>>> noted_;  // The first word, and the one behind the last.
  BankCounts counts_;
};

}  // namespace gradweave::emulation

#endif  // GRADWEAVE_RUNTIME_CUDA_EMULATION_BANK_COUNTER_H_
