// Parameters and frame of generated convolution kernels.
//
// For the source of generated kernels, which NVRTC compiles without a standard library.
#ifndef GRADWEAVE_RUNTIME_CUDA_FUSION_CONV_KERNEL_H_
#define GRADWEAVE_RUNTIME_CUDA_FUSION_CONV_KERNEL_H_

#ifndef __CUDACC_RTC__
#include <cstdint>
#include <memory>

#include "gradweave/runtime/cuda/fusion/fused_kernel.h"
#endif
#ifdef GRADWEAVE_EMULATE_CUDA
#include "gradweave/runtime/cuda/ops/device.h"
#endif

namespace gradweave {

// Parameters of a generated kernel that computes in T. Pointers are to device memory.
template <typename T>
struct ConvParameters {
  const T *x, *filter, *bias;
  T* pooled;
  int32_t* indices;  // Indices of the largest elements of a max pool.
  uint32_t samples;
  FusedInstance chain;  // The kernel ignores its total and first block.
  T numbers[kMostFusedNumbers];
};

}  // namespace gradweave

#if defined(__CUDACC_RTC__) || defined(GRADWEAVE_EMULATE_CUDA)

namespace gradweave::GRADWEAVE_CUDA_NAMESPACE {

// Loads a thread's weights of one tap, which are adjacent in shared memory. The largest packs come
// first.
template <int count, typename T>
__device__ void LoadWeights(SharedPointer<T> from, T* to) {
  constexpr int kMost = 16 / static_cast<int>(sizeof(T));
  if constexpr (count > 0) {
    constexpr int n = count >= kMost ? kMost : count >= 2 ? 2 : 1;
    const Pack<T, n> pack = LoadPack<n>(from);
    GRADWEAVE_UNROLL
    for (int i = 0; i < n; ++i) to[i] = pack.values[i];
    LoadWeights<count - n, T>(from + n, to + n);
  }
}

// Pools of a cell. They take its elements in the order of rows and columns.
template <typename T>
struct Mean {
  T sum = 0;
  __device__ void Take(T value, int32_t) { sum += value; }
};
template <typename T>
struct Largest {
  T leader = 0;
  int32_t index = -1;
  __device__ void Take(T value, int32_t at) {
    if (index < 0 || value > leader || (value != value && leader == leader)) {
      leader = value;
      index = at;
    }
  }
};

// Code of one thread of a generated kernel. It computes the sums of its cell over channels and
// taps, in this order, for some outputs. All members of C are constants. Shared memory holds the
// weights [channel][tap][output] and the patches of x [sample][channel][row][column] of a block of
// channels. The threads of a warp share their outputs, so they all read the same weight and
// neighbouring cells. C::Run<n>(chain, numbers, at, sums, pooled) runs the fused chain on elements
// [at, at + n) of y, which lie in one row, and gives the values for the pool.
template <typename C>
class Convolver {
 public:
  using T = typename C::Type;

  __device__ static void Run(const ConvParameters<T>& parameters) {
    GRADWEAVE_SHARED(T, weights, [C::kChannelBlock * kTaps * C::kWeightStep]);
    GRADWEAVE_SHARED(T, patches, [C::kSamples * kPatches]);

    const uint32_t tile = blockIdx.x % kTiles, first_sample = blockIdx.x / kTiles * C::kSamples;
    const int group = static_cast<int>(blockIdx.y) / kOutputBlocks;
    const int first_output = static_cast<int>(blockIdx.y) % kOutputBlocks * kBlockOutputs;
    const int first_row = static_cast<int>(tile) / kTilesAcross * C::kTileRows * C::kCellRows;
    const int first_column = static_cast<int>(tile) % kTilesAcross * C::kTileColumns * C::kCellColumns;

    // The thread's cell. Threads beyond the last cell recompute the first one and do not store it.
    const int slot = static_cast<int>(threadIdx.x) % C::kSlots, output_slot = static_cast<int>(threadIdx.x) / C::kSlots;
    const bool absent = slot >= C::kSamples * kCells;
    const int of_sample = absent ? 0 : slot / kCells, cell = absent ? 0 : slot % kCells;
    const int row = cell / C::kTileColumns * C::kCellRows, column = cell % C::kTileColumns * C::kCellColumns;
    const SharedPointer<T> own_patch =
        patches + of_sample * kPatches + row * C::kStrideY * C::kPatchColumns + column * C::kStrideX;
    const SharedPointer<T> own_weights = weights + output_slot * C::kSlotStep;

    T sums[C::kOutputs][C::kCellRows][C::kCellColumns] = {};
    for (int first = 0; first < C::kChannels; first += C::kChannelBlock) {
      const int channels = C::kChannels - first < C::kChannelBlock ? C::kChannels - first : C::kChannelBlock;
      __syncthreads();
      BringPatches(parameters, first_sample, group, first, channels, first_row * C::kStrideY - C::kTop,
                   first_column * C::kStrideX - C::kLeft, patches);
      BringWeights(parameters, group, first_output, first, channels, weights);
      __syncthreads();
      for (int channel = 0; channel < channels; ++channel) {
        AddChannel(own_patch + channel * kPatch, own_weights + channel * kTaps * C::kWeightStep, sums);
      }
    }

    KeepInRegisters(sums);
    const uint32_t sample = first_sample + static_cast<uint32_t>(of_sample);
    if (absent || sample >= parameters.samples) return;
    GRADWEAVE_UNROLL
    for (int o = 0; o < C::kOutputs; ++o) {
      const int output = first_output + output_slot * C::kOutputs + o;
      if (output >= C::kGroupOutputs) break;
      Finish(parameters, sample, group * C::kGroupOutputs + output, first_row + row, first_column + column, sums[o]);
    }
  }

