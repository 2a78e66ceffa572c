// Convolutions without a matrix of columns, for few channels. For .cu files.
#ifndef GRADWEAVE_RUNTIME_CUDA_OPS_CONV_DIRECT_H_
#define GRADWEAVE_RUNTIME_CUDA_OPS_CONV_DIRECT_H_

#include <cstdint>

#include "gradweave/runtime/cuda/ops/conv_shape.h"
#include "gradweave/runtime/cuda/ops/launch.h"

namespace gradweave::GRADWEAVE_CUDA_NAMESPACE {

// A convolution in tiles of output pixels, as a launch.
struct DirectConvolution : ConvShape {
  // What Plan chooses.
  int32_t tile_height = 0, tile_width = 0;    // In outputs.
  int32_t patch_height = 0, patch_width = 0;  // What a tile reads of x.
  int32_t channel_block = 0;                  // Channels whose patches are in shared memory at a time.
  int32_t slots = 0, output_slots = 0;        // Threads along pixels and along outputs.

  // Where Plan fails, it doesn't fit into shared memory.
  explicit DirectConvolution(const ConvShape& shape) : ConvShape(shape) {}
  bool Plan(size_t element_bytes);
};

// y = x convolved with the filter, and the bias added where it is not null.
template <typename T>
absl::Status RunDirectConvolution(const CudaContext& context, const DirectConvolution& plan, const T* x,
                                  const T* filter, const T* bias, T* y);

// The gradient for the filter: sums of chunks of samples, which are then added in order.
struct DirectFilterGrad : ConvShape {
  // What Plan chooses.
  int32_t tile_height = 0, patch_height = 0, patch_width = 0;
  int32_t channel_block = 0;
  int32_t taps_of_thread = 1, taps_per_round = 1;  // Neighbouring taps of a row; those that are added up at a time.
  int32_t threads = 32;
  int32_t chunks = 0, samples_per_chunk = 0;

  explicit DirectFilterGrad(const ConvShape& forward) : ConvShape(forward) {}
  bool Plan(size_t element_bytes);
  int64_t filter_size() const { return int64_t{groups} * outputs * channels * kernel_height * kernel_width; }
  // In elements.
  int64_t scratch_size() const { return chunks * filter_size(); }
};
template <typename T>
absl::Status RunDirectFilterGrad(const CudaContext& context, const DirectFilterGrad& plan, const T* x, const T* dy,
                                 T* scratch, T* df);

}  // namespace gradweave::GRADWEAVE_CUDA_NAMESPACE

#endif  // GRADWEAVE_RUNTIME_CUDA_OPS_CONV_DIRECT_H_
