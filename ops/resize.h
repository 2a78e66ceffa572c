// Resizing by interpolation along axes, as ONNX's Resize defines it
// (https://onnx.ai/onnx/operators/onnx__Resize.html).
#ifndef GRADWEAVE_OPS_RESIZE_H_
#define GRADWEAVE_OPS_RESIZE_H_

#include <vector>

#include "gradweave/ops/builder.h"

namespace gradweave {

// The position in x of element i of the result. x and the result have n and m elements along an
// axis, and s is the scale: m/n, or the given one.
enum class ResizeCoordinates {
  kHalfPixel,           // (i + 1/2)/s - 1/2.
  kHalfPixelSymmetric,  // The same, moved so that the result lies in the middle of x if m is not n*s.
  kPytorchHalfPixel,    // kHalfPixel, but -1/2 if n*s is 1.
  kAlignCorners,        // i*(n - 1)/(n*s - 1).
  kAsymmetric,          // i/s.
  kTfCropAndResize,     // From start to end of the region of interest.
};

enum class ResizeMethod { kNearest, kLinear, kCubic };

// The choice of the nearest element for a position between two elements.
enum class ResizeNearest { kRoundPreferFloor, kRoundPreferCeil, kFloor, kCeil };

// Options of Resize. The axes have known sizes of at least 1. Either sizes or scales are given,
// with a number for each axis.
struct ResizeOptions {
  Integers axes;               // Negative ones count from the end.
  Integers sizes;              // At least 1.
  std::vector<double> scales;  // Finite and above 0; the size becomes floor(n * scale).
  ResizeMethod method = ResizeMethod::kLinear;
  ResizeCoordinates coordinates = ResizeCoordinates::kHalfPixel;
  ResizeNearest nearest = ResizeNearest::kRoundPreferFloor;
  double cubic_coefficient = -0.75;  // The a of Keys, "Cubic convolution interpolation", 1981.
  // Ignores elements outside of x instead of repeating its outer elements.
  bool exclude_outside = false;
  // Interpolates over 1/s elements if the scale s is below 1. Not for kNearest.
  bool antialias = false;
  // For kTfCropAndResize: start and end along each axis, with 0 at the first and 1 at the last
  // element, and the value of elements outside of x.
  std::vector<double> region_start, region_end;
  double extrapolation = 0;
};
// Returns x resized along the axes one after the other. x is floating, or of any dtype if the
// method is kNearest. The gradient goes to the elements that are interpolated. Errors are recorded
// in the graph.
Value Resize(Operand x, const ResizeOptions& options);

}  // namespace gradweave

#endif  // GRADWEAVE_OPS_RESIZE_H_
