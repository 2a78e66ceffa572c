// The windows of ONNX's convolutions and pools: kernel, strides, dilations and paddings along each
// spatial axis.
#ifndef GRADWEAVE_FRONTEND_ONNX_WINDOWS_H_
#define GRADWEAVE_FRONTEND_ONNX_WINDOWS_H_

#include "absl/status/statusor.h"
#include "gradweave/frontend/onnx/importer.h"
#include "gradweave/ops/conv_nd.h"

namespace gradweave::onnx {

struct Windows {
  Integers kernel, stride, dilation, low, high;  // One number for each spatial axis.
  // The number of elements from the first tap of a window to the last one.
  int64_t Extent(size_t axis) const { return dilation[axis] * (kernel[axis] - 1) + 1; }
};

// Reads the attributes for x [n, c, ...] and resolves auto_pad.
absl::StatusOr<Windows> WindowsOf(const Call& call, const Shape& x, Integers kernel);

// The options of a convolution with these windows.
ConvNDOptions OptionsOf(const Windows& windows, int64_t groups);

}  // namespace gradweave::onnx

#endif  // GRADWEAVE_FRONTEND_ONNX_WINDOWS_H_