 private:
  // The compiler may not move the additions to the places that read the sums. It would copy them to
  // each of these, with three times as many registers.
  __device__ static void KeepInRegisters(T (&sums)[C::kOutputs][C::kCellRows][C::kCellColumns]) {
#ifndef GRADWEAVE_EMULATE_CUDA
    GRADWEAVE_UNROLL
    for (int o = 0; o < C::kOutputs; ++o) {
      GRADWEAVE_UNROLL
      for (int i = 0; i < C::kCellRows; ++i) {
        GRADWEAVE_UNROLL
        for (int j = 0; j < C::kCellColumns; ++j) {
          if constexpr (sizeof(T) == 4) {
            asm volatile("" : "+f"(sums[o][i][j]));
          } else {
            asm volatile("" : "+d"(sums[o][i][j]));
          }
        }
      }
    }
#endif
  }

  static constexpr int kTaps = C::kKernelHeight * C::kKernelWidth;
  static constexpr int kPatch = C::kPatchRows * C::kPatchColumns, kPatches = C::kChannelBlock * kPatch;
  static constexpr int kCells = C::kTileRows * C::kTileColumns;
  static constexpr int kBlockOutputs = C::kOutputs * C::kOutputSlots;
  static constexpr int kOutputBlocks = (C::kGroupOutputs + kBlockOutputs - 1) / kBlockOutputs;
  static constexpr int kTileHeight = C::kTileRows * C::kCellRows, kTileWidth = C::kTileColumns * C::kCellColumns;
  static constexpr int kTilesAcross = (C::kOutputWidth + kTileWidth - 1) / kTileWidth;
  static constexpr int kTiles = (C::kOutputHeight + kTileHeight - 1) / kTileHeight * kTilesAcross;
  static constexpr uint32_t kThreads = C::kSlots * C::kOutputSlots;
  // Elements that a row of a cell reads for one row of taps.
  static constexpr int kSegment = (C::kCellColumns - 1) * C::kStrideX + (C::kKernelWidth - 1) * C::kDilationX + 1;
  // True if the segments of cells begin at even positions, as the rows of patches do. Elements can
  // then be read in pairs.
  static constexpr bool kPairs = C::kCellColumns * C::kStrideX % 2 == 0;
  // True if a row of taps reads the rows that the previous row of taps has read, except for one.
  static constexpr bool kSlides = C::kStrideY == 1 && C::kDilationY == 1;
  static constexpr int kPixels = C::kOutputHeight * C::kOutputWidth;

