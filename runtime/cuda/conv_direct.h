// Convolutions without a matrix of columns, for few channels. For .cu files.
#ifndef GRADWEAVE_RUNTIME_CUDA_CONV_DIRECT_H_
#define GRADWEAVE_RUNTIME_CUDA_CONV_DIRECT_H_

#include <cstdint>

#include "gradweave/runtime/conv_geometry.h"
#include "gradweave/runtime/cuda/launch.h"

namespace gradweave::GRADWEAVE_CUDA_NAMESPACE {

// A convolution in tiles of output pixels, as a launch. Conv2D is one, and so is its gradient for the input where
// strides are 1: then channels and outputs change places, and the filter is turned around.
struct DirectConvolution {
  int32_t channels, outputs;  // Of a group.
  int32_t groups, height, width, kernel_height, kernel_width, output_height, output_width;
  int32_t stride_y, stride_x, dilation_y, dilation_x, top, left;
  // Of the filter: the distances between groups, outputs and channels in elements, and whether taps are read backwards.
  int32_t filter_group, filter_output, filter_channel;
  bool flipped;

  // What Plan chooses.
  int32_t tile_height = 0, tile_width = 0;    // In outputs.
  int32_t patch_height = 0, patch_width = 0;  // What a tile reads of x.
  int32_t channel_block = 0;                  // Channels whose patches are in shared memory at a time.
  int32_t slots = 0, output_slots = 0;        // Threads along pixels and along outputs.
  int64_t samples = 0;

  // The convolutions; where Plan fails, they don't fit into shared memory.
  static DirectConvolution Forward(const ConvGeometry& g);
  static DirectConvolution InputGrad(const ConvGeometry& g);
  bool Plan(size_t element_bytes);
};

// y = x convolved with the filter, and the bias added where it is not null.
template <typename T>
absl::Status RunDirectConvolution(const CudaContext& context, const DirectConvolution& plan, const T* x,
                                  const T* filter, const T* bias, T* y);

// The gradient for the filter: sums of chunks of samples, which are then added in order.
struct DirectFilterGrad {
  int32_t channels = 0, outputs = 0;  // Of a group.
  int32_t groups = 0, height = 0, width = 0, kernel_height = 0, kernel_width = 0, output_height = 0, output_width = 0;
  int32_t stride_y = 1, stride_x = 1, dilation_y = 1, dilation_x = 1, top = 0, left = 0;
  int64_t samples = 0;

  int32_t tile_height = 0, patch_height = 0, patch_width = 0;
  int32_t channel_block = 0;
  int32_t chunks = 0, samples_per_chunk = 0;

  explicit DirectFilterGrad(const ConvGeometry& g);
  bool Plan(size_t element_bytes);
  int64_t filter_size() const { return int64_t{groups} * outputs * channels * kernel_height * kernel_width; }
  // In elements.
  int64_t scratch_size() const { return chunks * filter_size(); }
};
template <typename T>
absl::Status RunDirectFilterGrad(const CudaContext& context, const DirectFilterGrad& plan, const T* x, const T* dy,
                                 T* scratch, T* df);

}  // namespace gradweave::GRADWEAVE_CUDA_NAMESPACE

#endif  // GRADWEAVE_RUNTIME_CUDA_CONV_DIRECT_H_
