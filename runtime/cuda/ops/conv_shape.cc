#include "gradweave/runtime/cuda/ops/conv_shape.h"

#include <algorithm>
#include <cstdlib>
#include <utility>

namespace gradweave {

bool ConvShape::Fits(const ConvGeometry& g) {
  constexpr int64_t kMost = 1 << 20;
  return std::max({g.height, g.width, g.output_height, g.output_width, g.stride_y, g.stride_x, std::abs(g.top),
                   std::abs(g.left), g.dilation_y, g.dilation_x}) <= kMost &&
         g.dilation_y * (g.kernel_height - 1) <= kMost && g.dilation_x * (g.kernel_width - 1) <= kMost;
}

ConvShape ConvShape::Forward(const ConvGeometry& g) {
  ConvShape shape;
  shape.channels = static_cast<int32_t>(g.group_channels());
  shape.outputs = static_cast<int32_t>(g.group_outputs());
  shape.groups = static_cast<int32_t>(g.groups);
  shape.height = static_cast<int32_t>(g.height);
  shape.width = static_cast<int32_t>(g.width);
  shape.kernel_height = static_cast<int32_t>(g.kernel_height);
  shape.kernel_width = static_cast<int32_t>(g.kernel_width);
  shape.output_height = static_cast<int32_t>(g.output_height);
  shape.output_width = static_cast<int32_t>(g.output_width);
  shape.stride_y = static_cast<int32_t>(g.stride_y);
  shape.stride_x = static_cast<int32_t>(g.stride_x);
  shape.dilation_y = static_cast<int32_t>(g.dilation_y);
  shape.dilation_x = static_cast<int32_t>(g.dilation_x);
  shape.top = static_cast<int32_t>(g.top);
  shape.left = static_cast<int32_t>(g.left);
  shape.filter_group = static_cast<int32_t>(g.group_outputs() * g.taps());
  shape.filter_output = static_cast<int32_t>(g.taps());
  shape.filter_channel = static_cast<int32_t>(g.kernel_height * g.kernel_width);
  shape.samples = g.samples;
  return shape;
}

// dx[y] = sum over taps k of filter[k] * dy[y + top - k*dilation]. This is a convolution of dy with
// the flipped filter, padded so that the first window ends where x begins.
ConvShape ConvShape::InputGrad(const ConvGeometry& g) {
  ConvShape shape = Forward(g);
  std::swap(shape.channels, shape.outputs);
  std::swap(shape.height, shape.output_height);
  std::swap(shape.width, shape.output_width);
  std::swap(shape.filter_output, shape.filter_channel);
  shape.top = shape.dilation_y * (shape.kernel_height - 1) - shape.top;
  shape.left = shape.dilation_x * (shape.kernel_width - 1) - shape.left;
  shape.flipped = true;
  return shape;
}

}  // namespace gradweave