  // Loads patches into shared memory; elements outside of x are 0. Neighbouring threads load
  // neighbouring columns. A line is a row of one channel's patch, and a thread's next element is
  // several lines further on.
  __device__ static void BringPatches(const ConvParameters<T>& parameters, uint32_t first_sample, int group,
                                      int first_channel, uint32_t channels, int first_row, int first_column,
                                      SharedPointer<T> patches) {
    constexpr uint32_t rows = C::kPatchRows, columns = C::kPatchColumns, image = C::kHeight * C::kWidth;
    constexpr uint32_t kAhead = 4;
    const uint32_t lines = channels * rows;
    for (uint32_t s = 0; s < uint32_t{C::kSamples}; ++s) {
      const uint32_t sample = first_sample + s;
      const uint32_t x = ((sample * C::kGroups + group) * C::kChannels + first_channel) * image;
      uint32_t line = threadIdx.x / columns, column = threadIdx.x % columns;
      SharedPointer<T> to = patches + s * kPatches + threadIdx.x;
      while (line < lines) {
        T values[kAhead];
        bool ends[kAhead];
        GRADWEAVE_UNROLL
        for (uint32_t k = 0; k < kAhead; ++k) {
          const int from_row = first_row + static_cast<int>(line % rows);
          const int from_column = first_column + static_cast<int>(column);
          ends[k] = line >= lines;
          const bool inside = !ends[k] && sample < parameters.samples &&
                              static_cast<uint32_t>(from_row) < uint32_t{C::kHeight} &&
                              static_cast<uint32_t>(from_column) < uint32_t{C::kWidth};
          values[k] =
              LoadOrZero(parameters.x,
                         x + line / rows * image + static_cast<uint32_t>(from_row * C::kWidth + from_column), inside);
          line += kThreads / columns;
          column += kThreads % columns;
          if (column >= columns) {
            column -= columns;
            ++line;
          }
        }
        GRADWEAVE_UNROLL
        for (uint32_t k = 0; k < kAhead; ++k) {
          if (!ends[k]) to[k * kThreads] = values[k];
        }
        to += kAhead * kThreads;
      }
    }
  }

  // Loads weights into shared memory. Neighbouring threads load neighbouring taps in the order of
  // the filter: channels are its inner axis, or outputs if the filter is flipped.
  __device__ static void BringWeights(const ConvParameters<T>& parameters, int group, uint32_t first_output,
                                      uint32_t first_channel, uint32_t channels, SharedPointer<T> weights) {
    constexpr uint32_t taps = kTaps, outputs = kBlockOutputs, channel_block = C::kChannelBlock;
    const T* const filter = parameters.filter + static_cast<size_t>(group) * C::kFilterGroup;
    struct Place {
      uint32_t channel, output, tap;
      __device__ explicit Place(uint32_t i)
          : channel(C::kFlipped ? i / taps / outputs : i / taps % channel_block),
            output(C::kFlipped ? i / taps % outputs : i / taps / channel_block),
            tap(i % taps) {}
    };
    CopyAhead(
        channel_block * taps * outputs,
        [&](uint32_t i) {
          const Place place(i);
          const bool inside = place.channel < channels && first_output + place.output < uint32_t{C::kGroupOutputs};
          return LoadOrZero(filter,
                            (first_output + place.output) * C::kFilterOutput +
                                (first_channel + place.channel) * C::kFilterChannel + place.tap,
                            inside);
        },
        [&](uint32_t i, T value) {
          const Place place(i);
          const uint32_t tap = C::kFlipped ? taps - 1 - place.tap : place.tap;
          weights[(place.channel * taps + tap) * C::kWeightStep + place.output / C::kOutputs * C::kSlotStep +
                  place.output % C::kOutputs] = value;
        });
  }

  __device__ static void LoadSegment(SharedPointer<T> from, T (&segment)[kSegment + 1]) {
    if constexpr (kPairs) {
      GRADWEAVE_UNROLL
      for (int i = 0; i < kSegment; i += 2) {
        const Pack<T, 2> pack = LoadPack<2>(from + i);
        segment[i] = pack.values[0];
        segment[i + 1] = pack.values[1];
      }
    } else {
      GRADWEAVE_UNROLL
      for (int i = 0; i < kSegment; ++i) segment[i] = from[i];
    }
  }

