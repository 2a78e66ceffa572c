// The sizes of a convolution that is computed directly. No CUDA is needed for it.
#ifndef GRADWEAVE_RUNTIME_CUDA_OPS_CONV_SHAPE_H_
#define GRADWEAVE_RUNTIME_CUDA_OPS_CONV_SHAPE_H_

#include <cstdint>

#include "gradweave/runtime/kernel/conv_geometry.h"

namespace gradweave {

// Up to so many channels and outputs of a group are convolutions computed directly where no kernel is generated. A
// product with few rows leaves most of a tile of the library's kernels empty, and writing and reading its columns takes
// longer than the sums; from some 32 channels on the library wins. Generated kernels give the same bits up to here.
inline constexpr int kMostDirectChannels = 32;

// The shared memory of a block: more needs an opt-in, and leaves fewer blocks side by side.
inline constexpr int kConvSharedBytes = 48 << 10;

// Sums of products of taps of a filter and a window of x. Conv2D is one, and so is its gradient for the input where
// strides are 1: then channels and outputs change places, and the filter is turned around.
struct ConvShape {
  int32_t channels = 0, outputs = 0;  // Of a group.
  int32_t groups = 0, height = 0, width = 0, kernel_height = 0, kernel_width = 0, output_height = 0, output_width = 0;
  int32_t stride_y = 1, stride_x = 1, dilation_y = 1, dilation_x = 1, top = 0, left = 0;
  // Of the filter: the distances between groups, outputs and channels in elements, and whether taps are read backwards.
  int32_t filter_group = 0, filter_output = 0, filter_channel = 0;
  bool flipped = false;
  int64_t samples = 0;

  // Whether all sizes are so small that kernels can add and multiply them in 32 bits.
  static bool Fits(const ConvGeometry& g);
  // Conv2D's; its gradient for the filter has the same sizes.
  static ConvShape Forward(const ConvGeometry& g);
  static ConvShape InputGrad(const ConvGeometry& g);

  int32_t taps() const { return kernel_height * kernel_width; }
};

}  // namespace gradweave

#endif  // GRADWEAVE_RUNTIME_CUDA_OPS_CONV_SHAPE_H_
