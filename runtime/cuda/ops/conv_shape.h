// Sizes of direct convolutions. This header needs no CUDA.
#ifndef GRADWEAVE_RUNTIME_CUDA_OPS_CONV_SHAPE_H_
#define GRADWEAVE_RUNTIME_CUDA_OPS_CONV_SHAPE_H_

#include <cstdint>

#include "gradweave/runtime/kernel/conv_geometry.h"

namespace gradweave {

// Limit of channels and outputs of a group for direct convolution where no kernel is generated. A
// matrix product with few rows leaves most of a tile of the library's kernels empty, and its im2col
// matrix takes longer to write and read than the sums to compute. From about 32 channels on the
// library wins. Up to this limit, generated kernels give the same bits as direct convolution.
inline constexpr int kMostDirectChannels = 32;

// Shared memory of a block in bytes. More would need an opt-in and reduce occupancy.
inline constexpr int kConvSharedBytes = 48 << 10;

// A convolution of x with a filter. Conv2D is one, and so is its gradient for the input where
// strides are 1: channels and outputs change places, and the filter is flipped.
struct ConvShape {
  int32_t channels = 0, outputs = 0;  // Per group.
  int32_t groups = 0, height = 0, width = 0, kernel_height = 0, kernel_width = 0, output_height = 0, output_width = 0;
  int32_t stride_y = 1, stride_x = 1, dilation_y = 1, dilation_x = 1, top = 0, left = 0;
  // Strides of the filter in elements between groups, outputs and channels; `flipped` reads the
  // taps backwards.
  int32_t filter_group = 0, filter_output = 0, filter_channel = 0;
  bool flipped = false;
  int64_t samples = 0;

  // Returns true if all sizes are small enough for 32-bit index arithmetic.
  static bool Fits(const ConvGeometry& g);
  // Returns the shape of Conv2D itself. The gradient for the filter has the same sizes.
  static ConvShape Forward(const ConvGeometry& g);
  // Returns the shape of the gradient for the input. Strides must be 1.
  static ConvShape InputGrad(const ConvGeometry& g);

  int32_t taps() const { return kernel_height * kernel_width; }
};

}  // namespace gradweave

#endif  // GRADWEAVE_RUNTIME_CUDA_OPS_CONV_SHAPE_H_