  __device__ static void AddChannel(SharedPointer<T> patch, SharedPointer<T> weights,
                                    T (&sums)[C::kOutputs][C::kCellRows][C::kCellColumns]) {
    T segments[C::kCellRows][kSegment + 1];
    GRADWEAVE_UNROLL
    for (int k = 0; k < C::kKernelHeight; ++k) {
      GRADWEAVE_UNROLL
      for (int r = 0; r < C::kCellRows; ++r) {
        if (kSlides && k > 0 && r + 1 < C::kCellRows) {
          GRADWEAVE_UNROLL
          for (int i = 0; i < kSegment; ++i) segments[r][i] = segments[r + 1][i];
        } else {
          LoadSegment(patch + (r * C::kStrideY + k * C::kDilationY) * C::kPatchColumns, segments[r]);
        }
      }
      GRADWEAVE_UNROLL
      for (int l = 0; l < C::kKernelWidth; ++l) {
        T numbers[C::kOutputs];
        LoadWeights<C::kOutputs, T>(weights + (k * C::kKernelWidth + l) * C::kWeightStep, numbers);
        GRADWEAVE_UNROLL
        for (int o = 0; o < C::kOutputs; ++o) {
          GRADWEAVE_UNROLL
          for (int r = 0; r < C::kCellRows; ++r) {
            GRADWEAVE_UNROLL
            for (int c = 0; c < C::kCellColumns; ++c) {
              sums[o][r][c] = MultiplyAdd(numbers[o], segments[r][c * C::kStrideX + l * C::kDilationX], sums[o][r][c]);
            }
          }
        }
      }
    }
  }

  // Adds the bias to a cell's sums for one output, runs the fused chain and pools.
  __device__ static void Finish(const ConvParameters<T>& parameters, uint32_t sample, int output, int row, int column,
                                T (&sums)[C::kCellRows][C::kCellColumns]) {
    // A tile may reach beyond the edge.
    if constexpr (kTilesAcross * kTileWidth > C::kOutputWidth) {
      if (column >= C::kOutputWidth) return;
    }
    const uint32_t image = sample * (C::kGroups * C::kGroupOutputs) + static_cast<uint32_t>(output);
    const T bias = C::kHasBias ? parameters.bias[output] : T(0);
    typename C::Pool pool;
    GRADWEAVE_UNROLL
    for (int r = 0; r < C::kCellRows; ++r) {
      if (row + r >= C::kOutputHeight) break;
      const int32_t at = (row + r) * C::kOutputWidth + column;
      const uint32_t element = image * kPixels + static_cast<uint32_t>(at);
      if (C::kHasBias) {
        GRADWEAVE_UNROLL
        for (int c = 0; c < C::kCellColumns; ++c) sums[r][c] = sums[r][c] + bias;
      }
      T pooled[C::kCellColumns];
      if constexpr (C::kCellColumns == 2 && C::kOutputWidth % 2 == 0) {
        C::template Run<2>(parameters.chain, parameters.numbers, element, sums[r], pooled);
      } else {
        GRADWEAVE_UNROLL
        for (int c = 0; c < C::kCellColumns; ++c) {
          if (column + c < C::kOutputWidth) {
            C::template Run<1>(parameters.chain, parameters.numbers, element + static_cast<uint32_t>(c), &sums[r][c],
                               &pooled[c]);
          }
        }
      }
      if constexpr (C::kPools) {
        GRADWEAVE_UNROLL
        for (int c = 0; c < C::kCellColumns; ++c) pool.Take(pooled[c], at + c);
      }
    }
    if constexpr (C::kPools) {
      const int pooled_row = row / C::kCellRows, pooled_column = column / C::kCellColumns;
      if (pooled_row >= C::kPooledHeight || pooled_column >= C::kPooledWidth) return;
      const uint32_t to = (image * C::kPooledHeight + pooled_row) * C::kPooledWidth + pooled_column;
      if constexpr (C::kIndices) {
        parameters.pooled[to] = pool.leader;
        parameters.indices[to] = pool.index;
      } else {
        parameters.pooled[to] = pool.sum / static_cast<T>(C::kCellRows * C::kCellColumns);
      }
    }
  }
};

}  // namespace gradweave::GRADWEAVE_CUDA_NAMESPACE

#endif

#ifndef __CUDACC_RTC__

namespace gradweave {

class Graph;
struct FusedGroup;
class LoadedKernel;
struct Kernel;

// Makes the kernel that runs a convolution's group with its generated kernel. A result may
// overwrite an operand if each thread reads only the elements that it writes; this excludes the
// operands of the convolution itself.
Kernel MakeConvKernel(const Graph& graph, const FusedGroup& group,
                      const std::shared_ptr<const LoadedKernel>& generated);

}  // namespace gradweave

#endif

#endif  // GRADWEAVE_RUNTIME_CUDA_FUSION_CONV_KERNEL_H_
