// Parameters and frame of generated row kernels.
//
// For the source of generated kernels, which NVRTC compiles without a standard library.
#ifndef GRADWEAVE_RUNTIME_CUDA_FUSION_ROW_KERNEL_H_
#define GRADWEAVE_RUNTIME_CUDA_FUSION_ROW_KERNEL_H_

#ifndef __CUDACC_RTC__
#include <cstdint>
#include <memory>
#endif
#ifdef GRADWEAVE_EMULATE_CUDA
#include "gradweave/runtime/cuda/fusion/fused_kernel.h"
#include "gradweave/runtime/cuda/ops/reduce.h"
#endif

namespace gradweave {

// Limits of one row kernel.
constexpr int kMostRowTensors = 32, kMostRowNumbers = 32;

// Threads of a block. Each warp takes a row, or the whole block takes one.
constexpr int kRowBlock = 256;

// Parameters of a generated kernel that computes in T.
template <typename T>
struct RowParameters {
  void* tensors[kMostRowTensors];
  uint32_t rows, columns;
  T numbers[kMostRowNumbers];
};

}  // namespace gradweave

#if defined(__CUDACC_RTC__) || defined(GRADWEAVE_EMULATE_CUDA)

namespace gradweave::GRADWEAVE_CUDA_NAMESPACE {

// One of the `threads` of a row. It has `elements` elements of each of the row's parts, the same
// ones that a pass of reduce.h assigns to it.
template <int threads, int parts, int elements>
struct RowThread {
  static constexpr int kElements = parts * elements;

  uint32_t row, lane, columns;
  uint32_t begin;  // Index of the row's first element in the tensor.

  __device__ explicit RowThread(uint32_t columns_of_row)
      : row(blockIdx.x * (kRowBlock / threads) + threadIdx.x / threads),
        lane(threadIdx.x % threads),
        columns(columns_of_row),
        begin(row * columns_of_row) {}

  // Calls body(i, column) for each of the thread's elements i, in the order of reductions.
  template <typename Body>
  __device__ void ForElements(Body body) const {
    GRADWEAVE_UNROLL
    for (int part = 0; part < parts; ++part) ForElementsOf(part, body);
  }

  // Reduces the whole row and returns the state in each of its threads. make(i, column) computes an
  // element's state.
  template <typename Operation, typename Make>
  __device__ typename Operation::State Reduce(Make make) const {
    using State = typename Operation::State;
    const Operation combine{};
    State result = Operation::Start();
    GRADWEAVE_UNROLL
    for (int part = 0; part < parts; ++part) {
      State state = Operation::Start();
      ForElementsOf(part, [&](int i, uint32_t column) { state = combine(state, make(i, column)); });
      if constexpr (threads == kWarp) {
        state = CombineWarp(state, combine);
      } else {
        // Alternate between two buffers: threads may still read the buffer of the previous part,
        // but none reads the one before that.
        GRADWEAVE_SHARED(State, shared, [parts > 1 ? 2 : 1][kRowBlock / kWarp]);
        state = CombineBlock(state, shared[part % 2], combine);
      }
      result = part == 0 ? state : combine(result, state);
    }
    return result;
  }

 private:
  template <typename Body>
  __device__ void ForElementsOf(int part, Body body) const {
    const uint32_t size = (columns + parts - 1) / parts;
    const uint32_t first = static_cast<uint32_t>(part) * size;
    const uint32_t end = first + size < columns ? first + size : columns;
    GRADWEAVE_UNROLL
    for (int k = 0; k < elements; ++k) {
      const uint32_t column = first + lane + static_cast<uint32_t>(k) * threads;
      if (column < end) body(part * elements + k, column);
    }
  }
};

// Code of one thread of a generated kernel. Rows::Run(parameters, thread) runs the ops of the
// thread's part of a row.
template <typename Rows>
__device__ void RunRows(const RowParameters<typename Rows::Type>& parameters) {
  const typename Rows::Thread thread(parameters.columns);
  // All threads of a row leave together: a row is a warp or the whole block.
  if (thread.row < parameters.rows) Rows::Run(parameters, thread);
}

}  // namespace gradweave::GRADWEAVE_CUDA_NAMESPACE

#endif

#ifndef __CUDACC_RTC__

namespace gradweave {

struct FusedGroup;
class LoadedKernel;
struct Kernel;

// Makes the kernel that runs a group of rows with its generated kernel.
Kernel MakeRowKernel(const FusedGroup& group, const std::shared_ptr<const LoadedKernel>& generated);

}  // namespace gradweave

#endif

#endif  // GRADWEAVE_RUNTIME_CUDA_FUSION_ROW_KERNEL_H_
