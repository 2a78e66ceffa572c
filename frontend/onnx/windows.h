// The windows of ONNX's convolutions and pools: kernel, strides, dilations and paddings along each
// spatial axis.
#ifndef GRADWEAVE_FRONTEND_ONNX_WINDOWS_H_
#define GRADWEAVE_FRONTEND_ONNX_WINDOWS_H_

#include "absl/status/statusor.h"
#include "gradweave/frontend/onnx/importer.h"

namespace gradweave::onnx {

struct Windows {
  Integers kernel, stride, dilation, low, high;  // One number for each spatial axis.
  // From the first tap of a window to the last one, and one.
  int64_t Extent(size_t axis) const { return dilation[axis] * (kernel[axis] - 1) + 1; }
};

// Reads the attributes for x [n, c, ...] and resolves auto_pad. With `ceil_mode`, adds to the
// padding behind x what the last window needs.
absl::StatusOr<Windows> WindowsOf(const Call& call, const Shape& x, Integers kernel);

// The number of windows along an axis of this size.
Dim NumWindows(const Windows& windows, size_t axis, const Dim& size);

// x [n, c, ...] with one spatial axis as one with two, and back.
Value WithTwoAxes(Value x);
Value WithOneAxis(Value x);
Windows WithTwoAxes(Windows windows);

// Convolution of 1 to 3 spatial axes: x [n, c, ...], filter [o, c/groups, ...] -> [n, o, ...].
absl::StatusOr<Value> Convolve(const Call& call, Value x, Value filter, const Windows& windows, int64_t groups);

}  // namespace gradweave::onnx

#endif  // GRADWEAVE_FRONTEND_ONNX_WINDOWS_H_
