// CUDA's device language for the C++ compiler, so that tests can run kernels on the CPU. launch.h
// includes it where GRADWEAVE_EMULATE_CUDA is set.
//
// The threads of a block are fibers, and the blocks of a grid run one after the other. Between two
// barriers each thread runs alone, in an order that differs from barrier to barrier. The emulation
// reports as errors: threads that never arrive at a barrier where others wait, lanes of a warp
// function that never arrive or that others read without their taking part, misaligned vector
// accesses, and races and accesses out of bounds in shared memory (shared_memory.h). Shared memory
// holds NaN at the start of a block.
#ifndef GRADWEAVE_RUNTIME_CUDA_EMULATION_EMULATION_H_
#define GRADWEAVE_RUNTIME_CUDA_EMULATION_EMULATION_H_

#include <cstdint>
#include <cstring>
#include <map>
#include <string>

#include "absl/functional/function_ref.h"
#include "absl/status/status.h"
#include "gradweave/runtime/cuda/api/api.h"
#include "gradweave/runtime/cuda/emulation/bank_counter.h"
#include "gradweave/runtime/cuda/emulation/shared_memory.h"

namespace gradweave::emulation {

// Runs `body` once for each thread of the grid. Returns Internal for an error that the emulation
// detects, with the kernel's name, the place in its source and the threads concerned.
absl::Status RunGrid(const char* name, CudaDim3 grid, CudaDim3 block, size_t shared_bytes,
                     absl::FunctionRef<void()> body);

// Seeds the orders of threads in grids that the calling thread runs later.
void SetSeed(uint64_t seed);

// Returns the accesses and bank conflicts of the grids that the calling thread runs within `run`,
// by kernel name. A kernel that does not use shared memory has no accesses.
std::map<std::string, BankCounts> CountBankConflicts(absl::FunctionRef<void()> run);

// Position of the running thread.
struct Coordinates {
  CudaDim3 thread_index, block_index, block_size, grid_size;
};
extern thread_local constinit Coordinates coordinates;

// ---- Implementation of the macros below ----

// Waits until all threads of the block arrive at the barrier in this place of the source.
void SyncThreads(const char* file, int line);

// Warp functions with which lanes synchronize or exchange values.
enum class WarpFunction { kSync, kShuffle, kShuffleUp, kShuffleDown, kShuffleXor, kBallot, kMatchAny };
// Waits for the lanes of the mask and exchanges values with them. `argument` is the lane or the
// distance. Lanes beyond the block's end and lanes that have returned are not awaited.
uint64_t WarpExchange(WarpFunction function, uint32_t mask, uint64_t value, int argument, int width, const char* file,
                      int line);

// Ends the grid with an error.
[[noreturn]] void Fail(const std::string& message);

// Ends the grid with an error if the address is not a multiple of `bytes`. `what` says what is done
// there.
void CheckAligned(const void* address, size_t bytes, const char* what);

// Exchanges a value of up to 8 bytes with WarpExchange.
template <typename T>
T Shuffle(WarpFunction function, uint32_t mask, T value, int argument, int width, const char* file, int line) {
  static_assert(sizeof(T) <= 8);
  uint64_t bits = 0;
  std::memcpy(&bits, &value, sizeof(T));
  bits = WarpExchange(function, mask, bits, argument, width, file, line);
  std::memcpy(&value, &bits, sizeof(T));
  return value;
}

// Blocks run one after the other and threads switch only at barriers, so plain code is atomic.
template <typename T>
T AtomicMax(T* address, T value) {
  const T old = *address;
  if (value > old) *address = value;
  return old;
}
template <typename T>
T AtomicAdd(T* address, T value) {
  const T old = *address;
  *address = old + value;
  return old;
}
template <typename T>
T AtomicCas(T* address, T expected, T value) {
  const T old = *address;
  if (old == expected) *address = value;
  return old;
}

}  // namespace gradweave::emulation

#ifdef GRADWEAVE_EMULATE_CUDA

#define __global__
#define __device__
#define __host__
#define __forceinline__ inline
#define __launch_bounds__(...)
#define __grid_constant__

#define threadIdx (::gradweave::emulation::coordinates.thread_index)
#define blockIdx (::gradweave::emulation::coordinates.block_index)
#define blockDim (::gradweave::emulation::coordinates.block_size)
#define gridDim (::gradweave::emulation::coordinates.grid_size)

#define __syncthreads() ::gradweave::emulation::SyncThreads(__FILE__, __LINE__)

#define GRADWEAVE_SHUFFLE(function, mask, value, argument, width)                                               \
  ::gradweave::emulation::Shuffle(::gradweave::emulation::WarpFunction::function, mask, value, argument, width, \
                                  __FILE__, __LINE__)
#define __syncwarp(...) ((void)GRADWEAVE_SHUFFLE(kSync, 0xffffffffu, 0, 0, 32))
#define __shfl_sync(mask, value, lane) GRADWEAVE_SHUFFLE(kShuffle, mask, value, lane, 32)
#define __shfl_up_sync(mask, value, distance) GRADWEAVE_SHUFFLE(kShuffleUp, mask, value, distance, 32)
#define __shfl_down_sync(mask, value, distance) GRADWEAVE_SHUFFLE(kShuffleDown, mask, value, distance, 32)
#define __shfl_xor_sync(mask, value, bits) GRADWEAVE_SHUFFLE(kShuffleXor, mask, value, bits, 32)
#define __ballot_sync(mask, predicate) \
  static_cast<unsigned>(GRADWEAVE_SHUFFLE(kBallot, mask, static_cast<uint64_t>((predicate) ? 1 : 0), 0, 32))
#define __match_any_sync(mask, value) \
  static_cast<unsigned>(GRADWEAVE_SHUFFLE(kMatchAny, mask, static_cast<uint64_t>(value), 0, 32))

#define atomicMax ::gradweave::emulation::AtomicMax
#define atomicAdd ::gradweave::emulation::AtomicAdd
#define atomicCAS ::gradweave::emulation::AtomicCas

#define __popc(x) __builtin_popcount(x)
// The result is one-based, and 0 for 0, as in CUDA.
#define __ffs(x) __builtin_ffs(static_cast<int>(x))
#define __umulhi(a, b) static_cast<uint32_t>((static_cast<uint64_t>(a) * static_cast<uint64_t>(b)) >> 32)

#endif  // GRADWEAVE_EMULATE_CUDA

#endif  // GRADWEAVE_RUNTIME_CUDA_EMULATION_EMULATION_H_
