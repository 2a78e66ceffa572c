// Direct convolutions, without an im2col matrix, for few channels. For .cu files.
#ifndef GRADWEAVE_RUNTIME_CUDA_OPS_CONV_DIRECT_H_
#define GRADWEAVE_RUNTIME_CUDA_OPS_CONV_DIRECT_H_

#include <cstdint>

#include "gradweave/runtime/cuda/ops/conv_shape.h"
#include "gradweave/runtime/cuda/ops/launch.h"

namespace gradweave::GRADWEAVE_CUDA_NAMESPACE {

// A convolution by tiles of output pixels, with its launch parameters.
struct DirectConvolution : ConvShape {
  // The fields below are chosen by Plan.
  int32_t tile_height = 0, tile_width = 0;    // Size of a tile in output pixels.
  int32_t patch_height = 0, patch_width = 0;  // Size of the area of x that a tile reads.
  int32_t channel_block = 0;                  // Channels whose patches are in shared memory at a time.
  int32_t slots = 0, output_slots = 0;        // Threads along pixels and along outputs.

  // Call Plan before use.
  explicit DirectConvolution(const ConvShape& shape) : ConvShape(shape) {}
  // Chooses the tiles. Returns false if they do not fit into shared memory or there is nothing to
  // compute.
  bool Plan(size_t element_bytes);
};

// Enqueues y = conv(x, filter), plus the bias if it is not null. All pointers are to device memory.
template <typename T>
absl::Status RunDirectConvolution(const CudaContext& context, const DirectConvolution& plan, const T* x,
                                  const T* filter, const T* bias, T* y);

// The gradient for the filter. Chunks of samples give partial sums, which are then added in order.
struct DirectFilterGrad : ConvShape {
  // The fields below are chosen by Plan.
  int32_t tile_height = 0, patch_height = 0, patch_width = 0;
  int32_t channel_block = 0;
  // `taps_of_thread` neighbouring taps of a row belong to one thread; `taps_per_round` of them are
  // combined at a time.
  int32_t taps_of_thread = 1, taps_per_round = 1;
  int32_t threads = 32;
  int32_t chunks = 0, samples_per_chunk = 0;

  // Call Plan before use.
  explicit DirectFilterGrad(const ConvShape& forward) : ConvShape(forward) {}
  // Chooses the tiles. Returns false if they do not fit into shared memory or there is nothing to
  // compute.
  bool Plan(size_t element_bytes);
  int64_t filter_size() const { return int64_t{groups} * outputs * channels * kernel_height * kernel_width; }
  // Size of the scratch memory in elements.
  int64_t scratch_size() const { return chunks * filter_size(); }
};
// Enqueues the gradient `df` of the filter from x and the gradient `dy` of the result.
template <typename T>
absl::Status RunDirectFilterGrad(const CudaContext& context, const DirectFilterGrad& plan, const T* x, const T* dy,
                                 T* scratch, T* df);

}  // namespace gradweave::GRADWEAVE_CUDA_NAMESPACE

#endif  // GRADWEAVE_RUNTIME_CUDA_OPS_CONV_DIRECT_H_
