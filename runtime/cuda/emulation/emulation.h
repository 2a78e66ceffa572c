// CUDA's device language for the C++ compiler: kernels run on the CPU, for tests. Included by launch.h where
// GRADWEAVE_EMULATE_CUDA is set.
//
// A block's threads are fibers, and the blocks of a grid run one after the other. Between two barriers each thread runs
// by itself, in an order that differs from barrier to barrier, so that a missing barrier shows as a wrong result.
// Reported as errors: threads that don't arrive at a barrier that others wait at, lanes that a warp's function waits
// for in vain or reads from though they don't take part, vectors at addresses that are not aligned to them, and writes
// beyond the end of shared memory. Shared memory is NaN at the start of a block.
#ifndef GRADWEAVE_RUNTIME_CUDA_EMULATION_EMULATION_H_
#define GRADWEAVE_RUNTIME_CUDA_EMULATION_EMULATION_H_

#include <cstdint>
#include <cstring>
#include <string>

#include "absl/functional/function_ref.h"
#include "absl/status/status.h"
#include "gradweave/runtime/cuda/api/api.h"

namespace gradweave::emulation {

// Runs body once for each thread of the grid. Internal, with the kernel's name, the place in its source and the threads
// concerned, for what the emulation finds wrong.
absl::Status RunGrid(const char* name, CudaDim3 grid, CudaDim3 block, size_t shared_bytes,
                     absl::FunctionRef<void()> body);

// Orders of threads after this differ for different seeds. Of the calling thread's grids.
void SetSeed(uint64_t seed);

// Where the thread that runs is.
struct Coordinates {
  CudaDim3 thread_index, block_index, block_size, grid_size;
};
extern thread_local constinit Coordinates coordinates;

// ---- What the macros below stand for ----

void SyncThreads(const char* file, int line);

// How the lanes of a warp exchange values.
enum class WarpFunction { kSync, kShuffle, kShuffleUp, kShuffleDown, kShuffleXor, kBallot, kMatchAny };
// Waits for the lanes of the mask; `argument` is the lane or the distance. Lanes beyond the block's end, or that have
// returned, are not waited for.
uint64_t WarpExchange(WarpFunction function, uint32_t mask, uint64_t value, int argument, int width, const char* file,
                      int line);

// Ends the grid with an error.
[[noreturn]] void Fail(const std::string& message);

// The block's memory for a key, the same for all of its threads.
void* SharedMemory(const void* key, size_t bytes, size_t alignment);
void* DynamicSharedMemory();

template <typename T>
T Shuffle(WarpFunction function, uint32_t mask, T value, int argument, int width, const char* file, int line) {
  static_assert(sizeof(T) <= 8);
  uint64_t bits = 0;
  std::memcpy(&bits, &value, sizeof(T));
  bits = WarpExchange(function, mask, bits, argument, width, file, line);
  std::memcpy(&value, &bits, sizeof(T));
  return value;
}

// Blocks run one after the other and threads switch at barriers alone, so plain code is atomic.
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
// One-based, 0 for 0, as CUDA's.
#define __ffs(x) __builtin_ffs(static_cast<int>(x))
#define __umulhi(a, b) static_cast<uint32_t>((static_cast<uint64_t>(a) * static_cast<uint64_t>(b)) >> 32)

#endif  // GRADWEAVE_EMULATE_CUDA

#endif  // GRADWEAVE_RUNTIME_CUDA_EMULATION_EMULATION_H_
